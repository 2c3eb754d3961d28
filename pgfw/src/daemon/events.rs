//! Remembers the last events and hands them to whoever asks, at once or as soon as there is one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::api::{Event, Events, LostEvents};
use crate::ops::EventSource;
use crate::paths::Paths;

/// How many are remembered: a few megabytes.
const REMEMBERED: usize = 4_096;

/// How many go into one answer.
const AT_ONCE: usize = 1_024;

/// The ring is looked for again this often, and lost events are counted.
const ROUND: Duration = Duration::from_secs(1);

/// The last events, shared between the thread that reads the ring and those who ask.
#[derive(Debug, Clone, Default)]
pub(super) struct EventLog(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    kept: Mutex<Kept>,
    /// The number of the last event.
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    last: u64,
    lost: LostEvents,
}

impl EventLog {
    /// Starts a thread that empties the ring as long as the process lives.
    pub(super) fn follow(&self, paths: &Paths) {
        let (log, mut source) = (self.clone(), EventSource::new(paths));
        let follow = move || {
            let mut complaint = String::new();
            loop {
                let told = source.next(ROUND);
                if told.is_err() || !source.is_open() {
                    std::thread::sleep(ROUND);
                }
                match told.and_then(|told| Ok((told, source.lost()?))) {
                    Ok((told, lost)) => {
                        complaint.clear();
                        log.add(told, lost);
                    }
                    Err(failure) if failure.message != complaint => {
                        complaint.clone_from(&failure.message);
                        tracing::warn!("no events of drops: {complaint}");
                    }
                    Err(_) => {}
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("events".into()).spawn(follow) {
            tracing::warn!(%error, "events of drops are not read");
        }
    }

    /// Events after this number, as soon as there is one, but no later than `longest`.
    pub(super) async fn after(&self, after: u64, longest: Duration) -> Events {
        let EventLog(inner) = self;
        let mut last = inner.last.subscribe();
        let deadline = tokio::time::Instant::now() + longest;
        loop {
            last.borrow_and_update();
            let found = self.kept().after(after);
            let news = tokio::time::timeout_at(deadline, last.changed());
            if !found.events.is_empty() || !matches!(news.await, Ok(Ok(()))) {
                return found;
            }
        }
    }

    fn add(&self, told: Vec<Event>, lost: LostEvents) {
        let EventLog(inner) = self;
        let mut kept = self.kept();
        kept.lost = lost;
        if told.is_empty() {
            return;
        }
        for event in told {
            kept.add(event);
        }
        let last = kept.last;
        drop(kept);
        inner.last.send_replace(last);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        let EventLog(inner) = self;
        inner.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn add(&mut self, event: Event) {
        self.last += 1;
        if self.events.len() == REMEMBERED {
            self.events.pop_front();
        }
        self.events.push_back(Event {
            number: self.last,
            ..event
        });
    }

    fn after(&self, after: u64) -> Events {
        // A number of an earlier daemon, which counted on its own.
        let after = if after > self.last { 0 } else { after };
        let first = self.events.partition_point(|event| event.number <= after);
        let events: Vec<Event> = self.events.range(first..).take(AT_ONCE).cloned().collect();
        Events {
            next: events.last().map_or(after, |event| event.number),
            events,
            lost: self.lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Flow, Verdict};

    fn events(count: usize) -> Vec<Event> {
        let event = Event {
            number: 0,
            time: String::new(),
            interface: "eth0".into(),
            reason: "new-tcp".into(),
            verdict: Verdict::Drop,
            flow: Flow::default(),
            length: 60,
            head: String::new(),
        };
        vec![event; count]
    }

    fn numbers(events: &Events) -> (Option<u64>, Option<u64>, u64) {
        let number = |event: Option<&Event>| event.map(|event| event.number);
        (
            number(events.events.first()),
            number(events.events.last()),
            events.next,
        )
    }

    #[test]
    fn the_last_ones_are_remembered_and_told_in_parts() {
        let log = EventLog::default();
        let total = REMEMBERED as u64 + 10;
        log.add(events(REMEMBERED + 10), LostEvents::default());
        let first = log.kept().after(0);
        assert_eq!(numbers(&first), (Some(11), Some(1_034), 1_034));
        let last = log.kept().after(total - 1);
        assert_eq!(numbers(&last), (Some(total), Some(total), total));
        assert_eq!(numbers(&log.kept().after(total)), (None, None, total));
        // Of an earlier daemon.
        assert_eq!(numbers(&log.kept().after(total + 1)).0, Some(11));
    }

    #[tokio::test]
    async fn who_waits_is_woken_and_who_does_not_is_answered() {
        let log = EventLog::default();
        let none = log.after(0, Duration::ZERO).await;
        assert_eq!(numbers(&none), (None, None, 0));
        let waiting = tokio::spawn({
            let log = log.clone();
            async move { log.after(0, Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        let lost = LostEvents { limited: 3, full: 4 };
        log.add(events(2), lost);
        let told = waiting.await.expect("an answer");
        assert_eq!((numbers(&told), told.lost), ((Some(1), Some(2), 2), lost));
    }
}
