//! `pgfw reload` by a person on a terminal: kept by a yes, and by nothing else.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgfw_tests::lab::{EchoServer, Instance, PATIENCE, Reach, Site, Terminal, address, eventually};

use super::{CONFIG, becomes, configured, is_open, is_silent};

fn wider() -> String {
    CONFIG.replace("allow = [", "allow = [\"192.168.1.0/24\", ")
}

/// A reload on a terminal, up to the question.
fn asked(pgfw: &Instance<'_>, site: &Site) -> Terminal {
    pgfw.configure(&wider());
    let mut terminal = Terminal::start(pgfw.command(&["reload"]));
    terminal.shows("Keep it?");
    assert!(
        is_open(&site.stranger, address::DB, 5432),
        "it counts while it is asked about"
    );
    terminal
}

#[test]
fn f47_on_a_terminal_only_a_yes_keeps_a_reload() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();

    type Answer = fn(&mut Terminal);
    let no: [(&str, Answer); 6] = [
        ("n", |t| t.types("n\n")),
        ("an empty line", |t| t.types("\n")),
        ("the end of input", |t| t.types("\u{4}")),
        ("Ctrl-C", |t| t.types("\u{3}")),
        ("a lost connection", Terminal::hangs_up),
        ("a signal", |t| {
            kill(Pid::from_raw(t.pid()), Signal::SIGTERM).unwrap()
        }),
    ];
    for (what, answer) in no {
        let mut terminal = asked(&pgfw, &site);
        assert!(
            terminal.look().contains("+ main opens to 192.168.1.0/24"),
            "{}",
            terminal.look()
        );
        answer(&mut terminal);
        let ended = terminal.ends();
        assert!(ended.success(), "{what}: {ended:?}: {}", terminal.look());
        assert!(is_silent(&site.stranger, address::DB, 5432), "{what}");
        assert!(pgfw.status().0["pending"].is_null(), "{what}");
        if what == "n" {
            assert!(
                terminal.look().contains("policy 1 counts again"),
                "{}",
                terminal.look()
            );
        }
    }

    let mut terminal = asked(&pgfw, &site);
    terminal.types("y\n");
    assert!(terminal.ends().success());
    assert!(terminal.look().contains("is confirmed"), "{}", terminal.look());
    assert!(is_open(&site.stranger, address::DB, 5432));
    // Nothing differs: nothing is asked.
    let mut terminal = Terminal::start(pgfw.command(&["reload"]));
    assert!(terminal.ends().success());
    assert!(!terminal.look().contains("Keep it?"), "{}", terminal.look());
}

#[test]
fn f47_killed_while_it_asks_the_kernel_undoes_it() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    let terminal = asked(&pgfw, &site);
    assert!(
        pgfw.status().0["pending"]["seconds"]
            .as_u64()
            .is_some_and(|s| s <= 60)
    );
    drop(terminal);
    daemon.kill();
    eventually("the deadline comes", PATIENCE * 3, || {
        pgfw.status().0["pending"].is_null().then_some(())
    });
    becomes(&site.stranger, address::DB, 5432, Reach::Silent);
}

#[test]
fn what_asks_nothing_is_told_so_or_has_no_terminal() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    for (config, arguments, said) in [
        (wider(), &["reload", "--yes"][..], "counts now"),
        (
            CONFIG.to_owned(),
            &["reload", "--confirm", "1h"],
            "undoes itself then",
        ),
    ] {
        pgfw.configure(&config);
        let mut terminal = Terminal::start(pgfw.command(arguments));
        assert!(terminal.ends().success());
        let shown = terminal.look();
        assert!(shown.contains(said) && !shown.contains("Keep it?"), "{shown}");
    }
    pgfw.ok(&["confirm"]);
    pgfw.configure(&wider());
    // What systemctl reload runs.
    assert!(pgfw.ok(&["reload"]).contains("counts now"));
    assert_eq!(pgfw.pgfw(&["reload", "--yes", "--confirm", "1h"]).code, Some(2));
}
