//! Sets of addresses of both families, as disjoint ranges: every statement about them is about all of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// From `first` to `last`, both of one family and both in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    pub first: IpAddr,
    pub last: IpAddr,
}

/// Disjoint, in order, and none beside another of its family.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ranges(Vec<Range>);

impl Ranges {
    pub fn none() -> Ranges {
        Ranges::default()
    }

    /// Every address there is.
    pub fn all() -> Ranges {
        Ranges(vec![
            Range {
                first: Ipv4Addr::UNSPECIFIED.into(),
                last: Ipv4Addr::BROADCAST.into(),
            },
            Range {
                first: Ipv6Addr::UNSPECIFIED.into(),
                last: Ipv6Addr::from_bits(u128::MAX).into(),
            },
        ])
    }

    /// The union of ranges in any order.
    pub fn of(ranges: impl IntoIterator<Item = Range>) -> Ranges {
        let mut all: Vec<Range> = ranges.into_iter().collect();
        all.sort();
        let mut out: Vec<Range> = Vec::new();
        for range in all {
            match out.last_mut() {
                // The families do not touch: the last IPv4 address has no next one.
                Some(before)
                    if next(before.last).map_or(before.last, |n| n) >= range.first
                        && before.first.is_ipv4() == range.first.is_ipv4() =>
                {
                    before.last = before.last.max(range.last);
                }
                Some(_) | None => out.push(range),
            }
        }
        Ranges(out)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.0.iter().copied()
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|r| r.first <= address && address <= r.last)
    }

    /// Whether they have an address in common.
    pub fn meets(&self, other: &Ranges) -> bool {
        self.0.iter().any(|a| {
            let place = other.0.partition_point(|b| b.last < a.first);
            other.0.get(place).is_some_and(|b| b.first <= a.last)
        })
    }

    #[must_use]
    pub fn union(&self, other: &Ranges) -> Ranges {
        Ranges::of(self.iter().chain(other.iter()))
    }

    /// The same in place: the ranges beside those that are added are found by halving.
    pub fn add(&mut self, other: &Ranges) {
        for range in other.iter() {
            let begin = self.0.partition_point(|own| apart(own, &range));
            let end = begin + self.0[begin..].partition_point(|own| !apart(&range, own));
            let joined = self.0[begin..end].iter().fold(range, |joined, own| Range {
                first: joined.first.min(own.first),
                last: joined.last.max(own.last),
            });
            self.0.splice(begin..end, [joined]);
        }
    }

    /// What is in this and not in the other.
    #[must_use]
    pub fn without(&self, other: &Ranges) -> Ranges {
        let mut out = Vec::new();
        for range in self.iter() {
            let mut rest = Some(range);
            let begin = other.0.partition_point(|cut| cut.last < range.first);
            for cut in &other.0[begin..] {
                let Some(r) = rest else { break };
                if r.last < cut.first {
                    break;
                }
                if r.first < cut.first {
                    out.extend(previous(cut.first).map(|last| Range { first: r.first, last }));
                }
                rest = match next(cut.last) {
                    Some(first) if cut.last < r.last => Some(Range { first, last: r.last }),
                    Some(_) | None => None,
                };
            }
            out.extend(rest);
        }
        Ranges::of(out)
    }

    #[must_use]
    pub fn within(&self, other: &Ranges) -> Ranges {
        self.without(&self.without(other))
    }
}

/// Whether one ends before the other begins, with an address between them or of another family.
fn apart(one: &Range, other: &Range) -> bool {
    one.last < other.first && next(one.last) != Some(other.first)
}

impl Range {
    /// The prefixes it is made of, largest first where it begins.
    pub fn prefixes(self) -> Vec<(IpAddr, u8)> {
        let mut out = Vec::new();
        let (mut at, last, width) = match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                (u128::from(first.to_bits()), u128::from(last.to_bits()), 32)
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits(), last.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return out,
        };
        loop {
            // As many host bits as the start has zeros and the rest has room for.
            let mut bits = at.trailing_zeros().min(width);
            while bits > 0 && last - at < (u128::MAX >> (128 - bits)) {
                bits -= 1;
            }
            let address = match self.first {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(at).unwrap_or(u32::MAX))),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(at)),
            };
            out.push((address, u8::try_from(width - bits).unwrap_or(0)));
            let size_less_one = if bits == 0 { 0 } else { u128::MAX >> (128 - bits) };
            match at.checked_add(size_less_one).filter(|end| *end < last) {
                Some(end) => at = end + 1,
                None => return out,
            }
        }
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for range in &self.0 {
            match range.prefixes().as_slice() {
                many if many.len() > 4 => write!(f, "{comma}{}-{}", range.first, range.last)?,
                few => {
                    for (address, bits) in few {
                        write!(f, "{comma}{address}/{bits}")?;
                        comma = ", ";
                    }
                }
            }
            comma = ", ";
        }
        Ok(())
    }
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|n| Ipv4Addr::from_bits(n).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|n| Ipv6Addr::from_bits(n).into()),
    }
}

fn previous(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(1).map(|n| Ipv4Addr::from_bits(n).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_sub(1).map(|n| Ipv6Addr::from_bits(n).into()),
    }
}
