//! Generations, and the entries that wait for them.

use proptest::prelude::*;

use super::*;

#[test]
fn a_pending_change_counts_in_its_generation_only() {
    let (_folder, mut ledger) = ledger();
    let counting = |ledger: &Ledger, generation| -> Vec<String> {
        let entries = ledger.entries().unwrap();
        entries
            .iter()
            .filter(|e| e.counts_in(generation))
            .map(|e| format!("{} {:?}", e.net, e.end.is_some()))
            .collect()
    };
    ledger.put_entry(&allow("10.0.0.0/8"), T0).unwrap();
    ledger.put_entry(&allow("10.2.0.0/16"), T0).unwrap();
    let first = ledger.begin("a", &after(60), T0).unwrap();
    ledger.confirm(first).unwrap();

    let second = ledger.begin("b", &after(60), T0).unwrap();
    let mut shorter = NewEntry {
        generation: Some(second),
        ..allow("10.0.0.0/8")
    };
    shorter.end = Some(after(5));
    ledger.put_entry(&shorter, T0).unwrap();
    ledger
        .put_entry(
            &NewEntry {
                generation: Some(second),
                ..allow("10.1.0.0/16")
            },
            T0,
        )
        .unwrap();
    let removed = ledger
        .remove_entries(net("10.2.0.0/16"), None, Some(second))
        .unwrap();
    assert_eq!(removed.len(), 1);
    let (old, new) = (
        vec!["10.0.0.0/8 false", "10.2.0.0/16 false"],
        vec!["10.0.0.0/8 true", "10.1.0.0/16 false"],
    );
    assert_eq!(counting(&ledger, first), old);
    assert_eq!(counting(&ledger, second), new);

    ledger.roll_back(second).unwrap();
    assert_eq!(counting(&ledger, first), old);
    assert!(
        ledger
            .entries()
            .unwrap()
            .iter()
            .all(|e| e.generation.is_none() && e.removed_by.is_none())
    );

    // Asked again and confirmed.
    let third = ledger.begin("b", &after(60), T0).unwrap();
    shorter.generation = Some(third);
    ledger.put_entry(&shorter, T0).unwrap();
    ledger
        .put_entry(
            &NewEntry {
                generation: Some(third),
                ..allow("10.1.0.0/16")
            },
            T0,
        )
        .unwrap();
    ledger
        .remove_entries(net("10.2.0.0/16"), None, Some(third))
        .unwrap();
    ledger.confirm(third).unwrap();
    assert_eq!(counting(&ledger, third), new);
    assert_eq!(counting(&ledger, 99), new);
}

#[test]
fn what_closes_at_once_closes_in_the_pending_generation_too() {
    let (_folder, mut ledger) = ledger();
    ledger.put_entry(&allow("10.0.0.0/8"), T0).unwrap();
    let number = ledger.begin("", &after(60), T0).unwrap();
    ledger
        .put_entry(
            &NewEntry {
                generation: Some(number),
                ..allow("10.0.0.0/8")
            },
            T0,
        )
        .unwrap();
    assert_eq!(
        ledger
            .remove_entries(net("10.0.0.0/8"), None, None)
            .unwrap()
            .len(),
        2
    );
    let deny = NewEntry {
        kind: EntryKind::Deny,
        ..allow("10.0.0.0/8")
    };
    ledger.put_entry(&deny, T0).unwrap();
    ledger.roll_back(number).unwrap();
    let entries = ledger.entries().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].kind, EntryKind::Deny);
    assert!(entries[0].counts_in(number) && entries[0].counts_in(0));
}

#[test]
fn one_generation_is_confirmed_and_at_most_one_pends() {
    let (_folder, mut ledger) = ledger();
    assert_eq!(ledger.confirmed().unwrap(), None);
    let first = ledger.begin("one", &after(60), T0).unwrap();
    let pending = ledger.pending().unwrap().unwrap();
    assert_eq!(pending.state, GenerationState::Pending { deadline: after(60) });
    assert_eq!(
        (pending.number, pending.config.as_str(), pending.created),
        (first, "one", T0)
    );
    // sha256sum of "one"
    assert_eq!(
        pending.hash,
        "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    );
    let refused = ledger.begin("two", &after(60), T0).unwrap_err();
    assert!(
        matches!(refused, LedgerError::AlreadyPending { number } if number == first),
        "{refused:?}"
    );

    ledger.confirm(first).unwrap();
    assert!(matches!(
        ledger.confirm(first),
        Err(LedgerError::NotPending { .. })
    ));
    assert!(matches!(
        ledger.roll_back(first),
        Err(LedgerError::NotPending { .. })
    ));
    let second = ledger.begin("two", &after(60), T0).unwrap();
    assert_eq!(ledger.confirmed().unwrap().unwrap().number, first);
    ledger.roll_back(second).unwrap();
    assert_eq!(ledger.confirmed().unwrap().unwrap().number, first);
    assert_eq!(
        ledger.generation(second).unwrap().unwrap().state,
        GenerationState::RolledBack
    );
    let third = ledger.begin("three", &after(60), T0).unwrap();
    assert!(third > second, "numbers are never reused");
    ledger.confirm(third).unwrap();
    assert_eq!(ledger.confirmed().unwrap().unwrap().number, third);
    assert_eq!(
        ledger.generation(first).unwrap().unwrap().state,
        GenerationState::Superseded
    );
    assert_eq!(ledger.pending().unwrap(), None);

    let late = NewEntry {
        generation: Some(second),
        ..allow("10.0.0.0/8")
    };
    assert!(matches!(
        ledger.put_entry(&late, T0),
        Err(LedgerError::NotPending { .. })
    ));
    assert!(matches!(
        ledger.remove_entries(net("10.0.0.0/8"), None, Some(second)),
        Err(LedgerError::NotPending { .. })
    ));
}

#[test]
fn generations_that_no_longer_count_are_a_bounded_number() {
    let (_folder, mut ledger) = ledger();
    let first = ledger.begin("first", &after(60), T0).unwrap();
    ledger.confirm(first).unwrap();
    let old = ledger.begin("old", &after(60), T0).unwrap();
    ledger.confirm(old).unwrap();
    ledger.put_entry(&allow("10.0.0.0/8"), T0).unwrap();
    let remembered = u64::from(REMEMBERED);
    for _ in 0..remembered * 2 {
        // One that was superseded and stands in the kernel still, for a crash in between.
        ledger.forget_generations(&[first]).unwrap();
        let number = ledger.begin("undone", &after(60), T0).unwrap();
        ledger
            .remove_entries(net("10.0.0.0/8"), None, Some(number))
            .unwrap();
        ledger.roll_back(number).unwrap();
    }
    let pending = ledger.begin("pending", &after(60), T0).unwrap();
    ledger
        .remove_entries(net("10.0.0.0/8"), None, Some(pending))
        .unwrap();
    ledger.forget_generations(&[first]).unwrap();
    let left: Vec<u64> = (1..=pending)
        .filter(|n| ledger.generation(*n).unwrap().is_some())
        .collect();
    let youngest = pending - remembered..=pending;
    let expected: Vec<u64> = [first, old].into_iter().chain(youngest).collect();
    assert_eq!(left, expected);
    assert_eq!(ledger.entries().unwrap()[0].removed_by, Some(pending));
    ledger.forget_generations(&[]).unwrap();
    assert_eq!(ledger.generation(first).unwrap(), None);
    assert_eq!(ledger.confirmed().unwrap().unwrap().number, old);
    ledger.confirm(pending).unwrap();
    assert_eq!(ledger.entries().unwrap(), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is put and removed while a generation pends, rolling back restores what immediate changes made,
    /// and no key ever stands twice in one generation.
    #[test]
    fn a_rollback_forgets_exactly_the_pending_changes(
        steps in proptest::collection::vec((0u8..3, 0u8..2, any::<bool>()), 1..12)
    ) {
        let (_folder, mut ledger) = ledger();
        let (_other, mut model) = self::ledger();
        let number = ledger.begin("", &after(60), T0).unwrap();
        let nets = ["10.0.0.0/8", "10.0.0.0/9", "::/0"];
        for (which, action, wait) in steps {
            let network = net(nets[usize::from(which)]);
            let generation = wait.then_some(number);
            if action == 0 {
                ledger.put_entry(&NewEntry { generation, ..allow(nets[usize::from(which)]) }, T0).unwrap();
                if !wait {
                    model.put_entry(&allow(nets[usize::from(which)]), T0).unwrap();
                }
            } else {
                ledger.remove_entries(network, None, generation).unwrap();
                if !wait {
                    model.remove_entries(network, None, None).unwrap();
                }
            }
            for view in [0, number] {
                let mut keys: Vec<_> =
                    ledger.entries().unwrap().iter().filter(|e| e.counts_in(view)).map(|e| e.net).collect();
                let all = keys.len();
                keys.dedup();
                prop_assert_eq!(keys.len(), all);
            }
        }
        ledger.roll_back(number).unwrap();
        let nets_of = |l: &Ledger| l.entries().unwrap().iter().map(|e| e.net).collect::<Vec<_>>();
        prop_assert_eq!(nets_of(&ledger), nets_of(&model));
    }
}
