use std::collections::BTreeSet;

use crate::coverage::{ABSENT, Admission, FOREVER, Jiffies};
use crate::reason::{Action, REASONS, Reason};
use crate::record::{
    Chosen, Control, Coverage, ECHO_PER_SECOND, EVENTS_PER_SECOND, EchoBudget, EventBudget, InForce, Pending,
};

#[test]
fn the_control_record_survives_its_word() {
    let choices = [Chosen::Pass, Chosen::Slot(0), Chosen::Slot(1)];
    for confirmed in choices {
        let settled = Control {
            confirmed,
            pending: None,
        };
        assert_eq!(Control::from_word(settled.word()), settled);
        for choice in choices {
            for deadline in [1, 4_294_967_296, (1 << 60) - 1] {
                let control = Control {
                    confirmed,
                    pending: Some(Pending {
                        choice,
                        deadline: Jiffies(deadline),
                    }),
                };
                assert_eq!(Control::from_word(control.word()), control);
                let at = |now| Control::in_force(control.word(), Jiffies(now));
                assert_eq!((at(deadline - 1), at(deadline)), (read(choice), read(confirmed)));
            }
        }
    }
}

fn read(chosen: Chosen) -> InForce {
    match chosen {
        Chosen::Pass => InForce::Pass,
        Chosen::Slot(0) => InForce::FirstSlot,
        Chosen::Slot(_) => InForce::SecondSlot,
    }
}

#[test]
fn f53_a_new_map_lets_everything_pass() {
    let control = Control::from_word(0);
    assert_eq!((control.confirmed, control.pending), (Chosen::Pass, None));
    // A word that nothing writes names no slot.
    assert_eq!(Control::from_word(3).confirmed, Chosen::Pass);
}

#[test]
fn reasons_have_one_number_and_one_spelling() {
    let numbers: BTreeSet<u8> = Reason::ALL.iter().map(|reason| reason.number()).collect();
    let names: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(
        (numbers.len(), names.len()),
        (Reason::ALL.len(), Reason::ALL.len())
    );
    assert!(Reason::ALL.is_sorted());
    for reason in Reason::ALL {
        assert!((1..REASONS).contains(&usize::from(reason.number())));
        assert_eq!(Reason::from_number(reason.number()), Some(reason));
        assert_eq!(
            reason.action() == Action::Pass,
            reason.number() < 64,
            "{reason:?}"
        );
        assert!(
            reason
                .name()
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        );
        assert!(reason.meaning().ends_with('.'), "{reason:?}");
    }
    assert_eq!(Reason::from_number(0), None);
}

#[test]
fn an_answer_goes_from_denied_to_allowed_to_closed() {
    let row = |deny_until, allow_until, flags| Coverage {
        deny_until,
        allow_until,
        deny_boot: 0,
        allow_boot: 0,
        flags,
        prefix_length: 0,
    };
    let cases = [
        (row(ABSENT, FOREVER, 0), [Admission::Allowed; 4]),
        (row(FOREVER, FOREVER, 0), [Admission::Denied; 4]),
        (row(ABSENT, ABSENT, 0), [Admission::Closed; 4]),
        (
            row(ABSENT, FOREVER, Coverage::WORLD),
            [Admission::AllowedToWorld; 4],
        ),
        (
            row(100, 200, 0),
            [
                Admission::Denied,
                Admission::Allowed,
                Admission::Allowed,
                Admission::Closed,
            ],
        ),
        (
            row(100, ABSENT, 0),
            [
                Admission::Denied,
                Admission::Closed,
                Admission::Closed,
                Admission::Closed,
            ],
        ),
        // The deny outlasts what it covers.
        (
            row(200, 100, 0),
            [
                Admission::Denied,
                Admission::Denied,
                Admission::Denied,
                Admission::Closed,
            ],
        ),
    ];
    for (row, wanted) in cases {
        let said = [99, 100, 199, 200].map(|now| row.at(Jiffies(now)));
        assert_eq!(said, wanted, "{row:?}");
    }
}

#[test]
fn a_second_of_echoes_is_limited_and_the_next_is_new() {
    let mut budget = EchoBudget::default();
    for _ in 0..ECHO_PER_SECOND {
        budget = budget.spend(Jiffies(1_000), 250).expect("within the limit");
    }
    assert_eq!(budget.spend(Jiffies(1_249), 250), None);
    assert!(budget.spend(Jiffies(1_250), 250).is_some());
}

#[test]
fn f45_a_bucket_gives_its_rate_and_no_more_than_a_second_at_once() {
    let mut budget = EventBudget::default();
    let (hz, second) = (250, EVENTS_PER_SECOND);
    let mut taken = |at: u64, tries: u64| (0..tries).filter(|_| budget.take(Jiffies(at), hz)).count() as u64;
    // A new one is full.
    assert_eq!(taken(1_000, 3 * second), second);
    assert_eq!(taken(1_000, 1), 0);
    // A tick's worth, and after a long time no more than a second's.
    assert_eq!(taken(1_001, second), second / u64::from(hz));
    assert_eq!(taken(1_000_000, 3 * second), second);
    // Ticks that went backwards, as another CPU may see them, fill nothing and break nothing.
    assert_eq!(taken(999_999, 1), 0);
    assert_eq!(
        budget.limited,
        2 * second + 1 + (second - second / u64::from(hz)) + 2 * second + 1
    );
}
