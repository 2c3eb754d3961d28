//! What can go wrong on PostgreSQL's side.

use std::io;
use std::path::{Path, PathBuf};

use crate::failure::{Code, Explain};
use crate::policy::access::AccessError;

use super::hba;

#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error("cluster `{cluster}` is not managed by pgfw (manage = \"none\")")]
    NotManaged { cluster: String },
    #[error("nothing was ever applied to cluster `{cluster}`")]
    NotApplied { cluster: String },
    #[error("cluster `{cluster}` has no data directory at {}", path.display())]
    NoDataDirectory { cluster: String, path: PathBuf },
    #[error("no `postgres` program of major version {major} is installed")]
    NoProgram { major: u16 },
    #[error("cluster `{cluster}` is PostgreSQL {major}, whose rules pgfw cannot read")]
    UnknownGrammar { cluster: String, major: u16 },
    #[error("{} belongs to uid {uid}, which has no user name", path.display())]
    NoOwner { path: PathBuf, uid: u32 },
    #[error("`postgres -C {setting}` does not accept {}: {message}", config_file.display())]
    Settings {
        setting: &'static str,
        config_file: PathBuf,
        message: String,
    },
    #[error("{what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Hba(#[from] hba::Refused),
    #[error("the TLS material for cluster `{cluster}` cannot be served: {message}")]
    Material { cluster: String, message: String },
    #[error("{} holds no CRL that {user} can read, so the server would refuse every certificate", path.display())]
    NoCrl { path: PathBuf, user: String },
    #[error("the server's user {user} cannot read {}", path.display())]
    Unreadable {
        path: PathBuf,
        user: String,
        source: io::Error,
    },
    #[error("{} was changed by someone else: {message}", path.display())]
    Drift { path: PathBuf, message: String },
    #[error("cluster `{cluster}` would not serve what pgfw gives it, so nothing was changed: {message}")]
    Overridden { cluster: String, message: String },
    #[error("{setting} is '{value}' by {place}, which counts from wherever the server is started")]
    Relative {
        setting: &'static str,
        value: String,
        place: String,
    },
    #[error(
        "the server of cluster `{cluster}` is down and was last started with {setting}={says}; whether its next start says so \
         too cannot be known"
    )]
    LastStart {
        cluster: String,
        setting: &'static str,
        says: String,
    },
    #[error("the server of cluster `{cluster}` goes by {} as its {setting}, and its settings say {}", runs.display(), says.display())]
    OtherFile {
        cluster: String,
        setting: &'static str,
        runs: PathBuf,
        says: PathBuf,
    },
    #[error("{} is gone, and with it what pg_hba.conf held before pgfw", path.display())]
    NoFormer { path: PathBuf },
    #[error("what pgfw wrote for cluster `{cluster}` is not at {} any more", path.display())]
    NothingToKeep { cluster: String, path: PathBuf },
    #[error("cluster `{cluster}` did not take what was given back: {message}; it is pgfw's again")]
    NotGivenBack { cluster: String, message: String },
    #[error("cluster `{cluster}` does not listen on a Unix socket")]
    NoSocket { cluster: String },
    #[error("cluster `{cluster}` is not running")]
    NotRunning { cluster: String },
    #[error("cluster `{cluster}` does not answer: {message}")]
    Query { cluster: String, message: String },
    #[error("cannot tell the server (pid {pid}) to reload")]
    Reload { pid: i32, source: io::Error },
    #[error("cluster `{cluster}` did not take the new files: {message}; the former ones are back")]
    PutBack { cluster: String, message: String },
    #[error("the new rules for cluster `{cluster}` are not fit to be used: {message}; nothing was changed")]
    Refused { cluster: String, message: String },
    #[error(
        "the new rules for cluster `{cluster}` cannot be tried on a server of their own: {message}; nothing was changed"
    )]
    Untried { cluster: String, message: String },
    #[error("cluster `{cluster}` does not run with the files that are in place: {message}")]
    NotProven { cluster: String, message: String },
    #[error(
        "cluster `{cluster}` did not take the new files ({message}), and the former ones could not be put back"
    )]
    Stuck {
        cluster: String,
        message: String,
        source: Box<PostgresError>,
    },
    #[error("an apply to cluster `{cluster}` waits for its confirmation until {until}")]
    Waits { cluster: String, until: String },
    #[error("the apply to cluster `{cluster}` was not confirmed until {until}, and is undone")]
    TooLate {
        cluster: String,
        until: String,
        /// The generation that is in force again.
        back_to: Option<u32>,
    },
    #[error(
        "what is rendered for cluster `{cluster}` reaches its server by other hands, and cannot be tried (manage = \"render\")"
    )]
    RenderedOnTrial { cluster: String },
    #[error("cannot read or close sockets through sock_diag")]
    SockDiag(#[source] io::Error),
}

impl PostgresError {
    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PostgresError {
        let path = path.to_owned();
        move |source| PostgresError::File { what, path, source }
    }
}

impl Explain for PostgresError {
    fn code(&self) -> Code {
        match self {
            PostgresError::Access(e) => e.code(),
            PostgresError::Hba(e) => e.code(),
            PostgresError::NoDataDirectory { .. } => Code::NotFound,
            PostgresError::NotManaged { .. }
            | PostgresError::NotApplied { .. }
            | PostgresError::NoProgram { .. }
            | PostgresError::UnknownGrammar { .. }
            | PostgresError::NoOwner { .. }
            | PostgresError::Settings { .. }
            | PostgresError::File { .. }
            | PostgresError::Material { .. }
            | PostgresError::NoCrl { .. }
            | PostgresError::Unreadable { .. }
            | PostgresError::Drift { .. }
            | PostgresError::Overridden { .. }
            | PostgresError::Relative { .. }
            | PostgresError::OtherFile { .. }
            | PostgresError::LastStart { .. }
            | PostgresError::NoFormer { .. }
            | PostgresError::NothingToKeep { .. }
            | PostgresError::NotGivenBack { .. }
            | PostgresError::NoSocket { .. }
            | PostgresError::NotRunning { .. }
            | PostgresError::Query { .. }
            | PostgresError::Reload { .. }
            | PostgresError::PutBack { .. }
            | PostgresError::NotProven { .. }
            | PostgresError::Stuck { .. }
            | PostgresError::Refused { .. }
            | PostgresError::Untried { .. }
            | PostgresError::Waits { .. }
            | PostgresError::TooLate { .. }
            | PostgresError::RenderedOnTrial { .. }
            | PostgresError::SockDiag(_) => Code::Refused,
        }
    }

    fn remedy(&self) -> String {
        match self {
            PostgresError::Access(e) => e.remedy(),
            PostgresError::Hba(e) => e.remedy(),
            PostgresError::NotManaged { cluster } => {
                format!("Set manage = \"files\" for `{cluster}` in pgfw.toml, or write its files yourself.")
            }
            PostgresError::NotApplied { cluster } => format!("Apply it first, with `pgfw pg apply {cluster}`."),
            PostgresError::NoDataDirectory { .. } => {
                "Correct `cluster` (pg_lsclusters lists them) or `data_directory` in pgfw.toml.".to_owned()
            }
            PostgresError::NoProgram { major } => format!(
                "Install the server package (postgresql-{major}), or start the server, so that its program is found."
            ),
            PostgresError::UnknownGrammar { .. } => "Use PostgreSQL 15 to 18, or a newer pgfw.".to_owned(),
            PostgresError::NoOwner { path, uid: _ } => {
                format!("Give {} to the user that runs the server.", path.display())
            }
            PostgresError::Settings { config_file, .. } => {
                format!("Correct {}; the server could not start with it either.", config_file.display())
            }
            PostgresError::File { path, .. } => {
                format!("Make room and give pgfw access to {}, then apply again.", path.display())
            }
            PostgresError::Material { .. } => "Issue a new one with `pgfw cert server`, then apply again.".to_owned(),
            PostgresError::NoCrl { .. } => "Make the authorities with `pgfw ca init`, let the server's user into that folder, then apply again.".to_owned(),
            PostgresError::Unreadable { path, user, .. } => format!(
                "Let {user} pass through every parent of {} (chmod o+x), or choose another --state-dir.",
                path.display()
            ),
            PostgresError::Drift { path, .. } => format!(
                "Carry over what was meant into pgfw.toml, then say `pgfw pg apply --replace-edits`: {} is kept beside it.",
                path.display()
            ),
            PostgresError::Overridden { .. } => "Do what is said of each, then apply again.".to_owned(),
            PostgresError::Relative { setting, .. } => {
                format!("Write the whole path of {setting} there, restart the server, then apply again.")
            }
            PostgresError::LastStart { cluster, .. } => {
                format!("Start it as it is to run, then again: pgfw pg apply {cluster} (or release).")
            }
            PostgresError::OtherFile { setting: "config_file", runs, .. } => format!(
                "Name it in pgfw.toml (data_directory and config_file = \"{}\"), then apply again.",
                runs.display()
            ),
            PostgresError::OtherFile { setting, .. } => format!(
                "Restart the server if {setting} was changed since its start, or put the setting back; then apply again."
            ),
            PostgresError::NoFormer { path } => format!(
                "Write the rules that are to count into {} and release again, or keep pgfw's with --keep.",
                path.display()
            ),
            PostgresError::NothingToKeep { .. } => {
                "Release it without --keep, which gives back what was there before pgfw.".to_owned()
            }
            PostgresError::NotGivenBack { .. } => {
                "Correct the *.before-pgfw files beside the live ones, then release again, or keep pgfw's with --keep."
                    .to_owned()
            }
            PostgresError::NoSocket { .. } => {
                "Set unix_socket_directories in postgresql.conf; pgfw speaks to the server there.".to_owned()
            }
            PostgresError::NotRunning { cluster } => format!("Start the server of `{cluster}` first."),
            PostgresError::Query { .. } => {
                "Look into the server's log; pgfw connects to its Unix socket as the server's own user, by peer.".to_owned()
            }
            PostgresError::Reload { .. } => "Reload it yourself (pg_ctl reload), then apply again.".to_owned(),
            PostgresError::PutBack { .. } => "Correct what the server names, then apply again.".to_owned(),
            PostgresError::Refused { .. } => {
                "Correct in pgfw.toml what a server of this version names, then apply again.".to_owned()
            }
            PostgresError::Untried { cluster, .. } => format!(
                "Let this host have one (`initdb` beside `postgres`, network namespaces, room in the state folder), or go on with the live server's proof \
                 alone: pgfw pg apply {cluster} --without-scratch"
            ),
            PostgresError::NotProven { .. } => {
                "Look into the server's log for what it refused, then apply again.".to_owned()
            }
            PostgresError::Stuck { .. } => {
                "Put the *.before-pgfw files back by hand and reload the server.".to_owned()
            }
            PostgresError::Waits { .. } => {
                "Keep it with `pgfw confirm`, or undo it with `pgfw rollback`; then do this again.".to_owned()
            }
            PostgresError::TooLate { cluster, .. } => {
                format!("Try it for longer: pgfw pg apply {cluster} --confirm 5m")
            }
            PostgresError::RenderedOnTrial { .. } => "Leave --confirm out.".to_owned(),
            PostgresError::SockDiag(_) => "Run pgfw with CAP_NET_ADMIN, with the inet_diag module loaded.".to_owned(),
        }
    }
}
