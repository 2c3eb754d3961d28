//! What this host looks like: interfaces, sockets, SSH peers.

pub mod forwarding;
pub mod interfaces;
pub mod lifelines;
pub mod names;
pub mod places;
pub mod sock_diag;
pub mod sshd;
pub mod uppers;
