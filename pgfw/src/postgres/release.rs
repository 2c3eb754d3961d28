//! `pgfw pg release`: gives a cluster back, so that nothing the server reads is pgfw's any more; or everything stays.
//!
//! That the former rules count is proven by tying a marker to them first: that pgfw's own marker went would prove
//! nothing, since a reload takes each file by itself, and without its map the old rules answer to none.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::beforehand::not_by_its_last_start;
use super::giving::{Taken, Undo, changed_by_others, mend, tidy};
use super::kept::Kept;
use super::sql::Sql;
use super::stage::Generations;
use super::switch::Live;
use super::{PostgresError, Running, Server, apply, hba, prove, reload};
use crate::clock::WallTime;
use crate::config::{Cluster, Manage};
use crate::paths::Paths;

/// What the live names hold afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// What they held before pgfw took them.
    Former,
    /// What pgfw wrote last, so that logins go on.
    Written,
}

/// What a release did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    pub cluster: String,
    /// Nothing of pgfw's was there.
    pub unchanged: bool,
    /// In order.
    pub steps: Vec<Given>,
    /// Settings that count from the server's next restart.
    pub pending_restart: Vec<String>,
    /// Names that somebody else changed since pgfw took them: they are as they were found.
    pub left: Vec<PathBuf>,
    /// What the server itself finds wrong in its files now.
    pub complaints: Vec<String>,
    /// When the CRLs that were left lapse (RFC 3339): from then on the server refuses every certificate.
    pub crls_lapse: Option<String>,
}

/// One step of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Given {
    /// The name holds what it held before pgfw.
    Former { path: PathBuf },
    /// The name was not there before pgfw, and is not any more.
    Removed { path: PathBuf },
    /// The name is a file of its own that holds what pgfw wrote last.
    Written { path: PathBuf },
    /// The include of pgfw's settings is out of this file.
    NotIncluded { file: PathBuf },
    /// Certificate, key, authority and CRLs lie here now.
    Material { directory: PathBuf },
    /// The server was told.
    Reloaded { pid: i32 },
    /// The server takes the former rules: it answered by them and a marker.
    Taken,
    /// The server goes by these files.
    Proven,
    /// The server is down: the files count at its next start.
    AtNextStart,
}

/// Gives one cluster back. Blocks, also for a server that does not answer; the caller holds the cluster's lock, and no
/// other. What an earlier call left half done is finished.
///
/// # Errors
/// [`PostgresError`]; the live files are then pgfw's as before, unless it says otherwise.
pub fn release(cluster: &Cluster, paths: &Paths, leave: Leave) -> Result<Released, PostgresError> {
    let generations = Generations::at(&paths.postgres(&cluster.name))?;
    let mut released = Released {
        cluster: cluster.name.clone(),
        unchanged: false,
        steps: Vec::new(),
        pending_restart: Vec::new(),
        left: Vec::new(),
        complaints: Vec::new(),
        crls_lapse: None,
    };
    let server = match Server::find(cluster) {
        // postgresql.conf includes what is gone: the server could not start either, and its program answers nothing.
        Err(PostgresError::Settings { .. })
            if leave == Leave::Former && mend(cluster, &generations, &mut released.steps)? =>
        {
            Server::find(cluster)?
        }
        found => found?,
    };
    if cluster.manage != Manage::Render && server.running().is_none() {
        not_by_its_last_start(&server)?;
    }
    let live = Live::of(&server, &generations)?;
    let taken = Taken::of(&live, leave)?;
    released.left = changed_by_others(&live);
    let interrupted = cluster.manage != Manage::Render && generations.current().is_some();
    if taken.is_none() && released.steps.is_empty() && !interrupted {
        released.unchanged = true;
        return Ok(released);
    }
    let mut work = Work {
        server: &server,
        undo: Vec::new(),
        steps: std::mem::take(&mut released.steps),
    };
    let done = match leave {
        Leave::Former => {
            taken.check_former()?;
            work.give_former(taken, &live)
        }
        Leave::Written if taken.is_none() => work.prove_kept(&live),
        Leave::Written => {
            let crl_dir = generations.current_link().with_file_name("crl");
            let kept = Kept::of(&server, &generations, &crl_dir)?;
            kept.write(&server.owner)?;
            work.steps.push(Given::Material {
                directory: kept.directory.clone(),
            });
            released.crls_lapse = kept.lapses().map(WallTime::rfc3339);
            work.give_written(taken, &kept).and_then(|()| {
                // No lock keeps certificates from being revoked while the server is waited for.
                kept.follow_lists(&server.owner, &crl_dir).map_err(Cause::Error)
            })
        }
    };
    let Work { undo, steps, .. } = work;
    if let Err(cause) = done {
        return Err(put_back(&server, undo, cause));
    }
    released.steps = steps;
    // Nothing leads there any more, and keys lie there.
    generations.forget()?;
    if leave == Leave::Former {
        tidy(&live, &server);
    }
    if let Some(running) = server.running() {
        look_after(&server, &running, &mut released);
    }
    Ok(released)
}

/// Why a release has to be taken back.
enum Cause {
    Error(PostgresError),
    /// The server did not take it.
    NotTaken(String),
}

impl From<PostgresError> for Cause {
    fn from(error: PostgresError) -> Cause {
        Cause::Error(error)
    }
}

struct Work<'a> {
    server: &'a Server,
    undo: Vec<Undo>,
    steps: Vec<Given>,
}

impl Work<'_> {
    /// First the former rules with a marker, under pgfw's settings: when the server answers by it, it took them. Then
    /// the former files themselves, which hold the same but for the marker.
    fn give_former(&mut self, mut taken: Taken, live: &Live) -> Result<(), Cause> {
        let Some(running) = self.server.running() else {
            taken.put_former(self.server, &mut self.undo, &mut self.steps)?;
            self.steps.push(Given::AtNextStart);
            return Ok(());
        };
        let marker = taken.put_marked(live, self.server, &mut self.undo)?;
        self.reload_and_await(&running, &marker)?;
        self.steps.push(Given::Taken);

        taken.put_former(self.server, &mut self.undo, &mut self.steps)?;
        let before = prove::load_time(self.server, &running);
        self.reload(&running)?;
        prove::await_gone(self.server, &running, &marker, before.as_deref())
            .map_err(|message| self.not_taken(&running, message))?;
        self.steps.push(Given::Proven);
        Ok(())
    }

    fn give_written(&mut self, taken: Taken, kept: &Kept) -> Result<(), Cause> {
        taken.put_kept(self.server, kept, &mut self.undo, &mut self.steps)?;
        let Some(running) = self.server.running() else {
            self.steps.push(Given::AtNextStart);
            return Ok(());
        };
        self.reload_and_await(&running, &kept.marker)?;
        prove::served(&running, &kept.material).map_err(|message| self.not_taken(&running, message))?;
        self.steps.push(Given::Proven);
        Ok(())
    }

    /// An earlier call left pgfw's last files and was cut off before it could prove them.
    fn prove_kept(&mut self, live: &Live) -> Result<(), Cause> {
        let Some(running) = self.server.running() else {
            self.steps.push(Given::AtNextStart);
            return Ok(());
        };
        let hba = live
            .links
            .iter()
            .find_map(|(name, _)| fs::read_to_string(name).ok());
        match hba.as_deref().and_then(hba::marker_in) {
            Some(marker) => {
                self.reload_and_await(&running, marker)?;
                self.steps.push(Given::Proven);
            }
            None => self.reload(&running)?,
        }
        Ok(())
    }

    fn reload_and_await(&mut self, running: &Running, marker: &str) -> Result<(), Cause> {
        let before = prove::load_time(self.server, running);
        self.reload(running)?;
        prove::await_marker(self.server, running, marker, before.as_deref())
            .map_err(|message| self.not_taken(running, message))
    }

    fn reload(&mut self, running: &Running) -> Result<(), Cause> {
        reload::reload(self.server, running)?;
        self.steps.push(Given::Reloaded { pid: running.pid });
        Ok(())
    }

    fn not_taken(&self, running: &Running, message: String) -> Cause {
        Cause::NotTaken(apply::with_reasons(self.server, running, message))
    }
}

fn put_back(server: &Server, undo: Vec<Undo>, cause: Cause) -> PostgresError {
    let cluster = server.name.clone();
    let changed = !undo.is_empty();
    let back = undo.into_iter().rev().try_for_each(|step| step.undo(server));
    let back = back.and_then(|()| match server.running() {
        Some(running) if changed => reload::reload(server, &running),
        Some(_) | None => Ok(()),
    });
    match (back, cause) {
        (Ok(()), Cause::Error(error)) => error,
        (Ok(()), Cause::NotTaken(message)) => PostgresError::NotGivenBack { cluster, message },
        (Err(source), cause) => PostgresError::Stuck {
            cluster,
            message: match cause {
                Cause::Error(error) => error.to_string(),
                Cause::NotTaken(message) => message,
            },
            source: Box::new(source),
        },
    }
}

/// What the server says, where its former rules let pgfw ask.
fn look_after(server: &Server, running: &Running, released: &mut Released) {
    let Ok(sql) = Sql::connect_to(server, running) else {
        return;
    };
    let pending = "select name from pg_settings where pending_restart order by name";
    released.pending_restart = sql.column(pending, &[]).unwrap_or_default();
    released.complaints = sql.column(apply::COMPLAINTS, &[]).unwrap_or_default();
}
