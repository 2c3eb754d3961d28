//! What a person gave to this process: a passphrase for the authorities' keys.

use std::sync::{Arc, OnceLock};

use crate::config::Config;
use crate::pki::{Passphrase, Seal};

static GIVEN: OnceLock<Arc<Passphrase>> = OnceLock::new();

/// Keeps it for as long as this process lives, which for a command is not long. The first one counts.
pub fn give_passphrase(passphrase: Passphrase) {
    let _first = GIVEN.set(Arc::new(passphrase));
}

/// Whether one was given: asking again would change nothing.
pub fn passphrase_given() -> bool {
    GIVEN.get().is_some()
}

pub(super) fn seal(config: &Config) -> Seal {
    Seal {
        credential: config.pki.key_passphrase_credential.clone(),
        given: GIVEN.get().cloned(),
    }
}
