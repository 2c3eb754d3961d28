//! `pgfw events` and `pgfw check --pcap`: what was dropped, who sent it, why; and what would be.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use pgfw_tests::lab::{
    Child, EchoServer, Instance, Outcome, PATIENCE, Site, Talk, Wire, address, eventually, run,
};
use serde_json::Value;

use super::{CONFIG, configured, is_silent, refused};

const SYN: u8 = 0x02;
const FIN: u8 = 0x01;

/// One event as `pgfw events --json` gave it.
#[derive(Debug)]
struct Told(Value);

impl Told {
    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    fn flow(&self) -> (&str, &str, u64, &str, u64) {
        let port = |key: &str| self.0[key].as_u64().unwrap_or_default();
        (
            self.text("protocol"),
            self.text("source"),
            port("source_port"),
            self.text("destination"),
            port("destination_port"),
        )
    }
}

fn told(lines: &str) -> Vec<Told> {
    let lines = lines.lines();
    lines
        .map(|line| Told(serde_json::from_str(line).unwrap()))
        .collect()
}

/// Waits until there are so many events of a reason.
#[track_caller]
fn events(pgfw: &Instance<'_>, reason: &str, count: usize) -> Vec<Told> {
    eventually(&format!("{count} events of {reason}"), PATIENCE, || {
        let found = told(&pgfw.ok(&["events", "--json", "--reason", reason]));
        (found.len() >= count).then_some(found)
    })
}

const STRANGER: [(IpAddr, IpAddr); 2] = [
    (address::STRANGER, address::DB),
    (address::STRANGER_V6, address::DB_V6),
];

#[test]
fn a_strangers_syn_is_told_with_its_reason_and_ends() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    for (n, (stranger, db)) in STRANGER.into_iter().enumerate() {
        Wire::tcp(&site.stranger, stranger, db).segment(40_007, 5432, SYN);
        let found = events(&pgfw, "service-closed", n + 1);
        let event = &found[n];
        let (stranger, db) = (stranger.to_string(), db.to_string());
        assert_eq!(
            event.flow(),
            ("tcp", stranger.as_str(), 40_007, db.as_str(), 5432)
        );
        assert_eq!(
            (
                event.text("interface"),
                event.text("reason"),
                event.text("verdict")
            ),
            ("eth0", "service-closed", "drop")
        );
        let heads = event.text("head").len() as u64;
        assert_eq!(
            event.0["length"].as_u64(),
            Some(heads / 2),
            "all of a short frame"
        );
        let time =
            time::OffsetDateTime::parse(event.text("time"), &time::format_description::well_known::Rfc3339);
        let age = time::OffsetDateTime::now_utc() - time.unwrap();
        assert!(
            age.whole_seconds() < 30 && age.whole_milliseconds() > -50,
            "{age}"
        );
    }
    // For people: one line, and the bytes when asked for.
    let lines = pgfw.ok(&["events", "--reason", "service-closed"]);
    let ends = "eth0 service-closed tcp 192.168.1.10:40007 > 10.10.0.10:5432, ";
    assert!(lines.lines().count() == 2 && lines.contains(ends), "{lines}");
    let bytes = pgfw.ok(&["events", "--hex", "--reason", "service-closed"]);
    // EtherType IPv4, version and header length, ToS.
    assert!(
        bytes.contains("    0000  ") && bytes.contains(" 08 00 45 00\n"),
        "{bytes}"
    );
    assert_eq!(pgfw.ok(&["events", "--reason", "tcp-flags"]), "");
    let wrong = pgfw.pgfw(&["events", "--reason", "service-close"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("service-closed"), "{}", wrong.stderr);
}

#[test]
fn follow_waits_for_the_next_one_and_a_capture_opens_in_tcpdump() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let follow = pgfw.command(&["events", "--follow", "--json", "--reason", "tcp-flags"]);
    let mut follower = Child::start(&mut { follow }).talkative();
    let wire = Wire::tcp(&site.stranger, address::STRANGER, address::DB);
    for n in 0..2_u16 {
        wire.segment(40_000 + n, 22, FIN);
        eventually("the follower tells it", PATIENCE, || {
            assert!(!follower.has_ended(), "{}", follower.stderr());
            (follower.stdout().lines().count() > usize::from(n)).then_some(())
        });
    }
    let ports: Vec<u64> = told(&follower.stdout())
        .iter()
        .map(|event| event.flow().2)
        .collect();
    assert_eq!(ports, [40_000, 40_001]);
    let file = "/run/drops.pcap";
    pgfw.ok(&["events", "--write", file, "--reason", "tcp-flags"]);
    let read = tcpdump(&pgfw, file);
    let shown: Vec<&str> = read.stdout.lines().collect();
    assert_eq!(shown.len(), 2, "{read:?}");
    for (line, port) in shown.iter().zip(["40000", "40001"]) {
        let ends = format!("192.168.1.10.{port} > 10.10.0.10.22: Flags [F]");
        assert!(line.contains(&ends), "{line}");
    }
    // What was dropped is asked about again, and says the same.
    let again = pgfw.ok(&["check", "--pcap", file]);
    let lines: Vec<&str> = again.lines().collect();
    assert_eq!(lines.len(), 2, "{again}");
    assert!(
        lines[1].starts_with("2 drop tcp-flags: tcp 192.168.1.10:40001 > 10.10.0.10:22, "),
        "{again}"
    );
}

#[track_caller]
fn tcpdump(pgfw: &Instance<'_>, file: &str) -> Outcome {
    let mut command: Command = pgfw.host().command("tcpdump");
    let read = run(command.args(["-n", "-t", "-r", file]));
    assert!(read.success(), "{read:?}");
    read
}

/// A capture file as tcpdump -w writes it: microseconds, this machine's byte order.
fn capture(frames: &[(Vec<u8>, u32)]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        file.extend(word.to_ne_bytes());
    }
    for (frame, length) in frames {
        for word in [1_700_000_000, 7, frame.len() as u32, *length] {
            file.extend(word.to_ne_bytes());
        }
        file.extend(frame);
    }
    file
}

#[test]
fn f58_a_capture_is_asked_about_and_nothing_is_spent() {
    use pgfw_common::frames::Frame;
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let whole = |frame: Frame| {
        let length = frame.0.len() as u32;
        (frame.0, length)
    };
    let syn = |source: &str, port| Frame::tcp((source, 40_000), ("10.10.0.10", port), SYN);
    let long = Frame::ip(
        "10.20.0.7",
        "10.10.0.10",
        6,
        &[&pgfw_common::frames::tcp(1, 5432, SYN)[..], &[0; 900]].concat(),
    );
    let frames = [
        whole(syn("10.20.0.7", 5432)),
        whole(syn("192.168.1.10", 5432)),
        whole(syn("192.168.1.10", 80)),
        whole(Frame::tcp(("fd00:20::7", 1), ("fd00:10::10", 5432), SYN)),
        // Captured with `-s 60`.
        (long.0[..60].to_vec(), long.0.len() as u32),
        // More than the kernel takes a question about.
        (syn("10.20.0.7", 5432).0, 60_000),
    ];
    // More than goes into one request.
    let many: Vec<_> = frames.iter().cloned().cycle().take(3_000).collect();
    pgfw.host()
        .within(|| std::fs::write("/run/some.pcap", capture(&many)).unwrap());
    let ours = ["new-tcp", "service-closed", "service"];
    let before = (
        ours.map(|reason| pgfw.status().packets(reason)),
        pgfw.ok(&["events"]),
    );
    let said = pgfw.ok(&["check", "--pcap", "/run/some.pcap"]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), many.len());
    let wanted = [
        "pass service (main): tcp 10.20.0.7:40000 > 10.10.0.10:5432, 54 bytes",
        "drop service-closed (main): tcp 192.168.1.10:40000 > 10.10.0.10:5432, 54 bytes",
        "drop new-tcp: tcp 192.168.1.10:40000 > 10.10.0.10:80, 54 bytes",
        "pass service (main): tcp [fd00:20::7]:1 > [fd00:10::10]:5432, 74 bytes",
        "pass service (main): tcp 10.20.0.7:1 > 10.10.0.10:5432, 954 bytes",
        "not asked (a frame of 14 to 3500 bytes can be): tcp 10.20.0.7:40000 > 10.10.0.10:5432, 60000 bytes",
    ];
    for (n, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("{} {}", n + 1, wanted[n % wanted.len()]));
    }
    let after = (
        ours.map(|reason| pgfw.status().packets(reason)),
        pgfw.ok(&["events"]),
    );
    assert_eq!(before, after);
    // From a pipe, as JSON.
    let mut piped = pgfw
        .command(&["check", "--json", "--pcap", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    piped
        .stdin
        .take()
        .unwrap()
        .write_all(&capture(&frames[..2]))
        .unwrap();
    let output = piped.wait_with_output().unwrap();
    let rows = told(&String::from_utf8(output.stdout).unwrap());
    let verdicts: Vec<&str> = rows.iter().map(|row| row.text("verdict")).collect();
    assert_eq!(verdicts, ["pass", "drop"]);
    assert_eq!(rows[1].text("reason"), "service-closed");
}

#[test]
fn files_that_are_no_capture_are_refused() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let check = |bytes: &[u8]| {
        pgfw.host()
            .within(|| std::fs::write("/run/wrong.pcap", bytes).unwrap());
        pgfw.pgfw(&["check", "--pcap", "/run/wrong.pcap"])
    };
    refused(&check(&[0; 100]), 2, &["no capture"], "tcpdump");
    refused(&check(&[]), 2, &["ends within"], "capture again");
    refused(
        &check(&[0x0a, 0x0d, 0x0d, 0x0a].repeat(10)),
        2,
        &["pcapng"],
        "editcap",
    );
    refused(
        &pgfw.pgfw(&["check", "--pcap", "/run/none.pcap"]),
        2,
        &["/run/none.pcap"],
        "tcpdump -w",
    );
}

#[test]
fn audit_mode_decides_counts_and_tells_and_drops_nothing() {
    let site = Site::new();
    let pgfw = configured(
        &site,
        &CONFIG.replace("[[postgres]]", "mode = \"audit\"\n[[postgres]]"),
    );
    let _daemon = pgfw.enforce();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    for (n, (stranger, db)) in STRANGER.into_iter().enumerate() {
        assert!(Talk::open(&site.stranger, db, 5432).carries_a_megabyte(), "{db}");
        let found = events(&pgfw, "service-closed", n + 1);
        let (stranger, db) = (stranger.to_string(), db.to_string());
        let of_this = found
            .iter()
            .filter(|event| event.text("source") == stranger && event.text("destination") == db);
        let verdicts: Vec<&str> = of_this.map(|event| event.text("verdict")).collect();
        assert!(
            !verdicts.is_empty() && verdicts.iter().all(|v| *v == "pass"),
            "{verdicts:?}"
        );
    }
    let status = pgfw.status();
    assert_eq!(status.state(), "audit");
    assert!(status.summary().contains("only watches"), "{}", status.summary());
    assert!(status.packets("service-closed") >= 2);
    let asked = pgfw.ok(&["check", "192.168.1.10"]);
    assert!(asked.starts_with("drop: service-closed"), "{asked}");
    let lines = pgfw.ok(&["events"]);
    assert!(
        lines.contains("service-closed (audit: passed) tcp 192.168.1.10:"),
        "{lines}"
    );
    // The same config in earnest.
    pgfw.configure(CONFIG);
    pgfw.ok(&["reload"]);
    for (_, db) in STRANGER {
        assert!(is_silent(&site.stranger, db, 5432), "{db}");
    }
}

#[test]
fn events_wait_in_the_kernel_while_no_daemon_runs() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    let wire = Wire::tcp(&site.stranger, address::STRANGER, address::DB);
    wire.segment(40_001, 5432, SYN);
    events(&pgfw, "service-closed", 1);
    daemon.kill();
    // While no daemon runs, they wait in the kernel.
    wire.segment(40_002, 5432, SYN);
    eventually("the drop is counted", PATIENCE, || {
        (pgfw.status().packets("service-closed") == 2).then_some(())
    });
    let _daemon = pgfw.start();
    let waited = events(&pgfw, "service-closed", 1);
    assert_eq!(waited[0].flow().2, 40_002);
}
