//! Issuing that is cut off, or finds no room; and what it says that it opened.

use std::fs;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use pgfw_tests::lab::{Child, PATIENCE, Reach, Site, eventually};
use serde_json::Value;

use super::obstacles::{LEDGER, STATE, fill, free, small_disk};
use super::stage::{Stage, assert_fails};

const AUTHORITY: &str = "/etc/pgfw/pki/server-ca/g1/ca.crt";
const AWAY: &str = "/etc/pgfw/pki/away";
const PIPE: &str = "/etc/pgfw/pki/pipe";
const ISSUED: &str = "/etc/pgfw/pki/issued";

/// Starts an issue for alice that stands still once the ledger has the certificate and before its files are there:
/// where it reads the server authority, a pipe stands to which nobody writes.
fn held_up(stage: &Stage<'_>) -> Child {
    stage.site.db.within(|| {
        fs::rename(AUTHORITY, AWAY).unwrap();
        mkfifo(PIPE, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        fs::hard_link(PIPE, AUTHORITY).unwrap();
    });
    let issue = Child::start(&mut stage.pgfw.command(&["cert", "issue", "alice"]));
    eventually("the ledger has it", PATIENCE, || {
        state_of_alice(stage).is_some().then_some(())
    });
    issue
}

/// Puts the authority back.
fn let_go(stage: &Stage<'_>) {
    stage.site.db.within(|| fs::rename(AWAY, AUTHORITY).unwrap());
}

/// The issue goes on, and finds this in place of the authority; the next reading finds the authority.
fn goes_on(stage: &Stage<'_>, issue: &mut Child, reads: &str) -> Option<i32> {
    let_go(stage);
    stage.site.db.within(|| fs::write(PIPE, reads).unwrap());
    issue.wait(PATIENCE).code()
}

/// What `cert list` says of alice's newest certificate.
fn state_of_alice(stage: &Stage<'_>) -> Option<String> {
    let list = stage.pgfw.ok(&["cert", "list"]);
    let hers = list.lines().rfind(|line| line.starts_with("alice"));
    hers.map(str::to_owned)
}

fn nothing_is_issued(stage: &Stage<'_>) {
    let left: Vec<_> = stage.site.db.within(|| {
        let entries = fs::read_dir(ISSUED).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect()
    });
    assert!(!left.iter().any(|name| name.contains("alice")), "{left:?}");
}

/// A daemon that starts now opens nothing; and issuing again does.
fn nothing_opened(stage: &Stage<'_>) {
    let _daemon = stage.pgfw.start();
    assert_eq!(stage.reach(&stage.site.client), Reach::Silent);
    let state = state_of_alice(stage);
    assert!(state.as_ref().is_none_or(|s| s.contains("revoked")), "{state:?}");
    let alice = stage.issue("alice", &[]);
    drop(stage.log_in(&stage.site.client, "alice", &alice));
}

#[test]
fn an_issue_that_is_killed_before_its_files_are_there_opens_nothing() {
    let site = Site::new();
    let stage = Stage::new(&site);
    stage.enforce().kill();
    let mut issue = held_up(&stage);
    issue.signal(Signal::SIGKILL);
    issue.wait(PATIENCE);
    let_go(&stage);
    let link = format!("{ISSUED}/alice");
    assert!(!site.db.within(|| fs::exists(&link).unwrap()));
    nothing_opened(&stage);
    // What lay there half made held a key, and went with the next issue.
    let left = site.db.within(|| fs::read_dir(ISSUED).unwrap().count());
    assert_eq!(left, 2, "the link and its folder");
}

/// The files cannot be made, and that it was given up cannot be written down.
#[test]
fn p32_an_issue_that_fails_when_the_disk_is_full_opens_nothing() {
    let site = Site::new();
    small_disk(&site, STATE);
    let stage = Stage::new(&site);
    stage.enforce().kill();
    let mut issue = held_up(&stage);
    fill(&site, STATE);
    assert_eq!(goes_on(&stage, &mut issue, "no certificate"), Some(1));
    assert!(issue.stderr().contains(AUTHORITY), "{}", issue.stderr());
    nothing_is_issued(&stage);
    free(&site, STATE);
    nothing_opened(&stage);
}

/// The files stand, and that it counts from now on cannot be written down: they go again.
#[test]
fn p32_an_issue_whose_last_step_finds_the_disk_full_leaves_nothing() {
    let site = Site::new();
    small_disk(&site, STATE);
    let stage = Stage::new(&site);
    stage.enforce().kill();
    let mut issue = held_up(&stage);
    fill(&site, STATE);
    let authority = site.db.read(AWAY);
    assert_eq!(goes_on(&stage, &mut issue, &authority), Some(1));
    let said = issue.stderr();
    assert!(said.contains(LEDGER) && said.contains("Free space"), "{said}");
    assert!(!issue.stdout().contains("Issued"), "{}", issue.stdout());
    nothing_is_issued(&stage);
    free(&site, STATE);
    nothing_opened(&stage);
}

/// No room for the ledger, and then none for the files: nothing opens, nothing is half made, and it is said where.
#[test]
fn p32_issuing_on_a_full_disk() {
    let site = Site::new();
    small_disk(&site, STATE);
    let stage = Stage::new(&site);
    let daemon = stage.enforce();
    fill(&site, STATE);
    let told = stage.pgfw.pgfw(&["cert", "issue", "alice"]);
    assert_fails(&told, 1, &[LEDGER, "no space left", "Free space"]);
    assert_eq!(told.stdout, "");
    nothing_is_issued(&stage);
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    free(&site, STATE);

    small_disk(&site, ISSUED);
    fill(&site, ISSUED);
    let told = stage.pgfw.pgfw(&["cert", "issue", "alice"]);
    assert_fails(&told, 1, &[ISSUED, "No space left"]);
    nothing_is_issued(&stage);
    stage.pgfw.ok(&["allow", "192.168.9.0/24"]);
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    free(&site, ISSUED);
    daemon.kill();
    nothing_opened(&stage);
}

/// What is printed as open is open: in the policy that runs, not in pgfw.toml.
#[test]
fn what_an_issue_says_to_be_open_is_what_the_policy_that_runs_opens() {
    let site = Site::new();
    let carol = "[[identity]]\nname = \"carol\"\ndatabases = [\"app\"]\nnetworks = [\"192.168.1.0/24\"]\n";
    let stage = Stage::new(&site);
    let early = stage.pgfw.ok(&["cert", "issue", "alice"]);
    assert!(
        early.contains("10.20.0.0/16 (opens when pgfw enforces"),
        "{early}"
    );
    assert!(!early.contains("(open while"), "{early}");

    let daemon = stage.enforce();
    let open = stage.pgfw.ok(&["cert", "issue", "alice"]);
    assert!(open.contains("10.20.0.0/16 (open while it is valid)"), "{open}");
    assert_eq!(stage.reach(&site.client), Reach::Open);
    stage.pgfw.ok(&["deny", "10.0.0.0/8"]);
    let denied = stage.pgfw.ok(&["cert", "issue", "alice"]);
    assert!(
        denied.contains("10.20.0.0/16 (not open: a `pgfw deny` covers it)"),
        "{denied}"
    );
    stage.pgfw.ok(&["remove", "10.0.0.0/8"]);

    stage.configure("", carol);
    for daemon in [Some(daemon), None] {
        let said: Value =
            serde_json::from_str(&stage.pgfw.ok(&["--json", "cert", "issue", "carol"])).unwrap();
        assert_eq!(said["networks"].to_string(), "[]");
        assert_eq!(said["shut"][0]["net"], "192.168.1.0/24");
        assert_eq!(said["shut"][0]["why"], "not_reloaded");
        assert_eq!(stage.reach(&site.stranger), Reach::Silent);
        drop(daemon);
    }
    let _daemon = stage.pgfw.start();
    stage.pgfw.ok(&["reload"]);
    assert_eq!(stage.reach(&site.stranger), Reach::Open);
    let said = stage.pgfw.ok(&["cert", "issue", "carol"]);
    assert!(said.contains("192.168.1.0/24 (open while it is valid)"), "{said}");
    stage.pgfw.ok(&["off"]);
    let off = stage.pgfw.ok(&["cert", "issue", "carol"]);
    assert!(off.contains("192.168.1.0/24 (opens when pgfw enforces"), "{off}");
}
