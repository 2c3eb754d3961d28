//! The two certificate authorities: issuing, revoking, and the CRLs that PostgreSQL reads.
//!
//! Whoever changes something holds the lock on [`crate::paths::Paths::change_lock`]. Time and requester are arguments.

mod authority;
mod bundle;
mod crl;
mod error;
mod files;
mod foreign;
mod init;
mod issue;
mod kept;
mod key;
mod leaf;
mod names;
mod pem;
mod publish;
mod renewal;
mod revoke;
mod serial;
mod store;
#[cfg(test)]
mod tests;
mod throwaway;

pub use authority::AuthorityInfo;
pub use bundle::{Bundle, BundleTarget, Trust, write_bundle};
pub use error::PkiError;
pub use files::component;
pub use foreign::{ForeignPair, read_foreign};
pub use init::{CANARY, InitRequest, init};
pub use issue::{ClientRequest, Issued, ServerRequest, issue_client, issue_server};
pub use kept::keep;
pub use key::KeyKind;
pub use publish::{CrlTargets, Publication, Published, alarms, export, publish, refresh};
pub use renewal::Life;
pub use revoke::{RevokeOutcome, RevokeRequest, Selection, carry_out, revoke, select};
pub use store::{ServerPair, Store};
pub use throwaway::Throwaway;
