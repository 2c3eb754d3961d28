//! `pgfw cert issue NAME --bundle DIR`: what a client needs, as libpq wants it.

use std::path::{Path, PathBuf};

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;

use super::issue::Issued;
use super::store::Store;
use super::{PkiError, files};
use crate::ledger::types::Authority;

/// Where the client will connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleTarget {
    /// One of the server certificate's names.
    pub host: String,
    pub port: u16,
    pub database: String,
    pub user: String,
    pub trust: Trust,
}

/// By what the client knows the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// pgfw's server authority.
    Own,
    /// Another's, in PEM.
    Root(String),
    /// A public one, which the client's system knows (libpq from 16 on).
    System,
}

/// What was written, and how to use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bundle {
    /// Absolute.
    pub folder: PathBuf,
    /// The section of `pg_service.conf`.
    pub service: String,
    /// A shell command that connects with it.
    pub command: String,
}

/// Writes `postgresql.crt`, `postgresql.key` and the same as `postgresql.pk8` for Java (unless the key stayed with the requester), `root.crt` and
/// `pg_service.conf`.
///
/// # Errors
/// [`PkiError::Name`] for a name that `pg_service.conf` cannot hold; files that cannot be read or written.
pub fn write_bundle(
    store: &Store,
    issued: &Issued,
    target: &BundleTarget,
    folder: &Path,
) -> Result<Bundle, PkiError> {
    let folder = std::path::absolute(folder).map_err(|source| PkiError::Write {
        file: folder.to_owned(),
        source,
    })?;
    let service = files::component(&issued.certificate.name);
    let section = section(&service, issued, target, &folder)?;
    // A folder that stands is somebody's: its mode and its other files stay.
    if !folder.is_dir() {
        files::make_folder(&folder, 0o700)?;
    }
    if let Some(key) = &issued.key_file {
        let content = files::read(key)?;
        files::write(&folder.join("postgresql.key"), content.as_bytes(), files::PRIVATE)?;
        // What pgjdbc reads as `sslkey`: the same key in PKCS #8 and DER.
        let der = PrivatePkcs8KeyDer::from_pem_slice(content.as_bytes()).map_err(|_| PkiError::Damaged {
            file: key.clone(),
            detail: "it holds no private key in PKCS #8 and PEM".into(),
        })?;
        files::write(
            &folder.join("postgresql.pk8"),
            der.secret_pkcs8_der(),
            files::PRIVATE,
        )?;
    }
    let root = match &target.trust {
        Trust::Own => Some(store.roots(Authority::Server)?),
        Trust::Root(pem) => Some(pem.clone()),
        Trust::System => None,
    };
    files::write(
        &folder.join("postgresql.crt"),
        issued.certificate.pem.as_bytes(),
        files::PUBLIC,
    )?;
    if let Some(root) = root {
        files::write(&folder.join("root.crt"), root.as_bytes(), files::PUBLIC)?;
    }
    files::write(&folder.join("pg_service.conf"), section.as_bytes(), files::PUBLIC)?;
    let file = folder.join("pg_service.conf");
    let command = format!(
        "PGSERVICEFILE={} psql service={}",
        quoted(&file.to_string_lossy()),
        quoted(&service)
    );
    Ok(Bundle {
        folder,
        service,
        command,
    })
}

/// libpq reads a line as it stands, without quotes or escapes (parseServiceFile in fe-connect.c).
fn section(service: &str, issued: &Issued, target: &BundleTarget, folder: &Path) -> Result<String, PkiError> {
    let BundleTarget {
        host,
        port,
        database,
        user,
        trust,
    } = target;
    let path = |file: &str| folder.join(file).display().to_string();
    let settings = [
        ("host", host.clone()),
        ("port", port.to_string()),
        ("dbname", database.clone()),
        ("user", user.clone()),
        ("sslmode", "verify-full".into()),
        (
            "sslrootcert",
            match trust {
                Trust::Own | Trust::Root(_) => path("root.crt"),
                Trust::System => "system".into(),
            },
        ),
        ("sslcert", path("postgresql.crt")),
        ("sslkey", path("postgresql.key")),
    ];
    let mut text = format!(
        "# Connects as {user}. Where the files move to another folder, change the three paths; the key keeps mode 0600.\n\
         [{service}]\n"
    );
    if issued.key_file.is_none() {
        text.insert_str(
            0,
            "# Put the key that the request was made with beside this file, as postgresql.key.\n",
        );
    }
    for (key, value) in settings {
        if value.chars().any(char::is_control) || value.trim() != value {
            let name = format!("{key}={}", value.escape_debug());
            return Err(PkiError::Name {
                name,
                why: "pg_service.conf cannot hold it",
            });
        }
        text.push_str(&format!("{key}={value}\n"));
    }
    Ok(text)
}

/// For a POSIX shell.
fn quoted(text: &str) -> String {
    if !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/._@+-%:".contains(&b))
    {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}
