//! Applying to a real server: proof, rollback, drift; and revocation.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use pgfw::failure::Explain;
use pgfw::postgres::wire::Answer;
use pgfw::postgres::{Edits, Options, PostgresError, Server, Step, Untried, prove};
use pgfw_tests::scratch::managed::{Managed, log_in, steps, to};
use pgfw_tests::scratch::{Installed, Scratch, on_each_major, write};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ALICE: &str = "[[identity]]\nname = \"alice\"\nnetworks = [\"127.0.0.0/8\"]\n";
const BROKEN: &str = "local = [\"local all all nonsense\"]\n";

const REPLACE: Options = Options {
    edits: Edits::Replace,
    untried: Untried::Refuse,
    confirm: None,
};

/// What the live names hold, and what lies beside them.
fn live(managed: &Managed) -> (Vec<Vec<u8>>, Vec<PathBuf>) {
    let data = managed.scratch.data();
    let names = ["pg_hba.conf", "pg_ident.conf", "postgresql.conf"];
    let bytes = names
        .iter()
        .map(|n| fs::read(data.join(n)).expect("a live file"))
        .collect();
    let mut beside: Vec<PathBuf> = fs::read_dir(&data)
        .expect("the data directory")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.to_string_lossy().ends_with("-pgfw"))
        .collect();
    beside.sort();
    (bytes, beside)
}

#[test]
fn p11_applied_and_proven_then_nothing_to_do() {
    on_each_major(applied_and_proven);
}

fn applied_and_proven(server: &Installed) {
    let managed = Managed::new(server.start());
    let data = managed.scratch.data();
    let former = fs::read(data.join("pg_hba.conf")).unwrap();
    let config = managed.config("", ALICE);

    let first = managed.apply(&config).unwrap();
    assert_eq!(first.notes, [""; 0]);
    assert_eq!(
        steps(&first.steps),
        ["written", "tried", "switched", "reloaded", "rules", "tls"]
    );
    assert!(first.steps.contains(&Step::TlsProven {
        serial: "5101".into()
    }));
    assert_eq!((first.generation, first.unchanged), (1, false));
    assert_eq!(first.missing_roles, ["alice"]);
    assert_eq!(first.create_roles, ["create role \"alice\" login;"]);
    assert_eq!(fs::read(data.join("pg_hba.conf.before-pgfw")).unwrap(), former);
    assert_eq!(
        fs::read_link(data.join("pg_hba.conf")).unwrap(),
        managed.paths.postgres("main").join("current/pg_hba.conf")
    );

    let again = managed.apply(&config).unwrap();
    assert_eq!(steps(&again.steps), ["rules", "tls"]);
    assert_eq!((again.generation, again.unchanged), (1, true));

    managed.scratch.sql("create role alice login");
    let leaf = managed.clients.client("alice", &[7]);
    assert_eq!(
        log_in(HERE, Some(&leaf), &to("alice", "postgres")).unwrap(),
        Answer::Ok
    );
    let changed = managed.apply(&managed.config("", "")).unwrap();
    assert_eq!(
        steps(&changed.steps),
        ["written", "tried", "switched", "reloaded", "rules", "tls"]
    );
    assert_eq!(changed.missing_roles, [""; 0]);
    assert_ne!(
        log_in(HERE, Some(&leaf), &to("alice", "postgres")).unwrap(),
        Answer::Ok
    );
}

/// Under `local all all trust` everybody gets AuthenticationOk, for any database; that is no proof.
#[test]
fn p11_trust_is_not_taken_for_the_marker() {
    let scratch = Scratch::stopped();
    fs::write(scratch.data().join("pg_hba.conf"), "local all all trust\n").unwrap();
    let mut managed = Managed::new(scratch);
    managed.scratch.run();
    let server = Server::find(&managed.config("", "").postgres[0]).unwrap();
    let running = server.running().unwrap();
    assert!(!prove::marker_loaded(&running, "marker-0123456789abcdef").unwrap());
    managed.apply(&managed.config("", "")).unwrap();
}

/// A line the server does not take: the reason is told, the live bytes are what they were, and the server answers as
/// before; at the first apply and at later ones.
#[test]
fn p10_p11_a_broken_candidate_never_reaches_the_live_server() {
    on_each_major(broken_candidate);
}

fn broken_candidate(server: &Installed) {
    let managed = Managed::new(server.start());
    let leaf = managed.clients.client("alice", &[7]);
    let refuse = || {
        let before = live(&managed);
        let error = managed.apply(&managed.config(BROKEN, ALICE)).unwrap_err();
        assert!(matches!(error, PostgresError::Refused { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("nonsense") && said.contains("line 6 of"), "{error}");
        assert!(!error.remedy().is_empty());
        assert_eq!(live(&managed), before);
    };
    refuse();
    assert_eq!(live(&managed).1, [""; 0].map(PathBuf::from));
    managed.apply(&managed.config("", ALICE)).unwrap();
    refuse();
    // An option's value that fails the load, which pg_hba_file_rules shows without an error; an option without a value.
    for line in ["local all all peer clientcert=1", "local all all peer map"] {
        let before = live(&managed);
        let broken = managed.config(&format!("local = [\"{line}\"]\n"), ALICE);
        let error = managed.apply(&broken).unwrap_err();
        assert!(matches!(error, PostgresError::Refused { .. }), "{line}: {error}");
        assert!(error.to_string().contains("line 6 of"), "{error}");
        assert_eq!(live(&managed), before);
    }
    assert_eq!(
        log_in(HERE, Some(&leaf), &to("alice", "postgres")).unwrap(),
        Answer::Ok
    );
    // What was put back is loaded, and a good candidate passes.
    assert_eq!(managed.apply(&managed.config("", ALICE)).unwrap().generation, 1);
    managed.apply(&managed.config("", "")).unwrap();
}

/// Applies with the server out of sight: the files are switched, and the server neither told nor asked, as when an apply
/// is killed in between.
fn cut_off_before_the_proof(managed: &Managed, config: &pgfw::config::Config) {
    let (pid, hidden) = ("postmaster.pid", "postmaster.hidden");
    let data = managed.scratch.data();
    fs::rename(data.join(pid), data.join(hidden)).expect("the server runs");
    let applied = managed.apply(config).expect("it is for the next start");
    fs::rename(data.join(hidden), data.join(pid)).expect("it is still there");
    assert_eq!(
        steps(&applied.steps),
        ["written", "tried", "switched", "at next start"]
    );
}

/// The same with a generation that the live server does not take, which no server of our own could have told: its key is
/// readable by everybody by the time it is read.
fn cut_off_and_spoilt(managed: &mut Managed, config: &pgfw::config::Config, serial: u8) {
    use std::os::unix::fs::PermissionsExt;
    let server = managed.servers.server("db.example.com", &[0x52, serial]);
    managed.material.server_cert_pem = server.certificate;
    managed.material.server_key_pem = server.key;
    cut_off_before_the_proof(managed, config);
    let key = managed.paths.postgres("main").join("current/server.key");
    fs::set_permissions(key, fs::Permissions::from_mode(0o644)).expect("a key");
}

/// Cut off between switch and proof, with a candidate that the server refuses, which would be fatal at its next start:
/// the next apply goes back to what was in force, at the first apply and at later ones, whatever it wants itself.
#[test]
fn p10_a_candidate_that_was_never_proven_does_not_stay() {
    let mut managed = Managed::new(Scratch::start());
    let former = managed.material.clone();
    let some = managed.config("", ALICE);
    let broken = managed.config(BROKEN, ALICE);
    let mut serial = 0;
    let mut put_back = |managed: &mut Managed, wanted: &pgfw::config::Config| {
        let before = live(managed);
        serial += 1;
        cut_off_and_spoilt(managed, &some, serial);
        let error = managed.apply(wanted).unwrap_err();
        let expected = matches!(
            error,
            PostgresError::PutBack { .. } | PostgresError::Refused { .. }
        );
        assert!(expected, "{error}");
        assert_eq!(live(managed), before);
    };
    put_back(&mut managed, &some);
    put_back(&mut managed, &broken);
    assert_eq!(live(&managed).1, [""; 0].map(PathBuf::from));
    managed.material = former.clone();
    let good = managed.config("", ALICE);
    managed.apply(&good).unwrap();
    put_back(&mut managed, &some);
    put_back(&mut managed, &broken);
    managed.material = former;
    // Its server starts.
    managed.scratch.stop();
    managed.scratch.run();
    assert_eq!(steps(&managed.apply(&good).unwrap().steps), ["rules", "tls"]);

    // A good one that was cut off is proven by the next, and stays.
    let better = managed.config("", "");
    cut_off_before_the_proof(&managed, &better);
    assert_eq!(
        steps(&managed.apply(&better).unwrap().steps),
        ["reloaded", "rules", "tls"]
    );
    assert!(managed.apply(&broken).is_err());
    assert_eq!(steps(&managed.apply(&better).unwrap().steps), ["rules", "tls"]);
}

/// Written while the server was down, and taken by it at its start: that is what a refused candidate gives way to.
#[test]
fn p10_p11_what_a_server_took_at_its_start_is_gone_back_to() {
    let mut managed = Managed::new(Scratch::stopped());
    let config = managed.config("", ALICE);
    assert_eq!(
        steps(&managed.apply(&config).unwrap().steps),
        ["written", "tried", "switched", "at next start"]
    );
    managed.scratch.run();
    let before = live(&managed);
    // With this the live server cannot load TLS again, and no server of our own can know.
    managed
        .scratch
        .sql("alter system set ssl_max_protocol_version = 'TLSv1.2'");
    let former = managed.material.clone();
    let server = managed.servers.server("db.example.com", &[0x53]);
    managed.material.server_cert_pem = server.certificate;
    managed.material.server_key_pem = server.key;
    let error = managed.apply(&config).unwrap_err();
    assert!(matches!(error, PostgresError::PutBack { .. }), "{error}");
    assert_eq!(live(&managed), before);
    managed.scratch.sql("alter system reset ssl_max_protocol_version");
    managed.material = former;
    assert_eq!(managed.apply(&config).unwrap().generation, 1);
}

/// A server that lets in what is revoked, since the list that it reads does not name it, does not pass for proven; one that
/// refuses it does.
#[test]
fn p11_a_canary_that_is_let_in_takes_everything_back() {
    on_each_major(canary);
}

fn canary(server: &Installed) {
    let mut managed = Managed::new(server.start());
    let canary = managed.clients.client("pgfw-canary", &[0x66]);
    managed.material.canary = Some((canary.certificate.clone(), canary.key.clone()));
    managed.clients.publish(&managed.material.crl_dir, &[]);
    let config = managed.config("", ALICE);
    let before = live(&managed);
    let error = managed.apply(&config).unwrap_err();
    assert!(matches!(error, PostgresError::PutBack { .. }), "{error}");
    assert!(error.to_string().contains("revoked"), "{error}");
    assert_eq!(live(&managed), before);
    managed.clients.publish(&managed.material.crl_dir, &[&canary]);
    assert_eq!(
        steps(&managed.apply(&config).unwrap().steps),
        ["written", "tried", "switched", "reloaded", "rules", "tls"]
    );
}

/// Nothing that fails after the proof makes an error of what is in force.
#[test]
fn p11_what_cannot_be_asked_after_the_proof_is_a_note() {
    let managed = Managed::new(Scratch::start());
    // No session gets into the database where pgfw asks; the rules are proven before it is looked up.
    managed
        .scratch
        .sql("update pg_database set datallowconn = false where datname = 'postgres'");
    let applied = managed.apply(&managed.config("", ALICE)).unwrap();
    assert_eq!(
        steps(&applied.steps),
        ["written", "tried", "switched", "reloaded", "rules", "tls"]
    );
    let [note] = applied.notes.as_slice() else {
        panic!("{:?}", applied.notes)
    };
    assert!(
        note.contains("settings and roles") && note.contains("`main`"),
        "{note}"
    );
}

/// A certificate whose key is another's never reaches the server, which would drop TLS at its next start.
#[test]
fn p13_a_key_of_another_certificate_is_refused() {
    let mut managed = Managed::new(Scratch::start());
    let before = live(&managed);
    managed.material.server_key_pem = managed.servers.server("other", &[9]).key;
    let error = managed.apply(&managed.config("", ALICE)).unwrap_err();
    assert!(matches!(error, PostgresError::Material { .. }), "{error}");
    assert_eq!(live(&managed), before);
}

/// Without a CRL of the authority the server would refuse every certificate.
#[test]
fn no_crl_is_refused() {
    let managed = Managed::new(Scratch::start());
    fs::remove_dir_all(&managed.material.crl_dir).unwrap();
    let error = managed.apply(&managed.config("", ALICE)).unwrap_err();
    assert!(matches!(error, PostgresError::NoCrl { .. }), "{error}");
}

/// The server is down: the files are in place, and count when it starts.
#[test]
fn p12_what_is_staged_counts_at_the_next_start() {
    let mut managed = Managed::new(Scratch::stopped());
    let config = managed.config("", ALICE);
    let applied = managed.apply(&config).unwrap();
    assert_eq!(
        steps(&applied.steps),
        ["written", "tried", "switched", "at next start"]
    );
    managed.scratch.run();
    let leaf = managed.clients.client("alice", &[7]);
    assert_eq!(
        log_in(HERE, Some(&leaf), &to("alice", "postgres")).unwrap(),
        Answer::Ok
    );
    assert_eq!(steps(&managed.apply(&config).unwrap().steps), ["rules", "tls"]);
}

/// What the server of a trial would take over with the live one's settings, and remove at its end.
#[test]
fn p12_a_trial_reads_nothing_of_the_live_settings() {
    on_each_major(trial_is_apart);
}

fn trial_is_apart(server: &Installed) {
    let scratch = server.stopped();
    let pid_file = scratch.data().join("external.pid");
    scratch.configure(&format!(
        "external_pid_file = '{0}'\narchive_mode = on\narchive_command = 'touch {0}.archived; false'\n",
        pid_file.display()
    ));
    let mut managed = Managed::new(scratch);
    managed.scratch.run();
    let before = fs::read_to_string(&pid_file).unwrap();
    let applied = managed.apply(&managed.config("", ALICE)).unwrap();
    assert!(steps(&applied.steps).contains(&"tried"), "{:?}", applied.notes);
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), before);
    assert!(!managed.scratch.data().join("external.pid.archived").exists());
    // No process of it is left, and its address is nobody's.
    let left = managed.paths.postgres("main").join("scratch/data/postmaster.pid");
    assert!(!left.exists());
}

/// Files for other hands: tried like any, and the server untouched.
#[test]
fn rendered_rules_are_tried_and_the_server_is_let_be() {
    let managed = Managed::new(Scratch::start());
    let before = live(&managed);
    const RENDER: &str = "manage = \"render\"\n";
    let applied = managed.apply(&managed.config(RENDER, ALICE)).unwrap();
    assert_eq!(steps(&applied.steps), ["written", "tried", "rendered"]);
    assert_eq!(live(&managed), before);
    let folder = managed.paths.postgres("main").join("current");
    let rendered = fs::read_to_string(folder.join("pg_hba.conf")).unwrap();
    assert!(rendered.contains("\"alice\""), "{rendered}");

    let broken = managed.config(&format!("{RENDER}{BROKEN}"), ALICE);
    assert!(matches!(
        managed.apply(&broken).unwrap_err(),
        PostgresError::Refused { .. }
    ));
    assert_eq!(fs::read_to_string(folder.join("pg_hba.conf")).unwrap(), rendered);
    assert_eq!(live(&managed), before);
}

/// A cold start with what an apply left, as Debian lays its files out (include_dir).
#[test]
fn p12_with_an_include_dir() {
    let mut managed = Managed::new(Scratch::stopped());
    fs::create_dir(managed.scratch.data().join("conf.d")).unwrap();
    managed.scratch.configure("include_dir = 'conf.d'\n");
    managed.scratch.run();
    let applied = managed.apply(&managed.config("", ALICE)).unwrap();
    assert_eq!(applied.overridden, []);
    assert!(managed.scratch.data().join("conf.d/zz-pgfw.conf").is_symlink());
    assert!(
        !managed
            .scratch
            .data()
            .join("postgresql.conf.before-pgfw")
            .exists()
    );
    managed.scratch.stop();
    managed.scratch.run();
    assert_eq!(managed.scratch.sql("show ssl_min_protocol_version"), "TLSv1.3");
    assert_eq!(
        managed
            .scratch
            .sql("select count(*) from pg_file_settings where error is not null"),
        "0"
    );
}

/// An edit through the link, and a link that became a file: named, not overwritten; with force, kept beside.
#[test]
fn p14_p19_edits_are_noticed() {
    let managed = Managed::new(Scratch::start());
    let config = managed.config("", ALICE);
    managed.apply(&config).unwrap();
    let hba = managed.scratch.data().join("pg_hba.conf");
    let drifted = |part: &str| {
        let error = managed.apply(&config).unwrap_err();
        assert!(matches!(error, PostgresError::Drift { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };

    let edit = "local all all trust\n";
    fs::OpenOptions::new()
        .append(true)
        .open(&hba)
        .unwrap()
        .write_all(edit.as_bytes())
        .unwrap();
    drifted("gen-1/pg_hba.conf");
    assert_eq!(managed.apply_with(&config, REPLACE).unwrap().generation, 2);

    fs::remove_file(&hba).unwrap();
    write(&hba, edit);
    drifted("data/pg_hba.conf");
    assert_eq!(fs::read_to_string(&hba).unwrap(), edit);
    managed.apply_with(&config, REPLACE).unwrap();
    assert!(hba.is_symlink());
    assert_eq!(
        fs::read_to_string(managed.scratch.data().join("pg_hba.conf.edited-pgfw")).unwrap(),
        edit
    );
}

/// The data directory is the server's user's: whatever that user plants at a name that pgfw writes beside the live ones, and
/// in the folder of the scratch server, nothing is written through it.
#[test]
fn p19_links_that_the_servers_user_plants_are_not_followed() {
    use std::os::unix::fs::symlink;
    let managed = Managed::new(Scratch::start());
    let data = managed.scratch.data();
    let victim = managed.scratch.place("victim");
    write(&victim, "as it was\n");
    let plant = || {
        for name in ["pg_hba.conf", "pg_ident.conf", "postgresql.conf"] {
            let _ = fs::remove_file(data.join(format!("{name}.pgfw-new")));
            symlink(&victim, data.join(format!("{name}.pgfw-new"))).expect("a link");
        }
    };
    plant();
    managed.apply(&managed.config("", ALICE)).unwrap();
    let scratch = managed.paths.postgres("main").join("scratch/data");
    for name in ["server.key", "postgresql.conf", "pgfw.log", "postmaster.pid"] {
        let _ = fs::remove_file(scratch.join(name));
        symlink(&victim, scratch.join(name)).expect("a link");
    }
    // What was kept of the former files, and an include that somebody took out: all of it is written anew.
    fs::remove_file(data.join("pg_hba.conf")).unwrap();
    write(&data.join("pg_hba.conf"), "local all all trust\n");
    symlink(&victim, data.join("pg_hba.conf.edited-pgfw")).expect("a link");
    plant();
    let applied = managed.apply_with(&managed.config("", ""), REPLACE).unwrap();
    assert!(steps(&applied.steps).contains(&"tried"), "{:?}", applied.notes);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "as it was\n");
    assert!(fs::symlink_metadata(&victim).unwrap().is_file());
}
