//! What an apply has begun and not finished: a note beside the generations, written before the first change and gone with
//! the last. Whoever finds one knows how to take everything back, whatever has become of pgfw.toml since.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::stage::{Generations, sync};
use super::switch::Undo;
use super::{PostgresError, Server};
use crate::clock::{self, BootTime, Now, WallTime};
use crate::paths::Paths;

/// An apply that is under way, was cut off, or waits for its confirmation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pending {
    /// Whose files they are, so that they are put back and the server told with no other file to read.
    pub(super) server: Server,
    /// The one that was put in force.
    pub(super) generation: u32,
    /// The one that was in force before.
    pub(super) good: Option<u32>,
    pub(super) undo: Vec<Undo>,
    /// It is to be confirmed.
    pub(super) trial: Option<Trial>,
}

/// Until when a change stands that nobody has confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trial {
    boot_id: String,
    pub(super) deadline: BootTime,
    pub(super) until: WallTime,
    /// The server was seen to go by it, or is down. Before that there is nothing to confirm.
    pub(super) proven: bool,
}

/// A cluster whose rules wait for their confirmation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnTrial {
    pub cluster: String,
    pub generation: u32,
    /// When it undoes itself.
    pub until: WallTime,
}

/// What is to be done about a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Cut off in the middle.
    CutOff,
    Waits,
    /// The deadline has passed, on this boot's clock or with another boot.
    Overdue,
}

impl Trial {
    /// One that ends in `time` from now.
    ///
    /// # Errors
    /// Without /proc.
    pub(super) fn of(time: Duration) -> Result<Trial, PostgresError> {
        let now = Now::read();
        let boot_id = clock::boot_id().map_err(PostgresError::file(
            "cannot read",
            Path::new("/proc/sys/kernel/random/boot_id"),
        ))?;
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Ok(Trial {
            boot_id,
            deadline: BootTime(now.boot.0.saturating_add(nanoseconds)),
            until: WallTime(
                now.wall()
                    .0
                    .saturating_add(i64::try_from(time.as_secs()).unwrap_or(i64::MAX)),
            ),
            proven: false,
        })
    }
}

impl Pending {
    /// The note of this cluster, if there is one.
    ///
    /// # Errors
    /// One that cannot be read.
    pub(super) fn read(folder: &Path) -> Result<Option<Pending>, PostgresError> {
        let path = folder.join(NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(PostgresError::file("cannot read", &path)(e)),
        };
        let note = serde_json::from_slice(&text).map_err(io::Error::other);
        note.map(Some)
            .map_err(PostgresError::file("cannot understand", &path))
    }

    /// Writes the note, on disk when this returns. It quotes a postgresql.conf, so it is root's alone.
    ///
    /// # Errors
    /// I/O; a former note stands.
    pub(super) fn write(&self, generations: &Generations) -> Result<(), PostgresError> {
        let path = generations.folder().join(NAME);
        let fresh = generations.folder().join("pending.pgfw-new");
        let written = || {
            match fs::remove_file(&fresh) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            sync(generations.folder())
        };
        written().map_err(PostgresError::file("cannot write", &path))
    }

    /// It is over.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn forget(generations: &Generations) -> Result<(), PostgresError> {
        let path = generations.folder().join(NAME);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(PostgresError::file("cannot remove", &path)(e)),
            Ok(()) => sync(generations.folder()).map_err(PostgresError::file("cannot remove", &path)),
        }
    }

    pub(super) fn state(&self, now: &Now) -> State {
        match &self.trial {
            Some(trial) if trial.proven => {
                let this_boot = clock::boot_id().is_ok_and(|id| id == trial.boot_id);
                if this_boot && now.boot < trial.deadline {
                    State::Waits
                } else {
                    State::Overdue
                }
            }
            Some(_) | None => State::CutOff,
        }
    }

    pub(super) fn on_trial(&self) -> Option<OnTrial> {
        let trial = self.trial.as_ref().filter(|trial| trial.proven)?;
        Some(OnTrial {
            cluster: self.server.name.clone(),
            generation: self.generation,
            until: trial.until,
        })
    }
}

/// Names of clusters that an apply has left something to do for.
pub fn unfinished(paths: &Paths) -> Vec<String> {
    let folders = fs::read_dir(paths.state_dir.join("postgres"));
    let folders = folders.into_iter().flatten().flatten();
    let mut names: Vec<String> = folders
        .filter(|folder| folder.path().join(NAME).exists())
        .filter_map(|folder| folder.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// When to look at a cluster's note; `None`: at once, since it was cut off or is overdue. No note: nothing.
pub fn due(paths: &Paths, cluster: &str) -> Option<Option<BootTime>> {
    let note = Pending::read(&paths.postgres(cluster)).ok()??;
    Some(match note.state(&Now::read()) {
        State::Waits => note.trial.map(|trial| trial.deadline),
        State::CutOff | State::Overdue => None,
    })
}

/// The clusters whose rules wait for their confirmation.
pub fn on_trial(paths: &Paths) -> Vec<OnTrial> {
    let notes = unfinished(paths)
        .into_iter()
        .filter_map(|name| Pending::read(&paths.postgres(&name)).ok()?);
    notes.filter_map(|note| note.on_trial()).collect()
}

/// Where a cluster's note is.
pub fn note_of(paths: &Paths, cluster: &str) -> PathBuf {
    paths.postgres(cluster).join(NAME)
}

const NAME: &str = "pending.json";
