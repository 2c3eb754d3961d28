//! Bad input: one sentence that names it, one that says what to do, the right exit code; nothing is changed.

use pgfw_tests::lab::{Site, run};

use super::{CONFIG, configured, nothing_is_left, refused};

/// What the file holds; what the message must name; what the remedy must say.
type Row<'a> = (&'a str, &'a [&'a str], &'a str);

const HEAD: &str = "[firewall]\ninterfaces = [\"eth0\"]\n";

#[test]
fn a_config_that_cannot_be_meant() {
    let site = Site::new();
    let pgfw = configured(&site, "");
    let rows: &[Row<'_>] = &[
        // Keys and sections with a typo, each with the line it stands in.
        ("[firewal]\n", &["pgfw.toml:1", "`firewal`"], "`firewall`"),
        (
            "[firewall]\ninterface = [\"eth0\"]\n",
            &["pgfw.toml:2", "unknown key `interface`"],
            "Did you mean `interfaces`?",
        ),
        (
            "[firewall]\ninterfaces = [\"eth0\"\n[ssh]\n",
            &["pgfw.toml:"],
            "pgfw config check",
        ),
        ("[firewall]\ninterfaces = 7\n", &["pgfw.toml:2"], "Correct line 2"),
        // Interfaces that this host does not have.
        (
            "[firewall]\ninterfaces = [\"eth7\"]\n",
            &["there is no interface eth7"],
            "Did you mean eth0?",
        ),
        (
            "[firewall]\ninterfaces = [\"wlan*\"]\n",
            &["no interface matches wlan*"],
            "This host has eth0",
        ),
        ("[firewall]\n", &["no interface is named"], "firewall.interfaces"),
        (
            "[firewall]\ninterfaces = [\"lo\"]\n",
            &["pgfw.toml:2", "`lo` is never filtered"],
            "Take `lo` out",
        ),
    ];
    for (text, names, remedy) in rows {
        pgfw.configure(text);
        refused(&pgfw.pgfw(&["config", "check"]), 2, names, remedy);
        refused(&pgfw.pgfw(&["run"]), 2, names, remedy);
    }
    // Below a right head.
    let rows: &[Row<'_>] = &[
        (
            "[ssh]\nallow = [\"192.168.1.5/24\"]\n",
            &["pgfw.toml:4", "ssh.allow", "host bits"],
            "192.168.1.0/24",
        ),
        (
            "[ssh]\nallow = [\"office\"]\n",
            &["pgfw.toml:4", "`office` is not a network"],
            "prefix length",
        ),
        (
            "[ssh]\nallow = [\"::ffff:10.0.0.0/104\"]\n",
            &["IPv4-mapped"],
            "10.0.0.0/8",
        ),
        (
            "[[postgres]]\nname = \"main\"\ncluster = \"15/main\"\nport = 22\n",
            &["port 22", "two services"],
            "ports of its own",
        ),
        (
            "[[postgres]]\nname = \"main\"\ncluster = \"15/main\"\nalow = []\n",
            &["pgfw.toml:6", "`alow`"],
            "`allow`",
        ),
    ];
    for (text, names, remedy) in rows {
        pgfw.configure(&format!("{HEAD}{text}"));
        refused(&pgfw.pgfw(&["config", "check"]), 2, names, remedy);
        refused(&pgfw.pgfw(&["run"]), 2, names, remedy);
    }
    let named = pgfw.pgfw(&["config", "check", "/etc/pgfw/other.toml"]);
    refused(&named, 2, &["/etc/pgfw/other.toml cannot be read"], "--config");
    nothing_is_left(&site.db);
}

/// Arguments; exit code; what the message must name; what the remedy must say.
type Command<'a> = (&'a [&'a str], i32, &'a [&'a str], &'a str);

#[test]
fn arguments_that_cannot_be_meant() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let before = pgfw.ok(&["list"]);
    let rows: &[Command<'_>] = &[
        // Networks.
        (
            &["allow", "office"],
            2,
            &["`office` is not a network"],
            "like 192.168.1.0/24",
        ),
        (
            &["allow", "10.0.0.0/33"],
            2,
            &["`10.0.0.0/33` is not a network"],
            "prefix length",
        ),
        (
            &["allow", "10.0.0.5/8"],
            2,
            &["`10.0.0.5/8` has host bits set"],
            "10.0.0.0/8",
        ),
        (&["deny", "fd00:20::1/64"], 2, &["host bits"], "fd00:20::/64"),
        (&["remove", "10.0.0.5/8"], 2, &["host bits"], "10.0.0.5/32"),
        (
            &["allow", "::ffff:10.0.0.0/104"],
            2,
            &["IPv4-mapped"],
            "10.0.0.0/8",
        ),
        // Services.
        (
            &["allow", "10.0.0.0/8", "--service", "mian"],
            2,
            &["no service `mian`"],
            "Did you mean `main`?",
        ),
        (
            &["deny", "10.0.0.0/8", "--service", "http"],
            2,
            &["no service `http`"],
            "ssh, main",
        ),
        // Times and texts.
        (
            &["allow", "10.0.0.0/8", "--for", "0s"],
            2,
            &["at least one second"],
            "2h",
        ),
        (&["reload", "--confirm", "0s"], 2, &["at least one second"], "60s"),
        (
            &["allow", "10.0.0.0/8", "--comment", "two\nlines"],
            2,
            &["comment is no line of text"],
            "without line breaks",
        ),
        // Things that are not there.
        (
            &["remove", "10.99.0.0/16"],
            1,
            &["nothing was recorded", "10.99.0.0/16"],
            "pgfw list",
        ),
        (
            &["remove", "10.20.0.0/16"],
            1,
            &["10.20.0.0/16 was not recorded", "pgfw.toml"],
            "pgfw deny 10.20.0.0/16",
        ),
        (&["confirm"], 1, &["no change waits"], "pgfw status"),
        (&["rollback"], 1, &["no change waits"], "pgfw status"),
        // Frames.
        (&["check", "--hex", "zz"], 2, &["hex"], "digits"),
        (
            &["check", "--hex", "0011"],
            2,
            &["2 bytes"],
            "Ethernet header included",
        ),
    ];
    for (arguments, code, names, remedy) in rows {
        refused(&pgfw.pgfw(arguments), *code, names, remedy);
    }
    assert_eq!(pgfw.ok(&["list"]), before);
}

#[test]
fn usage_that_is_wrong_exits_2_and_shows_the_right_one() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let rows: &[(&[&str], &str)] = &[
        (&[], "Usage: pgfw"),
        (&["alow", "10.0.0.0/8"], "'allow'"),
        (&["allow"], "<CIDR>"),
        (&["allow", "10.0.0.0/8", "--for", "soon"], "--for <TIME>"),
        (&["allow", "10.0.0.0/8", "--until", "2h"], "--until"),
        (&["check", "db.example.com"], "SOURCE"),
        (&["check"], "SOURCE"),
        (&["check", "10.0.0.1", "--port", "99999"], "--port"),
        (&["check", "10.0.0.1", "--protocol", "tcpp"], "tcp, udp"),
        (&["reload", "--confirm", "tomorrow"], "--confirm"),
    ];
    for (arguments, shown) in rows {
        let said = pgfw.pgfw(arguments);
        assert_eq!(said.code, Some(2), "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(shown), "{arguments:?}: {}", said.stderr);
        assert_eq!(said.stdout, "");
    }
    for arguments in [&["--help"][..], &["--version"], &["allow", "--help"]] {
        let said = pgfw.pgfw(arguments);
        assert!(said.success() && !said.stdout.is_empty() && said.stderr.is_empty());
    }
}

#[test]
fn errors_are_json_where_json_was_asked_for() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let said = pgfw.pgfw(&["list", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&said.stderr).unwrap();
    assert_eq!((said.code, said.stdout.as_str()), (Some(3), ""));
    assert_eq!(error["code"], "unreachable");
    for key in ["message", "remedy"] {
        assert!(
            error[key].as_str().is_some_and(|text| !text.is_empty()),
            "{error}"
        );
    }
    let _daemon = pgfw.enforce();
    let said = pgfw.pgfw(&["--json", "allow", "10.0.0.0/8", "--service", "mian"]);
    let error: serde_json::Value = serde_json::from_str(&said.stderr).unwrap();
    assert_eq!((said.code, &error["code"]), (Some(2), &"invalid".into()));
    let done = run(&mut pgfw.command(&["--json", "allow", "10.0.0.0/8"])).expect_success();
    let done: serde_json::Value = serde_json::from_str(&done).unwrap();
    assert!(
        done["lines"][0]
            .as_str()
            .is_some_and(|l| l.contains("10.0.0.0/8 may connect"))
    );
}
