//! A server certificate of a company's authority, which OpenSSL plays.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use pgfw_tests::lab::{PATIENCE, Site, eventually, run};

use super::renewal::served;
use super::stage::{Stage, assert_fails};

const FILES: &str =
    "server_certificate = \"/etc/ssl/company/server.crt\"\nserver_key = \"/etc/ssl/company/server.key\"";

struct Company {
    folder: PathBuf,
}

impl Company {
    fn new(stage: &Stage<'_>) -> Company {
        let folder = stage.place("company");
        fs::create_dir(&folder).unwrap();
        let company = Company { folder };
        company.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=company -keyout ca.key -out ca.crt",
        );
        company
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        run(command.args(arguments.split(' ')).current_dir(&self.folder)).expect_success();
    }

    /// A new certificate, with its chain, put where the server's host has it: the key first, as certbot does.
    fn renews(&self, stage: &Stage<'_>, names: &str) {
        self.openssl(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=db -addext subjectAltName={names} -keyout s.key -out s.csr"
        ));
        self.openssl("x509 -req -in s.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 10 -copy_extensions copy -out s.crt");
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap();
        let (key, chain) = (read("s.key"), read("s.crt") + &read("ca.crt"));
        stage.site.db.within(|| {
            let place = Path::new("/etc/ssl/company");
            fs::create_dir_all(place).unwrap();
            for (name, content) in [("server.key", key), ("server.crt", chain)] {
                fs::write(place.join("fresh"), content).unwrap();
                fs::rename(place.join("fresh"), place.join(name)).unwrap();
            }
        });
    }
}

const NAMES: &str = "DNS:db.example.com,IP:10.10.0.10";

#[test]
fn p24_p25_a_company_s_certificate_is_checked_copied_and_followed() {
    let site = Site::new();
    let stage = Stage::bare(&site, FILES, "");
    let company = Company::new(&stage);
    company.renews(&stage, NAMES);
    stage.pgfw.ok(&["ca", "init"]);
    assert_fails(&stage.pgfw.pgfw(&["cert", "server"]), 2, &["server_certificate"]);
    stage.pgfw.ok(&["pg", "apply"]);
    let daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    assert_eq!(
        alice.pem("root.crt"),
        fs::read_to_string(company.folder.join("ca.crt")).unwrap()
    );
    let mut session = stage.log_in(&site.client, "alice", &alice);
    let key = site.db.within(|| {
        let key = fs::metadata("/var/lib/pgfw/postgres/main/current/server.key").unwrap();
        (key.permissions().mode() & 0o777, key.uid())
    });
    assert_eq!(key, (0o640, 0));

    // Renewed while the daemon looks away, and then found by it.
    let old = served(&stage).unwrap();
    daemon.kill();
    company.renews(&stage, NAMES);
    let daemon = stage.pgfw.start();
    eventually("the new files are served", PATIENCE, || {
        served(&stage).filter(|now| *now != old)
    });
    assert_eq!(session.query("select 1").unwrap(), "1");
    drop(stage.log_in(&site.client, "alice", &alice));

    // One that clients would refuse is not taken, and it is said which file and why.
    let good = served(&stage);
    daemon.kill();
    company.renews(&stage, "DNS:other.example.com");
    let _daemon = stage.pgfw.start();
    let said = eventually("it is shown", PATIENCE, || {
        Some(stage.attention()).filter(|said| said.contains("is not renewed"))
    });
    for word in ["/etc/ssl/company/server.crt", "not for `db.example.com`"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_fails(
        &stage.pgfw.pgfw(&["cert", "renew"]),
        1,
        &["/etc/ssl/company/server.crt", "db.example.com"],
    );
    assert_fails(
        &stage.pgfw.pgfw(&["pg", "apply"]),
        1,
        &["/etc/ssl/company/server.crt"],
    );
    assert_eq!(served(&stage), good);
    drop(stage.log_in(&site.client, "alice", &alice_again(&stage, alice)));
}

/// The same certificate: a bundle for a new one would be refused with the server's files as they are.
fn alice_again(stage: &Stage<'_>, alice: super::stage::Leaf) -> super::stage::Leaf {
    let refused = stage
        .pgfw
        .pgfw(&["cert", "issue", "alice", "--bundle", "/run/for-alice"]);
    assert_fails(&refused, 1, &["server.crt"]);
    alice
}
