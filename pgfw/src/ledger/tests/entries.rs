//! Entries: the last word counts, ends keep to their clock.

use super::*;

#[test]
fn an_entry_comes_back_as_it_was_put() {
    let (_folder, mut ledger) = ledger();
    let new = NewEntry {
        kind: EntryKind::Deny,
        net: net("2001:db8::/32"),
        service: Some("ssh".into()),
        end: Some(after(7200)),
        comment: Some("noisy; \"quoted\"\n".into()),
        requester: "uid 1000 (dba)".into(),
        generation: None,
    };
    let put = ledger.put_entry(&new, T0).unwrap();
    assert_eq!(put.replaced, []);
    let reopened = Ledger::open(ledger.file()).unwrap();
    assert_eq!(reopened.entries().unwrap(), std::slice::from_ref(&put.entry));
    let Entry {
        id: _,
        kind,
        net,
        service,
        end,
        comment,
        requester,
        created,
        generation,
        removed_by,
    } = put.entry;
    assert_eq!(
        NewEntry {
            kind,
            net,
            service,
            end,
            comment,
            requester,
            generation
        },
        new
    );
    assert_eq!((created, removed_by), (T0, None));
}

#[test]
fn the_last_word_on_one_network_counts_and_stands_once() {
    let (_folder, mut ledger) = ledger();
    let mut timed = allow("10.0.0.0/8");
    timed.end = Some(after(60));
    let first = ledger.put_entry(&timed, T0).unwrap().entry;
    let second = ledger.put_entry(&allow("10.0.0.0/8"), T0).unwrap();
    assert_eq!(second.replaced, [first]);
    // Host bits never make a second one.
    ledger.put_entry(&allow("10.1.2.3/8"), T0).unwrap();
    assert_eq!(ledger.entries().unwrap().len(), 1);

    // The neighbours stay apart: other length, service, kind, family.
    let mut of_service = allow("10.0.0.0/8");
    of_service.service = Some("ssh".into());
    let mut deny = allow("10.0.0.0/8");
    deny.kind = EntryKind::Deny;
    for other in [&of_service, &deny, &allow("10.0.0.0/9"), &allow("::/8")] {
        assert_eq!(ledger.put_entry(other, T0).unwrap().replaced, []);
    }
    assert_eq!(ledger.entries().unwrap().len(), 5);

    // Removing takes allow and deny of exactly that network and service.
    let removed = ledger.remove_entries(net("10.0.0.0/8"), None, None).unwrap();
    assert_eq!(removed.len(), 2);
    assert_eq!(ledger.remove_entries(net("10.0.0.0/8"), None, None).unwrap(), []);
    assert_eq!(ledger.entries().unwrap().len(), 3);
}

#[test]
fn a_refused_entry_is_undone_to_the_row() {
    let (_folder, mut ledger) = ledger();
    let mut timed = allow("10.0.0.0/8");
    timed.end = Some(after(60));
    ledger.put_entry(&timed, T0).unwrap();
    let before = ledger.entries().unwrap();
    let put = ledger.put_entry(&allow("10.0.0.0/8"), T0).unwrap();
    ledger.undo_put(&put).unwrap();
    assert_eq!(ledger.entries().unwrap(), before);

    let number = ledger.begin("", &after(60), T0).unwrap();
    let pending = NewEntry {
        generation: Some(number),
        ..allow("10.0.0.0/8")
    };
    let put = ledger.put_entry(&pending, T0).unwrap();
    ledger.undo_put(&put).unwrap();
    assert_eq!(ledger.entries().unwrap(), before);
}

#[test]
fn a_duration_keeps_to_the_boot_clock_and_survives_a_reboot_by_the_wall_clock() {
    let (_folder, mut ledger) = ledger();
    let mut timed = allow("10.0.0.0/8");
    timed.end = Some(after(60));
    ledger.put_entry(&timed, T0).unwrap();
    ledger.put_entry(&allow("10.0.0.0/9"), T0).unwrap();

    // The wall clock jumps a year ahead: nothing ends.
    let mut stepped = at(59);
    stepped.wall_ns += 365 * 86_400 * 1_000_000_000;
    assert_eq!(ledger.prune(&stepped, BOOT).unwrap(), []);
    // Another boot, 10 s old, 59 s and then 60 s after T0.
    let rebooted = |seconds| Now {
        boot: BootTime(10_000_000_000),
        ..at(seconds)
    };
    assert_eq!(ledger.prune(&rebooted(59), "boot-2").unwrap(), []);
    let end = ledger
        .entries()
        .unwrap()
        .iter()
        .find_map(|e| e.end.clone())
        .unwrap();
    assert_eq!(end.boot_end(&rebooted(59), "boot-2"), BootTime(11_000_000_000));
    assert!(
        ledger
            .entries()
            .unwrap()
            .iter()
            .any(|e| e.ended(&rebooted(60), "boot-2"))
    );
    // This boot's clock reaches the end.
    let ended = ledger.prune(&at(60), BOOT).unwrap();
    assert_eq!(ended.len(), 1);
    assert_eq!(ledger.entries().unwrap().len(), 1);
}

#[test]
fn entries_that_touch_a_network_are_found_whatever_its_text() {
    const NETS: [&str; 25] = [
        "0.0.0.0/0",
        "1.0.0.0/8",
        "10.0.0.0/7",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/23",
        "10.1.2.0/24",
        "10.1.2.3/32",
        "10.1.20.0/24",
        "10.10.0.0/16",
        "100.0.0.0/8",
        "101.1.2.3/32",
        "255.255.255.255/32",
        "::/0",
        "::/16",
        "::1/128",
        "1::/16",
        "1:0:2::/48",
        "1:0:2:3::/64",
        "1:2::/32",
        "10::/16",
        "fd00:1::/32",
        "fd00:1:0:5::/64",
        "fd00:1::7/128",
        "ffff:ffff::/32",
    ];
    let (_folder, mut ledger) = ledger();
    for text in NETS {
        ledger.put_entry(&allow(text), T0).unwrap();
    }
    let all = ledger.entries().unwrap();
    for text in NETS.into_iter().chain([
        "10.1.2.4/32",
        "10.1.2.0/25",
        "10.0.0.0/9",
        "1:0:2::/47",
        "1::/15",
        "9.0.0.0/8",
    ]) {
        let net = net(text);
        let mut wanted = all.clone();
        wanted.retain(|entry| entry.net.contains(&net) || net.contains(&entry.net));
        assert_eq!(ledger.entries_touching(&net).unwrap(), wanted, "{text}");
    }
}
