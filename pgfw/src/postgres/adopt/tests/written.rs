//! The text as a whole: hostile names in it, several servers, and the example of docs/adopt.md.

use super::*;

/// Names of the server's users in comments and values: the text stays TOML and means the same.
#[test]
fn names_are_hostile() {
    let names = [
        "\"]\nport = 1",
        "a#b",
        "\\",
        "\\u0041",
        "'''",
        "\"\"\"",
        "x = 1",
        "\u{202e}abc",
        "[[login]]",
        "\u{1}",
        "é\u{7f}",
        "a\tb",
        "all",
        "+all",
        "@x",
        "a,b",
        "/.*",
        " ",
    ];
    let known = Known {
        roles: Some(
            names
                .iter()
                .map(|name| Role {
                    name: name.as_bytes().to_vec(),
                    replicates: false,
                    secret: Secret::Md5,
                })
                .chain([Role {
                    name: vec![0xff, b'x'],
                    replicates: false,
                    secret: Secret::Scram,
                }])
                .collect(),
        ),
        databases: Some(names.iter().map(|name| name.as_bytes().to_vec()).collect()),
        major: 16,
    };
    let hba = "host all all 10.0.0.0/8 md5 # \"]]\n\
               local \"]\u{1}\", \"+grp\",a\"b c\",sameuser +\"my grp\" peer # \u{202e}\nlocal all \"a\\b\" md5\n\
               hostssl \"x\ty\" all 192.168.0.0/16 scram-sha-256\n";
    let adopted = adopted(hba, &known);
    let config = Config::parse(&adopted.text, Path::new("pgfw.toml")).expect("pgfw reads it");
    let login = &config.logins[0];
    let mut expected: Vec<&str> = names.to_vec();
    expected.retain(|name| !name.contains('\n'));
    assert_eq!(login.roles, expected);
    let differences = adopted.servers[0].differences.join("\n");
    assert!(differences.contains("can hold such a name"), "{differences}");
    for c in ['\u{202e}', '\u{1}', '\u{7f}'] {
        assert!(!adopted.text.contains(c), "{}", adopted.text);
    }
    assert_eq!(
        config.postgres[0].local,
        [
            "local \"]\u{1}\",\"+grp\",a\"b c\",sameuser +\"my grp\" peer",
            "local all \"a\\b\" md5",
        ]
    );
    assert_eq!(config.logins[1].databases, Some(vec!["x\ty".to_owned()]));

    // What a file of 15 says is read anew by 16, where a slash begins an expression.
    let before = super::adopted(hba, &Known { major: 15, ..known });
    let config = Config::parse(&before.text, Path::new("pgfw.toml")).expect("pgfw reads it");
    expected.retain(|name| !name.starts_with('/'));
    assert_eq!(config.logins[0].roles, expected);
}

/// Two servers: a login counts for both, so one that contradicts another is left out and said; equal ones stand once.
#[test]
fn servers_on_one_host() {
    let one = draft(
        translated(
            "hostssl app alice 10.0.0.0/8 scram-sha-256\nhostssl app bob 10.0.0.0/8 md5\n",
            &known(),
            15,
        ),
        15,
    );
    let mut two = draft(
        translated(
            "hostssl all alice 10.1.0.0/16 md5\nhostssl app bob 10.0.0.0/8 md5\n",
            &known(),
            15,
        ),
        15,
    );
    two.port = 5433;
    let third = Draft {
        manage: Manage::None,
        port: 5434,
        ..two.clone()
    };
    let same_port = Draft {
        title: "15/down".to_owned(),
        pid: None,
        ..one.clone()
    };
    let adopted = crate::postgres::adopt::write::write(vec![one, two, third, same_port], Vec::new())
        .expect("pgfw reads it");
    let config = Config::parse(&adopted.text, Path::new("pgfw.toml")).expect("pgfw reads it");
    let names: Vec<&str> = config.postgres.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["main", "main-15", "main-2"]);
    let logins: Vec<&str> = config.logins.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(logins, ["alice", "bob"], "{}", adopted.text);
    assert!(
        adopted
            .text
            .contains("! left out, and refused then: login `alice` has another method")
    );
    assert!(adopted.text.contains("as [[login]] bob above"));
    assert!(adopted.text.contains("counts for every [[postgres]]"));
    // Rules that somebody else writes: the filter lets in what they let in.
    let open: Vec<String> = config.postgres[2].allow.iter().map(ToString::to_string).collect();
    assert_eq!(open, ["10.0.0.0/8"]);
    assert_eq!(adopted.problems.len(), 1);
    assert!(
        adopted.problems[0].contains("15/down has port 5432 like 15/main"),
        "{:?}",
        adopted.problems
    );
}

/// The example in docs/adopt.md is what the tool prints.
#[test]
fn the_documents_example_is_what_is_printed() {
    let document = include_str!("../../../../../docs/adopt.md");
    let (_, example) = document.split_once("## Example\n").expect("an example");
    let mut blocks = example.split("```").skip(1).step_by(2);
    let hba = blocks.next().expect("rules").trim_start_matches('\n');
    let toml = blocks.next().expect("sections").trim_start_matches("toml\n");
    let place = "/etc/postgresql/15/main/pg_hba.conf";
    let server = Server::of(Major::V15);
    let hba = Hba::read(Path::new(place), &Memory::of([(place, hba)]), &server);
    let role = |name: &str, secret| Role {
        name: name.as_bytes().to_vec(),
        replicates: name == "carol",
        secret,
    };
    let roles = vec![
        role("alice", Secret::Scram),
        role("app", Secret::Scram),
        role("bob", Secret::Md5),
        role("carol", Secret::None),
        role("mallory", Secret::Scram),
        role("postgres", Secret::None),
    ];
    let known = Known {
        roles: Some(roles),
        databases: Some(["app", "bob", "postgres"].map(|d| d.as_bytes().to_vec()).into()),
        major: 15,
    };
    let translation = translate(&hba, &Ident::default(), &known, &Here, true, "postgres");
    let draft = Draft {
        data: PathBuf::from("/var/lib/postgresql/15/main"),
        hba_file: PathBuf::from(place),
        pid: Some(812),
        ..draft(translation, 15)
    };
    let adopted = crate::postgres::adopt::write::write(vec![draft], Vec::new()).expect("pgfw reads it");
    assert_eq!(adopted.text, toml, "{}", adopted.text);
}
