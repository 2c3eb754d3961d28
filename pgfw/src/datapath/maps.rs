//! The pinned maps, typed; and whether what is pinned is what this pgfw would make.

use std::collections::HashMap as StdHashMap;
use std::path::Path;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, ProgramArray};
use pgfw_common::record;

use super::error::DatapathError;
use super::object;
use super::pins::Pins;

pub(super) const CONTROL: &str = "CONTROL";
pub(super) const SLOTS: &str = "SLOTS";
pub(super) const EGRESS_SLOTS: &str = "EGRESS_SLOTS";
pub(super) const INTERFACES: &str = "INTERFACES";
pub(super) const COUNTERS: &str = "COUNTERS";
pub(super) const SERVICE_COUNTS: &str = "SERVICE_COUNTS";
pub(super) const EVENTS: &str = "EVENTS";
pub(super) const EVENT_BUDGET: &str = "EVENT_BUDGET";
pub(super) const SERVICES: &str = "SERVICES";
pub(super) const PREFIXES: &str = "PREFIXES";

/// Pinned once for all generations.
pub(super) const SHARED: [&str; 15] = [
    CONTROL,
    SLOTS,
    EGRESS_SLOTS,
    INTERFACES,
    COUNTERS,
    SERVICE_COUNTS,
    "NOTES",
    "FRAGMENTS",
    "OPEN_FRAGMENTS",
    "RECENT",
    "ECHO",
    "GATE_BUDGET",
    "SCRATCH",
    EVENTS,
    EVENT_BUDGET,
];

/// Pinned for each generation.
pub(super) const OWN: [&str; 2] = [SERVICES, PREFIXES];

/// A record as aya wants it: its trait cannot be implemented for another crate's type.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Raw<T>(pub(super) T);

/// A record of pgfw-common that maps hold.
///
/// # Safety
/// Plain integers, `#[repr(C)]`, without padding that is not a field.
pub(super) unsafe trait Record: Copy + 'static {}

macro_rules! records {
    ($($record:ty),+ $(,)?) => {$(
        // SAFETY: see the definition: repr(C) integers with explicit padding, sizes asserted there.
        unsafe impl Record for $record {}
    )+};
}

records!(
    record::Settings,
    record::ServiceKey,
    record::ServiceRow,
    record::Interface,
    record::ServiceCounters,
    record::InterfaceCounters,
    record::EventBudget,
);

// SAFETY: a transparent wrapper of a plain record.
unsafe impl<T: Record> Pod for Raw<T> {}

pub(super) type Services = HashMap<MapData, Raw<record::ServiceKey>, Raw<record::ServiceRow>>;
pub(super) type Interfaces = Array<MapData, Raw<record::Interface>>;
pub(super) type Counters = PerCpuArray<MapData, Raw<record::InterfaceCounters>>;
pub(super) type EventBudgets = PerCpuArray<MapData, Raw<record::EventBudget>>;
pub(super) type ServiceCounts = PerCpuArray<MapData, Raw<record::ServiceCounters>>;

/// Opens a pinned map as the type that `T` is.
pub(super) fn open<T>(path: &Path) -> Result<T, DatapathError>
where
    T: TryFrom<Map, Error = aya::maps::MapError>,
{
    let action = || format!("open the map pinned at {}", path.display());
    let data = MapData::from_pin(path).map_err(DatapathError::aya(action()))?;
    let map = Map::from_map_data(data).map_err(DatapathError::aya(action()))?;
    T::try_from(map).map_err(DatapathError::aya(action()))
}

pub(super) fn slots(path: &Path) -> Result<ProgramArray<MapData>, DatapathError> {
    open(path)
}

/// What a map must be: type, key size, value size, flags; and entries, where they do not depend on the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) kind: u32,
    pub(super) key: u32,
    pub(super) value: u32,
    pub(super) entries: u32,
    pub(super) flags: u32,
}

/// Whether every shared map that is pinned is of the shape that the embedded object wants. aya would take any map of
/// that name, and the programs would read it wrongly.
pub(super) fn check_shared(pins: &Pins, complete: bool) -> Result<(), DatapathError> {
    let wanted = shapes()?;
    for name in SHARED {
        let path = pins.object(name);
        if !path.exists() {
            if complete {
                return Err(damaged(
                    pins,
                    format!("the programs are there, the map {name} is not"),
                ));
            }
            continue;
        }
        let data = MapData::from_pin(&path).map_err(DatapathError::aya(format!(
            "open the map pinned at {}",
            path.display()
        )))?;
        let info = data.info().map_err(DatapathError::aya(format!(
            "ask about the map pinned at {}",
            path.display()
        )))?;
        let found = Shape {
            kind: info.map_type().map_err(DatapathError::aya(format!(
                "ask about the map pinned at {}",
                path.display()
            )))? as u32,
            key: info.key_size(),
            value: info.value_size(),
            entries: info.max_entries(),
            flags: info.map_flags(),
        };
        match wanted.get(name) {
            Some(shape) if *shape == found => {}
            Some(_) | None => return Err(damaged(pins, format!("the map {name} is of another shape"))),
        }
    }
    Ok(())
}

fn shapes() -> Result<StdHashMap<String, Shape>, DatapathError> {
    let object =
        aya_obj::Object::parse(object::object()).map_err(DatapathError::aya("read the embedded object"))?;
    Ok(object
        .maps
        .into_iter()
        .map(|(name, map)| {
            let shape = Shape {
                kind: map.map_type(),
                key: map.key_size(),
                value: map.value_size(),
                entries: map.max_entries(),
                flags: map.map_flags(),
            };
            (name, shape)
        })
        .collect())
}

fn damaged(pins: &Pins, what: String) -> DatapathError {
    DatapathError::Damaged {
        path: pins.root().to_owned(),
        what,
    }
}
