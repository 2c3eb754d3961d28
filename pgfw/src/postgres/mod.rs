//! PostgreSQL's side: which rules it should have, putting them there, and proof from the server that they count.
//!
//! Everything here blocks (files, sockets, the server's answers); async code calls it on a blocking thread.

mod adopt;
mod after;
mod applied;
mod apply;
mod beforehand;
mod candidate;
mod cluster;
mod conf;
mod error;
mod giving;
mod half_open;
pub mod hba;
mod inspect;
mod kept;
mod live;
mod log_file;
mod log_names;
mod look;
mod options;
mod owner;
mod pending;
mod plan;
pub mod prove;
mod release;
mod reload;
mod renew;
mod rules;
mod scratch;
mod sessions;
pub mod settings;
mod settle;
mod sql;
mod stage;
mod switch;
pub mod tls;
pub mod wire;

pub use adopt::{Adopted, AdoptedServer, adopt};
pub use after::restart;
pub use applied::{Applied, Step};
pub use apply::{Options, TlsMaterial, Untried, apply};
pub use cluster::{Running, Server};
pub use conf::Override;
pub use error::PostgresError;
pub use half_open::{CutOff, await_logins, cut_off, destroy_half_open};
pub use inspect::{Inspection, inspect};
pub use log_file::{LogFile, NewLines, Position};
pub use log_names::LogNames;
pub use look::{Seen, look};
pub use owner::Owner;
pub use pending::{OnTrial, due, note_of, on_trial, unfinished};
pub use plan::{
    Difference, Facts, Live as LiveFacts, Plan, Role, Secret, Setting, Stream, Then, certificates, plan,
};
pub use release::{Given, Leave, Released, release};
pub use reload::reload;
pub use renew::{Renewal, Standing, renew, standing};
pub use rules::{LiveWorld, Rules};
pub use sessions::{
    Session, Target, decimal, is_superuser, missing_roles, sessions, sessions_and_self, sessions_at,
    shown_dn, terminate_sessions,
};
pub use settle::{Settled, Verdict, settle};
pub use sql::Sql;
pub use switch::Edits;
