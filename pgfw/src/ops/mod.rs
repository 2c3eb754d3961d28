//! What a command does, with the daemon or without it: the same code in both, under the same lock.

mod attention;
mod certificates;
mod coverable;
mod engine;
mod entries;
mod events;
mod generations;
mod guard;
mod inspect;
mod marker;
mod off;
mod opened;
mod outlook;
mod pg;
mod rebuild;
mod refresh;
mod rescue;
mod revoke;
mod sessions;
mod start;
mod status;
mod unrecorded;
mod work;

pub use certificates::{IssueRequest, IssuedCertificate};
pub(crate) use engine::lock_file;
pub use engine::{Engine, requester};
pub use events::EventSource;
pub use generations::Confirmation;
pub use off::{Removed, off};
pub use opened::{Opened, Shut, Why};
pub use pg::{clusters_to_apply, clusters_to_release, pg_release};
pub use refresh::Round;
pub use revoke::{Begun, Ended, Layer, Revoke, Revoked};
pub use sessions::{EndedSessions, SessionWork};
pub use start::Started;
pub use status::status_without_daemon;
