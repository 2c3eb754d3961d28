//! What stands in where a policy was confirmed once and cannot be had: SSH only, at the ports where sshd listens. Where the
//! kernel has the confirmed policy still, that goes on as it is, and can be closed further.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Engine;
use super::engine::Facts;
use super::marker::{self, Marker};
use super::start::{Missing, Started};
use crate::clock::{BootTime, Now};
use crate::config::{Config, Mode, Ssh};
use crate::datapath::{Choice, Control, Datapath};
use crate::failure::{Explain, Failure};
use crate::host::sshd;
use crate::ledger::types::EntryKind;
use crate::ledger::{Ledger, LedgerError};
use crate::paths::Paths;
use crate::policy::close;
use crate::policy::coverage::{Compiled, Until};

/// Why, and what instead.
#[derive(Debug, Clone)]
pub(super) struct Rescue {
    pub why: Failure,
    /// SSH only, on the interfaces that were meant.
    pub config: Config,
    /// The confirmed policy, which the kernel has and nobody can compile.
    pub kept: Option<u64>,
}

/// Policies of a rescue are numbered from here on: no ledger comes so far.
pub(super) const FIRST: u64 = 1 << 62;

const EVERYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// While a host is in rescue, sshd may still be starting.
const ROUND_NS: u64 = 5_000_000_000;

impl Rescue {
    fn new(paths: &Paths, why: Failure) -> Result<Rescue, Failure> {
        let known = marker::read(paths).unwrap_or_default();
        let config = config(paths, &known, &ports(paths, &known))?;
        Ok(Rescue {
            why,
            config,
            kept: None,
        })
    }

    /// Whether a generation of the kernel is one that nobody wrote down.
    pub(super) fn numbered(&self, generation: u64) -> bool {
        generation >= FIRST || self.kept == Some(generation)
    }
}

/// Where sshd listens; before it does, where it is said to.
fn ports(paths: &Paths, known: &Marker) -> BTreeSet<u16> {
    let listening = sshd::ports().unwrap_or_default();
    if !listening.is_empty() {
        return listening;
    }
    let mut ports: BTreeSet<u16> = known.ssh_ports.iter().copied().collect();
    ports.extend(
        Config::read(&paths.config)
            .iter()
            .flat_map(|config| &config.ssh.ports),
    );
    ports.extend(sshd::configured());
    ports
}

/// What pgfw.toml says about interfaces and link layer, where it can be read, and nothing of whom it lets in.
fn config(paths: &Paths, known: &Marker, ports: &BTreeSet<u16>) -> Result<Config, Failure> {
    let read = Config::read(&paths.config).or_else(|_| {
        let all = ["*".to_owned()];
        let named = if known.interfaces.is_empty() {
            &all[..]
        } else {
            &known.interfaces
        };
        let named: Vec<String> = named.iter().map(|name| format!("{name:?}")).collect();
        Config::parse(
            &format!("[firewall]\ninterfaces = [{}]\n", named.join(", ")),
            &paths.confirmed_marker(),
        )
    })?;
    let mut config = Config {
        ssh: Ssh {
            ports: ports.iter().copied().collect(),
            allow: EVERYWHERE.iter().filter_map(|net| net.parse().ok()).collect(),
        },
        postgres: Vec::new(),
        services: Vec::new(),
        identities: Vec::new(),
        logins: Vec::new(),
        ..read
    };
    config.firewall.mode = Mode::Enforce;
    Ok(config)
}

/// The ledger, or one that stands in for it and why: where something was confirmed, what it was cannot be told from an empty
/// file any more than from a damaged one.
pub(super) fn ledger(paths: &Paths) -> Result<(Ledger, Option<Failure>), Failure> {
    let file = paths.ledger();
    let lost = || LostLedger {
        ledger: file.clone(),
        marker: paths.confirmed_marker(),
    };
    let marked = marker::read(paths).is_some();
    // Opening makes one where there is none, which the next start would take for a restored one.
    let opened = if marked && !file.exists() {
        Err(lost().into())
    } else {
        Ledger::open(&file).map_err(Failure::from)
    };
    let why = match opened {
        Ok(ledger) if marked && ledger.confirmed()?.is_none() => lost().into(),
        Ok(ledger) => return Ok((ledger, None)),
        Err(why) if marked || confirmed_in_kernel(paths) => why,
        Err(why) => return Err(why),
    };
    Ok((Ledger::stand_in(&file, &why.message)?, Some(why)))
}

/// For whoever only looks.
pub(super) fn stand_in(paths: &Paths, error: LedgerError) -> Result<Ledger, Failure> {
    let why = Failure::from(error);
    if marker::read(paths).is_none() && !confirmed_in_kernel(paths) {
        return Err(why);
    }
    Ok(Ledger::stand_in(&paths.ledger(), &why.message)?)
}

fn confirmed_in_kernel(paths: &Paths) -> bool {
    let control = || Datapath::open(&paths.bpffs)?.control();
    Datapath::exists(&paths.bpffs) && control().is_ok_and(|control| control.confirmed != Choice::Pass)
}

pub(super) fn not_confirmed(paths: &Paths, number: u64) -> Failure {
    NotConfirmed {
        number,
        ledger: paths.ledger(),
    }
    .into()
}

impl Engine {
    /// For a command without the daemon, beside a kernel that is in rescue.
    pub(super) fn know_rescue(&mut self) -> Result<(), Failure> {
        let Choice::Generation(number) = self.control()?.confirmed else {
            return Ok(());
        };
        let why = match self.ledger.generation(number)? {
            Some(_) if self.config_of(number).is_ok() => return Ok(()),
            Some(generation) => match self.config_of(generation.number) {
                Err(why) => why,
                Ok(_) => return Ok(()),
            },
            None => match ledger(&self.paths) {
                Ok((_, Some(why))) => why,
                Ok((_, None)) | Err(_) => not_confirmed(&self.paths, number),
            },
        };
        let kept = (number < FIRST).then_some(number);
        self.rescue = Some(Rescue {
            kept,
            ..Rescue::new(&self.paths, why)?
        });
        Ok(())
    }

    /// Brings the host under what there is: the policy that the kernel has, else SSH only.
    pub(super) fn start_rescue(&mut self, why: Failure) -> Result<Started, Failure> {
        tracing::error!("{}. {}", why.message, why.remedy);
        self.rescue = Some(Rescue::new(&self.paths, why)?);
        let (confirmed, loaded) = (self.control()?.confirmed, self.datapath().generations()?);
        let kept = match confirmed {
            Choice::Generation(number) if number < FIRST && loaded.contains(&number) => Some(number),
            Choice::Generation(_) | Choice::Pass => None,
        };
        if kept.is_some() {
            self.in_rescue(|rescue| rescue.kept = kept);
            // What waits can be kept by nobody.
            self.datapath().set_control(Control {
                confirmed,
                pending: None,
            })?;
            self.refresh()?;
        } else {
            self.load_rescue()?;
        }
        if let Some(Rescue { config, .. }) = self.rescue.clone() {
            self.attach_all(&config, Missing::Complain)?;
        }
        self.datapath().collect()?;
        Ok(Started::Rescued { kept })
    }

    /// Puts the present SSH-only policy into the kernel.
    fn load_rescue(&mut self) -> Result<(), Failure> {
        let Some(rescue) = &self.rescue else {
            return Ok(());
        };
        let number = match self.control()?.confirmed {
            Choice::Generation(number) if number >= FIRST => number + 1,
            Choice::Generation(_) | Choice::Pass => FIRST,
        };
        let compiled = self.compile(&rescue.config, number, &Now::read())?;
        let confirmed = self.control()?.confirmed;
        self.datapath().set_control(Control {
            confirmed,
            pending: None,
        })?;
        self.datapath().load(number, &compiled)?;
        self.datapath().set_control(Control {
            confirmed: Choice::Generation(number),
            pending: None,
        })?;
        self.datapath().collect()?;
        Ok(())
    }

    /// Follows sshd to where it listens. Returns when to look again.
    pub(super) fn tend_rescue(&mut self) -> Result<Option<BootTime>, Failure> {
        let Some(Rescue {
            config, kept: None, ..
        }) = &self.rescue
        else {
            return Ok(None);
        };
        let found = sshd::ports().unwrap_or_default();
        if self.control()?.pending.is_none() && !found.is_empty() && !found.iter().eq(&config.ssh.ports) {
            tracing::warn!(ports = ?found, "sshd listens elsewhere than was thought; it is let in there");
            self.in_rescue(|rescue| rescue.config.ssh.ports = found.into_iter().collect());
            self.load_rescue()?;
        }
        Ok(Some(BootTime(Now::read().boot.0 + ROUND_NS)))
    }

    fn in_rescue(&mut self, change: impl FnOnce(&mut Rescue)) {
        if let Some(rescue) = &mut self.rescue {
            change(rescue);
        }
    }

    /// The policy that is kept, with what has been denied since: all that can be said of it without its config.
    pub(super) fn kept(
        &self,
        generation: u64,
        facts: &Facts,
        now: &Now,
    ) -> Result<Option<Compiled>, Failure> {
        let (Some(rescue), Some(datapath)) = (&self.rescue, &self.datapath) else {
            return Ok(None);
        };
        if rescue.kept != Some(generation) {
            return Ok(None);
        }
        let services = datapath.services(generation)?;
        let mut compiled = Compiled {
            names: services
                .iter()
                .map(|(port, id)| (*id, format!("port {}", port.port)))
                .collect(),
            services,
            coverage: datapath.coverage(generation)?,
            ..Compiled::default()
        };
        let denies = facts
            .entries
            .iter()
            .filter(|e| e.kind == EntryKind::Deny && e.service.is_none());
        for entry in denies {
            if !entry.ended(now, &self.boot_id) {
                let until = entry
                    .end
                    .as_ref()
                    .map_or(Until::Forever, |end| Until::At(end.boot_end(now, &self.boot_id)));
                close(&mut compiled, entry.net, until);
            }
        }
        Ok(Some(compiled))
    }

    /// For what opens, which takes a policy that is known.
    pub(super) fn not_in_rescue(&self, what: &str) -> Result<(), Failure> {
        match &self.rescue {
            None => Ok(()),
            Some(rescue) => Err(RescueError {
                what: what.to_owned(),
                why: rescue.why.clone(),
            }
            .into()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a policy was confirmed on this host ({} says so), and the ledger {} knows of none", marker.display(), ledger.display())]
struct LostLedger {
    ledger: PathBuf,
    marker: PathBuf,
}

impl Explain for LostLedger {
    fn remedy(&self) -> String {
        format!(
            "Restore {} and restart pgfw; or start over: `pgfw off`, remove {}, restart.",
            self.ledger.display(),
            self.marker.display()
        )
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the kernel enforces policy {number}, and the ledger {} knows of none that was confirmed", ledger.display())]
struct NotConfirmed {
    number: u64,
    ledger: PathBuf,
}

impl Explain for NotConfirmed {
    fn remedy(&self) -> String {
        format!(
            "Restore {} and restart pgfw; or start over: `pgfw off`, then restart it.",
            self.ledger.display()
        )
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{what} needs the policy that was confirmed, which cannot be had: {}", why.message)]
struct RescueError {
    what: String,
    why: Failure,
}

impl Explain for RescueError {
    fn remedy(&self) -> String {
        format!("{} `pgfw deny` of a network works meanwhile.", self.why.remedy)
    }
}
