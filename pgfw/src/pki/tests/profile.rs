use std::collections::HashSet;
use std::net::IpAddr;

use proptest::prelude::*;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::pem;
use super::*;
use crate::config::ServerName;
use crate::failure::{Code, Failure};
use crate::ledger::types::{Authority, Certificate};

/// The profile that every leaf keeps, whoever asked for it; returns its EKU.
#[expect(clippy::wildcard_enum_match_arm, reason = "any other extension is wrong")]
fn assert_profile(leaf: &Certificate, issuer: &AuthorityInfo) -> &'static str {
    let der = pem::certificate(&leaf.pem, Path::new("leaf")).unwrap();
    let (rest, x509) = X509Certificate::from_der(&der).unwrap();
    assert!(rest.is_empty());
    let ca = pem::certificate(
        &std::fs::read_to_string(&issuer.certificate).unwrap(),
        Path::new("ca"),
    )
    .unwrap();
    let (_, ca) = X509Certificate::from_der(&ca).unwrap();
    x509.verify_signature(Some(ca.public_key())).unwrap();
    assert_eq!(x509.issuer().as_raw(), ca.subject().as_raw());

    // Exactly one attribute in the subject: the CN, of 1 to 63 bytes.
    let subject: Vec<_> = x509.subject().iter_attributes().collect();
    assert_eq!(subject.len(), 1);
    assert_eq!(
        x509.subject()
            .iter_common_name()
            .next()
            .unwrap()
            .as_str()
            .unwrap(),
        leaf.name
    );
    assert!((1..=63).contains(&leaf.name.len()));

    // What the ledger says is what the certificate says, and within the issuer's validity.
    let (not_before, not_after) = (
        x509.validity().not_before.timestamp(),
        x509.validity().not_after.timestamp(),
    );
    assert_eq!(
        (WallTime(not_before), WallTime(not_after)),
        (leaf.not_before, leaf.not_after)
    );
    assert!(issuer.not_before <= leaf.not_before && leaf.not_after <= issuer.not_after);
    assert!(leaf.not_before == WallTime(leaf.issued.0 - 300) || leaf.not_before == issuer.not_before);

    // 16 bytes, positive, as 32 digits.
    assert_eq!(x509.raw_serial().len(), 16);
    assert!(x509.raw_serial()[0] < 0x80);
    assert_eq!(
        format!(
            "{:032x}",
            u128::from_be_bytes(x509.raw_serial().try_into().unwrap())
        ),
        leaf.serial
    );

    let mut seen = HashSet::new();
    let mut usage = "";
    for extension in x509.extensions() {
        let critical = extension.critical;
        match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(aki) => {
                assert_eq!(aki.key_identifier.as_ref().unwrap().0, issuer.key_identifier);
                seen.insert("aki");
            }
            ParsedExtension::SubjectKeyIdentifier(ski) => {
                assert!(!ski.0.is_empty());
                seen.insert("ski");
            }
            ParsedExtension::BasicConstraints(basic) => {
                assert!(critical && !basic.ca);
                seen.insert("basic");
            }
            ParsedExtension::KeyUsage(key_usage) => {
                assert!(critical);
                assert_eq!(key_usage.flags, 1, "digitalSignature alone");
                seen.insert("key usage");
            }
            ParsedExtension::ExtendedKeyUsage(eku) => {
                let others = eku.any
                    || eku.code_signing
                    || eku.email_protection
                    || eku.time_stamping
                    || eku.ocsp_signing
                    || !eku.other.is_empty();
                assert!(!others && eku.server_auth != eku.client_auth, "exactly one EKU");
                usage = if eku.server_auth {
                    "serverAuth"
                } else {
                    "clientAuth"
                };
                seen.insert("eku");
            }
            ParsedExtension::SubjectAlternativeName(_) => {
                assert_eq!(leaf.authority, Authority::Server);
                seen.insert("san");
            }
            other => panic!("an extension nobody asked for: {other:?}"),
        }
    }
    let mut expected = HashSet::from(["aki", "ski", "basic", "key usage", "eku"]);
    if leaf.authority == Authority::Server {
        expected.insert("san");
    }
    assert_eq!(seen, expected);
    usage
}

fn authority(lab: &Lab, authority: Authority) -> AuthorityInfo {
    lab.store.authorities(authority).unwrap().pop().unwrap()
}

#[test]
fn p20_p21_p22_the_two_kinds_of_leaves_keep_the_profile_and_cannot_stand_in_for_each_other() {
    let mut lab = Lab::new();
    let names = [
        ServerName::Dns("db.example.com".into()),
        ServerName::Address("192.168.0.1".parse().unwrap()),
        ServerName::Address("2001:db8::1".parse().unwrap()),
    ];
    let server = lab.issue_server(&names).unwrap();
    let alice = lab.issue("alice");
    let (server_ca, client_ca) = (
        authority(&lab, Authority::Server),
        authority(&lab, Authority::Client),
    );
    assert_eq!(assert_profile(&server.certificate, &server_ca), "serverAuth");
    assert_eq!(assert_profile(&alice.certificate, &client_ca), "clientAuth");
    assert_ne!(server_ca.subject_dn, client_ca.subject_dn);
    assert_ne!(
        server_ca.key_identifier, client_ca.key_identifier,
        "separate keys"
    );
    assert_eq!(client_ca.subject_dn, "/CN=pgfw client CA db1 g1");

    let read = openssl_says(&["x509", "-text", "-noout", "-in", text(&server.certificate_file)]);
    for line in [
        "DNS:db.example.com",
        "IP Address:192.168.0.1",
        "IP Address:2001:DB8:0:0:0:0:0:1",
        "TLS Web Server Authentication",
        "Subject: CN = db.example.com",
        "CA:FALSE",
        "X509v3 Authority Key Identifier",
        "X509v3 Subject Key Identifier",
        "ecdsa-with-SHA256",
    ] {
        assert!(read.contains(line), "{line}: {read}");
    }
    let read = openssl_says(&["x509", "-text", "-noout", "-in", text(&alice.certificate_file)]);
    assert!(
        read.contains("TLS Web Client Authentication") && !read.contains("Server"),
        "{read}"
    );
    assert!(read.contains("Digital Signature\n"), "{read}");

    // P25: every name, and none of its neighbours.
    let check = |option: &str, name: &str| {
        openssl_says(&[
            "x509",
            "-noout",
            option,
            name,
            "-in",
            text(&server.certificate_file),
        ])
        .contains("does match")
    };
    assert!(check("-checkhost", "db.example.com") && !check("-checkhost", "db2.example.com"));
    assert!(check("-checkip", "192.168.0.1") && !check("-checkip", "192.168.0.2"));
    assert!(check("-checkip", "2001:db8::1"));
}

#[test]
fn an_authority_signs_leaves_and_lists_and_no_further_authority() {
    let lab = Lab::new();
    for kind in Authority::ALL {
        let info = authority(&lab, kind);
        let der = pem::certificate(
            &std::fs::read_to_string(&info.certificate).unwrap(),
            Path::new("ca"),
        )
        .unwrap();
        let (_, ca) = X509Certificate::from_der(&der).unwrap();
        let basic = ca.basic_constraints().unwrap().unwrap();
        assert!(basic.critical && basic.value.ca);
        assert_eq!(basic.value.path_len_constraint, Some(0));
        let usage = ca.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert!(!usage.value.digital_signature());
        assert!(ca.extended_key_usage().unwrap().is_none());
        assert_eq!(info.not_before, later(-3600));
        assert!(info.not_after > later(15 * 365 * DAY));
        let says = openssl_says(&[
            "x509",
            "-fingerprint",
            "-sha256",
            "-noout",
            "-in",
            text(&info.certificate),
        ]);
        let digits = says
            .trim()
            .rsplit('=')
            .next()
            .unwrap()
            .replace(':', "")
            .to_lowercase();
        assert_eq!(info.fingerprint, digits);
    }
}

#[test]
fn p22_a_renewal_with_the_same_key_has_another_serial() {
    let mut lab = Lab::new();
    let csr = request(
        &lab,
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        "/CN=alice",
    );
    let ask = || ClientRequest {
        csr: Some(&csr),
        ..client("alice")
    };
    let (first, second) = (lab.issue_as(ask(), T0).unwrap(), lab.issue_as(ask(), T0).unwrap());
    assert_ne!(first.certificate.serial, second.certificate.serial);
    assert_eq!(first.key_file, None);
    lab.revoke(&first.certificate.serial, T0).unwrap();
    let serial = &second.certificate.serial;
    assert!(
        lab.ledger
            .certificate_by_serial(serial)
            .unwrap()
            .unwrap()
            .valid_at(T0)
    );
}

#[test]
fn a_request_gives_its_key_and_nothing_else() {
    let mut lab = Lab::new();
    let ca = authority(&lab, Authority::Client);
    let wishes = [
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "extendedKeyUsage=serverAuth",
        "-addext",
        "subjectAltName=DNS:db.example.com",
        "-addext",
        "subjectKeyIdentifier=hash",
    ];
    let keys: [&[&str]; 4] = [
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["-newkey", "rsa:2048"],
        &["-newkey", "ed25519"],
    ];
    for key in keys {
        for subject in ["/CN=alice", "/O=Example"] {
            let csr = request(&lab, &[key, &wishes].concat(), subject);
            let issued = lab
                .issue_as(
                    ClientRequest {
                        csr: Some(&csr),
                        ..client("alice")
                    },
                    T0,
                )
                .unwrap();
            assert_eq!(assert_profile(&issued.certificate, &ca), "clientAuth");
            let certificate =
                openssl_says(&["x509", "-noout", "-pubkey", "-in", text(&issued.certificate_file)]);
            let wanted = openssl_says(&["req", "-noout", "-pubkey", "-in", text(&lab.path("request.csr"))]);
            assert_eq!(certificate, wanted);
            let verified = openssl(&[
                "verify",
                "-CAfile",
                text(&ca.certificate),
                "-attime",
                "1800000001",
                "-purpose",
                "sslclient",
                text(&issued.certificate_file),
            ]);
            assert!(verified.status.success(), "{verified:?}");
        }
    }
}

#[test]
fn a_request_that_cannot_be_trusted_is_refused_and_leaves_nothing() {
    let mut lab = Lab::new();
    let before = lab.ledger.certificates().unwrap();
    let good = request(
        &lab,
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        "/CN=alice",
    );
    let mut der = openssl_bytes(&["req", "-outform", "DER", "-in", text(&lab.path("request.csr"))]);
    *der.last_mut().unwrap() ^= 1;
    std::fs::write(lab.path("forged.der"), &der).unwrap();
    let forged = openssl_says(&["req", "-inform", "DER", "-in", text(&lab.path("forged.der"))]);
    let weak = request(&lab, &["-newkey", "rsa:1024"], "/CN=alice");
    let odd = request(
        &lab,
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp521r1"],
        "/CN=alice",
    );
    let cases = [
        (good.as_str(), "bob", "it names `alice`, not `bob`"),
        (&forged, "alice", "its key did not sign it"),
        (&weak, "alice", "an RSA key of 1024 bits is too short"),
        (&odd, "alice", "its key is none of"),
        ("hello", "alice", "it holds no CERTIFICATE REQUEST in PEM"),
    ];
    for (csr, name, why) in cases {
        let failure = Failure::from(
            lab.issue_as(
                ClientRequest {
                    csr: Some(csr),
                    ..client(name)
                },
                T0,
            )
            .unwrap_err(),
        );
        assert_eq!(failure.code, Code::Invalid, "{failure}");
        assert!(
            failure
                .message
                .starts_with("the certificate request cannot be used"),
            "{failure}"
        );
        assert!(failure.message.contains(why), "{failure}");
    }
    assert_eq!(lab.ledger.certificates().unwrap(), before);
    assert!(!lab.store.issued("alice").exists());
}

#[test]
fn p21_names_that_postgresql_would_not_carry_are_refused() {
    let mut lab = Lab::new();
    let long = "x".repeat(64);
    for name in ["", &long, "a\nb", "a\0", " alice", "alice ", "tab\there", CANARY] {
        let failure = Failure::from(lab.issue_as(client(name), T0).unwrap_err());
        assert_eq!(failure.code, Code::Invalid, "{failure}");
        assert!(
            !failure.message.contains('\n') && !failure.message.contains('\0'),
            "{failure}"
        );
    }
    let refused = lab.issue_as(client("postgres"), T0).unwrap_err();
    assert!(matches!(refused, PkiError::Superuser { .. }), "{refused:?}");
    lab.issue_as(
        ClientRequest {
            superuser: true,
            ..client("postgres")
        },
        T0,
    )
    .unwrap();
    for name in [
        "../../etc",
        ".hidden",
        "a/b",
        "Ärger",
        "o'neil",
        &"ä".repeat(31),
        &"%".repeat(63),
    ] {
        let issued = lab.issue(name);
        assert_eq!(issued.certificate.name, name);
        assert_eq!(issued.folder.parent().unwrap(), lab.path("pki/issued"));
        assert!(issued.certificate_file.exists() && issued.key_file.unwrap().exists());
    }
}

#[test]
fn p22_a_leaf_never_outlives_its_authority_and_says_so() {
    let mut lab = Lab::new();
    let ca = authority(&lab, Authority::Client);
    let long = lab
        .issue_as(
            ClientRequest {
                ttl: days(365 * 100),
                ..client("alice")
            },
            T0,
        )
        .unwrap();
    assert_eq!((long.certificate.not_after, long.shortened), (ca.not_after, true));
    assert_profile(&long.certificate, &ca);
    let normal = lab.issue("alice");
    assert_eq!(
        (normal.certificate.not_after, normal.shortened),
        (later(30 * DAY), false)
    );
    // A clock set back to just after the authority's birth: five minutes before that it was not valid.
    let early = lab.issue_as(client("alice"), later(-3590)).unwrap();
    assert_eq!(early.certificate.not_before, ca.not_before);
    for outside in [later(-3601), ca.not_after, WallTime(ca.not_after.0 + 1)] {
        let refused = lab.issue_as(client("alice"), outside).unwrap_err();
        assert!(
            matches!(refused, PkiError::AuthorityNotValid { .. }),
            "{refused:?}"
        );
    }
    let refused = lab
        .issue_as(
            ClientRequest {
                ttl: Duration::ZERO,
                ..client("alice")
            },
            T0,
        )
        .unwrap_err();
    assert!(matches!(refused, PkiError::NoTime), "{refused:?}");
}

#[test]
fn a_server_without_names_or_with_a_long_one() {
    let mut lab = Lab::new();
    let refused = lab.issue_server(&[]).unwrap_err();
    assert!(matches!(refused, PkiError::NoServerNames { .. }), "{refused:?}");
    let long = format!("{}.example.com", "x".repeat(60));
    let issued = lab.issue_server(&[ServerName::Dns(long.clone())]).unwrap();
    assert_eq!(issued.certificate.name, "main");
    let der = pem::certificate(&issued.certificate.pem, Path::new("leaf")).unwrap();
    let (_, x509) = X509Certificate::from_der(&der).unwrap();
    let san = x509.subject_alternative_name().unwrap().unwrap();
    assert_eq!(san.value.general_names, [GeneralName::DNSName(&long)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn p22_every_leaf_keeps_the_profile(
        name in "[a-zA-Z0-9äß漢./=+,@_-][a-zA-Z0-9äß漢./=+,@_ -]{0,15}[a-z]",
        seconds in 1u64..2_000_000_000,
        delay in -3500i64..600_000_000,
        addresses in proptest::collection::vec(any::<IpAddr>(), 1..4),
    ) {
        let mut lab = Lab::empty();
        lab.init(T0).unwrap();
        let now = later(delay);
        let ttl = Duration::from_secs(seconds);
        let mine = lab.issue_as(ClientRequest { ttl, ..client(&name) }, now).unwrap();
        prop_assert_eq!(assert_profile(&mine.certificate, &authority(&lab, Authority::Client)), "clientAuth");
        let names: Vec<_> = addresses.into_iter().map(ServerName::Address).collect();
        let request = ServerRequest { cluster: "main", names: &names, ttl, requester: "root" };
        let server = issue_server(&lab.store, &mut lab.ledger, &request, now).unwrap();
        prop_assert_eq!(assert_profile(&server.certificate, &authority(&lab, Authority::Server)), "serverAuth");
        prop_assert_ne!(&server.certificate.serial, &mine.certificate.serial);
    }
}

/// A request made by OpenSSL, also left in `request.csr`.
fn request(lab: &Lab, options: &[&str], subject: &str) -> String {
    let (key, csr) = (lab.path("request.key"), lab.path("request.csr"));
    let fixed = [
        "req",
        "-new",
        "-nodes",
        "-subj",
        subject,
        "-keyout",
        text(&key),
        "-out",
        text(&csr),
    ];
    openssl_says(&[&fixed, options].concat());
    std::fs::read_to_string(csr).unwrap()
}

fn openssl_bytes(arguments: &[&str]) -> Vec<u8> {
    let output = openssl(arguments);
    assert!(output.status.success(), "{output:?}");
    output.stdout
}
