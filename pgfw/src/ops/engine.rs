//! One instance of pgfw as its files and pins have it: the ledger, the tables in the kernel, and the lock around both.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::fcntl::{Flock, FlockArg};

use super::rescue::Rescue;
use super::unrecorded::Unrecorded;
use crate::clock::{self, Now};
use crate::config::Config;
use crate::datapath::{Choice, Control, Datapath, DatapathError, Held, Owner, UNKNOWN};
use crate::failure::{Explain, Failure};
use crate::ledger::types::{Authority, Certificate, Entry, Generation, Lease};
use crate::ledger::{Ledger, PutEntry, Version};
use crate::paths::Paths;

/// The daemon keeps one for its life; a command that works without the daemon opens its own.
///
/// Nothing is cached between calls that another process may have changed: what a command recorded while the
/// daemon looked away is seen at the next call. What is kept of the last refresh only tells that nothing was.
#[derive(Debug)]
pub struct Engine {
    pub(super) paths: Paths,
    pub(super) ledger: Ledger,
    /// `None`: nothing of this instance is in the kernel.
    pub(super) datapath: Option<Datapath>,
    /// This instance, as its pins say.
    pub(super) owner: Owner,
    /// The pin folder is another instance's.
    pub(super) others: Option<Owner>,
    /// The pins are this process's alone: the daemon's.
    pub(super) held: Option<Held>,
    pub(super) boot_id: String,
    /// That the ledger is older than what was confirmed by it, until something is confirmed anew.
    pub(super) restored: Option<String>,
    /// What stands in for a policy that cannot be had.
    pub(super) rescue: Option<Rescue>,
    pub(super) unrecorded: Unrecorded,
    /// This process lives on and tries again what could not be recorded: the daemon does.
    pub(super) stays: bool,
    /// What the last start or reload could not do, one sentence each, until it can.
    pub(super) complaints: Vec<String>,
    /// Interfaces that the config names and that are not there, as the journal was told.
    pub(super) missing: Vec<String>,
    /// What the tables in the kernel were last brought to.
    pub(super) settled: Option<super::refresh::Unchanged>,
    /// Which interfaces a generation names, as the ledger of that version has it.
    pub(super) interfaces: Option<(u64, Version, Vec<String>)>,
    pub(super) crls_looked_at: Option<crate::clock::BootTime>,
    /// What the journal was last told of the lists.
    pub(super) alarmed: Vec<Failure>,
    /// When the gate's certificate is tried again, and why it was not issued.
    pub(super) gate_failed: Option<(crate::clock::BootTime, Failure)>,
    pub(super) renewals: super::renewal::Renewals,
    pub(super) signing: super::signing::Signing,
    pub(super) tellings: super::telling::Tellings,
    pub(super) trials: super::trials::Trials,
    pub(super) waiting: super::work::Waiting,
    /// Whoever ends sessions holds one more of it, for as long as that takes.
    pub(super) ending: std::sync::Arc<()>,
    /// Up to when expired certificates were looked at.
    pub(super) expired_until: Option<clock::WallTime>,
    pub(super) audit: crate::observe::audit::Audit,
    /// For whom this is done, as the audit log names them.
    pub(super) asking: crate::observe::audit::By,
    pub(super) watched: super::connection_log::Watched,
    /// Leases whose end with their certificate the audit log has.
    pub(super) leases_said_over: std::collections::HashSet<i64>,
}

/// What the ledger says, with what it could not take yet.
#[derive(Debug)]
pub(super) struct Facts {
    pub entries: Vec<Entry>,
    pub certificates: Vec<Certificate>,
    pub leases: Vec<Lease>,
}

impl Facts {
    /// As they are once `put` is recorded.
    pub(super) fn take_in(&mut self, put: &PutEntry) {
        let PutEntry { entry, replaced } = put;
        self.entries
            .retain(|old| replaced.iter().all(|gone| gone.id != old.id));
        self.entries.push(entry.clone());
    }
}

impl Engine {
    /// Opens ledger and pins for changes.
    ///
    /// # Errors
    /// A ledger or a pin folder that cannot be used.
    pub fn open(paths: &Paths) -> Result<Engine, Failure> {
        make_state_dir(paths)?;
        Engine::with(paths, Ledger::open(&paths.ledger())?)?.adopted()
    }

    /// Opens what is there to look at it; makes nothing.
    ///
    /// # Errors
    /// As for [`Engine::open`]; also where no ledger is.
    pub fn look(paths: &Paths) -> Result<Engine, Failure> {
        let ledger = match Ledger::open_read_only(&paths.ledger()) {
            Ok(ledger) => ledger,
            Err(error) => super::rescue::stand_in(paths, error)?,
        };
        Engine::with(paths, ledger)?.adopted()
    }

    /// Knows its ledger, and nothing of the kernel yet.
    pub(super) fn with(paths: &Paths, ledger: Ledger) -> Result<Engine, Failure> {
        let boot_id = clock::boot_id().map_err(|source| EngineError::BootId { source })?;
        let owner = Owner {
            id: if ledger.stands_in() {
                UNKNOWN.to_owned()
            } else {
                ledger.id()?
            },
            ledger: std::path::absolute(paths.ledger()).unwrap_or_else(|_| paths.ledger()),
        };
        let others = others(paths, &owner)?;
        let spare = match &others {
            None => paths.unrecorded(),
            // The one beside the socket may be theirs.
            Some(_) => paths.state_dir.join("unrecorded.json"),
        };
        Ok(Engine {
            paths: paths.clone(),
            ledger,
            datapath: None,
            owner,
            others,
            held: None,
            boot_id,
            restored: None,
            rescue: None,
            unrecorded: Unrecorded::load(spare),
            stays: false,
            complaints: Vec::new(),
            missing: Vec::new(),
            settled: None,
            interfaces: None,
            crls_looked_at: None,
            alarmed: Vec::new(),
            gate_failed: None,
            renewals: super::renewal::Renewals::default(),
            signing: super::signing::Signing::default(),
            tellings: super::telling::Tellings::default(),
            trials: super::trials::Trials::default(),
            waiting: super::work::Waiting::default(),
            ending: std::sync::Arc::new(()),
            expired_until: None,
            audit: super::audit::open(paths),
            asking: super::audit::myself(),
            watched: super::connection_log::Watched::default(),
            leases_said_over: std::collections::HashSet::new(),
        })
    }

    /// With what it has in the kernel; what is another's is let be.
    fn adopted(mut self) -> Result<Engine, Failure> {
        if self.others.is_none() && Datapath::exists(&self.paths.bpffs) {
            self.datapath = Some(Datapath::open(&self.paths.bpffs)?);
            self.know_rescue()?;
        }
        Ok(self)
    }

    /// Whether what is pinned is this instance's to remove.
    pub fn owns_the_pins(&self) -> bool {
        Datapath::check_owner(&self.paths.bpffs, &self.owner).is_ok()
    }

    /// For what makes no sense without the kernel: refuses where the pins are another instance's.
    pub(super) fn not_anothers(&self) -> Result<(), Failure> {
        match &self.others {
            None => Ok(()),
            Some(owner) => Err(DatapathError::OthersPins {
                path: self.paths.bpffs.clone(),
                ledger: owner.ledger.clone(),
            }
            .into()),
        }
    }

    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What the loaded programs say goes to the journal, of every generation in the kernel now.
    ///
    /// # Errors
    /// Pins that cannot be read.
    #[cfg(feature = "log")]
    pub fn follow_diagnostics(&self) -> Result<(), Failure> {
        for generation in self.referenced()? {
            if let Some(datapath) = &self.datapath {
                datapath.follow_diagnostics(generation)?;
            }
        }
        Ok(())
    }

    /// Whoever changes ledger, CRLs or tables holds this; it ends with the value, or with the process. Closing waits for
    /// it, so nobody waits for a server meanwhile.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn lock(&mut self) -> Result<Flock<File>, Failure> {
        let lock = lock(self.paths.change_lock())?;
        // Pins are found by path: since `pgfw off` they may be those of another instance.
        self.others = others(&self.paths, &self.owner)?;
        if let Some(owner) = &self.others
            && self.datapath.take().is_some()
        {
            tracing::error!(
                "the pins under {} are those of another instance now, on the ledger {}",
                self.paths.bpffs.display(),
                owner.ledger.display()
            );
        }
        Ok(lock)
    }

    pub(super) fn facts(&self) -> Result<Facts, Failure> {
        let mut entries = self.ledger.entries()?;
        let mut certificates = self.counting_certificates()?;
        self.unrecorded
            .apply(&mut entries, &mut certificates, Now::read().wall());
        Ok(Facts {
            entries,
            certificates,
            leases: self.ledger.leases()?,
        })
    }

    /// Certificates of generations that count: what a retired one issued opens nothing, whatever a ledger that was restored
    /// says of it.
    pub(super) fn counting_certificates(&self) -> Result<Vec<Certificate>, Failure> {
        let mut all = self.ledger.certificates()?;
        self.keep_counting(&mut all);
        Ok(all)
    }

    pub(super) fn keep_counting(&self, certificates: &mut Vec<Certificate>) {
        if certificates.is_empty() {
            return;
        }
        let config = Config::read(&self.paths.config).map_or_else(|_| self.config(), Ok);
        if let Ok(config) = config.as_ref()
            && let Ok(rotation) = super::certificates::store(config).rotation(Authority::Client)
        {
            certificates
                .retain(|c| c.authority != Authority::Client || rotation.counts(c.authority_generation));
        }
    }

    /// Some of the ledger's certificates, as [`Engine::facts`] has all of them.
    pub(super) fn as_they_count(&self, mut certificates: Vec<Certificate>) -> Vec<Certificate> {
        self.keep_counting(&mut certificates);
        self.unrecorded
            .apply(&mut Vec::new(), &mut certificates, Now::read().wall());
        certificates
    }

    /// The control record, as the kernel has it; "everything passes" where nothing is in the kernel.
    pub(super) fn control(&self) -> Result<Control, Failure> {
        match &self.datapath {
            Some(datapath) => Ok(datapath.control()?),
            None => Ok(Control {
                confirmed: Choice::Pass,
                pending: None,
            }),
        }
    }

    /// The generation that judges packets at `now`, if one does.
    pub(super) fn judging(&self, now: &Now) -> Result<Option<u64>, Failure> {
        let control = self.control()?;
        let choice = match control.pending {
            Some((choice, deadline)) if now.boot < deadline => choice,
            Some(_) | None => control.confirmed,
        };
        match choice {
            Choice::Pass => Ok(None),
            Choice::Generation(number) => Ok(Some(number)),
        }
    }

    /// The config that a generation was made from; it was checked when the generation began.
    pub(super) fn config_of(&self, number: u64) -> Result<Config, Failure> {
        if let Some(rescue) = self.rescue.as_ref().filter(|rescue| rescue.numbered(number)) {
            return Ok(rescue.config.clone());
        }
        let Generation { number, config, .. } = self
            .ledger
            .generation(number)?
            .ok_or(EngineError::UnknownGeneration { number })?;
        Ok(Config::parse(
            &config,
            &PathBuf::from(format!("policy {number} of the ledger")),
        )?)
    }

    /// The config in force: of the generation that judges, else of the confirmed one.
    ///
    /// # Errors
    /// When no policy was ever confirmed, or its text does not parse any more.
    pub fn config(&self) -> Result<Config, Failure> {
        let number = match self.judging(&Now::read())? {
            Some(number) => Some(number),
            None => self.ledger.confirmed()?.map(|g| g.number),
        };
        match number {
            Some(number) => self.config_of(number),
            None => Ok(Config::read(&self.paths.config)?),
        }
    }
}

/// Whose the pins are, where they are not `owner`'s.
fn others(paths: &Paths, owner: &Owner) -> Result<Option<Owner>, Failure> {
    let found = Datapath::owner(&paths.bpffs)?;
    Ok(found.filter(|found| !owner.owns(found)))
}

/// Who asks, as the audit log and the ledger name them: `root`, `alice`, or the bare number.
pub fn requester(uid: u32) -> String {
    match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

/// The lock on a file; made when absent. Blocks.
pub(super) fn lock_file_at(file: PathBuf) -> Result<Flock<File>, Failure> {
    lock(file)
}

/// For a cluster's files; see [`Paths::cluster_lock`].
pub(super) fn lock_cluster(paths: &Paths, name: &str) -> Result<Flock<File>, Failure> {
    lock(paths.cluster_lock(name))
}

fn lock(file: PathBuf) -> Result<Flock<File>, Failure> {
    let failed = |source: std::io::Error| EngineError::Lock {
        file: file.clone(),
        source,
    };
    let open = lock_file(&file).map_err(failed)?;
    Ok(Flock::lock(open, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))?)
}

pub(super) fn make_state_dir(paths: &Paths) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    // 0755: PostgreSQL's user goes through it to its own files; what is secret in here has modes of its own.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&paths.state_dir)
        .map_err(|source| {
            EngineError::StateDir {
                dir: paths.state_dir.clone(),
                source,
            }
            .into()
        })
}

pub(crate) fn lock_file(path: &std::path::Path) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    #[error("this boot's id cannot be read")]
    BootId { source: std::io::Error },
    #[error("the lock {} cannot be taken", file.display())]
    Lock { file: PathBuf, source: std::io::Error },
    #[error("the folder {} cannot be made", dir.display())]
    StateDir { dir: PathBuf, source: std::io::Error },
    #[error("policy {number} is in the kernel and not in the ledger")]
    UnknownGeneration { number: u64 },
}

impl Explain for EngineError {
    fn remedy(&self) -> String {
        match self {
            EngineError::BootId { source: _ } => "Mount /proc.".into(),
            EngineError::Lock { file, source: _ } => {
                format!(
                    "Make the folder of {} writable for root, and free space on it.",
                    file.display()
                )
            }
            EngineError::StateDir { dir, source: _ } => {
                format!(
                    "Make the folder above {} writable for root, or choose another with --state-dir.",
                    dir.display()
                )
            }
            EngineError::UnknownGeneration { number: _ } => {
                "The ledger was lost or restored: `pgfw off`, then start pgfw again.".into()
            }
        }
    }
}
