//! What this host looks like: interfaces, sockets, SSH peers.

pub mod forwarding;
pub mod interfaces;
pub mod sock_diag;
pub mod uppers;
