//! Coverage and services of one generation: written, read back, changed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::maps::MapData;
use ipnet::IpNet;
use pgfw_common::address::{self, Family};
use pgfw_common::prefixes::Key;
use pgfw_common::record::{self, ServiceKey, ServiceRow};

use super::counters;
use super::error::DatapathError;
use super::maps::{self, Raw};
use super::pins::Pins;
use super::prefixes::{self, Full, Line, Prefix, Prefixes};
use super::ticks::{self, Ticks};
use crate::policy::coverage::{Compiled, Coverage, CoverageKey, ServiceId, ServicePort};

/// A new generation's services and prefixes, not in the kernel yet.
pub(super) fn prepare(
    pins: &Pins,
    policy: &Compiled,
    settings: &record::Settings,
    ticks: &Ticks,
) -> Result<Prepared, DatapathError> {
    let numbers = counters::service_numbers(pins, policy.services.keys().copied())?;
    let services = policy.services.iter().map(|(port, service)| {
        let row = ServiceRow {
            service: service.0,
            counter: numbers.get(port).copied().unwrap_or(0),
        };
        (service_key(*port), row)
    });
    let rows = policy
        .coverage
        .iter()
        .map(|(key, coverage)| (prefix(key), row(key, coverage, ticks)));
    Prepared::new(services.collect(), rows.collect(), settings)
}

/// The same generation with these changes, which its own tables have no room for.
pub(super) fn larger(
    pins: &Pins,
    generation: u64,
    ticks: &Ticks,
    put: &[(CoverageKey, Coverage)],
    remove: &[CoverageKey],
) -> Result<Prepared, DatapathError> {
    let before = open(pins, generation)?;
    let mut rows = before.read();
    rows.extend(
        put.iter()
            .map(|(key, coverage)| (prefix(key), row(key, coverage, ticks))),
    );
    for key in remove {
        rows.remove(&prefix(key));
    }
    let services = service_rows(pins, generation)?;
    Prepared::new(services, rows.into_iter().collect(), &before.settings())
}

/// See [`prepare`].
#[derive(Debug)]
pub(super) struct Prepared {
    prefixes: Prefixes,
    services: Vec<(ServiceKey, ServiceRow)>,
}

impl Prepared {
    fn new(
        services: Vec<(ServiceKey, ServiceRow)>,
        rows: Vec<(Prefix, record::Coverage)>,
        settings: &record::Settings,
    ) -> Result<Prepared, DatapathError> {
        let last = services.iter().map(|(_, row)| row.service).max();
        let mut prefixes = Prefixes::new(last.unwrap_or(0), settings);
        for (key, row) in &services {
            prefixes
                .set_port(service_port(*key), *row)
                .map_err(|Full| DatapathError::Full { networks: rows.len() })?;
        }
        prefixes
            .change(&rows, &[])
            .map_err(|Full| DatapathError::Full { networks: rows.len() })?;
        Ok(Prepared { prefixes, services })
    }

    pub(super) fn settings(&self) -> record::Settings {
        self.prefixes.settings()
    }

    /// Entries of the map of services, and of the map of prefixes.
    pub(super) fn sizes(&self) -> (u32, u32) {
        let services = u32::try_from(self.services.len()).unwrap_or(u32::MAX);
        (services.max(1), self.prefixes.lines_wanted())
    }

    /// Writes it into the maps that were made for it.
    pub(super) fn write(self, folder: &Path) -> Result<(), DatapathError> {
        let mut services: maps::Services = maps::open(&folder.join(maps::SERVICES))?;
        for (key, row) in self.services {
            services
                .insert(Raw(key), Raw(row), 0)
                .map_err(DatapathError::aya("write the service table"))?;
        }
        let (map, lines) = map(folder)?;
        self.prefixes
            .copy_to_map(map.fd().as_fd(), lines)
            .map_err(DatapathError::call("write the table of prefixes"))
    }
}

/// The rows of the service table.
pub(super) fn services(
    pins: &Pins,
    generation: u64,
) -> Result<BTreeMap<ServicePort, ServiceId>, DatapathError> {
    let rows = service_rows(pins, generation)?;
    Ok(rows
        .into_iter()
        .map(|(key, row)| (service_port(key), ServiceId(row.service)))
        .collect())
}

fn service_rows(pins: &Pins, generation: u64) -> Result<Vec<(ServiceKey, ServiceRow)>, DatapathError> {
    let table: maps::Services = maps::open(&existing(pins, generation)?.join(maps::SERVICES))?;
    table
        .iter()
        .map(|row| {
            let (Raw(key), Raw(row)) = row.map_err(DatapathError::aya("read the service table"))?;
            Ok((key, row))
        })
        .collect()
}

/// Every row of the coverage, as the kernel has it.
pub(super) fn coverage(
    pins: &Pins,
    generation: u64,
) -> Result<BTreeMap<CoverageKey, Coverage>, DatapathError> {
    let rows = open(pins, generation)?.read();
    Ok(rows
        .into_iter()
        .map(|(prefix, row)| (key(&prefix), answer(&row)))
        .collect())
}

/// Puts and removes; where it does not fit, nothing has changed.
pub(super) fn update(
    pins: &Pins,
    generation: u64,
    ticks: &Ticks,
    put: &[(CoverageKey, Coverage)],
    remove: &[CoverageKey],
) -> Result<(), DatapathError> {
    let mut prefixes = open(pins, generation)?;
    let rows: Vec<(Prefix, record::Coverage)> = put
        .iter()
        .map(|(key, coverage)| (prefix(key), row(key, coverage, ticks)))
        .collect();
    let gone: Vec<Prefix> = remove.iter().map(prefix).collect();
    prefixes
        .change(&rows, &gone)
        .map_err(|Full| DatapathError::Full { networks: put.len() })
}

/// The row that decides for a source at a service, if any.
pub(super) fn find(
    pins: &Pins,
    generation: u64,
    service: ServiceId,
    source: IpAddr,
) -> Result<Option<(CoverageKey, Coverage)>, DatapathError> {
    let prefixes = open(pins, generation)?;
    let whole = prefix(&CoverageKey {
        service,
        net: IpNet::from(source),
    });
    let found = prefixes.longest(service.0, whole.family, whole.key);
    Ok(found.map(|(prefix, row)| (key(&prefix), answer(&row))))
}

/// The table's size: bytes in use, and in all.
pub(super) fn size(pins: &Pins, generation: u64) -> Result<(u64, u64), DatapathError> {
    let (used, all) = open(pins, generation)?.size();
    let bytes = |lines: u32| u64::from(lines) * size_of::<Line>() as u64;
    Ok((bytes(used), bytes(all)))
}

/// Whether a change of a generation's table was begun and not ended; the next one mends it.
pub(super) fn is_cut_short(pins: &Pins, generation: u64) -> Result<bool, DatapathError> {
    let (map, _) = map(&existing(pins, generation)?)?;
    Ok(changes(&map)? % 2 == 1)
}

/// Equal as long as nobody has written a generation's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    map: u32,
    changes: u64,
}

/// The table counts its changes, whoever makes them, and one that is made anew is another map.
pub(super) fn stamp(pins: &Pins, generation: u64) -> Result<Stamp, DatapathError> {
    let folder = existing(pins, generation)?;
    let (map, _) = map(&folder)?;
    let info = map.info().map_err(DatapathError::aya("ask about a table"))?;
    Ok(Stamp {
        map: info.id(),
        changes: changes(&map)?,
    })
}

fn changes(map: &MapData) -> Result<u64, DatapathError> {
    prefixes::changes(map.fd().as_fd()).map_err(DatapathError::call("map a page of the table of prefixes"))
}

fn open(pins: &Pins, generation: u64) -> Result<Prefixes, DatapathError> {
    let folder = existing(pins, generation)?;
    let (map, lines) = map(&folder)?;
    Prefixes::of_map(map.fd().as_fd(), lines).map_err(DatapathError::call(format!(
        "map the table of prefixes pinned under {}",
        folder.display()
    )))
}

fn map(folder: &Path) -> Result<(MapData, u32), DatapathError> {
    let path = folder.join(maps::PREFIXES);
    let action = || format!("open the map pinned at {}", path.display());
    let map = MapData::from_pin(&path).map_err(DatapathError::aya(action()))?;
    let lines = map.info().map_err(DatapathError::aya(action()))?.max_entries();
    Ok((map, lines))
}

fn row(key: &CoverageKey, coverage: &Coverage, ticks: &Ticks) -> record::Coverage {
    let Coverage { deny, allow, world } = *coverage;
    let (deny_until, deny_boot) = ticks.end(deny);
    let (allow_until, allow_boot) = ticks.end(allow);
    record::Coverage {
        deny_until,
        allow_until,
        deny_boot,
        allow_boot,
        flags: if world { record::Coverage::WORLD } else { 0 },
        prefix_length: u32::from(key.net.prefix_len()),
    }
}

fn answer(row: &record::Coverage) -> Coverage {
    Coverage {
        deny: ticks::until(row.deny_until, row.deny_boot),
        allow: ticks::until(row.allow_until, row.allow_boot),
        world: row.flags & record::Coverage::WORLD != 0,
    }
}

fn prefix(key: &CoverageKey) -> Prefix {
    let (family, address) = match key.net.network() {
        IpAddr::V4(address) => (Family::V4, address::v4(address.octets())),
        IpAddr::V6(address) => (Family::V6, address::v6(address.octets())),
    };
    Prefix {
        service: key.service.0,
        family,
        key: Key::new(family, &address),
        length: key.net.prefix_len(),
    }
}

fn key(prefix: &Prefix) -> CoverageKey {
    let bits = u128::from(prefix.key.high) << 64 | u128::from(prefix.key.low);
    let address = match prefix.family {
        Family::V4 => IpAddr::from(((prefix.key.high >> 32) as u32).to_be_bytes()),
        Family::V6 => IpAddr::from(bits.to_be_bytes()),
    };
    CoverageKey {
        service: ServiceId(prefix.service),
        net: IpNet::new(address, prefix.length).unwrap_or(IpNet::from(address)),
    }
}

pub(super) fn service_key(port: ServicePort) -> ServiceKey {
    ServiceKey {
        port: port.port,
        protocol: port.protocol,
        pad: 0,
    }
}

pub(super) fn service_port(key: ServiceKey) -> ServicePort {
    ServicePort {
        protocol: key.protocol,
        port: key.port,
    }
}

/// A generation's folder, if it is loaded.
pub(super) fn existing(pins: &Pins, generation: u64) -> Result<PathBuf, DatapathError> {
    let folder = pins.generation(generation);
    if folder.join(super::load::POLICY).exists() {
        Ok(folder)
    } else {
        Err(DatapathError::NotLoaded { generation })
    }
}
