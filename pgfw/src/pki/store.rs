//! Where authorities and leaves are, below `pki.directory`.
//!
//! ```text
//! server-ca/g1/  ca.crt ca.key ca.crl            one folder per generation of an authority
//! client-ca/g1/  ca.crt ca.key ca.crl canary.crt canary.key
//! server-ca/rotation.json                        which of them signs, and which count, once there was a second
//! server-ca/retired/g1/                          what counts nowhere any more, without its key
//! issued/NAME -> .NAME.SERIAL/                   NAME.crt NAME.key ca.crt (the server authority, for the client)
//! server/CLUSTER -> .CLUSTER.SERIAL/             server.crt server.key
//! ```
//! A leaf's folder is complete before its link points to it: certificate and key never mismatch.

use std::path::{Path, PathBuf};

use super::authority::{AuthorityInfo, CERTIFICATE_FILE, CRL_FILE, SigningAuthority};
use super::{PkiError, Seal, files};
use crate::ledger::types::Authority;

/// `pki.directory`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    directory: PathBuf,
    pub(super) seal: Seal,
}

/// The server certificate of one cluster: two files that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPair {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM, PKCS #8, 0600.
    pub key: PathBuf,
}

impl Store {
    pub fn new(directory: impl Into<PathBuf>) -> Store {
        Store {
            directory: directory.into(),
            seal: Seal::default(),
        }
    }

    /// The same, with its authorities' keys under a passphrase.
    #[must_use]
    pub fn sealed(mut self, seal: Seal) -> Store {
        self.seal = seal;
        self
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Every generation of an authority, oldest first; none before `pgfw ca init`.
    ///
    /// # Errors
    /// A folder or certificate that cannot be read.
    pub fn authorities(&self, authority: Authority) -> Result<Vec<AuthorityInfo>, PkiError> {
        self.generations_there(authority)?
            .into_iter()
            .map(|n| AuthorityInfo::read(authority, n, &self.generation(authority, n)))
            .collect()
    }

    /// The certificates of every generation of an authority that counts, in one PEM text: `ssl_ca_file` for the client authority,
    /// `sslrootcert` for the server authority.
    ///
    /// # Errors
    /// [`PkiError::NoAuthority`]; a file that cannot be read.
    pub fn roots(&self, authority: Authority) -> Result<String, PkiError> {
        let counting = self.counting(authority)?;
        if counting.is_empty() {
            return Err(self.no_authority(authority));
        }
        counting.into_iter().map(|n| self.root(authority, n)).collect()
    }

    /// The lists of every generation of an authority that counts, each in PEM, as they were last signed. One that is not
    /// there is left out: whoever verifies refuses what no list speaks of.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn lists(&self, authority: Authority) -> Result<Vec<String>, PkiError> {
        let counting = self.counting(authority)?.into_iter();
        let files = counting.map(|n| self.generation(authority, n).join(CRL_FILE));
        files
            .filter_map(|file| files::read_if_there(&file).transpose())
            .collect()
    }

    /// A client certificate's folder: a link to the newest.
    pub fn issued(&self, name: &str) -> PathBuf {
        self.issued_folder().join(files::component(name))
    }

    /// A server certificate's folder: a link to the newest.
    pub fn server_link(&self, cluster: &str) -> PathBuf {
        self.server_folder().join(files::component(cluster))
    }

    /// The certificate of one generation.
    pub fn root_file(&self, authority: Authority, generation: u32) -> PathBuf {
        self.generation(authority, generation).join(CERTIFICATE_FILE)
    }

    /// A cluster's newest server certificate, its link already followed; `None` before `pgfw cert server`.
    ///
    /// # Errors
    /// A link that cannot be read.
    pub fn server_pair(&self, cluster: &str) -> Result<Option<ServerPair>, PkiError> {
        let link = self.server_link(cluster);
        match std::fs::read_link(&link) {
            Ok(target) => {
                let folder = self.server_folder().join(target);
                Ok(Some(ServerPair {
                    certificate: folder.join(SERVER_CERTIFICATE),
                    key: folder.join(SERVER_KEY),
                }))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(PkiError::Read { file: link, source }),
        }
    }

    /// The permanently revoked client certificate and its key, with which a server's revocation check is tried.
    ///
    /// # Errors
    /// [`PkiError::NoAuthority`]
    pub fn canary(&self) -> Result<(PathBuf, PathBuf), PkiError> {
        let signs = self.signing_generation(Authority::Client)?;
        let folder = self.generation(Authority::Client, signs);
        Ok((folder.join(CANARY_CERTIFICATE), folder.join(CANARY_KEY)))
    }

    pub(super) fn family(&self, authority: Authority) -> PathBuf {
        self.directory.join(format!("{authority}-ca"))
    }

    pub(super) fn generation(&self, authority: Authority, number: u32) -> PathBuf {
        self.family(authority).join(format!("g{number}"))
    }

    pub(super) fn issued_folder(&self) -> PathBuf {
        self.directory.join("issued")
    }

    pub(super) fn server_folder(&self) -> PathBuf {
        self.directory.join("server")
    }

    /// The numbers of all generations that are there, ascending.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn generations_there(&self, authority: Authority) -> Result<Vec<u32>, PkiError> {
        let mut numbers: Vec<u32> = files::names_in(&self.family(authority))?
            .iter()
            .filter_map(|name| name.strip_prefix('g')?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn signing(&self, authority: Authority) -> Result<SigningAuthority, PkiError> {
        let signs = self.signing_generation(authority)?;
        self.refuse_writable()?;
        SigningAuthority::load(self, authority, signs, &self.generation(authority, signs))
    }

    /// The generation that signs new leaves.
    ///
    /// # Errors
    /// [`PkiError::NoAuthority`]; [`PkiError::AuthorityLost`] where others are there and this one is not.
    pub fn signing_generation(&self, authority: Authority) -> Result<u32, PkiError> {
        let signs = self.rotation(authority)?.phase.signs();
        let there = self.generations_there(authority)?;
        if there.is_empty() {
            return Err(self.no_authority(authority));
        }
        if !there.contains(&signs) {
            return Err(PkiError::AuthorityLost {
                authority,
                folder: self.generation(authority, signs),
            });
        }
        Ok(signs)
    }

    /// Which generation of an authority issued a certificate (PEM); `None` for another's.
    ///
    /// # Errors
    /// A folder or certificate that cannot be read.
    pub fn issuer(&self, authority: Authority, pem: &str) -> Result<Option<u32>, PkiError> {
        let named = super::authority::issuer_identifier(pem);
        let mut all = self.authorities(authority)?.into_iter();
        Ok(all
            .find(|info| named.as_ref() == Some(&info.key_identifier))
            .map(|info| info.generation))
    }

    pub(super) fn no_authority(&self, authority: Authority) -> PkiError {
        PkiError::NoAuthority {
            authority,
            directory: self.directory.clone(),
        }
    }
}

pub(super) const SERVER_CERTIFICATE: &str = "server.crt";
pub(super) const SERVER_KEY: &str = "server.key";
pub(super) const CANARY_CERTIFICATE: &str = "canary.crt";
pub(super) const CANARY_KEY: &str = "canary.key";
