//! The scratch server's process and its data directory, which is kept for the next trial: making one takes a second.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::pki::Throwaway;
use crate::postgres::settings::{HBA, IDENT};
use crate::postgres::{Server, hba::quote};

/// The namespace is its own, so the port needs no luck.
pub(super) const PORT: u16 = 5432;

/// A data directory of the server's user, with no server.
pub(super) struct Kept<'a> {
    server: &'a Server,
    folder: PathBuf,
}

pub(super) struct Scratch {
    child: Child,
}

pub(super) enum Refusal {
    /// The server read the rules and does not take them.
    Rules(String),
    Other(String),
}

impl<'a> Kept<'a> {
    /// The one that is there, or a new one.
    pub(super) fn open(server: &'a Server, folder: &Path) -> Result<Kept<'a>, Refusal> {
        let kept = Kept {
            server,
            folder: folder.to_owned(),
        };
        let made_by = fs::read_to_string(folder.join(MADE_BY)).unwrap_or_default();
        if !made_by.is_empty() && made_by == kept.program_now() {
            return Ok(kept);
        }
        Kept::fresh(server, folder)
    }

    /// A new one in the place of whatever is there. All below the folder is done as the server's user: what that user
    /// can write is no place for root to follow links in.
    pub(super) fn fresh(server: &'a Server, folder: &Path) -> Result<Kept<'a>, Refusal> {
        let failed = |what: &'static str| move |e: io::Error| Refusal::Other(format!("{what}: {e}"));
        match fs::remove_dir_all(folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("its folder")(e)),
            Ok(()) | Err(_) => {}
        }
        let made = fs::DirBuilder::new().mode(0o755).create(folder);
        made.map_err(failed("its folder"))?;
        let data = folder.join(DATA);
        let made = fs::DirBuilder::new().mode(0o700).create(&data);
        made.and_then(|()| chown(&data, Some(server.owner.uid), Some(server.owner.gid)))
            .map_err(failed("its folder"))?;
        let kept = Kept {
            server,
            folder: folder.to_owned(),
        };
        let initdb = server.program.with_file_name("initdb");
        let made = server
            .owner
            .command(&initdb)
            .args(["--no-sync", "--no-instructions", "--no-locale", "--encoding=UTF8"])
            // Its WAL is one megabyte and not sixteen.
            .args(["--auth=reject", "--wal-segsize=1", "-D"])
            .arg(&data)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Refusal::Other(format!("{}: {e}", initdb.display())))?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            let said = said.lines().last().unwrap_or("no reason given");
            return Err(Refusal::Other(format!("{}: {said}", initdb.display())));
        }
        fs::write(folder.join(MADE_BY), kept.program_now()).map_err(failed("its folder"))?;
        Ok(kept)
    }

    /// Which program would run: another one makes a new directory.
    fn program_now(&self) -> String {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(&self.server.program).map_or(String::new(), |m| {
            let Server { program, owner, .. } = self.server;
            format!("{} {} {} {}", program.display(), m.ino(), m.mtime(), owner.uid)
        })
    }

    /// Starts the server on these rules, and waits until it takes connections.
    pub(super) fn start(&self, rules: &Path, authority: &Throwaway) -> Result<Scratch, Refusal> {
        let other = |e: io::Error| Refusal::Other(e.to_string());
        let data = self.folder.join(DATA);
        let log = data.join("pgfw.log");
        let files = [
            ("server.crt", authority.server_certificate.clone()),
            ("server.key", authority.server_key.clone()),
            ("client-ca.crt", authority.certificate.clone()),
            ("postgresql.conf", settings(rules)),
            ("postgresql.auto.conf", String::new()),
            ("pgfw.log", String::new()),
        ];
        let owner = &self.server.owner;
        let log_file = owner
            .act(|| {
                // Ours alone, under the cluster's lock: who left it is dead.
                let _stale = fs::remove_file(data.join("postmaster.pid"));
                for (name, text) in &files {
                    write(&data.join(name), text)?;
                }
                File::options().append(true).open(&log)
            })
            .map_err(other)?;
        let mut command = owner.command(&self.server.program);
        command
            .arg("-D")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file);
        // An immediate shutdown, should this thread end before it: nobody else would stop it.
        // SAFETY: prctl(2) is async-signal-safe and takes numbers only.
        unsafe {
            command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGQUIT).map_err(io::Error::from));
        }
        let mut scratch = Scratch {
            child: command.spawn().map_err(other)?,
        };
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(Some(_)) = scratch.child.try_wait() {
                return Err(self.why(&log));
            }
            let pid_file = owner.act(|| fs::read_to_string(data.join("postmaster.pid")));
            // miscadmin.h: LOCK_FILE_LINE_PM_STATUS.
            let status = pid_file.as_deref().unwrap_or_default().lines().nth(7);
            if status.is_some_and(|status| status.trim() == "ready") {
                return Ok(scratch);
            }
            if Instant::now() > until {
                return Err(Refusal::Other("it does not become ready".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What the server said before it ended. An error in pg_hba.conf is fatal at a start, and its line is named
    /// (hba.c: `load_hba`).
    fn why(&self, log: &Path) -> Refusal {
        let text = self
            .server
            .owner
            .act(|| fs::read_to_string(log))
            .unwrap_or_default();
        let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(":  ")).collect();
        let fatal: Vec<&str> = lines
            .iter()
            .filter(|(level, _)| *level == "FATAL")
            .map(|(_, said)| *said)
            .collect();
        if !fatal
            .iter()
            .any(|said| said.contains(HBA) || said.contains(IDENT))
        {
            return Refusal::Other(
                fatal
                    .last()
                    .map_or("it ended".to_owned(), |said| (*said).to_owned()),
            );
        }
        let complaints: Vec<String> = lines
            .windows(2)
            .filter_map(|pair| match pair {
                [(_, what), ("CONTEXT", place)] => Some(format!("{what} ({place})")),
                _ => None,
            })
            .collect();
        Refusal::Rules(if complaints.is_empty() {
            fatal.join("; ")
        } else {
            complaints.join("; ")
        })
    }
}

impl Scratch {
    /// A fast shutdown, so that the directory can be started from again.
    pub(super) fn stop(mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        let _reaped = self.child.wait();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            if let Ok(pid) = i32::try_from(self.child.id()) {
                let _gone = kill(Pid::from_raw(pid), Signal::SIGQUIT);
            }
            let _reaped = self.child.wait();
        }
    }
}

/// Nothing of the live server's, and nothing that outlives a trial.
fn settings(rules: &Path) -> String {
    let path = |name| quote::setting(&rules.join(name).to_string_lossy());
    format!(
        "listen_addresses = '*'\nport = {PORT}\nunix_socket_directories = ''\n\
         hba_file = {}\nident_file = {}\n\
         ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\nssl_ca_file = 'client-ca.crt'\n\
         ssl_min_protocol_version = 'TLSv1.2'\n\
         max_connections = 50\nsuperuser_reserved_connections = 0\nshared_buffers = '1MB'\n\
         fsync = off\nautovacuum = off\nmax_wal_senders = 20\n\
         logging_collector = off\nlog_destination = 'stderr'\nlog_line_prefix = ''\n\
         lc_messages = 'C'\n",
        path(HBA),
        path(IDENT)
    )
}

/// A new file, whatever was there.
fn write(path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

const DATA: &str = "data";
const MADE_BY: &str = "made-by";

/// A start takes a twentieth of a second.
const PATIENCE: Duration = Duration::from_secs(10);
