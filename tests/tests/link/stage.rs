//! What every test here begins with: a site whose database host has authorities, a server certificate, and applied rules.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgfw_tests::lab::{
    Daemon, Instance, Namespace, Outcome, PATIENCE, PgCluster, Psql, Reach, Session, SessionEnd, Site,
    address, eventually, tcp,
};
use serde_json::Value;
use tempfile::TempDir;

/// alice comes from the client's network; bob from anywhere that the filter admits; deputy has a role of alice's.
pub(crate) const CONFIG: &str = r#"
[firewall]
interfaces = ["eth0"]

[[postgres]]
name = "main"
cluster = "CLUSTER"
server_names = ["db.example.com", "10.10.0.10"]
KEYS

[[identity]]
name = "alice"
databases = ["app"]
networks = ["10.20.0.0/16"]

[[identity]]
name = "bob"
databases = ["app"]

[[identity]]
name = "deputy"
roles = ["alice"]
databases = ["app"]
"#;

pub(crate) struct Stage<'lab> {
    pub(crate) site: &'lab Site,
    pub(crate) pgfw: Instance<'lab>,
    pub(crate) cluster: PgCluster<'lab>,
    files: TempDir,
}

/// A certificate in the hands of a client.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) folder: PathBuf,
    /// What `cert issue --json` said.
    pub(crate) certificate: Value,
}

impl Leaf {
    pub(crate) fn serial(&self) -> &str {
        self.certificate["serial"].as_str().unwrap()
    }

    pub(crate) fn pem(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap()
    }
}

impl<'lab> Stage<'lab> {
    pub(crate) fn new(site: &'lab Site) -> Stage<'lab> {
        Stage::with(site, "", "")
    }

    /// `keys` of the cluster, further `sections`.
    pub(crate) fn with(site: &'lab Site, keys: &str, sections: &str) -> Stage<'lab> {
        let stage = Stage::bare(site, keys, sections);
        stage.pgfw.ok(&["ca", "init"]);
        stage.pgfw.ok(&["cert", "server"]);
        stage.pgfw.ok(&["pg", "apply"]);
        stage
    }

    /// A config, a server with roles, and nothing done yet.
    pub(crate) fn bare(site: &'lab Site, keys: &str, sections: &str) -> Stage<'lab> {
        let stage = Stage::around(site, PgCluster::start_new(&site.db), Instance::new(&site.db));
        stage.configure(keys, sections);
        stage
            .cluster
            .sql("create role alice login; create role bob login");
        stage.cluster.sql("create database app");
        stage
    }

    /// Nothing but the two.
    pub(crate) fn around(site: &'lab Site, cluster: PgCluster<'lab>, pgfw: Instance<'lab>) -> Stage<'lab> {
        Stage {
            site,
            pgfw,
            cluster,
            files: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn configure(&self, keys: &str, sections: &str) {
        let text = CONFIG
            .replace("CLUSTER", &self.cluster.name())
            .replace("KEYS", keys);
        self.pgfw.configure(&format!("{text}\n{sections}"));
    }

    /// The daemon, with its first policy confirmed.
    pub(crate) fn enforce(&self) -> Daemon {
        let daemon = self.pgfw.start();
        self.pgfw.ok(&["confirm"]);
        daemon
    }

    /// Issues a certificate and brings it to a client.
    #[track_caller]
    pub(crate) fn issue(&self, name: &str, further: &[&str]) -> Leaf {
        let folder = self.place(&format!("{name}-{}", unique()));
        let place = folder.to_str().unwrap().to_owned();
        let mut arguments = vec!["--json", "cert", "issue", name, "--bundle", &place];
        arguments.extend(further);
        let said: Value = serde_json::from_str(&self.pgfw.ok(&arguments)).unwrap();
        Leaf {
            folder,
            certificate: said["issued"]["certificate"].clone(),
        }
    }

    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// A file that psql takes for a key.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.place(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// psql at a machine, to the server under its name.
    pub(crate) fn psql(&self, from: &'lab Namespace, role: &str) -> Psql<'lab> {
        Psql::at(from)
            .set("host", "db.example.com")
            .set("hostaddr", address::DB.to_string())
            .set("user", role)
            .set("dbname", "app")
    }

    /// The same with a certificate, which also trusts the server's authority.
    pub(crate) fn with_certificate(&self, from: &'lab Namespace, role: &str, leaf: &Leaf) -> Psql<'lab> {
        self.psql(from, role)
            .set("sslmode", "verify-full")
            .set("sslrootcert", leaf.folder.join("root.crt"))
            .set("sslcert", leaf.folder.join("postgresql.crt"))
            .set("sslkey", leaf.folder.join("postgresql.key"))
    }

    #[track_caller]
    pub(crate) fn log_in(&self, from: &'lab Namespace, role: &str, leaf: &Leaf) -> Session {
        self.with_certificate(from, role, leaf)
            .open()
            .unwrap_or_else(|end| panic!("{role} does not get in: {end:?}"))
    }

    /// What psql says about a login that must not succeed.
    #[track_caller]
    pub(crate) fn refused(&self, psql: &Psql<'lab>) -> String {
        match psql.open() {
            Err(SessionEnd::Closed(said)) => said,
            Err(SessionEnd::Silent) => panic!("nothing answers"),
            Ok(_) => panic!("it got in: {}", psql.conninfo()),
        }
    }

    /// Whether the server's port answers.
    pub(crate) fn reach(&self, from: &Namespace) -> Reach {
        tcp(from, address::DB, PgCluster::PORT, Duration::from_millis(700))
    }

    #[track_caller]
    pub(crate) fn revoke(&self, target: &str) -> Value {
        serde_json::from_str(&self.pgfw.ok(&["--json", "cert", "revoke", target])).unwrap()
    }

    pub(crate) fn attention(&self) -> String {
        let status: Value = serde_json::from_str(&self.pgfw.ok(&["--json", "status"])).unwrap();
        status["attention"].to_string()
    }

    /// Waits until a session is over, and says how.
    #[track_caller]
    pub(crate) fn ends(&self, session: &mut Session) -> SessionEnd {
        eventually("the session ends", PATIENCE, || session.query("select 1").err())
    }

    /// How often the server was told to reload.
    pub(crate) fn reloads(&self) -> usize {
        self.cluster.log().matches("received SIGHUP").count()
    }
}

/// Asserts that a command failed in the way it should: exit code, what is named, what is to be done.
#[track_caller]
pub(crate) fn assert_fails(outcome: &Outcome, code: i32, words: &[&str]) {
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.code, Some(code), "{said}");
    for word in words {
        assert!(outcome.stderr.contains(word), "no {word:?} in:\n{said}");
    }
    assert!(outcome.stderr.lines().count() >= 2, "no remedy in:\n{said}");
}

pub(crate) fn unique() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A file that stands on the database host.
pub(crate) fn on_host(stage: &Stage<'_>, path: impl AsRef<Path>) -> String {
    stage.site.db.read(path.as_ref())
}
