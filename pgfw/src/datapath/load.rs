//! Loading: the fixed programs once, a policy for each generation.

use std::fs;
use std::path::Path;

use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use aya_obj::programs::XdpAttachType;
use pgfw_common::record;

use super::error::DatapathError;
use super::kernel::Kernel;
use super::maps::{self, Raw};
use super::object;
use super::pins::Pins;
use super::tables::{self, Prepared};
use super::ticks::Ticks;
use crate::config::Echo;
use crate::fault::{Step, step};
use crate::policy::coverage::{Compiled, Settings};

// Pins. The programs' names in the object are `kernel.rs`'s to say.
pub(super) const ENTRY: &str = "entry";
pub(super) const EGRESS: &str = "egress";
pub(super) const CLOCK: &str = "clock";
pub(super) const POLICY: &str = "policy";
pub(super) const PROBE: &str = "probe";
pub(super) const NOTE: &str = "note";

/// What is the same for every generation.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) entry: Xdp,
    pub(super) egress: SchedClassifier,
    pub(super) clock: Xdp,
}

impl Fixed {
    /// Adopts the pinned programs, or loads and pins them. The entry's pin comes last and says that all others are there.
    pub(super) fn open(kernel: Kernel, pins: &Pins) -> Result<Fixed, DatapathError> {
        let complete = pins.object(ENTRY).exists();
        maps::check_shared(pins, complete)?;
        if complete {
            return Fixed::adopt(pins);
        }
        let mut loader = EbpfLoader::new();
        share(&mut loader, pins);
        let mut ebpf = load_object(&mut loader)?;
        for (name, kind) in [(CLOCK, Kind::Xdp), (EGRESS, Kind::Classifier), (ENTRY, Kind::Xdp)] {
            let path = pins.object(name);
            // A start that was cut short may have left it.
            super::pins::remove_pin(&path)?;
            load_and_pin(&mut ebpf, kernel, name, kind, &path)?;
        }
        Fixed::adopt(pins)
    }

    fn adopt(pins: &Pins) -> Result<Fixed, DatapathError> {
        Ok(Fixed {
            entry: xdp(pins, ENTRY)?,
            egress: SchedClassifier::from_pin(pins.object(EGRESS))
                .map_err(DatapathError::aya("open the pinned program egress"))?,
            clock: xdp(pins, CLOCK)?,
        })
    }
}

fn xdp(pins: &Pins, name: &str) -> Result<Xdp, DatapathError> {
    Xdp::from_pin(pins.object(name), XdpAttachType::Interface)
        .map_err(DatapathError::aya(format!("open the pinned program {name}")))
}

/// A generation's programs and tables, complete but in no slot. On failure nothing of it stays.
pub(super) fn generation(
    kernel: Kernel,
    pins: &Pins,
    generation: u64,
    policy: &Compiled,
    ticks: &Ticks,
) -> Result<(), DatapathError> {
    let settings = settings(&policy.settings, ticks)?;
    let prepared = tables::prepare(pins, policy, &settings, ticks)?;
    into_folder(kernel, pins, &pins.generation(generation), prepared)
}

/// The same into any folder.
pub(super) fn into_folder(
    kernel: Kernel,
    pins: &Pins,
    folder: &Path,
    prepared: Prepared,
) -> Result<(), DatapathError> {
    super::pins::remove_tree(folder, &mut 0)?;
    fs::create_dir(folder).map_err(DatapathError::call(format!(
        "make the folder {}",
        folder.display()
    )))?;
    let made = fill(kernel, pins, folder, prepared);
    if made.is_err() {
        // The failure is what is reported; a folder without a program in a slot is collected later.
        let _ = super::pins::remove_tree(folder, &mut 0);
    }
    made
}

fn fill(kernel: Kernel, pins: &Pins, folder: &Path, prepared: Prepared) -> Result<(), DatapathError> {
    let settings = Raw(prepared.settings());
    let (services, lines) = prepared.sizes();
    let mut loader = EbpfLoader::new();
    share(&mut loader, pins);
    for name in maps::OWN {
        loader.map_pin_path(name, folder.join(name));
    }
    loader
        .override_global("SETTINGS", &settings, true)
        .map_max_entries(maps::SERVICES, services)
        .map_max_entries(maps::PREFIXES, lines);
    let mut ebpf = load_object(&mut loader)?;
    prepared.write(folder)?;
    step(Step::TablesFilled);
    for (name, kind) in [(NOTE, Kind::Classifier), (PROBE, Kind::Xdp), (POLICY, Kind::Xdp)] {
        load_and_pin(&mut ebpf, kernel, name, kind, &folder.join(name))?;
    }
    Ok(())
}

fn share<'a>(loader: &mut EbpfLoader<'a>, pins: &Pins) {
    for name in maps::SHARED {
        loader.map_pin_path(name, pins.object(name));
    }
}

fn load_object(loader: &mut EbpfLoader<'_>) -> Result<Ebpf, DatapathError> {
    loader
        .load(object::object())
        .map_err(DatapathError::aya("create the maps of the embedded object"))
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Xdp,
    Classifier,
}

fn load_and_pin(
    ebpf: &mut Ebpf,
    kernel: Kernel,
    name: &'static str,
    kind: Kind,
    path: &Path,
) -> Result<(), DatapathError> {
    let in_object = kernel.program(name);
    let program = ebpf.program_mut(&in_object).ok_or_else(|| DatapathError::Call {
        action: format!("find {in_object} in the embedded object"),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    let unexpected = || format!("take {in_object} for what it is");
    let pinned = match kind {
        Kind::Xdp => {
            let program: &mut Xdp = program.try_into().map_err(DatapathError::aya(unexpected()))?;
            program.load().map_err(|error| refused(name, error))?;
            program.pin(path)
        }
        Kind::Classifier => {
            let program: &mut SchedClassifier =
                program.try_into().map_err(DatapathError::aya(unexpected()))?;
            program.load().map_err(|error| refused(name, error))?;
            program.pin(path)
        }
    };
    pinned.map_err(DatapathError::aya(format!(
        "pin the program {name} at {}",
        path.display()
    )))
}

/// The verifier's log ends in what it objected to; the line before the counts is what a person can use.
fn refused(program: &'static str, error: ProgramError) -> DatapathError {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return DatapathError::aya(format!("load the program {program}"))(error);
    };
    let log = verifier_log.to_string();
    let last = log
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| {
            !line.is_empty() && !line.starts_with("processed ") && !line.starts_with("verification time")
        })
        .unwrap_or_default();
    DatapathError::Verifier {
        program,
        summary: format!("{io_error}; {last}"),
        log,
    }
}

fn settings(settings: &Settings, ticks: &Ticks) -> Result<record::Settings, DatapathError> {
    let Settings {
        audit,
        echo,
        dhcp_client,
        forwarded_track,
        ether_types,
        stp,
        gate_port,
    } = settings;
    let mut listed = [0; record::MAX_ETHER_TYPES];
    if ether_types.len() > listed.len() {
        return Err(DatapathError::EtherTypes {
            count: ether_types.len(),
            limit: listed.len(),
        });
    }
    for (slot, ether_type) in listed.iter_mut().zip(ether_types) {
        *slot = *ether_type;
    }
    Ok(record::Settings {
        hz: ticks.hz(),
        audit: u8::from(*audit),
        echo: match echo {
            Echo::Drop => record::ECHO_DROP,
            Echo::Limit => record::ECHO_LIMIT,
            Echo::Accept => record::ECHO_ACCEPT,
        },
        dhcp_client: u8::from(*dhcp_client),
        track: u8::from(*forwarded_track),
        stp: u8::from(*stp),
        pad: 0,
        gate_port: gate_port.unwrap_or(0),
        ether_types: listed,
    })
}
