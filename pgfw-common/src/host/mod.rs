//! The decision outside the kernel: the same functions over ordinary maps.

pub mod corpus;
pub mod frames;
pub mod scene;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::vec::Vec;

use crate::address::{Address, Family};
use crate::coverage::{Admission, Jiffies};
use crate::decide::{Arrival, Verdict, decide, remember};
use crate::outgoing::{Origin, outgoing};
use crate::packet::Bytes;
use crate::parse::Ip;
use crate::record::{
    Coverage, EchoBudget, FragmentKey, GateBudget, Note, NoteKey, Remembered, Scratch, ServiceKey,
    ServiceRow, Settings,
};
use crate::tables::{Cookie, Ports, Sender, Socket, Tables};

/// Everything that a decision may ask, as plain data.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub settings: Settings,
    pub services: BTreeMap<ServiceKey, ServiceRow>,
    pub prefixes: Vec<Prefix>,
    /// TCP sockets by flow (remote and local end, protocol 6).
    pub sockets: BTreeMap<NoteKey, Socket>,
    /// Flows whose ACK carries a SYN cookie of this host.
    pub cookies: Vec<NoteKey>,
    pub notes: RefCell<BTreeMap<NoteKey, Note>>,
    /// First fragments that passed, of those who are known and of anyone.
    pub fragments: RefCell<BTreeMap<FragmentKey, Remembered>>,
    pub open_fragments: RefCell<BTreeMap<FragmentKey, Remembered>>,
    pub echo: Cell<EchoBudget>,
    pub gate: Cell<GateBudget>,
    /// A packet is only asked about: nothing is written.
    pub asked: Cell<bool>,
}

/// One row of the coverage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    pub service: u16,
    pub family: Family,
    pub network: Address,
    /// Its `prefix_length` says how many bits of `network` count (of the last 32 for IPv4).
    pub coverage: Coverage,
}

impl World {
    /// Judges a frame from outside.
    pub fn judge(&self, frame: &[u8], arrival: Arrival) -> Verdict {
        let mut scratch = Scratch::EMPTY;
        let reason = decide(&Bytes(frame), self, arrival, &mut scratch);
        let verdict = Verdict::new(reason, &scratch.segment);
        remember(self, arrival, &scratch.ip, verdict.reason.number(), verdict.world);
        verdict
    }

    /// What [`World::judge`] would say; like the kernel's probe it changes nothing.
    pub fn ask(&self, frame: &[u8], arrival: Arrival) -> Verdict {
        self.ask_with(frame, arrival, &mut Scratch::EMPTY.clone())
    }

    /// The same over a scratch in which something may stand.
    pub fn ask_with(&self, frame: &[u8], arrival: Arrival, scratch: &mut Scratch) -> Verdict {
        self.asked.set(true);
        let reason = decide(&Bytes(frame), self, arrival, scratch);
        self.asked.set(false);
        Verdict::new(reason, &scratch.segment)
    }

    /// Sends a frame of a socket of this host.
    pub fn send(&self, frame: &[u8], now: Jiffies) {
        self.leave(frame, Origin::Local, now);
    }

    /// Forwards a frame, its addresses as they are on the wire.
    pub fn forward(&self, frame: &[u8], now: Jiffies) {
        if self.track() {
            self.leave(frame, Origin::Forwarded, now);
        }
    }

    fn leave(&self, frame: &[u8], origin: Origin, now: Jiffies) {
        let mut ip = Ip::EMPTY;
        let Some(packet) = outgoing(&Bytes(frame), self, origin, now, &mut ip) else {
            return;
        };
        let key = NoteKey::new(&ip, packet.ports);
        let mut notes = self.notes.borrow_mut();
        if let Some(note) = packet.note(ip.protocol, notes.get(&key).copied(), now, self.settings.hz) {
            notes.insert(key, note);
        }
    }
}

impl Tables for World {
    fn hz(&self) -> u32 {
        self.settings.hz
    }

    fn echo(&self) -> u8 {
        self.settings.echo
    }

    fn dhcp_client(&self) -> bool {
        self.settings.dhcp_client != 0
    }

    fn track(&self) -> bool {
        self.settings.track != 0
    }

    fn spanning_tree(&self) -> bool {
        self.settings.stp != 0
    }

    fn ether_type(&self, ether_type: u16) -> bool {
        self.settings.ether_types.contains(&ether_type)
    }

    fn admission(&self, key: ServiceKey, ip: &Ip, now: Jiffies) -> Option<(ServiceRow, Admission)> {
        let row = *self.services.get(&key)?;
        let coverage = self
            .prefixes
            .iter()
            .filter(|prefix| {
                prefix.service == row.service && prefix.family == ip.family && prefix.holds(&ip.ends.remote)
            })
            .map(|prefix| prefix.coverage)
            .max_by_key(|coverage| coverage.prefix_length);
        let admission = coverage.map_or(Admission::Closed, |coverage| coverage.at(now));
        Some((row, admission))
    }

    fn tcp_socket(&self, ip: &Ip, ports: Ports, cookie: Cookie) -> Socket {
        let key = NoteKey::new(ip, ports);
        match self.sockets.get(&key) {
            Some(Socket::Listening) if cookie == Cookie::Check && self.cookies.contains(&key) => {
                Socket::Cookie
            }
            Some(socket) => *socket,
            None => Socket::Absent,
        }
    }

    fn note(&self, ip: &Ip, ports: Ports) -> Option<Note> {
        self.notes.borrow().get(&NoteKey::new(ip, ports)).copied()
    }

    fn answered(&self, ip: &Ip, ports: Ports) {
        if !self.asked.get()
            && let Some(note) = self.notes.borrow_mut().get_mut(&NoteKey::new(ip, ports))
        {
            note.answers = note.answers.saturating_add(1);
        }
    }

    fn remember(&self, sender: Sender, ip: &Ip, ifindex: u32, until: Jiffies) {
        let table = match sender {
            Sender::Known => &self.fragments,
            Sender::Anyone => &self.open_fragments,
        };
        table
            .borrow_mut()
            .insert(FragmentKey::new(ip, ifindex), Remembered::new(until));
    }

    fn spend_fragment(&self, ip: &Ip, ifindex: u32, now: Jiffies) -> bool {
        let key = FragmentKey::new(ip, ifindex);
        [&self.fragments, &self.open_fragments].into_iter().any(|table| {
            let mut table = table.borrow_mut();
            let Some(remembered) = table.get_mut(&key) else {
                return false;
            };
            match remembered.spend(now) {
                Some(after) => {
                    if !self.asked.get() {
                        *remembered = after;
                    }
                    true
                }
                None => false,
            }
        })
    }

    fn is_gate(&self, port: u16) -> bool {
        self.settings.gate_port != 0 && self.settings.gate_port == port
    }

    fn spend_gate(&self, now: Jiffies) -> bool {
        match self.gate.get().spend(now, self.settings.hz) {
            Some(after) => {
                if !self.asked.get() {
                    self.gate.set(after);
                }
                true
            }
            None => false,
        }
    }

    fn spend_echo(&self, now: Jiffies) -> bool {
        match self.echo.get().spend(now, self.settings.hz) {
            Some(after) => {
                if !self.asked.get() {
                    self.echo.set(after);
                }
                true
            }
            None => false,
        }
    }
}

impl Prefix {
    fn holds(&self, address: &Address) -> bool {
        let skipped = match self.family {
            Family::V4 => 96,
            Family::V6 => 0,
        };
        let bits = (self.coverage.prefix_length + skipped).min(128);
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        number(address) & mask == number(&self.network) & mask
    }
}

fn number(address: &Address) -> u128 {
    address
        .iter()
        .fold(0, |number, word| number << 64 | u128::from(u64::from_be(*word)))
}
