//! Case coverage: every number of tests/CASES.md is closed by a test or stands in the list of those to come.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::sources::{Function, Source, Sources};

const CASES: &str = "tests/CASES.md";
const TO_COME: &str = "tests/cases-to-come.txt";

pub(super) fn findings(sources: &Sources) -> Result<Vec<String>> {
    let cases = listed_cases(sources.text(CASES)?);
    let (to_come, mut found) = listed_to_come(sources.text(TO_COME)?);
    let mut tested: BTreeMap<String, String> = BTreeMap::new();
    for source in sources.rust() {
        for function in named_functions(source) {
            if !function.is_test {
                found.push(format!(
                    "{}: {} is named like a case and is no test",
                    source.path, function.name
                ));
            }
            for number in function.numbers {
                if !cases.contains(&number) {
                    found.push(format!(
                        "{}: {} names {number}, which {CASES} does not know",
                        source.path, function.name
                    ));
                }
                tested.insert(number, source.path.clone());
            }
        }
    }
    for case in &cases {
        match (tested.get(case), to_come.get(case)) {
            (None, None) => found.push(format!("{case} has no test and does not stand in {TO_COME}")),
            (Some(path), Some(ToCome::Whole)) => found.push(format!(
                "{case} is tested in {path}: strike it from {TO_COME}, or say that it is thin"
            )),
            (None, Some(ToCome::Rest)) => {
                found.push(format!(
                    "{TO_COME} says that {case} is thin, and no test is named after it"
                ));
            }
            (None, Some(ToCome::Whole)) | (Some(_), Some(ToCome::Rest) | None) => {}
        }
    }
    found.extend(
        to_come
            .keys()
            .filter(|case| !cases.contains(*case))
            .map(|case| format!("{TO_COME} lists {case}, which {CASES} does not know")),
    );
    Ok(found)
}

/// `- F01 T  A frame …`
fn listed_cases(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("- ")?.split(' ').next())
        .filter(|word| is_number(word))
        .map(str::to_owned)
        .collect()
}

/// What of a case is still to come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ToCome {
    Whole,
    /// It has a thin test.
    Rest,
}

/// `F04 issue 3`, or `F13 issue 3 thin` for one that has a thin test, one to a line; `#` begins a comment.
fn listed_to_come(text: &str) -> (BTreeMap<String, ToCome>, Vec<String>) {
    let mut numbers = BTreeMap::new();
    let mut found = Vec::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        match line.split_once(' ') {
            Some((number, where_it_ends)) if is_number(number) => {
                let what = if where_it_ends.ends_with(" thin") {
                    ToCome::Rest
                } else {
                    ToCome::Whole
                };
                if numbers.insert(number.to_owned(), what).is_some() {
                    found.push(format!("{TO_COME} lists {number} twice"));
                }
            }
            Some(_) | None => found.push(format!("{TO_COME}: {line:?} is not of the form \"F04 issue 3\"")),
        }
    }
    (numbers, found)
}

fn is_number(word: &str) -> bool {
    let mut characters = word.chars();
    matches!(characters.next(), Some('F' | 'P'))
        && word.len() == 3
        && characters.all(|digit| digit.is_ascii_digit())
}

/// A function whose name begins with cases: `f34_f44_counters_…`.
struct Named<'a> {
    name: &'a str,
    numbers: Vec<String>,
    is_test: bool,
}

fn named_functions(source: &Source) -> Vec<Named<'_>> {
    let mut named = Vec::new();
    for Function { name, is_test } in source.functions() {
        let words = name.split('_').map(str::to_uppercase);
        let numbers: Vec<String> = words.take_while(|word| is_number(word)).collect();
        if !numbers.is_empty() {
            named.push(Named {
                name,
                numbers,
                is_test,
            });
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME_CASES: &str = "# Cases\n- F01 T  Short frames.\n- F02 T  Options.\n- P01 D  Names.\n";

    fn check(to_come: &str, code: &str) -> Vec<String> {
        let files = [
            (CASES, SOME_CASES),
            (TO_COME, to_come),
            ("tests/tests/prog.rs", code),
        ];
        let files = files.map(|(path, text)| Source {
            path: path.into(),
            text: text.into(),
        });
        findings(&Sources { files: files.into() }).unwrap()
    }

    #[test]
    fn each_case_is_tested_or_to_come() {
        assert!(check("F02 issue 3\nP01 issue 8\n", "#[test]\nfn f01_short() {}\n").is_empty());
        assert!(
            check(
                "# later\nP01 issue 8\n",
                "    #[test]\n    fn f01_f02_both() {}\n"
            )
            .is_empty()
        );
        assert_eq!(
            check("P01 issue 8\n", "#[test]\nfn f01_short() {}\n"),
            ["F02 has no test and does not stand in tests/cases-to-come.txt"]
        );
    }

    #[test]
    fn the_list_shrinks_as_tests_land() {
        let found = check(
            "F01 issue 3\nF02 issue 3\nP01 issue 8\n",
            "#[test]\nfn f01_short() {}\n",
        );
        assert_eq!(
            found,
            [
                "F01 is tested in tests/tests/prog.rs: strike it from tests/cases-to-come.txt, or say that it is thin"
            ]
        );
        let thin = "F01 issue 3 thin\nF02 issue 3\nP01 issue 8\n";
        assert!(check(thin, "#[test]\nfn f01_short() {}\n").is_empty());
        assert_eq!(check(thin, "").len(), 1);
    }

    #[test]
    fn unknown_numbers_are_errors() {
        let listed = "F01 issue 3\nF02 issue 3\nP01 issue 8\n";
        assert_eq!(check(listed, "#[test]\nfn f77_new() {}\n").len(), 1);
        assert_eq!(check(&format!("{listed}F78 issue 3\n"), "").len(), 1);
        assert_eq!(check(&format!("{listed}later: P02\n"), "").len(), 1);
    }

    #[test]
    fn a_helper_does_not_count_as_a_test() {
        let found = check(
            "F02 issue 3\nP01 issue 8\n",
            "#[test]\nfn helper() {}\nfn f01_frame() -> Frame {}\n",
        );
        assert_eq!(
            found,
            ["tests/tests/prog.rs: f01_frame is named like a case and is no test"]
        );
    }
}
