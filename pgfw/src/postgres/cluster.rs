//! Where a cluster's files are, who runs it, and whether it runs: asked, never guessed.

use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::options::Options;
use super::{LogNames, Owner, PostgresError};
use crate::config::{Cluster, Location};

/// One server: its files, its user, its program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// The `[[postgres]]` entry's name.
    pub name: String,
    pub major: u16,
    /// The `postgres` program.
    pub program: PathBuf,
    pub data: PathBuf,
    pub config_file: PathBuf,
    /// The live name: what `hba_file` says.
    pub hba_file: PathBuf,
    /// The live name: what `ident_file` says.
    pub ident_file: PathBuf,
    /// The first of `unix_socket_directories`.
    pub socket_directory: Option<PathBuf>,
    pub port: u16,
    pub owner: Owner,
    /// What its command line says, as it was last started: it has the last word over every file.
    #[serde(default)]
    pub(super) options: Options,
}

/// A server that runs, from its postmaster.pid (miscadmin.h: `LOCK_FILE_LINE_*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub pid: i32,
    pub port: u16,
    /// Its first Unix socket's directory.
    pub socket_directory: Option<PathBuf>,
    /// The first of its listen addresses; `*` for all, empty for none.
    pub listen: String,
}

impl Server {
    /// Finds a cluster's files. The server's own program says what its settings come to, run as its own user.
    ///
    /// # Errors
    /// What is missing, or what `postgres -C` does not accept.
    pub fn find(cluster: &Cluster) -> Result<Server, PostgresError> {
        let (config_file, first_guess) = files_of(cluster);
        let missing = || PostgresError::NoDataDirectory {
            cluster: cluster.name.clone(),
            path: first_guess.clone(),
        };
        if !config_file.exists() || !first_guess.is_dir() {
            return Err(missing());
        }
        // For Debian the configuration's directory belongs to the server's user as well.
        let owner = Owner::of(&first_guess)?;
        let guessed_major = match &cluster.location {
            Location::Debian { major, name: _ } => *major,
            Location::Directories { data, config_file: _ } => major_of(data).ok_or_else(missing)?,
        };
        let mut ask = Ask {
            program: last_started(&first_guess).map_or_else(|| program(guessed_major), Ok)?,
            owner,
            config_file,
            directory: first_guess.clone(),
            options: Options::default(),
        };
        let data = PathBuf::from(ask.setting("data_directory")?);
        let major = major_of(&data).ok_or_else(|| PostgresError::NoDataDirectory {
            cluster: cluster.name.clone(),
            path: data.clone(),
        })?;
        ask.owner = Owner::of(&data)?;
        ask.directory = data.clone();
        match last_started(&data) {
            Some(started) => ask.program = started,
            None if major != guessed_major => ask.program = program(major)?,
            None => {}
        }
        ask.options = Options::of(&data);
        // Each answer takes a start of the program: 30 ms, of which a revocation has not many.
        let [sockets, port, hba, ident] =
            ask.settings(["unix_socket_directories", "port", "hba_file", "ident_file"])?;
        Ok(Server {
            name: cluster.name.clone(),
            major,
            hba_file: data.join(hba),
            ident_file: data.join(ident),
            socket_directory: first_directory(&sockets, &data),
            port: port.parse().unwrap_or(cluster.port),
            program: ask.program,
            config_file: ask.config_file,
            owner: ask.owner,
            options: ask.options,
            data,
        })
    }

    /// The server's process, if it runs.
    ///
    /// postmaster.pid lies in the server's user's hands, so a number in it is believed only of a process of that user
    /// that works in this data directory (the postmaster does: miscinit.c, `ChangeToDataDir`).
    pub fn running(&self) -> Option<Running> {
        let text = read_note(&self.data.join("postmaster.pid")).ok()?;
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let pid: i32 = lines.first()?.parse().ok().filter(|p| *p > 1)?;
        if !self.is_ours(pid) {
            return None;
        }
        Some(Running {
            pid,
            port: lines
                .get(3)
                .and_then(|p| p.parse().ok())
                .filter(|p| *p > 0)
                .unwrap_or(self.port),
            socket_directory: lines.get(4).filter(|d| !d.is_empty()).map(|d| self.data.join(d)),
            listen: lines.get(5).copied().unwrap_or_default().to_owned(),
        })
    }

    /// Whether `pid` is a process of the server's user in this data directory.
    pub(super) fn is_ours(&self, pid: i32) -> bool {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let uid = fs::metadata(&process).map(|m| m.uid());
        // Reading another user's /proc/PID/cwd takes CAP_SYS_PTRACE; as that user it takes nothing.
        let here = self.owner.act(|| fs::metadata(process.join("cwd")));
        let data = fs::metadata(&self.data);
        match (uid, here, data) {
            (Ok(uid), Ok(here), Ok(data)) => {
                uid == self.owner.uid && here.dev() == data.dev() && here.ino() == data.ino()
            }
            (Ok(_) | Err(_), Ok(_) | Err(_), Ok(_) | Err(_)) => false,
        }
    }

    /// The language of the log (`lc_messages`), as the configuration has it.
    ///
    /// # Errors
    /// A configuration that the program does not accept.
    pub fn messages(&self) -> Result<String, PostgresError> {
        self.setting("lc_messages")
    }

    /// What its collector calls its files.
    ///
    /// # Errors
    /// As for [`Server::find`].
    pub fn log_names(&self) -> Result<LogNames, PostgresError> {
        Ok(LogNames::of(&self.setting("log_filename")?))
    }

    /// `listen_addresses` as it is at the server's next start.
    ///
    /// # Errors
    /// A configuration that the program does not accept.
    pub fn listen_addresses(&self) -> Result<Vec<String>, PostgresError> {
        Ok(list(&self.setting("listen_addresses")?))
    }

    /// Asks the program for one setting, which also says whether the configuration is accepted.
    pub(super) fn setting(&self, name: &'static str) -> Result<String, PostgresError> {
        self.program_to_ask().setting(name)
    }

    /// The same of any name; `None` where the program does not know it.
    pub(super) fn setting_if_known(&self, name: &str) -> Result<Option<String>, PostgresError> {
        let output = self.program_to_ask().answer(name)?;
        let known = output.status.success();
        Ok(known.then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned()))
    }

    fn program_to_ask(&self) -> Ask {
        Ask {
            program: self.program.clone(),
            owner: self.owner.clone(),
            config_file: self.config_file.clone(),
            directory: self.data.clone(),
            options: self.options.clone(),
        }
    }
}

impl Running {
    /// The Unix socket.
    pub fn socket(&self) -> Option<PathBuf> {
        let directory = self.socket_directory.as_ref()?;
        Some(directory.join(format!(".s.PGSQL.{}", self.port)))
    }

    /// An address of this host on which it listens for TCP; `None` when it does not.
    pub fn tcp(&self) -> Option<SocketAddr> {
        let address = match self.listen.as_str() {
            "" => return None,
            "*" | "localhost" | "0.0.0.0" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            "::" => IpAddr::V6(Ipv6Addr::LOCALHOST),
            other => {
                use std::net::ToSocketAddrs;
                return (other, self.port).to_socket_addrs().ok()?.next();
            }
        };
        Some(SocketAddr::new(address, self.port))
    }
}

/// `postgres -C`: reads the configuration as the server would and prints one setting.
struct Ask {
    program: PathBuf,
    owner: Owner,
    config_file: PathBuf,
    directory: PathBuf,
    options: Options,
}

impl Ask {
    /// Several at once.
    fn settings<const N: usize>(&self, names: [&'static str; N]) -> Result<[String; N], PostgresError> {
        let answers = std::thread::scope(|scope| {
            let asked = names.map(|name| scope.spawn(move || self.setting(name)));
            asked.map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        });
        let mut values = [const { String::new() }; N];
        for (value, answer) in values.iter_mut().zip(answers) {
            *value = answer?;
        }
        Ok(values)
    }

    fn answer(&self, name: &str) -> Result<std::process::Output, PostgresError> {
        let with_options = self.answer_with(name, &self.options)?;
        if with_options.status.success() || self.options == Options::default() {
            return Ok(with_options);
        }
        // What stands in postmaster.opts cannot always be taken apart.
        self.answer_with(name, &Options::default())
    }

    fn answer_with(&self, name: &str, options: &Options) -> Result<std::process::Output, PostgresError> {
        let mut config_file = std::ffi::OsString::from("--config-file=");
        config_file.push(&self.config_file);
        self.owner
            .command(&self.program)
            // A relative name counts from where it is started (guc.c: `SelectConfigFiles`); nobody else knows where that was.
            .current_dir(&self.directory)
            .args(["-C", name, "-D"])
            .arg(&self.directory)
            .arg(config_file)
            .args(options.arguments().flat_map(|option| ["-c".to_owned(), option]))
            .output()
            .map_err(PostgresError::file("cannot run", &self.program))
    }

    fn setting(&self, name: &'static str) -> Result<String, PostgresError> {
        let output = self.answer(name)?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(PostgresError::Settings {
                setting: name,
                config_file: self.config_file.clone(),
                message: text.lines().next().unwrap_or("no reason given").to_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }
}

/// A small file in a server's data directory, which lies in its user's hands: no link is followed, no pipe waited for.
pub(super) fn read_note(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?
        .take(1 << 16)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// postgresql.conf, and the folder by which the server's user is known: as the configuration says, nobody asked.
pub(super) fn files_of(cluster: &Cluster) -> (PathBuf, PathBuf) {
    match &cluster.location {
        Location::Debian { major, name } => {
            let directory = PathBuf::from(format!("/etc/postgresql/{major}/{name}"));
            (directory.join("postgresql.conf"), directory)
        }
        Location::Directories { data, config_file } => (config_file.clone(), data.clone()),
    }
}

/// The major version a data directory was made by: `15` in PG_VERSION.
fn major_of(data: &Path) -> Option<u16> {
    let text = fs::read_to_string(data.join("PG_VERSION")).ok()?;
    text.trim().split('.').next()?.parse().ok()
}

/// The program that last started on this data directory, wherever somebody built it: postmaster.opts names it, then
/// its arguments in quotes, once the directory was seen to be of its version (postmaster.c: `checkDataDir`,
/// `CreateOptsFile`). It is run as the server's user, who wrote that.
fn last_started(data: &Path) -> Option<PathBuf> {
    let text = read_note(&data.join("postmaster.opts")).ok()?;
    let program = text.lines().next()?.split(" \"").next()?;
    let program = PathBuf::from(program);
    (program.is_absolute() && program.is_file()).then_some(program)
}

/// Where the packages of Debian, of the PostgreSQL project's yum repository, and plain builds put the program.
fn program(major: u16) -> Result<PathBuf, PostgresError> {
    let of_one_major = [
        format!("/usr/lib/postgresql/{major}/bin/postgres"),
        format!("/usr/pgsql-{major}/bin/postgres"),
    ]
    .map(PathBuf::from);
    let of_any = ["/usr/local/pgsql/bin/postgres", "/usr/bin/postgres"].map(PathBuf::from);
    let mut all = of_one_major
        .into_iter()
        .filter(|p| p.is_file())
        .chain(of_any.into_iter().filter(|p| is_of(p, major)));
    all.next().ok_or(PostgresError::NoProgram { major })
}

/// `postgres (PostgreSQL) 16.14 (Debian …)`
fn is_of(program: &Path, major: u16) -> bool {
    let said = Command::new(program).arg("--version").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    said.is_ok_and(|said| version_in(&said) == Some(major))
}

fn version_in(said: &str) -> Option<u16> {
    let version = said.strip_prefix("postgres (PostgreSQL) ")?;
    // A release candidate is `18rc1`.
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// A list as varlena.c's `SplitGUCList` reads one: commas, blanks, quotes around a name.
pub(super) fn list(text: &str) -> Vec<String> {
    let names = text
        .split(',')
        .map(|name| name.trim().trim_matches('"').to_owned());
    names.filter(|name| !name.is_empty()).collect()
}

/// The first of a comma-separated list, which may be quoted; `@…` is an abstract socket and no directory.
fn first_directory(list: &str, data: &Path) -> Option<PathBuf> {
    let first = list.split(',').next()?.trim().trim_matches('"');
    (!first.is_empty() && !first.starts_with('@')).then(|| data.join(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_read_from_what_the_server_wrote_at_its_start() {
        let folder = tempfile::tempdir().expect("a directory");
        let opts = folder.path().join("postmaster.opts");
        let program = folder.path().join("post gres");
        let started = |text: String| {
            fs::write(&opts, text).expect("a file");
            last_started(folder.path())
        };
        assert_eq!(last_started(folder.path()), None);
        let line = format!("{} \"-D\" \"/srv/data\"\n", program.display());
        assert_eq!(started(line.clone()), None, "it is gone");
        fs::write(&program, "").expect("a file");
        assert_eq!(started(line), Some(program.clone()));
        assert_eq!(started(format!("{}\n", program.display())), Some(program.clone()));
        assert_eq!(started("postgres \"-D\"\n".to_owned()), None, "relative");
        // Not through a link: that user may have made it.
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(&opts, &elsewhere).expect("a file");
        std::os::unix::fs::symlink(&elsewhere, &opts).expect("a link");
        assert_eq!(last_started(folder.path()), None);
    }

    #[test]
    fn a_program_says_its_major() {
        let rows = [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 18rc1\n", Some(18)),
            ("postgres (PostgreSQL) 18devel\n", Some(18)),
            ("psql (PostgreSQL) 16.14\n", None),
            ("", None),
        ];
        for (said, major) in rows {
            assert_eq!(version_in(said), major, "{said}");
        }
    }
}
