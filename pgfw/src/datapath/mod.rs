//! The one place that talks to the kernel's BPF side: loads policies, pins them, chooses between them, asks them.
//!
//! Everything stands in pins, so a [`Datapath`] is only a handle: dropping it, or dying with it, changes nothing. Whoever
//! changes something holds the instance's change lock.

mod attach;
mod clsact;
mod counters;
mod device;
#[cfg(feature = "log")]
mod diagnostics;
mod egress;
mod error;
mod events;
mod grow;
mod kernel;
mod load;
mod maps;
mod object;
mod owner;
mod pins;
mod prefixes;
mod preflight;
mod probe;
mod slots;
mod sys;
mod tables;
mod ticks;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use pgfw_common::record::{self, Chosen};

pub use attach::Attached;
pub use counters::{Counters, ServiceCount};
pub use device::Mode;
pub use error::{DatapathError, ForeignProgram};
pub use events::{Dropped, EventReader, LostEvents};
pub use kernel::Kernel;
pub use object::{COMPILER, object};
pub use owner::{Held, Owner, UNKNOWN};
pub use pins::Removed;
pub use probe::{Answer, Probe};
pub use slots::{Choice, Control};
pub use tables::Stamp;

use self::load::Fixed;
use self::pins::Pins;
use self::slots::{ControlWord, Occupants};
use self::ticks::Ticks;
use crate::config::Attach;
use crate::fault::{Step, step};
use crate::policy::coverage::{Compiled, Coverage, CoverageKey, ServiceId, ServicePort};

/// One instance's programs and tables in the kernel.
#[derive(Debug)]
pub struct Datapath {
    kernel: Kernel,
    pins: Pins,
    fixed: Fixed,
    control: ControlWord,
}

impl Datapath {
    /// Adopts what is pinned under `pins`, or makes it; the folder is made when absent and must lie on a bpf file system.
    ///
    /// # Errors
    /// What is missing, by name, before anything is made: kernel, capability, bpf file system. Damaged pins.
    pub fn open(pins: &Path) -> Result<Datapath, DatapathError> {
        preflight::check()?;
        let kernel = Kernel::probe()?;
        let pins = Pins::new(pins);
        pins.create()?;
        let fixed = Fixed::open(kernel, &pins)?;
        let control = ControlWord::open(&pins)?;
        Ok(Datapath {
            kernel,
            pins,
            fixed,
            control,
        })
    }

    /// What this kernel can do, and what is done accordingly.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Makes the pins this ledger's, for as long as the result is kept also this process's alone.
    ///
    /// # Errors
    /// What is missing, by name, as for [`Datapath::open`]; pins of another ledger; another daemon that holds them.
    pub fn claim(pins: &Path, owner: &Owner) -> Result<Held, DatapathError> {
        preflight::check()?;
        // What the kernel lacks is said before anything is made.
        Kernel::probe()?;
        let pins = Pins::new(pins);
        owner::check(&pins, owner)?;
        pins.create()?;
        owner::claim(&pins, owner)
    }

    /// Whose pins these are; `None` where there are none, or of a pgfw that did not say.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn owner(pins: &Path) -> Result<Option<Owner>, DatapathError> {
        owner::read(&Pins::new(pins))
    }

    /// Refuses pins of another ledger.
    ///
    /// # Errors
    /// [`DatapathError::OthersPins`]; a folder that cannot be read.
    pub fn check_owner(pins: &Path, owner: &Owner) -> Result<(), DatapathError> {
        owner::check(&Pins::new(pins), owner)
    }

    /// Whether anything of pgfw, of whatever ABI, is pinned there.
    pub fn exists(pins: &Path) -> bool {
        pins::exists(pins)
    }

    /// Detaches everything and removes every pin and folder, in whatever state they are.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn off(pins: &Path) -> Result<Removed, DatapathError> {
        pins::remove_all(pins)
    }

    /// The control record as it stands, whether or not its deadline has passed.
    ///
    /// # Errors
    /// Damaged pins.
    pub fn control(&self) -> Result<Control, DatapathError> {
        Occupants::read(&self.pins)?.describe(self.control.load(), &self.ticks()?, &self.pins)
    }

    /// Changes the policy in force, of all interfaces at once, by one store.
    ///
    /// # Errors
    /// A generation that is not loaded; then nothing has changed.
    pub fn set_control(&mut self, control: Control) -> Result<(), DatapathError> {
        let record = Occupants::read(&self.pins)?.encode(control, &self.ticks()?)?;
        self.control.store(record);
        Ok(())
    }

    /// Loads a policy into the slot that is neither confirmed nor pending. It judges nothing until it is chosen.
    ///
    /// # Errors
    /// Both slots in use; a program that the kernel refuses; a table that does not fit. Then nothing of it stays.
    pub fn load(&mut self, generation: u64, policy: &Compiled) -> Result<(), DatapathError> {
        grow::settle(&self.pins)?;
        let ticks = self.ticks()?;
        let control = self.settle(&ticks);
        let occupants = Occupants::read(&self.pins)?;
        let free = self.free_slot(control, &occupants)?;
        if let Some(slot) = occupants.slot(generation)
            && slot != free
        {
            return Err(DatapathError::InForce { generation });
        }
        self.clear(free)?;
        load::generation(self.kernel, &self.pins, generation, policy, &ticks)?;
        step(Step::ProgramsPinned);
        grow::place(&self.pins, &self.pins.generation(generation), free)
    }

    /// Whether every pin is there that the policies in force need.
    ///
    /// # Errors
    /// [`DatapathError::Damaged`], naming the first that is gone.
    pub fn complete(&self) -> Result<(), DatapathError> {
        let fixed = maps::SHARED
            .into_iter()
            .chain([load::ENTRY, load::EGRESS, load::CLOCK]);
        self.all_there(fixed.map(|name| self.pins.object(name)))?;
        let control = self.control()?;
        let choices = [Some(control.confirmed), control.pending.map(|(choice, _)| choice)];
        for choice in choices.into_iter().flatten() {
            if let Choice::Generation(number) = choice {
                let folder = self.pins.generation(number);
                let own = maps::OWN
                    .into_iter()
                    .chain([load::POLICY, load::PROBE, load::NOTE]);
                self.all_there(own.map(|name| folder.join(name)))?;
            }
        }
        Ok(())
    }

    fn all_there(&self, mut pins: impl Iterator<Item = PathBuf>) -> Result<(), DatapathError> {
        match pins.find(|path| !path.exists()) {
            None => Ok(()),
            Some(path) => Err(DatapathError::Damaged {
                path: self.pins.root().to_owned(),
                what: format!("{} is gone", path.display()),
            }),
        }
    }

    /// The generations that stand in a slot.
    ///
    /// # Errors
    /// Damaged pins.
    pub fn generations(&self) -> Result<Vec<u64>, DatapathError> {
        let Occupants(found) = Occupants::read(&self.pins)?;
        let mut generations: Vec<u64> = found.into_iter().flatten().collect();
        generations.sort_unstable();
        Ok(generations)
    }

    /// Empties slots that the control record does not name and removes generations that stand in none.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn collect(&mut self) -> Result<(), DatapathError> {
        grow::settle(&self.pins)?;
        let control = self.settle(&self.ticks()?);
        let used = used_slots(control);
        for slot in (0..record::SLOTS).filter(|slot| !used.contains(slot)) {
            self.clear(slot)?;
        }
        let kept = self.generations()?;
        let folders = self
            .pins
            .generation_folders()
            .map_err(DatapathError::call(format!(
                "read {}",
                self.pins.shared().display()
            )))?;
        for generation in folders
            .into_iter()
            .filter(|generation| !kept.contains(generation))
        {
            pins::remove_tree(&self.pins.generation(generation), &mut 0)?;
        }
        attach::forget_other_abis(&self.pins, &self.fixed)
    }

    /// A generation's coverage as the kernel has it.
    ///
    /// # Errors
    /// A generation that is not loaded.
    pub fn coverage(&self, generation: u64) -> Result<BTreeMap<CoverageKey, Coverage>, DatapathError> {
        tables::coverage(&self.pins, generation)
    }

    /// The row that decides about `source` at `service`: the longest prefix that holds it.
    ///
    /// # Errors
    /// A generation that is not loaded.
    pub fn covering(
        &self,
        generation: u64,
        service: ServiceId,
        source: IpAddr,
    ) -> Result<Option<(CoverageKey, Coverage)>, DatapathError> {
        tables::find(&self.pins, generation, service, source)
    }

    /// A generation's service table as the kernel has it.
    ///
    /// # Errors
    /// A generation that is not loaded.
    pub fn services(&self, generation: u64) -> Result<BTreeMap<ServicePort, ServiceId>, DatapathError> {
        tables::services(&self.pins, generation)
    }

    /// The memory of a generation's table of prefixes: bytes in use, and in all.
    ///
    /// # Errors
    /// A generation that is not loaded.
    pub fn table_size(&self, generation: u64) -> Result<(u64, u64), DatapathError> {
        tables::size(&self.pins, generation)
    }

    /// Changes a generation's coverage in place: each source's answer is the one before or the one after.
    ///
    /// A table that is full is replaced by a larger one.
    ///
    /// # Errors
    /// No memory for a larger table; then nothing has changed.
    pub fn update(
        &mut self,
        generation: u64,
        put: &[(CoverageKey, Coverage)],
        remove: &[CoverageKey],
    ) -> Result<(), DatapathError> {
        grow::settle(&self.pins)?;
        // Rows that say already what they should tell nothing of what is found, where a crash came in between.
        if put.is_empty() && remove.is_empty() && !tables::is_cut_short(&self.pins, generation)? {
            return Ok(());
        }
        let ticks = self.ticks()?;
        match tables::update(&self.pins, generation, &ticks, put, remove) {
            Err(DatapathError::Full { .. }) => {
                let larger = tables::larger(&self.pins, generation, &ticks, put, remove)?;
                grow::replace(self.kernel, &self.pins, generation, larger)
            }
            done => done,
        }
    }

    /// Tells, by being another one, that a generation's tables were written since, by whomever.
    ///
    /// # Errors
    /// A generation that is not loaded.
    pub fn stamp(&self, generation: u64) -> Result<Stamp, DatapathError> {
        tables::stamp(&self.pins, generation)
    }

    /// What a loaded policy, chosen or not, says about a frame that comes in on `ifindex`. Changes nothing.
    ///
    /// # Errors
    /// A generation that is not loaded; a frame shorter than an Ethernet header.
    pub fn check(
        &self,
        generation: u64,
        frame: &[u8],
        ifindex: Option<u32>,
    ) -> Result<Answer, DatapathError> {
        self.probe(generation)?.ask(frame, ifindex)
    }

    /// The same for many frames.
    ///
    /// # Errors
    /// A generation that is not loaded.
    pub fn probe(&self, generation: u64) -> Result<Probe, DatapathError> {
        Probe::open(self.kernel, &self.pins, generation)
    }

    /// Attaches to an interface of the caller's network namespace, or adopts the attachment that is there.
    ///
    /// # Errors
    /// The loopback interface, a device without Ethernet header, a foreign program, a mode that cannot be had.
    pub fn attach(&mut self, ifindex: u32, mode: Attach) -> Result<Attached, DatapathError> {
        attach::attach(self.kernel, &self.pins, &mut self.fixed, ifindex, mode)
    }

    /// Whether something is in the way of [`Datapath::attach`], as far as that can be known without touching the device.
    ///
    /// # Errors
    /// As for [`Datapath::attach`], but for a mode that cannot be had.
    pub fn attachable(&self, ifindex: u32) -> Result<(), DatapathError> {
        attach::attachable(&self.pins, ifindex)
    }

    /// Takes pgfw off an interface. One that carries nothing of it is left as it is.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        attach::detach(&self.pins, ifindex)
    }

    /// Every interface that has a link, and whether it still holds.
    ///
    /// # Errors
    /// A pin that is no link.
    pub fn attached(&self) -> Result<Vec<Attached>, DatapathError> {
        attach::attached(&self.pins, &self.fixed)
    }

    /// What has been counted since the pins were made.
    ///
    /// # Errors
    /// Damaged pins.
    pub fn counters(&self) -> Result<Counters, DatapathError> {
        counters::read(&self.pins)
    }

    fn ticks(&self) -> Result<Ticks, DatapathError> {
        Ticks::read(&self.fixed.clock)
    }

    /// The record without a pending policy whose deadline has passed: the kernel no longer looks at it, and its slot is
    /// free.
    fn settle(&self, ticks: &Ticks) -> record::Control {
        let control = self.control.load();
        match control.pending {
            Some(pending) if pending.deadline <= ticks.now() => {
                let settled = record::Control {
                    confirmed: control.confirmed,
                    pending: None,
                };
                self.control.store(settled);
                settled
            }
            Some(_) | None => control,
        }
    }

    fn free_slot(&self, control: record::Control, occupants: &Occupants) -> Result<u32, DatapathError> {
        let used = used_slots(control);
        (0..record::SLOTS)
            .find(|slot| !used.contains(slot))
            .ok_or_else(|| {
                let Occupants([first, second]) = *occupants;
                let (confirmed, pending) = match control.confirmed {
                    Chosen::Slot(0) | Chosen::Pass => (first, second),
                    Chosen::Slot(_) => (second, first),
                };
                DatapathError::SlotsFull {
                    confirmed: confirmed.unwrap_or(0),
                    pending: pending.unwrap_or(0),
                }
            })
    }

    fn clear(&mut self, slot: u32) -> Result<(), DatapathError> {
        for name in [maps::SLOTS, maps::EGRESS_SLOTS] {
            let mut array = maps::slots(&self.pins.object(name))?;
            match array.clear_index(&slot) {
                Ok(()) => {}
                // Empty already.
                Err(aya::maps::MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(DatapathError::aya(format!("empty slot {slot}"))(error)),
            }
        }
        Ok(())
    }
}

fn used_slots(control: record::Control) -> BTreeSet<u32> {
    [
        Some(control.confirmed),
        control.pending.map(|pending| pending.choice),
    ]
    .into_iter()
    .flatten()
    .filter_map(|chosen| match chosen {
        Chosen::Pass => None,
        Chosen::Slot(slot) => Some(slot),
    })
    .collect()
}
