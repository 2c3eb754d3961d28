//! A server certificate of a company's authority, which OpenSSL plays.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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

    /// A new key and a new certificate with its chain.
    fn issues(&self, names: &str) -> (String, String) {
        self.openssl(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=db -addext subjectAltName={names} -keyout s.key -out s.csr"
        ));
        self.openssl("x509 -req -in s.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 10 -copy_extensions copy -out s.crt");
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap();
        (read("s.key"), read("s.crt") + &read("ca.crt"))
    }

    /// As certbot does it: new files in `archive`, to which the links in `live` then lead.
    fn renews_as_certbot(&self, stage: &Stage<'_>, number: u32) {
        let (key, chain) = self.issues(NAMES);
        stage.site.db.within(|| {
            let [live, archive] =
                ["live", "archive"].map(|f| Path::new("/etc/letsencrypt").join(f).join("db"));
            for (name, content) in [("privkey", key), ("fullchain", chain)] {
                let file = format!("{name}{number}.pem");
                fs::create_dir_all(&archive).unwrap();
                fs::create_dir_all(&live).unwrap();
                fs::write(archive.join(&file), content).unwrap();
                let link = live.join(format!("{name}.pem"));
                let _first = fs::remove_file(&link);
                symlink(Path::new("../../archive/db").join(&file), &link).unwrap();
            }
        });
    }

    /// A new certificate, with its chain, put where the server's host has it: the key first, as certbot does.
    fn renews(&self, stage: &Stage<'_>, names: &str) {
        let (key, chain) = self.issues(names);
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

/// Well below the half minute after which the daemon looks anyway.
const AT_ONCE: Duration = Duration::from_secs(10);

#[test]
fn p25_new_files_are_noticed_when_they_are_there() {
    let site = Site::new();
    let certbot = FILES
        .replace("ssl/company/server.crt", "letsencrypt/live/db/fullchain.pem")
        .replace("ssl/company/server.key", "letsencrypt/live/db/privkey.pem");
    let stage = Stage::bare(&site, &certbot, "");
    let company = Company::new(&stage);
    company.renews_as_certbot(&stage, 1);
    stage.pgfw.ok(&["ca", "init"]);
    stage.pgfw.ok(&["pg", "apply"]);
    let _daemon = stage.enforce();
    for number in [2, 3] {
        let old = served(&stage).unwrap();
        // A look of its own has just been: the next is half a minute away, and the links lead elsewhere by then.
        company.renews_as_certbot(&stage, number);
        eventually("the new files are served", AT_ONCE, || {
            served(&stage).filter(|now| *now != old)
        });
    }
    // The config names others, which are then replaced.
    company.renews(&stage, NAMES);
    stage.configure(FILES, "");
    stage.pgfw.ok(&["reload"]);
    let old = served(&stage).unwrap();
    company.renews(&stage, NAMES);
    eventually("files of another place are served", AT_ONCE, || {
        served(&stage).filter(|now| *now != old)
    });
}

/// The same certificate: a bundle for a new one would be refused with the server's files as they are.
fn alice_again(stage: &Stage<'_>, alice: super::stage::Leaf) -> super::stage::Leaf {
    let refused = stage
        .pgfw
        .pgfw(&["cert", "issue", "alice", "--bundle", "/run/for-alice"]);
    assert_fails(&refused, 1, &["server.crt"]);
    alice
}
