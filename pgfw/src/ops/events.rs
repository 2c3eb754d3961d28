//! What the kernel tells about single drops, in the words that people read.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use time::OffsetDateTime;
use time::macros::format_description;

use crate::api::{Event, LostEvents, Verdict};
use crate::clock::Now;
use crate::datapath::{Datapath, Dropped, EventReader};
use crate::failure::Failure;
use crate::observe::frame::to_hex;
use crate::observe::packet::flow;
use crate::paths::Paths;

/// The instance's ring of events, whichever is pinned at a time; `pgfw off` takes it away, a reload makes another.
#[derive(Debug)]
pub struct EventSource {
    pins: PathBuf,
    reader: Option<EventReader>,
}

/// How many events are taken at once.
const MOST: usize = 1_024;

impl EventSource {
    pub fn new(paths: &Paths) -> EventSource {
        EventSource {
            pins: paths.bpffs.clone(),
            reader: None,
        }
    }

    /// Waits for events, but no longer than this. Their numbers are for the caller to give.
    ///
    /// # Errors
    /// A ring that cannot be read; the next call looks for another one.
    pub fn next(&mut self, longest: Duration) -> Result<Vec<Event>, Failure> {
        if self.reader.as_ref().is_none_or(|reader| !reader.is_current()) {
            self.reader = None;
            if !Datapath::exists(&self.pins) {
                return Ok(Vec::new());
            }
            self.reader = Some(EventReader::open(&self.pins)?);
        }
        let Some(reader) = &mut self.reader else {
            return Ok(Vec::new());
        };
        reader.wait(longest)?;
        let told = reader.read(MOST)?;
        let now = Now::read();
        let mut names = HashMap::new();
        Ok(told
            .iter()
            .map(|dropped| event(dropped, &now, &mut names))
            .collect())
    }

    /// Whether there is anything to wait for.
    pub fn is_open(&self) -> bool {
        self.reader.is_some()
    }

    /// # Errors
    /// A map that cannot be read.
    pub fn lost(&self) -> Result<LostEvents, Failure> {
        let Some(reader) = &self.reader else {
            return Ok(LostEvents::default());
        };
        let crate::datapath::LostEvents { limited, full } = reader.lost()?;
        Ok(LostEvents { limited, full })
    }
}

fn event(dropped: &Dropped, now: &Now, names: &mut HashMap<u32, String>) -> Event {
    let Dropped {
        at,
        ifindex,
        reason,
        audit,
        length,
        head,
    } = dropped;
    let interface = names.entry(*ifindex).or_insert_with(|| {
        nix::net::if_::if_indextoname(*ifindex).map_or_else(
            |_| format!("interface {ifindex}"),
            |name| name.to_string_lossy().into_owned(),
        )
    });
    Event {
        number: 0,
        time: rfc3339(now.wall_ns - i128::from(now.boot.0) + i128::from(at.0)),
        interface: interface.clone(),
        reason: reason.name().to_owned(),
        verdict: if *audit { Verdict::Pass } else { Verdict::Drop },
        flow: flow(head),
        length: *length,
        head: to_hex(head),
    }
}

/// To the millisecond: the kernel's programs count ticks, of which there are 100 to 1000 a second.
fn rfc3339(nanoseconds: i128) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| format!("@{}", nanoseconds.div_euclid(1_000_000_000)))
}
