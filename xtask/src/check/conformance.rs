//! docs/conformance.md claims nothing that no test shows: each row names tests of the tree.

use std::collections::BTreeSet;

use anyhow::Result;

use super::sources::Sources;

const CONFORMANCE: &str = "docs/conformance.md";

/// Where the tests of a verdict are.
const TESTS: [&str; 2] = ["tests/tests/", "pgfw-common/src/"];

pub(super) fn findings(sources: &Sources) -> Result<Vec<String>> {
    let text = sources.text(CONFORMANCE)?;
    let tests: BTreeSet<&str> = sources
        .rust()
        .filter(|source| TESTS.iter().any(|folder| source.path.starts_with(folder)))
        .flat_map(|source| source.functions())
        .filter(|function| function.is_test)
        .map(|function| function.name)
        .collect();
    let mut found = Vec::new();
    let mut rows = 0;
    for (index, line) in text.lines().enumerate() {
        let Some(row) = line.strip_prefix("| ") else {
            continue;
        };
        let number = index + 1;
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
        let [_, _, kept, _, shown] = cells.as_slice() else {
            found.push(format!("{CONFORMANCE}:{number}: {} columns, not 5", cells.len()));
            continue;
        };
        if *kept == "kept?" {
            continue;
        }
        rows += 1;
        if !["kept", "partly", "not"].contains(kept) {
            found.push(format!(
                "{CONFORMANCE}:{number}: {kept:?} is neither kept, partly nor not"
            ));
        }
        let names: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            found.push(format!("{CONFORMANCE}:{number}: no test is named"));
        }
        found.extend(
            names
                .iter()
                .filter(|name| !tests.contains(*name))
                .map(|name| format!("{CONFORMANCE}:{number}: there is no test {name}")),
        );
    }
    if rows == 0 {
        found.push(format!("{CONFORMANCE} has no rows"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::sources::Source;

    const HEAD: &str = "| section | requirement | kept? | how | test |\n|---|---|---|---|---|\n";
    const CODE: &str = "#[test]\nfn f01_short() {}\nfn helper() {}\n";

    fn check(rows: &str, path: &str) -> Vec<String> {
        let files = [(CONFORMANCE, format!("{HEAD}{rows}")), (path, CODE.into())];
        let files = files.map(|(path, text)| Source {
            path: path.into(),
            text,
        });
        findings(&Sources { files: files.into() }).unwrap()
    }

    #[test]
    fn a_row_names_tests_that_exist() {
        for (shown, good) in [
            ("`f01_short`", true),
            ("`f01_short`, in part", true),
            ("no test", false),
            ("`f01_long`", false),
            ("`f01_short`, `f01_long`", false),
            ("`helper`", false),
            ("", false),
        ] {
            let row = format!("| 4.1 | It drops | kept | `udp` | {shown} |\n");
            for folder in TESTS {
                let found = check(&row, &format!("{folder}a.rs"));
                assert_eq!(found.is_empty(), good, "{shown}: {found:?}");
            }
        }
        let elsewhere = check(
            "| 4.1 | It drops | kept | `udp` | `f01_short` |\n",
            "xtask/src/a.rs",
        );
        assert_eq!(elsewhere, ["docs/conformance.md:3: there is no test f01_short"]);
    }

    #[test]
    fn a_row_has_five_columns_and_one_of_three_words() {
        let path = "tests/tests/a.rs";
        assert_eq!(check("| 4.1 | It drops | kept | `f01_short` |\n", path).len(), 2);
        assert_eq!(
            check("| 4.1 | It drops | mostly | `udp` | `f01_short` |\n", path),
            ["docs/conformance.md:3: \"mostly\" is neither kept, partly nor not"]
        );
        assert_eq!(check("", path), ["docs/conformance.md has no rows"]);
    }
}
