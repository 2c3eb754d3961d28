//! A private key that prints as nothing.

use std::path::Path;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};

use super::{PkiError, files};

/// An ECDSA P-256 key pair.
///
/// P-256 because every PostgreSQL client and OpenSSL signs with it; an Ed25519 authority breaks SCRAM channel
/// binding in libpq ("could not find digest for NID UNDEF").
pub(super) struct Key(KeyPair);

impl Key {
    pub(super) fn generate() -> Result<Key, PkiError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(Key)
            .map_err(PkiError::crypto("a key pair"))
    }

    pub(super) fn read(file: &Path) -> Result<Key, PkiError> {
        // What is wrong inside stays unsaid: an error never quotes a key.
        KeyPair::from_pem(&files::read(file)?)
            .map(Key)
            .map_err(|_| PkiError::Damaged {
                file: file.to_owned(),
                detail: "it holds no private key in PKCS #8 and PEM".into(),
            })
    }

    /// 0600 from the first byte.
    pub(super) fn write(&self, file: &Path) -> Result<(), PkiError> {
        files::write(file, self.0.serialize_pem().as_bytes(), files::PRIVATE)
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
