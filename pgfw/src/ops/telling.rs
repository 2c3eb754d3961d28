//! A program on this host is told that the certificate kept for it is new: its unit is reloaded, or restarted where it cannot
//! be, by systemd and so outside of the daemon's own sandbox.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Engine;
use super::renewal::{LOOK_NS, RETRY_NS};
use crate::clock::{BootTime, Now};
use crate::config::Identity;
use crate::failure::Failure;
use crate::pki;

/// A unit may take its time to reload; nobody waits for it but the next attempt.
const LONGEST: Duration = Duration::from_secs(90);
/// What is shown of what systemctl says.
const SAID: usize = 300;

/// Units that are still to be told, by identity.
#[derive(Debug, Default)]
pub(super) struct Tellings {
    waiting: BTreeMap<String, Telling>,
    /// Whoever tells holds one more of it.
    busy: Arc<()>,
}

#[derive(Debug, Clone)]
struct Telling {
    unit: String,
    folder: PathBuf,
    serial: String,
    /// When to try again, how often in a row it was in vain, and why.
    failed: Option<(BootTime, u32, Failure)>,
}

/// What is to be told now.
#[derive(Debug)]
pub struct TellingWork {
    tellings: Vec<(String, Telling)>,
    busy: Arc<()>,
}

/// What became of it.
#[derive(Debug)]
pub struct EndedTellings {
    /// `false`: it was told, and something has changed since.
    results: Vec<(String, Telling, Result<bool, Failure>)>,
    busy: Arc<()>,
}

impl TellingWork {
    /// Blocks for as long as the units take. Holds neither engine nor lock.
    pub fn run(self) -> EndedTellings {
        let TellingWork { tellings, busy } = self;
        let told = tellings.into_iter().map(|(name, telling)| {
            let before = pki::kept_files(&telling.folder);
            let done = reload(&telling.unit);
            // What became new meanwhile the unit may not have read: it is told again.
            let read = done.is_err() || pki::kept_files(&telling.folder) == before;
            (name, telling, done.map(|()| read))
        });
        EndedTellings {
            results: told.collect(),
            busy,
        }
    }
}

impl Engine {
    /// After a look at what is kept for this identity: whether its unit knows of it.
    pub(super) fn note_telling(&mut self, identity: &Identity, serial: &str, folder: PathBuf) {
        let waiting = &mut self.tellings.waiting;
        let Some(unit) = identity.reload_unit.clone().filter(|_| !pki::is_told(&folder)) else {
            waiting.remove(&identity.name);
            return;
        };
        let same = |t: &Telling| (t.unit.as_str(), t.serial.as_str()) == (unit.as_str(), serial);
        if !waiting.get(&identity.name).is_some_and(same) {
            let telling = Telling {
                unit,
                folder,
                serial: serial.to_owned(),
                failed: None,
            };
            waiting.insert(identity.name.clone(), telling);
        }
    }

    /// Those that are to be told now, for whoever can wait for them, and when to look again.
    ///
    /// # Errors
    /// Neither the policy that runs nor pgfw.toml can be read.
    pub(super) fn tellings(&mut self) -> Result<(Option<BootTime>, Option<TellingWork>), Failure> {
        if self.tellings.waiting.is_empty() {
            return Ok((None, None));
        }
        let config = self.reach()?.config;
        let Tellings { waiting, busy } = &mut self.tellings;
        waiting.retain(|name, _| config.identity(name).is_some_and(|i| i.reload_unit.is_some()));
        let now = Now::read().boot;
        let later = |t: &Telling| t.failed.as_ref().map(|(at, ..)| *at).filter(|at| now < *at);
        // Whoever is at it tells when it is done.
        if Arc::strong_count(busy) > 1 {
            return Ok((None, None));
        }
        let due = waiting.iter().filter(|(_, t)| later(t).is_none());
        let due: Vec<_> = due.map(|(name, t)| (name.clone(), t.clone())).collect();
        let next = waiting.values().filter_map(later).min();
        let work = (!due.is_empty()).then(|| TellingWork {
            tellings: due,
            busy: Arc::clone(busy),
        });
        Ok((next, work))
    }

    /// Notes what was told, and when what failed is tried again.
    pub fn settle_tellings(&mut self, ended: EndedTellings) {
        let EndedTellings { results, busy } = ended;
        for (name, telling, result) in results {
            let Telling {
                unit,
                folder,
                serial,
                failed,
            } = telling;
            let noted = result.and_then(|read| {
                if read {
                    pki::note_told(&folder, &serial)?;
                }
                Ok(read)
            });
            match noted {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(name, serial, unit, "told that its certificate is new");
                    // Another may have become due meanwhile.
                    self.tellings
                        .waiting
                        .retain(|n, t| *n != name || t.serial != serial);
                }
                Err(failure) => {
                    let times = failed.as_ref().map_or(0, |(_, times, _)| *times);
                    if failed.as_ref().map(|(.., former)| former) != Some(&failure) {
                        tracing::error!(name, unit, "not told that its certificate is new: {failure}");
                    }
                    let pause = (RETRY_NS << times.min(6)).min(LOOK_NS);
                    let again = BootTime(Now::read().boot.0.saturating_add(pause));
                    if let Some(waiting) = self.tellings.waiting.get_mut(&name) {
                        waiting.failed = Some((again, times + 1, failure));
                    }
                }
            }
        }
        drop(busy);
    }

    /// For `status`.
    pub(super) fn telling_alarms(&self) -> Vec<String> {
        let failed = self.tellings.waiting.iter().filter_map(|(name, telling)| {
            let (_, _, Failure { message, remedy, .. }) = telling.failed.as_ref()?;
            Some(format!(
                "{} does not know that the certificate kept for {name} is new: {message}. {remedy}",
                telling.unit
            ))
        });
        failed.collect()
    }
}

/// `systemctl try-reload-or-restart`, which does nothing where the unit is not running.
fn reload(unit: &str) -> Result<(), Failure> {
    let failed = |what: String| {
        Failure::refused(
            what,
            format!("It is tried again; by hand: `systemctl try-reload-or-restart {unit}`."),
        )
    };
    let mut command = Command::new("systemctl");
    command.args(["--no-ask-password", "try-reload-or-restart", "--", unit]);
    // Nothing of this daemon's, such as the folder of its credentials.
    command
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| failed(format!("systemctl cannot be run: {error}")))?;
    let (said, in_time) = match child.stderr.take() {
        Some(mut stderr) => until_closed(&mut stderr),
        None => (Vec::new(), true),
    };
    if !in_time {
        let _ = child.kill();
    }
    let status = child
        .wait()
        .map_err(|error| failed(format!("systemctl cannot be waited for: {error}")))?;
    if !in_time {
        return Err(failed(format!(
            "systemctl took longer than {} s",
            LONGEST.as_secs()
        )));
    }
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    let said = said
        .lines()
        .next()
        .unwrap_or_default()
        .trim()
        .trim_end_matches('.');
    let why = if said.is_empty() {
        status.to_string()
    } else {
        said.to_owned()
    };
    Err(failed(format!("systemctl says: {why}")))
}

/// What it says on standard error, until it ends or takes too long; and whether it ended.
fn until_closed(stderr: &mut (impl Read + AsFd)) -> (Vec<u8>, bool) {
    let latest = Instant::now() + LONGEST;
    let mut said = Vec::new();
    loop {
        let left = latest.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut watched = [PollFd::new(stderr.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, timeout) {
            Ok(0) => return (said, false),
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) | Err(_) => {}
        }
        let mut bytes = [0; 512];
        match stderr.read(&mut bytes) {
            Ok(0) | Err(_) => return (said, true),
            Ok(length) => {
                let room = SAID.saturating_sub(said.len()).min(length);
                said.extend_from_slice(&bytes[..room]);
            }
        }
    }
}
