//! The steps, in order; each shows its commands and checks what came of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pgfw_tests::lab::{
    Daemon, Instance, Namespace, Outcome, PgCluster, PortState, Psql, Reach, Session, SessionEnd, Site,
    address, eventually, port_scan, tcp,
};

use super::screen::{caption, check, command, fail, note, output, right};

/// Everybody on stage.
pub(crate) struct Cast<'lab> {
    site: &'lab Site,
    pgfw: &'lab Instance<'lab>,
    cluster: &'lab PgCluster<'lab>,
    files: PathBuf,
    alices: Option<Session>,
    bobs: Option<Session>,
}

const CONFIG: &str = r#"[firewall]
interfaces = ["eth0"]

[[postgres]]
name = "main"
cluster = "CLUSTER"
server_names = ["db.example.com", "10.10.0.10"]

[[identity]]
name = "alice"
databases = ["app"]
networks = ["10.20.0.0/16"]

[[identity]]                    # may come from anywhere the filter admits
name = "bob"
databases = ["app"]

[[login]]                       # cannot use certificates yet
name = "exporter"
method = "scram-sha-256"
databases = ["postgres"]
networks = ["127.0.0.1/32"]
"#;

impl<'lab> Cast<'lab> {
    pub(crate) fn new(
        site: &'lab Site,
        pgfw: &'lab Instance<'lab>,
        cluster: &'lab PgCluster<'lab>,
        files: &Path,
    ) -> Cast<'lab> {
        Cast {
            site,
            pgfw,
            cluster,
            files: files.to_owned(),
            alices: None,
            bobs: None,
        }
    }

    pub(crate) fn set_up(&mut self) {
        caption("Who may connect, from where, as which role: /etc/pgfw/pgfw.toml");
        let config = CONFIG.replace("CLUSTER", &self.cluster.name());
        output(&config);
        self.pgfw.configure(&config);
        self.cluster.sql("create role alice login; create role bob login");
        self.cluster.sql("create role exporter login password 'watching'");
        self.cluster.sql("create database app");
        self.pgfw(&["config", "check"]);

        caption("Certificates: two authorities, the server's certificate, one for alice, one for bob");
        self.pgfw(&["ca", "init"]);
        self.pgfw(&["cert", "server"]);
        for name in ["alice", "bob"] {
            let bundle = self.folder(name);
            self.pgfw(&["cert", "issue", name, "--bundle", &bundle.to_string_lossy()]);
        }

        caption("Logins: pg_hba.conf, pg_ident.conf and TLS, proven on the running server");
        self.pgfw(&["pg", "apply"]);
    }

    pub(crate) fn enforce(&self) -> Daemon {
        caption("Packets: the first enforcement is on probation until it is confirmed");
        command("systemctl enable --now pgfw        # here: pgfw run");
        let daemon = self.pgfw.start();
        let status = self.pgfw(&["status"]);
        check(
            status.starts_with("On probation"),
            "not confirmed, it would undo itself in five minutes",
        );
        self.pgfw(&["confirm"]);
        let status = self.pgfw(&["status"]);
        check(status.starts_with("Protected"), "confirmed");
        daemon
    }

    pub(crate) fn alice_logs_in(&mut self) {
        caption("alice logs in from her network, certificate against certificate (sslmode=verify-full)");
        let mut session = self
            .login(&self.site.client, "alice")
            .unwrap_or_else(|end| fail(&format!("{end:?}")));
        let who = session.query("select current_user, client_addr, version from pg_stat_ssl join pg_stat_activity using (pid) where pid = pg_backend_pid()");
        output(who.as_deref().unwrap_or_default());
        check(
            who.is_ok_and(|w| w == "alice|10.20.0.10|TLSv1.3"),
            "alice is in, over TLS 1.3",
        );
        self.alices = Some(session);

        let scram = Psql::at(&self.site.db)
            .set("host", "db.example.com")
            .set("hostaddr", "127.0.0.1")
            .set("user", "exporter")
            .set("dbname", "postgres")
            .set("sslrootcert", self.folder("alice").join("root.crt"))
            .set("sslmode", "verify-full")
            .set("password", "watching");
        let done = scram.query("select current_user");
        check(
            done.success(),
            "the exporter, which cannot use certificates yet, logs in with its password over TLS",
        );
    }

    pub(crate) fn the_wrong_ones_are_refused(&self) {
        caption("Plaintext, and a certificate of another authority");
        let plain = self
            .server(&self.site.client)
            .set("user", "alice")
            .set("dbname", "app")
            .set("sslmode", "disable");
        let said = self.psql(&plain, "select 1");
        check(
            !said.success() && said.stderr.contains("pg_hba.conf rejects"),
            "plaintext is refused",
        );

        note("An impostor's authority issues a certificate for alice:");
        let config = CONFIG.replace("CLUSTER", &self.cluster.name());
        let pki = self.folder("impostor");
        let file = self.folder("impostor.toml");
        let text = format!("{config}\n[pki]\ndirectory = \"{}\"\n", pki.join("pki").display());
        std::fs::write(&file, text).unwrap_or_else(|e| fail(&e.to_string()));
        let (file, state) = (
            file.to_string_lossy().into_owned(),
            pki.join("state").to_string_lossy().into_owned(),
        );
        let impostor = Instance::new(&self.site.db)
            .env("PGFW_CONFIG", &file)
            .env("PGFW_STATE_DIR", &state)
            .env("PGFW_BPFFS", "/sys/fs/bpf/impostor");
        impostor.ok(&["ca", "init"]);
        impostor.ok(&[
            "cert",
            "issue",
            "alice",
            "--bundle",
            &pki.join("alice").to_string_lossy(),
        ]);
        let forged = self
            .server(&self.site.client)
            .set("user", "alice")
            .set("dbname", "app")
            .set("sslmode", "verify-full")
            .set("sslrootcert", self.folder("alice").join("root.crt"))
            .set("sslcert", pki.join("alice/postgresql.crt"))
            .set("sslkey", pki.join("alice/postgresql.key"));
        let said = self.psql(&forged, "select 1");
        check(
            !said.success() && said.stderr.contains("unknown ca"),
            "a certificate of another authority is refused",
        );
    }

    pub(crate) fn the_stranger_finds_ssh_only(&self) {
        caption("The stranger");
        let bob = self.as_bob(&self.site.stranger).set("connect_timeout", "3");
        let said = self.psql(&bob, "select 1");
        check(
            !said.success() && said.stderr.contains("timeout expired"),
            "psql gets no answer at all",
        );
        command("nmap -sS -p 1-1024,5430-5435 10.10.0.10");
        let found = port_scan(&self.site.stranger, address::DB, "1-1024,5430-5435", &["-sS"]);
        let open: Vec<u16> = found
            .iter()
            .filter(|(_, s)| **s == PortState::Open)
            .map(|(p, _)| *p)
            .collect();
        let filtered = found.values().filter(|s| **s == PortState::Filtered).count();
        note(&format!(
            "open: {open:?}; filtered: {filtered}; closed: {}",
            found.len() - open.len() - filtered
        ));
        check(
            open == [22] && filtered == found.len() - 1,
            "the scan finds SSH and nothing else",
        );
    }

    pub(crate) fn a_network_opens_and_closes(&mut self) {
        caption(
            "pgfw allow lets the stranger's network reach the server at once, which still wants a certificate",
        );
        self.pgfw(&[
            "allow",
            address::STRANGER_NETWORK,
            "--for",
            "2h",
            "--comment",
            "bob is travelling",
        ]);
        let bare = self
            .server(&self.site.stranger)
            .set("user", "bob")
            .set("dbname", "app")
            .set("sslmode", "require");
        let said = self.psql(&bare, "select 1");
        check(
            !said.success() && said.stderr.contains("valid client certificate"),
            "without a certificate: reached, and refused by PostgreSQL",
        );
        let session = self
            .login(&self.site.stranger, "bob")
            .unwrap_or_else(|end| fail(&format!("{end:?}")));
        right("bob, who may come from anywhere, logs in from there");
        self.bobs = Some(session);
        self.pgfw(&["list"]);

        caption("pgfw remove closes it again; what is open goes on");
        self.pgfw(&["remove", address::STRANGER_NETWORK]);
        let reach = tcp(&self.site.stranger, address::DB, 5432, Duration::from_secs(1));
        check(reach == Reach::Silent, "no new connection from there");
        let goes_on = self
            .bobs
            .as_mut()
            .is_some_and(|s| s.query("select 1").is_ok_and(|r| r == "1"));
        check(goes_on, "bob's open session goes on");
        self.pgfw(&["check", "192.168.1.10"]);
    }

    pub(crate) fn alice_is_revoked(&mut self) {
        caption("alice's certificate is revoked: CRL, filter, session");
        self.pgfw(&["cert", "revoke", "alice", "--reason", "key-compromise"]);
        let mut alices = self
            .alices
            .take()
            .unwrap_or_else(|| fail("alice was not logged in"));
        let end = eventually("alice's session ends", Duration::from_secs(5), || {
            alices.query("select 1").err()
        });
        match &end {
            SessionEnd::Closed(said) => output(said),
            SessionEnd::Silent => note("nothing comes back any more"),
        }
        right("her session is over");
        let goes_on = self.bobs.as_mut().is_some_and(|s| s.query("select 1").is_ok());
        check(goes_on, "bob's goes on");
        let reach = tcp(&self.site.client, address::DB, 5432, Duration::from_secs(1));
        check(reach == Reach::Silent, "her network is closed");

        note("Opened for another reason, it is the server that refuses her:");
        self.pgfw(&["allow", address::CLIENT_NETWORK]);
        let said = match self.login(&self.site.client, "alice") {
            Ok(_) => fail("alice logged in with a revoked certificate"),
            Err(SessionEnd::Closed(said)) => said,
            Err(SessionEnd::Silent) => fail("her network is open, and yet nothing answers"),
        };
        output(&said);
        check(said.contains("revoked"), "she is refused as revoked");
        self.pgfw(&["remove", address::CLIENT_NETWORK]);
    }

    pub(crate) fn the_daemon_dies_and_comes_back(&mut self, daemon: Daemon) -> Daemon {
        caption("The daemon is killed; enforcement stays");
        command(&format!("kill -9 {}", daemon.pid()));
        daemon.kill();
        let reach = tcp(&self.site.stranger, address::DB, 5432, Duration::from_secs(1));
        check(reach == Reach::Silent, "the stranger still finds nothing");
        let ssh = tcp(&self.site.stranger, address::DB, 22, Duration::from_secs(2));
        check(ssh == Reach::Open, "SSH is there");
        let goes_on = self.bobs.as_mut().is_some_and(|s| s.query("select 1").is_ok());
        check(goes_on, "bob's session goes on");

        command("systemctl start pgfw        # here: pgfw run");
        let daemon = self.pgfw.start();
        output(&daemon.log());
        check(daemon.log().contains("adopted"), "it adopts what runs");
        daemon
    }

    pub(crate) fn off(&mut self, daemon: Daemon) {
        caption("pgfw off leaves nothing");
        self.pgfw(&["off"]);
        let reach = tcp(&self.site.stranger, address::DB, 5432, Duration::from_secs(2));
        check(reach == Reach::Open, "every packet passes again");
        let left = self
            .site
            .db
            .within(|| std::path::Path::new("/sys/fs/bpf/pgfw").exists());
        check(!left, "no pin is left in /sys/fs/bpf");
        check(daemon.stop().success(), "the daemon stops when it is told to");
    }

    fn login(&self, from: &'lab Namespace, name: &str) -> Result<Session, SessionEnd> {
        let psql = self.with_certificate(from, name);
        command(&format!(
            "psql \"{}\"        # on {}",
            psql.conninfo(),
            from.name()
        ));
        psql.open()
    }

    fn as_bob(&self, from: &'lab Namespace) -> Psql<'lab> {
        self.with_certificate(from, "bob")
    }

    fn with_certificate(&self, from: &'lab Namespace, name: &str) -> Psql<'lab> {
        let folder = self.folder(name);
        self.server(from)
            .set("user", name)
            .set("dbname", "app")
            .set("sslmode", "verify-full")
            .set("sslrootcert", folder.join("root.crt"))
            .set("sslcert", folder.join("postgresql.crt"))
            .set("sslkey", folder.join("postgresql.key"))
    }

    fn server(&self, from: &'lab Namespace) -> Psql<'lab> {
        Psql::at(from)
            .set("host", "db.example.com")
            .set("hostaddr", address::DB.to_string())
    }

    fn psql(&self, psql: &Psql<'lab>, sql: &str) -> Outcome {
        command(&format!("psql \"{}\" -c '{sql}'", psql.conninfo()));
        let done = psql.query(sql);
        output(&done.stdout);
        output(&done.stderr);
        done
    }

    /// Runs pgfw on the database host and shows it; it has to succeed.
    fn pgfw(&self, arguments: &[&str]) -> String {
        let line: Vec<String> = arguments
            .iter()
            .map(|a| {
                if a.contains(' ') {
                    format!("\"{a}\"")
                } else {
                    (*a).to_owned()
                }
            })
            .collect();
        command(&format!("pgfw {}", line.join(" ")));
        let done = self.pgfw.pgfw(arguments);
        output(&done.stdout);
        output(&done.stderr);
        if !done.success() {
            fail(&format!("`pgfw {}` gave {:?}", arguments.join(" "), done.code));
        }
        done.stdout
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.files.join(name)
    }
}
