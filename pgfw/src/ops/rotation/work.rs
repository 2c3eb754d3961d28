//! What the steps of a rotation have in common: one command at work, each part of it under the locks that it needs.

use std::fs::File;

use nix::fcntl::Flock;

use super::super::Engine;
use super::super::certificates::{host, store};
use super::super::engine::{lock_file_at, make_state_dir};
use super::super::revoke::{Begun, Revoked};
use super::{Left, Rotated, ServerStep, again, named, servers, status};
use crate::clock::Now;
use crate::config::Manage;
use crate::failure::{Code, Failure};
use crate::fault::{Step, step};
use crate::ledger::types::{Authority, Certificate, Revocation, RevocationReason};
use crate::observe::audit::AuthorityChange;
use crate::paths::Paths;
use crate::pki::{self, Change, Leaving, Phase, Selection, Store, Which};

/// One command at work.
pub(super) struct Rotating<'a> {
    paths: &'a Paths,
    authority: Authority,
    requester: &'a str,
    pub(super) engine: Engine,
    servers: Vec<ServerStep>,
    revoked: Option<Revoked>,
    notes: Vec<String>,
    _alone: Flock<File>,
}

impl<'a> Rotating<'a> {
    pub(super) fn new(
        paths: &'a Paths,
        authority: Authority,
        requester: &'a str,
    ) -> Result<Rotating<'a>, Failure> {
        make_state_dir(paths)?;
        let alone = lock_file_at(paths.rotation_lock())?;
        Ok(Rotating {
            paths,
            authority,
            requester,
            engine: Engine::open(paths)?,
            servers: Vec::new(),
            revoked: None,
            notes: Vec::new(),
            _alone: alone,
        })
    }

    pub(super) fn store(&self) -> Result<Store, Failure> {
        Ok(store(&self.engine.reach()?.config))
    }

    pub(super) fn phase(&self) -> Result<Phase, Failure> {
        let store = self.store()?;
        // Where there is no authority at all, that is what is wrong.
        store.signing_generation(self.authority)?;
        Ok(store.rotation(self.authority)?.phase)
    }

    /// The new generation is there, with its list.
    pub(super) fn introduce(&mut self) -> Result<(), Failure> {
        let _lock = self.engine.lock()?;
        let reach = self.engine.reach()?;
        let request = pki::InitRequest {
            host: &host(),
            crl_ttl: reach.config.pki.crl_ttl,
            requester: self.requester,
        };
        let (store, now) = (store(&reach.config), Now::read().wall());
        let before = store.generations_there(self.authority)?;
        // What stands in its place is there, also where a later step failed.
        let introduced = pki::introduce(&store, &mut self.engine.ledger, self.authority, &request, now);
        for made in store.generations_there(self.authority)? {
            if !before.contains(&made) {
                self.say(AuthorityChange::Made, made);
            }
        }
        introduced?;
        // A server that is to trust it looks for it itself; others' lists, which may lack their key, wait for nobody here.
        if let Err(failure) = self.engine.publish_crls(&reach) {
            self.notes.push(failure.to_string());
        }
        Ok(())
    }

    /// Every server goes by what is said now, and has shown it.
    pub(super) fn bring(&mut self, again: &str) -> Result<(), Failure> {
        self.servers = servers::bring(self.paths, &self.engine, self.authority, self.requester)?;
        servers::all_done(&self.servers, again)
    }

    pub(super) fn turn(&mut self) -> Result<(), Failure> {
        let _lock = self.engine.lock()?;
        let store = self.store()?;
        let signed = store.signing_generation(self.authority)?;
        pki::turn(&store, self.authority)?;
        self.say_signs(&store, signed)
    }

    /// If it is another than before.
    fn say_signs(&self, store: &Store, before: u32) -> Result<(), Failure> {
        let signs = store.signing_generation(self.authority)?;
        if signs != before {
            self.say(AuthorityChange::Signs, signs);
        }
        Ok(())
    }

    fn say(&self, change: AuthorityChange, generation: u32) {
        self.engine.say_authority(change, self.authority, generation);
    }

    /// What this host keeps for its own programs follows at once.
    ///
    /// # Errors
    /// Where a passphrase is all that lacks: whoever sits here may have it.
    pub(super) fn tend_kept(&mut self) -> Result<(), Failure> {
        let _lock = self.engine.lock()?;
        self.engine.keep_clients_now()?;
        match &self.engine.renewals.kept_failed {
            Some(failure) if failure.code == Code::Locked => return Err(failure.clone()),
            Some(failure) => self.notes.push(failure.to_string()),
            None => {}
        }
        Ok(())
    }

    /// Refuses while certificates of a generation are valid. Also of programs of this host, for which a newer one is in
    /// place: whether they have read it nobody here knows.
    pub(super) fn nobody_left(&self, generation: u32, force: bool, verb: &str) -> Result<(), Failure> {
        if force || self.authority == Authority::Server {
            return Ok(());
        }
        let left = status::holders_of(&self.engine, &self.store()?, generation)?;
        if left.is_empty() {
            return Ok(());
        }
        let all: Vec<&Left> = left.iter().collect();
        Err(Failure::refused(
            format!(
                "{} certificate(s) of generation {generation} of the client authority are valid still: {}",
                left.len(),
                named(&all)
            ),
            format!(
                "Issue them anew where that is not done (`pgfw cert issue NAME`) and wait until they end or revoke them by \
                 serial; `{} --force` revokes all of them.",
                again(self.authority, verb)
            ),
        ))
    }

    /// Whatever has to be so before one of the two can be left out; then it is.
    pub(super) fn drop_one(
        &mut self,
        change: &Change,
        which: Which,
        force: bool,
        verb: &str,
    ) -> Result<(), Failure> {
        let said = again(self.authority, verb);
        let (gone, stays) = match which {
            Which::Old => (change.old, change.new),
            Which::New => (change.new, change.old),
        };
        // What is about to go signs nothing more, however long others take.
        if which == Which::New {
            let _lock = self.engine.lock()?;
            let store = self.store()?;
            let signed = store.signing_generation(self.authority)?;
            pki::turn_back(&store, self.authority)?;
            self.say_signs(&store, signed)?;
            step(Step::RotationSigns);
            // Without a key there is no way back: nothing could take the place of what was issued, nor be revoked.
            let of_it = |c: &Certificate| {
                (c.authority, c.authority_generation) == (self.authority, gone) && c.name != pki::CANARY
            };
            if self.authority == Authority::Client && self.engine.ledger.certificates()?.iter().any(of_it) {
                self.store()?.try_keys()?;
            }
        }
        match self.authority {
            // Clients know both as long as a server may serve what either signed.
            Authority::Server => self.bring(&said)?,
            Authority::Client => {
                let phase = Phase::Dropping(Leaving {
                    gone,
                    stays,
                    started: change.started,
                });
                servers::all_done(
                    &servers::others(self.paths, &self.engine, self.authority, &phase)?,
                    &said,
                )?;
                // While both count: what is said next is that one does not.
                self.tend_kept()?;
            }
        }
        let _lock = self.engine.lock()?;
        // Something may have been issued meanwhile.
        self.nobody_left(gone, force, verb)?;
        pki::drop_one(&self.store()?, self.authority, which)?;
        self.say(AuthorityChange::Dropped, gone);
        step(Step::RotationDropping);
        Ok(())
    }

    /// The one that is on its way out goes.
    pub(super) fn take_out(mut self, verb: &str) -> Result<Rotated, Failure> {
        let said = again(self.authority, verb);
        // Before a server refuses what they hold.
        self.tend_kept()?;
        // A server that cannot be told keeps nobody from revoking what it takes still.
        let untrusted = match self.authority {
            Authority::Client => self.bring(&said),
            Authority::Server => Ok(()),
        };
        step(Step::RotationUntrusted);
        if let Some(begun) = self.revoke_left()? {
            step(Step::RotationRevoked);
            let ended = begun.patiently().end_sessions();
            let revoked = self.engine.finish_revocation(ended)?;
            if untrusted.is_ok() && !revoked.unfinished.is_empty() {
                let waits_for_passphrase = revoked.locked == revoked.unfinished.len();
                return Err(Failure::new(
                    if waits_for_passphrase {
                        Code::Locked
                    } else {
                        Code::Refused
                    },
                    format!("not all could be closed: {}", revoked.unfinished.join(" ")),
                    format!("It is tried again by the daemon; then say `{said}` again."),
                ));
            }
            let reach = self.engine.reach()?;
            let others = reach.clusters.iter().filter(|c| c.manage == Manage::None);
            if self.authority == Authority::Client && !revoked.certificates.is_empty() {
                self.notes.extend(others.map(|cluster| {
                    format!(
                        "cluster {} is not managed by pgfw: sessions that logged in by these certificates go on there until \
                         somebody ends them (pg_terminate_backend, by client_serial in pg_stat_ssl).",
                        cluster.name
                    )
                }));
            }
            self.revoked = Some(revoked);
        }
        untrusted?;
        {
            let _lock = self.engine.lock()?;
            let reach = self.engine.reach()?;
            let targets = self.engine.crl_targets(&reach.config, &reach.clusters);
            let store = store(&reach.config);
            let gone = store.rotation(self.authority)?.phase.gone();
            pki::retire(&store, self.authority, &targets.folders)?;
            if let Some(gone) = gone {
                self.say(AuthorityChange::Retired, gone);
            }
            if let Err(failure) = self.engine.publish_crls(&reach) {
                self.notes.push(failure.to_string());
            }
        }
        self.done()
    }

    /// Closes what is left of the generation that goes; `None` where nothing is.
    fn revoke_left(&mut self) -> Result<Option<Begun>, Failure> {
        let _lock = self.engine.lock()?;
        let reach = self.engine.reach()?;
        let store = store(&reach.config);
        let Some(gone) = store.rotation(self.authority)?.phase.gone() else {
            return Ok(None);
        };
        let (all, now) = (self.engine.ledger.certificates()?, Now::read().wall());
        let certificates = pki::left_of(&all, self.authority, gone, now);
        let revocations = certificates.iter().map(|c| self.revocation(c)).collect();
        let was_revoked = |c: &&Certificate| {
            let of_it = (c.authority, c.authority_generation) == (self.authority, gone);
            of_it && c.name != pki::CANARY && c.revoked.is_some() && now < c.not_after
        };
        let selection = Selection {
            certificates,
            revocations,
            // By an attempt that was cut off.
            already: all.iter().filter(was_revoked).cloned().collect(),
            expired: Vec::new(),
        };
        if selection.certificates.is_empty() && selection.already.is_empty() {
            return Ok(None);
        }
        let what = format!("generation {gone} of the {} authority", self.authority);
        Ok(Some(self.engine.begin_closing(&reach, selection, &what)))
    }

    fn revocation(&self, certificate: &Certificate) -> Revocation {
        Revocation {
            serial: certificate.serial.clone(),
            authority: certificate.authority,
            authority_generation: certificate.authority_generation,
            revoked: Now::read().wall(),
            reason: RevocationReason::Superseded,
            requester: self.requester.to_owned(),
        }
    }

    pub(super) fn leaves(&self, leaving: &Leaving) -> Failure {
        let verb = if leaving.given_up() { "abort" } else { "finish" };
        Failure::refused(
            format!(
                "generation {} of the {} authority is on its way out, and that was cut off",
                leaving.gone, self.authority
            ),
            format!(
                "Say `{}` first: it goes on with that.",
                again(self.authority, verb)
            ),
        )
    }

    pub(super) fn done(self) -> Result<Rotated, Failure> {
        Ok(Rotated {
            status: status::of(&self.engine, self.authority)?,
            servers: self.servers,
            revoked: self.revoked,
            notes: self.notes,
        })
    }
}
