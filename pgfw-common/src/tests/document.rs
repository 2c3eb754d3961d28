//! docs/reasons.md says what the code says.

use std::format;
use std::fs;
use std::path::Path;
use std::string::String;

use crate::reason::{Action, Reason};

/// Set to anything, the test writes the file instead of comparing it.
const UPDATE: &str = "PGFW_UPDATE_DOCS";

#[test]
fn the_document_of_reasons_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reasons.md");
    let wanted = document();
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&file, &wanted).expect("docs/reasons.md can be written");
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/reasons.md is not what the code says; write it anew with: \
         {UPDATE}=1 cargo test --package pgfw-common the_document_of_reasons"
    );
}

#[test]
fn every_remedy_is_a_sentence_that_a_table_can_hold() {
    for reason in Reason::ALL {
        let remedy = reason.remedy();
        assert!(
            remedy.ends_with('.') && !remedy.contains(['|', '\n']),
            "{reason:?}"
        );
        assert!(!reason.meaning().contains(['|', '\n']), "{reason:?}");
    }
}

fn document() -> String {
    let mut text = String::from(
        "# Reasons\n\n\
         Every packet gets one verdict with one reason. The name is the same in `pgfw status`, `pgfw check`,\n\
         `pgfw events` and the counters; numbers are never reused. This file is generated from `pgfw-common`.\n",
    );
    for (title, action) in [("Passed", Action::Pass), ("Dropped", Action::Drop)] {
        text += &format!(
            "\n## {title}\n\n| number | name | meaning | what to do about it |\n|---|---|---|---|\n"
        );
        for reason in Reason::ALL.into_iter().filter(|reason| reason.action() == action) {
            text += &format!(
                "| {} | `{}` | {} | {} |\n",
                reason.number(),
                reason.name(),
                reason.meaning(),
                reason.remedy()
            );
        }
    }
    text
}
