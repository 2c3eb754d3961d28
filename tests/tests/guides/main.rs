//! The guides in docs/guides: each one's config, read from the guide, on a host among the neighbours it speaks of.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

mod containers;
mod guide;
mod lan;
mod monitoring;
mod patroni;
mod pgbouncer;
mod standby;
mod storage;
mod vrrp;
