//! The scene of the corpus (`pgfw_common::host::scene`) in a kernel: its policy, its connections, and in the pinned
//! maps what it remembers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use aya::maps::{Array, HashMap, Map, MapData};
use nix::sys::socket::sockopt::ReuseAddr;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
};
use pgfw::config::Echo;
use pgfw::policy::coverage::{Compiled, Coverage, CoverageKey, ServiceId, ServicePort, Settings, Until};
use pgfw_common::address::{Address, Family, number_v4};
use pgfw_common::coverage::{ABSENT, FOREVER};
use pgfw_common::host::scene::{self, CONNECTIONS, HOST, STRANGER, Switches};
use pgfw_common::host::{Prefix, World};
use pgfw_common::record::{self, ABI, FragmentKey, Note, NoteKey, Remembered};
use pgfw_common::tables::Ports;

use super::{Bench, from_now};
use crate::lab::{PATIENCE, eventually};

/// A bench and the connections that keep it like the scene.
#[derive(Debug)]
pub struct Scene {
    pub bench: Bench,
    _connections: Vec<(OwnedFd, TcpStream)>,
}

impl Scene {
    /// The scene with all switches off or on, as generation 1.
    pub fn new(switches: Switches) -> Scene {
        let world = scene::world(switches);
        let bench = Bench::like(&compiled(&world), world.clone());
        remember(&bench, &world);
        let connections = connections(&bench);
        Scene {
            bench,
            _connections: connections,
        }
    }
}

/// A policy that compiles to the world's tables.
fn compiled(world: &World) -> Compiled {
    let record::Settings {
        hz: _,
        audit,
        echo,
        dhcp_client,
        track,
        stp,
        pad: _,
        gate_port,
        ether_types,
    } = world.settings;
    let mut policy = Compiled {
        settings: Settings {
            audit: audit != 0,
            echo: match echo {
                record::ECHO_LIMIT => Echo::Limit,
                record::ECHO_ACCEPT => Echo::Accept,
                _ => Echo::Drop,
            },
            dhcp_client: dhcp_client != 0,
            forwarded_track: track != 0,
            ether_types: ether_types.into_iter().filter(|listed| *listed != 0).collect(),
            stp: stp != 0,
            gate_port: (gate_port != 0).then_some(gate_port),
        },
        ..Compiled::default()
    };
    for (key, row) in &world.services {
        let port = ServicePort {
            protocol: key.protocol,
            port: key.port,
        };
        policy.services.insert(port, ServiceId(row.service));
    }
    for (number, name) in scene::SERVICES {
        policy.names.insert(ServiceId(number), name.to_owned());
    }
    for prefix in &world.prefixes {
        policy.coverage.insert(key(prefix), coverage(&prefix.coverage));
    }
    policy
}

fn key(prefix: &Prefix) -> CoverageKey {
    let length = u8::try_from(prefix.coverage.prefix_length).expect("at most 128 bits");
    let net = ipnet::IpNet::new(address(prefix.family, prefix.network), length).expect("a network");
    CoverageKey {
        service: ServiceId(prefix.service),
        net,
    }
}

fn address(family: Family, words: Address) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(number_v4(&words)).into(),
        Family::V6 => {
            let mut octets = [0; 16];
            for (half, word) in octets.chunks_exact_mut(8).zip(words) {
                half.copy_from_slice(&word.to_ne_bytes());
            }
            IpAddr::from(octets)
        }
    }
}

fn coverage(row: &record::Coverage) -> Coverage {
    Coverage {
        deny: until(row.deny_until),
        allow: until(row.allow_until),
        world: row.flags & record::Coverage::WORLD != 0,
    }
}

/// A past end a minute ago, a future one in a day.
fn until(end: u64) -> Until {
    match end {
        ABSENT => Until::Absent,
        FOREVER => Until::Forever,
        _ if end <= scene::ARRIVAL.now.0 => Until::At(from_now(-60_000)),
        _ => Until::At(from_now(86_400_000)),
    }
}

/// Writes notes and fragments into the pinned maps.
fn remember(bench: &Bench, world: &World) {
    let mut notes = open(bench, "NOTES");
    for (key, note) in world.notes.borrow().iter() {
        let ports = Ports {
            remote: key.remote_port,
            local: key.local_port,
        };
        announce(bench, record::place_of_note(ports));
        notes
            .insert(note_bytes(*key), value_bytes(*note), 0)
            .expect("a note");
    }
    for (name, table) in [
        ("FRAGMENTS", &world.fragments),
        ("OPEN_FRAGMENTS", &world.open_fragments),
    ] {
        let mut map = open(bench, name);
        for (key, remembered) in table.borrow().iter() {
            announce(bench, record::place_of_datagram(&key.ends, key.id));
            map.insert(fragment_bytes(*key), remembered_bytes(*remembered), 0)
                .expect("a fragment");
        }
    }
}

/// Says that something may be found there, as the programs do when they write it.
pub fn announce(bench: &Bench, place: u32) {
    let pin = bench.bpffs.path().join(format!("pgfw/v{ABI}/RECENT"));
    let data = MapData::from_pin(pin).expect("a pinned map");
    let map = Map::from_map_data(data).expect("a map");
    let mut recent: Array<MapData, u64> = map.try_into().expect("an array");
    recent.set(place, u64::MAX, 0).expect("a place");
}

/// Opens a pinned map of records; keys and values are bytes here.
pub fn open<const KEY: usize>(bench: &Bench, name: &str) -> HashMap<MapData, [u8; KEY], [u8; 16]> {
    let pin = bench.bpffs.path().join(format!("pgfw/v{ABI}/{name}"));
    let data = MapData::from_pin(pin).expect("a pinned map");
    let map = Map::from_map_data(data).expect("a map");
    map.try_into().expect("a hash map of that shape")
}

/// A record as the map has it.
pub fn note_bytes(key: NoteKey) -> [u8; size_of::<NoteKey>()] {
    // SAFETY: repr(C) integers, without padding that is not a field (sizes asserted beside the definition).
    unsafe { std::mem::transmute(key) }
}

/// A record as the map has it.
pub fn fragment_bytes(key: FragmentKey) -> [u8; size_of::<FragmentKey>()] {
    // SAFETY: as above.
    unsafe { std::mem::transmute(key) }
}

fn value_bytes(note: Note) -> [u8; size_of::<Note>()] {
    // SAFETY: as above.
    unsafe { std::mem::transmute(note) }
}

/// A record as the map has it.
pub fn remembered_bytes(remembered: Remembered) -> [u8; size_of::<Remembered>()] {
    // SAFETY: as above.
    unsafe { std::mem::transmute(remembered) }
}

/// A record as the map had it.
pub fn remembered(bytes: [u8; size_of::<Remembered>()]) -> Remembered {
    // SAFETY: as above; every bit pattern is one.
    unsafe { std::mem::transmute(bytes) }
}

/// Both ends of every connection at home in the bench's namespace.
fn connections(bench: &Bench) -> Vec<(OwnedFd, TcpStream)> {
    let mut open = Vec::new();
    for (host, stranger) in HOST.into_iter().zip(STRANGER) {
        let bits = if host.contains(':') { 128 } else { 32 };
        for address in [host, stranger] {
            bench
                .namespace
                .ip(&format!("address add {address}/{bits} dev lo"));
        }
        for (remote, local) in CONNECTIONS {
            let at = |address: &str, port| SocketAddr::new(address.parse().expect("an address"), port);
            let ends = (at(stranger, remote), at(host, local));
            // A new IPv6 address counts, and has its route, when a worker of the kernel has been there.
            open.push(eventually("the addresses can be used", PATIENCE, || {
                bench.namespace.within(|| connection(ends)).ok()
            }));
        }
    }
    open
}

fn connection((from, to): (SocketAddr, SocketAddr)) -> std::io::Result<(OwnedFd, TcpStream)> {
    let listener = TcpListener::bind(to)?;
    let family = match from {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let client = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&client, ReuseAddr, &true)?;
    bind(client.as_raw_fd(), &SockaddrStorage::from(from))?;
    connect(client.as_raw_fd(), &SockaddrStorage::from(to))?;
    let (server, _) = listener.accept()?;
    Ok((client, server))
}
