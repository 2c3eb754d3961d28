//! A real PostgreSQL as Debian lays it out.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::process::{self, Child, run};
use super::{Host, PATIENCE, Psql, eventually};

/// The cluster `NN/main` of a host, on port 5432, running until it is stopped or dropped.
///
/// The server runs as a child of the test instead of under pg_ctlcluster; its files are where Debian's
/// tools put them, and those tools see it.
#[derive(Debug)]
pub struct PgCluster<'host> {
    host: &'host Host,
    major: u32,
    server: Option<Child>,
}

impl<'host> PgCluster<'host> {
    pub const PORT: u16 = 5432;

    /// Makes the cluster with the newest server installed, on every address, and starts it.
    pub fn start_new(host: &'host Host) -> PgCluster<'host> {
        PgCluster::start_with(host, &["listen_addresses=*"])
    }

    /// The same as the package makes it: it listens on localhost only.
    pub fn start_as_packaged(host: &'host Host) -> PgCluster<'host> {
        PgCluster::start_with(host, &[])
    }

    fn start_with(host: &'host Host, options: &[&str]) -> PgCluster<'host> {
        let major = newest_major();
        let mut create = host.command("pg_createcluster");
        create.args([
            &major.to_string(),
            "main",
            "--port",
            "5432",
            "--start-conf",
            "manual",
        ]);
        create.args(["--encoding", "UTF8", "--locale", "C"]);
        for option in options.iter().chain(&["fsync=off"]) {
            create.args(["--pgoption", option]);
        }
        create.args(["--", "--no-sync"]);
        run(&mut create).expect_success();
        let mut cluster = PgCluster {
            host,
            major,
            server: None,
        };
        cluster.start();
        cluster
    }

    /// Debian's name, `15/main`.
    pub fn name(&self) -> String {
        format!("{}/main", self.major)
    }

    pub fn major(&self) -> u32 {
        self.major
    }

    pub fn config_dir(&self) -> PathBuf {
        PathBuf::from(format!("/etc/postgresql/{}/main", self.major))
    }

    pub fn data_dir(&self) -> PathBuf {
        PathBuf::from(format!("/var/lib/postgresql/{}/main", self.major))
    }

    #[track_caller]
    pub fn start(&mut self) {
        let program = format!("{}/{}/bin/postgres", SERVERS, self.major);
        let mut server = self.host.command_as_user(&program, "postgres");
        server.arg("-D").arg(self.data_dir()).current_dir("/");
        server.arg("-c").arg(format!(
            "config_file={}/postgresql.conf",
            self.config_dir().display()
        ));
        server.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
        let mut server = Child::start(&mut server).talkative();
        eventually("PostgreSQL accepts connections", PATIENCE, || {
            assert!(!server.has_ended(), "PostgreSQL ended:\n{}", server.stderr());
            // The log is the one place that tells without a login, whatever pg_hba.conf holds by now.
            let said = server.stderr();
            let is_ready = said.contains("database system is ready to accept")
                || said.contains("redirecting log output") && self.is_ready();
            is_ready.then_some(())
        });
        self.server = Some(server);
    }

    /// What the server says of itself where its log goes elsewhere (miscadmin.h: `LOCK_FILE_LINE_PM_STATUS`).
    fn is_ready(&self) -> bool {
        let file = self.data_dir().join("postmaster.pid");
        let text = self
            .host
            .within(|| std::fs::read_to_string(file))
            .unwrap_or_default();
        let status = text.lines().nth(7).unwrap_or_default().trim();
        matches!(status, "ready" | "standby")
    }

    /// A fast shutdown: sessions end, nothing is lost.
    #[track_caller]
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            process::stop(&mut server, Signal::SIGINT);
        }
    }

    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// What `pg_ctl reload` sends.
    pub fn reload(&self) {
        if let Some(server) = &self.server {
            server.signal(Signal::SIGHUP);
        }
    }

    /// The server's log since its start.
    pub fn log(&self) -> String {
        self.server.as_ref().map(Child::stderr).unwrap_or_default()
    }

    /// psql as the superuser, over the Unix socket.
    pub fn psql(&self) -> Psql<'host> {
        Psql::as_user(self.host, "postgres")
            .set("host", "/run/postgresql")
            .set("user", "postgres")
    }

    /// Runs SQL as the superuser and gives its rows, columns separated by `|`.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        self.psql().query(sql).expect_success().trim_end().to_owned()
    }
}

impl Drop for PgCluster<'_> {
    fn drop(&mut self) {
        // Without a shutdown its backends would outlive it for a moment.
        if let Some(server) = &mut self.server
            && !server.has_ended()
        {
            server.signal(Signal::SIGQUIT);
            if !std::thread::panicking() {
                server.wait(PATIENCE);
            }
        }
    }
}

const SERVERS: &str = "/usr/lib/postgresql";

fn newest_major() -> u32 {
    let folders = Path::new(SERVERS).read_dir().into_iter().flatten().flatten();
    let installed = folders.filter(|folder| folder.path().join("bin/postgres").exists());
    let majors = installed.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
    majors
        .max()
        .expect("no PostgreSQL server is installed: run `cargo xtask setup`")
}
