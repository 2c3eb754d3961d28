//! Where to connect, and with what: from a section of `pg_service.conf`, or said on the command line.

use std::path::{Path, PathBuf};

use super::{ClientError, GATE_PORT, service_file};

/// What was said on the command line; each stands before what the section says.
#[derive(Debug, Clone, Default)]
pub struct Given {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub root: Option<PathBuf>,
    pub gate_port: Option<u16>,
}

/// One server and the files with which it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The name that the server's certificate has to be for.
    pub host: String,
    /// Where it is, when that is not asked of the name.
    pub hostaddr: Option<String>,
    pub gate_port: u16,
    /// The server's own.
    pub port: u16,
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub root: PathBuf,
}

impl Profile {
    /// A server by its name, with the files where libpq has them.
    pub fn of_host(host: &str, given: Given) -> Profile {
        Profile::new(host.to_owned(), &|_| None, given, &variable)
    }

    /// A section of `pg_service.conf`.
    ///
    /// # Errors
    /// There is none of that name; it has no host.
    pub fn of_service(name: &str, given: Given) -> Result<Profile, ClientError> {
        Profile::read(name, given, &variable)
    }

    pub(super) fn read(
        name: &str,
        given: Given,
        var: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Profile, ClientError> {
        let section = service_file::find(name, &service_file::places(var))?;
        let key = |key: &str| section.get(key).filter(|v| !v.is_empty()).cloned();
        // Several hosts are tried one after the other, and each would need a lease: the first is meant.
        let first = |text: String| text.split(',').next().unwrap_or_default().to_owned();
        let host = key("host").or_else(|| key("hostaddr")).map(first);
        let host = host.filter(|h| !h.is_empty() && !h.starts_with('/'));
        let host = host.ok_or_else(|| ClientError::NoHost {
            name: name.to_owned(),
        })?;
        Ok(Profile::new(host, &|k| key(k).map(first), given, var))
    }

    fn new(
        host: String,
        key: &dyn Fn(&str) -> Option<String>,
        given: Given,
        var: &dyn Fn(&str) -> Option<String>,
    ) -> Profile {
        let Given {
            certificate,
            key: key_file,
            root,
            gate_port,
        } = given;
        let home = var("HOME").unwrap_or_default();
        // libpq, "Client Certificates": ~/.postgresql, unless a variable or a setting says otherwise.
        let file = |said: Option<PathBuf>, setting: &str, variable: &str, name: &str| {
            said.or_else(|| key(setting).map(PathBuf::from))
                .or_else(|| var(variable).map(PathBuf::from))
                .unwrap_or_else(|| Path::new(&home).join(".postgresql").join(name))
        };
        Profile {
            hostaddr: key("hostaddr"),
            gate_port: gate_port.unwrap_or(GATE_PORT),
            port: key("port")
                .or_else(|| var("PGPORT"))
                .and_then(|port| port.parse().ok())
                .unwrap_or(5432),
            certificate: file(certificate, "sslcert", "PGSSLCERT", "postgresql.crt"),
            key: file(key_file, "sslkey", "PGSSLKEY", "postgresql.key"),
            root: file(root, "sslrootcert", "PGSSLROOTCERT", "root.crt"),
            host,
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
