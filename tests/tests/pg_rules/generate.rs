//! Files that use the whole grammar, mostly rightly, and logins that meet their rules.

use pgfw_hba::{Connection, Hba, Pattern, Server};

use crate::fields::{address, expression, method, token, understood_or_not};
use crate::random::Random;

/// What is written beside the server's data.
pub(crate) struct Files {
    pub(crate) hba: String,
    pub(crate) ident: String,
    /// Name and text of what they include.
    pub(crate) others: Vec<(String, String)>,
}

/// One login.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) role: String,
    pub(crate) database: String,
    pub(crate) replication: bool,
    pub(crate) from: Source,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    Local,
    Plain(&'static str),
    /// With the certificate of that number.
    Tls(&'static str, Option<usize>),
}

/// Names that are roles, groups and databases alike; `ROLES` of `real.rs` exist.
pub(crate) const NAMES: [&str; 22] = [
    "alice",
    "bob",
    "carol",
    "ghost",
    "staff",
    "dba",
    "all",
    "replication",
    "sameuser",
    "samerole",
    "a b",
    "a,b",
    "#x",
    "q\"q",
    "/x",
    "/al.*",
    "+staff",
    "@f",
    "é",
    "Alice",
    "",
    // 63 bytes, and one more, which the server cuts.
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];
pub(crate) const LONGER: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// Common names of the client certificates.
pub(crate) const CERTIFICATES: [&str; 5] = ["alice", "bob@example.com", "carol", "al\"ice", "/x"];

/// Addresses of the namespace, with the masks of its interface.
pub(crate) const OWN: [&str; 8] = [
    "127.0.0.1/8",
    "10.1.2.3/32",
    "10.9.9.9/24",
    "192.168.7.7/26",
    "::1/128",
    "fd00::7/64",
    "fd00:0:0:1::1/128",
    "10.20.30.40/32",
];

/// Sources that are no address of an interface, but in a subnet of one.
const NEAR: [&str; 3] = ["10.9.9.77", "192.168.7.1", "127.9.9.9"];
pub(crate) const EXACT: [&str; 8] = [
    "127.0.0.1",
    "10.1.2.3",
    "10.9.9.9",
    "192.168.7.7",
    "::1",
    "fd00::7",
    "fd00:0:0:1::1",
    "10.20.30.40",
];

impl Attempt {
    /// Half of them are what some line seems to be for.
    pub(crate) fn new(random: &mut Random, rules: &Hba) -> Attempt {
        let common = ["alice", "bob", "carol", "staff", "dba", "ghost"];
        let name = |random: &mut Random| match random.below(8) {
            0..=4 => random.pick(&common),
            5 if random.one_in(3) => LONGER,
            _ => random.pick(&NAMES),
        };
        let certificate = |random: &mut Random| (!random.one_in(3)).then(|| random.below(CERTIFICATES.len()));
        let (mut role, mut database) = (name(random).to_owned(), name(random).to_owned());
        let mut replication = random.one_in(8);
        let mut from = match random.below(10) {
            0..=2 => Source::Local,
            3..=6 if random.one_in(3) => Source::Plain(random.pick(&NEAR)),
            3..=6 => Source::Plain(random.pick(&EXACT)),
            _ => Source::Tls(random.pick(&EXACT), certificate(random)),
        };
        if random.one_in(2) {
            let line = &rules.lines[random.below(rules.lines.len())];
            let literal = |patterns: &[Pattern], random: &mut Random| {
                let token = &patterns[random.below(patterns.len())].token;
                let text = String::from_utf8_lossy(&token.text).into_owned();
                (text != "all").then_some(text)
            };
            role = literal(&line.roles, random).unwrap_or(role);
            database = match literal(&line.databases, random).as_deref() {
                Some("sameuser") => role.clone(),
                Some("samerole" | "samegroup") => random.pick(&common).to_owned(),
                // The word as it is meant, and the database of that name.
                Some("replication") if random.one_in(2) => {
                    replication = true;
                    database
                }
                Some(other) => other.to_owned(),
                None => database,
            };
            from = match line.connection {
                Connection::Local => Source::Local,
                Connection::HostSsl => Source::Tls(random.pick(&EXACT), certificate(random)),
                Connection::Host
                | Connection::HostNoSsl
                | Connection::HostGssEnc
                | Connection::HostNoGssEnc => Source::Plain(random.pick(&EXACT)),
            };
        }
        if role.is_empty() {
            // The server refuses a start-up packet without a user.
            role.push_str("alice");
        }
        Attempt {
            role,
            database,
            replication,
            from,
        }
    }
}

impl Files {
    /// The test's own lines alone, by which the server tells what it has loaded.
    pub(crate) fn marked(round: u64) -> Files {
        Files {
            hba: format!(
                "local all postgres trust\nlocal \"gen\" all peer map=gen\nlocal \"gen\" all reject\n\
                 local \"hba-{round}\" zzz password\nlocal \"hba-{round}\" all reject\n"
            ),
            ident: format!("gen root g-{round}\n"),
            others: Vec::new(),
        }
    }
}

/// Round `round`'s files.
pub(crate) fn files(random: &mut Random, server: &Server, round: u64) -> Files {
    let Files {
        mut hba,
        mut ident,
        mut others,
    } = Files::marked(round);
    random.errs = random.one_in(4);
    for number in 0..2 + random.below(12) {
        let line = line(random, server, round, number, &mut others);
        hba.push_str(&line);
    }
    for _ in 0..random.below(8) {
        ident.push_str(&ident_line(random, server));
    }
    Files { hba, ident, others }
}

fn line(
    random: &mut Random,
    server: &Server,
    round: u64,
    number: usize,
    others: &mut Vec<(String, String)>,
) -> String {
    let other = |name: &str| format!("inc/{round}-{number}-{name}");
    match random.below(24) {
        0 => "# a comment, with \"quotes\n".to_owned(),
        1 => {
            // A comment that swallows the next line, and a rule on two lines.
            let rule = rule(random, server);
            let cut = rule.find(' ').unwrap_or(0);
            match random.one_in(2) {
                true => format!("# \\\n{rule}\n"),
                false => format!("{}\\\n{}\r\n", &rule[..cut], &rule[cut..]),
            }
        }
        2 => {
            let names: Vec<String> = (0..random.below(4)).map(|_| token(random, server)).collect();
            let separators = ["\n", " ", ",", " , "];
            let text = names.join(random.pick(&separators));
            let name = other("names");
            others.push((name.clone(), text));
            format!(
                "host @{name} all all {}\n",
                random.pick(&["trust", "reject", "md5"])
            )
        }
        // No such lines in 15.
        3..=4 if server.major.number() < 16 && !random.errs_in(4) => rule(random, server) + "\n",
        3 => {
            let word = random.pick(&["include", "include_if_exists"]);
            let missing = match word {
                "include" => random.errs_in(3),
                _ => random.one_in(3),
            };
            let name = other("rules");
            if !missing {
                let lines: Vec<String> = (0..random.below(3)).map(|_| rule(random, server)).collect();
                others.push((name.clone(), lines.join("\n")));
            }
            format!("{word} {name}\n")
        }
        4 => {
            let folder = other("dir");
            for name in ["b.conf", "a.conf", ".conf", "c.txt", "x"] {
                others.push((format!("{folder}/{name}"), rule(random, server) + "\n"));
            }
            format!("include_dir \"{folder}\"\n")
        }
        _ => rule(random, server) + "\n",
    }
}

fn rule(random: &mut Random, server: &Server) -> String {
    let kind = match random.below(12) {
        0..=3 => "host",
        4..=5 => "hostssl",
        6 => "hostnossl",
        7 => "hostgssenc",
        8 => "hostnogssenc",
        _ => "local",
    };
    let kind = match random.errs_in(15) {
        true => random.pick(&["HOST", "\"host\"", "hostx", "host,local", "all"]),
        false => kind,
    };
    let mut fields = vec![kind.to_owned(), databases(random, server), roles(random, server)];
    if kind.contains("host") {
        fields.push(address(random));
    }
    fields.push(method(random, kind, server));
    if random.errs_in(15) {
        let at = random.below(fields.len());
        fields.remove(at);
    }
    let separators = [" ", " ", "\t", "  ", "\r"];
    let mut text = fields.join(random.pick(&separators));
    if random.one_in(8) {
        text.push_str(" # and so on");
    }
    text
}

fn list(random: &mut Random, one: impl Fn(&mut Random) -> String) -> String {
    let many = match random.below(4) {
        0 => 2,
        1 => 3,
        _ => 1,
    };
    let tokens: Vec<String> = (0..many).map(|_| one(random)).collect();
    // `a,` goes on behind a blank; `a ,b` does not.
    let commas = [",", ",", ",", ", ", ",,"];
    tokens.join(random.pick(&commas))
}

fn databases(random: &mut Random, server: &Server) -> String {
    list(random, |random| match random.below(9) {
        0..=3 => "all".to_owned(),
        4 => random
            .pick(&["sameuser", "samerole", "samegroup", "replication"])
            .to_owned(),
        _ => token(random, server),
    })
}

fn roles(random: &mut Random, server: &Server) -> String {
    list(random, |random| match random.below(9) {
        0..=3 => "all".to_owned(),
        4..=5 => random
            .pick(&[
                "+staff",
                "+dba",
                "+alice",
                "+none",
                "+",
                "\"+staff\"",
                "+\"staff\"",
            ])
            .to_owned(),
        _ => token(random, server),
    })
}

fn ident_line(random: &mut Random, server: &Server) -> String {
    let map = random.pick(&["m", "m", "m", "n", "\"m\"", "M"]);
    let user = match random.below(10) {
        0..=2 => random
            .pick(&[
                "root",
                "alice",
                "carol",
                "bob@example.com",
                "\"root\"",
                "CN=alice",
                "all",
            ])
            .to_owned(),
        3 => "\"al\"\"ice\"".to_owned(),
        4 => "\"/x\"".to_owned(),
        5..=7 => random
            .pick(&[
                "/^(.*)@example\\.com$",
                "/^([a-z]+)@.*$",
                "\"/\"",
                "/^(.*)$",
                "/^CN=(.*)$",
                "/(o+)",
                "/^r(.)(.)t$",
                "/^(?:al)(ice)$",
                "/^alice$",
                "/^(a|b).*$",
                "/^(x)?alice$",
                "/oo",
            ])
            .to_owned(),
        _ => {
            // Whether the server takes the maps has to be known beforehand.
            let expression = match random.errs {
                true => expression(random),
                false => understood_or_not(random, false),
            };
            format!("\"/{}\"", expression.replace('"', "\"\""))
        }
    };
    let role = match random.below(10) {
        0..=2 => "\\1".to_owned(),
        3 => random
            .pick(&["\"\\1\"", "x\\1", "\\1\\1", "al\\1", "/^\\1$"])
            .to_owned(),
        4 => "all".to_owned(),
        5 => random
            .pick(&["+staff", "+dba", "\"all\"", "\"+staff\""])
            .to_owned(),
        6 => token(random, server),
        _ => format!("\"{}\"", random.pick(&NAMES[..20]).replace('"', "\"\"")),
    };
    let rest = match random.below(20) {
        0 => " and more",
        1 if random.errs => ",x",
        2 => " # comment",
        _ => "",
    };
    let wrong = random.errs_in(10);
    match random.below(2) {
        0 if wrong => format!("{map} {user}\n"),
        1 if wrong => format!("{map},x {user} {role}\n"),
        _ => format!("{map} {user} {role}{rest}\n"),
    }
}
