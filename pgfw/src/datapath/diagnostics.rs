//! Developer diagnostics (feature `log`): what a policy's programs say through aya-log, written to the journal at
//! level debug. The product's own events are records of pgfw-common.

use std::os::fd::AsFd;

use aya::programs::Xdp;
use aya_log::EbpfLogger;
use aya_obj::programs::XdpAttachType;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::load::POLICY;
use super::{Datapath, DatapathError};

impl Datapath {
    /// Starts a thread that writes down what the programs of a generation say, until its pins are gone.
    ///
    /// # Errors
    /// A generation that is not loaded, or whose object was built without the feature.
    pub fn follow_diagnostics(&self, generation: u64) -> Result<(), DatapathError> {
        let pin = self.pins.generation(generation).join(POLICY);
        let program = Xdp::from_pin(&pin, XdpAttachType::Interface)
            .map_err(DatapathError::aya("open the pinned program policy"))?;
        let id = program
            .info()
            .map_err(DatapathError::aya("describe the program policy"))?
            .id();
        let mut logger = match EbpfLogger::init_from_id(id) {
            Ok(logger) => logger,
            Err(error) => {
                tracing::warn!(generation, %error, "the programs say nothing");
                return Ok(());
            }
        };
        let follow = move || {
            while pin.exists() {
                let mut ready = [PollFd::new(logger.as_fd(), PollFlags::POLLIN)];
                if poll(&mut ready, PollTimeout::from(1000_u16)).is_ok_and(|n| n > 0) {
                    logger.flush();
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("bpf-log".into()).spawn(follow) {
            tracing::warn!(%error, "the programs' diagnostics are not read");
        }
        Ok(())
    }
}
