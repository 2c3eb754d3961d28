//! pgfw-hba reads rules and judges logins as PostgreSQL does: random files and random logins, asked of both.

mod fields;
mod generate;
mod random;
mod real;

use std::path::Path;

use generate::{Attempt, Files};
use pgfw_hba::{Disk, Hba, Ident, Major, Truth};
use pgfw_tests::scratch;
use random::Random;
use real::{Outcome, Real};

/// So many pairs of rules and login, shared among the servers that are there; a long run (`cargo xtask test --long`) has
/// more.
fn pairs() -> usize {
    match std::env::var_os("PGFW_LONG") {
        Some(_) => 100_000,
        None => 2_000,
    }
}

/// Logins that each set of rules is asked about.
const LOGINS: usize = 20;

#[test]
fn rules_mean_what_the_server_makes_of_them() {
    let seed = scratch::seed();
    let pairs = pairs() / scratch::MAJORS.len();
    scratch::on_each_major(|server| {
        let major = Major::of(server.major).expect("a major that is known");
        compare(major, &server.programs, seed, pairs);
    });
}

fn compare(major: Major, programs: &Path, seed: u64, pairs: usize) {
    let real = Real::start(major, programs);
    let mut tally = Tally::default();
    let mut round = 0;
    while tally.pairs < pairs {
        round += 1;
        let context = format!("PostgreSQL {}, PGFW_SEED={seed}, round {round}", major.number());
        // Each major has sequences of its own.
        let mut random = Random::new(seed ^ u64::from(major.number()) << 48, round);
        let files = generate::files(&mut random, &real.server, round);
        one(&real, &files, &mut random, round, &context, &mut tally);
    }
    println!("PostgreSQL {}: {tally:?}", major.number());
    // Where nearly everything is refused, or left open, little was compared.
    assert!(tally.undecided * 4 < tally.pairs, "{tally:?}");
    assert!(tally.loaded * 3 > tally.files, "{tally:?}");
    assert!(tally.files > tally.loaded, "no file was wrong: {tally:?}");
    let by_no_line = tally.outcomes.get(&Outcome::NoLine).copied().unwrap_or_default();
    assert!(by_no_line * 3 < tally.pairs * 2, "{tally:?}");
}

#[derive(Debug, Default)]
struct Tally {
    pairs: usize,
    undecided: usize,
    files: usize,
    loaded: usize,
    outcomes: std::collections::BTreeMap<Outcome, usize>,
}

fn one(real: &Real, files: &Files, random: &mut Random, round: u64, context: &str, tally: &mut Tally) {
    real.put(files);
    let hba = Hba::read(&real.hba_file(), &Disk, &real.server);
    let ident = Ident::read(&real.ident_file(), &Disk, &real.server);
    let shown = format!(
        "{context}\n--- pg_hba.conf\n{}\n--- pg_ident.conf\n{}",
        files.hba, files.ident
    );
    real.compare_reading(&hba, &ident, &shown);

    tally.files += 1;
    if ident.loads() != Truth::Yes {
        // It would not tell by its marker that the server has looked at both.
        return;
    }
    real.reload(round, &shown);
    let loaded = real.has_loaded(round);
    match hba.loads() {
        Truth::Yes => assert!(loaded, "the server does not take this:\n{shown}"),
        Truth::No => assert!(!loaded, "the server takes this: {:?}\n{shown}", hba.errors),
        Truth::Unknown(_) => {}
    }
    if !loaded {
        return;
    }
    tally.loaded += 1;
    for _ in 0..LOGINS {
        let attempt = Attempt::new(random, &hba);
        match real.expected(&hba, &ident, &attempt) {
            None => tally.undecided += 1,
            Some(expected) => {
                let answer = real.ask(&attempt);
                assert_eq!(answer.0, expected, "{attempt:?}: {}\n{shown}", answer.1);
                tally.pairs += 1;
                *tally.outcomes.entry(expected).or_default() += 1;
            }
        }
    }
}
