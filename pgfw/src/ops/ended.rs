//! What has ended is forgotten, and said.

use std::collections::HashSet;

use super::Engine;
use super::lease_events::{LeaseEnd, LeaseEvent};
use crate::clock::Now;
use crate::failure::Failure;
use crate::ledger::PrunedLeases;

impl Engine {
    /// Entries and leases that count no more leave the ledger; the tables have forgotten them already.
    ///
    /// # Errors
    /// A ledger that takes no change.
    pub(super) fn forget_ended(&mut self) -> Result<(), Failure> {
        let before = self.ledger.version()?;
        for entry in self.ledger.prune(&Now::read(), &self.boot_id)? {
            tracing::info!(net = %entry.net, kind = ?entry.kind, "ended");
        }
        // They stay until their own time, since a clock that is set back makes the certificate count again.
        let past = self.ledger.leases_past_certificates(Now::read().wall())?;
        let now_over: HashSet<i64> = past.iter().map(|lease| lease.id).collect();
        let said = std::mem::replace(&mut self.leases_said_over, now_over);
        for lease in past.iter().filter(|lease| !said.contains(&lease.id)) {
            let how = LeaseEnd::Certificate;
            self.say_lease(&LeaseEvent::Ended { lease, how });
        }
        let PrunedLeases { over, revoked } = self.ledger.prune_leases(&Now::read(), &self.boot_id)?;
        for (leases, how) in [(over, LeaseEnd::Time), (revoked, LeaseEnd::Revoked)] {
            for lease in leases
                .iter()
                .filter(|lease| !self.leases_said_over.contains(&lease.id))
            {
                self.say_lease(&LeaseEvent::Ended { lease, how });
            }
        }
        // What has ended counted no more.
        let after = self.ledger.version()?;
        if let Some(settled) = &mut self.settled
            && settled.version == before
            && after.is_own_since(&before)
        {
            settled.version = after;
        }
        Ok(())
    }
}
