//! pgfw.conf: the settings of a generation, read by the server after its own.

use std::path::Path;

use super::PostgresError;
use super::hba::quote;
use super::stage::Generations;
use crate::config::{Cluster, ClusterAudit, MinTls};

/// Names of the files in a generation.
pub const HBA: &str = "pg_hba.conf";
pub const IDENT: &str = "pg_ident.conf";
pub const CONF: &str = "pgfw.conf";
pub const SERVER_CERT: &str = "server.crt";
pub const SERVER_KEY: &str = "server.key";
pub const CLIENT_CA: &str = "client-ca.crt";

/// (name, value) in the order they are written. Paths go through `current`, so that they never change and one rename
/// replaces certificate and key together. `hba_file` and `ident_file` keep their live names.
pub fn settings(cluster: &Cluster, current: &Path, crl_directory: &Path) -> Vec<(String, String)> {
    let file = |name: &str| current.join(name).to_string_lossy().into_owned();
    let ClusterAudit {
        connections,
        statements,
        json,
        pgaudit,
    } = &cluster.audit;
    let mut all: Vec<(&str, String)> = vec![
        ("listen_addresses", cluster.listen_addresses.join(", ")),
        ("port", cluster.port.to_string()),
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", file(SERVER_CERT)),
        ("ssl_key_file", file(SERVER_KEY)),
        ("ssl_ca_file", file(CLIENT_CA)),
        // Read at every handshake: revocation needs no reload (be-secure-openssl.c: X509_STORE_load_locations).
        ("ssl_crl_dir", crl_directory.to_string_lossy().into_owned()),
        ("ssl_crl_file", String::new()),
        (
            "ssl_min_protocol_version",
            match cluster.min_tls {
                MinTls::V1_2 => "TLSv1.2",
                MinTls::V1_3 => "TLSv1.3",
            }
            .to_owned(),
        ),
        ("ssl_max_protocol_version", String::new()),
        ("log_connections", on_off(*connections)),
        ("log_disconnections", on_off(*connections)),
        ("log_statement", statements.clone()),
    ];
    if *json {
        // jsonlog goes to files of the collector's only (config.sgml: log_destination; from 15 on).
        all.push(("log_destination", "jsonlog".to_owned()));
        all.push(("logging_collector", on_off(true)));
        // A client's name is said by whoever runs its network's DNS, and may look like another's address.
        all.push(("log_hostname", on_off(false)));
    }
    if !pgaudit.is_empty() {
        all.push(("pgaudit.log", pgaudit.join(", ")));
    }
    all.into_iter().map(|(n, v)| (n.to_owned(), v)).collect()
}

/// The same, with every path whole.
///
/// # Errors
/// There is no working directory.
pub(super) fn of_server(
    cluster: &Cluster,
    generations: &Generations,
    crl_directory: &Path,
) -> Result<Vec<(String, String)>, PostgresError> {
    let crls =
        std::path::absolute(crl_directory).map_err(PostgresError::file("cannot find", crl_directory))?;
    Ok(settings(cluster, &generations.current_link(), &crls))
}

/// pgfw.conf's text.
pub fn render(settings: &[(String, String)]) -> String {
    let mut text = String::from(
        "# Written by pgfw from its configuration, replaced at every apply. Change pgfw.toml instead.\n",
    );
    for (name, value) in settings {
        text.push_str(&format!("{name} = {}\n", quote::setting(value)));
    }
    text
}

fn on_off(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}
