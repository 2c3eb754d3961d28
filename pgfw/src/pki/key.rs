//! A private key that prints as nothing.

use std::path::Path;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SignatureAlgorithm, SigningKey};
use zeroize::{Zeroize, Zeroizing};

use super::{PkiError, files};

/// What a client's own key is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// Every client, PostgreSQL's and Java's, old or new, signs with it.
    #[default]
    P256,
    /// For clients whose OpenSSL has it (1.1.1 on).
    Ed25519,
}

/// A key pair: of authorities and servers ECDSA P-256, of clients what was asked for.
///
/// P-256 because every PostgreSQL client and OpenSSL signs with it; an Ed25519 authority breaks SCRAM channel
/// binding in libpq ("could not find digest for NID UNDEF").
pub(super) struct Key(KeyPair);

impl Key {
    pub(super) fn generate() -> Result<Key, PkiError> {
        Key::generate_as(KeyKind::P256)
    }

    pub(super) fn generate_as(kind: KeyKind) -> Result<Key, PkiError> {
        let made = match kind {
            KeyKind::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            KeyKind::Ed25519 => KeyPair::generate_for(&PKCS_ED25519).and_then(|key| first_version(&key)),
        };
        made.map(Key).map_err(PkiError::crypto("a key pair"))
    }

    /// `file` is for the message.
    pub(super) fn from_pem(text: &str, file: &Path) -> Result<Key, PkiError> {
        // What is wrong inside stays unsaid: an error never quotes a key.
        KeyPair::from_pem(text).map(Key).map_err(|_| PkiError::Damaged {
            file: file.to_owned(),
            detail: "it holds no private key in PKCS #8 and PEM".into(),
        })
    }

    /// PKCS #8.
    pub(super) fn from_der(der: &[u8]) -> Result<Key, rcgen::Error> {
        KeyPair::try_from(der).map(Key)
    }

    /// PKCS #8.
    pub(super) fn der(&self) -> &[u8] {
        self.0.serialized_der()
    }

    /// 0600 from the first byte.
    pub(super) fn write(&self, file: &Path) -> Result<(), PkiError> {
        let text = Zeroizing::new(self.0.serialize_pem());
        files::write(file, text.as_bytes(), files::PRIVATE)
    }
}

/// The same Ed25519 key in the first version of PKCS #8 (RFC 8410 section 7): OpenSSL 3.0, and libpq with it, does not
/// read the second (RFC 5958, with the public key in it), which is what ring makes.
fn first_version(key: &KeyPair) -> Result<KeyPair, rcgen::Error> {
    const HEAD: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    ];
    const SEED: usize = 32;
    let made = key.serialized_der();
    let seed = made.get(HEAD.len()..HEAD.len() + SEED);
    let der = [&HEAD, seed.ok_or(rcgen::Error::CouldNotParseKeyPair)?].concat();
    let same = KeyPair::try_from(der.as_slice())?;
    // Were ring to lay it out in another way, it would be another key.
    if same.public_key_raw() == key.public_key_raw() {
        Ok(same)
    } else {
        Err(rcgen::Error::CouldNotParseKeyPair)
    }
}

impl Drop for Key {
    /// The copy that it is written from. What ring signs with is ring's.
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        PublicKeyData::algorithm(&self.0)
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}
