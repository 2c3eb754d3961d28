//! The client side of the gate: takes a lease for each address family, keeps it, renews the certificate, gives the lease
//! back. Needs neither root nor a daemon.

mod error;
mod gate;
mod holder;
mod keeper;
mod profile;
mod reach;
mod service_file;
#[cfg(test)]
mod tests;

pub use error::ClientError;
pub use keeper::{Lease, LeaseKeeper, Taken};
pub use profile::{Given, Profile};

/// Where the gate listens unless somebody says otherwise.
pub const GATE_PORT: u16 = 5430;
