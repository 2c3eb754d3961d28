//! Who may be inside at a time. Every count has a bound, and what strangers do takes nothing from those who have shown a
//! certificate.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// Connections of one source: an IPv4 address, or an IPv6 network of 64 bits, which one host has for itself. One more, and
/// the oldest of them that has shown no certificate goes: behind NAT strangers and holders are one source.
pub const PER_SOURCE: u32 = 16;
/// Connections that have shown no certificate yet. One more, and the oldest goes: whoever means it is done in milliseconds.
pub const STRANGERS: usize = 512;
/// Connections that have.
pub const HOLDERS: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Door {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    /// How many of each are inside; who was sent away is not.
    sources: HashMap<IpAddr, u32>,
    /// By age.
    strangers: BTreeMap<u64, Stranger>,
    holders: usize,
}

#[derive(Debug)]
struct Stranger {
    block: IpAddr,
    /// `None`: about to begin.
    handle: Option<AbortHandle>,
}

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    door: Arc<Door>,
    number: u64,
    source: IpAddr,
    holder: bool,
}

impl Door {
    /// `None`: the source has as many as it may, all of them with a certificate.
    pub(super) fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let mut inside = self.lock();
        let block = block(source);
        if inside
            .sources
            .get(&block)
            .is_some_and(|count| *count >= PER_SOURCE)
        {
            let mut of_source = inside.strangers.iter().filter(|(_, s)| s.block == block);
            let oldest = of_source.next().map(|(number, _)| *number)?;
            inside.send_away(oldest);
        }
        if inside.strangers.len() >= STRANGERS
            && let Some(oldest) = inside.strangers.keys().next().copied()
        {
            inside.send_away(oldest);
        }
        *inside.sources.entry(block).or_insert(0) += 1;
        let number = inside.next;
        inside.next += 1;
        inside.strangers.insert(number, Stranger { block, handle: None });
        drop(inside);
        Some(Place {
            door: Arc::clone(self),
            number,
            source,
            holder: false,
        })
    }

    /// How a stranger's connection is ended, unless it is none any more.
    pub(super) fn known_as(&self, number: u64, handle: AbortHandle) {
        if let Some(stranger) = self.lock().strangers.get_mut(&number) {
            stranger.handle = Some(handle);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Numbers only: whoever panicked left them whole.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    /// Its place is free from here on; its connection ends when its task comes to it.
    fn send_away(&mut self, number: u64) {
        if let Some(Stranger { block, handle }) = self.strangers.remove(&number) {
            self.leaves(block);
            if let Some(handle) = handle {
                handle.abort();
            }
        }
    }

    fn leaves(&mut self, block: IpAddr) {
        if let Some(count) = self.sources.get_mut(&block) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&block);
            }
        }
    }
}

impl Place {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn source(&self) -> IpAddr {
        self.source
    }

    /// It has shown a certificate that counts. False: there are as many as may be, or it was sent away a moment ago.
    pub(super) fn is_holder(&mut self) -> bool {
        let mut inside = self.door.lock();
        if inside.holders >= HOLDERS || inside.strangers.remove(&self.number).is_none() {
            return false;
        }
        inside.holders += 1;
        self.holder = true;
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.door.lock();
        let stranger = inside.strangers.remove(&self.number).is_some();
        if self.holder {
            inside.holders -= 1;
        }
        if self.holder || stranger {
            inside.leaves(block(self.source));
        }
    }
}

/// What one host can choose its addresses from.
fn block(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + last).into()
    }

    /// A place whose task waits for its end, as a connection's does.
    fn stays(door: &Arc<Door>, place: Place) -> tokio::task::JoinHandle<()> {
        let number = place.number();
        let task = tokio::spawn(async move {
            let _place = place;
            std::future::pending::<()>().await;
        });
        door.known_as(number, task.abort_handle());
        task
    }

    #[tokio::test]
    async fn one_source_has_its_share_and_no_more() {
        let door = Arc::new(Door::default());
        let holds = |source| {
            let mut place = door.enter(source).unwrap();
            assert!(place.is_holder());
            place
        };
        let mut places: Vec<_> = (0..PER_SOURCE).map(|_| holds(v4(1))).collect();
        assert!(door.enter(v4(1)).is_none());
        assert!(door.enter(v4(2)).is_some());
        places.pop();
        // Of what holders leave, the newest stranger has the last place.
        let first = stays(&door, door.enter(v4(1)).unwrap());
        let second = stays(&door, door.enter(v4(1)).unwrap());
        assert!(first.await.unwrap_err().is_cancelled());
        assert!(!second.is_finished());
        second.abort();
        assert!(second.await.unwrap_err().is_cancelled());
        places.push(holds(v4(1)));
        // One host's addresses are one source, the neighbour's another.
        let own = |i: u32| format!("2001:db8::{i:x}").parse().unwrap();
        let hosts: Vec<_> = (0..PER_SOURCE).map(|i| holds(own(i))).collect();
        assert!(door.enter(own(PER_SOURCE)).is_none());
        assert!(door.enter("2001:db8:0:1::1".parse().unwrap()).is_some());
        drop((places, hosts));
        let inside = door.lock();
        assert!(inside.sources.is_empty() && inside.strangers.is_empty() && inside.holders == 0);
    }

    /// Whoever shares an address with strangers is not kept out by them, however many they are.
    #[tokio::test]
    async fn strangers_of_one_source_take_no_place_from_a_holder_of_it() {
        let door = Arc::new(Door::default());
        let idle: Vec<_> = (0..PER_SOURCE)
            .map(|_| stays(&door, door.enter(v4(1)).unwrap()))
            .collect();
        let mut place = door.enter(v4(1)).unwrap();
        assert!(place.is_holder());
        assert_eq!(door.lock().sources[&v4(1)], PER_SOURCE);
        for task in idle.into_iter().take(1) {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert_eq!(door.lock().sources[&v4(1)], PER_SOURCE);
    }

    #[tokio::test]
    async fn the_oldest_stranger_gives_way_and_a_holder_does_not() {
        let door = Arc::new(Door::default());
        let mut holder = door.enter(v4(0)).unwrap();
        assert!(holder.is_holder());
        let mut tasks = Vec::new();
        for i in 0..u32::try_from(STRANGERS).unwrap() + 3 {
            tasks.push(stays(&door, door.enter(v4(1 + i)).unwrap()));
        }
        for task in tasks.drain(..3) {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert!(tasks.iter().all(|task| !task.is_finished()));
        let inside = door.lock();
        assert_eq!((inside.strangers.len(), inside.holders), (STRANGERS, 1));
    }
}
