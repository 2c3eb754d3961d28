//! The two certificate authorities: issuing, revoking, and the CRLs that PostgreSQL reads.
//!
//! Whoever changes something holds the lock on [`crate::paths::Paths::change_lock`]. Time and requester are arguments.

mod authority;
mod bundle;
mod client_verifier;
mod crl;
mod error;
mod files;
mod foreign;
mod init;
mod issue;
mod kept;
mod key;
mod leaf;
mod modes;
mod names;
mod p12;
mod passphrase;
mod pem;
mod publish;
mod renewal;
mod request;
mod revoke;
mod rotation;
mod seal;
mod serial;
mod store;
#[cfg(test)]
mod tests;
mod throwaway;

pub use authority::AuthorityInfo;
pub use bundle::{Bundle, BundleTarget, Trust, write_bundle};
pub use client_verifier::{ClientVerifier, gate_tls};
pub use error::PkiError;
pub use files::component;
pub use foreign::{ForeignPair, read_foreign};
pub use init::{CANARY, InitRequest, init};
pub use issue::{ClientRequest, Issued, NextRequest, ServerRequest, issue_client, issue_next, issue_server};
pub use kept::{is_told, keep, kept_files, note_told};
pub use key::KeyKind;
pub use leaf::{is_certificate, names_of, serial_of};
pub use modes::Loose;
pub use p12::{P12, write_p12};
pub use passphrase::{Passphrase, Seal};
pub use publish::{
    CrlTargets, Publication, Published, alarms, export, lists_hold, lists_until, publish, refresh,
};
pub use renewal::Life;
pub use request::{request_next, same_holder};
pub use revoke::{RevokeOutcome, RevokeRequest, Selection, carry_out, revoke, select};
pub use rotation::{
    Change, Leaving, Phase, Rotation, Which, drop_one, introduce, left_of, retire, turn, turn_back,
};
pub use store::{ServerPair, Store};
pub use throwaway::Throwaway;
