//! The gate, on the whole product: the daemon, the gate as its own user, a real PostgreSQL, and curl, openssl and psql as
//! clients at a distance.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

mod client;
mod corpus;
mod crashes;
mod full;
mod leases;
mod odd;
mod renewal;
mod stage;
mod strangers;
mod wire;
