//! Single fields, in every way to write them: mostly rightly, and wrongly where anything may be.

use pgfw_hba::Server;

use crate::generate::{EXACT, LONGER, NAMES};
use crate::random::Random;

/// A name, in one of the ways to write it, or an expression.
pub(crate) fn token(random: &mut Random, server: &Server) -> String {
    let common = ["alice", "bob", "carol", "staff", "dba"];
    match random.below(12) {
        0..=4 => random.pick(&common).to_owned(),
        5..=6 => format!("\"{}\"", random.pick(&NAMES).replace('"', "\"\"")),
        7 if random.errs_in(3) => "@missing".to_owned(),
        7 => random
            .pick(&["al\"ice\"", "\"al\"ice", "ALICE", "alice\"\"", "\"alice", "@"])
            .to_owned(),
        8 => random.pick(&[LONGER, NAMES[21], "é"]).to_owned(),
        _ if server.major.number() < 16 => random.pick(&["/x", "/al.*", "\"/x\""]).to_owned(),
        _ => {
            let expression = expression(random);
            match expression.contains(['"', ',', ' ', '#']) || random.one_in(3) {
                true => format!("\"/{}\"", expression.replace('"', "\"\"")),
                false => format!("/{expression}"),
            }
        }
    }
}

/// Mostly of the part that is understood; some are wrong, some beyond it.
pub(crate) fn expression(random: &mut Random) -> String {
    if random.errs_in(5) {
        return random
            .pick(&[
                "a**",
                "(a",
                "a)",
                "[a",
                "a{2,1}",
                "*a",
                "^*",
                "a{256}",
                "\\",
                "a{1",
                "[[:foo:]]",
                "[z-a]",
                "a{1}{2}",
                "$+",
                "a|*",
                "(*a)",
                "(?a)",
                "a{2",
                "[",
                "[[:alpha:",
                "a{x}{1}",
            ])
            .to_owned();
    }
    let beyond = random.one_in(12);
    understood_or_not(random, beyond)
}

pub(crate) fn understood_or_not(random: &mut Random, beyond: bool) -> String {
    if beyond {
        return random
            .pick(&[
                "(?i)ALICE",
                "***:a",
                "(a)\\1",
                "\\ma",
                "(?=a)b",
                "[a-]",
                "[[.a.]]",
                "a{,2}",
                "{",
                "(?x)a",
                "a+?",
                "a??b",
                "(|a)",
                "()",
                "a||b",
                "",
                "^$",
                "a{x}",
                "}",
                "]",
                "-",
                "[-a]",
                "(?:)",
                "\\y",
                "[\\d-z]",
                "(^a)",
                "(a$)*",
            ])
            .to_owned();
    }
    let mut text = String::new();
    if random.one_in(2) {
        text.push('^');
    }
    for _ in 0..1 + random.below(4) {
        let atom = random.pick(&[
            "a",
            "al",
            "li",
            "ice",
            "b",
            "bob",
            "o",
            ".",
            "..",
            "[a-c]",
            "[^a-c]",
            "[[:alpha:]]",
            "\\w",
            "\\d",
            "\\s",
            "\\W",
            "(a|b)",
            "(alice|bob)",
            "(?:al|ca)",
            "[]x]",
            "\\/",
            "\\.",
            "x",
            "(l(i)c)",
            "é",
            "[é]",
            "[\\w ]",
            "\\D",
            "[[:cntrl:]]",
        ]);
        let how = random.pick(&["", "", "", "*", "+", "?", "{2}", "{1,3}", "{0,}", "*?", "{0}"]);
        text.push_str(atom);
        text.push_str(how);
        if random.one_in(8) {
            text.push('|');
        }
    }
    if random.one_in(2) {
        text.push('$');
    }
    text
}

pub(crate) fn address(random: &mut Random) -> String {
    let base = random.pick(&EXACT);
    let bits = if base.contains(':') { 129 } else { 33 };
    match random.below(20) {
        0..=5 => "all".to_owned(),
        6 => "samehost".to_owned(),
        7 => "samenet".to_owned(),
        8..=10 => format!("{base}/{}", random.below(bits)),
        11..=12 => format!("{base}/{}", random.pick(&[0, 8, 16, 24])),
        13 => format!("\"{base}/{}\"", bits - 1),
        14 => match base.contains(':') {
            true => format!(
                "{base} {}",
                random.pick(&["ffff::", "ffff:ffff:ffff:ffff::", "::", "ff00::ff"])
            ),
            false => format!(
                "{base} {}",
                random.pick(&[
                    "255.0.0.0",
                    "255.255.255.0",
                    "0.0.0.0",
                    "255.0.255.0",
                    "0xff.0",
                    "4278190080"
                ])
            ),
        },
        15 => random
            .pick(&[
                "10.1/16",
                "0x0a010203/32",
                "012.1.2.3/32",
                "10.1.515/32",
                "167838211/32",
                "::ffff:10.1.2.3/128",
                "::ffff:0:0/96",
                "fd00::7%1/128",
                "fe80::1%lo/64",
                "10.1.2.3/+8",
                "\"10.1.2.3/ 8\"",
                "10.1.2.3/08",
            ])
            .to_owned(),
        16 if random.errs_in(2) => random
            .pick(&[
                "10.1.2.3/33",
                "10.1.2.3/",
                "10.1.2.3/x",
                "10.1.2.3/-1",
                "host.example.com/24",
                "10.1.2.3 ::",
                "fd00::/64 all",
                "\"all\"",
                "10.1.2.3,10.1.2.4",
                "10.1.2.256/32",
                "1.2.3.4.5/32",
                "fd00::7%/128",
                "10.1.2.3 x",
            ])
            .to_owned(),
        _ => random
            .pick(&[
                "ten.example.com",
                ".example.com",
                "TEN.example.com",
                "example.com",
                "liar.example.com",
                "six.example.com",
                "\"\"",
                ".",
                "twenty",
                "Example.com",
            ])
            .to_owned(),
    }
}

pub(crate) fn method(random: &mut Random, kind: &str, server: &Server) -> String {
    let ssl = kind == "hostssl";
    match random.below(24) {
        0..=4 => "trust".to_owned(),
        5..=7 => "reject".to_owned(),
        8..=9 => "scram-sha-256".to_owned(),
        10 => "md5".to_owned(),
        11..=12 => "password".to_owned(),
        13 if kind != "local" && server.gss => random.pick(&["gss", "gss include_realm=0"]).to_owned(),
        13 if kind != "local" => "ident map=m".to_owned(),
        14 if server.ldap => "ldap ldapserver=localhost ldapbasedn=dc=x".to_owned(),
        13 | 15..=17 if kind == "local" => random
            .pick(&["peer", "peer map=m", "peer map=n", "ident map=m", "peer map="])
            .to_owned(),
        15..=20 if ssl => random
            .pick(&[
                "cert",
                "cert map=m",
                "cert map=n",
                "cert map=m clientname=DN",
                "cert clientcert=verify-full",
                "trust clientcert=verify-ca",
                "trust clientcert=verify-full",
                "scram-sha-256 clientcert=verify-full",
                "reject clientcert=verify-full",
                "trust clientcert=verify-full clientname=DN",
            ])
            .to_owned(),
        21 if random.errs_in(2) => random
            .pick(&[
                "cert",
                "peer",
                "gss",
                "trust clientcert=1",
                "trust clientcert=verify-full",
                "trust map=m",
                "ldap",
                "TRUST",
                "trust x",
                "trust x=y",
                "sspi",
                "bsd",
                "cert clientcert=verify-ca",
                "ldap ldapprefix=a ldapbasedn=b",
                "ldap ldapserver=x ldapport=0 ldapprefix=a",
                "trust,reject",
                "oauth scope=a issuer=b",
                "trust clientname=XX",
                "peer include_realm=1",
                "krb5",
                "pam pamservice=x",
                "password pamservice=x",
                "ldap ldapprefix=a ldapsearchattribute=u",
                "radius",
                "gss krb_realm=X map=m",
                "trust ldapserver=a",
                "ldap ldapbasedn=a ldapsearchattribute=u ldapsearchfilter=f",
                "ldap ldapscheme=foo ldapprefix=a",
                "gss compat_realm=1",
            ])
            .to_owned(),
        _ => "trust".to_owned(),
    }
}
