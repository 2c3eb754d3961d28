//! A server that stands still keeps nobody from closing or looking, whoever waits for it.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use pgfw::ledger::Ledger;
use pgfw_tests::lab::{Child, PATIENCE, Reach, Site, address, eventually};

use super::obstacles::{LEDGER, server_process};
use super::stage::Stage;

/// Longer than a server is waited for, all told.
const THE_WAIT: Duration = Duration::from_secs(60);

/// Everything that has to go on while somebody waits for the server.
fn the_rest_goes_on(stage: &Stage<'_>, waits: &mut Child) {
    stage.pgfw.ok(&["deny", "203.0.113.0/24"]);
    stage.pgfw.ok(&["list"]);
    stage.pgfw.ok(&["status"]);
    stage.pgfw.ok(&["allow", address::STRANGER_NETWORK]);
    assert_eq!(stage.reach(&stage.site.stranger), Reach::Open);
    stage.pgfw.ok(&["remove", address::STRANGER_NETWORK, "--cut"]);
    assert!(!waits.has_ended(), "{}{}", waits.stdout(), waits.stderr());
}

#[test]
fn p31_an_apply_that_waits_for_its_server_holds_nothing_up() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    stage.issue("alice", &[]);
    stage.configure("local = [\"local app all peer\"]", "");
    let server = server_process(&stage);
    kill(server, Signal::SIGSTOP).unwrap();
    let mut apply = Child::start(&mut stage.pgfw.command(&["pg", "apply"]));
    eventually("the new rules are in place", PATIENCE, || {
        let link = site
            .db
            .within(|| std::fs::read_link("/var/lib/pgfw/postgres/main/current"));
        link.is_ok_and(|l| l.ends_with("gen-2")).then_some(())
    });
    the_rest_goes_on(&stage, &mut apply);
    // A revocation closes at once too; its sessions take a server that answers.
    let mut revoke = Child::start(&mut stage.pgfw.command(&["cert", "revoke", "alice"]));
    eventually("the filter is closed", PATIENCE, || {
        (stage.reach(&site.client) == Reach::Silent).then_some(())
    });
    assert!(!apply.has_ended(), "{}{}", apply.stdout(), apply.stderr());
    kill(server, Signal::SIGCONT).unwrap();
    let ended = apply.wait(THE_WAIT);
    assert!(ended.success(), "{}{}", apply.stdout(), apply.stderr());
    revoke.wait(THE_WAIT);
}

#[test]
fn p31_a_revocation_that_waits_for_its_server_holds_nothing_up() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let mut session = stage.log_in(&site.client, "alice", &alice);
    let server = server_process(&stage);
    kill(server, Signal::SIGSTOP).unwrap();
    let mut revoke = Child::start(&mut stage.pgfw.command(&["cert", "revoke", "alice"]));
    eventually("the filter is closed", PATIENCE, || {
        let list = stage.pgfw.ok(&["list"]);
        (!list.contains("certificate of alice") && !list.contains("10.20.0.0/16")).then_some(())
    });
    the_rest_goes_on(&stage, &mut revoke);
    assert_eq!(revoke.wait(THE_WAIT).code(), Some(1), "{}", revoke.stdout());
    assert!(
        revoke.stderr().contains("The daemon tries again"),
        "{}",
        revoke.stderr()
    );

    // Nor does the daemon when it tries again, however often.
    eventually("the daemon has tried again", THE_WAIT, || {
        let asked = Instant::now();
        stage.pgfw.ok(&["list"]);
        stage.pgfw.ok(&["deny", "203.0.113.0/24"]);
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        let ledger = site
            .db
            .within(|| Ledger::open_read_only(LEDGER.as_ref()).unwrap());
        let work = ledger.pending_work().unwrap();
        work.iter().any(|w| w.attempts >= 3).then_some(())
    });
    kill(server, Signal::SIGCONT).unwrap();
    stage.ends(&mut session);
    eventually("nothing waits any more", THE_WAIT, || {
        (!stage.attention().contains("waits since")).then_some(())
    });
}
