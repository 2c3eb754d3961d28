//! The control record and the two slots: which generation stands where, and which one judges.

use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::MapData;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use pgfw_common::record::{self, Chosen, Pending};

use super::error::DatapathError;
use super::pins::Pins;
use super::ticks::Ticks;
use super::{maps, sys};
use crate::clock::BootTime;

/// Which policy a control record names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// None: everything passes.
    Pass,
    Generation(u64),
}

/// Which policy is confirmed, which one is pending, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    pub confirmed: Choice,
    /// From its deadline on the confirmed one judges again, whoever is alive. A deadline that has passed stays here
    /// until the record is written anew.
    pub pending: Option<(Choice, BootTime)>,
}

impl Control {
    /// The policy in force at `now`.
    pub fn in_force(&self, now: BootTime) -> Choice {
        match self.pending {
            Some((choice, deadline)) if now < deadline => choice,
            Some(_) | None => self.confirmed,
        }
    }
}

/// The control word, mapped into memory: one store changes the policy of every interface.
#[derive(Debug)]
pub(super) struct ControlWord {
    word: NonNull<AtomicU64>,
}

// SAFETY: the mapping is this value's own, and is only reached through an atomic.
unsafe impl Send for ControlWord {}
// SAFETY: as above.
unsafe impl Sync for ControlWord {}

const PAGE: std::num::NonZeroUsize = std::num::NonZeroUsize::new(4096).expect("not zero");

impl ControlWord {
    pub(super) fn open(pins: &Pins) -> Result<ControlWord, DatapathError> {
        let path = pins.object(maps::CONTROL);
        let data = MapData::from_pin(&path).map_err(DatapathError::aya("open the control record"))?;
        // SAFETY: a fresh shared mapping of the map's one page; the map is BPF_F_MMAPABLE.
        let page = unsafe {
            mmap(
                None,
                PAGE,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                data.fd().as_fd(),
                0,
            )
        }
        .map_err(std::io::Error::from)
        .map_err(DatapathError::call("map the control record"))?;
        Ok(ControlWord { word: page.cast() })
    }

    pub(super) fn load(&self) -> record::Control {
        // SAFETY: the mapping lives as long as self; its first eight bytes are the word, aligned to a page.
        record::Control::from_word(unsafe { self.word.as_ref() }.load(Ordering::SeqCst))
    }

    pub(super) fn store(&self, control: record::Control) {
        // SAFETY: as in `load`.
        unsafe { self.word.as_ref() }.store(control.word(), Ordering::SeqCst);
    }
}

impl Drop for ControlWord {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `open`, whose only reference is self.
        let _ = unsafe { munmap(self.word.cast(), PAGE.get()) };
    }
}

/// Which generation stands in which slot. The kernel is asked each time: a slot holds a program, a generation's folder
/// pins that program, and nothing else says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Occupants(pub(super) [Option<u64>; record::SLOTS as usize]);

impl Occupants {
    pub(super) fn read(pins: &Pins) -> Result<Occupants, DatapathError> {
        let read = || DatapathError::call(format!("read {}", pins.shared().display()));
        let folders = pins.generation_folders().map_err(read())?;
        let folders = folders
            .into_iter()
            .map(|number| (number, pins.generation(number)));
        // For a moment the one that grows stands in the slot, and is not in its place yet.
        let growing = pins.growing_folders().map_err(read())?;
        let growing = growing.into_iter().map(|number| (number, pins.growing(number)));
        let mut programs = Vec::new();
        for (generation, folder) in folders.chain(growing) {
            let path = folder.join(super::load::POLICY);
            // Half-made or half-removed: a folder without a program is nobody's.
            if let Ok(program) = sys::open(&path)
                && let Ok(id) = sys::program_id(program.as_fd())
            {
                programs.push((id, generation));
            }
        }
        let array =
            sys::open(&pins.object(maps::SLOTS)).map_err(DatapathError::call("open the policy slots"))?;
        let mut found = [None; record::SLOTS as usize];
        for (slot, occupant) in (0..).zip(&mut found) {
            let id = sys::slot(array.as_fd(), slot).map_err(DatapathError::call("read the policy slots"))?;
            *occupant = programs
                .iter()
                .find(|(program, _)| Some(*program) == id)
                .map(|(_, generation)| *generation);
        }
        Ok(Occupants(found))
    }

    pub(super) fn slot(&self, generation: u64) -> Option<u32> {
        (0..)
            .zip(self.0)
            .find(|(_, occupant)| *occupant == Some(generation))
            .map(|(slot, _)| slot)
    }

    /// The record for people.
    pub(super) fn describe(
        &self,
        record: record::Control,
        ticks: &Ticks,
        pins: &Pins,
    ) -> Result<Control, DatapathError> {
        let pending = match record.pending {
            None => None,
            Some(Pending { choice, deadline }) => Some((self.choice(choice, pins)?, ticks.boot(deadline))),
        };
        Ok(Control {
            confirmed: self.choice(record.confirmed, pins)?,
            pending,
        })
    }

    /// The record for the kernel.
    pub(super) fn encode(&self, control: Control, ticks: &Ticks) -> Result<record::Control, DatapathError> {
        let pending = match control.pending {
            None => None,
            Some((choice, deadline)) => Some(Pending {
                choice: self.chosen(choice)?,
                deadline: ticks.jiffies(deadline),
            }),
        };
        Ok(record::Control {
            confirmed: self.chosen(control.confirmed)?,
            pending,
        })
    }

    fn chosen(&self, choice: Choice) -> Result<Chosen, DatapathError> {
        match choice {
            Choice::Pass => Ok(Chosen::Pass),
            Choice::Generation(generation) => self
                .slot(generation)
                .map(Chosen::Slot)
                .ok_or(DatapathError::NotLoaded { generation }),
        }
    }

    fn choice(&self, chosen: Chosen, pins: &Pins) -> Result<Choice, DatapathError> {
        let slot = match chosen {
            Chosen::Pass => return Ok(Choice::Pass),
            Chosen::Slot(slot) => slot,
        };
        match self.0.get(slot as usize) {
            Some(Some(generation)) => Ok(Choice::Generation(*generation)),
            Some(None) | None => Err(DatapathError::Damaged {
                path: pins.root().to_owned(),
                what: format!("the control record names slot {slot}, in which no known generation stands"),
            }),
        }
    }
}
