//! `cert issue --bundle DIR --p12`: certificate and key as one PKCS #12 file (RFC 7292), as Java's drivers and key stores
//! want them.

use std::path::{Path, PathBuf};

use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use zeroize::Zeroizing;

use super::issue::Issued;
use super::passphrase::Passphrase;
use super::{PkiError, files, pem};

/// The only entry that pgjdbc looks for in such a file (PKCS12KeyManager.java).
const ALIAS: &str = "user";
const FILE: &str = "postgresql.p12";
const PASSWORD_FILE: &str = "postgresql.p12.password";
const PASSWORD_BYTES: usize = 16;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct P12 {
    pub file: PathBuf,
    /// Where its password is, if it was made here.
    pub password_file: Option<PathBuf>,
}

/// Writes `postgresql.p12` into `folder`, under this password or under a random one that is written beside it: Java reads
/// none without.
///
/// # Errors
/// [`PkiError::NoKey`] where the key stayed with the requester; a password that is not text; files that cannot be written.
pub fn write_p12(issued: &Issued, folder: &Path, password: Option<&Passphrase>) -> Result<P12, PkiError> {
    let name = &issued.certificate.name;
    let key_file = issued
        .key_file
        .as_ref()
        .ok_or_else(|| PkiError::NoKey { name: name.clone() })?;
    let failed = || PkiError::NotSealed {
        file: folder.join(FILE),
    };
    let given = match password {
        Some(password) => Zeroizing::new(
            std::str::from_utf8(password.bytes())
                .map_err(|_| failed())?
                .to_owned(),
        ),
        None => random()?,
    };
    let key_pem = Zeroizing::new(files::read(key_file)?);
    let key = PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| PkiError::Damaged {
        file: key_file.clone(),
        detail: "it holds no private key in PKCS #8 and PEM".into(),
    })?;
    let key = PrivateKey::from_der(key.secret_pkcs8_der()).map_err(|_| failed())?;
    let leaf = pem::certificate(&issued.certificate.pem, &issued.certificate_file)?;
    let leaf = Certificate::from_der(&leaf).map_err(|_| failed())?;
    let mut store = KeyStore::new();
    let chain = PrivateKeyChain::new(issued.certificate.serial.as_str(), key, [leaf]);
    store.add_entry(ALIAS, KeyStoreEntry::PrivateKeyChain(chain));
    // PBES2 with AES-256 and HMAC-SHA-256, which Java writes itself from 16 on, and reads from 8u301 on.
    let content = Zeroizing::new(store.writer(&given).write().map_err(|_| failed())?);

    // The password first: a file that nobody can open is of no use to anybody.
    let password_file = password.is_none().then(|| folder.join(PASSWORD_FILE));
    if let Some(file) = &password_file {
        files::write(file, given.as_bytes(), files::PRIVATE)?;
    }
    let file = folder.join(FILE);
    files::write(&file, &content, files::PRIVATE)?;
    Ok(P12 { file, password_file })
}

/// 128 random bits, as digits that no shell and no properties file minds.
fn random() -> Result<Zeroizing<String>, PkiError> {
    let mut bytes = Zeroizing::new([0; PASSWORD_BYTES]);
    SystemRandom::new()
        .fill(bytes.as_mut_slice())
        .map_err(|_| PkiError::NoRandomness)?;
    Ok(Zeroizing::new(bytes.iter().map(|b| format!("{b:02x}")).collect()))
}
