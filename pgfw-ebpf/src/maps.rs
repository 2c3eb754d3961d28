//! The maps. User space finds them by these names; a change of any raises the ABI.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use pgfw_common::record;

// Shared by all policies, pinned under `v<ABI>/`.

/// The control record, written by one store through a memory mapping.
#[map]
pub(crate) static CONTROL: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
pub(crate) static SLOTS: ProgramArray = ProgramArray::with_max_entries(record::SLOTS, 0);

#[map]
pub(crate) static EGRESS_SLOTS: ProgramArray = ProgramArray::with_max_entries(record::SLOTS, 0);

/// ifindex modulo the table's size → the interface's number among the counters.
#[map]
pub(crate) static INTERFACES: Array<record::Interface> = Array::with_max_entries(record::INTERFACE_TABLE, 0);

#[map]
pub(crate) static COUNTERS: PerCpuArray<record::InterfaceCounters> =
    PerCpuArray::with_max_entries(record::MAX_INTERFACES, 0);

#[map]
pub(crate) static SERVICE_COUNTS: PerCpuArray<record::ServiceCounters> =
    PerCpuArray::with_max_entries(record::MAX_SERVICE_COUNTERS, 0);

/// What this host said; the least recently used goes first.
#[map]
pub(crate) static NOTES: LruHashMap<record::NoteKey, record::Note> =
    LruHashMap::with_max_entries(record::MAX_NOTES, 0);

/// First fragments that passed, of those who are known.
#[map]
pub(crate) static FRAGMENTS: Fragments = LruHashMap::with_max_entries(record::MAX_FRAGMENTS, 0);

/// The same of anyone: a table of their own, since whoever may insert may evict.
#[map]
pub(crate) static OPEN_FRAGMENTS: Fragments = LruHashMap::with_max_entries(record::MAX_FRAGMENTS, 0);

pub(crate) type Fragments = LruHashMap<record::FragmentKey, record::Remembered>;

/// Where notes and fragments may be found; see `pgfw_common::record::RECENT`.
#[map]
pub(crate) static RECENT: Array<u64> = Array::with_max_entries(record::RECENT, 0);

#[map]
pub(crate) static ECHO: Array<record::EchoBudget> = Array::with_max_entries(1, 0);

#[map]
pub(crate) static GATE_BUDGET: PerCpuArray<record::GateBudget> = PerCpuArray::with_max_entries(1, 0);

/// What was dropped, for whoever reads it.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(record::EVENT_RING, 0);

#[map]
pub(crate) static EVENT_BUDGET: PerCpuArray<record::EventBudget> = PerCpuArray::with_max_entries(1, 0);

// One policy's own, pinned under `v<ABI>/gen-<n>/`. The loader sets the sizes.

#[map]
/// Key: a [`record::ServiceKey`] as one word.
pub(crate) static SERVICES: HashMap<u32, record::ServiceRow> = HashMap::with_max_entries(1, 0);

pub(crate) type Line = [u64; pgfw_common::prefixes::LINE_WORDS as usize];

/// Services and their prefixes; see `pgfw_common::prefixes`. User space writes through a memory mapping.
#[map]
pub(crate) static PREFIXES: Array<Line> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Where the programs of a policy keep what they have read, by kind: no two of a kind run on one CPU at a time.
#[map]
pub(crate) static SCRATCH: PerCpuArray<record::Scratch> = PerCpuArray::with_max_entries(3, 0);

pub(crate) const POLICY: u32 = 0;
pub(crate) const PROBE: u32 = 1;
pub(crate) const NOTE: u32 = 2;

#[inline(always)]
pub(crate) fn scratch(kind: u32) -> Option<&'static mut record::Scratch> {
    // SAFETY: this CPU's own element, used by one program at a time; zero, as a new map is, is a valid value.
    SCRATCH.get_ptr_mut(kind).map(|scratch| unsafe { &mut *scratch })
}

/// The control record as it stands.
#[inline(always)]
pub(crate) fn control() -> u64 {
    match CONTROL.get_ptr(0) {
        // One aligned load of 64 bits, never torn; volatile, since user space may write at any time.
        // SAFETY: the lookup found the element, which is a u64 and lives as long as the map.
        Some(word) => unsafe { word.read_volatile() },
        // An array of one has element 0.
        None => 0,
    }
}
