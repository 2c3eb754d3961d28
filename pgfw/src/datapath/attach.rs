//! Attaching the entry programs to interfaces, and finding out what stands.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::programs::links::FdLink;
use aya::programs::{ProgramError, Xdp, loaded_programs};
use aya_obj::generated::bpf_attach_type::BPF_XDP;
use aya_obj::generated::{XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};

use super::counters;
use super::device::{self, ARPHRD_ETHER, ARPHRD_LOOPBACK, Device, Mode};
use super::egress;
use super::error::{DatapathError, ForeignProgram};
use super::kernel::Kernel;
use super::load::Fixed;
use super::pins::{Direction, Pins, remove_pin, remove_tree};
use super::sys::{self, LinkInfo};
use crate::config::Attach;
use crate::fault::{Step, step};

/// One interface with a link of pgfw's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    pub ifindex: u32,
    /// `None` when it is gone, or in another namespace.
    pub name: Option<String>,
    /// How the program runs; `None` when it does not.
    pub mode: Option<Mode>,
    /// What there is to know about that mode there.
    pub about: Option<&'static str>,
    /// The id of the program on the way in.
    pub program: u32,
    /// Both ways hold, by programs of this ABI: packets are judged by what pgfw says, and what leaves is noted.
    pub alive: bool,
}

/// A packet that fits leaves room in its page for what XDP and the stack put before and behind it; drivers differ by a
/// few bytes (veth 3520, ena 3498).
const ONE_PAGE: u32 = 3_498;

/// Attaches both entry programs, or adopts the links that are there.
pub(super) fn attach(
    kernel: Kernel,
    pins: &Pins,
    fixed: &mut Fixed,
    ifindex: u32,
    wanted: Attach,
) -> Result<Attached, DatapathError> {
    let device = ethernet(ifindex)?;
    counters::number_interface(pins, ifindex)?;
    let path = pins.link(ifindex, Direction::Xdp);
    let ours = id(fixed.entry.fd())?;
    match live_link(&path, ifindex)? {
        Some(link) if link.program == ours => {}
        // An entry of another ABI: replaced through its link, without a moment between.
        Some(_) => replace_xdp(&mut fixed.entry, &path)?,
        None => attach_xdp(kernel, &fixed.entry, &device, ifindex, wanted, &path)?,
    }
    step(Step::AttachedIn);
    let ours = id(fixed.egress.fd())?;
    let way_out = match egress::standing(pins, ifindex)? {
        Some(program) if program == ours => Ok(()),
        Some(_) | None => egress::attach(kernel, pins, &fixed.egress, &device, ifindex),
    };
    if let Err(error) = way_out {
        // Half an attachment would drop the answers to everything this host asks over UDP.
        remove_pin(&pins.link(ifindex, Direction::Xdp))?;
        return Err(error);
    }
    describe(pins, fixed, ifindex)
}

/// What [`attach`] would find in its way, without attaching.
pub(super) fn attachable(pins: &Pins, ifindex: u32) -> Result<(), DatapathError> {
    let device = ethernet(ifindex)?;
    let ours = live_link(&pins.link(ifindex, Direction::Xdp), ifindex)?;
    match (device.xdp, ours) {
        (Some(attachment), None) => Err(foreign(&device, attachment.program)),
        (Some(_), Some(_)) | (None, _) => Ok(()),
    }
}

/// An interface whose frames have an Ethernet header.
fn ethernet(ifindex: u32) -> Result<Device, DatapathError> {
    let device = query(ifindex)?.ok_or(DatapathError::NoInterface { ifindex })?;
    match device.link_type {
        ARPHRD_ETHER => Ok(device),
        ARPHRD_LOOPBACK => Err(DatapathError::Loopback {
            interface: device.name,
        }),
        kind => Err(DatapathError::LinkType {
            interface: device.name,
            kind,
        }),
    }
}

/// Takes everything off.
pub(super) fn detach(pins: &Pins, ifindex: u32) -> Result<(), DatapathError> {
    remove_pin(&pins.link(ifindex, Direction::Xdp))?;
    remove_pin(&pins.link(ifindex, Direction::Egress))?;
    remove_pin(&pins.link(ifindex, Direction::Qdisc))
}

/// Removes what programs of another ABI left, once none of them stands on an interface: a program that still does would
/// find its slots empty, and drop everything.
pub(super) fn forget_other_abis(pins: &Pins, fixed: &Fixed) -> Result<(), DatapathError> {
    let others = pins
        .other_abis()
        .map_err(DatapathError::call(format!("read {}", pins.root().display())))?;
    if others.is_empty() {
        return Ok(());
    }
    let (entry, egress) = (id(fixed.entry.fd())?, id(fixed.egress.fd())?);
    for attached in attached(pins, fixed)? {
        let way_out = egress::standing(pins, attached.ifindex)?;
        if ![0, entry].contains(&attached.program) || way_out.is_some_and(|program| program != egress) {
            return Ok(());
        }
    }
    for folder in others {
        remove_tree(&folder, &mut 0)?;
    }
    Ok(())
}

/// Every interface with a link of ours.
pub(super) fn attached(pins: &Pins, fixed: &Fixed) -> Result<Vec<Attached>, DatapathError> {
    pins.linked()
        .map_err(DatapathError::call(format!("read {}", pins.links().display())))?
        .into_iter()
        .map(|ifindex| describe(pins, fixed, ifindex))
        .collect()
}

fn describe(pins: &Pins, fixed: &Fixed, ifindex: u32) -> Result<Attached, DatapathError> {
    let xdp = live_link(&pins.link(ifindex, Direction::Xdp), ifindex)?;
    let egress = egress::standing(pins, ifindex)?;
    let device = query(ifindex)?;
    let program = xdp.map_or(0, |link| link.program);
    // The device must say the same as the link, which also finds out a link that has moved to another namespace.
    let attachment = device
        .as_ref()
        .and_then(|device| device.xdp)
        .filter(|attachment| attachment.program == program);
    Ok(Attached {
        ifindex,
        about: about(device.as_ref(), attachment.map(|attachment| attachment.mode)),
        name: device.map(|device| device.name),
        mode: attachment.map(|attachment| attachment.mode),
        program,
        alive: attachment.is_some()
            && program == id(fixed.entry.fd())?
            && egress == Some(id(fixed.egress.fd())?),
    })
}

fn attach_xdp(
    kernel: Kernel,
    entry: &Xdp,
    device: &Device,
    ifindex: u32,
    wanted: Attach,
    path: &Path,
) -> Result<(), DatapathError> {
    if let Some(attachment) = device.xdp
        && (attachment.program != id(entry.fd())? || !goes_away(ifindex)?)
    {
        return Err(foreign(device, attachment.program));
    }
    let attempts: &[u32] = match wanted {
        Attach::Generic => &[XDP_FLAGS_SKB_MODE],
        Attach::Native => &[XDP_FLAGS_DRV_MODE],
        // Native on veth turns off what makes large TCP packets cheap there: slower than generic.
        Attach::Auto if device.kind.as_deref() == Some("veth") => &[XDP_FLAGS_SKB_MODE],
        Attach::Auto => &[XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE],
    };
    let mut last = None;
    for mode in attempts {
        match link_xdp(entry, device, ifindex, *mode) {
            Ok(link) => return pin(link.as_fd(), path),
            Err(DatapathError::Attach { source, .. }) => last = Some(source),
            Err(error) => return Err(error),
        }
    }
    let source = last.unwrap_or_else(|| io::ErrorKind::Unsupported.into());
    // Someone may have come in between.
    if let Some(attachment) = query(ifindex)?.and_then(|device| device.xdp) {
        return Err(foreign(device, attachment.program));
    }
    let (interface, mtu) = (device.name.clone(), device.mtu);
    Err(match wanted {
        Attach::Native if !kernel.multi_buffer && mtu > ONE_PAGE => {
            DatapathError::LargeMtu { interface, mtu }
        }
        Attach::Native => DatapathError::Native {
            interface,
            mtu,
            source,
        },
        Attach::Auto | Attach::Generic => DatapathError::Attach {
            interface,
            mtu,
            source,
        },
    })
}

/// Why `auto` takes a mode, and what it costs there.
fn about(device: Option<&Device>, mode: Option<Mode>) -> Option<&'static str> {
    let kind = device.and_then(|device| device.kind.as_deref());
    match (mode?, kind) {
        (Mode::Generic, Some("veth")) => Some("native mode slows large TCP packets on a veth"),
        (Mode::Generic, Some(_) | None) => {
            Some("after a socket buffer is made; the driver takes no native program, or was not asked")
        }
        (Mode::Native, Some("veth")) => Some("in the driver, which slows large TCP packets on a veth"),
        (Mode::Native, Some(_) | None) => {
            Some("in the driver; large receive offloads may be off (ethtool -k)")
        }
        (Mode::Offloaded, Some(_) | None) => None,
    }
}

/// Whether the attachment of a link of our own that has lost its pin ends: the kernel ends it from a queue, some
/// milliseconds later (kernel/bpf/syscall.c, `bpf_link_put`).
fn goes_away(ifindex: u32) -> Result<bool, DatapathError> {
    for _ in 0..100 {
        if query(ifindex)?.is_none_or(|device| device.xdp.is_none()) {
            return Ok(true);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Ok(false)
}

/// By bpf(2) itself: on EINVAL aya's own attaching falls back to netlink, whose attachment cannot be pinned, stays when it
/// is dropped, and is anybody's to replace.
fn link_xdp(entry: &Xdp, device: &Device, ifindex: u32, mode: u32) -> Result<OwnedFd, DatapathError> {
    let program = entry.fd().map_err(DatapathError::aya("use the entry program"))?;
    sys::create_link(program.as_fd(), ifindex, BPF_XDP, mode).map_err(|source| DatapathError::Attach {
        interface: device.name.clone(),
        mtu: device.mtu,
        source,
    })
}

fn replace_xdp(entry: &mut Xdp, path: &Path) -> Result<(), DatapathError> {
    let action = || format!("replace the program behind {}", path.display());
    let pinned = aya::programs::links::PinnedLink::from_pin(path).map_err(DatapathError::aya(action()))?;
    let link = FdLink::from(pinned)
        .try_into()
        .map_err(DatapathError::aya(action()))?;
    let id = entry.attach_to_link(link).map_err(DatapathError::aya(action()))?;
    // The pin keeps it; this handle may go.
    let link = entry.take_link(id).map_err(DatapathError::aya(action()))?;
    FdLink::try_from(link)
        .map_err(DatapathError::aya(action()))
        .map(drop)
}

/// Pins a new link. What is pinned there already is the link of a device that went and left its index to this one.
pub(super) fn pin(link: BorrowedFd<'_>, path: &Path) -> Result<(), DatapathError> {
    remove_pin(path)?;
    sys::pin(link, path).map_err(DatapathError::call(format!("pin the link at {}", path.display())))
}

/// The link pinned there, if it still holds `ifindex`.
pub(super) fn live_link(path: &Path, ifindex: u32) -> Result<Option<LinkInfo>, DatapathError> {
    let link = match sys::open(path) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(DatapathError::call(format!(
                "open the link pinned at {}",
                path.display()
            ))(error));
        }
    };
    let info = sys::link_info(link.as_fd()).map_err(DatapathError::call(format!(
        "ask about the link pinned at {}",
        path.display()
    )))?;
    Ok((info.ifindex == ifindex).then_some(info))
}

fn foreign(device: &Device, program: u32) -> DatapathError {
    // Looking at others' programs takes CAP_SYS_ADMIN; the id is known without.
    let name = loaded_programs()
        .flatten()
        .find(|info| info.id() == program)
        .and_then(|info| info.name_as_str().map(str::to_owned));
    DatapathError::Foreign {
        interface: device.name.clone(),
        program: ForeignProgram { id: program, name },
    }
}

fn query(ifindex: u32) -> Result<Option<Device>, DatapathError> {
    device::query(ifindex).map_err(DatapathError::call(format!(
        "ask about the interface with index {ifindex}"
    )))
}

fn id(fd: Result<&aya::programs::ProgramFd, ProgramError>) -> Result<u32, DatapathError> {
    let fd = fd.map_err(DatapathError::aya("use the entry program"))?;
    sys::program_id(fd.as_fd()).map_err(DatapathError::call("ask about the entry program"))
}
