//! The authorities' keys under a passphrase: PKCS #8 with PBES2, scrypt and AES-256 (RFC 5958, RFC 7914), which OpenSSL
//! reads.

use std::path::{Path, PathBuf};

use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument};
use zeroize::Zeroizing;

use super::authority::KEY_FILE;
use super::key::Key;
use super::store::Store;
use super::{PkiError, files};
use crate::ledger::types::Authority;

const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

impl Store {
    /// Reads a key; the passphrase is looked for only where it is needed.
    pub(super) fn open_key(&self, file: &Path) -> Result<Key, PkiError> {
        let text = Zeroizing::new(files::read(file)?);
        if !is_sealed(&text) {
            return Key::from_pem(&text, file);
        }
        let Some(passphrase) = self.seal.passphrase()? else {
            return Err(PkiError::Sealed {
                file: file.to_owned(),
                credential: self.seal.credential.clone(),
            });
        };
        let damaged = || PkiError::Damaged {
            file: file.to_owned(),
            detail: "it holds no encrypted private key in PKCS #8 and PEM".into(),
        };
        let (_, document) = SecretDocument::from_pem(&text).map_err(|_| damaged())?;
        let sealed: EncryptedPrivateKeyInfoRef<'_> = document.decode_msg().map_err(|_| damaged())?;
        // Another passphrase and other bytes look the same: the padding of what comes out is wrong.
        let wrong = || PkiError::WrongPassphrase {
            file: file.to_owned(),
        };
        let der = sealed.decrypt(passphrase.bytes()).map_err(|_| wrong())?;
        Key::from_der(der.as_bytes()).map_err(|_| wrong())
    }

    /// Writes an authority's key as the config wants it, 0600 from the first byte.
    pub(super) fn write_key(&self, key: &Key, file: &Path) -> Result<(), PkiError> {
        let Some(credential) = &self.seal.credential else {
            return key.write(file);
        };
        let passphrase = self.seal.passphrase()?.ok_or_else(|| PkiError::NoPassphrase {
            credential: credential.clone(),
        })?;
        // An own salt for each file.
        let sealed = PrivateKeyInfoRef::try_from(key.der())
            .and_then(|info| info.encrypt(passphrase.bytes()))
            .map_err(|_| PkiError::NotSealed {
                file: file.to_owned(),
            })?;
        let text = sealed
            .to_pem(ENCRYPTED, LineEnding::LF)
            .map_err(|_| PkiError::NotSealed {
                file: file.to_owned(),
            })?;
        files::write(file, text.as_bytes(), files::PRIVATE)
    }

    /// Before anything is made: whether there is what a new key is to be written under.
    pub(super) fn can_write_keys(&self) -> Result<(), PkiError> {
        match &self.seal.credential {
            Some(credential) if self.seal.passphrase()?.is_none() => Err(PkiError::NoPassphrase {
                credential: credential.clone(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Brings every key of an authority to what the config says: under the passphrase, or into the clear. Returns those
    /// that were rewritten; cut off anywhere, each file is whole in the one way or the other, and what is left is done by
    /// the next.
    ///
    /// # Errors
    /// [`PkiError::NoAuthority`]; a key that the passphrase does not open, so that no two end up under different ones.
    pub fn seal_keys(&self) -> Result<Vec<PathBuf>, PkiError> {
        self.can_write_keys()?;
        let wanted = self.seal.credential.is_some();
        let mut left = Vec::new();
        for file in self.key_files()? {
            // One that is lost, or kept elsewhere, keeps no other in the clear.
            let Some(text) = files::read_if_there(&file)?.map(Zeroizing::new) else {
                continue;
            };
            let key = self.open_key(&file)?;
            if is_sealed(&text) != wanted {
                left.push((file, key));
            }
        }
        let mut done = Vec::new();
        for (file, key) in left {
            self.write_key(&key, &file)?;
            done.push(file);
        }
        Ok(done)
    }

    /// Keys that stand in the clear although the config names a passphrase, or the other way round.
    ///
    /// # Errors
    /// A folder that cannot be read. A key that is not there is none of these.
    pub fn unlike_the_config(&self) -> Result<Vec<PathBuf>, PkiError> {
        let wanted = self.seal.credential.is_some();
        let mut unlike = Vec::new();
        for authority in Authority::ALL {
            for generation in self.counting(authority)? {
                let file = self.generation(authority, generation).join(KEY_FILE);
                if files::read_if_there(&file)?.is_some_and(|text| is_sealed(&Zeroizing::new(text)) != wanted)
                {
                    unlike.push(file);
                }
            }
        }
        Ok(unlike)
    }

    /// Whether each authority can sign.
    ///
    /// # Errors
    /// Why not.
    pub fn try_keys(&self) -> Result<(), PkiError> {
        for authority in Authority::ALL {
            if !self.generations_there(authority)?.is_empty() {
                self.signing(authority)?;
            }
        }
        Ok(())
    }

    /// Of every generation that counts (one that leaves goes without its key); an authority without one is an error.
    pub fn key_files(&self) -> Result<Vec<PathBuf>, PkiError> {
        let mut all = Vec::new();
        for authority in Authority::ALL {
            let generations = self.counting(authority)?;
            if generations.is_empty() {
                return Err(self.no_authority(authority));
            }
            let folders = generations.iter().map(|n| self.generation(authority, *n));
            all.extend(folders.map(|folder| folder.join(KEY_FILE)));
        }
        Ok(all)
    }
}

fn is_sealed(pem: &str) -> bool {
    pem.contains(ENCRYPTED)
}
