//! The name of an address, as a server asks for it.

use std::net::{IpAddr, SocketAddr};

use nix::sys::socket::{SockaddrLike, SockaddrStorage};

/// What getnameinfo(3) says with `NI_NAMEREQD`; `None`: it has no name. May wait for a resolver.
pub fn of(address: IpAddr) -> Option<String> {
    let address = SockaddrStorage::from(SocketAddr::new(address, 0));
    let mut name = [0_u8; libc::NI_MAXHOST as usize];
    // SAFETY: the address lives through the call and is as long as it says; the buffer is as long as is said, and the
    // last argument pair asks for no service name.
    let failed = unsafe {
        libc::getnameinfo(
            address.as_ptr(),
            address.len(),
            name.as_mut_ptr().cast(),
            libc::NI_MAXHOST,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if failed != 0 {
        return None;
    }
    let name = std::ffi::CStr::from_bytes_until_nul(&name).ok()?;
    name.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_name() {
        assert!(of("127.0.0.1".parse().unwrap()).is_some());
        // RFC 5737: nobody's.
        assert_eq!(of("192.0.2.1".parse().unwrap()), None);
    }
}
