//! Who is let in again, rule by rule.

use std::path::Path;

use pgfw_hba::{Hba, Ident, Major, Memory, Nothing};

use super::*;
use crate::postgres::Role;

/// A session of alice in app from 10.0.0.1; `change` makes it another.
fn session(change: impl FnOnce(&mut Session)) -> Session {
    let mut session = Session {
        pid: 1,
        role: Some("alice".to_owned()),
        database: Some("app".to_owned()),
        address: "10.0.0.1".parse().ok(),
        port: Some(40000),
        since: String::new(),
        tls: Some("TLSv1.3".to_owned()),
        serial: None,
        issuer: None,
        subject: None,
        application: None,
    };
    change(&mut session);
    session
}

fn with_certificate(session: &mut Session) {
    session.serial = Some("7".to_owned());
    session.issuer = Some("/CN=ours".to_owned());
}

fn root(name: &str) -> Vec<u8> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

/// What is said: `in`, or why not or perhaps not.
fn again(rules: &str, session: &Session, certificate: Option<&str>, secret: Secret) -> String {
    let files = Memory::of([
        ("/hba", format!("{rules}\n")),
        ("/ident", "m alice alice\n".to_owned()),
    ]);
    let server = pgfw_hba::Server::of(Major::V16);
    let hba = Hba::read(Path::new("/hba"), &files, &server);
    let ident = Ident::read(Path::new("/ident"), &files, &server);
    assert!(hba.errors.is_empty(), "{:?}", hba.errors);
    let trusted = [root("ours")];
    let rules = Everyone::of(&hba, &ident, &Nothing);
    let server = Server {
        rules: &rules,
        ssl: true,
        trusted: &trusted,
        only_tls_1_3: true,
    };
    let live = LiveFacts {
        sessions: Vec::new(),
        streams: Vec::new(),
        gss: Vec::new(),
        roles: vec![Role {
            name: "alice".to_owned(),
            secret,
        }],
        databases: Vec::new(),
        missing_roles: Vec::new(),
        create_roles: Vec::new(),
        pending_restart: Vec::new(),
    };
    let client = Client {
        session,
        certificate,
        gss: false,
    };
    match server.again(&client, &live) {
        Again::In => "in".to_owned(),
        Again::Perhaps(why) => format!("perhaps: {why}"),
        Again::Refused(why) => format!("refused: {why}"),
    }
}

#[test]
fn who_gets_in_again() {
    use Secret::{Md5, None as NoSecret, Scram};
    let plain = session(|_| {});
    let shown = session(with_certificate);
    let foreign = session(|s| {
        with_certificate(s);
        s.issuer = Some("/CN=theirs".to_owned());
    });
    let old = session(|s| s.tls = Some("TLSv1.2".to_owned()));
    let clear = session(|s| s.tls = None);
    let socket = session(|s| {
        s.tls = None;
        s.address = None;
    });
    let standby = session(|s| s.database = None);
    let cert = "hostssl app alice 10.0.0.0/8 cert map=m";
    let password = "hostssl app alice 10.0.0.0/8 scram-sha-256";
    // rules, session, its certificate, the role's secret, the answer's beginning
    let rows: [(&str, &Session, Option<&str>, Secret, &str); 17] = [
        (cert, &shown, Some("alice"), NoSecret, "in"),
        (
            cert,
            &shown,
            Some("bob"),
            NoSecret,
            "refused: certificate bob may not be alice by",
        ),
        (cert, &shown, None, NoSecret, "perhaps: whose certificate"),
        (
            cert,
            &plain,
            None,
            Scram,
            "refused: `hostssl app alice 10.0.0.0/8 cert map=m` asks for a certificate",
        ),
        (
            cert,
            &foreign,
            Some("alice"),
            NoSecret,
            "refused: its certificate is of /CN=theirs",
        ),
        // A certificate of a stranger is refused whatever the method.
        (
            password,
            &foreign,
            Some("alice"),
            Scram,
            "refused: its certificate is of /CN=theirs",
        ),
        (
            password,
            &shown,
            Some("alice"),
            Scram,
            "perhaps: `hostssl app alice 10.0.0.0/8 scram-sha-256` asks for the password of alice",
        ),
        (
            password,
            &plain,
            None,
            NoSecret,
            "refused: `hostssl app alice 10.0.0.0/8 scram-sha-256` asks for a password, and alice has none",
        ),
        (
            password,
            &plain,
            None,
            Md5,
            "refused: `hostssl app alice 10.0.0.0/8 scram-sha-256` asks by scram-sha-256, and",
        ),
        (
            "host app alice 10.0.0.0/8 md5",
            &plain,
            None,
            Md5,
            "perhaps: `host app",
        ),
        ("host app alice 10.0.0.0/8 trust", &plain, None, NoSecret, "in"),
        (
            "host app alice 10.0.0.0/8 trust",
            &old,
            None,
            NoSecret,
            "refused: it speaks TLSv1.2",
        ),
        (
            "host app bob 10.0.0.0/8 trust",
            &plain,
            None,
            Scram,
            "refused: no rule is for it",
        ),
        (
            "host all all all reject",
            &plain,
            None,
            Scram,
            "refused: `host all all all reject` rejects it",
        ),
        // Whoever comes in the clear may come with TLS the next time.
        (
            "hostssl app alice all trust",
            &clear,
            None,
            Scram,
            "perhaps: no rule is for it; with TLS it gets in",
        ),
        (
            "local all all reject",
            &socket,
            None,
            Scram,
            "refused: `local all all reject` rejects it",
        ),
        // Physical replication is no database.
        (
            "host all all all trust",
            &standby,
            None,
            Scram,
            "refused: no rule is for it",
        ),
    ];
    for (rules, session, certificate, secret, expected) in rows {
        let said = again(rules, session, certificate, secret);
        assert!(said.starts_with(expected), "{rules}: {said}, not {expected}");
    }
    assert_eq!(
        again("host replication alice all trust", &standby, None, Scram),
        "in"
    );
}
