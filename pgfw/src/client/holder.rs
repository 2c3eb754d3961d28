//! A certificate in somebody's hands: read, said to somebody else that it is in use, and replaced by the next.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::{ClientError, Profile};
use crate::clock::{Now, WallTime};
use crate::pki::{self, Life};

/// The files of one profile.
#[derive(Debug)]
pub(super) struct Holder {
    certificate: PathBuf,
    key: PathBuf,
    root: PathBuf,
    /// Shared with whoever else uses the key on this machine: the last one out gives leases back.
    in_use: Option<Flock<File>>,
}

impl Holder {
    /// # Errors
    /// A key that cannot be read.
    pub(super) fn new(profile: &Profile) -> Result<Holder, ClientError> {
        let file = File::open(&profile.key).map_err(|source| ClientError::Read {
            file: profile.key.clone(),
            source,
        })?;
        Ok(Holder {
            certificate: profile.certificate.clone(),
            key: profile.key.clone(),
            root: profile.root.clone(),
            // A file system without locks: nobody is known to share it.
            in_use: Flock::lock(file, FlockArg::LockSharedNonblock).ok(),
        })
    }

    /// From when to when the certificate lasts.
    ///
    /// # Errors
    /// A file that is none, or a certificate that has ended.
    pub(super) fn life(&self) -> Result<Life, ClientError> {
        let file = |detail: String| ClientError::File {
            file: self.certificate.clone(),
            detail,
        };
        let life =
            Life::of_pem(&read(&self.certificate)?, &self.certificate).map_err(|e| file(e.to_string()))?;
        if life.not_after <= Now::read().wall() {
            return Err(ClientError::Ended {
                file: self.certificate.clone(),
                end: life.not_after.rfc3339(),
            });
        }
        Ok(life)
    }

    /// Two thirds of its life are gone.
    pub(super) fn renew_at(&self) -> Result<WallTime, ClientError> {
        let life = self.life()?;
        let lasts = life.not_after.0 - life.not_before.0;
        Ok(WallTime(life.not_before.0 + lasts / 3 * 2))
    }

    /// What TLS needs to show it, and to know the gate.
    ///
    /// # Errors
    /// Files that cannot be read or used.
    pub(super) fn tls(&self) -> Result<Arc<ClientConfig>, ClientError> {
        let unfit = |file: &Path, detail: &str| ClientError::File {
            file: file.to_owned(),
            detail: detail.to_owned(),
        };
        let certificates = |file: &Path| -> Result<Vec<CertificateDer<'static>>, ClientError> {
            let text = read(file)?;
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
            all.ok()
                .filter(|all| !all.is_empty())
                .ok_or_else(|| unfit(file, "it holds no CERTIFICATE in PEM"))
        };
        let mut roots = RootCertStore::empty();
        for root in certificates(&self.root)? {
            roots.add(root).map_err(|_| {
                unfit(
                    &self.root,
                    "it holds something that is no authority's certificate",
                )
            })?;
        }
        // What is wrong inside stays unsaid: an error never quotes a key.
        let key = PrivateKeyDer::from_pem_slice(read(&self.key)?.as_bytes())
            .map_err(|_| unfit(&self.key, "it holds no private key in PEM without a passphrase"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| unfit(&self.certificate, &e.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(&self.certificate)?, key)
            .map_err(|_| unfit(&self.key, "it is not the certificate's key"))?;
        Ok(Arc::new(config))
    }

    /// A request for the next certificate of the same key.
    ///
    /// # Errors
    /// A key that cannot sign one.
    pub(super) fn request(&self) -> Result<String, ClientError> {
        let key = zeroize::Zeroizing::new(read(&self.key)?);
        let made = pki::request_next(&key, &read(&self.certificate)?, &self.key);
        made.map_err(|e| ClientError::File {
            file: self.key.clone(),
            detail: e.to_string(),
        })
    }

    /// Puts the next certificate in the place of this one, whole. One that is not of this key would lock its holder out.
    ///
    /// # Errors
    /// A certificate of another key or name; a folder that cannot be written.
    pub(super) fn replace(&self, next: &str) -> Result<(), ClientError> {
        if !pki::same_holder(&read(&self.certificate)?, next) {
            return Err(ClientError::File {
                file: self.certificate.clone(),
                detail: "what the gate sent is not its successor".into(),
            });
        }
        let failed = |source: std::io::Error| ClientError::Write {
            file: self.certificate.clone(),
            source,
        };
        let folder = self.certificate.parent().filter(|f| !f.as_os_str().is_empty());
        let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).map_err(failed)?;
        file.write_all(next.as_bytes()).map_err(failed)?;
        let mode = std::fs::metadata(&self.certificate)
            .map_err(failed)?
            .permissions()
            .mode();
        let permissions = std::fs::Permissions::from_mode(mode & 0o777);
        file.as_file().set_permissions(permissions).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&self.certificate).map_err(|e| failed(e.error))?;
        Ok(())
    }

    /// Whether nobody else on this machine uses the key now.
    pub(super) fn is_last(&mut self) -> bool {
        let Some(lock) = self.in_use.take() else {
            return true;
        };
        match lock.relock(FlockArg::LockExclusiveNonblock) {
            Ok(()) => {
                self.in_use = Some(lock);
                true
            }
            Err(_) => false,
        }
    }
}

fn read(file: &Path) -> Result<String, ClientError> {
    std::fs::read_to_string(file).map_err(|source| ClientError::Read {
        file: file.to_owned(),
        source,
    })
}
