//! What attaching would break: flows whose sockets the program could not see.

use crate::config::Config;
use crate::failure::{Explain, Failure};
use crate::host::interfaces::Interface;
use crate::host::{forwarding, sock_diag, uppers};

/// Whether a policy on `interface` sees the sockets of all that comes in there.
///
/// The kernel looks sockets up as for a packet of that very interface. One bound to a device above it, and every
/// link-local IPv6 connection through such a device, is not found, and its packets would drop.
pub(super) fn sees_all_sockets(interface: &Interface) -> Result<(), Failure> {
    let failed = |source| CoverError::Ask {
        what: format!("devices on {}", interface.name),
        source,
    };
    for upper in uppers::of(&interface.name).map_err(failed)? {
        let is_bound = |socket: &sock_diag::Socket| socket.interface == upper.index;
        if upper.is_master {
            return Err(CoverError::Port {
                interface: interface.name.clone(),
                master: upper.name,
            }
            .into());
        }
        if let Some(socket) = sock_diag::dump().map_err(failed)?.into_iter().find(is_bound) {
            return Err(CoverError::Bound {
                interface: interface.name.clone(),
                upper: upper.name,
                local: socket.local,
            }
            .into());
        }
    }
    Ok(())
}

/// Whether it is known what becomes of the packets that this host forwards, where it does.
pub(super) fn knows_what_to_forward(config: &Config) -> Result<(), Failure> {
    if config.firewall.forwarded.is_some() {
        return Ok(());
    }
    let translates = forwarding::translates().map_err(|source| CoverError::Ask {
        what: "nftables chains of this host".to_owned(),
        source,
    })?;
    if translates {
        return Err(CoverError::Forwarded.into());
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum CoverError {
    #[error("the {what} cannot be listed")]
    Ask { what: String, source: std::io::Error },
    #[error(
        "{interface} is a port of {master}: sockets bound to {master} and link-local connections through it cannot be seen from {interface}"
    )]
    Port { interface: String, master: String },
    #[error("{local} is bound to {upper}, which stands on {interface}, and cannot be seen from there")]
    Bound {
        interface: String,
        upper: String,
        local: std::net::SocketAddr,
    },
    #[error(
        "this host forwards packets and translates addresses (NAT), and firewall.forwarded does not say what becomes of them"
    )]
    Forwarded,
}

impl Explain for CoverError {
    fn remedy(&self) -> String {
        match self {
            CoverError::Ask { what: _, source: _ } => "Run this as root, with /proc and /sys mounted.".into(),
            CoverError::Port { interface, master } => {
                format!("Write {master} in place of {interface} in firewall.interfaces.")
            }
            CoverError::Bound {
                interface,
                upper,
                local: _,
            } => format!(
                "Bind it to an address instead, or write {upper} in place of {interface} in firewall.interfaces."
            ),
            CoverError::Forwarded => {
                "Set firewall.forwarded to \"track\" where containers or machines behind this \
                                      host connect to others, else to \"drop\"."
                    .into()
            }
        }
    }
}
