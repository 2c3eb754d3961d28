//! Who may be inside at a time. Every count has a bound, and what strangers do takes nothing from those who have shown a
//! certificate.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// Connections of one source: an IPv4 address, or an IPv6 network of 64 bits, which one host has for itself.
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
    sources: HashMap<IpAddr, u32>,
    /// By age. `None`: about to begin.
    strangers: BTreeMap<u64, Option<AbortHandle>>,
    holders: usize,
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
    /// `None`: the source has as many as it may.
    pub(super) fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let mut inside = self.lock();
        let of_source = inside.sources.entry(block(source)).or_insert(0);
        if *of_source >= PER_SOURCE {
            return None;
        }
        *of_source += 1;
        if inside.strangers.len() >= STRANGERS
            && let Some((_, Some(oldest))) = inside.strangers.pop_first()
        {
            oldest.abort();
        }
        let number = inside.next;
        inside.next += 1;
        inside.strangers.insert(number, None);
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
            *stranger = Some(handle);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Numbers only: whoever panicked left them whole.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn source(&self) -> IpAddr {
        self.source
    }

    /// It has shown a certificate that counts. False: there are as many as may be.
    pub(super) fn is_holder(&mut self) -> bool {
        let mut inside = self.door.lock();
        if inside.holders >= HOLDERS {
            return false;
        }
        inside.strangers.remove(&self.number);
        inside.holders += 1;
        self.holder = true;
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.door.lock();
        inside.strangers.remove(&self.number);
        if self.holder {
            inside.holders -= 1;
        }
        let source = block(self.source);
        if let Some(count) = inside.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                inside.sources.remove(&source);
            }
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

    #[test]
    fn one_source_has_its_share_and_no_more() {
        let door = Arc::new(Door::default());
        let mut places: Vec<_> = (0..PER_SOURCE).map(|_| door.enter(v4(1)).unwrap()).collect();
        assert!(door.enter(v4(1)).is_none());
        assert!(door.enter(v4(2)).is_some());
        places.pop();
        assert!(door.enter(v4(1)).is_some());
        // One host's addresses are one source, the neighbour's another.
        let own = |i: u32| format!("2001:db8::{i:x}").parse().unwrap();
        let hosts: Vec<_> = (0..PER_SOURCE).map(|i| door.enter(own(i)).unwrap()).collect();
        assert!(door.enter(own(PER_SOURCE)).is_none());
        assert!(door.enter("2001:db8:0:1::1".parse().unwrap()).is_some());
        drop((places, hosts));
        assert!(door.lock().sources.is_empty());
    }

    #[tokio::test]
    async fn the_oldest_stranger_gives_way_and_a_holder_does_not() {
        let door = Arc::new(Door::default());
        let mut holder = door.enter(v4(0)).unwrap();
        assert!(holder.is_holder());
        let mut tasks = Vec::new();
        for i in 0..u32::try_from(STRANGERS).unwrap() + 3 {
            let place = door.enter(v4(1 + i)).unwrap();
            let number = place.number();
            let task = tokio::spawn(async move {
                let _place = place;
                std::future::pending::<()>().await;
            });
            door.known_as(number, task.abort_handle());
            tasks.push(task);
        }
        for task in tasks.drain(..3) {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert!(tasks.iter().all(|task| !task.is_finished()));
        let inside = door.lock();
        assert_eq!((inside.strangers.len(), inside.holders), (STRANGERS, 1));
    }
}
