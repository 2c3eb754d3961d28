//! A scratch server that pgfw manages: its authorities, its configuration, attempts to log in.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use pgfw::config::Config;
use pgfw::paths::Paths;
use pgfw::postgres::tls::{self, Credential, Version};
use pgfw::postgres::wire::{self, Answer, Startup};
use pgfw::postgres::{Applied, Options, PostgresError, Step, TlsMaterial, apply};

use super::pki::{Authority, Leaf};
use super::{PORT, Scratch};

#[derive(Debug)]
pub struct Managed {
    pub scratch: Scratch,
    pub servers: Authority,
    pub clients: Authority,
    pub material: TlsMaterial,
    pub paths: Paths,
}

impl Managed {
    /// Takes a scratch server; nothing is applied yet.
    pub fn new(scratch: Scratch) -> Managed {
        let servers = Authority::new("servers");
        let clients = Authority::new("clients");
        let server = servers.server("db.example.com", &[0x51, 1]);
        let state_dir = scratch.place("state");
        let paths = Paths {
            config: scratch.place("pgfw.toml"),
            socket: scratch.place("pgfw.sock"),
            bpffs: scratch.place("bpf"),
            state_dir,
        };
        let crl_dir = paths.postgres("main").join("crl");
        clients.publish(&crl_dir, &[]);
        let material = TlsMaterial {
            server_cert_pem: server.certificate,
            server_key_pem: server.key,
            client_ca_pem: clients.certificate.clone(),
            canary: None,
            crl_dir,
        };
        Managed {
            scratch,
            servers,
            clients,
            material,
            paths,
        }
    }

    /// A configuration: keys of the cluster, then further sections.
    pub fn config(&self, keys: &str, sections: &str) -> Config {
        let data = self.scratch.data();
        let text = format!(
            "[[postgres]]\nname = \"main\"\ndata_directory = \"{}\"\nport = {PORT}\n{keys}\n{sections}",
            data.display()
        );
        Config::parse(&text, Path::new("pgfw.toml")).expect("a configuration")
    }

    /// # Errors
    /// Those of [`apply`].
    pub fn apply(&self, config: &Config) -> Result<Applied, PostgresError> {
        self.apply_with(config, Options::default())
    }

    /// # Errors
    /// Those of [`apply`].
    pub fn apply_with(&self, config: &Config, options: Options) -> Result<Applied, PostgresError> {
        apply(&config.postgres[0], config, &self.paths, &self.material, &options)
    }
}

/// One attempt over TLS; a refusal in the handshake is an error.
///
/// # Errors
/// I/O, and the server's alert.
pub fn log_in(from: IpAddr, leaf: Option<&Leaf>, startup: &Startup) -> io::Result<Answer> {
    tls::connect(at(from), leaf.map(credential), Version::V1_3)?.start_up(startup)
}

/// One attempt without TLS.
///
/// # Errors
/// I/O.
pub fn log_in_plaintext(from: IpAddr, startup: &Startup) -> io::Result<Answer> {
    wire::start_up(&mut std::net::TcpStream::connect(at(from))?, startup)
}

pub fn credential(leaf: &Leaf) -> Credential<'_> {
    Credential {
        certificate: &leaf.certificate,
        key: &leaf.key,
    }
}

pub fn to<'a>(user: &'a str, database: &'a str) -> Startup<'a> {
    Startup {
        user,
        database,
        replication: false,
    }
}

/// The server at an address of this namespace: the connection's source is the same address.
pub fn at(from: IpAddr) -> SocketAddr {
    SocketAddr::new(from, PORT)
}

/// A string for TOML.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The steps' names.
pub fn steps(steps: &[Step]) -> Vec<&'static str> {
    steps
        .iter()
        .map(|s| match s {
            Step::Written { directory: _ } => "written",
            Step::RulesTried { .. } => "tried",
            Step::Switched => "switched",
            Step::Reloaded { pid: _ } => "reloaded",
            Step::RulesProven { marker: _ } => "rules",
            Step::TlsProven { serial: _ } => "tls",
            Step::NoTcp => "no tcp",
            Step::AtNextStart => "at next start",
            Step::RenderedOnly => "rendered",
        })
        .collect()
}
