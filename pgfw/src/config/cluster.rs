//! `[[postgres]]`: one cluster of this host.

use toml::Spanned;

use super::raw::{self, Text};
use super::values::File;
use super::*;

impl File<'_> {
    pub(super) fn cluster(&self, raw: raw::Cluster) -> Result<Cluster, ConfigError> {
        let raw::Cluster {
            name,
            cluster,
            data_directory,
            config_file,
            port,
            allow,
            manage,
            server_names,
            server_certificate,
            server_key,
            listen_addresses,
            min_tls,
            on_expiry,
            local,
            audit,
        } = raw;
        let location = match (cluster, data_directory) {
            (Some(c), None) => self.debian_cluster(&c)?,
            (None, Some(d)) => {
                let data = self.path(&d, "postgres.data_directory")?;
                let config_file = match config_file {
                    Some(f) => self.path(&f, "postgres.config_file")?,
                    None => data.join("postgresql.conf"),
                };
                Location::Directories { data, config_file }
            }
            (Some(c), Some(_)) => {
                return Err(self.value(
                    &c,
                    "postgres.cluster",
                    "`cluster` and `data_directory` are both given",
                    "Keep `cluster` for a Debian cluster, or `data_directory` for any other.",
                ));
            }
            (None, None) => {
                return Err(self.value(
                    &name,
                    "postgres",
                    format!("`{}` does not say where its files are", name.as_ref()),
                    "Add cluster = \"15/main\" (see pg_lsclusters), or data_directory = \"…\".",
                ));
            }
        };
        let statements = match audit.statements {
            None => "ddl".to_owned(),
            some => self
                .word(
                    some,
                    "postgres.audit.statements",
                    "ddl",
                    &[("none", "none"), ("ddl", "ddl"), ("mod", "mod"), ("all", "all")],
                )?
                .to_owned(),
        };
        let local = match local {
            None => vec!["local all all peer".to_owned()],
            Some(lines) => self.all(lines, |f, l| f.local_line(l))?,
        };
        Ok(Cluster {
            name: self.slug(&name, "postgres.name")?,
            location,
            port: port.map_or(Ok(5432), |p| self.port(&p, "postgres.port"))?,
            allow: self.networks(allow, "postgres.allow")?,
            manage: self.word(
                manage,
                "postgres.manage",
                Manage::Files,
                &[
                    ("files", Manage::Files),
                    ("render", Manage::Render),
                    ("none", Manage::None),
                ],
            )?,
            server_names: self.all(server_names, |f, n| f.server_name(n))?,
            server_files: self.server_files(server_certificate, server_key)?,
            listen_addresses: listen_addresses.map_or_else(
                || vec!["*".to_owned()],
                |l| l.into_iter().map(Spanned::into_inner).collect(),
            ),
            min_tls: self.word(
                min_tls,
                "postgres.min_tls",
                MinTls::V1_3,
                &[("1.2", MinTls::V1_2), ("1.3", MinTls::V1_3)],
            )?,
            on_expiry: self.word(
                on_expiry,
                "postgres.on_expiry",
                OnExpiry::Keep,
                &[("keep", OnExpiry::Keep), ("end", OnExpiry::End)],
            )?,
            local,
            audit: ClusterAudit {
                connections: audit.connections.unwrap_or(true),
                statements,
                json: audit.json.unwrap_or(false),
                pgaudit: self.all(audit.pgaudit, |f, class| f.audit_class(&class))?,
            },
        })
    }

    /// A class of pgaudit's (pgaudit.c: `check_pgaudit_log`). A server takes another for a moment and then audits nothing.
    fn audit_class(&self, class: &Text) -> Result<String, ConfigError> {
        let name = class.as_ref().trim().to_ascii_lowercase();
        if AUDIT_CLASSES.contains(&name.strip_prefix('-').unwrap_or(&name)) {
            return Ok(name);
        }
        Err(self.value(
            class,
            "postgres.audit.pgaudit",
            format!("`{}` is no class of pgaudit's", class.as_ref()),
            format!(
                "Write some of: {}; `-` before one takes it out.",
                AUDIT_CLASSES.join(", ")
            ),
        ))
    }

    fn server_files(
        &self,
        certificate: Option<Text>,
        key: Option<Text>,
    ) -> Result<Option<ServerFiles>, ConfigError> {
        match (certificate, key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(ServerFiles {
                certificate: self.path(&certificate, "postgres.server_certificate")?,
                key: self.path(&key, "postgres.server_key")?,
            })),
            (Some(one), None) | (None, Some(one)) => Err(self.value(
                &one,
                "postgres.server_certificate",
                format!(
                    "`{}` stands without the other of server_certificate and server_key",
                    one.as_ref()
                ),
                "Name both files, or neither: pgfw then issues the certificate.",
            )),
        }
    }

    fn debian_cluster(&self, text: &Text) -> Result<Location, ConfigError> {
        let refused = || {
            self.value(
                text,
                "postgres.cluster",
                format!("`{}` is not a Debian cluster", text.as_ref()),
                "Write the major version and the name as pg_lsclusters shows them, like \"15/main\".",
            )
        };
        let (major, name) = text.as_ref().split_once('/').ok_or_else(refused)?;
        let major = major.parse().map_err(|_| refused())?;
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(refused());
        }
        Ok(Location::Debian {
            major,
            name: name.to_owned(),
        })
    }

    fn local_line(&self, line: Text) -> Result<String, ConfigError> {
        let text = line.as_ref();
        if text.split_whitespace().next() != Some("local")
            || text.contains(['\n', '\r', '\0'])
            || text.ends_with('\\')
        {
            return Err(self.value(
                &line,
                "postgres.local",
                format!("`{text}` is not one pg_hba line of type local"),
                "Extra lines are of type local only, like \"local all all peer\"; everything else is an identity or a login.",
            ));
        }
        Ok(line.into_inner())
    }

    fn server_name(&self, name: Text) -> Result<ServerName, ConfigError> {
        if let Ok(address) = name.as_ref().parse() {
            return Ok(ServerName::Address(address));
        }
        let text = name.as_ref();
        if !is_host_name(text) {
            return Err(self.value(
                &name,
                "postgres.server_names",
                format!("`{text}` is neither a host name nor an address"),
                "Write the names clients connect to, like \"db.example.com\" or \"192.168.0.1\".",
            ));
        }
        Ok(ServerName::Dns(name.into_inner()))
    }
}

/// Whether `server_names` takes it: labels of letters, digits, `-` and `_` (RFC 1123, 2.1, and what is in use).
pub(crate) fn is_host_name(name: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.split('.').all(label)
}

const AUDIT_CLASSES: [&str; 9] = [
    "all", "ddl", "function", "misc", "misc_set", "none", "read", "role", "write",
];
