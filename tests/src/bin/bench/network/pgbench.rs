//! A real PostgreSQL on the host, and pgbench outside.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::{Pid, User, chown};
use pgfw_tests::lab::{Child, PgCluster, run};
use pgfw_tests::scratch::pki::Authority;

use super::generator::{Ahead, put_ahead};
use super::{CLIENT_NETWORK, HOST, Link};
use crate::machine::Pinned;
use crate::report::Samples;

/// How the transactions come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// On connections that stay open.
    Kept,
    /// Each on a connection of its own.
    Anew,
}

/// What one run of pgbench gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transactions {
    pub(crate) per_second: f64,
    /// Milliseconds from the end of one to the end of the next of the same client, of 99 in a hundred: with what
    /// connecting takes.
    pub(crate) p99: f64,
}

/// A server with pgbench's tables, on one core.
#[derive(Debug)]
pub(crate) struct Server<'link> {
    link: &'link Link,
    cluster: PgCluster<'link>,
    core: usize,
}

/// Clients of pgbench, all in one thread.
const CLIENTS: u32 = 4;

const MINUTE: Duration = Duration::from_secs(60);

impl<'link> Server<'link> {
    pub(crate) fn start(link: &'link Link, core: usize) -> Server<'link> {
        let mut cluster = PgCluster::start_new(&link.host);
        let folder = cluster.config_dir();
        let leaf = Authority::new("bench").server("db.example.com", &[1]);
        let (certificate, key) = (folder.join("bench.crt"), folder.join("bench.key"));
        link.host.write(&certificate, &leaf.certificate);
        link.host.write(&key, &leaf.key);
        let owner = User::from_name("postgres")
            .expect("users can be looked up")
            .expect("the package makes this user");
        link.host.within(|| {
            chown(&key, Some(owner.uid), Some(owner.gid)).expect("a key's owner");
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a key's mode");
        });
        let rules = folder.join("pg_hba.conf");
        let present = link.host.read(&rules);
        link.host.write(
            &rules,
            &format!("hostssl all all {CLIENT_NETWORK} trust\n{present}"),
        );
        for (name, value) in [
            ("ssl", "on".to_owned()),
            ("ssl_cert_file", certificate.display().to_string()),
            ("ssl_key_file", key.display().to_string()),
            ("autovacuum", "off".to_owned()),
        ] {
            cluster.sql(&format!("alter system set {name} = '{value}'"));
        }
        cluster.restart();
        let server = Server { link, cluster, core };
        let mut fill = link.host.command_as_user(server.program(), "postgres");
        fill.args(["--initialize", "--quiet", "--host", "/run/postgresql", "postgres"]);
        run(&mut fill).expect_success();
        server.hold();
        server
    }

    /// The server's processes from now on: on one core, before whatever else wants it.
    fn hold(&self) {
        let file = self.cluster.data_dir().join("postmaster.pid");
        let text = self.link.host.read(file);
        let pid = text.lines().next().and_then(|line| line.parse().ok());
        let pid = pid.expect("the server's process");
        let mut one = nix::sched::CpuSet::new();
        one.set(self.core).expect("a core's number");
        nix::sched::sched_setaffinity(Pid::from_raw(pid), &one).expect("a server can be held on a core");
        put_ahead(pid, libc::SCHED_FIFO, 1);
    }

    /// So many transactions of one select each, over TLS, from outside, by a client on the server's core.
    pub(crate) fn transactions(&self, sessions: Sessions, count: u32) -> Transactions {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut pgbench = self.link.outside.command(self.program());
        pgbench
            .args(["--select-only", "--no-vacuum", "--protocol", "prepared"])
            .args(["--host", &HOST.to_string(), "--username", "postgres"])
            .args(["--client", &CLIENTS.to_string(), "--jobs", "1"])
            .args(["--transactions", &(count / CLIENTS).to_string()])
            .args(["--log", "--log-prefix"])
            .arg(folder.path().join("log"))
            .args((sessions == Sessions::Anew).then_some("--connect"))
            .arg("postgres");
        pgbench
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("PGSSLMODE", "require");
        let mut pgbench = {
            let _core = Pinned::to(self.core);
            let _ahead = Ahead::of_all();
            Child::start(&mut pgbench)
        };
        let end = pgbench.wait(MINUTE);
        assert!(end.success(), "pgbench: {}{}", pgbench.stdout(), pgbench.stderr());
        let said = pgbench.stdout();
        let per_second = said
            .lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("pgbench says no tps:\n{said}"));
        let logs = fs::read_dir(folder.path()).expect("a folder").flatten();
        let logs: Vec<String> = logs
            .map(|log| fs::read_to_string(log.path()).expect("a log"))
            .collect();
        Transactions {
            per_second,
            p99: intervals(&logs.concat()).quantile(0.99),
        }
    }

    /// The package that brings the server brings pgbench.
    fn program(&self) -> PathBuf {
        format!("/usr/lib/postgresql/{}/bin/pgbench", self.cluster.major()).into()
    }
}

/// Milliseconds between two ends, client by client. A line: client, transaction, latency, script, seconds, microseconds.
fn intervals(log: &str) -> Samples {
    let mut last: BTreeMap<u64, f64> = BTreeMap::new();
    let mut all = Samples::default();
    for line in log.lines() {
        let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [client, _, _, _, seconds, micros] = numbers[..] else {
            panic!("not a line of pgbench's log: {line}");
        };
        let end = seconds as f64 * 1e3 + micros as f64 / 1e3;
        if let Some(before) = last.insert(client, end) {
            all.push(end - before);
        }
    }
    all
}
