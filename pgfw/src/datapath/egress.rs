//! The way out of an interface: a TCX link, or a filter in `clsact` where the kernel has none.
//!
//! A link is pinned and holds itself. A filter cannot be pinned, so its *program* is, under the name that the link would
//! have: the pin says that pgfw stands there, the kernel's list of filters whether it still does. A second pin says that
//! the discipline was not there before, and goes with it.

use std::os::fd::AsFd;
use std::path::Path;

use aya::programs::SchedClassifier;
use aya_obj::generated::bpf_attach_type::BPF_TCX_EGRESS;

use super::attach::{live_link, pin};
use super::clsact;
use super::device::Device;
use super::error::DatapathError;
use super::kernel::Kernel;
use super::pins::{Direction, Pins, remove_pin};
use super::sys;

/// The filter's name, for `tc filter show`.
const NAME: &std::ffi::CStr = c"pgfw_egress";

/// The program that stands on the way out of `ifindex`, if pgfw's does.
pub(super) fn standing(pins: &Pins, ifindex: u32) -> Result<Option<u32>, DatapathError> {
    let path = pins.link(ifindex, Direction::Egress);
    let Some(program) = pinned_program(&path) else {
        return Ok(live_link(&path, ifindex)?.map(|link| link.program));
    };
    let filters = clsact::filters(ifindex).map_err(listing(ifindex))?;
    Ok(filters
        .iter()
        .any(|filter| filter.program == program)
        .then_some(program))
}

/// Attaches to the way out, in place of what an earlier one left.
pub(super) fn attach(
    kernel: Kernel,
    pins: &Pins,
    egress: &SchedClassifier,
    device: &Device,
    ifindex: u32,
) -> Result<(), DatapathError> {
    let path = pins.link(ifindex, Direction::Egress);
    remove_pin(&path)?;
    if kernel.tcx {
        link(egress, device, ifindex, &path)
    } else {
        filter(pins, egress, device, ifindex, &path)
    }
}

/// After what stands there already.
fn link(egress: &SchedClassifier, device: &Device, ifindex: u32, path: &Path) -> Result<(), DatapathError> {
    let action = || format!("attach to the way out of {}", device.name);
    let program = egress.fd().map_err(DatapathError::aya(action()))?.as_fd();
    let link =
        sys::create_link(program, ifindex, BPF_TCX_EGRESS, 0).map_err(DatapathError::call(action()))?;
    pin(link.as_fd(), path)
}

fn filter(
    pins: &Pins,
    egress: &SchedClassifier,
    device: &Device,
    ifindex: u32,
    path: &Path,
) -> Result<(), DatapathError> {
    let action = || format!("add a filter to the way out of {}", device.name);
    let program = egress.fd().map_err(DatapathError::aya(action()))?.as_fd();
    let id = sys::program_id(program).map_err(DatapathError::call(action()))?;
    let marker = pins.link(ifindex, Direction::Qdisc);
    let fresh =
        clsact::add_qdisc(ifindex).map_err(DatapathError::call(format!("add clsact to {}", device.name)))?;
    // What was ours and was deleted meanwhile may have come back as somebody else's.
    remove_file(&marker)?;
    if fresh {
        sys::pin(program, &marker).map_err(DatapathError::call(format!("pin {}", marker.display())))?;
    }
    // The pin first: a filter without one would be nobody's.
    sys::pin(program, path).map_err(DatapathError::call(format!("pin {}", path.display())))?;
    clsact::remove_filters(ifindex, id).map_err(listing(ifindex))?;
    if let Err(source) = clsact::add_filter(ifindex, program, NAME) {
        remove_pin(path)?;
        remove_pin(&marker)?;
        return Err(DatapathError::call(action())(source));
    }
    Ok(())
}

/// Takes off what a pinned program stands for, before its pin goes.
pub(super) fn release(direction: Direction, ifindex: u32, program: u32) -> Result<(), DatapathError> {
    match direction {
        Direction::Xdp => Ok(()),
        Direction::Egress => clsact::remove_filters(ifindex, program).map_err(listing(ifindex)),
        Direction::Qdisc => {
            clsact::remove_filters(ifindex, program).map_err(listing(ifindex))?;
            clsact::remove_empty_qdisc(ifindex).map_err(DatapathError::call(format!(
                "remove clsact from the interface with index {ifindex}"
            )))
        }
    }
}

/// The id of the program that is pinned there; `None` for a link, and for nothing.
fn pinned_program(path: &Path) -> Option<u32> {
    let object = sys::open(path).ok()?;
    if sys::link_info(object.as_fd()).is_ok() {
        return None;
    }
    sys::program_id(object.as_fd()).ok()
}

fn remove_file(path: &Path) -> Result<(), DatapathError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DatapathError::call(format!(
            "remove the pin {}",
            path.display()
        ))(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn listing(ifindex: u32) -> impl FnOnce(std::io::Error) -> DatapathError {
    DatapathError::call(format!(
        "look at the filters of the interface with index {ifindex}"
    ))
}
