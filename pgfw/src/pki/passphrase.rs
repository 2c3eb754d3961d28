//! The passphrase of the authorities' keys: it comes from a file, a credential of the service or a terminal, and stays
//! nowhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::PkiError;

/// Shorter ones are guessed.
const MIN_BYTES: usize = 8;

/// Overwritten when it is dropped; printed as nothing.
#[derive(PartialEq, Eq)]
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// The first line of what was given, as OpenSSL reads a `file:` (openssl-passphrase-options(1)); `source` is for the
    /// message.
    ///
    /// # Errors
    /// [`PkiError::ShortPassphrase`]
    pub fn new(given: &Zeroizing<Vec<u8>>, source: &str) -> Result<Passphrase, PkiError> {
        let line = given.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if line.len() < MIN_BYTES {
            return Err(PkiError::ShortPassphrase {
                source_of: source.to_owned(),
                least: MIN_BYTES,
            });
        }
        Ok(Passphrase(Zeroizing::new(line.to_vec())))
    }

    /// Of a file, which may be a descriptor (`/dev/fd/3`).
    ///
    /// # Errors
    /// A file that cannot be read, or holds too little.
    pub fn read(file: &Path) -> Result<Passphrase, PkiError> {
        let given = std::fs::read(file).map_err(|source| PkiError::Read {
            file: file.to_owned(),
            source,
        })?;
        Passphrase::new(&Zeroizing::new(given), &file.display().to_string())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// How the keys of the authorities are kept, and what opens them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seal {
    /// `pki.key_passphrase_credential`; `None`: keys are written in the clear.
    pub credential: Option<String>,
    /// Given by hand to this process; opens keys whatever the config says.
    pub given: Option<Arc<Passphrase>>,
}

impl Seal {
    /// What was given by hand, else the credential that the service manager put into memory for this process alone
    /// (systemd.exec(5), `LoadCredentialEncrypted=`). It is read anew each time, and not kept.
    pub(super) fn passphrase(&self) -> Result<Option<Arc<Passphrase>>, PkiError> {
        if let Some(given) = &self.given {
            return Ok(Some(Arc::clone(given)));
        }
        match self.credential_file() {
            Some(file) if file.exists() => Ok(Some(Arc::new(Passphrase::read(&file)?))),
            Some(_) | None => Ok(None),
        }
    }

    /// Where the credential would be.
    pub fn credential_file(&self) -> Option<PathBuf> {
        let folder = std::env::var_os("CREDENTIALS_DIRECTORY")?;
        Some(Path::new(&folder).join(self.credential.as_ref()?))
    }
}
