//! Headers as they are on the wire: byte arrays in network order, never aligned, every bit pattern valid.

mod ip;
mod link;
mod transport;

pub use ip::*;
pub use link::*;
pub use transport::*;

/// A header that can be copied out of a packet at any offset.
///
/// # Safety
/// The type is `#[repr(C)]`, made of `u8` and arrays of `u8` only: alignment 1, no padding, every bit pattern valid.
pub unsafe trait Wire: Copy {
    /// How many bytes at a time a program loads, 4 or 8: as the fields are that it asks for.
    const UNIT: usize;
}

/// A zero-sized header would turn a bounds check into none; a padded one would read too far.
macro_rules! wire {
    ($($header:ty = $size:literal),+ $(,)?) => {
        $crate::wire::wire!(4; $($header = $size),+);
    };
    ($unit:literal; $($header:ty = $size:literal),+ $(,)?) => {$(
        const _: () = assert!(align_of::<$header>() == 1 && size_of::<$header>() == $size && $size > 0);
        // SAFETY: repr(C) over byte arrays, alignment and size asserted above.
        unsafe impl $crate::wire::Wire for $header {
            const UNIT: usize = $unit;
        }
    )+};
}
pub(crate) use wire;
