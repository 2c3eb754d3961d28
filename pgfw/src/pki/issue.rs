//! Issuing: `pgfw cert issue NAME`, `pgfw cert server`.
//!
//! The ledger first, then the files: what exists on a disk somewhere is always known, and can be revoked. Until its
//! files stand it counts as revoked: an issue that is cut off anywhere opens nothing for what nobody holds. It stays
//! revoked then, and another is issued.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{PublicKeyData, SanType, SubjectPublicKeyInfo};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::init::CANARY;
use super::key::{Key, KeyKind};
use super::leaf::{Leaf, check_name};
use super::store::{SERVER_CERTIFICATE, SERVER_KEY, Store};
use super::{PkiError, files};
use crate::clock::WallTime;
use crate::config::ServerName;
use crate::ledger::Ledger;
use crate::ledger::types::{Authority, Certificate};

/// PostgreSQL's bootstrap superuser.
const SUPERUSER: &str = "postgres";
const MIN_RSA_BITS: usize = 2048;

/// What `pgfw cert issue` is told.
#[derive(Debug, Clone, Copy)]
pub struct ClientRequest<'a> {
    /// The identity; becomes the CN.
    pub name: &'a str,
    pub ttl: Duration,
    /// A PKCS #10 request in PEM, whose key is used and everything else ignored; `None` makes a key.
    pub csr: Option<&'a str>,
    /// Of the key that is made here.
    pub kind: KeyKind,
    /// `--superuser`
    pub superuser: bool,
    pub requester: &'a str,
    pub reason: Option<&'a str>,
}

/// What `pgfw cert server` is told.
#[derive(Debug, Clone, Copy)]
pub struct ServerRequest<'a> {
    /// The `[[postgres]]` entry's name.
    pub cluster: &'a str,
    /// At least one.
    pub names: &'a [ServerName],
    pub ttl: Duration,
    pub requester: &'a str,
}

/// What an identity that holds a certificate asks for: the next one.
#[derive(Debug, Clone, Copy)]
pub struct NextRequest<'a> {
    /// The identity; becomes the CN.
    pub name: &'a str,
    pub ttl: Duration,
    /// PKCS #10 in PEM, whose key is used and everything else ignored.
    pub csr: &'a str,
    pub requester: &'a str,
    pub reason: Option<&'a str>,
}

/// A certificate that stands in the ledger and on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Issued {
    pub certificate: Certificate,
    /// The link to the folder that holds it.
    pub folder: PathBuf,
    pub certificate_file: PathBuf,
    /// `None`: the key stays with whoever made the request.
    pub key_file: Option<PathBuf>,
    /// It ends before the time that was asked for, because its authority does.
    pub shortened: bool,
}

/// Issues a client certificate; that it names an identity of the config is the caller's to check.
///
/// # Errors
/// [`PkiError`]
pub fn issue_client(
    store: &Store,
    ledger: &mut Ledger,
    request: &ClientRequest<'_>,
    now: WallTime,
) -> Result<Issued, PkiError> {
    let ClientRequest {
        name,
        ttl,
        csr,
        kind,
        superuser,
        requester,
        reason,
    } = *request;
    check_name(name)?;
    if name == CANARY {
        return Err(PkiError::Name {
            name: name.into(),
            why: "it is kept for the revoked canary",
        });
    }
    if name == SUPERUSER && !superuser {
        return Err(PkiError::Superuser { name: name.into() });
    }
    let authority = store.signing(Authority::Client)?;
    let leaf = Leaf {
        name,
        alternatives: Vec::new(),
        ttl,
        requester,
        reason,
    };
    let (certificate, key) = match csr {
        Some(text) => (leaf.sign(&authority, &requested_key(text, name)?, now)?, None),
        None => {
            let key = Key::generate_as(kind)?;
            (leaf.sign(&authority, &key, now)?, Some(key))
        }
    };
    let component = files::component(name);
    let (certificate_name, key_name) = (format!("{component}.crt"), format!("{component}.key"));
    let folder = hand_out(
        ledger,
        &certificate,
        &store.issued_folder(),
        &component,
        |folder| {
            if let Some(key) = &key {
                key.write(&folder.join(&key_name))?;
            }
            files::write(
                &folder.join(&certificate_name),
                certificate.pem.as_bytes(),
                files::PUBLIC,
            )?;
            files::write(
                &folder.join("ca.crt"),
                store.roots(Authority::Server)?.as_bytes(),
                files::PUBLIC,
            )
        },
    )?;
    Ok(Issued {
        certificate_file: folder.join(certificate_name),
        key_file: key.map(|_| folder.join(key_name)),
        shortened: shortened(&certificate, ttl, now),
        certificate,
        folder,
    })
}

/// Issues a certificate to whoever holds the key of a request. Nothing of it is kept but the record: it goes back the way
/// the request came, and what does not arrive is of no use without the key.
///
/// # Errors
/// [`PkiError`]
pub fn issue_next(
    store: &Store,
    ledger: &mut Ledger,
    request: &NextRequest<'_>,
    now: WallTime,
) -> Result<Certificate, PkiError> {
    let NextRequest {
        name,
        ttl,
        csr,
        requester,
        reason,
    } = *request;
    check_name(name)?;
    let key = requested_key(csr, name)?;
    let leaf = Leaf {
        name,
        alternatives: Vec::new(),
        ttl,
        requester,
        reason,
    };
    let certificate = leaf.sign(&store.signing(Authority::Client)?, &key, now)?;
    ledger.record_certificate(&certificate)?;
    Ok(certificate)
}

/// Issues a cluster's server certificate; [`Store::server_pair`] finds it.
///
/// # Errors
/// [`PkiError`]
pub fn issue_server(
    store: &Store,
    ledger: &mut Ledger,
    request: &ServerRequest<'_>,
    now: WallTime,
) -> Result<Issued, PkiError> {
    let ServerRequest {
        cluster,
        names,
        ttl,
        requester,
    } = *request;
    let text = |name: &ServerName| match name {
        ServerName::Dns(dns) => dns.clone(),
        ServerName::Address(address) => address.to_string(),
    };
    let Some(first) = names.first().map(text) else {
        return Err(PkiError::NoServerNames {
            cluster: cluster.into(),
        });
    };
    // Clients read the SANs; the CN is for people, and must fit.
    let common_name = if check_name(&first).is_ok() {
        first.as_str()
    } else {
        cluster
    };
    check_name(common_name)?;
    let alternatives = names
        .iter()
        .map(|name| match name {
            ServerName::Dns(dns) => dns.as_str().try_into().map(SanType::DnsName),
            ServerName::Address(address) => Ok(SanType::IpAddress(*address)),
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(PkiError::crypto(format!(
            "the server certificate of cluster {cluster}"
        )))?;
    let authority = store.signing(Authority::Server)?;
    let key = Key::generate()?;
    let leaf = Leaf {
        name: common_name,
        alternatives,
        ttl,
        requester,
        reason: None,
    };
    let certificate = leaf.sign(&authority, &key, now)?;
    let component = files::component(cluster);
    let folder = hand_out(
        ledger,
        &certificate,
        &store.server_folder(),
        &component,
        |folder| {
            key.write(&folder.join(SERVER_KEY))?;
            files::write(
                &folder.join(SERVER_CERTIFICATE),
                certificate.pem.as_bytes(),
                files::PUBLIC,
            )
        },
    )?;
    Ok(Issued {
        certificate_file: folder.join(SERVER_CERTIFICATE),
        key_file: Some(folder.join(SERVER_KEY)),
        shortened: shortened(&certificate, ttl, now),
        certificate,
        folder,
    })
}

/// Records a certificate, puts it in place, and only then has it count; or leaves nothing of it but the record that it
/// was given up. Returns the link.
fn hand_out(
    ledger: &mut Ledger,
    certificate: &Certificate,
    parent: &Path,
    name: &str,
    fill: impl FnOnce(&Path) -> Result<(), PkiError>,
) -> Result<PathBuf, PkiError> {
    ledger.begin_issue(certificate)?;
    let installed = Installed::put(parent, name, &certificate.serial, fill)?;
    let done = installed
        .remove_older()
        .and_then(|()| Ok(ledger.complete_issue(certificate)?));
    match done {
        Ok(()) => Ok(installed.link),
        Err(error) => {
            installed.take_back();
            Err(error)
        }
    }
}

/// A folder `.NAME.SERIAL/`, and the link `NAME` that leads to it.
struct Installed {
    parent: PathBuf,
    link: PathBuf,
    /// The folder's name.
    target: String,
    /// Where the link led before.
    replaced: Option<String>,
}

impl Installed {
    /// Fills the folder, then points the link at it.
    fn put(
        parent: &Path,
        name: &str,
        serial: &str,
        fill: impl FnOnce(&Path) -> Result<(), PkiError>,
    ) -> Result<Installed, PkiError> {
        files::make_folder(parent, 0o700)?;
        let link = parent.join(name);
        let target = format!(".{name}.{serial}");
        let replaced = std::fs::read_link(&link)
            .ok()
            .and_then(|t| t.into_os_string().into_string().ok());
        let installed = Installed {
            parent: parent.to_owned(),
            link,
            target,
            replaced,
        };
        files::make_folder_with(&installed.folder(), fill)?;
        if let Err(error) = files::switch_link(&installed.link, &installed.target) {
            installed.take_back();
            return Err(error);
        }
        Ok(installed)
    }

    /// Removes what is older than the folder that this one replaced: whoever has just followed the link can still read.
    fn remove_older(&self) -> Result<(), PkiError> {
        let prefix = self.target.trim_end_matches(|c: char| c != '.');
        let serial = self.target.len() - prefix.len();
        for old in files::names_in(&self.parent)? {
            let whole = old.strip_prefix(prefix).is_some_and(|rest| rest.len() == serial);
            // The scratch folder of an issue that was cut off; it holds a key.
            let unfinished = old.strip_prefix('.').is_some_and(|rest| rest.starts_with(prefix));
            if (whole || unfinished) && old != self.target && Some(&old) != self.replaced.as_ref() {
                let folder = self.parent.join(&old);
                std::fs::remove_dir_all(&folder)
                    .map_err(|source| PkiError::Write { file: folder, source })?;
            }
        }
        Ok(())
    }

    /// What cannot be taken back lies there, revoked, and opens nothing.
    fn take_back(&self) {
        let led_here = std::fs::read_link(&self.link).is_ok_and(|t| t.as_os_str() == self.target.as_str());
        let back = match &self.replaced {
            _ if !led_here => Ok(()),
            Some(before) => files::switch_link(&self.link, before).map_err(drop),
            None => std::fs::remove_file(&self.link).map_err(drop),
        };
        if back.is_ok() {
            let _ = std::fs::remove_dir_all(self.folder());
        }
    }

    fn folder(&self) -> PathBuf {
        self.parent.join(&self.target)
    }
}

/// The key of a PKCS #10 request, after proof of possession. Subject and extensions are the authority's to choose;
/// a request that names somebody else is a mix-up.
fn requested_key(text: &str, name: &str) -> Result<impl PublicKeyData + use<>, PkiError> {
    let refused = |detail: String| PkiError::Request { detail };
    let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes())
        .map_err(|_| refused("it holds no CERTIFICATE REQUEST in PEM".into()))?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|e| refused(e.to_string()))?;
    let info = &request.certification_request_info;
    if let Some(other) = info
        .subject
        .iter_common_name()
        .filter_map(|cn| cn.as_str().ok())
        .find(|cn| *cn != name)
    {
        return Err(refused(format!(
            "it names `{}`, not `{name}`",
            other.escape_debug()
        )));
    }
    match info.subject_pki.parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() < MIN_RSA_BITS => {
            return Err(refused(format!(
                "an RSA key of {} bits is too short",
                rsa.key_size()
            )));
        }
        Ok(_) => {}
        Err(e) => return Err(refused(e.to_string())),
    }
    // Not rcgen's own reading of requests: it takes the curve of the key from the signature's algorithm.
    let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
        .map_err(|_| refused("its key is none of ECDSA P-256 or P-384, Ed25519 and RSA".into()))?;
    request
        .verify_signature()
        .map_err(|_| refused("its key did not sign it".into()))?;
    Ok(key)
}

fn shortened(certificate: &Certificate, ttl: Duration, now: WallTime) -> bool {
    u64::try_from(certificate.not_after.0 - now.0).is_ok_and(|got| got < ttl.as_secs())
}
