//! What happens when the daemon starts: adopt what the kernel has, or load the last confirmed policy, or begin
//! the probation of the very first one.

use std::time::Duration;

use super::Engine;
use super::coverable;
use super::engine::make_state_dir;
use super::marker;
use super::rescue;
use crate::clock::Now;
use crate::config::Config;
use crate::datapath::{Choice, Control, Datapath};
use crate::failure::{Explain, Failure};
use crate::fault::{Step, step};
use crate::host::interfaces;
use crate::ledger::types::{EntryEnd, GenerationState};
use crate::paths::Paths;
use crate::policy::coverage::Compiled;

/// How a start ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// The kernel had the policy already; not a packet noticed.
    Adopted { generation: u64 },
    /// The confirmed policy was loaded.
    Loaded { generation: u64 },
    /// What was confirmed cannot be had: SSH only, or the policy that the kernel has as it is.
    Rescued { kept: Option<u64> },
    /// The first policy of this host; undone at the deadline unless confirmed.
    Probation { generation: u64, seconds: u64 },
}

impl Engine {
    /// Brings this host under its policy.
    ///
    /// # Errors
    /// Nothing was ever confirmed and the config is not right, an interface is missing or taken; or the kernel
    /// lacks something. What was enforced before goes on.
    pub fn start(paths: &Paths, probation: Duration) -> Result<(Engine, Started), Failure> {
        make_state_dir(paths)?;
        let (ledger, lost) = rescue::ledger(paths)?;
        step(Step::LedgerOpened);
        if lost.is_none() && ledger.confirmed()?.is_none() && ledger.pending()?.is_none() {
            // A first start touches nothing before the config is known to be right.
            let config = Config::read(&paths.config)?;
            interfaces::matching(&config.firewall.interfaces)?;
        }
        let mut engine = Engine::with(paths, ledger)?;
        engine.stays = true;
        engine.of_own_accord();
        let lock = engine.lock()?;
        engine.held = Some(Datapath::claim(&paths.bpffs, &engine.owner)?);
        step(Step::PinsClaimed);
        engine.open_datapath()?;
        step(Step::DatapathOpened);
        if let Some(why) = lost {
            let started = engine.start_rescue(why)?;
            drop(lock);
            return Ok((engine, started));
        }
        let settled = engine.settle();
        step(Step::Settled);
        if let Err(failure) = engine.resume_unrecorded() {
            tracing::error!("{} {}", failure.message, failure.remedy);
        }
        let started = match engine.ledger.confirmed()? {
            Some(confirmed) => {
                if let Err(failure) = settled {
                    // A full disk keeps a change that was undone in the ledger: the keeper tries again, and `status`
                    // tells. What was confirmed does not wait for it.
                    tracing::error!("{} {}", failure.message, failure.remedy);
                }
                match engine.start_confirmed(confirmed.number) {
                    Ok(started) => started,
                    Err(why) => engine.start_rescue(why)?,
                }
            }
            None => {
                settled?;
                engine.start_first(probation)?
            }
        };
        drop(lock);
        Ok((engine, started))
    }

    pub(super) fn start_confirmed(&mut self, number: u64) -> Result<Started, Failure> {
        let now = Now::read();
        let control = self.control()?;
        self.know_restored(number, control.confirmed)?;
        let loaded = control.confirmed == Choice::Generation(number)
            && self.datapath().generations()?.contains(&number);
        if !loaded {
            let compiled = self.compiled(number, &now)?;
            self.datapath().load(number, &compiled)?;
            step(Step::ConfirmedLoaded);
            self.datapath().set_control(Control {
                confirmed: Choice::Generation(number),
                pending: None,
            })?;
            step(Step::ConfirmedJudges);
        }
        self.refresh()?;
        step(Step::Refreshed);
        let config = self.config_of(number)?;
        self.attach_all(&config, Missing::Complain)?;
        self.datapath().collect()?;
        // A crash may have come between ledger and marker. One that tells of a later policy tells of a restored ledger, and
        // goes on to do so until the next confirmation.
        if marker::read(&self.paths).is_none_or(|marker| marker.policy <= number)
            && let Err(failure) = marker::write(&self.paths, &config, number)
        {
            tracing::error!("{} {}", failure.message, failure.remedy);
        }
        Ok(if loaded {
            Started::Adopted { generation: number }
        } else {
            Started::Loaded { generation: number }
        })
    }

    /// A ledger that is older than what was confirmed by it: whoever restored it should know what went.
    fn know_restored(&mut self, number: u64, in_kernel: Choice) -> Result<(), Failure> {
        let unknown = match in_kernel {
            Choice::Generation(other)
                if other < rescue::FIRST && self.ledger.generation(other)?.is_none() =>
            {
                Some(other)
            }
            Choice::Generation(_) | Choice::Pass => marker::read(&self.paths)
                .map(|marker| marker.policy)
                .filter(|marked| *marked > number),
        };
        if let Some(unknown) = unknown {
            let line = format!(
                "the ledger {} was restored from before policy {unknown}: what was allowed and denied since then is not in \
                 it; say it again, and `pgfw reload`.",
                self.ledger.file().display()
            );
            tracing::error!("{line}");
            self.restored = Some(line);
        }
        Ok(())
    }

    fn start_first(&mut self, probation: Duration) -> Result<Started, Failure> {
        if let Some(pending) = self.ledger.pending()? {
            // A restart within the probation: the deadline stands.
            self.refresh()?;
            let config = self.config_of(pending.number)?;
            self.attach_all(&config, Missing::Complain)?;
            let seconds = self.seconds_left()?;
            return Ok(Started::Probation {
                generation: pending.number,
                seconds,
            });
        }
        if let Choice::Generation(number) = self.control()?.confirmed {
            return self.start_rescue(rescue::not_confirmed(&self.paths, number));
        }
        let config = Config::read(&self.paths.config)?;
        self.attachable(&config)?;
        let now = Now::read();
        let compiled = self.compile(&config, 0, &now)?;
        self.guard_config(None, (&config, &compiled), &now)?;
        // Some drivers say only when asked in earnest that they take no program. Until a policy begins, what is attached
        // lets everything pass: a start that cannot, and is tried again, leaves no row and cuts nobody.
        let begun = self
            .attach_all(&config, Missing::Refuse)
            .and_then(|()| self.begin(&config, probation, false, |_, _| Ok(compiled)));
        let generation = match begun {
            Ok(generation) => generation,
            Err(failure) => {
                self.detach_all()?;
                return Err(failure);
            }
        };
        Ok(Started::Probation {
            generation,
            seconds: probation.as_secs(),
        })
    }

    /// Brings ledger and control record together: a deadline that passed, a power cycle inside a window, a confirm
    /// that was recorded and not carried out.
    pub fn settle(&mut self) -> Result<Settled, Failure> {
        let now = Now::read();
        let Some(pending) = self.ledger.pending()? else {
            self.carry_out_confirmation()?;
            return Ok(Settled::Nothing);
        };
        let control = self.control()?;
        let alive = matches!(control.pending, Some((Choice::Generation(n), deadline))
            if n == pending.number && now.boot < deadline);
        let in_time = match &pending.state {
            GenerationState::Pending { deadline } => deadline.boot_id == self.boot_id,
            GenerationState::Confirmed | GenerationState::RolledBack | GenerationState::Superseded => false,
        };
        if alive && in_time {
            return Ok(Settled::Waits);
        }
        self.undo(pending.number)?;
        self.say_undone(pending.number);
        Ok(Settled::RolledBack {
            generation: pending.number,
        })
    }

    /// A confirmation that reached the ledger and, for a crash in between, not the kernel.
    fn carry_out_confirmation(&mut self) -> Result<(), Failure> {
        let (Some(confirmed), Some(datapath)) = (self.ledger.confirmed()?, &mut self.datapath) else {
            return Ok(());
        };
        let wanted = Control {
            confirmed: Choice::Generation(confirmed.number),
            pending: None,
        };
        if datapath.control()? != wanted && datapath.generations()?.contains(&confirmed.number) {
            datapath.set_control(wanted)?;
            datapath.collect()?;
        }
        Ok(())
    }

    /// Loads `config` as a new pending generation beside the confirmed one and lets it judge until the deadline.
    ///
    /// `compile` records what belongs to it, and says what it compiles to. Unless somebody insists, its program is asked
    /// first whether it cuts anybody whom this host needs.
    pub(super) fn begin(
        &mut self,
        config: &Config,
        time: Duration,
        force: bool,
        compile: impl FnOnce(&mut Engine, u64) -> Result<Compiled, Failure>,
    ) -> Result<u64, Failure> {
        let now = Now::read();
        let deadline = EntryEnd::after(time, &now, &self.boot_id);
        self.ledger.forget_generations(&self.referenced()?)?;
        let number = self.ledger.begin(&config.text, &deadline, now.wall())?;
        step(Step::GenerationRecorded);
        let confirmed = self.control()?.confirmed;
        let loaded = compile(self, number).and_then(|compiled| {
            self.datapath().load(number, &compiled)?;
            step(Step::InSlot);
            if !force {
                self.guard_loaded(number, config, &compiled)?;
            }
            let pending = Some((Choice::Generation(number), deadline.boot));
            Ok(self.datapath().set_control(Control { confirmed, pending })?)
        });
        if let Err(failure) = loaded {
            self.undo(number)?;
            return Err(failure);
        }
        step(Step::Pending);
        #[cfg(feature = "log")]
        self.datapath().follow_diagnostics(number)?;
        Ok(number)
    }

    /// Gives a pending generation up: the kernel first, then the ledger. A ledger that cannot take it keeps nothing in
    /// force.
    pub(super) fn undo(&mut self, number: u64) -> Result<(), Failure> {
        let confirmed = self.control()?.confirmed;
        if let Some(datapath) = &mut self.datapath {
            datapath.set_control(Control {
                confirmed,
                pending: None,
            })?;
        }
        step(Step::UndoneInKernel);
        let recorded = self.ledger.roll_back(number);
        step(Step::UndoRecorded);
        if let Choice::Generation(number) = confirmed {
            let config = self.config_of(number)?;
            self.attach_all(&config, Missing::Complain)?;
        } else {
            self.detach_all()?;
        }
        step(Step::UndoAttached);
        if let Some(datapath) = &mut self.datapath {
            datapath.collect()?;
        }
        step(Step::UndoCollected);
        recorded.map_err(|source| StartError::UndoneOnly { number, source }.into())
    }

    fn detach_all(&mut self) -> Result<(), Failure> {
        if let Some(datapath) = &mut self.datapath {
            for attached in datapath.attached()? {
                datapath.detach(attached.ifindex)?;
            }
        }
        Ok(())
    }

    /// Whether every interface that the config means can be attached to, as far as that can be known without doing it.
    ///
    /// # Errors
    /// The first objection, as [`Engine::attach_all`] would meet it.
    pub(super) fn attachable(&mut self, config: &Config) -> Result<(), Failure> {
        let found = interfaces::matching(&config.firewall.interfaces)?;
        let attached = self.datapath().attached()?;
        let mut uncovered = found
            .iter()
            .filter(|i| !attached.iter().any(|a| a.alive && a.ifindex == i.index))
            .peekable();
        if uncovered.peek().is_some() {
            coverable::knows_what_to_forward(config)?;
        }
        for interface in uncovered {
            coverable::sees_all_sockets(interface)?;
            self.datapath().attachable(interface.index)?;
        }
        Ok(())
    }

    /// Attaches to every interface that the config means, and detaches from every other unless a change waits.
    pub(super) fn attach_all(&mut self, config: &Config, or: Missing) -> Result<(), Failure> {
        let (found, missing) = match or {
            Missing::Refuse => (interfaces::matching(&config.firewall.interfaces)?, Vec::new()),
            Missing::Complain => interfaces::present(&config.firewall.interfaces)?,
        };
        let known = std::mem::take(&mut self.complaints);
        self.name_missing(missing);
        let attached = self.datapath().attached()?;
        let covered = |i: &interfaces::Interface| attached.iter().any(|a| a.alive && a.ifindex == i.index);
        if !found.iter().all(covered) {
            self.heed(coverable::knows_what_to_forward(config), or)?;
        }
        for interface in found.iter().filter(|i| !covered(i)) {
            self.heed(coverable::sees_all_sockets(interface), or)?;
            let tried = self.datapath().attach(interface.index, config.firewall.attach);
            match tried {
                Ok(attached) => {
                    tracing::info!(
                        interface = %interface.name,
                        mode = attached.mode.map_or_else(String::new, |mode| mode.to_string()),
                        about = attached.about,
                        "attached"
                    )
                }
                Err(error) if or == Missing::Refuse => return Err(error.into()),
                Err(error) => {
                    let failure = Failure::from(error);
                    let complaint = format!("{} {}", failure.message, failure.remedy);
                    if !known.contains(&complaint) {
                        tracing::error!(interface = %interface.name, "{complaint}");
                    }
                    self.complaints.push(complaint);
                }
            }
        }
        step(Step::AttachedAll);
        // While a change waits, what the confirmed policy covers stays covered: the kernel may go back to it alone.
        if self.control()?.pending.is_none() {
            for old in attached {
                if !found.iter().any(|i| i.index == old.ifindex) {
                    self.datapath().detach(old.ifindex)?;
                }
            }
        }
        Ok(())
    }

    /// An objection to attaching refuses it to whoever asks. To a host that is to run, open is worse than too closed.
    fn heed(&mut self, objection: Result<(), Failure>, or: Missing) -> Result<(), Failure> {
        match (objection, or) {
            (Ok(()), Missing::Refuse | Missing::Complain) => Ok(()),
            (Err(failure), Missing::Refuse) => Err(failure),
            (Err(failure), Missing::Complain) => {
                tracing::error!("{}", failure.message);
                self.complaints
                    .push(format!("{}. {}", failure.message, failure.remedy));
                Ok(())
            }
        }
    }

    /// Covers interfaces that matched and were not there before.
    pub(super) fn attach_missing(&mut self) -> Result<(), Failure> {
        let Some(number) = self.judging(&Now::read())? else {
            return Ok(());
        };
        let (found, missing) = interfaces::present(&self.wanted_interfaces(number)?)?;
        self.name_missing(missing);
        let attached = self.datapath().attached()?;
        let covered = |i: &interfaces::Interface| attached.iter().any(|a| a.alive && a.ifindex == i.index);
        // The link of an interface that is gone goes, too.
        if found.iter().all(covered) && attached.iter().all(|a| a.alive) {
            return Ok(());
        }
        let config = self.config_of(number)?;
        self.attach_all(&config, Missing::Complain)
    }

    /// The interfaces that a generation names; its config is parsed again only when the ledger was written to.
    fn wanted_interfaces(&mut self, number: u64) -> Result<Vec<String>, Failure> {
        let version = self.ledger.version()?;
        if let Some((of, at, interfaces)) = &self.interfaces
            && (*of, *at) == (number, version)
        {
            return Ok(interfaces.clone());
        }
        let interfaces = self.config_of(number)?.firewall.interfaces;
        self.interfaces = Some((number, version, interfaces.clone()));
        Ok(interfaces)
    }

    /// Tells the journal of an interface that has gone, or has not come yet; `status` finds out by itself.
    fn name_missing(&mut self, missing: Vec<String>) {
        for name in missing.iter().filter(|name| !self.missing.contains(name)) {
            tracing::warn!("there is no interface {name}; it is covered when it appears");
        }
        self.missing = missing;
    }

    pub(super) fn seconds_left(&self) -> Result<u64, Failure> {
        match self.control()?.pending {
            Some((_, deadline)) => Ok(deadline
                .0
                .saturating_sub(Now::read().boot.0)
                .div_ceil(1_000_000_000)),
            None => Ok(0),
        }
    }

    pub(super) fn datapath(&mut self) -> &mut Datapath {
        self.datapath
            .as_mut()
            .expect("opened at start; commands that find it gone answer before they come here")
    }
}

/// What an interface means that is not there, or cannot be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Somebody asks for this now: refuse, nothing is half done.
    Refuse,
    /// It is to run: cover the others, and complain.
    Complain,
}

/// What [`Engine::settle`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    Nothing,
    /// A change waits for its confirmation.
    Waits,
    RolledBack {
        generation: u64,
    },
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("policy {number} is undone, and that could not be recorded")]
    UndoneOnly {
        number: u64,
        source: crate::ledger::LedgerError,
    },
}

impl Explain for StartError {
    fn remedy(&self) -> String {
        match self {
            StartError::UndoneOnly { number: _, source } => {
                format!("It stays undone. {}", source.remedy())
            }
        }
    }
}
