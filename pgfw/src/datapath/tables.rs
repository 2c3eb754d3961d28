//! Coverage and services of one generation: written, read back, changed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use aya::maps::lpm_trie::Key;
use aya::maps::{LpmTrie, MapData, MapError};
use ipnet::IpNet;
use pgfw_common::address;
use pgfw_common::record::{self, CoverageKey4, CoverageKey6, SERVICE_BITS, ServiceKey, ServiceRow};

use super::counters;
use super::error::DatapathError;
use super::kernel::Kernel;
use super::maps::{self, Raw, Record};
use super::pins::Pins;
use super::ticks::{self, Ticks};
use crate::fault::{Step, step};
use crate::policy::coverage::{Compiled, Coverage, CoverageKey, ServiceId, ServicePort};

/// How many IPv4 and IPv6 networks there are.
pub(super) fn sizes(coverage: &BTreeMap<CoverageKey, Coverage>) -> (u32, u32) {
    let v4 = coverage
        .keys()
        .filter(|key| matches!(key.net, IpNet::V4(_)))
        .count();
    let v6 = coverage.len() - v4;
    let size = |count| u32::try_from(count).unwrap_or(u32::MAX);
    (size(v4), size(v6))
}

/// Writes a new generation's tables.
pub(super) fn fill(
    kernel: Kernel,
    pins: &Pins,
    generation: u64,
    policy: &Compiled,
    ticks: &Ticks,
) -> Result<(), DatapathError> {
    let numbers = counters::service_numbers(pins, policy.services.keys().copied())?;
    let mut services: maps::Services = maps::open(&pins.generation(generation).join(maps::SERVICES))?;
    for (port, service) in &policy.services {
        let row = ServiceRow {
            service: service.0,
            counter: numbers.get(port).copied().unwrap_or(0),
        };
        services
            .insert(Raw(service_key(*port)), Raw(row), 0)
            .map_err(DatapathError::aya("write the service table"))?;
    }
    let mut tables = Tables::open(kernel, pins, generation)?;
    for (key, coverage) in &policy.coverage {
        tables.put(key, &row(key, coverage, ticks))?;
    }
    Ok(())
}

/// The rows of the service table.
pub(super) fn services(
    pins: &Pins,
    generation: u64,
) -> Result<BTreeMap<ServicePort, ServiceId>, DatapathError> {
    let table: maps::Services = maps::open(&existing(pins, generation)?.join(maps::SERVICES))?;
    table
        .iter()
        .map(|row| {
            let (Raw(key), Raw(row)) = row.map_err(DatapathError::aya("read the service table"))?;
            Ok((service_port(key), ServiceId(row.service)))
        })
        .collect()
}

/// Every row of the coverage, as the kernel has it.
pub(super) fn coverage(
    kernel: Kernel,
    pins: &Pins,
    generation: u64,
) -> Result<BTreeMap<CoverageKey, Coverage>, DatapathError> {
    existing(pins, generation)?;
    let tables = Tables::open(kernel, pins, generation)?;
    let mut found = BTreeMap::new();
    for row in tables.v4.iter() {
        let (key, Raw(row)) = row.map_err(DatapathError::aya("read the coverage"))?;
        let Raw(CoverageKey4 { service, source }) = key.data();
        found.insert(
            key_of(service, IpAddr::from(source.to_ne_bytes()), key.prefix_len()),
            answer(&row),
        );
    }
    for row in tables.v6.iter() {
        let (key, Raw(row)) = row.map_err(DatapathError::aya("read the coverage"))?;
        let Raw(CoverageKey6 { service, source }) = key.data();
        found.insert(
            key_of(service, IpAddr::from(octets(source)), key.prefix_len()),
            answer(&row),
        );
    }
    Ok(found)
}

/// Puts first, then removes, so that what stays covered is never uncovered. When a put does not fit, those before it are
/// taken back and nothing has changed.
pub(super) fn update(
    kernel: Kernel,
    pins: &Pins,
    generation: u64,
    ticks: &Ticks,
    put: &[(CoverageKey, Coverage)],
    remove: &[CoverageKey],
) -> Result<(), DatapathError> {
    existing(pins, generation)?;
    let mut tables = Tables::open(kernel, pins, generation)?;
    let mut done: Vec<(&CoverageKey, Option<record::Coverage>)> = Vec::new();
    for (key, coverage) in put {
        let before = tables.exact(key)?;
        if let Err(error) = tables.put(key, &row(key, coverage, ticks)) {
            for (key, before) in done.into_iter().rev() {
                match before {
                    Some(row) => tables.put(key, &row)?,
                    None => tables.remove(key)?,
                }
            }
            return Err(error);
        }
        done.push((key, before));
    }
    if !put.is_empty() || !remove.is_empty() {
        step(Step::RowsPut);
    }
    for key in remove {
        tables.remove(key)?;
    }
    Ok(())
}

/// The row that decides for a source at a service, if any.
pub(super) fn find(
    kernel: Kernel,
    pins: &Pins,
    generation: u64,
    service: ServiceId,
    source: IpAddr,
) -> Result<Option<(CoverageKey, Coverage)>, DatapathError> {
    existing(pins, generation)?;
    let tables = Tables::open(kernel, pins, generation)?;
    let whole = CoverageKey {
        service,
        net: IpNet::from(source),
    };
    Ok(tables.longest(&whole)?.and_then(|row| {
        let length = u8::try_from(row.prefix_length).ok()?;
        let net = IpNet::new(source, length).ok()?.trunc();
        Some((CoverageKey { service, net }, answer(&row)))
    }))
}

struct Tables {
    kernel: Kernel,
    v4: maps::Coverage4,
    v6: maps::Coverage6,
}

impl Tables {
    fn open(kernel: Kernel, pins: &Pins, generation: u64) -> Result<Tables, DatapathError> {
        let folder = pins.generation(generation);
        Ok(Tables {
            kernel,
            v4: maps::open(&folder.join(maps::COVERAGE4))?,
            v6: maps::open(&folder.join(maps::COVERAGE6))?,
        })
    }

    fn put(&mut self, key: &CoverageKey, row: &record::Coverage) -> Result<(), DatapathError> {
        let fills_up = !self.kernel.full_table_changes && self.exact(key)?.is_none();
        self.write(key, row)?;
        if fills_up && let Err(full) = self.write(key, row) {
            // It took the last place, and nothing could be changed any more, not even to close: give it back.
            self.remove(key)?;
            return Err(full);
        }
        Ok(())
    }

    fn write(&mut self, key: &CoverageKey, row: &record::Coverage) -> Result<(), DatapathError> {
        match key.net {
            IpNet::V4(net) => put(&mut self.v4, &key4(key.service, net), row, key.net, "IPv4"),
            IpNet::V6(net) => put(&mut self.v6, &key6(key.service, net), row, key.net, "IPv6"),
        }
    }

    fn remove(&mut self, key: &CoverageKey) -> Result<(), DatapathError> {
        let removed = match key.net {
            IpNet::V4(net) => self.v4.remove(&key4(key.service, net)),
            IpNet::V6(net) => self.v6.remove(&key6(key.service, net)),
        };
        match removed {
            Ok(()) => Ok(()),
            // Gone already.
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(())
            }
            Err(error) => Err(DatapathError::aya(format!(
                "remove {} from the coverage",
                key.net
            ))(error)),
        }
    }

    /// The row of the longest prefix that holds `key`'s network.
    fn longest(&self, key: &CoverageKey) -> Result<Option<record::Coverage>, DatapathError> {
        let found = match key.net {
            IpNet::V4(net) => self.v4.get(&key4(key.service, net), 0),
            IpNet::V6(net) => self.v6.get(&key6(key.service, net), 0),
        };
        match found {
            Ok(Raw(row)) => Ok(Some(row)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(DatapathError::aya(format!("look up {} in the coverage", key.net))(error)),
        }
    }

    /// The row of exactly this prefix. A trie only finds longest matches, so the row says what it is.
    fn exact(&self, key: &CoverageKey) -> Result<Option<record::Coverage>, DatapathError> {
        let length = u32::from(key.net.prefix_len());
        Ok(self.longest(key)?.filter(|row| row.prefix_length == length))
    }
}

fn put<K: Record>(
    trie: &mut LpmTrie<MapData, Raw<K>, Raw<record::Coverage>>,
    key: &Key<Raw<K>>,
    row: &record::Coverage,
    net: IpNet,
    family: &'static str,
) -> Result<(), DatapathError> {
    match trie.insert(key, Raw(*row), 0) {
        Ok(()) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOSPC) => {
            Err(DatapathError::Full { family, net })
        }
        Err(error) => Err(DatapathError::aya(format!("write {net} into the coverage"))(
            error,
        )),
    }
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

fn key4(service: ServiceId, net: ipnet::Ipv4Net) -> Key<Raw<CoverageKey4>> {
    let data = CoverageKey4 {
        service: u32::from(service.0).to_be(),
        source: u32::from_ne_bytes(net.network().octets()),
    };
    Key::new(SERVICE_BITS + u32::from(net.prefix_len()), Raw(data))
}

fn key6(service: ServiceId, net: ipnet::Ipv6Net) -> Key<Raw<CoverageKey6>> {
    let data = CoverageKey6 {
        service: u32::from(service.0).to_be(),
        source: address::v6(net.network().octets()),
    };
    Key::new(SERVICE_BITS + u32::from(net.prefix_len()), Raw(data))
}

fn key_of(service: u32, source: IpAddr, prefix_len: u32) -> CoverageKey {
    let length = u8::try_from(prefix_len.saturating_sub(SERVICE_BITS)).unwrap_or(u8::MAX);
    CoverageKey {
        service: ServiceId(u16::try_from(u32::from_be(service)).unwrap_or(0)),
        net: IpNet::new(source, length).unwrap_or(IpNet::from(source)),
    }
}

/// The address behind the kernel's words.
fn octets(words: address::Address) -> [u8; 16] {
    let mut octets = [0; 16];
    for (place, word) in octets.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    octets
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
