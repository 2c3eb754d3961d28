//! The control socket itself, as something other than the command line would speak to it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use pgfw_tests::lab::{EchoServer, Host, Site, Talk, address};
use serde_json::{Value, json};

use super::{CONFIG, configured, is_open};

/// One request: the status, and the JSON of the answer.
#[track_caller]
fn ask(host: &Host, method: &str, path: &str, body: &str) -> (u16, Value) {
    let answer = host.within(|| {
        let mut socket = UnixStream::connect("/run/pgfw/pgfw.sock").unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: pgfw\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        socket.write_all((head + body).as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    });
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    (status, body)
}

#[test]
fn what_the_command_line_would_not_send_is_refused_by_the_daemon_too() {
    let site = Site::new();
    let _ssh = EchoServer::start(&site.db, "[::]:22");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let mut session = Talk::open(&site.stranger, address::DB, 22);
    let before = pgfw.ok(&["list"]);
    let entry = |answer: &str, net: &str, key: &str, value: Value| {
        json!({"answer": answer, "net": net, key: value}).to_string()
    };
    let entries = "/v1/entries";
    let cut = |net: &str| entry("deny", net, "force", false.into());
    let comment = |text: &str| entry("allow", "10.0.0.0/8", "comment", text.into());
    for (path, body, status, said) in [
        // The guard asks about the network as it is written; the table would hold the one that it means.
        (entries, cut("192.168.1.10/24"), 422, "host bits"),
        (
            entries,
            cut("192.168.1.0/24"),
            409,
            "would cut the live SSH session",
        ),
        (entries, cut("::ffff:192.168.1.0/120"), 422, "IPv4-mapped"),
        (entries, cut("nowhere"), 422, "not understood"),
        (entries, comment("two\nlines"), 422, "no line of text"),
        (entries, comment("\u{1b}[31mred"), 422, "no line of text"),
        (entries, comment(&"long ".repeat(50)), 422, "no line of text"),
        (
            entries,
            entry("allow", "10.0.0.0/8", "seconds", 0.into()),
            422,
            "at least one second",
        ),
        (
            entries,
            entry("allow", "10.0.0.0/8", "untl", 60.into()),
            422,
            "unknown field `untl`",
        ),
        (entries, "{".into(), 422, "not understood"),
        (
            "/v1/entries/remove",
            json!({"net": "10.20.0.5/16"}).to_string(),
            422,
            "host bits",
        ),
        (
            "/v1/reload",
            json!({"confirm": 0}).to_string(),
            422,
            "at least one second",
        ),
        ("/v1/entry", cut("10.0.0.0/8"), 404, "no such request"),
        ("/v2/entries", cut("10.0.0.0/8"), 404, "no such request"),
    ] {
        let (got, answer) = ask(&site.db, "POST", path, &body);
        assert_eq!(got, status, "{path} {body}: {answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(said), "{path} {body}: {answer}");
        for key in ["code", "remedy"] {
            assert!(
                answer[key].as_str().is_some_and(|text| !text.is_empty()),
                "{answer}"
            );
        }
    }
    assert!(session.flows() && is_open(&site.stranger, address::DB, 22));
    assert_eq!(pgfw.ok(&["list"]), before);
    let (status, answer) = ask(&site.db, "GET", "/v1/status", "");
    assert_eq!((status, &answer["state"]), (200, &"enforcing".into()));
}
