//! A change of what is said about one network: only what that can have changed is compiled and written.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::Engine;
use super::engine::Facts;
use super::refresh::{Unchanged, earliest};
use crate::clock::Now;
use crate::config::Config;
use crate::failure::Failure;
use crate::ledger::types::{Certificate, Lease};
use crate::policy::coverage::{Coverage, CoverageKey};
use crate::policy::{self, Difference};

/// So many names are asked for one by one.
const FEW: usize = 64;

impl Engine {
    /// Before a change of what is said about `net` alone: what the tables hold of it, where that is known.
    ///
    /// # Errors
    /// A ledger that cannot be read.
    pub(super) fn before_change(&self, net: &IpNet, now: &Now) -> Result<Option<Before>, Failure> {
        // A policy that is kept without its config is not compiled in parts.
        if self.rescue.is_some() || self.still_settled(now)?.is_none() {
            return Ok(None);
        }
        let configs = self.referenced()?.into_iter();
        let configs: Vec<(u64, Config)> = configs
            .map(|number| Ok((number, self.config_of(number)?)))
            .collect::<Result<_, Failure>>()?;
        let leases = self.ledger.leases_within(net)?;
        let facts = Facts {
            entries: self.ledger.entries_touching(net)?,
            certificates: self.certificates_about(net, &configs, &leases)?,
            leases,
        };
        let mut tables = Vec::new();
        for (number, config) in &configs {
            let inputs = self.inputs(config, &facts, *number, now);
            tables.push((*number, policy::compile_within(&inputs, net)));
        }
        Ok(Some(Before { facts, tables }))
    }

    /// Those by which something of `net` is open: of identities whose networks touch it, and of leases inside it. Where that
    /// is many, all of them.
    fn certificates_about(
        &self,
        net: &IpNet,
        configs: &[(u64, Config)],
        leases: &[Lease],
    ) -> Result<Vec<Certificate>, Failure> {
        let touches = |other: &IpNet| net.contains(other) || other.contains(net);
        let identities = configs.iter().flat_map(|(_, config)| &config.identities);
        let names: BTreeSet<&str> = identities
            .filter(|identity| identity.networks.iter().any(touches))
            .map(|identity| identity.name.as_str())
            .chain(leases.iter().map(|lease| lease.identity.as_str()))
            .collect();
        if names.len() > FEW {
            return self.counting_certificates();
        }
        let mut found = Vec::new();
        for name in names {
            found.extend(self.ledger.certificates_of(name)?);
        }
        self.keep_counting(&mut found);
        Ok(found)
    }

    /// [`Engine::refresh`] after a change of what is said about `net` alone, which `apply` makes to the facts of before: of
    /// that part of the tables that it can have changed.
    ///
    /// # Errors
    /// As for [`Engine::refresh`].
    pub(super) fn refresh_after(
        &mut self,
        net: &IpNet,
        apply: impl FnOnce(&mut Facts),
        before: Option<Before>,
        now: &Now,
    ) -> Result<(), Failure> {
        let (Some(before), Some(settled)) = (before, self.settled.take()) else {
            return self.refresh().map(drop);
        };
        match self.refresh_within(net, apply, before, settled, now) {
            Ok(settled) => {
                self.settled = Some(settled);
                Ok(())
            }
            // What did not go in one way may go in the other, or at least in the other generation.
            Err(_) => self.refresh().map(drop),
        }
    }

    fn refresh_within(
        &mut self,
        net: &IpNet,
        apply: impl FnOnce(&mut Facts),
        before: Before,
        mut settled: Unchanged,
        now: &Now,
    ) -> Result<Unchanged, Failure> {
        let Before { mut facts, tables } = before;
        apply(&mut facts);
        let version = self.ledger.version()?;
        if version.is_own_since(&settled.version) {
            settled.version = version;
        }
        for (number, had) in &tables {
            let config = self.config_of(*number)?;
            let inputs = self.inputs(&config, &facts, *number, now);
            let wanted = policy::compile_within(&inputs, net);
            settled.next = earliest(settled.next, policy::next_turn(&inputs));
            let Difference { put, remove } = policy::exact_difference(had, &wanted);
            tracing::debug!(generation = number, net = %net, put = put.len(), "compiled");
            if let Some(datapath) = &mut self.datapath {
                datapath.update(*number, &put, &remove)?;
            }
        }
        let generations: Vec<u64> = tables.into_iter().map(|(number, _)| number).collect();
        settled.tables = self.stamps(&generations)?;
        Ok(settled)
    }
}

/// What the tables hold of a network and of those inside it, and by which facts.
#[derive(Debug)]
pub(super) struct Before {
    facts: Facts,
    tables: Vec<(u64, BTreeMap<CoverageKey, Coverage>)>,
}
