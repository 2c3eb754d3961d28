//! The direction of dependency, as ARCHITECTURE.md states it.

use super::sources::{Source, Sources};

/// A module of pgfw and the modules it must not know, since they stand above it or beside it.
const FORBIDDEN: [(&str, &[&str]); 11] = [
    (
        "config",
        &[
            "cli", "api", "ops", "daemon", "gate", "client", "policy", "ledger", "datapath", "host", "pki",
            "postgres", "observe",
        ],
    ),
    (
        "policy",
        &[
            "cli", "api", "ops", "daemon", "gate", "client", "datapath", "host", "postgres", "observe",
        ],
    ),
    (
        "ledger",
        &[
            "cli", "api", "ops", "daemon", "gate", "client", "datapath", "host", "postgres", "observe",
        ],
    ),
    (
        "datapath",
        &[
            "cli", "api", "ops", "daemon", "gate", "client", "ledger", "host", "pki", "postgres", "observe",
        ],
    ),
    (
        "pki",
        &[
            "cli", "api", "ops", "daemon", "gate", "client", "datapath", "host", "postgres", "observe",
        ],
    ),
    (
        "postgres",
        &[
            "cli", "api", "ops", "daemon", "gate", "client", "datapath", "observe",
        ],
    ),
    (
        "host",
        &[
            "cli", "api", "ops", "daemon", "gate", "client", "datapath", "ledger", "pki", "postgres",
            "observe",
        ],
    ),
    ("ops", &["cli", "daemon", "gate", "client"]),
    (
        "api",
        &[
            "cli", "daemon", "gate", "client", "datapath", "postgres", "ledger",
        ],
    ),
    (
        "gate",
        &[
            "cli", "ops", "daemon", "client", "config", "policy", "datapath", "host", "ledger", "postgres",
            "observe",
        ],
    ),
    (
        "client",
        &[
            "cli", "ops", "daemon", "gate", "datapath", "host", "ledger", "postgres", "observe",
        ],
    ),
];

/// A crate and the one place that may use it.
const CONFINED: [(&str, &str); 3] = [
    ("aya", "pgfw/src/datapath"),
    ("rusqlite", "pgfw/src/ledger"),
    ("rcgen", "pgfw/src/pki"),
];

/// What pgfw-common has for tests only, behind its feature `host`.
const OUTSIDE_THE_KERNEL: [&str; 2] = ["pgfw-common/src/frames.rs", "pgfw-common/src/host.rs"];

pub(super) fn findings(sources: &Sources) -> Vec<String> {
    let product = sources
        .rust()
        .filter(|source| source.path.starts_with("pgfw/src/"))
        // A test may look at both sides of what it compares.
        .filter(|source| !source.path.contains("/tests"));
    let mut found: Vec<String> = product
        .flat_map(|source| module(source).into_iter().chain(confined(source)))
        .collect();
    let alone = sources
        .rust()
        .filter(|source| source.path.starts_with("pgfw-hba/"));
    found.extend(alone.flat_map(stands_alone));
    found.extend(
        sources
            .rust()
            .filter(|source| source.path.starts_with("pgfw-common/src/"))
            .filter(|source| !OUTSIDE_THE_KERNEL.contains(&source.path.as_str()))
            .flat_map(pure),
    );
    found
}

/// `pgfw/src/NAME.rs` and everything below `pgfw/src/NAME/`.
fn belongs(path: &str, module: &str) -> bool {
    let inside = path
        .strip_prefix("pgfw/src/")
        .and_then(|rest| rest.strip_prefix(module));
    inside.is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

fn module(source: &Source) -> Vec<String> {
    let Some((own, forbidden)) = FORBIDDEN.iter().find(|(name, _)| belongs(&source.path, name)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (number, line) in code(source) {
        for other in forbidden
            .iter()
            .filter(|other| names(line, &format!("crate::{other}")))
        {
            found.push(format!(
                "{}:{number}: {own} must not depend on {other}",
                source.path
            ));
        }
    }
    found
}

fn confined(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (name, place) in CONFINED {
        if source.path.starts_with(place) {
            continue;
        }
        for (number, line) in code(source) {
            if names(line, &format!("{name}::")) || names(line, &format!("use {name}")) {
                found.push(format!("{}:{number}: only {place} uses {name}", source.path));
            }
        }
    }
    found
}

/// pgfw-hba can be published by itself.
fn stands_alone(source: &Source) -> Vec<String> {
    let others = ["pgfw::", "pgfw_common", "pgfw_tests"];
    let named = code(source).filter(|(_, line)| others.iter().any(|other| names(line, other)));
    named
        .map(|(number, _)| format!("{}:{number}: pgfw-hba knows nothing of pgfw", source.path))
        .collect()
}

/// pgfw-common runs in the kernel: whoever needs std there has mistaken the crate.
fn pure(source: &Source) -> Vec<String> {
    // `host/` is the decision outside the kernel, compiled only where there is a std.
    let outside = ["/tests/", "/host/"];
    if source.path.ends_with("tests.rs") || outside.iter().any(|place| source.path.contains(place)) {
        return Vec::new();
    }
    let product = code(source).take_while(|(_, line)| !line.contains("#[cfg(test)]"));
    let using = product.filter(|(_, line)| names(line, "std::") || names(line, "extern crate alloc"));
    using
        .map(|(number, _)| {
            format!(
                "{}:{number}: pgfw-common is no_std and allocates nothing",
                source.path
            )
        })
        .collect()
}

fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source
        .numbered()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Whether the words stand in the line on their own, not as a part of longer ones.
fn names(line: &str, words: &str) -> bool {
    let word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(words).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + words.len()..].chars().next();
        // `::aya::` is aya; `my_aya::` and `crate::policy_of` are not what is meant.
        !before.is_some_and(word) && (words.ends_with(':') || !after.is_some_and(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str) -> Vec<String> {
        findings(&Sources {
            files: vec![Source {
                path: path.into(),
                text: text.into(),
            }],
        })
    }

    #[test]
    fn a_module_that_reaches_upwards_is_named() {
        assert_eq!(
            check(
                "pgfw/src/policy/compile.rs",
                "use crate::config::Config;\nuse crate::datapath::Datapath;\n"
            ),
            ["pgfw/src/policy/compile.rs:2: policy must not depend on datapath"]
        );
        assert!(check("pgfw/src/ops/reload.rs", "use crate::datapath::Datapath;").is_empty());
        assert!(check("pgfw/src/policy/compile.rs", "// unlike crate::datapath, …").is_empty());
    }

    #[test]
    fn a_crate_stays_where_it_belongs() {
        assert_eq!(
            check("pgfw/src/host/links.rs", "use aya::programs::Xdp;").len(),
            1
        );
        assert!(check("pgfw/src/datapath/loader.rs", "use aya::programs::Xdp;").is_empty());
        assert!(check("pgfw/src/host/links.rs", "let himalaya = maya::peak();").is_empty());
    }

    #[test]
    fn the_evaluator_stands_alone() {
        assert_eq!(check("pgfw-hba/src/hba.rs", "use pgfw::config::Config;").len(), 1);
        assert!(check("pgfw-hba/src/hba.rs", "use pgfw_hba::Hba;").is_empty());
    }

    #[test]
    fn the_decision_stays_pure() {
        assert_eq!(
            check("pgfw-common/src/decide.rs", "use std::time::Instant;").len(),
            1
        );
        assert!(
            check(
                "pgfw-common/src/decide.rs",
                "use core::fmt;\n#[cfg(test)]\nmod tests { use std::fs; }"
            )
            .is_empty()
        );
    }
}
