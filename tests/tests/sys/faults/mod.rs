//! The daemon is killed at every named step of what it does, started again, and kernel, ledger and files compared with what
//! must be: the old policy or the new one, never neither, and never everything open where something was confirmed.

mod harness;

use std::collections::BTreeSet;

use pgfw::fault::Step;

use self::harness::{Act, Scenario, View};
use super::CONFIG;

/// The stranger's network is open too.
fn wider() -> String {
    CONFIG.replace("allow = [", "allow = [\"192.168.1.0/24\", ")
}

fn detaching() -> String {
    CONFIG.replace("[[postgres]]", "on_stop = \"detach\"\n[[postgres]]")
}

const STRANGER: &str = "192.168.1.0/24";
const CLIENT: &str = "10.20.0.0/16";

/// What the client and the stranger find.
const POLICY: View = View(true, false);
const OPEN: View = View(true, true);
const DENIED: View = View(false, false);

fn scenarios() -> Vec<Scenario> {
    let enforced = |pgfw: &pgfw_tests::lab::Instance<'_>| pgfw.enforce().kill();
    let scenario = |name, before: harness::Before, act, dead: &[View], states: &[&'static str]| Scenario {
        name,
        before,
        act,
        dead: dead.to_vec(),
        states: states.to_vec(),
    };
    const ENFORCING: &[&str] = &["enforcing"];
    vec![
        scenario(
            "first start",
            Box::new(|_| ()),
            Act::Start,
            &[OPEN, POLICY],
            &["probation"],
        ),
        scenario(
            "boot",
            Box::new(move |pgfw| {
                enforced(pgfw);
                pgfw.ok(&["off"]);
            }),
            Act::Start,
            // The kernel is empty after a boot.
            &[OPEN, POLICY],
            ENFORCING,
        ),
        scenario("restart", Box::new(enforced), Act::Start, &[POLICY], ENFORCING),
        scenario(
            "the first confirmation",
            Box::new(|pgfw| pgfw.start().kill()),
            Act::Command(&["confirm"]),
            &[POLICY],
            &["probation", "enforcing"],
        ),
        scenario(
            "reload",
            Box::new(move |pgfw| {
                enforced(pgfw);
                pgfw.configure(&wider());
            }),
            Act::Command(&["reload"]),
            &[POLICY, OPEN],
            ENFORCING,
        ),
        scenario(
            "reload that waits",
            Box::new(move |pgfw| {
                enforced(pgfw);
                pgfw.configure(&wider());
            }),
            Act::Command(&["reload", "--confirm", "1h"]),
            &[POLICY, OPEN],
            ENFORCING,
        ),
        scenario(
            "confirm",
            Box::new(waiting),
            Act::Command(&["confirm"]),
            &[OPEN],
            ENFORCING,
        ),
        scenario(
            "rollback",
            Box::new(waiting),
            Act::Command(&["rollback"]),
            &[POLICY, OPEN],
            ENFORCING,
        ),
        scenario(
            "allow",
            Box::new(enforced),
            Act::Command(&["allow", STRANGER]),
            &[POLICY, OPEN],
            ENFORCING,
        ),
        scenario(
            "allow that waits",
            Box::new(enforced),
            Act::Command(&["allow", STRANGER, "--confirm", "1h"]),
            &[POLICY, OPEN],
            ENFORCING,
        ),
        scenario(
            "deny",
            Box::new(enforced),
            Act::Command(&["deny", CLIENT]),
            &[POLICY, DENIED],
            ENFORCING,
        ),
        scenario(
            "remove",
            Box::new(|pgfw| {
                let daemon = pgfw.enforce();
                pgfw.ok(&["allow", STRANGER]);
                daemon.kill();
            }),
            Act::Command(&["remove", STRANGER, "--cut"]),
            &[OPEN, POLICY],
            ENFORCING,
        ),
        scenario("stop", Box::new(enforced), Act::Stop, &[POLICY], ENFORCING),
        scenario(
            "stop that detaches",
            Box::new(|pgfw| {
                pgfw.configure(&detaching());
                pgfw.enforce().kill();
            }),
            Act::Stop,
            &[POLICY, OPEN],
            ENFORCING,
        ),
    ]
}

/// A wider policy that waits for its confirmation, and no daemon.
fn waiting(pgfw: &pgfw_tests::lab::Instance<'_>) {
    let daemon = pgfw.enforce();
    pgfw.configure(&wider());
    pgfw.ok(&["reload", "--confirm", "1h"]);
    daemon.kill();
}

fn kill_at_every_step_of(name: &str) {
    let all = scenarios();
    let scenario = all.iter().find(|s| s.name == name).unwrap();
    scenario.kill_at_every_step();
}

#[test]
fn f41_every_step_that_has_a_name_is_come_to() {
    let mut seen = BTreeSet::new();
    for scenario in scenarios() {
        seen.extend(scenario.all_steps());
    }
    let missed: Vec<&str> = Step::ALL
        .iter()
        .map(|step| step.name())
        // tests/link/renewal.rs, rotation/ and applies.rs and tests/gate/crashes.rs come to those, with a server.
        .filter(|name| {
            !["renewal-", "rotation-", "apply-", "undone-", "lease-"]
                .iter()
                .any(|begins| name.starts_with(begins))
        })
        .filter(|name| !seen.contains(*name))
        .collect();
    assert!(missed.is_empty(), "nothing comes to {missed:?}");
}

#[test]
fn f41_f53_killed_in_its_first_start() {
    kill_at_every_step_of("first start");
}

#[test]
fn f34_f41_killed_in_a_boot_and_in_a_restart() {
    kill_at_every_step_of("boot");
    kill_at_every_step_of("restart");
}

#[test]
fn f35_f41_killed_in_a_reload() {
    kill_at_every_step_of("reload");
    kill_at_every_step_of("reload that waits");
}

#[test]
fn f41_f47_killed_while_a_change_is_kept_or_undone() {
    kill_at_every_step_of("the first confirmation");
    kill_at_every_step_of("confirm");
    kill_at_every_step_of("rollback");
}

#[test]
fn f41_killed_in_a_single_change() {
    kill_at_every_step_of("allow");
    kill_at_every_step_of("allow that waits");
    kill_at_every_step_of("deny");
    kill_at_every_step_of("remove");
}

#[test]
fn f37_f41_killed_while_it_stops() {
    kill_at_every_step_of("stop");
    kill_at_every_step_of("stop that detaches");
}
