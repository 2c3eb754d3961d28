//! What netfilter saw: packets that its NFLOG rules hand to user space (linux/netfilter/nfnetlink_log.h).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// One packet at one NFLOG rule.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) group: u16,
    /// Zero when the packet has none.
    pub(crate) mark: u32,
    /// From the network layer on.
    pub(crate) packet: Vec<u8>,
}

/// A reader of NFLOG groups of the network namespace in which it was opened.
pub(crate) struct Nflog {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

const SUBSYSTEM: u16 = 4; // NFNL_SUBSYS_ULOG
const PACKET: u16 = SUBSYSTEM << 8; // NFULNL_MSG_PACKET
const CONFIG: u16 = SUBSYSTEM << 8 | 1; // NFULNL_MSG_CONFIG
const CFG_CMD: u16 = 1;
const CFG_MODE: u16 = 2;
const CFG_QTHRESH: u16 = 5;
const CMD_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const MARK: u16 = 2; // NFULA_MARK
const PAYLOAD: u16 = 9; // NFULA_PAYLOAD
/// nlmsghdr and nfgenmsg.
const HEADERS: usize = 16 + 4;

impl Nflog {
    /// Opens the groups in the calling thread's namespace.
    pub(crate) fn open(groups: &[u16]) -> Nflog {
        // SAFETY: socket(2) takes no pointers.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::NETLINK_NETFILTER,
            )
        };
        assert!(fd >= 0, "no netlink socket: {}", io::Error::last_os_error());
        let nflog = Nflog {
            // SAFETY: the descriptor is new and nobody else's.
            socket: unsafe { OwnedFd::from_raw_fd(fd) },
            buffer: vec![0; 1 << 17],
        };
        let room: libc::c_int = 64 << 20;
        // SAFETY: the option is an int that lives through the call.
        let set = unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const room).cast(),
                size_of_val(&room) as libc::socklen_t,
            )
        };
        assert!(set == 0, "SO_RCVBUFFORCE: {}", io::Error::last_os_error());
        for group in groups {
            nflog.configure(*group, CFG_CMD, &[CMD_BIND]);
            nflog.configure(*group, CFG_MODE, &[0, 0, 0xff, 0xff, COPY_PACKET, 0]);
            // Every packet at once, whatever the rule says: nothing waits for more.
            nflog.configure(*group, CFG_QTHRESH, &1_u32.to_be_bytes());
        }
        nflog
    }

    /// The next packet; `None` when none comes in that time.
    pub(crate) fn next(&mut self, patience: Duration) -> Option<Seen> {
        loop {
            let length = receive(&self.socket, &mut self.buffer, patience)?;
            let message = &self.buffer[..length];
            if u16_at(message, 4) == PACKET {
                return Some(packet(message));
            }
        }
    }

    fn configure(&self, group: u16, attribute: u16, value: &[u8]) {
        let mut message = Vec::new();
        let length = HEADERS + 4 + value.len().next_multiple_of(4);
        message.extend((length as u32).to_ne_bytes());
        message.extend(CONFIG.to_ne_bytes());
        message.extend((libc::NLM_F_REQUEST as u16 | libc::NLM_F_ACK as u16).to_ne_bytes());
        message.extend([0; 8]);
        message.extend([libc::AF_UNSPEC as u8, 0]);
        message.extend(group.to_be_bytes());
        message.extend((4 + value.len() as u16).to_ne_bytes());
        message.extend(attribute.to_ne_bytes());
        message.extend(value);
        message.resize(length, 0);
        // SAFETY: the buffer lives through the call and is as long as said.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        assert!(sent >= 0, "NFLOG: {}", io::Error::last_os_error());
        let mut answer = [0; 128];
        receive(&self.socket, &mut answer, Duration::from_secs(5)).expect("netlink answers");
        let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        assert!(error == 0, "NFLOG group {group} cannot be had: errno {}", -error);
    }
}

/// Receives one datagram; `None` when none comes in that time.
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8], patience: Duration) -> Option<usize> {
    loop {
        // SAFETY: the buffer lives through the call and is as long as said.
        let length = unsafe {
            libc::recv(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
            )
        };
        if let Ok(length) = usize::try_from(length) {
            return Some(length);
        }
        let error = io::Error::last_os_error();
        assert!(
            matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ),
            "a socket that listens broke: {error}"
        );
        let mut poll = libc::pollfd {
            fd: socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let milliseconds = libc::c_int::try_from(patience.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: one pollfd that lives through the call.
        if unsafe { libc::poll(&raw mut poll, 1, milliseconds) } == 0 {
            return None;
        }
    }
}

fn packet(message: &[u8]) -> Seen {
    let end =
        (u32::from_ne_bytes([message[0], message[1], message[2], message[3]]) as usize).min(message.len());
    let mut seen = Seen {
        group: u16::from_be_bytes([message[18], message[19]]),
        mark: 0,
        packet: Vec::new(),
    };
    let mut at = HEADERS;
    while at + 4 <= end {
        let length = usize::from(u16_at(message, at));
        let value = &message[at + 4..(at + length).min(end)];
        match u16_at(message, at + 2) {
            MARK => seen.mark = u32::from_be_bytes([value[0], value[1], value[2], value[3]]),
            PAYLOAD => seen.packet = value.to_vec(),
            _ => {}
        }
        at += length.max(4).next_multiple_of(4);
    }
    seen
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}
