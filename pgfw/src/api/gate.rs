//! What the gate and the daemon say to each other, on a socket of their own; and the gate to its clients.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// In every answer of the gate: the address that the request came from, as it sees it.
pub const SOURCE_HEADER: &str = "pgfw-source";

/// `POST /v1/gate`: what the gate needs to listen.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskMaterial {
    /// What the gate has, by [`Material::hash`].
    pub known: Option<String>,
}

/// The answer; `None`: nothing else than what is known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GivenMaterial {
    pub material: Option<Material>,
}

/// All that the gate works with. It reads no file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Material {
    pub listen: SocketAddr,
    /// PEM.
    pub certificate: String,
    /// PEM, PKCS #8.
    pub key: String,
    /// The client authorities that count, in PEM.
    pub roots: String,
    /// Their lists, each in PEM.
    pub lists: Vec<String>,
    /// Of all of the above.
    pub hash: String,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material")
            .field("listen", &self.listen)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// Whose certificate the gate has verified, and where its connection comes from. The daemon verifies it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Proven {
    /// DER, the leaf first.
    pub chain: Vec<Vec<u8>>,
    pub source: IpAddr,
}

/// `POST /v1/lease/take`, `/v1/lease/show`, `/v1/lease/give-back`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskLease {
    pub proven: Proven,
    /// Shorter than the config's; for `take` only.
    pub seconds: Option<u64>,
}

/// A lease, as its holder is told. What `POST /lease` and `GET /lease` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseState {
    pub identity: String,
    /// The source that was admitted, as this host sees it.
    pub address: IpAddr,
    /// RFC 3339: the lease's end or the certificate's, whichever is first.
    pub until: String,
    /// The same from now, in seconds.
    pub seconds: u64,
    /// The ports that it opens.
    pub ports: Vec<u16>,
    /// The certificate's serial, 32 hexadecimal digits.
    pub serial: String,
}

/// `POST /v1/renew`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskRenewal {
    pub proven: Proven,
    /// PKCS #10 in PEM.
    pub request: String,
}

/// The next certificate. What `POST /renew` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewedClient {
    pub identity: String,
    pub serial: String,
    /// RFC 3339.
    pub until: String,
    /// PEM.
    pub certificate: String,
    /// The server authorities to trust from here on, in PEM.
    pub roots: String,
}

/// What `DELETE /lease` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GivenBack {
    pub address: IpAddr,
}
