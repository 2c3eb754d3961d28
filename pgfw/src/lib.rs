//! pgfw: closes a Linux host that runs PostgreSQL, and keeps packets, certificates and logins telling the same story.
//!
//! Dependencies point one way: `cli → {api, ops}`, `daemon → {api, ops}`, `ops → {datapath, postgres, pki, host,
//! observe, ledger, policy}`, `policy → {config, plain types of ledger and pki}`,
//! `gate → {api, pki}`, `client → {api, pki}`.

pub mod api;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod datapath;
pub mod failure;
pub mod fault;
pub mod gate;
pub mod host;
mod invisible;
mod journal;
pub mod ledger;
pub mod observe;
pub mod ops;
pub mod paths;
pub mod pki;
pub mod policy;
pub mod postgres;

pub use failure::{Code, Explain, Failure};
