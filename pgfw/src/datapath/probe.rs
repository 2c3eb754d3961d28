//! Asking a loaded policy about a packet that is not there (BPF_PROG_TEST_RUN).

use std::path::PathBuf;

use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use pgfw_common::reason::{Action, Reason};

use super::error::DatapathError;
use super::kernel::Kernel;
use super::load::PROBE;
use super::pins::Pins;
use super::tables;
use crate::policy::coverage::ServiceId;

/// What a policy says about one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Action,
    pub reason: Reason,
    /// The service whose port was addressed.
    pub service: Option<ServiceId>,
}

/// net/bpf/test_run.c: nothing shorter than an Ethernet header.
const SHORTEST: usize = 14;

/// A loaded policy that can be asked again and again.
#[derive(Debug)]
pub struct Probe {
    kernel: Kernel,
    program: Xdp,
    path: PathBuf,
}

impl Probe {
    pub(super) fn open(kernel: Kernel, pins: &Pins, generation: u64) -> Result<Probe, DatapathError> {
        let path = tables::existing(pins, generation)?.join(PROBE);
        let program = Xdp::from_pin(&path, XdpAttachType::Interface)
            .map_err(DatapathError::aya("open the pinned program probe"))?;
        Ok(Probe {
            kernel,
            program,
            path,
        })
    }

    /// What the policy says about a frame that comes in on `ifindex` (the loopback interface of the caller's network
    /// namespace when `None`). Changes nothing.
    ///
    /// # Errors
    /// A frame shorter than an Ethernet header.
    pub fn ask(&self, frame: &[u8], ifindex: Option<u32>) -> Result<Answer, DatapathError> {
        if frame.len() < SHORTEST {
            return Err(DatapathError::FrameTooShort { length: frame.len() });
        }
        // Where the kernel cannot be told, the frame arrives on `lo`, in the same namespace: of what is decided, only
        // whether a first fragment came in on the same interface depends on it.
        let ifindex = ifindex.filter(|_| self.kernel.test_on_interface);
        let context = ifindex.map(|ifindex| context(frame.len(), ifindex));
        let result = self
            .program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                ctx_in: context.as_ref().map(<[u8; 24]>::as_slice),
                ..TestRunOptions::default()
            })
            .map_err(DatapathError::aya("ask the policy about a frame"))?;
        let word = result.return_value;
        let [number, _, low, high] = word.to_le_bytes();
        let reason = Reason::from_number(number).ok_or_else(|| DatapathError::Damaged {
            path: self.path.clone(),
            what: format!("the probe answered {word:#x}"),
        })?;
        let service = u16::from_le_bytes([low, high]);
        Ok(Answer {
            verdict: reason.action(),
            reason,
            service: (service != 0).then_some(ServiceId(service)),
        })
    }
}

/// struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
pub(super) fn context(length: usize, ifindex: u32) -> [u8; 24] {
    let mut bytes = [0; 24];
    let end = u32::try_from(length).unwrap_or(u32::MAX);
    bytes[4..8].copy_from_slice(&end.to_ne_bytes());
    bytes[12..16].copy_from_slice(&ifindex.to_ne_bytes());
    bytes
}
