//! Leases: an address that reaches PostgreSQL for as long as whoever is there holds a certificate.
//!
//! The gate is believed in nothing but the source of a connection. What it hands on is verified again here, against
//! authorities, lists and the ledger, so a gate in the wrong hands opens what a certificate that it has seen could open.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::Engine;
use super::certificates::store;
use super::lease_events::{LeaseEnd, LeaseEvent};
use crate::api::{AskLease, GivenBack, LeaseState, Proven};
use crate::clock::{Now, WallTime};
use crate::config::{Config, Gate, Identity};
use crate::failure::{Code, Explain, Failure};
use crate::fault::{Step, step};
use crate::ledger::types::{Authority, Certificate, EntryEnd, Lease, NewLease};
use crate::pki::ClientVerifier;
use crate::policy::{self, Answer, Origin};

/// Addresses that one identity may hold at a time: a stolen certificate opens no more.
pub const LEASES_PER_IDENTITY: usize = 64;

/// Leases of all identities together.
pub const LEASES: usize = 16_384;

/// Who stands at the gate.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) config: Config,
    pub(super) gate: Gate,
    pub(super) identity: Identity,
    pub(super) certificate: Certificate,
    pub(super) source: IpAddr,
}

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
            let apply = |facts: &mut super::engine::Facts| facts.leases.retain(|l| l.id != lease.id);
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
        let live = self.live_leases(&holder.config, now)?;
        let others = live
            .iter()
            .filter(|l| !(l.identity == holder.identity.name && l.address == address));
        if others.clone().count() >= LEASES {
            return Err(refused(Why::Full).into());
        }
        if others.filter(|l| l.identity == holder.identity.name).count() >= LEASES_PER_IDENTITY {
            return Err(refused(Why::TooMany).into());
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
        let apply = |facts: &mut super::engine::Facts| {
            facts
                .leases
                .retain(|l| put.replaced.as_ref().is_none_or(|gone| gone.id != l.id));
            facts.leases.push(put.lease.clone());
        };
        if let Err(failure) = self.refresh_after(&net, apply, before, now) {
            self.ledger.undo_put_lease(&put)?;
            let _ = self.refresh();
            return Err(failure);
        }
        step(Step::LeaseInKernel);
        self.say_lease(&LeaseEvent::Granted { lease: &put.lease });
        self.state_of(holder, &put.lease, now)
    }

    /// A refusal is told before it is answered.
    pub(super) fn said<T>(
        &self,
        what: &'static str,
        holder: &Holder,
        done: Result<T, Failure>,
    ) -> Result<T, Failure> {
        if let Err(why) = &done {
            self.say_lease(&LeaseEvent::Refused {
                what,
                source: holder.source,
                certificate: Some(&holder.certificate),
                why,
            });
        }
        done
    }

    /// Who a certificate says is there: one that the authorities, their lists, and the ledger all know, of an identity that
    /// the policy in force has.
    pub(super) fn holder(&self, what: &'static str, proven: &Proven, now: &Now) -> Result<Holder, Failure> {
        let source = proven.source.to_canonical();
        self.not_in_rescue(what)?;
        let config = self.config()?;
        let gate = config.gate.clone().ok_or_else(no_gate)?;
        let certificate = self.known_certificate(&config, proven, now);
        let identity = certificate
            .as_ref()
            .ok()
            .and_then(|c| config.identity(&c.name))
            .cloned();
        let found = certificate.and_then(|certificate| match identity {
            Some(identity) => Ok((certificate, identity)),
            None => Err(HolderError::NoIdentity {
                name: certificate.name,
            }
            .into()),
        });
        match found {
            Ok((certificate, identity)) => Ok(Holder {
                gate,
                identity,
                certificate,
                source,
                config,
            }),
            Err(failure) => {
                self.say_lease(&LeaseEvent::Refused {
                    what,
                    source,
                    certificate: None,
                    why: &failure,
                });
                Err(failure)
            }
        }
    }

    fn known_certificate(&self, config: &Config, proven: &Proven, now: &Now) -> Result<Certificate, Failure> {
        let store = store(config);
        let roots = store.roots(Authority::Client)?;
        let verifier = ClientVerifier::new(&roots, &store.lists(Authority::Client)?)?;
        let at = now.wall();
        let leaf = verifier
            .verify(&proven.chain, at)
            .map_err(|error| HolderError::Invalid {
                why: error.to_string(),
            })?;
        // What was signed with an authority's key and is in no ledger was not issued here.
        let known = self
            .facts()?
            .certificates
            .into_iter()
            .find(|c| c.authority == Authority::Client && crate::pki::is_certificate(&c.pem, &leaf));
        match known {
            Some(certificate) if certificate.valid_at(at) => Ok(certificate),
            Some(certificate) => Err(HolderError::Invalid {
                why: format!("{} is revoked", certificate.serial),
            }
            .into()),
            None => Err(HolderError::Unknown.into()),
        }
    }

    /// Those that open something now.
    fn live_leases(&self, config: &Config, now: &Now) -> Result<Vec<Lease>, Failure> {
        let open: HashSet<(Origin, IpNet)> = self
            .openings(config, now)?
            .into_iter()
            .map(|opening| (opening.origin, opening.net))
            .collect();
        let mut all = self.ledger.leases()?;
        all.retain(|lease| open.contains(&(Origin::Lease(lease.identity.clone()), lease.net())));
        Ok(all)
    }

    fn lease_of(&self, holder: &Holder, now: &Now) -> Result<Lease, Failure> {
        let mut live = self.live_leases(&holder.config, now)?.into_iter();
        let mine = live.find(|l| l.identity == holder.identity.name && l.address == holder.source);
        mine.ok_or_else(|| {
            LeaseError {
                identity: holder.identity.name.clone(),
                address: holder.source,
                why: Why::None,
            }
            .into()
        })
    }

    /// What the filter was told of a lease, from the same openings.
    fn state_of(&self, holder: &Holder, lease: &Lease, now: &Now) -> Result<LeaseState, Failure> {
        let origin = Origin::Lease(lease.identity.clone());
        let openings = self.openings(&holder.config, now)?;
        let until = openings
            .iter()
            .filter(|o| o.origin == origin && o.net == lease.net())
            .filter_map(|o| o.end)
            .max();
        let until: WallTime = until.ok_or_else(|| LeaseError {
            identity: lease.identity.clone(),
            address: lease.address,
            why: Why::None,
        })?;
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
        let deny = self.openings(&holder.config, now)?.into_iter().find(|o| {
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

pub(super) fn no_gate() -> Failure {
    Failure::new(
        Code::NotFound,
        "the policy in force has no gate",
        "Add a [gate] section to pgfw.toml, then: pgfw reload.",
    )
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
enum HolderError {
    #[error("the certificate lets nobody in: {why}")]
    Invalid { why: String },
    #[error("the certificate is not in this host's ledger")]
    Unknown,
    #[error("there is no identity `{}` in the policy in force", name.escape_debug())]
    NoIdentity { name: String },
}

impl Explain for HolderError {
    fn code(&self) -> Code {
        Code::Forbidden
    }

    fn remedy(&self) -> String {
        match self {
            HolderError::Invalid { why: _ } | HolderError::Unknown => {
                "Ask whoever runs this database for a new certificate (pgfw cert issue).".into()
            }
            HolderError::NoIdentity { name: _ } => {
                "Ask whoever runs this database to add the identity to pgfw.toml and `pgfw reload`.".into()
            }
        }
    }
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
