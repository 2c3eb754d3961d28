//! pgfw-common's `Tables` over BPF maps.

use pgfw_common::address::{Address, Family};
use pgfw_common::coverage::Jiffies;
use pgfw_common::outgoing::Outgoing;
use pgfw_common::parse::Ip;
use pgfw_common::record::{
    Coverage, CoverageKey4, CoverageKey6, FragmentKey, MAX_ETHER_TYPES, Note, NoteKey, Remembered,
    SERVICE_BITS, ServiceKey, ServiceRow, Settings,
};
use pgfw_common::tables::{Ports, Sender, Socket, Tables};

use crate::access::{Sockets, TrieKey};
use crate::maps;

/// The policy's switches. The loader writes them before the program is loaded, so the verifier sees constants and
/// removes what a policy does not use.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings::new();

/// One switch. Volatile, or the compiler would take what stands above for the truth.
macro_rules! setting {
    ($($field:tt)+) => {
        // SAFETY: a field of a static.
        unsafe { (&raw const SETTINGS.$($field)+).read_volatile() }
    };
}

#[inline(always)]
pub(crate) fn audit() -> bool {
    setting!(audit) != 0
}

/// Ticks per second.
#[inline(always)]
pub(crate) fn hz() -> u32 {
    setting!(hz)
}

#[inline(always)]
pub(crate) fn track() -> bool {
    setting!(track) != 0
}

/// One policy's tables and the kernel's sockets. With `WRITES` false nothing is changed: the probe's.
///
/// What builds a key on the stack is a function of its own: the verifier counts the stack of a call chain, and keys
/// that are never used together then share theirs.
pub(crate) struct Kernel<S, const WRITES: bool> {
    sockets: S,
}

impl<S: Sockets, const WRITES: bool> Kernel<S, WRITES> {
    #[inline(always)]
    pub(crate) fn new(sockets: S) -> Self {
        Kernel { sockets }
    }
}

impl<S: Sockets, const WRITES: bool> Tables for Kernel<S, WRITES> {
    #[inline(always)]
    fn hz(&self) -> u32 {
        setting!(hz)
    }

    #[inline(always)]
    fn echo(&self) -> u8 {
        setting!(echo)
    }

    #[inline(always)]
    fn dhcp_client(&self) -> bool {
        setting!(dhcp_client) != 0
    }

    #[inline(always)]
    fn track(&self) -> bool {
        setting!(track) != 0
    }

    #[inline(always)]
    fn spanning_tree(&self) -> bool {
        setting!(stp) != 0
    }

    #[inline(always)]
    fn ether_type(&self, ether_type: u16) -> bool {
        for i in 0..MAX_ETHER_TYPES {
            if setting!(ether_types[i]) == ether_type {
                return true;
            }
        }
        false
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<ServiceRow> {
        // SAFETY: rows are written before the policy is chosen and never changed after.
        unsafe { maps::SERVICES.get(key) }.copied()
    }

    #[inline(always)]
    fn coverage(&self, service: u16, family: Family, remote: &Address) -> Option<Coverage> {
        coverage(service, family, remote).copied()
    }

    #[inline(always)]
    fn tcp_socket(&self, ip: &Ip, ports: Ports) -> Socket {
        self.sockets.tcp(ip, ports)
    }

    #[inline(always)]
    fn syn_cookie(&self, ip: &Ip, ports: Ports) -> bool {
        self.sockets.syn_cookie(ip, ports)
    }

    #[inline(always)]
    fn note(&self, ip: &Ip, ports: Ports) -> Option<Note> {
        // SAFETY: a note that is evicted meanwhile belongs to some other flow of this host for this one packet.
        find_note(ip, ports).map(|note| unsafe { *note })
    }

    #[inline(always)]
    fn answered(&self, ip: &Ip, ports: Ports) {
        if WRITES && let Some(note) = find_note(ip, ports) {
            // SAFETY: the lookup found it; two CPUs may count two answers as one.
            unsafe { (*note).answers = (*note).answers.saturating_add(1) };
        }
    }

    #[inline(always)]
    fn remember(&self, sender: Sender, ip: &Ip, ifindex: u32, until: Jiffies) {
        if WRITES {
            remember(sender, ip, ifindex, until.0);
        }
    }

    #[inline(always)]
    fn spend_fragment(&self, ip: &Ip, ifindex: u32, now: Jiffies) -> bool {
        spend_fragment::<WRITES>(Sender::Known, ip, ifindex, now.0)
            || spend_fragment::<WRITES>(Sender::Anyone, ip, ifindex, now.0)
    }

    #[inline(always)]
    fn spend_echo(&self, now: Jiffies) -> bool {
        let Some(budget) = maps::ECHO.get_ptr_mut(0) else {
            return false;
        };
        // SAFETY: element 0 of an array of one; CPUs that race may each spend the last of a second.
        match unsafe { *budget }.spend(now, self.hz()) {
            None => false,
            Some(after) => {
                if WRITES {
                    // SAFETY: as above.
                    unsafe { *budget = after };
                }
                true
            }
        }
    }
}

#[inline(never)]
fn coverage(service: u16, family: Family, remote: &Address) -> Option<&'static Coverage> {
    let service = u32::from(service).to_be();
    match family {
        Family::V4 => {
            let source = remote[3];
            let key = TrieKey {
                prefix_length: SERVICE_BITS + 32,
                data: CoverageKey4 { service, source },
            };
            maps::COVERAGE4.get(key.as_aya())
        }
        Family::V6 => {
            let source = *remote;
            let key = TrieKey {
                prefix_length: SERVICE_BITS + 128,
                data: CoverageKey6 { service, source },
            };
            maps::COVERAGE6.get(key.as_aya())
        }
    }
}

#[inline(never)]
fn find_note(ip: &Ip, ports: Ports) -> Option<*mut Note> {
    maps::NOTES.get_ptr_mut(NoteKey::new(ip, ports))
}

#[inline(never)]
fn spend_fragment<const WRITES: bool>(sender: Sender, ip: &Ip, ifindex: u32, now: u64) -> bool {
    let Some(remembered) = fragments(sender).get_ptr_mut(FragmentKey::new(ip, ifindex)) else {
        return false;
    };
    // SAFETY: as for notes; two CPUs may count two fragments as one.
    match unsafe { *remembered }.spend(Jiffies(now)) {
        None => false,
        Some(after) => {
            if WRITES {
                // SAFETY: as above.
                unsafe { (*remembered).left = after.left };
            }
            true
        }
    }
}

#[inline(never)]
fn remember(sender: Sender, ip: &Ip, ifindex: u32, until: u64) {
    let remembered = Remembered::new(Jiffies(until));
    // Full or contended: the later fragments drop, and are counted.
    let _ = fragments(sender).insert(FragmentKey::new(ip, ifindex), remembered, 0);
}

#[inline(always)]
fn fragments(sender: Sender) -> &'static maps::Fragments {
    match sender {
        Sender::Known => &maps::FRAGMENTS,
        Sender::Anyone => &maps::OPEN_FRAGMENTS,
    }
}

/// Notes what this host said.
#[inline(always)]
pub(crate) fn note(ip: &Ip, packet: &Outgoing, now: Jiffies) {
    let hz = setting!(hz);
    match find_note(ip, packet.ports) {
        // SAFETY: the lookup found it; see `Tables::note`.
        Some(before) => unsafe {
            if let Some(after) = packet.note(ip.protocol, Some(*before), now, hz) {
                *before = after;
            }
        },
        None => {
            if let Some(first) = packet.note(ip.protocol, None, now, hz) {
                insert_note(ip, packet.ports, &first);
            }
        }
    }
}

#[inline(never)]
fn insert_note(ip: &Ip, ports: Ports, note: &Note) {
    // An LRU map makes room; if it cannot, the answer drops, and is counted.
    let _ = maps::NOTES.insert(NoteKey::new(ip, ports), note, 0);
}
