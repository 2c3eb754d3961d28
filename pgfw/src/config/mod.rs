//! The checked configuration. Only [`raw`] sees text; everything else sees values that cannot be wrong.

mod access;
mod check;
mod cluster;
mod error;
mod gate;
pub mod raw;
#[cfg(test)]
mod tests;
mod values;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

pub use access::{PROTOCOLS, protocol_number};
pub(crate) use cluster::is_host_name;
pub use error::ConfigError;
pub(crate) use error::near_miss;
pub use values::{check_network, parse_network};

/// `pgfw.toml`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file's text as it was read; a generation in the ledger keeps it.
    pub text: String,
    pub firewall: Firewall,
    pub ssh: Ssh,
    pub postgres: Vec<Cluster>,
    pub services: Vec<Service>,
    pub pki: Pki,
    pub audit: AuditLog,
    /// `None`: no gate.
    pub gate: Option<Gate>,
    pub identities: Vec<Identity>,
    pub logins: Vec<Login>,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file, the line and the key.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let file = || path.to_owned();
        let bytes = std::fs::read(path).map_err(|source| {
            if source.kind() == std::io::ErrorKind::IsADirectory {
                ConfigError::Folder { file: file() }
            } else {
                ConfigError::Read { file: file(), source }
            }
        })?;
        let text = String::from_utf8(bytes).map_err(|error| ConfigError::NotText {
            file: file(),
            line: error.as_bytes()[..error.utf8_error().valid_up_to()]
                .iter()
                .filter(|b| **b == b'\n')
                .count()
                + 1,
        })?;
        Config::parse(&text, path)
    }

    /// Checks a text; `path` is only for messages.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file, the line and the key.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        check::check(text, path)
    }

    pub fn cluster(&self, name: &str) -> Option<&Cluster> {
        self.postgres.iter().find(|c| c.name == name)
    }
    pub fn identity(&self, name: &str) -> Option<&Identity> {
        self.identities.iter().find(|i| i.name == name)
    }
}

/// `[firewall]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// Names or globs (`*`, `?`).
    pub interfaces: Vec<String>,
    pub attach: Attach,
    pub mode: Mode,
    pub on_stop: OnStop,
    /// `None`: not chosen, which is drop.
    pub forwarded: Option<Forwarded>,
    pub dhcp_client: bool,
    pub echo: Echo,
    pub link_layer: Vec<LinkLayer>,
}

/// How the entry program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    Auto,
    Native,
    Generic,
}

/// Whether verdicts are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    Audit,
}

/// What stopping the service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    Keep,
    Detach,
}

/// Flows of sockets that are not this host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    Drop,
    Track,
}

/// Echo requests to this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    Drop,
    Limit,
    Accept,
}

/// What passes besides ARP and IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkLayer {
    /// 802.2 spanning tree: a length field, not an EtherType.
    Stp,
    /// In host order.
    EtherType(u16),
}

/// `[ssh]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    pub ports: Vec<u16>,
    pub allow: Vec<IpNet>,
}

/// One `[[postgres]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub name: String,
    pub location: Location,
    pub port: u16,
    pub allow: Vec<IpNet>,
    pub manage: Manage,
    pub server_names: Vec<ServerName>,
    /// Files that somebody else renews; `None`: pgfw issues the certificate.
    pub server_files: Option<ServerFiles>,
    pub listen_addresses: Vec<String>,
    pub min_tls: MinTls,
    pub on_expiry: OnExpiry,
    /// Extra hba lines; each is of type `local`.
    pub local: Vec<String>,
    pub audit: ClusterAudit,
}

/// A server certificate of certbot or of a company's authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// PEM, the leaf first.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// Where a cluster's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Debian's `15/main`: `/etc/postgresql/15/main`, `/var/lib/postgresql/15/main`.
    Debian {
        major: u16,
        name: String,
    },
    Directories {
        data: PathBuf,
        config_file: PathBuf,
    },
}

/// Who writes the cluster's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manage {
    Files,
    Render,
    None,
}

/// A name or an address in the server certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerName {
    Dns(String),
    Address(IpAddr),
}

/// `ssl_min_protocol_version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinTls {
    V1_2,
    V1_3,
}

/// Sessions of a certificate that expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExpiry {
    Keep,
    End,
}

/// `[audit]`: pgfw's own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLog {
    /// `None`: where this instance has its files; see [`crate::paths::Paths::audit`].
    pub file: Option<PathBuf>,
    pub fsync: Fsync,
    /// Bytes, from which on a file is put aside.
    pub rotate: u64,
}

/// When a line of the audit log is known to be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Each before the next is written.
    Each,
    /// All that came in while the last ones were written.
    Batch,
    /// When the kernel sees fit.
    Off,
}

/// `audit` of one cluster: settings of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterAudit {
    pub connections: bool,
    /// `log_statement`: none, ddl, mod, all.
    pub statements: String,
    /// The log as one JSON object a line, in files of the server's own; otherwise where it goes is not pgfw's.
    pub json: bool,
    /// `pgaudit.log` classes; empty leaves pgaudit alone.
    pub pgaudit: Vec<String>,
}

/// One `[[service]]`: anything else this host serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    /// IP protocol number.
    pub protocol: u8,
    /// Host order; empty for protocols without ports.
    pub ports: Vec<u16>,
    pub allow: Vec<IpNet>,
}

/// `[pki]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pki {
    pub directory: PathBuf,
    pub client_ttl: Duration,
    pub server_ttl: Duration,
    pub crl_ttl: Duration,
    /// A credential of the service: the passphrase of the authorities' keys. `None`: they are in the clear.
    pub key_passphrase_credential: Option<String>,
}

/// The service at the gate's port, and whose certificate it serves.
pub const GATE: &str = "gate";

/// `[gate]`: the listener at which a certificate opens an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    pub listen: SocketAddr,
    pub allow: Vec<IpNet>,
    /// How long a lease lasts, unless the certificate ends before.
    pub lease: Duration,
    /// Of what `/renew` issues, unless its identity's own is shorter.
    pub certificate_ttl: Duration,
}

/// One `[[identity]]`: who may log in with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate's CN; 1 to 63 bytes.
    pub name: String,
    /// PostgreSQL roles; at least one.
    pub roles: Vec<String>,
    /// `None`: all databases; empty: none, for who replicates only.
    pub databases: Option<Vec<String>>,
    /// Physical replication.
    pub replication: bool,
    /// Opened while a certificate is valid; logins must come from there unless roaming. Empty: anywhere the filter admits.
    pub networks: Vec<IpNet>,
    pub roaming: bool,
    pub ttl: Option<Duration>,
    /// A user of this host: the certificate is for a program here, and pgfw renews it.
    pub kept_for: Option<String>,
    /// A unit of systemd that is reloaded when the certificate kept is new.
    pub reload_unit: Option<String>,
}

/// One `[[login]]`: what cannot use certificates yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub name: String,
    pub method: Method,
    pub roles: Vec<String>,
    /// `None`: all databases; empty: none, for who replicates only.
    pub databases: Option<Vec<String>>,
    pub replication: bool,
    pub networks: Vec<IpNet>,
    pub plaintext: Plaintext,
}

/// Authentication methods a login may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    ScramSha256,
    Md5,
}

/// Whether a login may come without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plaintext {
    Never,
    Loopback,
}
