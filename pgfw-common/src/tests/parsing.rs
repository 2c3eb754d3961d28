//! What no frame of the corpus can show: packets beyond what BPF_PROG_TEST_RUN takes, and single headers.

use std::vec;
use std::vec::Vec;

use crate::address::Family;
use crate::frames::{Frame, NETWORK, SYN};
use crate::packet::{Bytes, MAX_OFFSET, Packet};
use crate::parse::{self, Ip, Malformed, Place};
use crate::wire::{Ethernet, Extension};

#[test]
fn nothing_is_read_beyond_the_packet_or_the_last_offset() {
    let bytes: Vec<u8> = (0..=255).cycle().take(MAX_OFFSET + 100).collect();
    let packet = Bytes(&bytes);
    let read = |offset| packet.read::<Extension>(offset).map(|header| header.next_header);
    assert_eq!(read(0), Some(0));
    assert_eq!(read(1), Some(1), "no alignment is asked for");
    assert_eq!(read(MAX_OFFSET), Some((MAX_OFFSET % 256) as u8));
    assert_eq!(read(MAX_OFFSET + 1), None);
    assert_eq!(read(usize::MAX), None);

    let packet = Bytes(&bytes[..14]);
    assert!(packet.read::<Ethernet>(0).is_some() && packet.read::<Ethernet>(1).is_none());
    assert!(packet.holds(0) && packet.holds(14) && !packet.holds(15));
}

/// BIG TCP (Linux 5.19, for IPv4 6.3): a coalesced packet beyond 64 KiB says that its length is zero.
#[test]
fn a_length_of_zero_in_a_frame_beyond_64_kib_is_all_that_a_length_can_say() {
    const MOST: usize = 0xffff;
    let v4 = Frame::tcp(("192.168.1.7", 1), ("192.168.1.1", 5432), SYN).bytes(NETWORK + 2, &[0, 0]);
    let v6 = Frame::tcp(("2001:db8:1::7", 1), ("2001:db8::1", 5432), SYN).bytes(NETWORK + 4, &[0, 0]);
    for (frame, family, start) in [(v4, Family::V4, NETWORK), (v6, Family::V6, NETWORK + 40)] {
        for (length, big) in [
            (start + MOST, false),
            (start + MOST + 1, true),
            (start + 100_000, true),
        ] {
            let mut bytes = frame.0.clone();
            bytes.extend(vec![0; length - bytes.len()]);
            let mut ip = Ip::EMPTY;
            let read = parse::ip(&Bytes(&bytes), family, NETWORK as u32, Place::Incoming, &mut ip);
            match (big, family) {
                (true, _) => {
                    assert_eq!(read, Ok(()));
                    assert_eq!(ip.end as usize, start + MOST);
                }
                (false, Family::V4) => assert_eq!(read, Err(Malformed::Ipv4TotalLength)),
                // IPv6's counts what follows the header: nothing, which is right for a packet without payload.
                (false, Family::V6) => assert_eq!((read, ip.end as usize), (Ok(()), start)),
            }
        }
    }
}
