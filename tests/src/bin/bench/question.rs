//! Programs that ask the kernel one question about a packet and drop it: what the question alone costs.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::kernel;
use crate::source::{Family, code, wide};

const DROP: i32 = kernel::DROP as i32;

/// Looks for the socket of an untagged TCP segment without options in the IP header.
pub(crate) fn of_sockets() -> Vec<u64> {
    looking(&[])
}

/// The same in IPv4, and asks the socket whether the segment carries a SYN cookie.
pub(crate) fn of_cookies() -> Vec<u64> {
    let header = |register, at| [code(0xbf, register, 7, 0, 0), code(0x07, register, 0, 0, at)];
    let mut ask = vec![code(0xbf, 9, 0, 0, 0), code(0xbf, 1, 9, 0, 0)];
    ask.extend(header(2, 14));
    ask.push(code(0xb7, 3, 0, 0, 20));
    ask.extend(header(4, 34));
    ask.extend([
        code(0xb7, 5, 0, 0, 20),
        code(0x85, 0, 0, 0, 100), // bpf_tcp_check_syncookie
        code(0xbf, 0, 9, 0, 0),
    ]);
    looking(&ask)
}

/// `found` runs with the socket in r0, and leaves it there.
fn looking(found: &[u64]) -> Vec<u64> {
    const TUPLE: i16 = -40;
    let ipv4 = i32::from(0x0800_u16.to_be());
    // Copies `words` words of the packet, from `at` on, to where the tuple is (struct bpf_sock_tuple).
    let copy = |at: i16, words: i16| {
        (0..words).flat_map(move |word| {
            [
                code(0x61, 0, 7, at + 4 * word, 0),
                code(0x63, 10, 0, TUPLE + 4 * word, 0),
            ]
        })
    };
    // Jumps over what follows unless the packet has so many bytes.
    let room = |bytes: i32, over: usize| {
        let over = i16::try_from(over).expect("a short program");
        [
            code(0xbf, 2, 7, 0, 0),
            code(0x07, 2, 0, 0, bytes),
            code(0x2d, 2, 8, over, 0),
        ]
    };
    let mut look = vec![
        code(0xbf, 1, 6, 0, 0),
        code(0xbf, 2, 10, 0, 0),
        code(0x07, 2, 0, 0, i32::from(TUPLE)),
        code(0xb7, 4, 0, 0, -1), // this namespace
        code(0xb7, 5, 0, 0, 0),
        code(0x85, 0, 0, 0, 99), // bpf_skc_lookup_tcp
        code(
            0x15,
            0,
            0,
            i16::try_from(found.len() + 2).expect("a short program"),
            0,
        ),
    ];
    look.extend(found);
    look.extend([
        code(0xbf, 1, 0, 0, 0),
        code(0x85, 0, 0, 0, 86), // bpf_sk_release
    ]);
    let mut v6: Vec<u64> = copy(22, 9).chain([code(0xb7, 3, 0, 0, 36)]).collect();
    v6.splice(0..0, room(58, v6.len() + look.len()));
    let mut v4: Vec<u64> = copy(26, 3).collect();
    v4.extend([
        code(0xb7, 3, 0, 0, 12),
        code(0x05, 0, 0, i16::try_from(v6.len()).expect("a short program"), 0),
    ]);
    let over = i16::try_from(v4.len()).expect("a short program");
    let mut all = vec![
        code(0xbf, 6, 1, 0, 0), // r6 = the context
        code(0x61, 7, 6, 0, 0), // r7 = data
        code(0x61, 8, 6, 4, 0), // r8 = data_end
    ];
    all.extend(room(54, 2 + v4.len() + v6.len() + look.len()));
    all.extend([code(0x69, 3, 7, 12, 0), code(0x55, 3, 0, over, ipv4)]);
    all.extend(v4);
    all.extend(v6);
    all.extend(look);
    all.extend([code(0xb7, 0, 0, 0, DROP), code(0x95, 0, 0, 0, 0)]);
    all
}

/// Looks the source up in a trie of the kernel's and drops: what that lookup alone costs.
pub(crate) fn in_trie(family: Family, trie: BorrowedFd<'_>, frags: bool) -> OwnedFd {
    let at = i16::try_from(family.source_at()).expect("the head of a frame");
    let bytes = i16::try_from(family.bytes()).expect("a short address");
    let mut all = vec![
        code(0x61, 7, 1, 0, 0),
        code(0x61, 8, 1, 4, 0),
        code(0xbf, 2, 7, 0, 0),
        code(0x07, 2, 0, 0, i32::from(at + bytes)),
        code(0x3d, 8, 2, 2, 0),
        code(0xb7, 0, 0, 0, 0),
        code(0x95, 0, 0, 0, 0),
        code(0x62, 10, 0, -20, i32::from(bytes) * 8),
    ];
    for word in 0..bytes / 4 {
        all.extend([
            code(0x61, 0, 7, at + 4 * word, 0),
            code(0x63, 10, 0, -16 + 4 * word, 0),
        ]);
    }
    all.extend(wide(1, 1, trie.as_fd().as_raw_fd() as u64));
    all.extend([
        code(0xbf, 2, 10, 0, 0),
        code(0x07, 2, 0, 0, -20),
        code(0x85, 0, 0, 0, 1), // bpf_map_lookup_elem
        code(0xb7, 0, 0, 0, DROP),
        code(0x95, 0, 0, 0, 0),
    ]);
    kernel::load(&all, frags)
}
