//! `on_expiry = "end"`: sessions end with the certificate that they were opened by.
//!
//! PostgreSQL looks at a certificate's end in the handshake and never again. What the end takes is what a revocation takes
//! of a server: ending sessions, and connections that shook hands before and log in after. It is noted as such, so it is
//! tried again and shown like one; the difference is that nobody else's login that has begun is cut for it.

use super::Engine;
use super::sessions::session_argument;
use crate::clock::{Now, WallTime};
use crate::config::OnExpiry;
use crate::failure::Failure;
use crate::ledger::types::{Authority, WorkKind};

/// In the place of a serial: every client certificate that has expired.
pub(super) const EXPIRED: &str = "expired";

impl Engine {
    /// Notes that sessions are to end, once a certificate has expired since the last look. The first look of a process
    /// takes all that ever did: what expired while no daemon ran is found then.
    ///
    /// # Errors
    /// A ledger or a config that cannot be read.
    pub(super) fn note_expired(&mut self) -> Result<(), Failure> {
        let now = Now::read().wall();
        let clusters = self.clusters_that_end()?;
        if clusters.is_empty() {
            // Once a cluster wants it, all that ever expired is looked at.
            self.expired_until = None;
            return Ok(());
        }
        // A clock that was set back makes the last look one of the future.
        let since = self.expired_until.filter(|until| *until <= now);
        let fresh = self.expired_clients(now)?.into_iter();
        let some = fresh
            .into_iter()
            .any(|(end, _)| since.is_none_or(|since| end > since));
        if some {
            for cluster in &clusters {
                self.note(
                    WorkKind::EndSessions,
                    &session_argument(cluster, EXPIRED),
                    "a certificate has just expired",
                );
            }
            // Whatever else waits has its own pause; this is new.
            self.retry_now();
        }
        self.expired_until = Some(now);
        Ok(())
    }

    /// The serials of every client certificate that has expired, where the policy that runs ends their sessions at
    /// this cluster.
    ///
    /// # Errors
    /// A ledger or a config that cannot be read.
    pub(super) fn expired_serials(&self, cluster: &str) -> Result<Vec<String>, Failure> {
        if !self.clusters_that_end()?.iter().any(|name| name == cluster) {
            return Ok(Vec::new());
        }
        let expired = self.expired_clients(Now::read().wall())?;
        Ok(expired.into_iter().map(|(_, serial)| serial).collect())
    }

    fn clusters_that_end(&self) -> Result<Vec<String>, Failure> {
        let clusters = self.config()?.postgres.into_iter();
        let ending = clusters.filter(|cluster| cluster.on_expiry == OnExpiry::End);
        Ok(ending.map(|cluster| cluster.name).collect())
    }

    fn expired_clients(&self, now: WallTime) -> Result<Vec<(WallTime, String)>, Failure> {
        let all = self.ledger.certificates()?.into_iter();
        Ok(all
            .filter(|c| c.authority == Authority::Client && c.not_after <= now)
            .map(|c| (c.not_after, c.serial))
            .collect())
    }
}
