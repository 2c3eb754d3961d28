//! One corpus, two verifiers: OpenSSL as PostgreSQL uses it, and webpki as rustls does (P26).

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, Error, RootCertStore};

use super::*;
use crate::config::ServerName;
use crate::ledger::types::Authority;

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Verdict {
    Valid,
    Revoked,
    Expired,
    NotYetValid,
    OtherAuthority,
    WrongUsage,
    CrlExpired,
    CrlMissing,
}

fn openssl_verdict(certificate: &Path, root: &Path, crls: &Path, now: WallTime) -> Verdict {
    let time = now.0.to_string();
    let output = openssl(&[
        "verify",
        "-crl_check",
        "-purpose",
        "sslclient",
        "-attime",
        &time,
        "-CAfile",
        text(root),
        "-CApath",
        text(crls),
        text(certificate),
    ]);
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    // X509_V_ERR_*
    let first = said
        .lines()
        .find_map(|l| l.strip_prefix("error ")?.split(' ').next()?.parse::<u32>().ok());
    match first {
        None if output.status.success() => Verdict::Valid,
        Some(3) => Verdict::CrlMissing,
        Some(9) => Verdict::NotYetValid,
        Some(10) => Verdict::Expired,
        Some(12) => Verdict::CrlExpired,
        Some(20) => Verdict::OtherAuthority,
        Some(23) => Verdict::Revoked,
        Some(26) => Verdict::WrongUsage,
        _ => panic!("{said}"),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "other errors are no verdict of the corpus"
)]
fn webpki_verdict(certificate: &Path, root: &Path, crls: &Path, now: WallTime) -> Verdict {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(root).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    let lists = super::super::files::names_in(crls)
        .unwrap()
        .into_iter()
        .map(|name| CertificateRevocationListDer::from_pem_file(crls.join(name)).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .with_crls(lists)
        .enforce_revocation_expiration()
        .build()
        .unwrap();
    let leaf = CertificateDer::from_pem_file(certificate).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.0.try_into().unwrap()));
    match verifier.verify_client_cert(&leaf, &[], now) {
        Ok(_) => Verdict::Valid,
        Err(Error::InvalidCertificate(error)) => match error {
            CertificateError::Revoked => Verdict::Revoked,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Verdict::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Verdict::NotYetValid
            }
            // OpenSSL compares key identifiers before signatures, webpki does not.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Verdict::OtherAuthority,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Verdict::WrongUsage
            }
            CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => Verdict::CrlExpired,
            CertificateError::UnknownRevocationStatus => Verdict::CrlMissing,
            other => panic!("{other:?}"),
        },
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn p26_openssl_and_webpki_give_one_answer() {
    let mut lab = Lab::new();
    let mut other = Lab::new();
    let alice = lab.issue("alice").certificate_file;
    let bob = lab
        .issue_as(
            ClientRequest {
                ttl: days(700),
                ..client("bob")
            },
            T0,
        )
        .unwrap()
        .certificate_file;
    let revoked = lab.issue("carol").certificate_file;
    lab.revoke("carol", T0).unwrap();
    let stranger = other.issue("alice").certificate_file;
    let server = lab
        .issue_server(&[ServerName::Dns("db".into())])
        .unwrap()
        .certificate_file;
    let (canary, _) = lab.store.canary().unwrap();

    // The server's key pair, offered to a server that by mistake trusts both authorities.
    let both = lab.path("both.crt");
    let roots = lab.store.roots(Authority::Client).unwrap() + &lab.store.roots(Authority::Server).unwrap();
    std::fs::write(&both, roots).unwrap();
    let clients = lab.path("pki/client-ca/g1/ca.crt");
    let (lists, none) = (lab.published().to_owned(), lab.path("none"));
    std::fs::create_dir(&none).unwrap();
    // Some list has to be there: without any, rustls checks no revocation at all.
    let of_servers = format!(
        "{:08x}.r0",
        lab.store.authorities(Authority::Server).unwrap()[0].name_hash
    );
    std::fs::copy(lists.join(&of_servers), none.join(&of_servers)).unwrap();

    use Verdict::*;
    let corpus = [
        ("a new one", &alice, &clients, &lists, T0, Valid),
        (
            "on a clock five minutes behind",
            &alice,
            &clients,
            &lists,
            later(-300),
            Valid,
        ),
        ("before that", &alice, &clients, &lists, later(-301), NotYetValid),
        (
            "in its last second but one",
            &alice,
            &clients,
            &lists,
            later(30 * DAY - 1),
            Valid,
        ),
        (
            "one second later",
            &alice,
            &clients,
            &lists,
            later(30 * DAY + 1),
            Expired,
        ),
        ("revoked", &revoked, &clients, &lists, T0, Revoked),
        ("the canary", &canary, &clients, &lists, T0, Revoked),
        (
            "the canary, late",
            &canary,
            &clients,
            &lists,
            later(364 * DAY),
            Revoked,
        ),
        (
            "of another authority with the same name",
            &stranger,
            &clients,
            &lists,
            T0,
            OtherAuthority,
        ),
        (
            "a server's where both are trusted, P20",
            &server,
            &both,
            &lists,
            T0,
            WrongUsage,
        ),
        (
            "with a list that lapsed",
            &bob,
            &clients,
            &lists,
            later(366 * DAY),
            CrlExpired,
        ),
        (
            "without its issuer's list",
            &alice,
            &clients,
            &none,
            T0,
            CrlMissing,
        ),
    ];
    for (what, certificate, root, crls, now, expected) in corpus {
        let openssl = openssl_verdict(certificate, root, crls, now);
        let webpki = webpki_verdict(certificate, root, crls, now);
        assert_eq!((openssl, webpki), (expected, expected), "{what}");
    }
    // A server's key pair (P20) is refused twice over; webpki looks at the usage first.
    assert_eq!(openssl_verdict(&server, &clients, &lists, T0), OtherAuthority);
    assert_eq!(webpki_verdict(&server, &clients, &lists, T0), WrongUsage);
    // The one second in which they differ is not_after itself; Certificate::valid_at sides with OpenSSL.
    let last = later(30 * DAY);
    assert_eq!(openssl_verdict(&alice, &clients, &lists, last), Expired);
    assert_eq!(webpki_verdict(&alice, &clients, &lists, last), Valid);
    let recorded = lab
        .ledger
        .certificates()
        .unwrap()
        .into_iter()
        .find(|c| c.name == "alice")
        .unwrap();
    assert!(recorded.valid_at(later(30 * DAY - 1)) && !recorded.valid_at(last));
}
