//! PostgreSQL's side of a reload. What opens is in the server's rules before the filter lets anybody in; what closes is
//! closed in the filter first, whatever the server says.

use super::{Context, pg, pg_plan};
use crate::failure::Failure;
use crate::ops::{self, Engine};
use crate::postgres::{Applied, Options};

/// The clusters that follow, and what was done about them.
#[derive(Debug)]
pub(super) struct Followers<'a> {
    context: &'a Context,
    names: Vec<String>,
    pub(super) applied: Vec<Applied>,
}

impl<'a> Followers<'a> {
    /// Those that were applied before. None for whoever is not root: the socket's group may reload the filter, and writes
    /// no server's files.
    pub(super) fn find(context: &'a Context) -> Result<Followers<'a>, Failure> {
        let names = if nix::unistd::geteuid().is_root() {
            ops::clusters_to_follow(&context.paths)?
        } else {
            Vec::new()
        };
        Ok(Followers {
            context,
            names,
            applied: Vec::new(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Brings every one to pgfw.toml; what fails at one does not keep the others. Says what was changed.
    ///
    /// # Errors
    /// The first that failed, after all were tried.
    pub(super) fn apply(&mut self) -> Result<(), Failure> {
        if self.names.is_empty() {
            return Ok(());
        }
        let mut engine = Engine::open(&self.context.paths)?;
        let mut failed = None;
        for name in &self.names {
            pg_plan::warn(self.context, name);
            match engine.pg_apply(name, &Options::default()) {
                Ok(applied) => {
                    if !self.context.json && !applied.unchanged {
                        pg::print(&applied);
                    }
                    self.applied.push(applied);
                }
                Err(failure) => {
                    failed.get_or_insert(failure);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
