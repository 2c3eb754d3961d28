//! Why a client has no lease.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::failure::{Code, Explain};

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("there is no service `{name}` in {}", looked.join(", "))]
    NoService { name: String, looked: Vec<String> },
    #[error("line {line} of {} is not understood", file.display())]
    ServiceLine { file: PathBuf, line: usize },
    #[error("the service `{name}` has no host")]
    NoHost { name: String },
    #[error("{} cannot be read", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{} cannot be written", file.display())]
    Write { file: PathBuf, source: std::io::Error },
    #[error("{}: {detail}", file.display())]
    File { file: PathBuf, detail: String },
    #[error("the certificate in {} ended at {end}", file.display())]
    Ended { file: PathBuf, end: String },
    #[error("{host} is no name or address that can be connected to")]
    Resolve { host: String, source: std::io::Error },
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error("the gate at {gate} does not answer")]
    Silent { gate: SocketAddr },
    #[error("the gate at {gate} cannot be reached")]
    Connect {
        gate: SocketAddr,
        source: std::io::Error,
    },
    #[error("the gate at {gate} is not the one that {} vouches for", root.display())]
    NotTheGate {
        gate: SocketAddr,
        root: PathBuf,
        source: std::io::Error,
    },
    #[error("the gate at {gate} does not take the certificate in {}", file.display())]
    Refused {
        gate: SocketAddr,
        file: PathBuf,
        source: std::io::Error,
    },
    #[error("what answers at {gate} is no gate of pgfw")]
    NoGate { gate: SocketAddr },
    /// Carrier-grade NAT, or several ways out: a lease is one address.
    #[error("this network has more than one address: the gate saw {first}, and then {then}")]
    Addresses { first: IpAddr, then: IpAddr },
    /// The same, where the way out depends on the port.
    #[error(
        "the lease is for {leased}, and {server} does not answer: connections to it leave this network from another address than those to the gate, or something on the way drops them"
    )]
    OtherWayOut { leased: IpAddr, server: SocketAddr },
    #[error("`{command}` cannot be started")]
    Command { command: String, source: std::io::Error },
    #[error("this process has no runtime")]
    Runtime { source: std::io::Error },
}

impl Explain for ClientError {
    fn code(&self) -> Code {
        match self {
            ClientError::NoService { .. }
            | ClientError::ServiceLine { .. }
            | ClientError::NoHost { .. }
            | ClientError::Read { .. }
            | ClientError::Write { .. }
            | ClientError::File { .. } => Code::Invalid,
            ClientError::Command { command: _, source } if source.kind() == ErrorKind::NotFound => {
                Code::Invalid
            }
            ClientError::Resolve { .. }
            | ClientError::NoAddress { .. }
            | ClientError::Silent { .. }
            | ClientError::Connect { .. } => Code::Unreachable,
            ClientError::Ended { .. }
            | ClientError::NotTheGate { .. }
            | ClientError::Refused { .. }
            | ClientError::NoGate { .. }
            | ClientError::Addresses { .. }
            | ClientError::OtherWayOut { .. }
            | ClientError::Command { .. }
            | ClientError::Runtime { .. } => Code::Refused,
        }
    }

    fn remedy(&self) -> String {
        match self {
            ClientError::NoService { .. } => {
                "Name a section of pg_service.conf, or the file with PGSERVICEFILE.".into()
            }
            ClientError::ServiceLine { .. } => "Write `[name]` or `key=value`, as libpq wants it.".into(),
            ClientError::NoHost { .. } => "Add a line host=… to that section.".into(),
            ClientError::Read { .. } | ClientError::File { .. } => {
                "Name the files with --cert, --key and --root, or in pg_service.conf with sslcert, sslkey and sslrootcert."
                    .into()
            }
            ClientError::Write { .. } => "Make its folder writable for you: the next certificate goes there.".into(),
            ClientError::Ended { .. } | ClientError::Refused { .. } => {
                "Ask whoever runs the database for a new one (pgfw cert issue).".into()
            }
            ClientError::Resolve { .. } | ClientError::NoAddress { .. } => "Correct the host.".into(),
            ClientError::Silent { .. } | ClientError::Connect { .. } => {
                "See that the gate runs there, that its [gate] allow has your network, and that --gate-port is its port."
                    .into()
            }
            ClientError::NotTheGate { .. } => {
                "Connect by a name in the server's certificate, and name the authority's certificate with --root.".into()
            }
            ClientError::NoGate { .. } => "Name the gate's port with --gate-port.".into(),
            ClientError::Addresses { .. } => {
                "A lease is for one address, so carrier-grade NAT that spreads connections cannot have one: use another network, a VPN, or ask for its range in `networks` of your identity."
                    .into()
            }
            ClientError::OtherWayOut { .. } => {
                "See whether this network's NAT (or VPN) treats the two ports differently; on the server `pgfw events --reason service-closed` shows which address arrives."
                    .into()
            }
            ClientError::Command { .. } => "Name a program, like: pgfw connect prod -- psql".into(),
            ClientError::Runtime { .. } => "Look at this process's limits (ulimit -a).".into(),
        }
    }
}
