//! What of a server's files is pgfw's, and how each name goes from one content to another, and back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::kept::{self, Kept, begins_with};
use super::release::{Given, Leave};
use super::settings::{CONF, HBA};
use super::stage::{Generations, replace_with_link, sibling, sync};
use super::switch::{Include, KEPT, Live, has_line, is_link_to, rewrite, was_ours, with, without};
use super::{PostgresError, Server, cluster, hba, owner};
use crate::config::Cluster;

/// What of a server's files is to be given back.
pub(super) struct Taken {
    names: Vec<Name>,
    include: Option<Included>,
}

/// A live name.
struct Name {
    path: PathBuf,
    kind: Kind,
    was: Was,
    /// Where what it is to hold lies; it may not be there.
    former: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hba,
    Ident,
    Conf,
}

/// What a name is, to be that again when the server does not take what it gets instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Was {
    /// pgfw's.
    Link { target: PathBuf },
    /// What an earlier release left.
    Text(Vec<u8>),
    /// Somebody's: it only carries the marker for a moment.
    Own,
    /// Not there: the same.
    Absent,
}

/// postgresql.conf with pgfw's settings.
struct Included {
    file: PathBuf,
    text: String,
    /// The same without them.
    own: String,
}

/// The first line of rules that carry a marker for a moment.
const REMARK: &str = "# pgfw gives this file back; the marker below goes in a moment.";
/// Beside a name whose own content carries a marker.
const OWN: &str = ".own-pgfw";

impl Taken {
    pub(super) fn of(live: &Live, leave: Leave) -> Result<Taken, PostgresError> {
        let mut names = Vec::new();
        for (path, target) in &live.links {
            let link = is_link_to(path, target) || begins_with(path, REMARK);
            let was = if link {
                let target = target.clone();
                Was::Link { target }
            } else if leave == Leave::Former && kept::is_kept(path) {
                Was::Text(fs::read(path).map_err(PostgresError::file("cannot read", path))?)
            } else {
                continue;
            };
            names.push(Name::new(path, target, was));
        }
        let include = match &live.include {
            Include::Directory(_) => None,
            Include::Line { file, line } => {
                let text = fs::read_to_string(file).map_err(PostgresError::file("cannot read", file))?;
                let mut lines = vec![line.clone()];
                if leave == Leave::Former {
                    lines.push(kept::include_of(file)?);
                }
                lines.retain(|line| has_line(&text, line));
                let own = lines.iter().fold(text.clone(), |text, line| without(&text, line));
                (!lines.is_empty()).then(|| Included {
                    file: file.clone(),
                    text,
                    own,
                })
            }
        };
        Ok(Taken { names, include })
    }

    pub(super) fn is_none(&self) -> bool {
        self.names.is_empty() && self.include.is_none()
    }

    /// A server without a pg_hba.conf lets nobody in and does not start.
    pub(super) fn check_former(&self) -> Result<(), PostgresError> {
        let mut rules = self.names.iter().filter(|name| name.kind == Kind::Hba);
        match rules.find(|name| !there(&name.former)) {
            Some(name) => Err(PostgresError::NoFormer {
                path: name.former.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Rules that are not pgfw's, any more or at all, take part too: the marker has to be in both files.
    fn take_in(&mut self, live: &Live) -> Result<(), PostgresError> {
        for (path, target) in &live.links {
            let kind = Kind::of(target);
            if kind == Kind::Conf || self.names.iter().any(|name| name.path == *path) {
                continue;
            }
            let mut name = Name::new(path, target, if there(path) { Was::Own } else { Was::Absent });
            name.former = sibling(path, OWN);
            if name.was == Was::Own && !there(&name.former) {
                fs::hard_link(path, &name.former)
                    .map_err(PostgresError::file("cannot link", &name.former))?;
            }
            self.names.push(name);
        }
        Ok(())
    }

    /// Gives the former rules, and a marker before them; the marker.
    pub(super) fn put_marked(
        &mut self,
        live: &Live,
        server: &Server,
        undo: &mut Vec<Undo>,
    ) -> Result<String, PostgresError> {
        self.take_in(live)?;
        let mut rules = Vec::new();
        let mut hash = Sha256::new();
        for name in self.names.iter().filter(|name| name.kind != Kind::Conf) {
            let text = match fs::read(&name.former) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
                read => read.map_err(PostgresError::file("cannot read", &name.former))?,
            };
            hash.update(&text);
            hash.update([0]);
            rules.push((name, text));
        }
        hash.update(REMARK);
        let marker = hba::marker(&hba::short_hex(&hash.finalize()));
        let operator = owner::operator().map_err(PostgresError::file(
            "cannot name the user behind",
            Path::new("/proc/self"),
        ))?;
        let lines = hba::marker_lines(&marker, &operator, server.major)?;
        for (name, text) in rules {
            let (own, rest) = match (name.kind, &name.was) {
                // The maps of pgfw's rules stay meanwhile: where the server refuses the former rules it can be asked why.
                (Kind::Ident, Was::Link { target }) => (&lines.ident, fs::read(target).unwrap_or_default()),
                (Kind::Ident, Was::Text(_) | Was::Own | Was::Absent) => (&lines.ident, Vec::new()),
                (Kind::Hba | Kind::Conf, _) => (&lines.hba, Vec::new()),
            };
            let marked = [REMARK.as_bytes(), b"\n", own.as_bytes(), &text, b"\n", &rest].concat();
            undo.push(Undo::Put {
                path: name.path.clone(),
                was: name.was.clone(),
                former: name.former.clone(),
            });
            kept::put(&name.path, &marked, &server.owner)
                .map_err(PostgresError::file("cannot write", &name.path))?;
        }
        Ok(marker)
    }

    /// One name after the other, each at once; the rules first, since former rules under pgfw's settings hold, and
    /// pgfw's rules under settings without TLS let nobody in.
    pub(super) fn put_former(
        self,
        server: &Server,
        undo: &mut Vec<Undo>,
        steps: &mut Vec<Given>,
    ) -> Result<(), PostgresError> {
        let Taken { names, include } = self;
        for Name {
            path,
            kind: _,
            was,
            former,
        } in names
        {
            let failed = PostgresError::file("cannot give back", &path);
            let there = there(&former);
            undo.push(Undo::Put {
                path: path.clone(),
                was: was.clone(),
                former: former.clone(),
            });
            let moved = if there {
                fs::rename(&former, &path)
            } else {
                fs::remove_file(&path)
            };
            moved
                .and_then(|()| sync(path.parent().unwrap_or(Path::new("/"))))
                .map_err(failed)?;
            if there {
                undo.push(Undo::Moved {
                    path: path.clone(),
                    former,
                });
            }
            match (was, there) {
                (Was::Own | Was::Absent, _) => {}
                (Was::Link { .. } | Was::Text(_), true) => steps.push(Given::Former { path }),
                (Was::Link { .. } | Was::Text(_), false) => steps.push(Given::Removed { path }),
            }
        }
        let own = include.as_ref().map(|i| i.own.clone());
        put_include(include, own, undo, steps)?;
        // What the server would say at its next start, said now.
        server.setting("ssl_cert_file").map(drop)
    }

    /// Gives each name pgfw's last content as the server's own.
    pub(super) fn put_kept(
        self,
        server: &Server,
        kept: &Kept,
        undo: &mut Vec<Undo>,
        steps: &mut Vec<Given>,
    ) -> Result<(), PostgresError> {
        let Taken { names, include } = self;
        for Name {
            path,
            kind,
            was,
            former,
        } in names
        {
            let text = match kind {
                Kind::Hba => &kept.hba,
                Kind::Ident => &kept.ident,
                Kind::Conf => &kept.conf,
            };
            undo.push(Undo::Put {
                path: path.clone(),
                was,
                former,
            });
            kept::put(&path, text.as_bytes(), &server.owner)
                .map_err(PostgresError::file("cannot write", &path))?;
            steps.push(Given::Written { path });
        }
        let text = match &include {
            Some(Included { file, text: _, own }) => Some(with(own, &kept::include_of(file)?)),
            None => None,
        };
        put_include(include, text, undo, steps)?;
        server.setting("ssl_cert_file").map(drop)
    }
}

fn put_include(
    include: Option<Included>,
    text: Option<String>,
    undo: &mut Vec<Undo>,
    steps: &mut Vec<Given>,
) -> Result<(), PostgresError> {
    let (Some(Included { file, text: was, .. }), Some(text)) = (include, text) else {
        return Ok(());
    };
    rewrite(&file, &text).map_err(PostgresError::file("cannot take the include out of", &file))?;
    undo.push(Undo::Text {
        file: file.clone(),
        text: was,
    });
    steps.push(Given::NotIncluded { file });
    Ok(())
}

impl Name {
    fn new(path: &Path, target: &Path, was: Was) -> Name {
        let own = sibling(path, OWN);
        Name {
            path: path.to_owned(),
            kind: Kind::of(target),
            was,
            // An earlier call was cut off while somebody's own content carried a marker.
            former: if there(&own) { own } else { sibling(path, KEPT) },
        }
    }
}

impl Kind {
    fn of(target: &Path) -> Kind {
        match target.file_name().and_then(|name| name.to_str()) {
            Some(HBA) => Kind::Hba,
            Some(CONF) => Kind::Conf,
            Some(_) | None => Kind::Ident,
        }
    }
}

/// How a name goes back to what it was.
#[derive(Debug)]
pub(super) enum Undo {
    /// The name holds something else.
    Put {
        path: PathBuf,
        was: Was,
        former: PathBuf,
    },
    /// The name holds what was there before pgfw, which is to lie beside it again.
    Moved {
        path: PathBuf,
        former: PathBuf,
    },
    Text {
        file: PathBuf,
        text: String,
    },
}

impl Undo {
    pub(super) fn undo(self, server: &Server) -> Result<(), PostgresError> {
        let path = match &self {
            Undo::Put { path, .. } | Undo::Moved { path, .. } => path.clone(),
            Undo::Text { file, .. } => file.clone(),
        };
        let undone = match self {
            Undo::Put { path, was, former } => match was {
                Was::Link { target } => replace_with_link(&path, &target),
                Was::Text(text) => kept::put(&path, &text, &server.owner),
                Was::Own => match fs::rename(&former, &path) {
                    // Two names of one file: rename(2) leaves both.
                    Ok(()) if there(&former) => fs::remove_file(&former),
                    done => done,
                },
                Was::Absent => gone(&path),
            },
            // A second name first, so that there is no moment without a file.
            Undo::Moved { path, former } => fs::hard_link(&path, &former),
            Undo::Text { file, text } => rewrite(&file, &text),
        };
        undone.map_err(PostgresError::file("cannot put back", &path))
    }
}

/// Where pgfw's settings are gone and postgresql.conf still leads to them, takes them out of it: whatever comes after,
/// that is better. Whether there was anything.
pub(super) fn mend(
    cluster: &Cluster,
    generations: &Generations,
    steps: &mut Vec<Given>,
) -> Result<bool, PostgresError> {
    let (config_file, _) = cluster::files_of(cluster);
    let live = Live::of_settings(&config_file, generations)?;
    if generations.current_link().join(CONF).exists() {
        return Ok(false);
    }
    let Taken { names, include } = Taken::of(&live, Leave::Former)?;
    for name in names {
        fs::remove_file(&name.path).map_err(PostgresError::file("cannot remove", &name.path))?;
        steps.push(Given::Removed { path: name.path });
    }
    let own = include.as_ref().map(|i| i.own.clone());
    put_include(include, own, &mut Vec::new(), steps)?;
    Ok(!steps.is_empty())
}

/// Removes what only lies about once a cluster is what it was: the copy of postgresql.conf where the file is that
/// again, and what an earlier release left beside it.
pub(super) fn tidy(live: &Live, server: &Server) {
    if let Include::Line { file, line: _ } = &live.include {
        let former = sibling(file, KEPT);
        if fs::read(&former).is_ok_and(|text| fs::read(file).is_ok_and(|now| now == text)) {
            // What cannot be removed harms nobody.
            let _stays = fs::remove_file(&former);
        }
    }
    kept::remove(server);
}

/// Managed names that are somebody else's now.
pub(super) fn changed_by_others(live: &Live) -> Vec<PathBuf> {
    let theirs = |(path, target): &&(PathBuf, PathBuf)| {
        let ours = is_link_to(path, target) || begins_with(path, REMARK) || kept::is_kept(path);
        !ours && was_ours(path)
    };
    let names = live.links.iter().filter(theirs);
    names.map(|(path, _)| path.clone()).collect()
}

fn there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn gone(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}
