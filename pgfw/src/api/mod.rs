//! The control socket: HTTP/JSON under `/v1/`, on a Unix socket of mode 0660 and group `pgfw`.
//!
//! Only messages and the client live here; the server is `daemon/`. A failure is `{code, message, remedy}`.

mod client;
mod events;
mod gate;
mod messages;

pub use client::{Client, FROM};
pub use events::*;
pub use gate::*;
pub use messages::*;
