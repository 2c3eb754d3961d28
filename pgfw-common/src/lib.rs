//! Decides: parses one packet and gives it a verdict with a reason.
//!
//! Pure: no I/O, no clock, no log, no allocation. The kernel's programs run this code over a live packet and BPF
//! maps, tests run it over byte slices and ordinary maps. To find the line that drops a packet, start in [`decide`].

#![no_std]
// `anew`.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(any(test, feature = "host"))]
extern crate std;

pub mod address;
pub mod anew;
pub mod coverage;
pub mod decide;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod outgoing;
pub mod packet;
pub mod parse;
pub mod prefixes;
pub mod reason;
pub mod record;
pub mod tables;
pub mod wire;

#[cfg(any(test, feature = "host"))]
pub use host::frames;

#[cfg(test)]
mod tests;
