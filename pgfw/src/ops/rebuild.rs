//! Pins that somebody deleted: what stands on them is made anew.

use super::Engine;
use super::start::Started;
use crate::datapath::{Datapath, DatapathError};
use crate::failure::Failure;

impl Engine {
    /// Opens what is pinned. What is damaged there is removed first: it can be neither adopted nor changed.
    pub(super) fn open_datapath(&mut self) -> Result<(), Failure> {
        match usable(&self.paths.bpffs) {
            Ok(datapath) => self.datapath = Some(datapath),
            Err(error) => self.clear_damage(error)?,
        }
        Ok(())
    }

    /// Whether somebody takes all of it away, or has: `pgfw off`, where this daemon does not answer.
    ///
    /// # Errors
    /// A pin folder that cannot be read.
    pub(super) fn is_taken_off(&mut self) -> Result<bool, Failure> {
        if self.datapath.is_none() || Datapath::owner(&self.paths.bpffs)?.is_some() {
            return Ok(false);
        }
        if !Datapath::exists(&self.paths.bpffs) {
            tracing::warn!("pgfw is off: nothing is pinned any more");
            (self.datapath, self.held) = (None, None);
        }
        Ok(true)
    }

    /// Makes the policy anew where pins of it are gone. True when there was need.
    ///
    /// # Errors
    /// What cannot be made.
    pub(super) fn rebuild(&mut self) -> Result<bool, Failure> {
        let Some(datapath) = &self.datapath else {
            return Ok(false);
        };
        let error = match sound(datapath) {
            Ok(()) => return Ok(false),
            Err(error) => error,
        };
        self.clear_damage(error)?;
        let started = match self.ledger.confirmed()? {
            Some(confirmed) => {
                let settled = self.settle();
                let started = self
                    .start_confirmed(confirmed.number)
                    .or_else(|why| self.start_rescue(why))?;
                settled?;
                started
            }
            None => match self.rescue.clone() {
                Some(rescue) => self.start_rescue(rescue.why)?,
                // A first policy that was not confirmed is gone, and every packet passes: as after its deadline.
                None => return self.settle().map(|_| true),
            },
        };
        tracing::warn!(policy = ?generation(&started), "made anew in the kernel");
        Ok(true)
    }

    /// For as long as it takes to load a policy, every packet passes: there is nothing left that could judge.
    fn clear_damage(&mut self, error: DatapathError) -> Result<(), Failure> {
        if !error.is_damage() {
            return Err(error.into());
        }
        tracing::error!("{error}; all of it is made anew");
        self.datapath = None;
        self.held = None;
        Datapath::off(&self.paths.bpffs)?;
        self.held = Some(Datapath::claim(&self.paths.bpffs, &self.owner)?);
        self.datapath = Some(Datapath::open(&self.paths.bpffs)?);
        Ok(())
    }
}

fn usable(pins: &std::path::Path) -> Result<Datapath, DatapathError> {
    let datapath = Datapath::open(pins)?;
    sound(&datapath)?;
    Ok(datapath)
}

/// Whether every pin is there that a policy in force needs.
fn sound(datapath: &Datapath) -> Result<(), DatapathError> {
    datapath.complete()
}

fn generation(started: &Started) -> Option<u64> {
    match started {
        Started::Adopted { generation } | Started::Loaded { generation } => Some(*generation),
        Started::Probation {
            generation,
            seconds: _,
        } => Some(*generation),
        Started::Rescued { kept } => *kept,
    }
}
