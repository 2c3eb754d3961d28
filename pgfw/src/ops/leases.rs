//! Leases: an address that reaches PostgreSQL for as long as whoever is there holds a certificate.
//!
//! The gate is believed in nothing but the source of a connection. What it hands on is verified again here, against
//! authorities, lists and the ledger, so a gate in the wrong hands opens what a certificate that it has seen could open.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::Engine;
use super::engine::Facts;
use super::holder::Holder;
use super::lease_events::{LeaseEnd, LeaseEvent};
use crate::api::{AskLease, GivenBack, LeaseState};
use crate::clock::{Now, WallTime};
use crate::config::Config;
use crate::failure::{Code, Explain, Failure};
use crate::fault::{Step, step};
use crate::ledger::types::{EntryEnd, Lease, NewLease};
use crate::policy::{self, Answer};

/// Addresses that one identity may hold at a time: a stolen certificate opens no more.
pub const LEASES_PER_IDENTITY: usize = 64;

/// Leases of all identities together.
pub const LEASES: usize = 16_384;

impl Engine {
    /// Opens the source's address, or goes on with what it has.
    ///
    /// # Errors
    /// A certificate that lets nobody in, an identity that does not roam, a deny, too many leases, a full disk or table.
    pub fn take_lease(&mut self, request: &AskLease) -> Result<LeaseState, Failure> {
        let AskLease { proven, seconds } = request;
        let _lock = self.lock()?;
        let now = Now::read();
        let holder = self.holder("lease", proven, &now)?;
        let granted = self.grant(&holder, *seconds, &now);
        self.said("lease", &holder, granted)
    }

    /// What the holder has at this address.
    ///
    /// # Errors
    /// As for [`Engine::take_lease`]; there is no lease.
    pub fn show_lease(&mut self, request: &AskLease) -> Result<LeaseState, Failure> {
        let AskLease { proven, seconds: _ } = request;
        let now = Now::read();
        let holder = self.holder("look at a lease", proven, &now)?;
        let lease = self.lease_of(&holder, &now)?;
        self.state_of(&holder, &lease, &now)
    }

    /// Closes the address again, unless something else opens it. Established connections go on.
    ///
    /// # Errors
    /// As for [`Engine::take_lease`]; there is no lease.
    pub fn give_back_lease(&mut self, request: &AskLease) -> Result<GivenBack, Failure> {
        let AskLease { proven, seconds: _ } = request;
        let _lock = self.lock()?;
        let now = Now::read();
        let holder = self.holder("giving back a lease", proven, &now)?;
        let address = holder.source;
        self.lease_of(&holder, &now)?;
        let net = IpNet::from(address);
        let before = self.before_change(&net, &now).unwrap_or(None);
        let gone = self.ledger.remove_lease(&holder.identity.name, address)?;
        step(Step::LeaseRecorded);
        if let Some(lease) = gone {
            let apply = |facts: &mut Facts| facts.leases.retain(|l| l.id != lease.id);
            self.refresh_after(&net, apply, before, &now)?;
            self.say_lease(&LeaseEvent::Ended {
                lease: &lease,
                how: LeaseEnd::GivenBack,
            });
        }
        Ok(GivenBack { address })
    }

    fn grant(&mut self, holder: &Holder, seconds: Option<u64>, now: &Now) -> Result<LeaseState, Failure> {
        let address = holder.source;
        let refused = |why| LeaseError {
            identity: holder.identity.name.clone(),
            address,
            why,
        };
        self.not_anothers()?;
        if !holder.identity.roaming {
            return Err(refused(Why::NotRoaming).into());
        }
        if !is_a_host(address) {
            return Err(refused(Why::NoHost).into());
        }
        let net = IpNet::from(address);
        self.not_denied(holder, now)?;
        if let Some(why) = self.no_room(holder, now)? {
            return Err(refused(why).into());
        }
        let longest = holder.gate.lease;
        let lasts = seconds.map_or(longest, |s| Duration::from_secs(s.max(1)).min(longest));
        let new = NewLease {
            address,
            identity: holder.identity.name.clone(),
            serial: holder.certificate.serial.clone(),
            end: EntryEnd::after(lasts, now, &self.boot_id),
        };
        let before = self.before_change(&net, now).unwrap_or(None);
        // In the order in which it was said.
        self.record_what_was_not()?;
        let put = self.ledger.put_lease(&new, now.wall())?;
        step(Step::LeaseRecorded);
        let apply = |facts: &mut Facts| {
            facts
                .leases
                .retain(|l| put.replaced.as_ref().is_none_or(|gone| gone.id != l.id));
            facts.leases.push(put.lease.clone());
            facts
                .certificates
                .retain(|c| c.serial != holder.certificate.serial);
            facts.certificates.push(holder.certificate.clone());
        };
        if let Err(failure) = self.refresh_after(&net, apply, before, now) {
            self.ledger.undo_put_lease(&put)?;
            let _ = self.refresh();
            return Err(failure);
        }
        step(Step::LeaseInKernel);
        let state = self.state_of(holder, &put.lease, now);
        let until = match &state {
            Ok(state) => state.until.clone(),
            Err(_) => put.lease.end.wall.rfc3339(),
        };
        self.say_lease(&LeaseEvent::Granted {
            lease: &put.lease,
            until: &until,
        });
        state
    }

    /// Whether there are as many others as there may be. Those that open nothing any more are looked for only where rows
    /// alone would be too many.
    fn no_room(&self, holder: &Holder, now: &Now) -> Result<Option<Why>, Failure> {
        let name = &holder.identity.name;
        let (all, own) = self.ledger.count_leases(name)?;
        if all < LEASES && own < LEASES_PER_IDENTITY {
            return Ok(None);
        }
        let facts = Facts {
            entries: Vec::new(),
            certificates: self.as_they_count(self.ledger.certificates_of_leases()?),
            leases: self.ledger.leases()?,
        };
        let live = policy::live_leases(&self.inputs(&holder.config, &facts, 0, now));
        let others = live.iter().map(|(lease, _, _)| lease);
        let others = others.filter(|l| !(l.identity == *name && l.address == holder.source));
        Ok(if others.clone().count() >= LEASES {
            Some(Why::Full)
        } else if others.filter(|l| l.identity == *name).count() >= LEASES_PER_IDENTITY {
            Some(Why::TooMany)
        } else {
            None
        })
    }

    fn lease_of(&self, holder: &Holder, now: &Now) -> Result<Lease, Failure> {
        let Holder { identity, source, .. } = holder;
        match self.ledger.lease(&identity.name, *source)? {
            Some(lease) if self.live_until(&holder.config, &lease, now)?.is_some() => Ok(lease),
            Some(_) | None => Err(none(&identity.name, *source)),
        }
    }

    /// Until when the filter lets a lease's address in, if it does.
    fn live_until(&self, config: &Config, lease: &Lease, now: &Now) -> Result<Option<WallTime>, Failure> {
        let certificate = self.ledger.certificate_by_serial(&lease.serial)?;
        let facts = Facts {
            entries: Vec::new(),
            certificates: self.as_they_count(certificate.into_iter().collect()),
            leases: vec![lease.clone()],
        };
        let live = policy::live_leases(&self.inputs(config, &facts, 0, now));
        Ok(live.first().map(|(_, _, until)| *until))
    }

    fn state_of(&self, holder: &Holder, lease: &Lease, now: &Now) -> Result<LeaseState, Failure> {
        let until = self.live_until(&holder.config, lease, now)?;
        let until = until.ok_or_else(|| none(&lease.identity, lease.address))?;
        Ok(LeaseState {
            identity: lease.identity.clone(),
            address: lease.address,
            until: until.rfc3339(),
            seconds: u64::try_from(until.0 - now.wall().0).unwrap_or(0),
            ports: holder.config.postgres.iter().map(|c| c.port).collect(),
            serial: lease.serial.clone(),
        })
    }

    /// A lease under a deny would promise what the filter does not do.
    fn not_denied(&self, holder: &Holder, now: &Now) -> Result<(), Failure> {
        let clusters: Vec<&String> = holder.config.postgres.iter().map(|c| &c.name).collect();
        let services = policy::services(&holder.config);
        let address = IpNet::from(holder.source);
        let mut facts = Facts {
            entries: self.ledger.entries_touching(&address)?,
            certificates: Vec::new(),
            leases: Vec::new(),
        };
        self.unrecorded.apply(&mut facts.entries, &mut [], now.wall());
        let generation = self.judging(now)?.unwrap_or(0);
        let inputs = self.inputs(&holder.config, &facts, generation, now);
        let deny = policy::openings(&inputs).into_iter().find(|o| {
            o.answer == Answer::Deny
                && o.net.contains(&address)
                && services
                    .get(&o.service)
                    .is_some_and(|name| clusters.contains(&name))
        });
        match deny {
            None => Ok(()),
            Some(deny) => Err(LeaseError {
                identity: holder.identity.name.clone(),
                address: holder.source,
                why: Why::Denied(deny.net),
            }
            .into()),
        }
    }
}

fn none(identity: &str, address: IpAddr) -> Failure {
    LeaseError {
        identity: identity.to_owned(),
        address,
        why: Why::None,
    }
    .into()
}

/// An address that one host on the network can have.
fn is_a_host(address: IpAddr) -> bool {
    let broadcast = match address {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || broadcast)
}

#[derive(Debug, thiserror::Error)]
#[error("{identity} {why}", why = self.why.text(address))]
struct LeaseError {
    identity: String,
    address: IpAddr,
    why: Why,
}

#[derive(Debug)]
enum Why {
    NotRoaming,
    NoHost,
    Denied(IpNet),
    TooMany,
    Full,
    None,
}

impl Why {
    fn text(&self, address: &IpAddr) -> String {
        match self {
            Why::NotRoaming => "may not take leases".into(),
            Why::NoHost => format!("came from {address}, which is no address of a host on the network"),
            Why::Denied(net) => format!("came from {address}, and {net} is denied here"),
            Why::TooMany => format!("holds {LEASES_PER_IDENTITY} leases already"),
            Why::Full => format!("gets no lease: {LEASES} are held here already"),
            Why::None => format!("has no lease for {address}"),
        }
    }
}

impl Explain for LeaseError {
    fn code(&self) -> Code {
        match self.why {
            Why::NotRoaming | Why::NoHost | Why::Denied(_) => Code::Forbidden,
            Why::TooMany | Why::Full => Code::Refused,
            Why::None => Code::NotFound,
        }
    }

    fn remedy(&self) -> String {
        match self.why {
            Why::NotRoaming => "Connect from one of its networks, or ask for `roaming = true`.".into(),
            Why::NoHost => {
                "Connect from another machine; this host reaches PostgreSQL without a lease.".into()
            }
            Why::Denied(_) => "Ask whoever runs this database; `pgfw list` there shows the deny.".into(),
            Why::TooMany => "Give one back (DELETE /lease from its address), or wait until one ends.".into(),
            Why::Full => "Wait until one ends.".into(),
            Why::None => "Take one: POST /lease.".into(),
        }
    }
}
