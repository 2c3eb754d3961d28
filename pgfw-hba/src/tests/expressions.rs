use crate::{Expression, Unfit};

#[test]
fn what_matches() {
    // expression, subject, whether
    let rows = [
        ("", "anything", true),
        ("^$", "", true),
        ("^$", "a", false),
        ("a", "bab", true),
        ("^a", "ba", false),
        ("a$", "ab", false),
        ("^a.c$", "abc", true),
        ("^.$", "é", false),
        ("^..$", "é", true),
        ("^.$", "\n", true),
        ("^a|b$", "xb", true),
        ("^(a|b)+$", "abba", true),
        ("^(?:ab){2}$", "abab", true),
        ("^a{2,}$", "a", false),
        ("^a{0}$", "", true),
        ("^a{x}$", "a{x}", true),
        ("^a*?b??$", "aab", true),
        ("^[a-c]+$", "abcd", false),
        ("^[^a-c]+$", "xyz", true),
        ("^[]x]+$", "]x", true),
        ("^[^]]$", "]", false),
        ("^[[:alpha:][:digit:]]+$", "a1", true),
        ("^[[:alpha:]]$", "\u{e9}", false),
        ("^\\w\\d\\s$", "a1 ", true),
        ("^\\W$", "-", true),
        ("^[\\w.]+$", "a.b", true),
        ("^\\.\\/\\$$", "./$", true),
        ("^(a|)b$", "b", true),
        ("^()$", "", true),
        ("}]", "}]", true),
    ];
    for (expression, subject, matches) in rows {
        let compiled =
            Expression::new(expression.as_bytes()).unwrap_or_else(|e| panic!("{expression}: {e:?}"));
        assert_eq!(
            compiled.is_match(subject.as_bytes()),
            matches,
            "{expression} on {subject:?}"
        );
    }
}

/// Wrong in PostgreSQL as well, or beyond what is understood here: never taken for something else.
#[test]
fn what_is_refused() {
    for wrong in [
        "(",
        "a)",
        "[a",
        "a**",
        "*a",
        "^*",
        "a{2,1}",
        "a{256}",
        "a{1",
        "a{1}{2}",
        "\\",
        "[z-a]",
        "[[:foo:]]",
        "(?1)",
        "a|*",
        "[[:alpha:",
        "a{1}+",
    ] {
        let read = Expression::new(wrong.as_bytes());
        assert!(matches!(read, Err(Unfit::Invalid(_))), "{wrong}: {read:?}");
    }
    for beyond in [
        "(?i)a",
        "***:a",
        "(a)\\1",
        "\\ma",
        "(?=a)",
        "(?<!a)",
        "[a-]",
        "[[.a.]]",
        "[[=a=]]",
        "\\y",
        "\\x41",
        "[\\d-z]",
        "(((((a{255}){255}){255}){255}){255})",
    ] {
        let read = Expression::new(beyond.as_bytes());
        assert!(matches!(read, Err(Unfit::Beyond(_))), "{beyond}: {read:?}");
    }
    let deep = "(".repeat(1000) + &")".repeat(1000);
    assert!(matches!(Expression::new(deep.as_bytes()), Err(Unfit::Beyond(_))));
}

/// Any bytes at all are read without a panic.
#[test]
fn any_bytes() {
    use proptest::prelude::*;
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(text in "[-a\\[\\](){}|*+?^$.:=1,\\\\é]{0,12}", subject in "[ab]{0,4}")| {
        if let Ok(expression) = Expression::new(text.as_bytes()) {
            let _either = expression.is_match(subject.as_bytes());
            let _one = expression.capture(subject.as_bytes());
        }
    });
}
