//! `pgfw pg apply` and its undoing, killed at every step: what is found then is old or new, whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use pgfw::fault::VARIABLE;
use pgfw_tests::lab::{Site, run};

use super::stage::{Leaf, Stage};

const TRACE: &str = "/run/trace";
const STATE: &str = "/var/lib/pgfw/postgres/main";
const CAROL: &str = "[[identity]]\nname = \"carol\"\n";

/// A step and how often it was come to.
type Moment = (String, u32);

/// Runs a command to see which steps it comes to.
fn moments(stage: &Stage<'_>, arguments: &[&str]) -> Vec<Moment> {
    let traced = run(stage
        .pgfw
        .command(arguments)
        .env(VARIABLE, format!("trace:{TRACE}")));
    traced.expect_success();
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    let text = stage.site.db.read(TRACE);
    stage.site.db.within(|| fs::remove_file(TRACE).unwrap());
    let ours = text
        .lines()
        .filter(|step| step.starts_with("apply-") || step.starts_with("undone-"));
    ours.map(|step| {
        let time = times.entry(step.to_owned()).or_default();
        *time += 1;
        (step.to_owned(), *time)
    })
    .collect()
}

/// Runs a command that dies at this moment.
fn killed(stage: &Stage<'_>, arguments: &[&str], (step, time): &Moment) {
    let ended = run(stage
        .pgfw
        .command(arguments)
        .env(VARIABLE, format!("{step}:{time}")));
    assert_eq!(
        ended.code, None,
        "{step}:{time}: {}{}",
        ended.stdout, ended.stderr
    );
}

/// The live files, and who else lies there.
fn live(stage: &Stage<'_>) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = stage.cluster.config_dir();
    let mut all = stage.site.db.within(|| {
        let files = [folder.clone(), folder.join("conf.d")];
        let entries = files
            .iter()
            .flat_map(|f| fs::read_dir(f).into_iter().flatten().flatten());
        let paths = entries.map(|entry| entry.path()).filter(|path| path.is_file());
        paths
            .map(|path| (path.clone(), fs::read(&path).unwrap()))
            .collect::<Vec<_>>()
    });
    all.sort();
    all
}

/// A cold start with what is there now: it takes a pair of certificate and key that belong together, for one.
fn starts(stage: &mut Stage<'_>, at: &str) {
    stage.cluster.restart();
    assert_eq!(
        stage.cluster.sql("show ssl"),
        "on",
        "{at}: TLS is part of what the server starts with"
    );
}

fn gets_in(stage: &Stage<'_>, leaf: &Leaf) -> bool {
    let psql = stage.with_certificate(&stage.site.client, "carol", leaf);
    psql.open().is_ok()
}

fn tidy(stage: &Stage<'_>, at: &str) {
    let left = stage.site.db.within(|| {
        let names = fs::read_dir(STATE).unwrap().flatten();
        let mut names: Vec<String> = names
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("gen-"))
            .collect();
        names.sort();
        names
    });
    assert_eq!(left, ["crl", "current", "proven", "scratch"], "{at}");
}

/// Between two generations. The certificate changes with the rules, so a mixture would show.
#[test]
fn p13_an_apply_killed_at_any_step_is_resumed_or_undone() {
    let site = Site::new();
    let mut stage = Stage::with(&site, "", CAROL);
    stage.cluster.sql("create role carol login");
    let carol = stage.issue("carol", &[]);
    let begin = |stage: &Stage<'_>| {
        stage.configure("", "");
        stage.pgfw.ok(&["pg", "apply"]);
        stage.pgfw.ok(&["cert", "server"]);
        stage.configure("", CAROL);
    };
    const APPLY: &[&str] = &["pg", "apply"];
    begin(&stage);
    let old = live(&stage);
    let moments_of_apply = moments(&stage, APPLY);
    let names: Vec<&str> = moments_of_apply.iter().map(|(step, _)| step.as_str()).collect();
    assert_eq!(
        names,
        [
            "apply-written",
            "apply-tried",
            "apply-noted",
            "apply-chosen",
            "apply-switched",
            "apply-told",
            "apply-proven",
            "apply-marked"
        ]
    );
    let _ = old;
    for moment in &moments_of_apply {
        let at = format!("killed at {moment:?}");
        begin(&stage);
        assert!(!gets_in(&stage, &carol), "{at}");
        let (before, reloads) = (live(&stage), stage.reloads());
        killed(&stage, APPLY, moment);
        let said = stage.pgfw.ok(&["pg", "settle"]);
        let is_new = live(&stage) != before;
        // The server goes by what is on disk, whichever that is.
        assert_eq!(gets_in(&stage, &carol), is_new, "{at}: {said}");
        assert!(!is_new || stage.reloads() > reloads, "{at}: {said}");
        let expected = matches!(moment.0.as_str(), "apply-told" | "apply-proven" | "apply-marked");
        assert_eq!(is_new, expected, "{at}: {said}");
        tidy(&stage, &at);
        starts(&mut stage, &at);
        assert_eq!(gets_in(&stage, &carol), is_new, "{at}, after a cold start");
        // And it can go on.
        stage.pgfw.ok(APPLY);
        assert!(gets_in(&stage, &carol), "{at}");
    }
}

/// The first one of all, which takes the live names over; and a release of it.
#[test]
fn p13_a_first_apply_killed_at_any_step_leaves_what_was_there() {
    let site = Site::new();
    let mut stage = Stage::bare(&site, "", CAROL);
    stage.pgfw.ok(&["ca", "init"]);
    stage.pgfw.ok(&["cert", "server"]);
    let before = live(&stage);
    const APPLY: &[&str] = &["pg", "apply"];
    let all = moments(&stage, APPLY);
    assert_eq!(
        all.iter().filter(|(step, _)| step == "apply-linked").count(),
        3,
        "{all:?}"
    );
    assert!(all.iter().any(|(step, _)| step == "apply-kept"), "{all:?}");
    for moment in &all {
        let at = format!("killed at {moment:?}");
        stage.pgfw.ok(&["pg", "release"]);
        assert_eq!(live(&stage), before, "{at}");
        killed(&stage, APPLY, moment);
        // The server could be started at that very moment.
        stage.cluster.restart();
        let said = stage.pgfw.ok(&["pg", "settle"]);
        let is_new = live(&stage) != before;
        assert_eq!(
            is_new,
            stage.cluster.log().contains("marker-") && is_new,
            "{at}: {said}"
        );
        if !is_new {
            assert_eq!(
                stage
                    .cluster
                    .sql("select count(*) from pg_file_settings where sourcefile like '%pgfw%'"),
                "0",
                "{at}"
            );
        }
        starts_any(&mut stage);
        stage.pgfw.ok(APPLY);
        assert_eq!(stage.cluster.sql("show ssl"), "on", "{at}");
    }
}

fn starts_any(stage: &mut Stage<'_>) {
    stage.cluster.restart();
    assert_eq!(stage.cluster.sql("select 1"), "1");
}

/// The way back is as safe as the way there.
#[test]
fn p13_an_undoing_killed_at_any_step_is_done_by_the_next() {
    let site = Site::new();
    let mut stage = Stage::with(&site, "", CAROL);
    stage.cluster.sql("create role carol login");
    let carol = stage.issue("carol", &[]);
    const TRY: &[&str] = &["pg", "apply", "--confirm", "1h"];
    let begin = |stage: &Stage<'_>| {
        stage.configure("", "");
        stage.pgfw.ok(&["pg", "apply"]);
        stage.configure("", CAROL);
        stage.pgfw.ok(TRY);
        assert!(gets_in(stage, &carol));
    };
    begin(&stage);
    let all = moments(&stage, &["rollback"]);
    assert!(all.len() >= 3, "{all:?}");
    for moment in &all {
        let at = format!("killed at {moment:?}");
        begin(&stage);
        killed(&stage, &["rollback"], moment);
        // Nobody keeps by a word what is half undone.
        let said = stage.pgfw.ok(&["rollback"]);
        assert!(!gets_in(&stage, &carol), "{at}: {said}");
        tidy(&stage, &at);
        starts(&mut stage, &at);
        assert!(!gets_in(&stage, &carol), "{at}");
    }
}
