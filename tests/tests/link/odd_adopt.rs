//! `pgfw pg adopt` and `pg plan` of what nobody wants to meet: files without an end, outputs that take nothing, names that
//! draw on a terminal.

use std::fs::OpenOptions;
use std::process::Stdio;

use pgfw_tests::lab::{Site, Terminal, run};

use super::stage::{Stage, on_host};

/// Every host has a line of its own: what a server has that grew for years. Doubling the lines doubles the time; the way
/// there that compared each with each took minutes for these.
#[test]
fn rules_of_thousands_of_lines_are_adopted_and_planned() {
    const LINES: u32 = 3_000;
    let site = Site::new();
    let stage = Stage::bare(&site, "", "");
    stage
        .cluster
        .sql("alter role alice password 'a'; alter role bob password 'b'");
    let lines = (0..LINES).map(|n| {
        let (a, b, c) = (n / 62_500, n / 250 % 250, n % 250);
        format!("host all all 10.{}.{b}.{c}/32 scram-sha-256\n", 20 + a)
    });
    let hba: String = ["local all all peer\n".to_owned()]
        .into_iter()
        .chain(lines)
        .collect();
    site.db
        .write(stage.cluster.config_dir().join("pg_hba.conf"), &hba);
    let text = stage.pgfw.ok(&["pg", "adopt"]);
    let logins: u32 = text.matches("[[login]]").count().try_into().unwrap();
    assert_eq!(logins, LINES);
    assert!(text.contains(&format!("name = \"main-logins-{LINES}\"")));
    stage
        .pgfw
        .configure(&format!("[firewall]\ninterfaces = [\"eth0\"]\n\n{text}"));
    stage.pgfw.ok(&["config", "check"]);
    stage.pgfw.ok(&["ca", "init"]);
    stage.pgfw.ok(&["cert", "server"]);
    let planned = stage.pgfw.ok(&["pg", "plan"]);
    assert!(
        planned.contains("main: who gets in"),
        "{}",
        &planned[planned.len() - 500..]
    );
}

/// What did not fit is an error in words, not a panic, and not success.
#[test]
fn an_output_that_is_full_is_said() {
    let site = Site::new();
    let stage = Stage::new(&site);
    for arguments in [
        &["pg", "plan"][..],
        &["--json", "pg", "plan"],
        &["pg", "verify"],
        &["config", "check"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = stage.pgfw.command(arguments);
        command.stdout(full).stderr(Stdio::piped());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.starts_with("pgfw: standard output cannot be written to: No space left on device")
                && said.lines().count() == 2,
            "{arguments:?}: {said}"
        );
    }
}

/// A role's name is its owner's to choose.
#[test]
fn p43_names_draw_nothing_on_a_terminal() {
    let site = Site::new();
    let stage = Stage::bare(&site, "", "");
    stage.pgfw.ok(&["ca", "init"]);
    stage.pgfw.ok(&["cert", "server"]);
    let live = stage.cluster.config_dir().join("pg_hba.conf");
    let former = on_host(&stage, &live);
    site.db.write(
        &live,
        &format!("{former}host\tall \"wiped\x1b[2J\u{202e}\" 10.30.0.0/16 scram-sha-256\n"),
    );
    let clean = |text: &str, arguments: &[&str]| {
        for raw in ["\x1b[2J", "\u{202e}"] {
            assert!(!text.contains(raw), "{arguments:?}: {text:?}");
        }
        assert!(text.contains("wiped\\u{1b}[2J"), "{arguments:?}: {text}");
    };
    for arguments in [
        &["pg", "plan"][..],
        &["pg", "verify"],
        &["pg", "adopt"],
        &[
            "pg",
            "who",
            "--user",
            "wiped\x1b[2J\u{202e}",
            "--database",
            "app",
            "--from",
            "10.30.0.1",
        ],
    ] {
        let mut terminal = Terminal::start(stage.pgfw.command(arguments));
        let _status = terminal.ends();
        clean(terminal.look(), arguments);
    }
    // A plan that goes to a file has the diff as it is, for `patch`; all else is for people.
    let outcome = run(&mut stage.pgfw.command(&["pg", "plan"]));
    let (diff, people): (Vec<&str>, Vec<&str>) = outcome
        .stdout
        .lines()
        .partition(|line| line.starts_with(['-', '+', ' ', '@']) && !line.starts_with("  "));
    assert!(
        diff.iter()
            .any(|line| line.contains("\twiped") || line.contains("\x1b[2J")),
        "{diff:?}"
    );
    assert!(!people.iter().any(|line| line.contains('\x1b')), "{people:?}");
}
