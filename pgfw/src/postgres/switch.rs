//! Putting a generation in force: the live names become links into `current`, and everything can go back.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::PostgresError;
use super::kept;
pub(super) use super::live::{Include, Live};
use super::stage::{Generations, replace_with_link, sibling, sync};
use crate::fault::{Step, step};

/// What to do about changes that someone else made to managed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edits {
    /// Refuse to go on, and name the file.
    Refuse,
    /// Go on; what was there is kept beside it as `*.edited-pgfw`.
    Replace,
}

/// What is changed, oldest first: said whole before the first of it is done, so that it can be taken back by whoever comes
/// after a crash. Each knows whether it was done.
#[derive(Debug)]
pub(super) struct Switch<'a> {
    generations: &'a Generations,
    pub(super) undo: Vec<Undo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Undo {
    /// `current` led there.
    Current(Option<u32>),
    /// This name is kept under that one, and becomes a link.
    Kept {
        live: PathBuf,
        target: PathBuf,
        kept: PathBuf,
    },
    /// This name was not there, and becomes a link.
    New { live: PathBuf, target: PathBuf },
    /// This file comes to include pgfw's settings by this line; it is kept under that name, and held no more than this
    /// before.
    Included {
        file: PathBuf,
        line: String,
        kept: PathBuf,
        own: String,
    },
}

/// What a live name held before pgfw, beside it.
pub(super) const KEPT: &str = ".before-pgfw";
const EDITED: &str = ".edited-pgfw";
impl<'a> Switch<'a> {
    pub(super) fn new(generations: &'a Generations) -> Switch<'a> {
        Switch {
            generations,
            undo: Vec::new(),
        }
    }

    /// After an apply that was cut off before its proof: what it changed goes back as well, to `good`, the generation
    /// that was in force before it, or to what was there before pgfw.
    pub(super) fn resumed(
        generations: &'a Generations,
        good: Option<u32>,
        live: &Live,
    ) -> Result<Switch<'a>, PostgresError> {
        let mut switch = Switch::new(generations);
        if generations.current() == good {
            return Ok(switch);
        }
        switch.undo.push(Undo::Current(good));
        if good.is_some() {
            return Ok(switch);
        }
        for (name, target) in &live.links {
            let kept = sibling(name, KEPT);
            if !is_link_to(name, target) {
                continue;
            }
            let (live, target) = (name.clone(), target.clone());
            switch.undo.push(if kept.symlink_metadata().is_ok() {
                Undo::Kept { live, target, kept }
            } else {
                Undo::New { live, target }
            });
        }
        if let Include::Line { file, line } = &live.include {
            let text = fs::read_to_string(file).map_err(PostgresError::file("cannot read", file))?;
            if has_line(&text, line) {
                switch.undo.push(Undo::Included {
                    file: file.clone(),
                    line: line.clone(),
                    kept: sibling(file, KEPT),
                    own: without(&text, line),
                });
            }
        }
        Ok(switch)
    }

    /// What an apply noted before it was cut off, or went on trial.
    pub(super) fn noted(generations: &'a Generations, undo: Vec<Undo>) -> Switch<'a> {
        Switch { generations, undo }
    }

    /// Says what [`Switch::forward`] will change.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn plan(&mut self, live: &Live) -> Result<(), PostgresError> {
        self.undo.push(Undo::Current(self.generations.current()));
        for (name, target) in &live.links {
            if is_link_to(name, target) {
                continue;
            }
            let (live, target) = (name.clone(), target.clone());
            self.undo.push(if fs::symlink_metadata(name).is_err() {
                Undo::New { live, target }
            } else {
                let kept = kept_as(name);
                Undo::Kept { live, target, kept }
            });
        }
        if let Include::Line { file, line } = &live.include {
            let text = fs::read_to_string(file).map_err(PostgresError::file("cannot read", file))?;
            if !has_line(&text, line) {
                self.undo.push(Undo::Included {
                    file: file.clone(),
                    line: line.clone(),
                    kept: kept_as(file),
                    own: text,
                });
            }
        }
        Ok(())
    }

    /// Makes `generation` the one that counts, as planned: `current` first, so that no live name ever leads nowhere.
    ///
    /// # Errors
    /// I/O; [`Switch::back`] takes back what was done.
    pub(super) fn forward(&self, generation: u32, live: &Live) -> Result<(), PostgresError> {
        let link = self.generations.current_link();
        self.generations
            .choose(Some(generation))
            .map_err(PostgresError::file("cannot switch", &link))?;
        step(Step::ApplyChosen);
        for (name, target) in &live.links {
            if !is_link_to(name, target) {
                adopt(name, |n| replace_with_link(n, target))
                    .map_err(PostgresError::file("cannot link", name))?;
                step(Step::ApplyLinked);
            }
        }
        match &live.include {
            Include::Directory(_) => Ok(()),
            Include::Line { file, line } => {
                let text = fs::read_to_string(file).map_err(PostgresError::file("cannot read", file))?;
                if has_line(&text, line) {
                    return Ok(());
                }
                adopt(file, |f| rewrite(f, &included(f, &text, line)))
                    .map_err(PostgresError::file("cannot add an include to", file))?;
                step(Step::ApplyLinked);
                Ok(())
            }
        }
    }

    /// Whether there is anything to take back.
    pub(super) fn changed(&self) -> bool {
        !self.undo.is_empty()
    }

    /// Takes back what was done of it, newest first. Can be repeated.
    ///
    /// # Errors
    /// I/O; what follows is not tried.
    pub(super) fn back(self) -> Result<(), PostgresError> {
        for undo in self.undo.into_iter().rev() {
            match undo {
                Undo::Current(before) if self.generations.current() == before => {}
                Undo::Current(before) => self.generations.choose(before).map_err(PostgresError::file(
                    "cannot switch back",
                    &self.generations.current_link(),
                ))?,
                Undo::Kept { live, target, kept } if is_link_to(&live, &target) => {
                    fs::rename(&kept, &live).map_err(PostgresError::file("cannot put back", &live))?;
                }
                // Kept under a second name, and not replaced yet.
                Undo::Kept {
                    live,
                    target: _,
                    kept,
                } if same_file(&live, &kept) => {
                    fs::remove_file(&kept).map_err(PostgresError::file("cannot remove", &kept))?;
                }
                Undo::New { live, target } if is_link_to(&live, &target) => {
                    fs::remove_file(&live).map_err(PostgresError::file("cannot remove", &live))?;
                }
                Undo::Kept { .. } | Undo::New { .. } => {}
                Undo::Included {
                    file,
                    line,
                    kept,
                    own,
                } => {
                    let text =
                        fs::read_to_string(&file).map_err(PostgresError::file("cannot read", &file))?;
                    if has_line(&text, &line) {
                        // What somebody wrote since stays.
                        let mine = text == included(&file, &own, &line) || text == with(&own, &line);
                        let back = if mine { own } else { without(&text, &line) };
                        rewrite(&file, &back).map_err(PostgresError::file("cannot put back", &file))?;
                    }
                    // It says no more than the file itself.
                    let _stays = fs::remove_file(kept);
                }
            }
            step(Step::UndoneOne);
        }
        Ok(())
    }
}

/// A postgresql.conf with pgfw's include as its last line. What `pg release --keep` left in it would count beside ours.
pub(super) fn included(file: &Path, own: &str, line: &str) -> String {
    match kept::include_of(file) {
        Ok(old) => with(&without(own, &old), line),
        Err(_) => with(own, line),
    }
}

/// Keeps what `name` is under another name, then puts something else in its place. A second name for the same file
/// first, so that there is no moment without one.
fn adopt(name: &Path, put: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    if fs::symlink_metadata(name).is_err() {
        return put(name);
    }
    let kept = kept_as(name);
    match fs::remove_file(&kept) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    fs::hard_link(name, &kept)?;
    step(Step::ApplyKept);
    put(name)
}

/// Under which name is kept what stands at `name` and is to become pgfw's.
fn kept_as(name: &Path) -> PathBuf {
    let theirs = !was_ours(name) && !kept::is_kept(name);
    sibling(name, if theirs { KEPT } else { EDITED })
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::symlink_metadata(one), fs::symlink_metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
    }
}

/// Whether pgfw took this name over before: what it had been is kept, and is another file. (The same file under both
/// names is a take-over that was interrupted.)
pub(super) fn was_ours(name: &Path) -> bool {
    match (
        fs::symlink_metadata(name),
        fs::symlink_metadata(sibling(name, KEPT)),
    ) {
        (Ok(now), Ok(kept)) => (now.dev(), now.ino()) != (kept.dev(), kept.ino()),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
    }
}

pub(super) fn is_link_to(name: &Path, target: &Path) -> bool {
    fs::read_link(name).is_ok_and(|t| t == target)
}

pub(super) fn has_line(text: &str, line: &str) -> bool {
    text.lines().any(|l| l.trim() == line)
}

const REMARK: &str = "# pgfw's settings; keep this line last.";

/// `text` with an include as its last line.
pub(super) fn with(text: &str, line: &str) -> String {
    let gap = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{text}{gap}\n{REMARK}\n{line}\n")
}

/// `text` without what [`with`] added to it, wherever that is by now.
pub(super) fn without(text: &str, line: &str) -> String {
    let block = format!("\n{REMARK}\n{line}\n");
    if text.contains(&block) {
        return text.replacen(&block, "", 1);
    }
    let left = text.split_inclusive('\n').filter(|l| l.trim() != line);
    left.collect()
}

/// Replaces a file by another text, with its owner and mode.
pub(super) fn rewrite(file: &Path, text: &str) -> io::Result<()> {
    let fresh = sibling(file, ".pgfw-new");
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let old = fs::metadata(file)?;
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    out.write_all(text.as_bytes())?;
    std::os::unix::fs::fchown(&out, Some(old.uid()), Some(old.gid()))?;
    out.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
    out.sync_all()?;
    fs::rename(&fresh, file)?;
    sync(file.parent().unwrap_or(Path::new("/")))
}
