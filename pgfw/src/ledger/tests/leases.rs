//! Leases: one of an identity for an address, and what is no more is forgotten.

use super::*;

fn lease(identity: &str, address: &str, serial: &str, seconds: u64) -> NewLease {
    NewLease {
        address: address.parse().unwrap(),
        identity: identity.into(),
        serial: serial.into(),
        end: after(seconds),
    }
}

#[test]
fn a_lease_stands_once_for_each_identity_and_address() {
    let (_folder, mut ledger) = ledger();
    let first = ledger.put_lease(&lease("ann", "10.0.0.7", "a1", 60), T0).unwrap();
    assert_eq!(first.replaced, None);
    let others = [
        ledger.put_lease(&lease("bob", "10.0.0.7", "b1", 60), T0).unwrap(),
        ledger
            .put_lease(&lease("ann", "2001:db8::7", "a1", 60), T0)
            .unwrap(),
    ];
    let again = ledger.put_lease(&lease("ann", "10.0.0.7", "a2", 90), T0).unwrap();
    assert_eq!(again.replaced.as_ref(), Some(&first.lease));
    let reopened = Ledger::open(ledger.file()).unwrap();
    assert_eq!(
        reopened.leases().unwrap(),
        [
            again.lease.clone(),
            others[0].lease.clone(),
            others[1].lease.clone()
        ]
    );
    ledger.undo_put_lease(&again).unwrap();
    assert!(ledger.leases().unwrap().contains(&first.lease));
    let address = "10.0.0.7".parse().unwrap();
    assert_eq!(ledger.remove_lease("ann", address).unwrap(), Some(first.lease));
    assert_eq!(ledger.remove_lease("ann", address).unwrap(), None);
    assert_eq!(ledger.leases().unwrap().len(), 2);
}

#[test]
fn what_has_ended_or_is_revoked_is_forgotten() {
    let (_folder, mut ledger) = ledger();
    let over = ledger
        .put_lease(&lease("ann", "10.0.0.1", "a1", 60), T0)
        .unwrap()
        .lease;
    let live = ledger
        .put_lease(&lease("ann", "10.0.0.2", "a1", 600), T0)
        .unwrap()
        .lease;
    let gone = ledger
        .put_lease(&lease("bob", "10.0.0.3", "b1", 600), T0)
        .unwrap()
        .lease;
    let mut elsewhere = lease("ann", "10.0.0.4", "a1", 60);
    elsewhere.end.boot_id = "an earlier boot".into();
    let elsewhere = ledger.put_lease(&elsewhere, T0).unwrap().lease;
    let revocation = |serial: &str, authority| Revocation {
        serial: serial.into(),
        authority,
        authority_generation: 1,
        revoked: T0,
        reason: RevocationReason::KeyCompromise,
        requester: "root".into(),
    };
    ledger
        .record_revocations(&[
            revocation("b1", Authority::Client),
            // Another authority's serials are another's.
            revocation("a1", Authority::Server),
        ])
        .unwrap();
    let pruned = ledger.prune_leases(&at(61), BOOT).unwrap();
    assert_eq!((pruned.over, pruned.revoked), (vec![over], vec![gone]));
    assert_eq!(ledger.leases().unwrap(), [live.clone(), elsewhere]);
    assert_eq!(
        ledger.prune_leases(&at(61), BOOT).unwrap(),
        PrunedLeases::default()
    );
    // A clock that was wrong at boot has a day to become right.
    ledger.prune_leases(&at(90_000), BOOT).unwrap();
    assert_eq!(ledger.leases().unwrap(), []);
}
