//! What the authorities issue and revoke, in front of a real PostgreSQL and through libpq.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use pgfw::clock::{Now, WallTime};
use pgfw::config::ServerName;
use pgfw::ledger::Ledger;
use pgfw::ledger::types::{Authority, RevocationReason};
use pgfw::pki::{
    self, BundleTarget, ClientRequest, CrlTargets, InitRequest, Issued, RevokeRequest, ServerRequest, Store,
};
use pgfw_tests::scratch::{PORT, Scratch, postgres, write};

const DAY: Duration = Duration::from_secs(86_400);

/// A server that lets every role in with a client certificate of its name.
struct Site {
    scratch: Scratch,
    store: Store,
    ledger: Ledger,
    targets: CrlTargets,
}

impl Site {
    fn start(names: &[ServerName]) -> Site {
        let scratch = Scratch::stopped();
        write(
            &scratch.data().join("pg_hba.conf"),
            "local all all peer\nhostssl all all all cert\n",
        );
        scratch.configure("ssl = on\n");
        let mut site = Site {
            store: Store::new(scratch.place("pki")),
            ledger: Ledger::open(&scratch.place("ledger.db")).expect("a ledger"),
            targets: CrlTargets {
                folders: vec![scratch.place("crl")],
                ttl: 365 * DAY,
            },
            scratch,
        };
        site.prepare(names);
        site
    }

    fn prepare(&mut self, names: &[ServerName]) {
        let request = InitRequest {
            host: "db1",
            crl_ttl: self.targets.ttl,
            requester: "root",
        };
        pki::init(&self.store, &mut self.ledger, &request, now()).expect("two authorities");
        pki::refresh(&self.store, &mut self.ledger, &[], &self.targets, now()).expect("published CRLs");
        let request = ServerRequest {
            cluster: "main",
            names,
            ttl: 90 * DAY,
            requester: "root",
        };
        pki::issue_server(&self.store, &mut self.ledger, &request, now()).expect("a server certificate");
        let pair = self.store.server_pair("main").expect("a link").expect("a pair");
        let data = self.scratch.data();
        let place = |from: &Path, name: &str| {
            let to = data.join(name);
            fs::copy(from, &to).expect("a copy");
            chown(&to, Some(postgres().uid.as_raw()), Some(postgres().gid.as_raw())).expect("chown");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("chmod");
        };
        place(&pair.certificate, "server.crt");
        place(&pair.key, "server.key");
        write(
            &data.join("clients.crt"),
            &self.store.roots(Authority::Client).expect("roots"),
        );
        self.scratch.configure(&format!(
            "ssl_ca_file = 'clients.crt'\nssl_crl_dir = '{}'\nssl_min_protocol_version = 'TLSv1.3'\n",
            self.targets.folders[0].display()
        ));
        self.scratch.run();
    }

    fn issue(&mut self, name: &str) -> Issued {
        let request = ClientRequest {
            name,
            ttl: 30 * DAY,
            csr: None,
            kind: pki::KeyKind::P256,
            superuser: false,
            requester: "root",
            reason: None,
        };
        pki::issue_client(&self.store, &mut self.ledger, &request, now()).expect("a certificate")
    }

    fn role(&self, name: &str) {
        self.scratch.sql(&format!("CREATE ROLE \"{name}\" LOGIN"));
    }

    fn psql(&self, user: &str, certificate: &Path, key: &Path, server: &str) -> Output {
        let root = self.scratch.place("root.crt");
        write(&root, &self.store.roots(Authority::Server).expect("roots"));
        let conninfo = format!(
            "{server} port={PORT} dbname=postgres user={user} sslmode=verify-full sslrootcert={} sslcert={} \
             sslkey={}",
            root.display(),
            certificate.display(),
            key.display()
        );
        Command::new("psql")
            .args(["-XAtqw", "-c", "select current_user", "-d", &conninfo])
            .output()
            .expect("psql")
    }
}

fn now() -> WallTime {
    Now::read().wall()
}

fn at(name: &str) -> String {
    let address = if name.contains("::") { "::1" } else { "127.0.0.1" };
    format!("host={name} hostaddr={address}")
}

/// Who was let in; otherwise what libpq said.
fn answer(output: &Output) -> Result<String, String> {
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn names() -> [ServerName; 4] {
    [
        ServerName::Dns("db.example.com".into()),
        ServerName::Dns("localhost".into()),
        ServerName::Address("127.0.0.1".parse().expect("an address")),
        ServerName::Address("::1".parse().expect("an address")),
    ]
}

#[test]
fn p25_verify_full_succeeds_for_every_configured_name_and_no_other() {
    let mut site = Site::start(&names());
    site.role("alice");
    let alice = site.issue("alice");
    let key = alice.key_file.clone().expect("a key");
    let ask = |site: &Site, name: &str| answer(&site.psql("alice", &alice.certificate_file, &key, &at(name)));
    for name in ["db.example.com", "localhost", "127.0.0.1", "::1"] {
        assert_eq!(ask(&site, name), Ok("alice".into()), "{name}");
    }
    for name in ["db2.example.com", "example.com", "127.0.0.2"] {
        let refused = ask(&site, name).expect_err(name);
        assert!(refused.contains("does not match host name"), "{name}: {refused}");
    }
    // The certificate names its role and no other.
    site.role("bob");
    answer(&site.psql("bob", &alice.certificate_file, &key, &at("localhost"))).expect_err("not bob's");

    // The bundle's own command.
    let target = BundleTarget {
        host: "localhost".into(),
        port: PORT,
        database: "postgres".into(),
        user: "alice".into(),
        trust: pki::Trust::Own,
    };
    let bundle =
        pki::write_bundle(&site.store, &alice, &target, &site.scratch.place("for alice")).expect("a bundle");
    let command = format!("{} -XAtqw -c 'select current_user'", bundle.command);
    let output = Command::new("sh")
        .args(["-c", &command])
        .output()
        .expect("a shell");
    assert_eq!(answer(&output), Ok("alice".into()));
}

#[test]
fn p20_the_server_s_key_pair_logs_in_as_no_one() {
    let site = Site::start(&names());
    let pair = site.store.server_pair("main").expect("a link").expect("a pair");
    for role in ["db.example.com", "alice"] {
        site.role(role);
        let refused =
            answer(&site.psql(role, &pair.certificate, &pair.key, &at("localhost"))).expect_err(role);
        assert!(refused.contains("unknown ca"), "{refused}");
    }
    // Not even where somebody trusts both authorities for clients.
    let both = site.store.roots(Authority::Client).expect("roots")
        + &site.store.roots(Authority::Server).expect("roots");
    write(&site.scratch.data().join("clients.crt"), &both);
    site.scratch.sql("SELECT pg_reload_conf()");
    let refused = || {
        answer(&site.psql("db.example.com", &pair.certificate, &pair.key, &at("localhost")))
            .expect_err("a server's")
    };
    pgfw_tests::scratch::until("the server trusts both", || !refused().contains("unknown ca"));
    assert!(refused().contains("unsupported certificate"), "{}", refused());
}

#[test]
fn p26_what_is_revoked_is_refused_at_the_next_login_and_nothing_else_is() {
    let mut site = Site::start(&names());
    for role in ["alice", "bob", pki::CANARY] {
        site.role(role);
    }
    let [old, new, bob] = ["alice", "alice", "bob"].map(|name| site.issue(name));
    let folder = |issued: &Issued| -> (PathBuf, PathBuf) {
        let real = site.store.directory().join("issued").join(format!(
            ".{}.{}",
            issued.certificate.name, issued.certificate.serial
        ));
        let name = &issued.certificate.name;
        (real.join(format!("{name}.crt")), real.join(format!("{name}.key")))
    };
    let [old_files, new_files, bob_files] = [&old, &new, &bob].map(folder);
    let ask = |site: &Site, user: &str, files: &(PathBuf, PathBuf)| {
        answer(&site.psql(user, &files.0, &files.1, &at("localhost")))
    };
    let (certificate, key) = site.store.canary().expect("a canary");
    let refused = ask(&site, pki::CANARY, &(certificate, key)).expect_err("the canary");
    assert!(refused.contains("certificate revoked"), "{refused}");
    for (user, files) in [("alice", &old_files), ("alice", &new_files), ("bob", &bob_files)] {
        assert_eq!(ask(&site, user, files), Ok(user.into()));
    }

    // One serial; no reload, no restart.
    let target = old.certificate.serial.clone();
    let request = RevokeRequest {
        target: &target,
        reason: RevocationReason::Superseded,
        requester: "root",
    };
    pki::revoke(&site.store, &mut site.ledger, &request, &site.targets, now()).expect("revoked");
    let refused = ask(&site, "alice", &old_files).expect_err("the revoked one");
    assert!(refused.contains("certificate revoked"), "{refused}");
    assert_eq!(ask(&site, "alice", &new_files), Ok("alice".into()));
    assert_eq!(ask(&site, "bob", &bob_files), Ok("bob".into()));
}
