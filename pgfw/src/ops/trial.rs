//! `allow`, `deny`, `remove` with `--confirm`: a change that undoes itself is a policy of its own, which differs from the
//! confirmed one in that entry.

use std::time::Duration;

use ipnet::IpNet;

use super::Engine;
use super::generations::deadline;
use crate::api::Changed;
use crate::clock::Now;
use crate::failure::Failure;
use crate::ledger::types::NewEntry;
use crate::ledger::{Ledger, LedgerError};

impl Engine {
    /// Opens or closes a network until the deadline, or for good once it is confirmed.
    pub(super) fn put_on_trial(
        &mut self,
        new: NewEntry,
        about: &[String],
        seconds: u64,
        force: bool,
    ) -> Result<Changed, Failure> {
        let net = new.net;
        self.on_trial(net, about, seconds, force, move |ledger, number| {
            let new = NewEntry {
                generation: Some(number),
                ..new
            };
            ledger.put_entry(&new, Now::read().wall()).map(drop)
        })
    }

    /// The same for taking an entry back.
    pub(super) fn remove_on_trial(
        &mut self,
        net: IpNet,
        service: Option<String>,
        about: &[String],
        seconds: u64,
        force: bool,
    ) -> Result<Changed, Failure> {
        self.on_trial(net, about, seconds, force, move |ledger, number| {
            ledger
                .remove_entries(net, service.as_deref(), Some(number))
                .map(drop)
        })
    }

    fn on_trial(
        &mut self,
        net: IpNet,
        about: &[String],
        seconds: u64,
        force: bool,
        record: impl FnOnce(&mut Ledger, u64) -> Result<(), LedgerError>,
    ) -> Result<Changed, Failure> {
        let (now, time) = (Now::read(), Duration::from_secs(seconds));
        self.nothing_waits()?;
        // What was closed for cause goes before.
        self.record_what_was_not()?;
        let config = self.config()?;
        self.begin(&config, time, force, |engine, number| {
            record(&mut engine.ledger, number)?;
            engine.compile(&config, number, &now)
        })?;
        let mut lines = self.outcome(&config, net, about, &now)?;
        lines.push(format!(
            "That undoes itself at {}; keep it with: pgfw confirm",
            deadline(&now, time)
        ));
        Ok(Changed { lines, cut: 0 })
    }
}
