//! What every test here begins with: a database host with a gate, and people who hold certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgfw_tests::lab::{
    Daemon, Gate, Instance, Namespace, Outcome, PgCluster, Psql, Reach, Site, address, run, tcp,
};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const PORT: u16 = 5430;

/// alice roams; bob comes from the client's network and does not.
pub(crate) const CONFIG: &str = r#"
[firewall]
interfaces = ["eth0"]

[[postgres]]
name = "main"
cluster = "CLUSTER"
server_names = ["db.example.com", "10.10.0.10", "fd00:10::10"]

[gate]
listen = "[::]:5430"
KEYS

[[identity]]
name = "alice"
databases = ["app"]
roaming = true

[[identity]]
name = "bob"
databases = ["app"]
networks = ["10.20.0.0/16"]
"#;

pub(crate) struct Stage<'lab> {
    pub(crate) site: &'lab Site,
    pub(crate) pgfw: Instance<'lab>,
    pub(crate) cluster: PgCluster<'lab>,
    files: TempDir,
}

/// A certificate in somebody's hands: `postgresql.crt`, `postgresql.key` and `root.crt` in a folder.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) folder: PathBuf,
    pub(crate) serial: String,
}

/// What the gate answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl<'lab> Stage<'lab> {
    pub(crate) fn new(site: &'lab Site) -> Stage<'lab> {
        Stage::with(site, "", "")
    }

    /// `keys` of the gate, further `sections`.
    pub(crate) fn with(site: &'lab Site, keys: &str, sections: &str) -> Stage<'lab> {
        let stage = Stage {
            site,
            pgfw: Instance::new(&site.db),
            cluster: PgCluster::start_new(&site.db),
            files: tempfile::tempdir().unwrap(),
        };
        fs::set_permissions(stage.files.path(), fs::Permissions::from_mode(0o755)).unwrap();
        stage.pgfw.make_gate_user();
        stage.configure(keys, sections);
        stage
            .cluster
            .sql("create role alice login; create role bob login");
        stage.cluster.sql("create database app");
        stage.pgfw.ok(&["ca", "init"]);
        stage.pgfw.ok(&["cert", "server"]);
        stage.pgfw.ok(&["pg", "apply"]);
        stage
    }

    pub(crate) fn configure(&self, keys: &str, sections: &str) {
        let text = CONFIG
            .replace("CLUSTER", &self.cluster.name())
            .replace("KEYS", keys);
        self.pgfw.configure(&format!("{text}\n{sections}"));
    }

    /// The daemon, with its policy confirmed, and the gate.
    #[track_caller]
    pub(crate) fn open(&self) -> (Daemon, Gate) {
        (self.pgfw.enforce(), self.pgfw.start_gate())
    }

    #[track_caller]
    pub(crate) fn issue(&self, name: &str, further: &[&str]) -> Leaf {
        let folder = self.place(&format!("{name}-{}", unique()));
        let place = folder.to_str().unwrap().to_owned();
        let mut arguments = vec!["--json", "cert", "issue", name, "--bundle", &place];
        arguments.extend(further);
        let said: Value = serde_json::from_str(&self.pgfw.ok(&arguments)).unwrap();
        let serial = said["issued"]["certificate"]["serial"]
            .as_str()
            .unwrap()
            .to_owned();
        Leaf { folder, serial }
    }

    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// curl at a machine, as the README says it, with further arguments.
    #[track_caller]
    pub(crate) fn curl(&self, from: &Namespace, leaf: &Leaf, path: &str, further: &[&str]) -> Answer {
        self.try_curl(from, leaf, address::DB, path, further)
            .unwrap_or_else(|outcome| panic!("curl: {outcome:?}"))
    }

    /// The same for one that may not be answered.
    pub(crate) fn try_curl(
        &self,
        from: &Namespace,
        leaf: &Leaf,
        to: std::net::IpAddr,
        path: &str,
        further: &[&str],
    ) -> Result<Answer, Outcome> {
        let file = |name: &str| leaf.folder.join(name).to_str().unwrap().to_owned();
        let to = match to {
            std::net::IpAddr::V4(v4) => v4.to_string(),
            std::net::IpAddr::V6(v6) => format!("[{v6}]"),
        };
        let mut command = from.command("curl");
        command
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "40",
                "--write-out",
                "\n%{http_code}",
            ])
            .args(["--resolve", &format!("db.example.com:{PORT}:{to}")])
            .args([
                "--cert",
                &file("postgresql.crt"),
                "--key",
                &file("postgresql.key"),
            ])
            .args(["--cacert", &file("root.crt")])
            .args(further)
            .arg(format!("https://db.example.com:{PORT}{path}"));
        let outcome = run(&mut command);
        if !outcome.success() {
            return Err(outcome);
        }
        let (body, status) = outcome.stdout.rsplit_once('\n').unwrap();
        Ok(Answer {
            status: status.parse().unwrap(),
            body: serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}")),
        })
    }

    #[track_caller]
    pub(crate) fn lease(&self, from: &Namespace, leaf: &Leaf) -> Answer {
        let answer = self.curl(from, leaf, "/lease", &["--request", "POST"]);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    pub(crate) fn psql(&self, from: &'lab Namespace, role: &str, leaf: &Leaf) -> Psql<'lab> {
        Psql::at(from)
            .set("host", "db.example.com")
            .set("hostaddr", address::DB.to_string())
            .set("user", role)
            .set("dbname", "app")
            .certificate(&leaf.folder, "postgresql")
    }

    /// Whether the server's port answers.
    pub(crate) fn reach(&self, from: &Namespace) -> Reach {
        self.reach_at(from, PgCluster::PORT)
    }

    pub(crate) fn reach_at(&self, from: &Namespace, port: u16) -> Reach {
        tcp(from, address::DB, port, Duration::from_millis(700))
    }

    /// What `pgfw list` says of leases: network, identity, until.
    pub(crate) fn leases(&self) -> Vec<(String, String, String)> {
        let list: Value = serde_json::from_str(&self.pgfw.ok(&["--json", "list"])).unwrap();
        let networks = list["networks"].as_array().unwrap().iter();
        let because = networks.flat_map(|n| n["because"].as_array().unwrap());
        let leases = because.filter(|b| b["origin"]["kind"] == "lease");
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let mut all: Vec<_> = leases
            .map(|b| (text(&b["net"]), text(&b["origin"]["name"]), text(&b["until"])))
            .collect();
        all.sort();
        all.dedup();
        all
    }
}

pub(crate) fn unique() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
