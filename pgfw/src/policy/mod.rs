//! From what was declared and recorded to what the kernel and PostgreSQL enforce. Pure: no I/O, no clock.

pub mod access;
mod close;
mod compile;
pub mod coverage;
mod difference;
mod leases;
mod openings;
#[cfg(test)]
mod tests;
mod turn;

pub use close::close;
pub use compile::{Inputs, compile, compile_within};
pub use difference::{Difference, difference, exact_difference};
pub use leases::live as live_leases;
pub use openings::{Answer, Opening, Origin, openings, services};
pub use turn::next_turn;
