//! The file as it is written: one struct a section, every key optional that has a default, unknown keys refused.

use serde::Deserialize;
use toml::Spanned;

/// A string that remembers where it stood, so that what is wrong with it can be shown with its line.
pub type Text = Spanned<String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub firewall: Firewall,
    #[serde(default)]
    pub ssh: Ssh,
    #[serde(default)]
    pub postgres: Vec<Cluster>,
    #[serde(default)]
    pub service: Vec<Service>,
    #[serde(default)]
    pub pki: Pki,
    pub gate: Option<Gate>,
    #[serde(default)]
    pub audit: Audit,
    #[serde(default)]
    pub identity: Vec<Identity>,
    #[serde(default)]
    pub login: Vec<Login>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Firewall {
    pub interfaces: Option<Vec<Text>>,
    pub attach: Option<Text>,
    pub mode: Option<Text>,
    pub on_stop: Option<Text>,
    pub forwarded: Option<Text>,
    pub dhcp_client: Option<bool>,
    pub echo: Option<Text>,
    pub link_layer: Option<Vec<Text>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ssh {
    pub ports: Option<Vec<Spanned<u16>>>,
    pub allow: Option<Vec<Text>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    pub name: Text,
    pub cluster: Option<Text>,
    pub data_directory: Option<Text>,
    pub config_file: Option<Text>,
    pub port: Option<Spanned<u16>>,
    #[serde(default)]
    pub allow: Vec<Text>,
    pub manage: Option<Text>,
    #[serde(default)]
    pub server_names: Vec<Text>,
    pub server_certificate: Option<Text>,
    pub server_key: Option<Text>,
    pub listen_addresses: Option<Vec<Text>>,
    pub min_tls: Option<Text>,
    pub on_expiry: Option<Text>,
    pub local: Option<Vec<Text>>,
    #[serde(default)]
    pub audit: ClusterAudit,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterAudit {
    pub connections: Option<bool>,
    pub statements: Option<Text>,
    pub json: Option<bool>,
    #[serde(default)]
    pub pgaudit: Vec<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    pub name: Text,
    pub protocol: Option<Text>,
    #[serde(default)]
    pub ports: Vec<Text>,
    #[serde(default)]
    pub allow: Vec<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pki {
    pub directory: Option<Text>,
    pub client_ttl: Option<Text>,
    pub server_ttl: Option<Text>,
    pub crl_ttl: Option<Text>,
    pub key_passphrase_credential: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    pub file: Option<Text>,
    pub fsync: Option<Text>,
    pub rotate: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    pub listen: Option<Text>,
    pub allow: Option<Vec<Text>>,
    pub lease: Option<Text>,
    pub certificate_ttl: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub name: Text,
    pub roles: Option<Vec<Text>>,
    pub databases: Option<Vec<Text>>,
    #[serde(default)]
    pub replication: bool,
    #[serde(default)]
    pub networks: Vec<Text>,
    #[serde(default)]
    pub roaming: bool,
    pub ttl: Option<Text>,
    pub kept_for: Option<Text>,
    pub reload_unit: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    pub name: Text,
    pub method: Text,
    pub roles: Option<Vec<Text>>,
    pub databases: Option<Vec<Text>>,
    #[serde(default)]
    pub replication: bool,
    pub networks: Vec<Text>,
    pub plaintext: Option<Text>,
}
