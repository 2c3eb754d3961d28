//! The live names that the server reads, and where they lead once they are pgfw's.

use std::fs;
use std::path::{Path, PathBuf};

use super::conf::{include_dir, include_line};
use super::settings::{CONF, HBA, IDENT};
use super::stage::Generations;
use super::switch::{has_line, is_link_to, was_ours};
use super::{PostgresError, Server, kept};

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
    /// This link in a directory that postgresql.conf includes; it is among the links.
    Directory(PathBuf),
    /// A last line of this file.
    Line { file: PathBuf, line: String },
}

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
        let bytes = fs::read(&file).map_err(PostgresError::file("cannot read", &file))?;
        let text = String::from_utf8_lossy(&bytes);
        // Not the resolved name: pg_file_settings shows the path as the server was given it.
        let parent = config_file.parent().unwrap_or(Path::new("/"));
        let directory = include_dir(&text).map(|d| parent.join(d));
        let (links, include) = match directory.filter(|d| d.is_dir()) {
            Some(directory) => {
                let link = directory.join(CONF_LINK);
                (vec![(link.clone(), conf.clone())], Include::Directory(link))
            }
            None => (
                Vec::new(),
                Include::Line {
                    file,
                    line: include_line(&conf),
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
                Include::Directory(_) => true,
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
