use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::config::Fsync;

/// 2026-11-26T20:05:21.123Z
const AT: i128 = 1_795_723_521_123_000_000;

fn alice() -> Client {
    Client {
        address: Some("10.20.0.10".parse().unwrap()),
        port: Some(40_000),
        role: Some("alice".into()),
        database: Some("app".into()),
        certificate: Some("CN=alice".into()),
        identity: Some("alice".into()),
        serial: Some("2f1c6b0e9d5a4c3b8a7f6e5d4c3b2a19".into()),
        method: Some("cert".into()),
    }
}

fn root() -> By {
    By {
        by: "root".into(),
        from: Some("192.0.2.7".parse().unwrap()),
    }
}

/// One of each: a variant that is added has to be added here, where the compiler says so.
fn examples() -> Vec<Event> {
    let all = vec![
        Event::CertificateIssued {
            identity: "alice".into(),
            serial: "2f1c6b0e9d5a4c3b8a7f6e5d4c3b2a19".into(),
            not_after: "2026-12-26T20:05:21Z".into(),
            authority: "client",
            reason: Some("ticket 7".into()),
            by: root(),
        },
        Event::CertificateRenewed {
            identity: "db.example.com".into(),
            serial: "0b8e1d6c5f4a39281706f5e4d3c2b1a0".into(),
            not_after: "2027-02-24T20:05:21Z".into(),
            authority: "server",
            by: By {
                by: "pgfw".into(),
                from: None,
            },
        },
        Event::CertificateRevoked {
            identity: Some("alice".into()),
            serial: "2f1c6b0e9d5a4c3b8a7f6e5d4c3b2a19".into(),
            authority: "client",
            reason: RevocationReason::KeyCompromise,
            by: root(),
        },
        Event::AuthorityChanged {
            change: AuthorityChange::Signs,
            authority: "client",
            generation: 2,
            by: root(),
        },
        Event::RulesChanged {
            change: RulesChange::Applied,
            cluster: "main".into(),
            generation: Some(3),
            by: root(),
        },
        Event::PolicyChanged {
            change: Change::Allowed,
            old_hash: Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into()),
            new_hash: Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into()),
            net: Some("203.0.113.0/24".parse().unwrap()),
            service: Some("main".into()),
            seconds: Some(7_200),
            comment: Some("migration".into()),
            by: root(),
        },
        Event::ConnectionOpened {
            cluster: "main".into(),
            client: alice(),
        },
        Event::ConnectionClosed {
            cluster: "main".into(),
            client: alice(),
            seconds: 12.25,
            bytes_sent: Some(48_211),
            bytes_received: Some(3_402),
        },
        Event::LoginRefused {
            cluster: "main".into(),
            client: Client {
                role: Some("bob".into()),
                serial: None,
                ..alice()
            },
            reason: "certificate authentication failed for user \"bob\"".into(),
            code: Some("28000".into()),
        },
        Event::UnknownCertificate {
            cluster: "main".into(),
            client: Client {
                serial: Some("00112233445566778899aabbccddeeff".into()),
                ..alice()
            },
        },
        Event::LeaseGranted {
            identity: "alice".into(),
            serial: "2f1c6b0e9d5a4c3b8a7f6e5d4c3b2a19".into(),
            source: "198.51.100.7".parse().unwrap(),
            until: "2026-11-27T04:05:21Z".into(),
        },
        Event::LeaseRefused {
            identity: Some("alice".into()),
            serial: Some("2f1c6b0e9d5a4c3b8a7f6e5d4c3b2a19".into()),
            source: "198.51.100.7".parse().unwrap(),
            reason: "198.51.100.7 is denied".into(),
        },
        Event::LeaseEnded {
            identity: "alice".into(),
            serial: "2f1c6b0e9d5a4c3b8a7f6e5d4c3b2a19".into(),
            source: "198.51.100.7".parse().unwrap(),
            reason: "given back",
        },
        Event::RecordsLost {
            cluster: None,
            records: Some(17),
            reason: "No space left on device (os error 28)".into(),
        },
    ];
    for event in &all {
        match event {
            Event::CertificateIssued { .. }
            | Event::CertificateRenewed { .. }
            | Event::CertificateRevoked { .. }
            | Event::AuthorityChanged { .. }
            | Event::RulesChanged { .. }
            | Event::PolicyChanged { .. }
            | Event::ConnectionOpened { .. }
            | Event::ConnectionClosed { .. }
            | Event::LoginRefused { .. }
            | Event::UnknownCertificate { .. }
            | Event::LeaseGranted { .. }
            | Event::LeaseRefused { .. }
            | Event::LeaseEnded { .. }
            | Event::RecordsLost { .. } => {}
        }
    }
    all
}

const DOCUMENT: &str = include_str!("../../../../docs/audit-log.md");

#[test]
fn the_document_has_each_event_as_it_is_written_and_nothing_else() {
    let written: Vec<String> = examples().iter().map(|event| line(event, AT)).collect();
    let shown: Vec<&str> = DOCUMENT.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(shown, written);
    for (event, line) in examples().iter().zip(&written) {
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["event"], event.name());
        for field in value.as_object().unwrap().keys() {
            let row = format!("| `{field}` |");
            assert!(
                DOCUMENT.contains(&row),
                "{field} of {} is not explained",
                event.name()
            );
        }
    }
}

#[test]
fn p43_a_name_is_a_string_and_nothing_else() {
    let hostile = "a\"\n{\"event\":\"connection_opened\",\"identity\":\"admin\"}\r\u{1b}[2J\\
                   \u{7f}\u{85}\u{9b}2J\u{2028}\u{2029}\u{202e}nimda\u{e0041}";
    let event = Event::LoginRefused {
        cluster: "main".into(),
        client: Client {
            role: Some(hostile.into()),
            certificate: Some(hostile.into()),
            ..alice()
        },
        reason: hostile.into(),
        code: None,
    };
    let line = line(&event, AT);
    assert_eq!(line.lines().count(), 1);
    // Terminals take C1 for commands, some readers U+0085 and U+2028 for the end of a line.
    assert!(!line.contains(is_invisible), "{line}");
    let value: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["event"], "login_refused");
    assert_eq!(value["identity"], "alice");
    for field in ["role", "certificate", "reason"] {
        assert_eq!(value[field], hostile);
    }
}

fn settings(file: &Path, fsync: Fsync, rotate: u64) -> Settings {
    Settings {
        file: file.to_owned(),
        fsync,
        rotate,
    }
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn files_are_put_aside_when_they_are_full_and_none_is_lost() {
    for fsync in [Fsync::Each, Fsync::Batch, Fsync::Off] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log/audit.jsonl");
        let log = settings(&file, fsync, 100);
        for n in 0..20 {
            log.append(&[format!("{n:030}"), format!("{n:030}b")]).unwrap();
        }
        let mut all = Vec::new();
        for entry in fs::read_dir(file.parent().unwrap()).unwrap() {
            let path = entry.unwrap().path();
            assert!(fs::metadata(&path).unwrap().len() <= 100);
            all.extend(lines(&path));
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 40);
    }
}

#[test]
fn whoever_renames_the_file_has_the_next_line_in_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let log = settings(&file, Fsync::Batch, u64::MAX);
    log.append(&["one".into()]).unwrap();
    fs::rename(&file, folder.path().join("former")).unwrap();
    log.append(&["two".into()]).unwrap();
    assert_eq!(lines(&folder.path().join("former")), ["one"]);
    assert_eq!(lines(&file), ["two"]);
}

#[test]
fn a_line_that_was_cut_off_swallows_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    fs::write(&file, "{\"event\":\"lo").unwrap();
    settings(&file, Fsync::Batch, u64::MAX)
        .append(&["two".into()])
        .unwrap();
    assert_eq!(lines(&file), ["{\"event\":\"lo", "two"]);
}

#[test]
fn no_link_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (file, other) = (folder.path().join("audit.jsonl"), folder.path().join("other"));
    fs::write(&other, "").unwrap();
    symlink(&other, &file).unwrap();
    settings(&file, Fsync::Batch, u64::MAX)
        .append(&["x".into()])
        .unwrap_err();
    assert_eq!(fs::read_to_string(&other).unwrap(), "");
}

/// Several processes write at once; here they are threads with files of their own.
#[test]
fn lines_of_several_writers_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    std::thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let log = settings(&file, Fsync::Off, 2_000);
            scope.spawn(move || (0..200).for_each(|_| log.append(&[name.repeat(50)]).unwrap()));
        }
    });
    let all: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .flat_map(|entry| lines(&entry.unwrap().path()))
        .collect();
    assert_eq!(all.len(), 600);
    assert!(
        all.iter()
            .all(|line| line.len() == 50 && line.chars().all(|c| line.starts_with(c)))
    );
}

#[test]
fn what_cannot_be_written_is_kept_and_said_and_written_later() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("place");
    fs::write(&place, "a file where the folder belongs").unwrap();
    let audit = Audit::new(settings(&place.join("audit.jsonl"), Fsync::Each, u64::MAX));
    for event in examples() {
        audit.record(&event);
    }
    assert!(!audit.flush(Duration::from_secs(60)));
    let complaint = audit.complaint().unwrap();
    let count = examples().len();
    assert!(
        complaint.contains(&format!("{count} records wait and 0 are lost")),
        "{complaint}"
    );
    fs::remove_file(&place).unwrap();
    audit.reopen();
    let there = || fs::read_to_string(place.join("audit.jsonl")).map_or(0, |text| text.lines().count());
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while there() < count || audit.complaint().is_some() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert_eq!(there(), count);
}

/// A write that somebody keeps from ending, without an error, is said all the same.
#[test]
fn a_file_that_somebody_else_holds_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    fs::write(&file, "").unwrap();
    let held = fs::File::open(&file).unwrap();
    let held = nix::fcntl::Flock::lock(held, nix::fcntl::FlockArg::LockShared)
        .map_err(|(_, e)| e)
        .unwrap();
    let audit = Audit::new(settings(&file, Fsync::Off, u64::MAX));
    audit.record(&examples()[0]);
    assert!(!audit.flush(Duration::from_millis(50)));
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let complaint = loop {
        if let Some(complaint) = audit.complaint() {
            break complaint;
        }
        assert!(std::time::Instant::now() < deadline);
        assert!(!audit.flush(Duration::from_millis(200)), "it is held");
    };
    assert!(complaint.contains("1 records wait"), "{complaint}");
    assert!(complaint.contains("lock"), "{complaint}");
    drop(held);
    assert!(audit.flush(Duration::from_secs(60)));
    assert_eq!(lines(&file).len(), 1);
    assert_eq!(audit.complaint(), None);
}
