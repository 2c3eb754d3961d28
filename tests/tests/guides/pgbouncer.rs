//! docs/guides/pgbouncer.md: a real pooler before a real server, on one host.

use nix::unistd::{User, chown};
use pgfw_tests::lab::{
    Child, Host, Namespace, PATIENCE, PgCluster, Psql, Reach, SessionEnd, eventually, tcp,
};

use super::guide::Guide;
use super::lan::{DB, DB_V6, Lan, configured, is_refused, is_refused_at};

const POOLER: u16 = 6432;
const SETTINGS: &str = "/etc/pgbouncer/pgbouncer.ini";
const USERS: &str = "/etc/pgbouncer/userlist.txt";

/// PgBouncer by the guide's settings, as the user that Debian runs it as.
fn pooler(host: &Host, settings: &str) -> Child {
    host.write(SETTINGS, settings);
    host.write(USERS, "\"app\" \"secret\"\n");
    let owner = User::from_name("postgres").unwrap().unwrap();
    host.within(|| chown(USERS, Some(owner.uid), Some(owner.gid)).unwrap());
    let mut command = host.command_as_user("/usr/sbin/pgbouncer", "postgres");
    let mut pooler = Child::start(command.arg(SETTINGS).current_dir("/")).talkative();
    eventually("PgBouncer listens", PATIENCE, || {
        assert!(!pooler.has_ended(), "PgBouncer ended:\n{}", pooler.stderr());
        (tcp(host, DB, POOLER, PATIENCE) == Reach::Open).then_some(())
    });
    pooler
}

fn through<'lab>(from: &'lab Namespace, host: &str) -> Psql<'lab> {
    let psql = Psql::at(from).set("host", host).set("port", POOLER.to_string());
    let psql = psql
        .set("user", "app")
        .set("password", "secret")
        .set("dbname", "app");
    psql.set("sslmode", "require")
}

#[test]
fn the_pooler_is_the_only_way_in() {
    let lan = Lan::new();
    let guide = Guide::read("pgbouncer");
    let cluster = PgCluster::start_new(&lan.db);
    cluster.sql("create role app login password 'secret'");
    cluster.sql("create database app");
    let pgfw = configured(&lan.db, &guide.block("pgfw.toml"), Some(&cluster));
    for command in [["ca", "init"], ["cert", "server"], ["pg", "apply"]] {
        pgfw.ok(&command);
    }
    let _pooler = pooler(&lan.db, &guide.block("/etc/pgbouncer/pgbouncer.ini"));
    let _daemon = pgfw.enforce();

    let who = "select client_addr from pg_stat_activity where pid = pg_backend_pid()";
    for host in [DB, DB_V6] {
        let seen = through(&lan.client, &host.to_string())
            .query(who)
            .expect_success();
        assert_eq!(seen, "127.0.0.1\n", "PostgreSQL sees the pooler");
        is_refused_at(&pgfw, &lan.client, host, PgCluster::PORT, "service-closed");
    }
    is_refused(&pgfw, &lan.stranger, POOLER, "service-closed");
    is_refused(&pgfw, &lan.client, POOLER + 1, "new-tcp");
    let plaintext = through(&lan.client, &DB.to_string()).set("sslmode", "disable");
    assert!(plaintext.query(who).stderr.contains("SSL required"));

    // Opened by hand, the server's rules still know the login on loopback only.
    pgfw.ok(&["allow", "10.20.0.0/16"]);
    gets_in_and_is_rejected(&lan.client);
    pgfw.ok(&["remove", "10.20.0.0/16"]);

    // A deny reaches a client of the pooler, its open session included.
    let mut session = through(&lan.client, &DB.to_string()).open().unwrap();
    assert_eq!(session.query("select 6 * 7").unwrap(), "42");
    pgfw.ok(&["deny", "10.20.0.10/32"]);
    is_refused(&pgfw, &lan.client, POOLER, "service-denied");
    assert!(matches!(
        session.query("select 1"),
        Err(SessionEnd::Silent | SessionEnd::Closed(_))
    ));
    pgfw.ok(&["remove", "10.20.0.10/32"]);
    assert_eq!(
        through(&lan.client, &DB.to_string())
            .query("select 1")
            .expect_success(),
        "1\n"
    );
}

fn gets_in_and_is_rejected(from: &Namespace) {
    let direct = through(from, &DB.to_string()).set("port", PgCluster::PORT.to_string());
    let said = direct.query("select 1").stderr;
    assert!(said.contains("pg_hba.conf rejects"), "{said}");
}

/// The database's own clients have certificates; the pooler's are one login on loopback, to whom none of that applies.
#[test]
fn p39_identities_stand_beside_the_pooler() {
    let lan = Lan::new();
    let guide = Guide::read("pgbouncer");
    let cluster = PgCluster::start_new(&lan.db);
    cluster.sql("create role app login password 'secret'; create role alice login password 'known'");
    cluster.sql("create database app");
    let config = guide.block("pgfw.toml, besides the above");
    let pgfw = configured(&lan.db, &config, Some(&cluster));
    for command in [["ca", "init"], ["cert", "server"], ["pg", "apply"]] {
        pgfw.ok(&command);
    }
    let _pooler = pooler(&lan.db, &guide.block("/etc/pgbouncer/pgbouncer.ini"));
    let _daemon = pgfw.enforce();
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("alice");
    pgfw.ok(&["cert", "issue", "alice", "--bundle", bundle.to_str().unwrap()]);
    let direct = |role: &str| {
        Psql::at(&lan.client)
            .certificate(&bundle, "postgresql")
            .set("host", "db.example.com")
            .set("hostaddr", DB.to_string())
            .set("user", role)
            .set("dbname", "app")
    };
    let mut alice = direct("alice").open().unwrap();
    let seen = "select client_addr from pg_stat_activity where pid = pg_backend_pid()";
    assert_eq!(alice.query(seen).unwrap(), "10.20.0.10");
    let mut app = through(&lan.client, &DB.to_string()).open().unwrap();
    assert_eq!(app.query(seen).unwrap(), "127.0.0.1");

    // The pooler's role is nobody's who comes by himself, and its password no way into a role that takes a certificate.
    let said = direct("app").query("select 1").stderr;
    assert!(said.contains("pg_hba.conf rejects"), "{said}");
    let with_password = through(&lan.client, &DB.to_string())
        .set("port", PgCluster::PORT.to_string())
        .set("user", "alice")
        .set("password", "known");
    let said = with_password.query("select 1").stderr;
    assert!(said.contains("valid client certificate"), "{said}");

    // What a revocation ends is alice's, and what it cannot see goes on, from the very same address: the rules say so.
    pgfw.ok(&["cert", "revoke", "alice"]);
    eventually("alice is cut off", PATIENCE, || alice.query("select 1").err());
    assert_eq!(app.query("select 6 * 7").unwrap(), "42");
    assert_eq!(
        through(&lan.client, &DB.to_string())
            .query("select 1")
            .expect_success(),
        "1\n"
    );
    let rules = lan.db.read(cluster.config_dir().join("pg_hba.conf"));
    let above = rules.split("hostnossl \"app\" \"app\"").next().unwrap();
    let remark = above.lines().rfind(|line| line.starts_with('#')).unwrap();
    assert!(
        remark.contains("a pooler's clients") && remark.contains("no revocation"),
        "{rules}"
    );
}
