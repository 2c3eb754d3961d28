//! Filters in the queueing discipline `clsact`, through rtnetlink: the way out before TCX links (Linux 6.6).
//!
//! Such a filter belongs to nobody: it stays until somebody deletes it, or the discipline, or the device.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::device::{HEADER, attributes, open, u16_at, u32_at};

/// One filter of a BPF program on an interface's way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) program: u32,
    handle: u32,
    /// Priority and protocol, as the kernel wants them back.
    info: u32,
}

/// Adds the discipline; says whether it was not there before.
pub(super) fn add_qdisc(ifindex: u32) -> io::Result<bool> {
    let head = Head {
        kind: libc::RTM_NEWQDISC,
        flags: libc::NLM_F_CREATE | libc::NLM_F_EXCL,
        ifindex,
        handle: CLSACT & MAJOR,
        parent: CLSACT,
        info: 0,
    };
    match head.request(&[(TCA_KIND, c"clsact".to_bytes_with_nul())]) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the discipline if no filter of anybody stands in it.
pub(super) fn remove_empty_qdisc(ifindex: u32) -> io::Result<()> {
    for parent in [INGRESS, EGRESS] {
        if !dump(ifindex, parent)?.is_empty() {
            return Ok(());
        }
    }
    let head = Head {
        kind: libc::RTM_DELQDISC,
        flags: 0,
        ifindex,
        handle: CLSACT & MAJOR,
        parent: CLSACT,
        info: 0,
    };
    gone(head.request(&[(TCA_KIND, c"clsact".to_bytes_with_nul())]))
}

/// Adds a filter that runs `program` over every packet on the way out, after those that are there.
pub(super) fn add_filter(ifindex: u32, program: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let mut options = Vec::new();
    put(&mut options, TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes());
    put(&mut options, TCA_BPF_NAME, name.to_bytes_with_nul());
    // What the program returns is the verdict, not a class.
    put(
        &mut options,
        TCA_BPF_FLAGS,
        &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes(),
    );
    let head = Head {
        kind: libc::RTM_NEWTFILTER,
        flags: libc::NLM_F_CREATE | libc::NLM_F_EXCL,
        ifindex,
        handle: 0,
        parent: EGRESS,
        // Priority 0: the kernel chooses one.
        info: ALL_PROTOCOLS,
    };
    head.request(&[
        (TCA_KIND, c"bpf".to_bytes_with_nul()),
        (TCA_OPTIONS | NESTED, &options),
    ])
}

/// Every filter of a BPF program on the way out. An interface without the discipline, or without being there, has none.
pub(super) fn filters(ifindex: u32) -> io::Result<Vec<Filter>> {
    let messages = dump(ifindex, EGRESS)?;
    Ok(messages.iter().filter_map(|message| filter(message)).collect())
}

/// Removes the filters of one program. One that is gone is removed already.
pub(super) fn remove_filters(ifindex: u32, program: u32) -> io::Result<()> {
    for filter in filters(ifindex)?
        .iter()
        .filter(|filter| filter.program == program)
    {
        let head = Head {
            kind: libc::RTM_DELTFILTER,
            flags: 0,
            ifindex,
            handle: filter.handle,
            parent: EGRESS,
            info: filter.info,
        };
        gone(head.request(&[(TCA_KIND, c"bpf".to_bytes_with_nul())]))?;
    }
    Ok(())
}

// include/uapi/linux/pkt_sched.h
const CLSACT: u32 = 0xffff_fff1;
const MAJOR: u32 = 0xffff_0000;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

// include/uapi/linux/rtnetlink.h, include/uapi/linux/pkt_cls.h
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
/// NLA_F_NESTED.
const NESTED: u16 = 1 << 15;

/// ETH_P_ALL in network order.
const ALL_PROTOCOLS: u32 = 0x0003_u16.to_be() as u32;

/// `struct tcmsg`: family, padding, interface, handle, parent, info.
const TCMSG: usize = 20;

/// A request's two headers.
#[derive(Debug, Clone, Copy)]
struct Head {
    kind: u16,
    flags: i32,
    ifindex: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

impl Head {
    /// Asks and waits for the kernel's answer.
    fn request(self, attributes: &[(u16, &[u8])]) -> io::Result<()> {
        let answers = self.exchange(libc::NLM_F_ACK, attributes)?;
        match answers.first() {
            Some(answer) => outcome(answer),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The messages that come back, up to the one that says how it ended.
    fn exchange(self, flags: i32, attributes: &[(u16, &[u8])]) -> io::Result<Vec<Vec<u8>>> {
        let mut request = vec![0; HEADER];
        request.extend_from_slice(&[0; 4]);
        for word in [self.ifindex, self.handle, self.parent, self.info] {
            request.extend_from_slice(&word.to_ne_bytes());
        }
        for (kind, value) in attributes {
            put(&mut request, *kind, value);
        }
        let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
        let flags = u16::try_from(libc::NLM_F_REQUEST | self.flags | flags).unwrap_or(0);
        request[..4].copy_from_slice(&length.to_ne_bytes());
        request[4..6].copy_from_slice(&self.kind.to_ne_bytes());
        request[6..8].copy_from_slice(&flags.to_ne_bytes());
        let socket = open()?;
        // SAFETY: a valid descriptor and buffer.
        let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut messages = Vec::new();
        loop {
            let mut answer = vec![0_u8; 64 * 1024];
            // SAFETY: a valid descriptor, a buffer of that length.
            let received =
                unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
            let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
            let mut rest = &answer[..received];
            while let Some(length) = u32_at(rest, 0) {
                let Some(message) = rest
                    .get(..length as usize)
                    .filter(|message| message.len() >= HEADER)
                else {
                    return Err(io::ErrorKind::InvalidData.into());
                };
                messages.push(message.to_vec());
                let kind = u16_at(message, 4).map_or(0, i32::from);
                if kind == libc::NLMSG_ERROR || kind == libc::NLMSG_DONE {
                    return Ok(messages);
                }
                rest = rest.get(message.len().next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// The filters in one of the two places of the discipline.
fn dump(ifindex: u32, parent: u32) -> io::Result<Vec<Vec<u8>>> {
    let head = Head {
        kind: libc::RTM_GETTFILTER,
        flags: 0,
        ifindex,
        handle: 0,
        parent,
        info: 0,
    };
    let mut messages = head.exchange(libc::NLM_F_DUMP, &[])?;
    if let Some(last) = messages.pop()
        && u16_at(&last, 4).map(i32::from) == Some(libc::NLMSG_ERROR)
    {
        gone(outcome(&last))?;
    }
    Ok(messages)
}

/// A filter as the kernel describes it; `None` when it runs no BPF program.
fn filter(message: &[u8]) -> Option<Filter> {
    let body = message.get(HEADER..)?;
    // A dump names each priority once more, without a handle and options.
    let options = attributes(body.get(TCMSG..)?)
        .find(|(kind, _)| *kind == TCA_OPTIONS)?
        .1;
    let id = attributes(options).find(|(kind, _)| *kind == TCA_BPF_ID)?.1;
    Some(Filter {
        program: u32_at(id, 0)?,
        handle: u32_at(body, 8)?,
        info: u32_at(body, 16)?,
    })
}

/// The error of an acknowledgement; 0 is none.
fn outcome(message: &[u8]) -> io::Result<()> {
    let code = u32_at(message, HEADER).ok_or(io::ErrorKind::UnexpectedEof)?;
    match code.cast_signed() {
        0 => Ok(()),
        negative => Err(io::Error::from_raw_os_error(negative.wrapping_neg())),
    }
}

/// What is not there needs no removing: the filter, the discipline, the device.
fn gone(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}
