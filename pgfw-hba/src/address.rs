//! The address of a `host…` line (hba.c: `parse_hba_line`, `check_ip`, `check_hostname`; ip.c; ifaddr.c).

use std::ffi::c_long;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::check::{Truth, World};
use crate::token::Token;

/// Which clients a line is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    All,
    /// An address of the server's own.
    SameHost,
    /// An address in a subnet of one of the server's interfaces.
    SameNet,
    /// Where the mask has a bit, the client's address must have the network's. Host bits count for nothing; a mask in a
    /// column of its own may have holes. An IPv4 client never matches an IPv6 network, `::ffff:0:0/96` included.
    Net {
        net: IpAddr,
        mask: IpAddr,
    },
    /// A host name, or a suffix when it begins with a dot; case does not count.
    Name(Vec<u8>),
}

/// One address of an interface, as getifaddrs(3) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    pub address: IpAddr,
    pub mask: Option<IpAddr>,
}

/// What became of the address field.
pub(crate) enum Read {
    Whole(Address),
    /// An address without a mask: the next field is its mask.
    NeedsMask(IpAddr),
}

impl Address {
    /// A doubt is left about an address that is one only where a certain interface exists.
    pub(crate) fn read(token: &Token, doubt: &mut Option<String>) -> Result<Read, String> {
        let keyword = (!token.quoted).then_some(token.text.as_slice());
        match keyword {
            Some(b"all") => return Ok(Read::Whole(Address::All)),
            Some(b"samehost") => return Ok(Read::Whole(Address::SameHost)),
            Some(b"samenet") => return Ok(Read::Whole(Address::SameNet)),
            Some(_) | None => {}
        }
        let shown = String::from_utf8_lossy(&token.text);
        let mut parts = token.text.splitn(2, |b| *b == b'/');
        let (host, bits) = (parts.next().unwrap_or_default(), parts.next());
        match (numeric(host, doubt), bits) {
            (None, Some(_)) => Err(format!(
                "specifying both host name and CIDR mask is invalid: {shown:?}"
            )),
            (None, None) => Ok(Read::Whole(Address::Name(host.to_vec()))),
            (Some(net), None) => Ok(Read::NeedsMask(net)),
            (Some(net), Some(bits)) => {
                let mask =
                    cidr_mask(bits, net).ok_or_else(|| format!("invalid CIDR mask in address {shown:?}"))?;
                Ok(Read::Whole(Address::Net { net, mask }))
            }
        }
    }

    pub(crate) fn with_mask(
        net: IpAddr,
        token: &Token,
        doubt: &mut Option<String>,
    ) -> Result<Address, String> {
        let shown = String::from_utf8_lossy(&token.text);
        let mask = numeric(&token.text, doubt).ok_or_else(|| format!("invalid IP mask {shown:?}"))?;
        if net.is_ipv4() != mask.is_ipv4() {
            return Err("IP address and mask do not match".to_owned());
        }
        Ok(Address::Net { net, mask })
    }

    pub(crate) fn matches(&self, client: IpAddr, world: &dyn World) -> Truth {
        match self {
            Address::All => Truth::Yes,
            Address::Net { net, mask } => Truth::of(within(client, *net, *mask)),
            Address::SameHost | Address::SameNet => match world.interfaces() {
                None => Truth::unknown("the server's interfaces are not known"),
                Some(all) => Truth::of(all.iter().any(|own| {
                    let mask = match self {
                        Address::SameNet => own.usable_mask(),
                        Address::SameHost | Address::All | Address::Net { .. } | Address::Name(_) => {
                            full_mask(own.address)
                        }
                    };
                    within(client, own.address, mask)
                })),
            },
            Address::Name(pattern) => named(client, pattern, world),
        }
    }

    /// First and last address, where they are one range.
    pub fn range(&self) -> Option<(IpAddr, IpAddr)> {
        let Address::Net { net, mask } = self else {
            return None;
        };
        match (net, mask) {
            (IpAddr::V4(net), IpAddr::V4(mask)) => {
                let (net, mask) = (net.to_bits(), mask.to_bits());
                (mask.leading_ones() + mask.trailing_zeros() == 32).then(|| {
                    let first = Ipv4Addr::from_bits(net & mask);
                    (first.into(), Ipv4Addr::from_bits(net | !mask).into())
                })
            }
            (IpAddr::V6(net), IpAddr::V6(mask)) => {
                let (net, mask) = (net.to_bits(), mask.to_bits());
                (mask.leading_ones() + mask.trailing_zeros() == 128).then(|| {
                    let first = Ipv6Addr::from_bits(net & mask);
                    (first.into(), Ipv6Addr::from_bits(net | !mask).into())
                })
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }
}

impl Interface {
    /// ifaddr.c, `run_ifaddr_callback`: no mask, one of the other family, or one of zeros is taken for a full one.
    pub(crate) fn usable_mask(&self) -> IpAddr {
        match self.mask {
            Some(mask) if mask.is_ipv4() == self.address.is_ipv4() && !mask.is_unspecified() => mask,
            Some(_) | None => full_mask(self.address),
        }
    }
}

fn full_mask(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::MAX).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(u128::MAX).into(),
    }
}

/// ifaddr.c: `pg_range_sockaddr`.
pub(crate) fn within(client: IpAddr, net: IpAddr, mask: IpAddr) -> bool {
    match (client, net, mask) {
        (IpAddr::V4(client), IpAddr::V4(net), IpAddr::V4(mask)) => {
            (client.to_bits() ^ net.to_bits()) & mask.to_bits() == 0
        }
        (IpAddr::V6(client), IpAddr::V6(net), IpAddr::V6(mask)) => {
            (client.to_bits() ^ net.to_bits()) & mask.to_bits() == 0
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _, _) => false,
    }
}

/// The client's name must fit, and the name must lead back to the address.
fn named(client: IpAddr, pattern: &[u8], world: &dyn World) -> Truth {
    let Some(name) = world.name_of(client) else {
        return Truth::unknown("the client's host name is not known");
    };
    let Some(name) = name else {
        return Truth::No;
    };
    let fits = if pattern.first() == Some(&b'.') {
        let cut = name.len().checked_sub(pattern.len());
        cut.is_some_and(|cut| name.as_bytes()[cut..].eq_ignore_ascii_case(pattern))
    } else {
        name.as_bytes().eq_ignore_ascii_case(pattern)
    };
    if !fits {
        return Truth::No;
    }
    match world.addresses_of(&name) {
        None => Truth::unknown("the addresses of the client's host name are not known"),
        Some(addresses) => Truth::of(addresses.contains(&client)),
    }
}

/// ip.c: `pg_sockaddr_cidr_mask`, whose number is strtol(3)'s: blanks and a sign in front are taken.
fn cidr_mask(text: &[u8], net: IpAddr) -> Option<IpAddr> {
    let bits = strtol(text)?;
    match net {
        IpAddr::V4(_) => {
            let bits = u32::try_from(bits).ok().filter(|bits| *bits <= 32)?;
            Some(Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - bits).unwrap_or(0)).into())
        }
        IpAddr::V6(_) => {
            let bits = u32::try_from(bits).ok().filter(|bits| *bits <= 128)?;
            Some(Ipv6Addr::from_bits(u128::MAX.checked_shl(128 - bits).unwrap_or(0)).into())
        }
    }
}

fn strtol(text: &[u8]) -> Option<c_long> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    // `++8` is none, and neither is what is out of range.
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(())?;
    text.parse().ok()
}

/// What getaddrinfo(3) with `AI_NUMERICHOST` takes for an address: IPv4 in one to four numbers, each decimal, octal or
/// hexadecimal (inet_aton(3)), and IPv6 with a zone, which then does not count. Anything else is a name.
fn numeric(text: &[u8], doubt: &mut Option<String>) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(v4) = inet_aton(text) {
        return Some(v4.into());
    }
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    let address: Ipv6Addr = address.parse().ok()?;
    if let Some(zone) = zone {
        let number = zone.bytes().all(|b| b.is_ascii_digit()) && zone.parse::<u32>().is_ok();
        let multicast = address.is_multicast() && address.segments()[0] & 0xf == 2;
        if !number && (address.is_unicast_link_local() || multicast) && !zone.is_empty() {
            *doubt = Some(format!("it depends on whether there is an interface {zone:?}"));
        } else if !number {
            return None;
        }
    }
    Some(address.into())
}

fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    let (last, first) = parts.split_last().filter(|(_, first)| first.len() <= 3)?;
    let mut address: u32 = 0;
    for (place, part) in first.iter().enumerate() {
        let number = u8::try_from(number(part)?).ok()?;
        address |= u32::from(number) << (24 - 8 * place);
    }
    let last = number(last)?;
    let room = 32 - 8 * first.len();
    (u64::from(last) < 1 << room).then(|| Ipv4Addr::from_bits(address | last))
}

fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // from_str_radix takes a sign, inet_aton does not.
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(())?;
    u32::from_str_radix(digits, radix).ok()
}
