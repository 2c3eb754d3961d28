//! Revoking while something is in the way: closing waits for nothing, and what is missing is made good.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgfw::clock::Now;
use pgfw::ledger::Ledger;
use pgfw::ledger::types::{Authority, Revocation, RevocationReason, WorkKind};
use pgfw_tests::lab::{Child, PATIENCE, Reach, Site, eventually};

use super::stage::{Stage, assert_fails};

pub(crate) const STATE: &str = "/var/lib/pgfw";
pub(crate) const LEDGER: &str = "/var/lib/pgfw/ledger.db";

pub(crate) fn server_process(stage: &Stage<'_>) -> Pid {
    let file = stage.cluster.data_dir().join("postmaster.pid");
    let first = stage.site.db.read(file).lines().next().unwrap().to_owned();
    Pid::from_raw(first.trim().parse().unwrap())
}

#[test]
fn p30_p31_p32_revoked_with_the_daemon_dead() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let mut session = stage.log_in(&site.client, "alice", &alice);
    daemon.kill();

    stage.revoke("alice");
    assert!(session.query("select 1").is_err());
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    let _daemon = stage.pgfw.start();
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    stage.pgfw.ok(&["allow", "10.20.0.0/16"]);
    let refused = stage.refused(&stage.with_certificate(&site.client, "alice", &alice));
    assert!(refused.contains("certificate revoked"), "{refused}");
}

/// The server's main process stands still: nobody can ask it who is connected. The filter closes at once, what is
/// missing is shown, and done when the server answers.
#[test]
fn p31_sessions_of_a_server_that_does_not_answer_end_when_it_does() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let mut session = stage.log_in(&site.client, "alice", &alice);
    let server = server_process(&stage);
    kill(server, Signal::SIGSTOP).unwrap();

    let told = stage.pgfw.pgfw(&["cert", "revoke", "alice"]);
    assert_fails(&told, 1, &["alice", "The daemon tries again", "pgfw status"]);
    assert!(told.stdout.contains("! Sessions on main"), "{}", told.stdout);
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    let waits = format!(
        "ending the sessions of certificate {} on main waits",
        alice.serial()
    );
    assert!(stage.attention().contains(&waits), "{}", stage.attention());
    // Her session's own process was never stopped.
    assert_eq!(session.query("select 1").as_deref(), Ok("1"));

    kill(server, Signal::SIGCONT).unwrap();
    stage.ends(&mut session);
    eventually("nothing waits any more", PATIENCE, || {
        (!stage.attention().contains("waits since")).then_some(())
    });
}

/// Killed while it waits for the server: whoever starts next ends the sessions.
#[test]
fn p31_a_revocation_that_was_killed_is_finished_at_the_next_start() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let mut session = stage.log_in(&site.client, "alice", &alice);
    daemon.kill();
    let server = server_process(&stage);
    kill(server, Signal::SIGSTOP).unwrap();
    let mut command = Child::start(&mut stage.pgfw.command(&["cert", "revoke", "alice"]));
    eventually("the filter is closed", PATIENCE, || {
        (stage.reach(&site.client) == Reach::Silent).then_some(())
    });
    assert!(!command.has_ended(), "{}", command.stdout());
    command.signal(Signal::SIGKILL);
    command.wait(PATIENCE);
    kill(server, Signal::SIGCONT).unwrap();
    assert_eq!(session.query("select 1").as_deref(), Ok("1"));

    let _daemon = stage.pgfw.start();
    stage.ends(&mut session);
    eventually("nothing waits any more", PATIENCE, || {
        (!stage.attention().contains("waits since")).then_some(())
    });
}

/// A server that is down has no sessions, and reads the list when it starts.
#[test]
fn p30_revoked_while_the_server_is_down() {
    let site = Site::new();
    let mut stage = Stage::with(&site, "allow = [\"10.20.0.0/16\"]", "");
    let _daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    stage.cluster.stop();
    let told = stage.revoke("alice");
    assert_eq!(told["unfinished"].to_string(), "[]", "{told}");
    stage.cluster.start();
    let refused = stage.refused(&stage.with_certificate(&site.client, "alice", &alice));
    assert!(refused.contains("certificate revoked"), "{refused}");
}

/// Gives a folder a small file system of its own, with room for a server that tries rules.
pub(crate) fn small_disk(site: &Site, folder: &str) {
    site.db.within(|| {
        fs::create_dir_all(folder).unwrap();
        mount(
            Some("small"),
            folder,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=96m,mode=755"),
        )
        .unwrap();
    });
}

/// Writes until nothing fits any more.
pub(crate) fn fill(site: &Site, folder: &str) {
    let filler = Path::new(folder).join("filler");
    site.db.within(|| {
        let full = fs::write(&filler, vec![0; 128 << 20]);
        assert!(full.is_err(), "128 MiB fit on 96");
        // What write(2) left of the last page.
        let mut size = 4096;
        while size > 0 {
            let file = fs::OpenOptions::new().append(true).open(&filler).unwrap();
            if std::io::Write::write_all(&mut &file, &vec![0; size]).is_err() {
                size /= 2;
            }
        }
    });
}

pub(crate) fn free(site: &Site, folder: &str) {
    site.db
        .within(|| fs::remove_file(Path::new(folder).join("filler")))
        .unwrap();
}

/// Neither the list nor the ledger can be written: the filter closes and sessions end all the same; as soon as there
/// is room, the rest follows by itself.
#[test]
fn p32_revoked_on_a_full_disk() {
    let site = Site::new();
    small_disk(&site, STATE);
    let stage = Stage::new(&site);
    let daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let mut session = stage.log_in(&site.client, "alice", &alice);
    fill(&site, STATE);

    let told = stage.pgfw.pgfw(&["cert", "revoke", "alice"]);
    assert_fails(&told, 1, &["alice", "The daemon tries again"]);
    assert!(told.stdout.contains("! Certificates"), "{}", told.stdout);
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    assert!(session.query("select 1").is_err());
    let shown = stage.attention();
    assert!(shown.contains("could not be written to the ledger"), "{shown}");
    assert!(shown.contains("publishing the CRLs"), "{shown}");
    // Nothing opens meanwhile.
    let open = stage.pgfw.pgfw(&["allow", "10.20.0.0/16"]);
    assert_fails(&open, 1, &[LEDGER]);
    assert_eq!(stage.reach(&site.client), Reach::Silent);

    free(&site, STATE);
    eventually("nothing waits any more", PATIENCE * 2, || {
        let shown = stage.attention();
        (!shown.contains("waits since") && !shown.contains("could not be written")).then_some(())
    });
    let list = stage.pgfw.ok(&["cert", "list"]);
    assert!(
        list.lines()
            .any(|l| l.starts_with("alice") && l.contains("revoked")),
        "{list}"
    );
    stage.pgfw.ok(&["allow", "10.20.0.0/16"]);
    let refused = stage.refused(&stage.with_certificate(&site.client, "alice", &alice));
    assert!(refused.contains("certificate revoked"), "{refused}");
    drop(daemon);
}

/// The same without a daemon: who asked is told that it counts until a restart only, and does it again.
#[test]
fn p32_revoked_on_a_full_disk_with_the_daemon_dead() {
    let site = Site::new();
    small_disk(&site, STATE);
    let stage = Stage::new(&site);
    let daemon = stage.enforce();
    stage.issue("alice", &[]);
    daemon.kill();
    fill(&site, STATE);
    let told = stage.pgfw.pgfw(&["cert", "revoke", "alice"]);
    assert_fails(&told, 1, &["alice", "Free space and run this again"]);
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    free(&site, STATE);
    stage.revoke("alice");
    let _daemon = stage.pgfw.start();
    assert_eq!(stage.reach(&site.client), Reach::Silent);
}

/// The same, and the daemon starts while there is still no room: what was closed stays closed, and all of the rest
/// follows when there is.
#[test]
fn p32_revoked_on_a_full_disk_and_the_daemon_starts_before_there_is_room() {
    let site = Site::new();
    small_disk(&site, STATE);
    let stage = Stage::with(&site, "", "");
    let daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let mut session = stage.log_in(&site.client, "alice", &alice);
    daemon.kill();
    let server = server_process(&stage);
    kill(server, Signal::SIGSTOP).unwrap();
    fill(&site, STATE);
    // Neither list nor ledger takes it, nor does the server answer: all that is left of it is beside the socket.
    let told = stage.pgfw.pgfw(&["cert", "revoke", "alice"]);
    assert_fails(&told, 1, &["alice", "Free space and run this again"]);
    kill(server, Signal::SIGCONT).unwrap();
    assert_eq!(session.query("select 1").as_deref(), Ok("1"));

    stage.pgfw.ok(&["off"]);
    let daemon = stage.pgfw.start();
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    stage.ends(&mut session);
    let shown = stage.attention();
    assert!(shown.contains("could not be written to the ledger"), "{shown}");
    // Once more, since it could have been written down by the first.
    daemon.kill();
    let _daemon = stage.pgfw.start();
    assert_eq!(stage.reach(&site.client), Reach::Silent);

    free(&site, STATE);
    eventually("nothing waits any more", PATIENCE * 2, || {
        let shown = stage.attention();
        (!shown.contains("waits since") && !shown.contains("could not be written")).then_some(())
    });
    stage.pgfw.ok(&["allow", "10.20.0.0/16"]);
    let refused = stage.refused(&stage.with_certificate(&site.client, "alice", &alice));
    assert!(refused.contains("certificate revoked"), "{refused}");
    let spare = site.db.within(|| Path::new("/run/pgfw/unrecorded.json").exists());
    assert!(!spare, "the spare copy stays");
}

/// The authority is gone, so no list can be signed: the filter closes and the sessions end.
#[test]
fn p32_revoked_without_the_authority() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let mut session = stage.log_in(&site.client, "alice", &alice);
    let (here, away) = ("/etc/pgfw/pki/client-ca", "/etc/pgfw/away");
    site.db.within(|| fs::rename(here, away)).unwrap();
    let told = stage.pgfw.pgfw(&["cert", "revoke", "alice"]);
    assert_fails(&told, 1, &["alice"]);
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    assert!(session.query("select 1").is_err());

    site.db.within(|| fs::rename(away, here)).unwrap();
    stage.pgfw.ok(&["allow", "10.20.0.0/16"]);
    eventually("the list says it", PATIENCE * 2, || {
        let attempt = stage.with_certificate(&site.client, "alice", &alice).open();
        attempt
            .is_err_and(|end| format!("{end:?}").contains("certificate revoked"))
            .then_some(())
    });
}

/// Killed after the first steps: the next start finishes what was begun. And one that was begun and never took place
/// ends nothing.
#[test]
fn p31_a_revocation_that_was_cut_off_is_finished_at_the_next_start() {
    let site = Site::new();
    let stage = Stage::with(&site, "allow = [\"10.20.0.0/16\"]", "");
    let daemon = stage.enforce();
    let (alice, bob) = (stage.issue("alice", &[]), stage.issue("bob", &[]));
    let mut alices = stage.log_in(&site.client, "alice", &alice);
    let mut bobs = stage.log_in(&site.client, "bob", &bob);
    daemon.kill();
    site.db.within(|| {
        let mut ledger = Ledger::open(Path::new(LEDGER)).unwrap();
        let now = Now::read().wall();
        let both = [alice.serial(), bob.serial()].map(|serial| format!("main/{serial}"));
        ledger
            .intend_work(WorkKind::EndSessions, &both, "begun", now)
            .unwrap();
        let revocation = Revocation {
            serial: alice.serial().to_owned(),
            authority: Authority::Client,
            authority_generation: 1,
            revoked: now,
            reason: RevocationReason::KeyCompromise,
            requester: "root".into(),
        };
        ledger.record_revocations(&[revocation]).unwrap();
    });
    assert_eq!(alices.query("select 1").as_deref(), Ok("1"));

    let _daemon = stage.pgfw.start();
    stage.ends(&mut alices);
    eventually("nothing waits any more", PATIENCE, || {
        (!stage.attention().contains("waits since")).then_some(())
    });
    let refused = stage.refused(&stage.with_certificate(&site.client, "alice", &alice));
    assert!(refused.contains("certificate revoked"), "{refused}");
    assert_eq!(bobs.query("select 1").as_deref(), Ok("1"));
    drop(stage.log_in(&site.client, "bob", &bob));
}

/// The list knows what a restored ledger does not: the filter learns it at the start.
#[test]
fn p33_a_restored_ledger_opens_nothing_for_the_revoked() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let daemon = stage.enforce();
    stage.issue("alice", &[]);
    daemon.kill();
    let copy = "/var/lib/pgfw/ledger.copy";
    site.db.within(|| fs::copy(LEDGER, copy)).unwrap();
    stage.revoke("alice");
    site.db.within(|| fs::copy(copy, LEDGER)).unwrap();
    let _daemon = stage.pgfw.start();
    eventually("the filter knows", PATIENCE, || {
        (stage.reach(&site.client) == Reach::Silent).then_some(())
    });
    let list = stage.pgfw.ok(&["cert", "list"]);
    assert!(
        list.lines()
            .any(|l| l.starts_with("alice") && l.contains("revoked")),
        "{list}"
    );
}
