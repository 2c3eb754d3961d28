use super::{hba, hba_among, ident};
use crate::{Address, Files, Hba, Major, Memory, Truth};

/// Databases of each line, `"…"` around what began with a quote.
fn databases(hba: &Hba) -> Vec<Vec<String>> {
    let shown = |token: &crate::Token| {
        let text = String::from_utf8_lossy(&token.text);
        if token.quoted {
            format!("\"{text}\"")
        } else {
            text.into_owned()
        }
    };
    let lines = hba.lines.iter();
    lines
        .map(|line| line.databases.iter().map(|p| shown(&p.token)).collect())
        .collect()
}

#[test]
fn tokens() {
    // field, tokens
    let rows: [(&str, &[&str]); 16] = [
        ("a", &["a"]),
        ("a,b", &["a", "b"]),
        ("a, b", &["a", "b"]),
        ("a,,b,", &["a", "b", "all"]),
        (",a", &["a"]),
        ("\"a\"", &["\"a\""]),
        ("\"a,b c#d\"", &["\"a,b c#d\""]),
        ("\"a\"\"b\"", &["\"a\"b\""]),
        ("\"\"\"\"", &["\"\"\""]),
        ("\"\"", &["\"\""]),
        ("a\"b c\"d", &["ab cd"]),
        ("\"a\"b", &["\"ab\""]),
        ("@", &["@"]),
        ("\"@f\"", &["\"@f\""]),
        ("\u{b}a", &["\u{b}a"]),
        ("é", &["é"]),
    ];
    for (field, tokens) in rows {
        // A comma at the end takes the next field along, so there is one to spare.
        let read = hba(&format!("local {field} all all trust\n"), Major::V15);
        let read = if tokens.last() == Some(&"all") && field != "all" {
            read
        } else {
            hba(&format!("local {field} all trust\n"), Major::V15)
        };
        assert_eq!(databases(&read), [tokens], "{field}: {:?}", read.errors);
    }
}

#[test]
fn lines_go_on_behind_a_backslash() {
    let numbers = |text: &str| -> Vec<usize> {
        let read = hba(text, Major::V16);
        assert!(read.errors.is_empty(), "{:?}", read.errors);
        read.lines.iter().map(|line| line.at.number).collect()
    };
    let rule = "local all all trust";
    assert_eq!(numbers(&format!("\n# comment\n{rule}\n{rule}")), [3, 4]);
    assert_eq!(numbers(&format!("local all \\\nall trust\r\n{rule}\n")), [1, 3]);
    // A comment goes on as well, and swallows the rule.
    assert_eq!(numbers(&format!("# comment \\\n{rule}\n{rule}\n")), [3]);
    // A backslash that stands where another was stripped is a plain one.
    assert_eq!(numbers(&format!("{rule} #\\\\\n\n{rule}\n")), [1, 3]);
    assert_eq!(numbers(&format!("{rule} # \\ \n{rule}\n")), [1, 2]);
    assert_eq!(numbers(&format!("{rule}\\")), [1]);
}

#[test]
fn included_files() {
    let names = [("names", "alice\n# no\nbob, carol \"d e\"\n@more"), ("more", "x")];
    let read = hba_among("local @names,y all trust\n", &names, Major::V15);
    assert_eq!(databases(&read), [["alice", "bob", "carol", "\"d e\"", "x", "y"]]);
    // With nothing in it there is no field, and the others move up.
    let read = hba_among(
        "local all @none all trust\n",
        &[("none", "# nothing\n")],
        Major::V15,
    );
    assert_eq!(databases(&read), [["all"]]);
    assert!(hba("local @absent all trust\n", Major::V18).loads() == Truth::No);

    let rules = [
        ("more.conf", "local b all trust\n"),
        ("d/2.conf", "local d all trust\n"),
        ("d/1.conf", "local c all trust\n"),
        ("d/.hidden.conf", "nonsense"),
        ("d/other", "nonsense"),
        ("d/x.conf/y", "nonsense"),
    ];
    let text = "local a all trust\n\"include\" more.conf\ninclude_dir d\ninclude_if_exists absent\nlocal e all trust\n";
    let read = hba_among(text, &rules, Major::V16);
    assert_eq!(
        databases(&read),
        [["a"], ["b"], ["c"], ["d"], ["e"]],
        "{:?}",
        read.errors
    );
    let places: Vec<String> = read.lines.iter().map(|line| line.at.to_string()).collect();
    assert_eq!(places[2], "/etc/pg/d/1.conf line 1");
    assert_eq!(places[4], "/etc/pg/pg_hba.conf line 5");
    // No such lines in 15; and with a third field none anywhere.
    assert_eq!(hba_among(text, &rules, Major::V15).errors.len(), 3);
    assert_eq!(
        hba_among("include more.conf x\n", &rules, Major::V16)
            .errors
            .len(),
        1
    );
    for broken in [
        "include absent\n",
        "include_dir absent\n",
        "include_dir \" \"\n",
        "include pg_hba.conf\n",
    ] {
        assert_eq!(hba(broken, Major::V17).loads(), Truth::No, "{broken}");
    }
}

/// A name that leads elsewhere is taken from the including file's folder, in text alone.
#[test]
fn names_are_relative_to_the_file() {
    let files = Memory::of([("/a/b/x", "y"), ("/a/c", "z")]);
    let path = crate::files::beside(b"no/../b/./x", std::path::Path::new("/a/hba"));
    assert_eq!(files.read(&path).unwrap(), b"y");
    assert_eq!(
        crate::files::beside(b"/a/c", std::path::Path::new("/q/hba")),
        std::path::Path::new("/a/c")
    );
}

#[test]
fn what_is_wrong() {
    // line; whether it is wrong on 15, and on 18
    let rows = [
        ("local all all trust", false, false),
        ("Local all all trust", true, true),
        ("\"local\" all all trust", false, false),
        ("local,host all all trust", true, true),
        ("local", true, true),
        ("local all", true, true),
        ("local all all", true, true),
        ("host all all trust", true, true),
        ("host all all 10.0.0.0/8", true, true),
        ("host all all 10.0.0.0 trust", true, true),
        ("host all all 10.0.0.0 255.0.0.0 trust", false, false),
        ("host all all 10.0.0.0 ffff:: trust", true, true),
        ("host all all 10.0.0.0,::1 trust", true, true),
        ("host all all 10.0.0.0/33 trust", true, true),
        ("host all all name/24 trust", true, true),
        ("host all all name trust", false, false),
        ("host all all 10.0.0.256/32 trust", true, true),
        ("host all all all TRUST", true, true),
        ("host all all all peer", true, true),
        ("host all all all cert", true, true),
        ("hostssl all all all cert", false, false),
        ("hostssl all all all cert clientcert=verify-ca", true, true),
        ("hostssl all all all trust clientcert=1", true, true),
        ("host all all all trust clientcert=verify-ca", true, true),
        ("hostssl all all all trust map=m", true, true),
        ("local all all gss", true, true),
        ("local all all ident", false, false),
        ("local all all trust x", true, true),
        ("local all all trust x=y", true, true),
        ("local all all sspi", true, true),
        ("local all all ldap", true, true),
        ("local all all ldap ldapprefix=a", false, false),
        ("local all all ldap ldapprefix=a ldapbasedn=b", true, true),
        ("local /a( all trust", false, true),
        ("local all \"/a(\" trust", false, true),
        ("local all all oauth issuer=a scope=b", true, true),
    ];
    for (line, on_15, on_18) in rows {
        for (major, wrong) in [(Major::V15, on_15), (Major::V18, on_18)] {
            let read = hba(&format!("{line}\n"), major);
            assert_eq!(
                !read.errors.is_empty(),
                wrong,
                "{line} on {major:?}: {:?}",
                read.errors
            );
        }
    }
    assert_eq!(hba("# nothing\n", Major::V18).loads(), Truth::No);
    assert_eq!(ident("", Major::V18).loads(), Truth::Yes);
    for wrong in ["m a\n", "m a,b c\n", "m \"/a(\" b\n"] {
        assert_eq!(ident(wrong, Major::V15).loads(), Truth::No, "{wrong}");
    }
    assert_eq!(ident("m a /b(\n", Major::V15).loads(), Truth::Yes);
    assert_eq!(ident("m a /b(\n", Major::V16).loads(), Truth::No);
    // A comma without a list, from a NUL on nobody knows, and a token that 16 finds too long.
    assert_eq!(hba("local all\0 all trust\n", Major::V18).loads(), Truth::No);
    let long = format!("local {} all trust\n", "x".repeat(10_240));
    assert_eq!(hba(&long, Major::V16).loads(), Truth::No);
    assert_eq!(hba(&long, Major::V17).loads(), Truth::Yes);
}

/// What getaddrinfo(3) takes for an address.
#[test]
fn addresses() {
    // address, first and last; a name where there are none
    let rows = [
        ("10.1.2.3/8", Some(("10.0.0.0", "10.255.255.255"))),
        ("10.1/16", Some(("10.0.0.0", "10.0.255.255"))),
        ("0x0a.1.2.3/32", Some(("10.1.2.3", "10.1.2.3"))),
        ("012.1.2.3/32", Some(("10.1.2.3", "10.1.2.3"))),
        ("167838211/32", Some(("10.1.2.3", "10.1.2.3"))),
        ("10.1.2.3/0", Some(("0.0.0.0", "255.255.255.255"))),
        ("10.1.2.3/+32", Some(("10.1.2.3", "10.1.2.3"))),
        ("\"10.1.2.3/ 32\"", Some(("10.1.2.3", "10.1.2.3"))),
        ("10.1.2.3 255.255.0.0", Some(("10.1.0.0", "10.1.255.255"))),
        ("fd00::1/64", Some(("fd00::", "fd00::ffff:ffff:ffff:ffff"))),
        ("fd00::1%7/128", Some(("fd00::1", "fd00::1"))),
        ("::/0", Some(("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))),
        (
            "::ffff:10.0.0.0/104",
            Some(("::ffff:10.0.0.0", "::ffff:10.255.255.255")),
        ),
        ("fd00::1%x", None),
        ("10.1.2.3.4", None),
        ("4294967296", None),
        ("\"\"", None),
        ("\"all\"", None),
    ];
    for (text, expected) in rows {
        let read = hba(&format!("host all all {text} trust\n"), Major::V15);
        let address = read.lines.first().and_then(|line| line.address.clone());
        let range = address.as_ref().and_then(Address::range);
        let range = range.map(|(first, last)| (first.to_string(), last.to_string()));
        let expected = expected.map(|(first, last)| (first.to_owned(), last.to_owned()));
        assert_eq!(range, expected, "{text}: {:?}", read.errors);
        assert_eq!(
            matches!(address, Some(Address::Name(_))),
            expected.is_none(),
            "{text}"
        );
    }
    let holes = hba("host all all 10.0.0.1 255.0.0.255 trust\n", Major::V15);
    assert_eq!(holes.lines[0].address.as_ref().and_then(Address::range), None);
    // Whether there is such an interface is not known here.
    assert!(matches!(
        hba("host all all fe80::1%eth0/64 trust\n", Major::V15).loads(),
        Truth::Unknown(_)
    ));
}
