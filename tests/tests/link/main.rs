//! The link between the layers, on the whole product: the pgfw binary, its daemon, certificates that pgfw issued, a real
//! PostgreSQL, and clients at a distance.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

mod adopt;
mod applies;
mod audit;
mod audit_rules;
mod certificates;
mod cluster;
mod connections;
mod crowd;
mod expiry;
mod follow;
mod foreign;
mod issue;
mod known;
mod listening;
mod logins;
mod newcomer;
mod obstacles;
mod odd_adopt;
mod opening;
mod plan;
mod renewal;
mod revocation;
mod rotation;
mod rules;
mod sealed;
mod stage;
mod standby;
mod standstill;
mod telling;
mod trial;
mod untried;
