//! Whose certificates are good for less.

use std::path::Path;

use pgfw_hba::{Hba, Ident, Major, Memory, Nothing};

use super::*;
use crate::clock::WallTime;
use crate::ledger::types::Authority;
use crate::ops::pg_plan::access::{Known, Side};

const MAP: &str = "m alice alice\nm deputy alice\nx /^(.*)@corp$ \\1\n";

fn side(hba: &str, foreign: bool) -> Side {
    let files = Memory::of([("/hba", format!("{hba}\n")), ("/ident", MAP.to_owned())]);
    let server = pgfw_hba::Server::of(Major::V16);
    let hba = Hba::read(Path::new("/hba"), &files, &server);
    assert!(hba.errors.is_empty(), "{:?}", hba.errors);
    Side::of(
        &hba,
        &Ident::read(Path::new("/ident"), &files, &server),
        true,
        foreign,
    )
}

fn certificate(name: &str) -> Certificate {
    Certificate {
        serial: "00".to_owned(),
        authority: Authority::Client,
        authority_generation: 1,
        name: name.to_owned(),
        subject_dn: format!("/CN={name}"),
        not_before: WallTime(0),
        not_after: WallTime(1),
        issued: WallTime(0),
        requester: String::new(),
        reason: None,
        revoked: None,
        revoke_reason: None,
        pem: String::new(),
    }
}

/// A certificate's name, where it is cut, and whether nothing is left.
type Loss = (String, Vec<String>, bool);

fn cut(now: &Side, then: &Side, trusted: bool) -> Vec<Loss> {
    let names = ["alice", "deputy", "carol@corp"];
    let known = Known {
        certificates: names.map(str::to_owned).into(),
        ..Known::default()
    };
    let rules = [now, then].map(|side| side.everyone(&Nothing));
    let atoms = Atoms::of([&rules[0], &rules[1]], &known);
    let facts = (
        now.facts(&rules[0], &atoms, &known),
        then.facts(&rules[1], &atoms, &known),
    );
    let issued = names.map(certificate);
    let cut = certificates((&facts.0, &facts.1), &atoms, issued.iter().map(|c| (c, trusted)));
    let cut = cut.into_iter().map(|cut| {
        let lost = cut.lost.iter().map(|row| {
            let mut roles = row.roles.names.clone();
            roles.extend(row.roles.others.then(|| "others".to_owned()));
            format!("{} {}", roles.join(","), row.from.join(","))
        });
        (cut.name, lost.collect(), cut.wholly)
    });
    cut.collect()
}

#[test]
fn certificates_that_lose() {
    let lost = |name: &str, place: &str, wholly: bool| (name.to_owned(), vec![place.to_owned()], wholly);
    let mapped = "hostssl app alice 10.0.0.0/8 cert map=m";
    let reject = "host all all all reject";
    // rules of now, of then, whose certificate loses what
    let rows: [(&str, &str, Vec<Loss>); 8] = [
        (mapped, mapped, vec![]),
        (
            mapped,
            reject,
            vec![
                lost("alice", "alice 10.0.0.0/8", true),
                lost("deputy", "alice 10.0.0.0/8", true),
            ],
        ),
        (
            mapped,
            "hostssl app alice 10.0.0.0/9 cert map=m",
            vec![
                lost("alice", "alice 10.128.0.0/9", false),
                lost("deputy", "alice 10.128.0.0/9", false),
            ],
        ),
        // By its own name it gets in as before.
        (
            mapped,
            "hostssl app alice all cert",
            vec![lost("deputy", "alice 10.0.0.0/8", true)],
        ),
        // A password beside the certificate is more to ask for, and the certificate is good for as much.
        (
            "hostssl app alice 10.0.0.0/8 cert",
            "hostssl app alice 10.0.0.0/8 scram-sha-256 clientcert=verify-full",
            vec![],
        ),
        (
            "hostssl app alice 10.0.0.0/8 trust clientcert=verify-ca",
            mapped,
            vec![lost("carol@corp", "alice 10.0.0.0/8", true)],
        ),
        (
            "hostssl app carol 10.0.0.0/8 cert map=x",
            reject,
            vec![lost("carol@corp", "carol 10.0.0.0/8", true)],
        ),
        // A password alone is nobody's certificate.
        ("hostssl app alice 10.0.0.0/8 md5", reject, vec![]),
    ];
    for (now, then, expected) in rows {
        assert_eq!(
            cut(&side(now, false), &side(then, false), true),
            expected,
            "{now} -> {then}"
        );
    }
    // Rules that stay, for certificates of authorities that do not.
    let (same, foreign) = (side(mapped, false), side(mapped, true));
    assert_eq!(cut(&same, &same, false).len(), 2);
    assert_eq!(cut(&foreign, &same, true), []);
}
