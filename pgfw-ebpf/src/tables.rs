//! pgfw-common's `Tables` over BPF maps.

use pgfw_common::address::Family;
use pgfw_common::coverage::{self, Admission, Jiffies};
use pgfw_common::outgoing::Outgoing;
use pgfw_common::parse::Ip;
use pgfw_common::prefixes::{self, Beyond, Key, LINE_WORDS, Lines, Sieved};
use pgfw_common::record::{
    self, FragmentKey, MAX_ETHER_TYPES, Note, NoteKey, Remembered, ServiceKey, ServiceRow, Settings,
};
use pgfw_common::tables::{Cookie, Ports, Sender, Socket, Tables};
use pgfw_common::wire;

use crate::access::{Sockets, now};
use crate::maps::{self, Line};

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
    fn admission(&self, key: ServiceKey, ip: &Ip, now: Jiffies) -> Option<(ServiceRow, Admission)> {
        let line = match key.protocol {
            wire::TCP | wire::UDP => prefixes::at_port(&Prefixes, key.protocol, key.port),
            protocol => {
                let word = u32::from(key.port) | u32::from(protocol) << 16;
                prefixes::record_of(&Prefixes, other_service(word))
            }
        };
        if line == 0 {
            return None;
        }
        let record = Prefixes.line(line)?;
        let row = prefixes::row::<Prefixes>(record);
        let found = match prefixes::sieve(&Prefixes, record, ip.family, Key::new(ip.family, &ip.ends.remote))
        {
            Sieved::Settled(at) => at,
            Sieved::Beyond(Beyond { root, rest, base }) => {
                let from = u64::from(root) | u64::from(base) << 32;
                pgfw_behind(from, rest.high, rest.low, ip.family as u32)
            }
        };
        if found != 0
            && let Some((deny, allow, flags)) = prefixes::answer(&Prefixes, found)
        {
            return Some((row, coverage::at(deny, allow, flags, now)));
        }
        Some((row, Admission::Closed))
    }

    #[inline(always)]
    fn tcp_socket(&self, ip: &Ip, ports: Ports, cookie: Cookie) -> Socket {
        self.sockets.tcp(ip, ports, cookie)
    }

    #[inline(always)]
    fn note(&self, ip: &Ip, ports: Ports) -> Option<Note> {
        if !is_recent(record::place_of_note(ports), now()) {
            return None;
        }
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
        is_recent(record::place_of_datagram(&ip.ends, ip.id), now)
            && (spend_fragment::<WRITES>(Sender::Known, ip, ifindex, now.0)
                || spend_fragment::<WRITES>(Sender::Anyone, ip, ifindex, now.0))
    }

    #[inline(always)]
    fn is_gate(&self, port: u16) -> bool {
        // Where there is none the verifier knows, and takes all of this out.
        setting!(gate_port) != 0 && setting!(gate_port) == port
    }

    #[inline(always)]
    fn spend_gate(&self, now: Jiffies) -> bool {
        spend_gate::<WRITES>(now.0)
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

/// [`prefixes::behind`]. `from`: the word of the root (lower half) and the base.
///
/// A global function: the verifier looks at it once, whatever it is called with, and not anew for each way to a call. So
/// it takes numbers only.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn pgfw_behind(from: u64, high: u64, low: u64, family: u32) -> u32 {
    let family = if family == Family::V4 as u32 {
        Family::V4
    } else {
        Family::V6
    };
    let beyond = Beyond {
        root: from as u32,
        rest: Key { high, low },
        base: (from >> 32) as u32,
    };
    prefixes::behind(&Prefixes, family, beyond)
}

/// A service of any other protocol.
#[inline(always)]
fn other_service(key: u32) -> u16 {
    // SAFETY: rows are written before the policy is chosen and never changed after.
    match unsafe { maps::SERVICES.get(key) } {
        Some(row) => row.service,
        None => 0,
    }
}

/// The policy's table of prefixes.
struct Prefixes;

impl Lines for Prefixes {
    type Line = *const Line;

    #[inline(always)]
    fn line(&self, index: u32) -> Option<*const Line> {
        maps::PREFIXES.get_ptr(index)
    }

    #[inline(always)]
    fn load(line: *const Line, index: u32) -> u64 {
        // SAFETY: `line` is an element of the map, which lives as long as the program, and has that many words; one aligned
        // load of 64 bits is never torn, and volatile, since user space may write at any time.
        unsafe {
            line.cast::<u64>()
                .add((index % LINE_WORDS) as usize)
                .read_volatile()
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
fn spend_gate<const WRITES: bool>(now: u64) -> bool {
    let Some(budget) = maps::GATE_BUDGET.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: this CPU's own element, and one packet at a time on a CPU.
    match unsafe { *budget }.spend(Jiffies(now), setting!(hz)) {
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

#[inline(never)]
fn remember(sender: Sender, ip: &Ip, ifindex: u32, until: u64) {
    announce(record::place_of_datagram(&ip.ends, ip.id), until);
    let remembered = Remembered::new(Jiffies(until));
    // Full or contended: the later fragments drop, and are counted.
    let _ = fragments(sender).insert(FragmentKey::new(ip, ifindex), remembered, 0);
}

/// Whether something may be found there.
#[inline(always)]
fn is_recent(place: u32, now: Jiffies) -> bool {
    match maps::RECENT.get_ptr(place) {
        // SAFETY: an element of the map; whoever announces at the same time is as good as a moment later.
        Some(until) => now.0 < unsafe { until.read_volatile() },
        // There is none beyond the map.
        None => false,
    }
}

#[inline(always)]
fn announce(place: u32, until: u64) {
    if let Some(announced) = maps::RECENT.get_ptr_mut(place) {
        // SAFETY: as above; of two that announce at once in one place, the later end may be lost only where both are of one
        // tick, or one is of a forwarded flow, which announces itself again with its next packet.
        unsafe {
            if *announced < until {
                *announced = until;
            }
        }
    }
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
    let until = now.0.wrapping_add(record::longest_note(ip) * u64::from(hz));
    announce(record::place_of_note(packet.ports), until);
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
