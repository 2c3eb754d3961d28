//! Putting a generation in force: the live names become links into `current`, and everything can go back.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::kept;
use super::settings::{self, CONF, HBA, IDENT};
use super::stage::{Generations, replace_with_link, sibling, sync};
use super::{PostgresError, Server};

/// What to do about changes that someone else made to managed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edits {
    /// Refuse to go on, and name the file.
    Refuse,
    /// Go on; what was there is kept beside it as `*.edited-pgfw`.
    Replace,
}

/// What has been changed so far, newest last.
#[derive(Debug)]
pub(super) struct Switch<'a> {
    generations: &'a Generations,
    undo: Vec<Undo>,
}

#[derive(Debug)]
enum Undo {
    Current(Option<u32>),
    /// This name was kept under that one.
    Kept {
        live: PathBuf,
        kept: PathBuf,
    },
    /// This name was not there.
    New(PathBuf),
    /// This file includes pgfw's settings, and held no more than this before.
    Included {
        file: PathBuf,
        own: String,
    },
}

/// Where the live names lead.
#[derive(Debug, Clone)]
pub(super) struct Live {
    /// (live name, its target through `current`)
    pub(super) links: Vec<(PathBuf, PathBuf)>,
    pub(super) include: Include,
    /// pgfw.conf through `current`.
    conf: PathBuf,
}

/// How the server comes to read pgfw.conf.
#[derive(Debug, Clone)]
pub(super) enum Include {
    /// A link in a directory that postgresql.conf includes; it is among the links.
    Directory,
    /// A last line of this file.
    Line { file: PathBuf, line: String },
}

/// What a live name held before pgfw, beside it.
pub(super) const KEPT: &str = ".before-pgfw";
const EDITED: &str = ".edited-pgfw";
/// Sorts after everything in an include_dir, which is read in order of names (guc-file.l: `ParseConfigDirectory`).
const CONF_LINK: &str = "zz-pgfw.conf";

impl Live {
    /// Reads what postgresql.conf offers.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn of(server: &Server, generations: &Generations) -> Result<Live, PostgresError> {
        let mut live = Live::of_settings(&server.config_file, generations)?;
        let current = generations.current_link();
        let rules = [
            (server.hba_file.clone(), current.join(HBA)),
            (server.ident_file.clone(), current.join(IDENT)),
        ];
        live.links.splice(0..0, rules);
        Ok(live)
    }

    /// Only how pgfw.conf is read: it takes no answer from the server's program, which gives none while pgfw.conf
    /// is missing.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn of_settings(config_file: &Path, generations: &Generations) -> Result<Live, PostgresError> {
        let conf = generations.current_link().join(CONF);
        let file = fs::canonicalize(config_file).map_err(PostgresError::file("cannot find", config_file))?;
        let text = fs::read_to_string(&file).map_err(PostgresError::file("cannot read", &file))?;
        // Not the resolved name: pg_file_settings shows the path as the server was given it.
        let parent = config_file.parent().unwrap_or(Path::new("/"));
        let directory = settings::include_dir(&text).map(|d| parent.join(d));
        let (links, include) = match directory.filter(|d| d.is_dir()) {
            Some(directory) => (
                vec![(directory.join(CONF_LINK), conf.clone())],
                Include::Directory,
            ),
            None => (
                Vec::new(),
                Include::Line {
                    file,
                    line: settings::include_line(&conf),
                },
            ),
        };
        Ok(Live { links, include, conf })
    }

    /// Whether every live name leads into `current`.
    pub(super) fn in_place(&self) -> bool {
        let linked = self.links.iter().all(|(live, target)| is_link_to(live, target));
        linked
            && match &self.include {
                Include::Directory => true,
                Include::Line { file, line } => fs::read_to_string(file).is_ok_and(|t| has_line(&t, line)),
            }
    }

    /// Looks for a managed name that became something else after it was once ours.
    ///
    /// # Errors
    /// [`PostgresError::Drift`].
    pub(super) fn check_links(&self) -> Result<(), PostgresError> {
        for (live, target) in &self.links {
            if !is_link_to(live, target) && was_ours(live) && !kept::is_kept(live) {
                return Err(PostgresError::Drift {
                    path: live.clone(),
                    message: format!("it was a link to {} and is none now", target.display()),
                });
            }
        }
        Ok(())
    }

    /// The paths from which the server may read our settings.
    pub(super) fn conf_paths(&self) -> Vec<String> {
        self.links
            .iter()
            .map(|(live, _)| live)
            .chain([&self.conf])
            .map(|p| p.to_string_lossy().into_owned())
            .collect()
    }
}

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
            switch.undo.push(if kept.symlink_metadata().is_ok() {
                Undo::Kept {
                    live: name.clone(),
                    kept,
                }
            } else {
                Undo::New(name.clone())
            });
        }
        if let Include::Line { file, line } = &live.include {
            let text = fs::read_to_string(file).map_err(PostgresError::file("cannot read", file))?;
            if has_line(&text, line) {
                switch.undo.push(Undo::Included {
                    file: file.clone(),
                    own: without(&text, line),
                });
            }
        }
        Ok(switch)
    }

    /// Makes `generation` the one that counts: `current` first, so that no live name ever leads nowhere.
    ///
    /// # Errors
    /// I/O; [`Switch::back`] takes back what was done.
    pub(super) fn forward(&mut self, generation: u32, live: &Live) -> Result<(), PostgresError> {
        let link = self.generations.current_link();
        let before = self.generations.current();
        self.generations
            .choose(Some(generation))
            .map_err(PostgresError::file("cannot switch", &link))?;
        self.undo.push(Undo::Current(before));
        for (name, target) in &live.links {
            if !is_link_to(name, target) {
                self.adopt(name, |n| replace_with_link(n, target))
                    .map_err(PostgresError::file("cannot link", name))?;
            }
        }
        match &live.include {
            Include::Directory => Ok(()),
            Include::Line { file, line } => {
                let text = fs::read_to_string(file).map_err(PostgresError::file("cannot read", file))?;
                if has_line(&text, line) {
                    return Ok(());
                }
                // What `pg release --keep` left here would count beside ours.
                let own = kept::include_of(file).map_or(text.clone(), |old| without(&text, &old));
                self.adopt(file, |f| rewrite(f, &with(&own, line)))
                    .map_err(PostgresError::file("cannot add an include to", file))
            }
        }
    }

    /// Whether there is anything to take back.
    pub(super) fn changed(&self) -> bool {
        !self.undo.is_empty()
    }

    /// Takes everything back, newest first.
    ///
    /// # Errors
    /// I/O; what follows is not tried.
    pub(super) fn back(self) -> Result<(), PostgresError> {
        for step in self.undo.into_iter().rev() {
            match step {
                Undo::Current(before) => self.generations.choose(before).map_err(PostgresError::file(
                    "cannot switch back",
                    &self.generations.current_link(),
                ))?,
                Undo::Kept { live, kept } => {
                    fs::rename(&kept, &live).map_err(PostgresError::file("cannot put back", &live))?;
                }
                Undo::New(path) => {
                    fs::remove_file(&path).map_err(PostgresError::file("cannot remove", &path))?
                }
                Undo::Included { file, own } => {
                    rewrite(&file, &own).map_err(PostgresError::file("cannot put back", &file))?;
                    // It says no more than the file itself.
                    let _stays = fs::remove_file(sibling(&file, KEPT));
                }
            }
        }
        Ok(())
    }

    /// Keeps what `name` is under another name, then puts something else in its place. A second name for the same file
    /// first, so that there is no moment without one.
    fn adopt(&mut self, name: &Path, put: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        if fs::symlink_metadata(name).is_err() {
            put(name)?;
            self.undo.push(Undo::New(name.to_owned()));
            return Ok(());
        }
        let theirs = !was_ours(name) && !kept::is_kept(name);
        let kept = sibling(name, if theirs { KEPT } else { EDITED });
        match fs::remove_file(&kept) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        fs::hard_link(name, &kept)?;
        self.undo.push(Undo::Kept {
            live: name.to_owned(),
            kept,
        });
        put(name)
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
