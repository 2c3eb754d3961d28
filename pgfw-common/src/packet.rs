//! One way to read a packet, wherever its bytes are.

use crate::wire::Wire;

/// A packet from its Ethernet header on.
///
/// Implemented here over a byte slice and in the kernel over `data`/`data_end`, so that one parser serves both.
pub trait Packet {
    /// The header at `offset`, or `None` when the packet ends before it does.
    fn read<T: Wire>(&self, offset: usize) -> Option<T>;

    /// Whether the packet has at least `length` bytes; in the kernel this includes the fragments of a multi-buffer
    /// packet, of which only the first part can be read.
    fn holds(&self, length: usize) -> bool;
}

/// No offset beyond this is ever read: two VLAN tags, IPv4 options or six extension headers of 2 KiB each, and as much
/// again in a quoted packet, fit below it. The verifier, too, wants a bound on what it adds to a packet pointer.
pub const MAX_OFFSET: usize = 0x7fff;

/// A packet in a byte slice.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Packet for Bytes<'_> {
    fn read<T: Wire>(&self, offset: usize) -> Option<T> {
        if offset > MAX_OFFSET {
            return None;
        }
        let bytes = self.0.get(offset..)?.get(..size_of::<T>())?;
        // SAFETY: `bytes` holds size_of::<T>() bytes, and every bit pattern is a valid `T` (contract of `Wire`).
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    fn holds(&self, length: usize) -> bool {
        self.0.len() >= length
    }
}
