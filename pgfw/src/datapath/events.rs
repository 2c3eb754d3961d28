//! Reading the ring of events. It has one reader at a time: the daemon.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use aya::programs::Xdp;
use aya_obj::programs::XdpAttachType;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pgfw_common::coverage::Jiffies;
use pgfw_common::reason::Reason;
use pgfw_common::record::Event;

use super::error::DatapathError;
use super::load::CLOCK;
use super::maps;
use super::pins::Pins;
use super::ticks::Ticks;
use crate::clock::BootTime;

/// One packet that was dropped, or would have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// To the tick.
    pub at: BootTime,
    pub ifindex: u32,
    pub reason: Reason,
    /// `mode = "audit"`: it passed all the same.
    pub audit: bool,
    /// Of the whole frame.
    pub length: u32,
    /// The frame's first bytes.
    pub head: Vec<u8>,
}

/// Events that nobody will see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LostEvents {
    /// There were more than [`pgfw_common::record::EVENTS_PER_SECOND`].
    pub limited: u64,
    /// Nobody emptied the ring.
    pub full: u64,
}

/// The reader of one instance's ring.
pub struct EventReader {
    pin: PathBuf,
    /// The map's id: another one under the same name is another ring.
    id: u32,
    ring: RingBuf<MapData>,
    budget: maps::EventBudgets,
    clock: Xdp,
}

impl std::fmt::Debug for EventReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventReader")
            .field("pin", &self.pin)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl EventReader {
    /// # Errors
    /// Nothing is pinned under `pins`, or it is damaged.
    pub fn open(pins: &Path) -> Result<EventReader, DatapathError> {
        let pins = Pins::new(pins);
        let pin = pins.object(maps::EVENTS);
        Ok(EventReader {
            id: id(&pin)?,
            ring: maps::open(&pin)?,
            budget: maps::open(&pins.object(maps::EVENT_BUDGET))?,
            clock: Xdp::from_pin(pins.object(CLOCK), XdpAttachType::Interface)
                .map_err(DatapathError::aya("open the pinned program clock"))?,
            pin,
        })
    }

    /// Whether the ring is still the one that programs write to: `pgfw off` removes it.
    pub fn is_current(&self) -> bool {
        id(&self.pin).is_ok_and(|id| id == self.id)
    }

    /// Waits until there is something to read, but no longer than this.
    ///
    /// # Errors
    /// A ring that cannot be waited for.
    pub fn wait(&self, longest: Duration) -> Result<(), DatapathError> {
        let mut ready = [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)];
        let longest = PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX);
        match poll(&mut ready, longest) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(DatapathError::call("wait for events")(errno.into())),
        }
    }

    /// Takes out what is there, the oldest first, at most `most`.
    ///
    /// # Errors
    /// Ticks that cannot be read.
    pub fn read(&mut self, most: usize) -> Result<Vec<Dropped>, DatapathError> {
        let ticks = Ticks::read(&self.clock)?;
        let mut found = Vec::new();
        while found.len() < most
            && let Some(item) = self.ring.next()
        {
            found.extend(event(&item).and_then(|event| dropped(&event, &ticks)));
        }
        Ok(found)
    }

    /// What was lost since the pins were made.
    ///
    /// # Errors
    /// A map that cannot be read.
    pub fn lost(&self) -> Result<LostEvents, DatapathError> {
        let values = self
            .budget
            .get(&0, 0)
            .map_err(DatapathError::aya("read the budget of events"))?;
        let mut lost = LostEvents::default();
        for maps::Raw(of_cpu) in values.iter() {
            lost.limited = lost.limited.wrapping_add(of_cpu.limited);
            lost.full = lost.full.wrapping_add(of_cpu.full);
        }
        Ok(lost)
    }
}

fn id(pin: &Path) -> Result<u32, DatapathError> {
    let action = || format!("ask about the map pinned at {}", pin.display());
    MapData::from_pin(pin)
        .and_then(|data| data.info())
        .map(|info| info.id())
        .map_err(DatapathError::aya(action()))
}

/// `None`: not of this ABI.
fn event(bytes: &[u8]) -> Option<Event> {
    if bytes.len() < size_of::<Event>() {
        return None;
    }
    // SAFETY: there are as many bytes as an event has; it is made of integers, so any bytes are one.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}

fn dropped(event: &Event, ticks: &Ticks) -> Option<Dropped> {
    Some(Dropped {
        at: ticks.boot(Jiffies(event.jiffies)),
        ifindex: event.ifindex,
        reason: Reason::from_number(event.reason)?,
        audit: event.audit != 0,
        length: event.length,
        head: event.head.get(..usize::from(event.captured))?.to_vec(),
    })
}
