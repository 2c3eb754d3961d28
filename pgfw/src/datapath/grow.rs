//! A generation whose table is full gets a larger one, under the packets that it judges.
//!
//! It is loaded once more beside itself, and takes its own place in the slot: one store. Whatever dies in between, the
//! next change finishes or undoes it.

use std::fs;
use std::os::fd::AsFd;

use aya::programs::{SchedClassifier, Xdp};
use aya_obj::programs::XdpAttachType;
use pgfw_common::record;

use super::error::DatapathError;
use super::kernel::Kernel;
use super::load::{self, NOTE, POLICY};
use super::pins::{self, Pins};
use super::slots::Occupants;
use super::tables::Prepared;
use super::{maps, sys};
use crate::fault::{Step, step};

/// Puts a generation that stands in a slot on these tables.
pub(super) fn replace(
    kernel: Kernel,
    pins: &Pins,
    generation: u64,
    prepared: Prepared,
) -> Result<(), DatapathError> {
    let Some(slot) = Occupants::read(pins)?.slot(generation) else {
        return Err(DatapathError::NotLoaded { generation });
    };
    let folder = pins.growing(generation);
    load::into_folder(kernel, pins, &folder, prepared)?;
    let placed = place(pins, &folder, slot);
    settle(pins)?;
    placed
}

/// Puts the programs of a folder into a slot. What leaves this host first: until its table and that of what comes in are
/// the same again, more is noted rather than less.
pub(super) fn place(pins: &Pins, folder: &std::path::Path, slot: u32) -> Result<(), DatapathError> {
    let fill = || {
        DatapathError::aya(format!(
            "put the programs of {} into their slot",
            folder.display()
        ))
    };
    let note = SchedClassifier::from_pin(folder.join(NOTE))
        .map_err(DatapathError::aya("open the pinned program note"))?;
    let judge = Xdp::from_pin(folder.join(POLICY), XdpAttachType::Interface)
        .map_err(DatapathError::aya("open the pinned program policy"))?;
    maps::slots(&pins.object(maps::EGRESS_SLOTS))?
        .set(
            slot,
            note.fd().map_err(DatapathError::aya("use the program note"))?,
            0,
        )
        .map_err(fill())?;
    step(Step::HalfInSlot);
    maps::slots(&pins.object(maps::SLOTS))?
        .set(
            slot,
            judge.fd().map_err(DatapathError::aya("use the program policy"))?,
            0,
        )
        .map_err(fill())
}

/// Finishes what stands in a slot already, and undoes what does not.
pub(super) fn settle(pins: &Pins) -> Result<(), DatapathError> {
    let read = || DatapathError::call(format!("read {}", pins.shared().display()));
    for generation in pins.growing_folders().map_err(read())? {
        let (grown, place_of_it) = (pins.growing(generation), pins.generation(generation));
        if judges(pins, &grown)? {
            pins::remove_tree(&place_of_it, &mut 0)?;
            fs::rename(&grown, &place_of_it)
                .map_err(DatapathError::call(format!("rename {}", grown.display())))?;
        } else {
            if let Some(slot) = Occupants::read(pins)?.slot(generation) {
                // Its other half may stand in its slot already.
                place(pins, &place_of_it, slot)?;
            }
            pins::remove_tree(&grown, &mut 0)?;
        }
    }
    Ok(())
}

/// Whether the policy of a folder stands in a slot.
fn judges(pins: &Pins, folder: &std::path::Path) -> Result<bool, DatapathError> {
    let Ok(program) = sys::open(&folder.join(POLICY)) else {
        return Ok(false);
    };
    let id = sys::program_id(program.as_fd()).map_err(DatapathError::call("ask about a policy"))?;
    let array = sys::open(&pins.object(maps::SLOTS)).map_err(DatapathError::call("open the policy slots"))?;
    for slot in 0..record::SLOTS {
        let found = sys::slot(array.as_fd(), slot).map_err(DatapathError::call("read the policy slots"))?;
        if found == Some(id) {
            return Ok(true);
        }
    }
    Ok(false)
}
