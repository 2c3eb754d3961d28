//! Counters: summed over all possible CPUs, numbered once, kept while policies come and go.

use std::collections::BTreeMap;

use aya::maps::PerCpuValues;
use aya::util::nr_cpus;
use pgfw_common::reason::{REASONS, Reason};
use pgfw_common::record::{
    INTERFACE_TABLE, Interface, MAX_INTERFACES, MAX_SERVICE_COUNTERS, ServiceCounters, ServiceKey,
};

use super::error::DatapathError;
use super::maps::{self, Raw};
use super::pins::Pins;
use super::tables::{service_key, service_port};
use crate::policy::coverage::ServicePort;

/// What has been counted since the pins were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// By ifindex and reason, without zeros. Index 0 holds what came in through interfaces without a number of their own.
    pub interfaces: BTreeMap<u32, BTreeMap<Reason, u64>>,
    pub services: BTreeMap<ServicePort, ServiceCount>,
}

/// One service's packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServiceCount {
    pub passed: u64,
    pub dropped: u64,
}

pub(super) fn read(pins: &Pins) -> Result<Counters, DatapathError> {
    let names: maps::Interfaces = maps::open(&pins.object(maps::INTERFACES))?;
    let table: maps::Counters = maps::open(&pins.object(maps::COUNTERS))?;
    let mut ifindex_of = BTreeMap::from([(0, 0)]);
    for row in rows(&names)? {
        ifindex_of.insert(row.number, row.ifindex);
    }
    let mut counters = Counters::default();
    for (number, ifindex) in ifindex_of {
        let values = table
            .get(&number, 0)
            .map_err(DatapathError::aya("read the counters"))?;
        let mut sums = [0_u64; REASONS];
        for Raw(of_cpu) in values.iter() {
            for (sum, count) in sums.iter_mut().zip(of_cpu) {
                *sum = sum.wrapping_add(*count);
            }
        }
        let counted: BTreeMap<Reason, u64> = Reason::ALL
            .into_iter()
            .map(|reason| (reason, sums[usize::from(reason.number())]))
            .filter(|(_, count)| *count != 0)
            .collect();
        if ifindex != 0 || !counted.is_empty() {
            counters.interfaces.insert(ifindex, counted);
        }
    }
    for (key, values) in services(pins)? {
        let mut count = ServiceCount::default();
        for Raw(of_cpu) in values.iter() {
            count.passed = count.passed.wrapping_add(of_cpu.passed);
            count.dropped = count.dropped.wrapping_add(of_cpu.dropped);
        }
        counters.services.insert(service_port(key), count);
    }
    Ok(counters)
}

/// Gives an interface a number of its own, or 0 when none is left. It keeps it when it is detached.
pub(super) fn number_interface(pins: &Pins, ifindex: u32) -> Result<u32, DatapathError> {
    let mut names: maps::Interfaces = maps::open(&pins.object(maps::INTERFACES))?;
    let taken = rows(&names)?;
    if let Some(row) = taken.iter().find(|row| row.ifindex == ifindex) {
        return Ok(row.number);
    }
    // Where another interface's row stood in this place, that one's count ends here.
    let place = ifindex % INTERFACE_TABLE;
    let free = (1..MAX_INTERFACES).find(|number| {
        !taken
            .iter()
            .any(|row| row.number == *number && row.ifindex % INTERFACE_TABLE != place)
    });
    let Some(number) = free else {
        return Ok(0);
    };
    let mut table: maps::Counters = maps::open(&pins.object(maps::COUNTERS))?;
    let zero = PerCpuValues::try_from(vec![Raw([0; REASONS]); cpus()?])
        .map_err(DatapathError::call("count the possible CPUs"))?;
    table
        .set(number, zero, 0)
        .map_err(DatapathError::aya("clear the counters"))?;
    names
        .set(place, Raw(Interface { ifindex, number }), 0)
        .map_err(DatapathError::aya("write the table of interfaces"))?;
    Ok(number)
}

/// The counter number of each port, now and in every later policy; 0 when none is left.
pub(super) fn service_numbers(
    pins: &Pins,
    ports: impl Iterator<Item = ServicePort>,
) -> Result<BTreeMap<ServicePort, u16>, DatapathError> {
    let mut table: maps::ServiceCounts = maps::open(&pins.object(maps::SERVICE_COUNTS))?;
    let known = services(pins)?;
    let mut numbers: BTreeMap<ServicePort, u16> = (1..)
        .zip(known)
        .map(|(n, (key, _))| (service_port(key), n))
        .collect();
    let mut wanted = BTreeMap::new();
    for port in ports {
        let next = u16::try_from(numbers.len() + 1).unwrap_or(u16::MAX);
        let number = match numbers.get(&port) {
            Some(number) => *number,
            None if u32::from(next) >= MAX_SERVICE_COUNTERS => 0,
            None => {
                let fresh = Raw(ServiceCounters {
                    passed: 0,
                    dropped: 0,
                    key: service_key(port),
                    used: 1,
                });
                let values = PerCpuValues::try_from(vec![fresh; cpus()?])
                    .map_err(DatapathError::call("count the possible CPUs"))?;
                table
                    .set(u32::from(next), values, 0)
                    .map_err(DatapathError::aya("write the service counters"))?;
                numbers.insert(port, next);
                next
            }
        };
        wanted.insert(port, number);
    }
    Ok(wanted)
}

type Named = (ServiceKey, PerCpuValues<Raw<ServiceCounters>>);

/// The numbers in use, from 1 on without gaps.
fn services(pins: &Pins) -> Result<Vec<Named>, DatapathError> {
    let table: maps::ServiceCounts = maps::open(&pins.object(maps::SERVICE_COUNTS))?;
    let mut found = Vec::new();
    for number in 1..MAX_SERVICE_COUNTERS {
        let values = table
            .get(&number, 0)
            .map_err(DatapathError::aya("read the service counters"))?;
        match values.first() {
            Some(Raw(first)) if first.used != 0 => found.push((first.key, values)),
            Some(_) | None => break,
        }
    }
    Ok(found)
}

fn rows(names: &maps::Interfaces) -> Result<Vec<Interface>, DatapathError> {
    let mut found = Vec::new();
    for row in names.iter() {
        let Raw(row) = row.map_err(DatapathError::aya("read the table of interfaces"))?;
        if row.ifindex != 0 {
            found.push(row);
        }
    }
    Ok(found)
}

fn cpus() -> Result<usize, DatapathError> {
    nr_cpus().map_err(|(file, source)| DatapathError::Call {
        action: format!("read {file}"),
        source,
    })
}
