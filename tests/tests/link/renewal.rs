//! A server certificate that grows old. It is issued on a clock of two months ago, so nothing waits for time to pass.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use pgfw::clock::{Now, WallTime};
use pgfw::config::ServerName;
use pgfw::fault::VARIABLE;
use pgfw::ledger::Ledger;
use pgfw::pki::{self, InitRequest, ServerRequest, Store};
use pgfw::postgres::tls::{self, Version};
use pgfw_tests::lab::{PATIENCE, PgCluster, Psql, Site, address, eventually, run};

use super::stage::{Stage, assert_fails};

const DAY: u64 = 86_400;
const PKI: &str = "/etc/pgfw/pki";
const LEDGER: &str = "/var/lib/pgfw/ledger.db";

/// A managed server whose certificate has lived for `age` days of ninety.
pub(crate) fn aged(site: &Site, age: u64) -> Stage<'_> {
    let stage = Stage::bare(site, "", "");
    let ago = |days: u64| WallTime(Now::read().wall().0 - i64::try_from(days * DAY).unwrap());
    site.db.within(|| {
        std::fs::create_dir_all("/var/lib/pgfw").unwrap();
        let (store, mut ledger) = (Store::new(PKI), Ledger::open(LEDGER.as_ref()).unwrap());
        let init = InitRequest {
            host: "db",
            crl_ttl: Duration::from_secs(365 * DAY),
            requester: "root",
        };
        pki::init(&store, &mut ledger, &init, ago(age + 1)).unwrap();
        let request = ServerRequest {
            cluster: "main",
            names: &[
                ServerName::Dns("db.example.com".into()),
                ServerName::Address(address::DB),
            ],
            ttl: Duration::from_secs(90 * DAY),
            requester: "root",
        };
        pki::issue_server(&store, &mut ledger, &request, ago(age)).unwrap();
    });
    stage.pgfw.ok(&["pg", "apply"]);
    stage
}

/// The certificate that a client is served.
pub(crate) fn served(stage: &Stage<'_>) -> Option<Vec<u8>> {
    let address = (address::DB, PgCluster::PORT).into();
    let ask = || {
        tls::connect(address, None, Version::V1_3)
            .ok()?
            .served()
            .map(|c| c.to_vec())
    };
    stage.site.db.within(ask)
}

/// Serials of server certificates, in the order of issue, with who asked.
fn issued(stage: &Stage<'_>) -> Vec<(String, String)> {
    let all = stage.site.db.within(|| {
        Ledger::open_read_only(LEDGER.as_ref())
            .unwrap()
            .certificates()
            .unwrap()
    });
    let servers = all.into_iter().filter(|c| c.name == "db.example.com");
    servers.map(|c| (c.serial, c.requester)).collect()
}

#[test]
fn p13_p22_the_daemon_renews_the_server_certificate_and_nobody_is_cut_off() {
    let site = Site::new();
    let stage = aged(&site, 61);
    let old = served(&stage).unwrap();
    let alice = stage.issue("alice", &[]);
    // With no more than the unit gives it.
    let daemon = stage
        .pgfw
        .start_command(&mut stage.pgfw.command_as_the_unit(&["run"]));
    stage.pgfw.ok(&["confirm"]);
    eventually("another certificate is served", PATIENCE, || {
        served(&stage).is_some_and(|now| now != old).then_some(())
    });
    // A client that trusts the authority finds the name in it.
    let mut session = stage.log_in(&site.client, "alice", &alice);
    assert_eq!(session.query("select 1").unwrap(), "1");
    let serials = issued(&stage);
    assert_eq!(serials.len(), 2, "{serials:?}");
    assert_eq!(serials[1].1, "pgfw (renewal)");
    eventually("it is said", PATIENCE, || {
        daemon.log().contains("server certificate renewed").then_some(())
    });
    assert!(daemon.log().contains(&serials[1].0), "{}", daemon.log());
    assert!(
        !stage.attention().contains("certificate"),
        "{}",
        stage.attention()
    );

    // It is young now: neither the next start nor a command issues another, and the server is not told twice.
    let told = stage.reloads();
    daemon.kill();
    let _daemon = stage.pgfw.start();
    stage.pgfw.ok(&["cert", "renew"]);
    assert_eq!(issued(&stage), serials);
    assert_eq!(session.query("select 2").unwrap(), "2");
    assert_eq!(stage.reloads(), told + 1, "the command alone");
    // The apply that follows finds rules and certificate in force.
    stage.pgfw.ok(&["pg", "apply"]);
    assert_eq!(issued(&stage), serials);
}

#[test]
fn p22_a_server_certificate_of_two_months_less_a_week_is_let_be() {
    let site = Site::new();
    // Two thirds of ninety days are sixty, the jitter is at most four and a half.
    let stage = aged(&site, 55);
    let before = issued(&stage);
    let _daemon = stage.enforce();
    stage.pgfw.ok(&["cert", "renew"]);
    assert_eq!(issued(&stage), before);
}

/// A server that starts cold after the kill finds a key that belongs to its certificate. The daemon goes on with what was
/// issued, also where the server runs on and was not told.
#[test]
fn p13_a_renewal_that_is_killed_between_any_two_steps_is_finished_by_the_next_start() {
    let steps = [
        "renewal-issued",
        "renewal-written",
        "renewal-switched",
        "renewal-proven",
    ];
    for (step, restarts) in steps.into_iter().flat_map(|step| [(step, true), (step, false)]) {
        let site = Site::new();
        let mut stage = aged(&site, 61);
        let old = served(&stage).unwrap();
        let killed = run(stage.pgfw.command(&["cert", "renew"]).env(VARIABLE, step));
        assert_eq!(killed.code, None, "nothing comes to {step}: {killed:?}");
        if restarts {
            stage.cluster.restart();
        }
        assert!(served(&stage).is_some(), "{step}: the server does not start");
        let _daemon = stage.pgfw.start();
        eventually(step, PATIENCE, || {
            let newest = issued(&stage).pop()?;
            let log = served(&stage).filter(|now| *now != old)?;
            contains(&log, &newest.0).then_some(())
        });
        assert_eq!(issued(&stage).len(), 2, "{step}");
    }
}

/// Whether a certificate holds this serial.
fn contains(der: &[u8], serial: &str) -> bool {
    let digits: String = der.iter().map(|b| format!("{b:02x}")).collect();
    digits.contains(serial)
}

/// A program on the database host that runs as PostgreSQL's user, as the tests have no other.
const KEPT_FOR: &str = "[[identity]]\nname = \"gone\"\nkept_for = \"postgres\"\n[[identity]]\nname = \"agent\"\ndatabases = [\"app\"]\nkept_for = \"postgres\"\n";
const KEPT: &str = "/var/lib/pgfw/clients/agent";

#[test]
fn p22_p24_a_client_certificate_of_this_host_is_renewed_and_kept_for_its_user_and_not_once_revoked() {
    let site = Site::new();
    let stage = aged(&site, 31);
    stage.cluster.sql("create role agent login");
    stage.configure("", KEPT_FOR);
    stage.pgfw.ok(&["pg", "apply"]);
    site.db.within(|| {
        let (store, mut ledger) = (Store::new(PKI), Ledger::open(LEDGER.as_ref()).unwrap());
        let ago = WallTime(Now::read().wall().0 - i64::try_from(21 * DAY).unwrap());
        for name in ["gone", "agent"] {
            let request = pki::ClientRequest {
                name,
                ttl: Duration::from_secs(30 * DAY),
                csr: None,
                kind: pki::KeyKind::P256,
                superuser: false,
                requester: "root",
                reason: None,
            };
            pki::issue_client(&store, &mut ledger, &request, ago).unwrap();
        }
    });
    stage.revoke("gone");
    let serials = |name| {
        let ledger = || {
            Ledger::open_read_only(LEDGER.as_ref())
                .unwrap()
                .certificates()
                .unwrap()
        };
        let all = stage.site.db.within(ledger);
        all.into_iter()
            .filter(|c| c.name == name)
            .map(|c| c.serial)
            .collect::<Vec<_>>()
    };
    let kept = || {
        stage
            .site
            .db
            .within(|| std::fs::read_link(format!("{KEPT}/current")).ok())
    };
    let daemon = stage.enforce();
    eventually("it is renewed and kept", PATIENCE, || {
        let all = serials("agent");
        (all.len() == 2 && kept()? == format!(".{}", all[1])).then_some(())
    });
    // It comes first, and nobody gives it another.
    assert_eq!(serials("gone").len(), 1);
    let modes = site.db.within(|| {
        let of = |name: &str| {
            std::fs::metadata(format!("{KEPT}/current/{name}"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        [of("postgresql.key"), of("")]
    });
    assert_eq!(modes, [0o640, 0o750]);
    let psql = Psql::as_user(&site.db, "postgres")
        .set("host", "db.example.com")
        .set("hostaddr", address::DB.to_string())
        .set("user", "agent")
        .set("dbname", "app")
        .set("sslmode", "verify-full")
        .set("sslrootcert", format!("{KEPT}/current/root.crt"))
        .set("sslcert", format!("{KEPT}/current/postgresql.crt"))
        .set("sslkey", format!("{KEPT}/current/postgresql.key"));
    assert_eq!(psql.open().unwrap().query("select 1").unwrap(), "1");

    // What somebody issues is followed.
    stage.issue("agent", &[]);
    eventually("the newest is kept", PATIENCE, || {
        (kept()? == format!(".{}", serials("agent").pop()?)).then_some(())
    });
    // A user that is not there is named.
    daemon.kill();
    stage.configure("", &KEPT_FOR.replace("= \"postgres\"", "= \"nobody-here\""));
    stage.issue("agent", &[]);
    let _daemon = stage.pgfw.start();
    let said = eventually("it is shown", PATIENCE, || {
        Some(stage.attention()).filter(|said| said.contains("nobody-here"))
    });
    assert!(
        said.contains("kept for agent") && said.contains("kept_for"),
        "{said}"
    );
}

/// What keeps it from being renewed is said, by the daemon and by the command, and the server goes on as it was.
#[test]
fn a_renewal_that_fails_is_shown_and_serves_the_former_certificate() {
    let site = Site::new();
    let stage = aged(&site, 80);
    let old = served(&stage).unwrap();
    const KEY: &str = "/etc/pgfw/pki/server-ca/g1/ca.key";
    site.db
        .within(|| std::fs::rename(KEY, "/etc/pgfw/pki/away").unwrap());
    let _daemon = stage.enforce();
    let said = eventually("it is shown", PATIENCE, || {
        Some(stage.attention()).filter(|said| said.contains("is not renewed"))
    });
    assert!(said.contains(KEY) && said.contains("ends at"), "{said}");
    assert_fails(&stage.pgfw.pgfw(&["cert", "renew"]), 1, &[KEY]);
    assert_eq!(served(&stage), Some(old.clone()));
    site.db
        .within(|| std::fs::rename("/etc/pgfw/pki/away", KEY).unwrap());
    let said = stage.pgfw.ok(&["cert", "renew"]);
    assert!(said.contains("a handshake shows it"), "{said}");
    assert_ne!(served(&stage), Some(old));
}

/// The lists hold for another twenty-five days, and cannot be signed anew.
#[test]
fn p33_a_list_that_will_lapse_is_said_in_status_and_journal_a_month_before() {
    let site = Site::new();
    let stage = aged(&site, 20);
    const KEY: &str = "/etc/pgfw/pki/client-ca/g1/ca.key";
    site.db.within(|| {
        let (store, ledger) = (Store::new(PKI), Ledger::open(LEDGER.as_ref()).unwrap());
        let targets = pki::CrlTargets {
            folders: vec!["/var/lib/pgfw/postgres/main/crl".into()],
            ttl: Duration::from_secs(365 * DAY),
        };
        let ago = WallTime(Now::read().wall().0 - i64::try_from(340 * DAY).unwrap());
        pki::publish(&store, &ledger.revocations().unwrap(), &targets, ago).unwrap();
        std::fs::rename(KEY, "/etc/pgfw/pki/away").unwrap();
    });
    let daemon = stage.enforce();
    eventually("the journal says it", PATIENCE, || {
        daemon.log().contains("lapses at").then_some(())
    });
    let said = stage.attention();
    assert!(
        said.contains("lapses at") && said.contains("is accepted. The daemon"),
        "{said}"
    );
    eventually("and why", PATIENCE, || daemon.log().contains(KEY).then_some(()));
    assert_eq!(daemon.log().matches("lapses at").count(), 2, "{}", daemon.log());
    daemon.kill();
    // With the key back it is renewed, and nobody says it any more.
    site.db
        .within(|| std::fs::rename("/etc/pgfw/pki/away", KEY).unwrap());
    let daemon = stage.pgfw.start();
    eventually("it is renewed", PATIENCE, || {
        (!stage.attention().contains("lapses at")).then_some(())
    });
    assert!(!daemon.log().contains("lapses at"), "{}", daemon.log());
}

#[test]
fn p27_a_client_of_tls_1_2_is_refused_and_both_sides_say_why() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let old = stage
        .with_certificate(&site.client, "alice", &alice)
        .set("ssl_max_protocol_version", "TLSv1.2");
    let said = stage.refused(&old);
    assert!(said.contains("protocol version"), "{said}");
    eventually("the server's log", PATIENCE, || {
        stage.cluster.log().contains("unsupported protocol").then_some(())
    });
    drop(stage.log_in(&site.client, "alice", &alice));
    // It is the setting that refuses, and nothing else.
    stage.configure("min_tls = \"1.2\"", "");
    stage.pgfw.ok(&["pg", "apply"]);
    drop(old.open().unwrap());
}
