//! `pgfw connections`: sockets, sessions and the ledger, joined.

use nix::sys::signal::{Signal, kill};
use pgfw_tests::lab::{Instance, Outcome, Site, address};
use serde_json::Value;

use super::obstacles::server_process;
use super::revocation::signed;
use super::stage::{Stage, on_host};

fn shown(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

/// The connections of the first cluster that a test says something about.
fn those(all: &Value, is_meant: impl Fn(&Value) -> bool) -> Vec<&Value> {
    let connections = all["clusters"][0]["connections"].as_array().unwrap();
    connections.iter().filter(|c| is_meant(c)).collect()
}

#[test]
fn p40_p41_a_session_is_tied_to_its_certificate_and_an_unknown_serial_is_an_alarm() {
    let site = Site::new();
    // CN= and the longest name that an identity can have: more than the 63 bytes that the server shows.
    let long = "l".repeat(63);
    let identity = format!("[[identity]]\nname = \"{long}\"\nroles = [\"bob\"]\ndatabases = [\"app\"]\n");
    let stage = Stage::with(&site, "", &identity);
    let _daemon = stage.enforce();
    stage.pgfw.ok(&["allow", address::STRANGER_NETWORK]);
    let alice = stage.issue("alice", &["--reason", "ticket 7"]);
    let leaf = stage.issue(&long, &[]);
    let mut alices = stage.log_in(&site.client, "alice", &alice);
    let _long = stage.log_in(&site.stranger, "bob", &leaf);
    assert_eq!(
        alices
            .query("select count(*) from generate_series(1, 9)")
            .as_deref(),
        Ok("9")
    );
    let cut = stage
        .cluster
        .sql("select client_dn from pg_stat_ssl where client_dn like '%lll%'");
    assert_eq!(cut.len(), 63, "the server shows it whole by now: {cut}");

    let outcome = stage.pgfw.pgfw(&["--json", "connections"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let all = shown(&outcome);
    let of_alice = those(&all, |c| c["session"]["role"] == "alice");
    let [one] = of_alice.as_slice() else {
        panic!("{all}")
    };
    let certificate = &one["certificate"];
    assert_eq!(certificate["known"], "ledger", "{all}");
    assert_eq!(certificate["serial"], alice.serial());
    assert_eq!(certificate["identity"], "alice");
    assert_eq!(certificate["issued_by"], "root");
    assert_eq!(certificate["reason"], "ticket 7");
    assert!(
        one["remote"].as_str().unwrap().starts_with("10.20.0.10:"),
        "{one}"
    );
    assert!(one["traffic"]["bytes_received"].as_u64().unwrap() > 100, "{one}");
    assert!(one["traffic"]["bytes_sent"].as_u64().unwrap() > 100, "{one}");
    assert!(one["traffic"]["rtt_microseconds"].as_u64().unwrap() > 0, "{one}");
    assert_eq!(one["traffic"]["retransmits"], 0);
    assert!(one["since"].as_str().unwrap().starts_with("20"), "{one}");
    let of_long = those(&all, |c| c["session"]["role"] == "bob");
    assert_eq!(of_long[0]["certificate"]["dn"], format!("/CN={long}"));
    assert!(of_long[0]["certificate"]["identity"] == long.as_str(), "{all}");

    // Somebody with the authority's key made one beside pgfw.
    let serial = "00112233445566778899aabbccddeeff";
    let forged = signed(&stage, &alice, "/CN=alice", serial);
    let _session = stage.log_in(&site.client, "alice", &forged);
    let outcome = stage.pgfw.pgfw(&["--json", "connections", "main"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let all = shown(&outcome);
    let decimal = u128::from_str_radix(serial, 16).unwrap().to_string();
    let unknown = those(&all, |c| c["certificate"]["known"] == "unknown");
    assert_eq!(unknown.len(), 1, "{all}");
    assert_eq!(unknown[0]["certificate"]["serial"], decimal.as_str());
    let outcome = stage.pgfw.pgfw(&["connections"]);
    assert_eq!(outcome.code, Some(1));
    let alarm = outcome.stdout.lines().find(|l| l.starts_with("! ")).unwrap();
    for word in [decimal.as_str(), "the ledger does not know", serial] {
        assert!(alarm.contains(word), "{word}: {alarm}");
    }
    assert!(
        outcome.stdout.contains(&format!("/CN={long} ")),
        "{}",
        outcome.stdout
    );
    // What the alarm says to do does it.
    stage.revoke(serial);
    let outcome = stage.pgfw.pgfw(&["--json", "connections"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

/// Clusters that cannot be asked are named, and what the kernel knows of them is shown.
#[test]
fn a_server_that_is_down_is_named_and_its_sockets_are_shown() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let _session = stage.log_in(&site.client, "alice", &alice);
    let text = on_host(&stage, Instance::CONFIG);
    stage.pgfw.configure(&format!(
        "{text}\n[[postgres]]\nname = \"gone\"\ndata_directory = \"/nowhere\"\nport = 5433\n"
    ));
    let all = shown(&stage.pgfw.pgfw(&["--json", "connections"]));
    assert_eq!(all["clusters"][0]["unreachable"], Value::Null);
    assert!(
        all["clusters"][1]["unreachable"]
            .as_str()
            .unwrap()
            .contains("/nowhere"),
        "{all}"
    );

    let server = server_process(&stage);
    kill(server, Signal::SIGSTOP).unwrap();
    let said = stage.pgfw.pgfw(&["connections"]);
    let all = shown(&stage.pgfw.pgfw(&["--json", "connections", "main"]));
    kill(server, Signal::SIGCONT).unwrap();
    assert_eq!(said.code, Some(0), "{said:?}");
    for word in [
        "! main: its sessions are not known",
        "! gone: its sessions are not known",
        "10.20.0.10:",
    ] {
        assert!(said.stdout.contains(word), "{word}: {}", said.stdout);
    }
    let sockets = those(&all, |c| c["session"] == Value::Null);
    assert!(
        sockets[0]["traffic"]["bytes_sent"].as_u64().unwrap() > 100,
        "{all}"
    );
    assert_eq!(stage.pgfw.pgfw(&["connections", "mian"]).code, Some(1));
}

#[test]
fn hostile_names_stay_in_their_cell() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let _session = stage.log_in(&site.client, "alice", &alice);
    let before = stage.pgfw.ok(&["connections"]).lines().count();
    // A session shows its role's name of now.
    stage.cluster.sql(
        "do $$ begin execute format('alter role alice rename to %I', E'x\\n! main \\x1b[2J\\u202e') ; end $$",
    );
    let said = stage.pgfw.ok(&["connections"]);
    assert_eq!(said.lines().count(), before, "{said:?}");
    assert!(said.contains("x\\u{a}! main \\u{1b}[2J\\u{202e}"), "{said:?}");
    assert!(!said.contains('\u{1b}'), "{said:?}");
    let all = shown(&stage.pgfw.pgfw(&["--json", "connections"]));
    assert_eq!(
        those(&all, |c| c["session"]["role"] == "x\n! main \u{1b}[2J\u{202e}").len(),
        1
    );
}
