//! Packets in a stream, from addresses that nobody has: at a rate, or as fast as they go.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Namespace;

/// Sends until it is stopped or dropped.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    /// Sends the packets that `make` gives for 0, 1, 2 …, whole IPv4 ones, to an address; `rate` in packets a second.
    pub fn start(
        from: &Namespace,
        to: Ipv4Addr,
        rate: Option<u32>,
        make: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> Stream {
        let socket = from.within(|| {
            // SAFETY: socket(2) takes no pointers.
            let fd = unsafe {
                libc::socket(
                    libc::AF_INET,
                    libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                    libc::IPPROTO_RAW,
                )
            };
            assert!(fd >= 0, "no raw socket: {}", std::io::Error::last_os_error());
            // SAFETY: the descriptor is new and nobody else's.
            unsafe { OwnedFd::from_raw_fd(fd) }
        });
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let begun = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let n = count.load(Ordering::Relaxed);
                let due = rate.map(|rate| {
                    u64::from(rate) * u64::try_from(begun.elapsed().as_micros()).unwrap_or(0) / 1_000_000
                });
                if due.is_some_and(|due| n >= due) {
                    // The pace itself; nothing is waited for.
                    std::thread::sleep(Duration::from_micros(500));
                    continue;
                }
                if send(&socket, to, &make(n)) {
                    count.store(n + 1, Ordering::Relaxed);
                }
            }
        });
        Stream {
            stop,
            sent,
            thread: Some(thread),
        }
    }

    /// How many have been sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it and says how many were sent.
    pub fn stop(mut self) -> u64 {
        self.end();
        self.sent()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end();
    }
}

/// False when there is no room just now.
fn send(socket: &OwnedFd, to: Ipv4Addr, packet: &[u8]) -> bool {
    let address = nix::sys::socket::SockaddrIn::from(SocketAddrV4::new(to, 0));
    let sent = nix::sys::socket::sendto(
        socket.as_raw_fd(),
        packet,
        &address,
        nix::sys::socket::MsgFlags::empty(),
    );
    sent.is_ok()
}

/// An IPv4 packet around a payload; the kernel writes the checksum.
pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("a short packet");
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}
