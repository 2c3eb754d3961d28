//! What changes in a file, as a unified diff.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use similar::TextDiff;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub path: PathBuf,
    /// Unified, three lines around each change. Empty where it is all about secrets.
    pub diff: String,
}

impl Difference {
    /// `None` where nothing changes. `now` is `None` where there is no such file.
    pub(super) fn of(path: &Path, now: Option<&[u8]>, then: &str) -> Option<Difference> {
        if now == Some(then.as_bytes()) {
            return None;
        }
        let shown = path.display().to_string();
        let former = match now {
            Some(_) => shown.clone(),
            None => "/dev/null".to_owned(),
        };
        let now = without_secrets(&String::from_utf8_lossy(now.unwrap_or_default()));
        let then = without_secrets(then);
        let diff = TextDiff::from_lines(&now, &then)
            .unified_diff()
            .context_radius(3)
            .header(&former, &shown)
            .to_string();
        Some(Difference {
            path: path.to_owned(),
            diff,
        })
    }
}

/// Options of rules whose values are secrets (hba.c: `parse_hba_auth_opt`). They are not shown: a plan is passed around.
const SECRETS: [&str; 2] = ["ldapbindpasswd", "radiussecrets"];

/// A rule that goes on behind a backslash (hba.c: `tokenize_auth_file`) is shown without all of it where
/// it holds one: name and value may be cut anywhere.
fn without_secrets(text: &str) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let goes_on = |line: &str| line.trim_end_matches(['\r', '\n']).ends_with('\\');
    lines
        .chunk_by(|line, _| goes_on(line))
        .flat_map(|rule| {
            let whole: String = rule
                .iter()
                .map(|line| line.trim_end_matches(['\r', '\n']).trim_end_matches('\\'))
                .collect();
            let hidden = rule.len() > 1 && SECRETS.iter().any(|name| whole.contains(name));
            rule.iter().map(move |line| match hidden {
                true => "(not shown)\n".to_owned(),
                false => without_secret(line),
            })
        })
        .collect()
}

fn without_secret(line: &str) -> String {
    let found = SECRETS
        .iter()
        .filter_map(|name| Some((line.find(&format!("{name}="))? + name.len() + 1, name)));
    let Some((at, _)) = found.min() else {
        return line.to_owned();
    };
    let (head, rest) = line.split_at(at);
    // A quote may stand before the name or before the value (hba.c: `next_token`).
    let quoted = head.matches('"').count() % 2 == 1;
    let mut inside = quoted;
    let end = rest.find(|c: char| {
        inside ^= c == '"';
        !inside && c.is_whitespace()
    });
    let (_, tail) = rest.split_at(end.unwrap_or(rest.len()));
    let quote = if quoted { "\"" } else { "" };
    format!("{head}(not shown){quote}{}", without_secret(tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_has_its_surroundings() {
        let now = "one\ntwo\nthree\nfour\nfive\nsix\n";
        let then = now.replace("six", "seven");
        let found = Difference::of(Path::new("/etc/hba"), Some(now.as_bytes()), &then).unwrap();
        assert_eq!(
            found.diff,
            "--- /etc/hba\n+++ /etc/hba\n@@ -3,4 +3,4 @@\n three\n four\n five\n-six\n+seven\n"
        );
        assert_eq!(Difference::of(Path::new("/x"), Some(b"same\n"), "same\n"), None);
        let new = Difference::of(Path::new("/x"), None, "a\n").unwrap();
        assert_eq!(new.diff, "--- /dev/null\n+++ /x\n@@ -0,0 +1 @@\n+a\n");
    }

    #[test]
    fn secrets_are_not_shown() {
        // line, as it is shown
        let rows = [
            (
                "host all all all ldap ldapserver=x ldapbindpasswd=secret ldapport=1\n",
                "host all all all ldap ldapserver=x ldapbindpasswd=(not shown) ldapport=1\n",
            ),
            (
                "host all all all ldap ldapbindpasswd=\"a secret\" ldapport=1\n",
                "host all all all ldap ldapbindpasswd=(not shown) ldapport=1\n",
            ),
            (
                "host all all all ldap \"ldapbindpasswd=a secret\" ldapport=1\n",
                "host all all all ldap \"ldapbindpasswd=(not shown)\" ldapport=1\n",
            ),
            (
                "h radius \"radiussecrets=a\"\"b\" radiussecrets=\"c\"\"d\"\n",
                "h radius \"radiussecrets=(not shown)\" radiussecrets=(not shown)\n",
            ),
            ("host all all all md5\n", "host all all all md5\n"),
            (
                "h ldap ldapbindpasswd=a\\\nb ldapport=1\nhost all\n",
                "(not shown)\n(not shown)\nhost all\n",
            ),
            ("h ldap ldapbind\\\r\npasswd=a\n", "(not shown)\n(not shown)\n"),
            ("host all \\\nall all md5\n", "host all \\\nall all md5\n"),
        ];
        for (line, shown) in rows {
            assert_eq!(without_secrets(line), shown);
        }
    }
}
