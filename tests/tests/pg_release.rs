//! Giving a cluster back: as it was, or as pgfw left it; nothing may lead to pgfw's folders afterwards.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use pgfw::failure::Explain;
use pgfw::postgres::wire::Answer;
use pgfw::postgres::{Given, Leave, PostgresError, Released, release};
use pgfw_tests::scratch::managed::{Managed, log_in, to};
use pgfw_tests::scratch::{Scratch, as_postgres, write};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ALICE: &str = "[[identity]]\nname = \"alice\"\nnetworks = [\"127.0.0.0/8\"]\n";

/// How the server comes to read pgfw.conf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// A line at the end of postgresql.conf.
    Line,
    /// A link in a folder that postgresql.conf includes, as Debian lays it out.
    Folder,
}

const LAYOUTS: [Layout; 2] = [Layout::Line, Layout::Folder];

/// A server that pgfw manages, and every file of its folder as it was before. One that does not run yet, if so asked.
fn managed(layout: Layout, running: bool) -> (Managed, Files) {
    let scratch = Scratch::stopped();
    if layout == Layout::Folder {
        fs::create_dir(scratch.data().join("conf.d")).unwrap();
        chown_to_postgres(&scratch.data().join("conf.d"));
        scratch.configure("include_dir = 'conf.d'\n");
    }
    let before = files(&scratch.data());
    let mut managed = Managed::new(scratch);
    if running {
        managed.scratch.run();
    }
    managed.apply(&managed.config("", ALICE)).unwrap();
    (managed, before)
}

fn chown_to_postgres(path: &Path) {
    let user = pgfw_tests::scratch::postgres();
    std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
}

/// Names and texts, links followed.
type Files = BTreeMap<PathBuf, String>;

/// Compares without printing whole configuration files.
#[track_caller]
fn assert_same(now: &Files, before: &Files) {
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(now), names(before));
    for (name, text) in before {
        let first = now[name].lines().zip(text.lines()).find(|(a, b)| a != b);
        assert!(now[name] == *text, "{}: {first:?}", name.display());
    }
}

/// The configuration's files.
fn files(data: &Path) -> Files {
    let listed = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    listed(data.to_owned())
        .chain(listed(data.join("conf.d")))
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.to_string_lossy();
            ["conf", "pgfw"].iter().any(|end| name.ends_with(end)) && !path.is_dir()
        })
        .filter(|path| !path.ends_with("postgresql.auto.conf"))
        .map(|path| (path.clone(), fs::read_to_string(&path).unwrap()))
        .collect()
}

fn release_as(managed: &Managed, leave: Leave) -> Result<Released, PostgresError> {
    release(&managed.config("", ALICE).postgres[0], &managed.paths, leave)
}

fn alice_gets_in(managed: &Managed) -> bool {
    let leaf = managed.clients.client("alice", &[7]);
    matches!(
        log_in(HERE, Some(&leaf), &to("alice", "postgres")),
        Ok(Answer::Ok)
    )
}

/// No name of the server's folder leads, and no file says the way, to pgfw's state.
fn assert_free(managed: &Managed) {
    let state = managed.paths.state_dir.display().to_string();
    let mut folders = vec![managed.scratch.data()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            assert!(!path.is_symlink(), "{}", path.display());
            let text = path.extension().is_some_and(|e| e == "conf");
            if path.is_dir() && ["conf.d", "pgfw"].iter().any(|n| path.ends_with(n)) {
                folders.push(path);
            } else if text {
                let text = fs::read_to_string(&path).unwrap();
                assert!(!text.contains(&state), "{}:\n{text}", path.display());
            }
        }
    }
    let generations = managed.paths.postgres("main");
    let left: Vec<_> = fs::read_dir(&generations)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name())
        .filter(|name| name != "crl")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn released_as_it_was_and_proven_then_nothing_to_do_then_taken_over_again() {
    for layout in LAYOUTS {
        let (managed, before) = managed(layout, true);
        assert!(alice_gets_in(&managed));
        let first = release_as(&managed, Leave::Former).unwrap();
        assert!(!first.unchanged);
        assert_eq!(first.steps.last(), Some(&Given::Proven), "{:?}", first.steps);
        assert_eq!((first.left, first.complaints), (vec![], vec![]));
        assert_same(&files(&managed.scratch.data()), &before);
        assert_free(&managed);
        assert!(!alice_gets_in(&managed), "{layout:?}: pgfw's rules count on");
        assert_eq!(managed.scratch.sql("show ssl"), "off");

        let again = release_as(&managed, Leave::Former).unwrap();
        assert!(again.unchanged && again.steps.is_empty(), "{again:?}");
        managed.apply(&managed.config("", ALICE)).unwrap();
        assert!(alice_gets_in(&managed));
    }
}

#[test]
fn kept_logins_go_on_without_pgfw_and_over_a_restart() {
    for layout in LAYOUTS {
        let (mut managed, before) = managed(layout, true);
        let kept = release_as(&managed, Leave::Written).unwrap();
        assert_eq!(kept.steps.last(), Some(&Given::Proven), "{:?}", kept.steps);
        assert!(kept.crls_lapse.is_some());
        assert_free(&managed);
        let again = release_as(&managed, Leave::Written).unwrap();
        assert!(again.unchanged, "{layout:?}: {again:?}");

        let crls = managed.material.crl_dir.clone();
        let lists: Vec<_> = fs::read_dir(&crls)
            .unwrap()
            .map(|e| {
                let path = e.unwrap().path();
                (path.clone(), fs::read(path).unwrap())
            })
            .collect();
        fs::remove_dir_all(&managed.paths.state_dir).unwrap();
        assert!(alice_gets_in(&managed), "{layout:?}");
        managed.scratch.stop();
        managed.scratch.run();
        assert!(alice_gets_in(&managed), "{layout:?}: after a restart");

        // Taken over again, and given back as it was before the first time.
        fs::create_dir_all(&crls).unwrap();
        lists
            .iter()
            .for_each(|(path, list)| fs::write(path, list).unwrap());
        managed.apply(&managed.config("", ALICE)).unwrap();
        assert!(alice_gets_in(&managed));
        release_as(&managed, Leave::Former).unwrap();
        let mut now = files(&managed.scratch.data());
        now.retain(|path, _| !path.to_string_lossy().ends_with(".edited-pgfw"));
        assert_same(&now, &before);
    }
}

/// First kept, later given back as it was after all.
#[test]
fn what_was_kept_can_still_be_given_back() {
    for layout in LAYOUTS {
        let (managed, before) = managed(layout, true);
        release_as(&managed, Leave::Written).unwrap();
        let released = release_as(&managed, Leave::Former).unwrap();
        assert_eq!(
            released.steps.last(),
            Some(&Given::Proven),
            "{:?}",
            released.steps
        );
        assert_same(&files(&managed.scratch.data()), &before);
        assert!(!managed.scratch.data().join("pgfw").exists());
        assert!(!alice_gets_in(&managed));
    }
}

#[test]
fn kept_files_are_the_servers_own_and_its_key_is_nobody_elses() {
    use std::os::unix::fs::MetadataExt;
    let (managed, _) = managed(Layout::Folder, true);
    release_as(&managed, Leave::Written).unwrap();
    let data = managed.scratch.data();
    let user = pgfw_tests::scratch::postgres();
    for name in [
        "pg_hba.conf",
        "pg_ident.conf",
        "conf.d/zz-pgfw.conf",
        "pgfw/server.key",
    ] {
        let found = fs::metadata(data.join(name)).unwrap();
        assert_eq!(
            (found.uid(), found.mode() & 0o7777),
            (user.uid.as_raw(), 0o600),
            "{name}"
        );
    }
}

#[test]
fn released_while_the_server_is_down() {
    for (layout, leave) in [
        (Layout::Line, Leave::Former),
        (Layout::Folder, Leave::Former),
        (Layout::Line, Leave::Written),
        (Layout::Folder, Leave::Written),
    ] {
        let (mut managed, before) = managed(layout, false);
        let released = release_as(&managed, leave).unwrap();
        assert_eq!(released.steps.last(), Some(&Given::AtNextStart));
        assert_free(&managed);
        assert!(release_as(&managed, leave).unwrap().unchanged);
        managed.scratch.run();
        assert_eq!(alice_gets_in(&managed), leave == Leave::Written, "{layout:?}");
        if leave == Leave::Former {
            assert_same(&files(&managed.scratch.data()), &before);
        }
    }
}

/// What pgfw.conf leads to is gone: the server could not start, and its program answers no question.
#[test]
fn a_lost_state_does_not_stand_in_the_way() {
    for layout in LAYOUTS {
        for running in [true, false] {
            let (mut managed, before) = managed(layout, running);
            fs::remove_dir_all(&managed.paths.state_dir).unwrap();
            let starts = as_postgres("/usr/lib/postgresql/15/bin/postgres")
                .args(["-C", "port", "-D"])
                .arg(managed.scratch.data())
                .output()
                .unwrap();
            assert!(!starts.status.success(), "{layout:?}: the server could start");
            // Nothing is there to keep, and saying so changes nothing.
            let links = |m: &Managed| m.scratch.data().join("pg_hba.conf").is_symlink();
            release_as(&managed, Leave::Written).unwrap_err();
            assert!(links(&managed));

            let released = release_as(&managed, Leave::Former).unwrap();
            let last = if running {
                Given::Proven
            } else {
                Given::AtNextStart
            };
            assert_eq!(released.steps.last(), Some(&last), "{layout:?}");
            assert_same(&files(&managed.scratch.data()), &before);
            assert_free(&managed);
            managed.scratch.stop();
            managed.scratch.run();
        }
    }
}

/// The server does not take the former rules: all stays pgfw's, and logins go on.
#[test]
fn former_rules_that_the_server_refuses_are_not_left() {
    for layout in LAYOUTS {
        let (managed, _) = managed(layout, true);
        let former = managed.scratch.data().join("pg_hba.conf.before-pgfw");
        let good = fs::read(&former).unwrap();
        write(&former, "local all all nonsense\n");
        let error = release_as(&managed, Leave::Former).unwrap_err();
        assert!(matches!(error, PostgresError::NotGivenBack { .. }), "{error}");
        assert!(error.to_string().contains("nonsense"), "{error}");
        assert!(!error.remedy().is_empty());
        assert_eq!(fs::read(&former).unwrap(), b"local all all nonsense\n");
        assert!(alice_gets_in(&managed));
        assert!(managed.apply(&managed.config("", ALICE)).unwrap().unchanged);

        fs::remove_file(&former).unwrap();
        let error = release_as(&managed, Leave::Former).unwrap_err();
        assert!(matches!(error, PostgresError::NoFormer { .. }), "{error}");
        assert!(alice_gets_in(&managed));
        fs::write(&former, good).unwrap();
        chown_to_postgres(&former);
        release_as(&managed, Leave::Former).unwrap();
    }
}

/// Killed after the files were put back and before the server was told: the next call tells it.
#[test]
fn a_release_that_was_cut_off_is_finished() {
    let (managed, _) = managed(Layout::Folder, true);
    let data = managed.scratch.data();
    fs::rename(data.join("pg_hba.conf.before-pgfw"), data.join("pg_hba.conf")).unwrap();
    let half = release_as(&managed, Leave::Former).unwrap();
    assert!(!half.unchanged);
    assert_eq!(half.steps.last(), Some(&Given::Proven));
    assert!(!alice_gets_in(&managed));

    managed.apply(&managed.config("", ALICE)).unwrap();
    for name in ["pg_hba.conf", "pg_ident.conf"] {
        fs::rename(data.join(format!("{name}.before-pgfw")), data.join(name)).unwrap();
    }
    fs::remove_file(data.join("conf.d/zz-pgfw.conf")).unwrap();
    assert!(alice_gets_in(&managed), "the server was not told");
    let whole = release_as(&managed, Leave::Former).unwrap();
    assert_eq!(whole.steps.last(), Some(&Given::Proven));
    assert!(!alice_gets_in(&managed));
    assert!(release_as(&managed, Leave::Former).unwrap().unchanged);
}

/// A link that somebody replaced is somebody's.
#[test]
fn what_somebody_else_changed_is_left_and_named() {
    let (managed, _) = managed(Layout::Line, true);
    let hba = managed.scratch.data().join("pg_hba.conf");
    let conf = managed.scratch.data().join("postgresql.conf");
    fs::remove_file(&hba).unwrap();
    write(&hba, "local all all peer\n");
    fs::OpenOptions::new()
        .append(true)
        .open(&conf)
        .unwrap()
        .write_all(b"work_mem = '5MB'\n")
        .unwrap();
    let released = release_as(&managed, Leave::Former).unwrap();
    assert_eq!(released.left.as_slice(), std::slice::from_ref(&hba));
    assert_eq!(fs::read_to_string(&hba).unwrap(), "local all all peer\n");
    let conf = fs::read_to_string(&conf).unwrap();
    assert!(
        conf.ends_with("work_mem = '5MB'\n") && !conf.contains("\ninclude"),
        "{conf}"
    );
    assert_eq!(managed.scratch.sql("show work_mem"), "5MB");
}
