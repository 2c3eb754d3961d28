//! The decision by itself: no panic, and what holds whatever the bytes are.

use pgfw_common::address::{Ends, Family, Martian, martian};
use pgfw_common::coverage::Admission;
use pgfw_common::decide::Verdict;
use pgfw_common::frames::{Frame, ICMP, ICMPV6, TCP, UDP};
use pgfw_common::host::World;
use pgfw_common::host::scene::{self, ARRIVAL, Switches};
use pgfw_common::outgoing::{Origin, outgoing};
use pgfw_common::packet::Bytes;
use pgfw_common::parse::{self, Fragment, Ip, Place, Segment};
use pgfw_common::reason::{Action, Reason};
use pgfw_common::record::{Scratch, ServiceRow};
use pgfw_common::tables::Ports;
use pgfw_common::wire::{ETHER_IPV4, ETHER_IPV6, FRAGMENT};

/// Judges a frame in both scenes, as one that comes in and as one that leaves.
///
/// # Panics
/// On a broken promise.
pub fn check(frame: &[u8]) {
    WORLDS.with(|worlds| {
        for world in worlds {
            let verdict = world.ask(frame, ARRIVAL);
            let hex = || format!("{verdict:?}: {}", Frame(frame.to_vec()).hex());
            assert_eq!(
                world.ask_with(frame, ARRIVAL, &mut USED.clone()),
                verdict,
                "what was in the scratch counted: {}",
                hex()
            );
            if let Some(ip) = ip(frame) {
                about_ip(frame, &ip, world, &verdict, &hex);
            }
            for origin in [Origin::Local, Origin::Forwarded] {
                leaves(frame, origin, world, &hex);
            }
        }
    });
}

thread_local! {
    static WORLDS: [World; 2] = Switches::BOTH.map(scene::world);
}

/// A scratch in which an earlier packet has left the most it could.
const USED: Scratch = {
    let ip = Ip {
        ends: Ends {
            remote: [u64::MAX; 2],
            local: [u64::MAX; 2],
        },
        id: u32::MAX,
        network: u32::MAX,
        transport: u32::MAX,
        end: u32::MAX,
        family: Family::V6,
        protocol: FRAGMENT,
        hop_limit: u8::MAX,
        fragment: Fragment::Later,
    };
    let mut segment = Segment::EMPTY;
    segment.ports = Ports {
        remote: u16::MAX,
        local: u16::MAX,
    };
    segment.flags = u8::MAX;
    let service = ServiceRow {
        service: u16::MAX,
        counter: u16::MAX,
    };
    segment.keep(Some((service, Admission::Allowed)));
    Scratch {
        ip,
        quote: ip,
        segment,
        reason: u8::MAX,
        pad: [u8::MAX; 3],
    }
};

fn ip(frame: &[u8]) -> Option<Ip> {
    let packet = Bytes(frame);
    let link = parse::link(&packet).ok()?;
    let family = match link.ether_type {
        ETHER_IPV4 => Family::V4,
        ETHER_IPV6 => Family::V6,
        _ => return None,
    };
    let mut ip = Ip::EMPTY;
    parse::ip(&packet, family, link.network, Place::Incoming, &mut ip).ok()?;
    Some(ip)
}

fn about_ip(frame: &[u8], ip: &Ip, world: &World, verdict: &Verdict, hex: &dyn Fn() -> String) {
    assert!(
        ip.network < ip.transport && ip.transport <= ip.end && ip.end as usize <= frame.len(),
        "headers out of bounds: {ip:?}: {}",
        hex()
    );
    let mut padded = frame.to_vec();
    padded.extend([0xff; 64]);
    assert_eq!(
        world.ask(&padded, ARRIVAL),
        *verdict,
        "the link layer's padding counted: {}",
        hex()
    );
    let passes = verdict.reason.action() == Action::Pass;
    match martian(&ip.ends.remote, ip.family) {
        None => {}
        Some(Martian::Unspecified) if ip.family == Family::V6 => assert!(
            !passes
                || matches!(
                    verdict.reason,
                    Reason::NeighbourDiscovery | Reason::MulticastListener
                ),
            "an unspecified source passed: {}",
            hex()
        ),
        Some(_) => assert!(!passes, "a source that cannot be passed: {}", hex()),
    }
    let is_later = ip.fragment == Fragment::Later;
    assert!(
        !is_later || verdict.service.is_none() && (!passes || verdict.reason == Reason::Fragment),
        "a later fragment was read as if it had ports: {}",
        hex()
    );
}

fn leaves(frame: &[u8], origin: Origin, world: &World, hex: &dyn Fn() -> String) {
    let mut ip = Ip::EMPTY;
    let noted = outgoing(&Bytes(frame), world, origin, ARRIVAL.now, &mut ip).is_some();
    let may_be = match ip.protocol {
        UDP | ICMP | ICMPV6 => true,
        TCP => origin == Origin::Forwarded,
        _ => false,
    };
    assert!(
        !noted || may_be && ip.fragment != Fragment::Later,
        "{origin:?}: noted, and should not be: {}",
        hex()
    );
}
