//! The authorities' keys under a passphrase. OpenSSL opens what is written here, and writes what is opened here.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::*;
use crate::failure::{Code, Failure};
use crate::ledger::types::Authority;

const PASSPHRASE: &str = "correct horse";

fn passphrase(text: &str) -> Arc<Passphrase> {
    Arc::new(Passphrase::new(&Zeroizing::new(text.into()), "this test").unwrap())
}

/// What the config would say, and what is at hand.
fn store(lab: &Lab, credential: bool, given: Option<&str>) -> Store {
    Store::new(lab.path("pki")).sealed(Seal {
        credential: credential.then(|| "pgfw-ca".to_owned()),
        given: given.map(passphrase),
    })
}

fn sealed() -> Lab {
    let mut lab = Lab::empty();
    lab.store = store(&lab, true, Some(PASSPHRASE));
    lab.init(T0).unwrap();
    lab.refresh(T0);
    lab
}

fn keys(lab: &Lab) -> [PathBuf; 2] {
    ["pki/server-ca/g1/ca.key", "pki/client-ca/g1/ca.key"].map(|key| lab.path(key))
}

/// The public half, as OpenSSL finds it with a passphrase.
fn public(lab: &Lab, key: &Path, passphrase: &str) -> Option<String> {
    let file = lab.path("said");
    std::fs::write(&file, passphrase).unwrap();
    let passin = format!("file:{}", text(&file));
    let said = openssl(&["pkey", "-pubout", "-passin", &passin, "-in", text(key)]);
    said.status
        .success()
        .then(|| String::from_utf8(said.stdout).unwrap())
}

fn of_certificate(key: &Path) -> String {
    openssl_says(&[
        "x509",
        "-noout",
        "-pubkey",
        "-in",
        text(&key.with_file_name("ca.crt")),
    ])
}

#[test]
fn p24_keys_of_authorities_are_written_under_the_passphrase_and_openssl_opens_them() {
    let mut lab = sealed();
    for key in keys(&lab) {
        let pem = std::fs::read_to_string(&key).unwrap();
        assert!(
            pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"),
            "{pem}"
        );
        assert_eq!(key.metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(public(&lab, &key, PASSPHRASE), Some(of_certificate(&key)));
        assert_eq!(public(&lab, &key, "correct horsf"), None);
        let parts = openssl_says(&["asn1parse", "-in", text(&key)]);
        for part in ["PBES2", "scrypt", "aes-256-cbc"] {
            assert!(parts.contains(part), "no {part} in:\n{parts}");
        }
    }
    let [server, client] = keys(&lab).map(|key| std::fs::read(key).unwrap());
    assert_ne!(server[..120], client[..120], "one salt for both");
    // It signs as any other, and leaves are for whoever gets them.
    let alice = lab.issue("alice");
    let leaf = std::fs::read_to_string(alice.key_file.unwrap()).unwrap();
    assert!(leaf.starts_with("-----BEGIN PRIVATE KEY-----"));
    assert!(
        lab.revoke("alice", later(1))
            .unwrap()
            .publication
            .failures
            .is_empty()
    );
}

#[test]
fn without_the_passphrase_nothing_is_signed_and_nothing_half_made() {
    let mut lab = Lab::empty();
    lab.store = store(&lab, true, None);
    let refused = Failure::from(lab.init(T0).unwrap_err());
    assert_eq!(refused.code, Code::Locked);
    assert!(
        refused.message.contains("pgfw-ca") && refused.remedy.contains("--passphrase-file"),
        "{refused}"
    );
    assert!(!lab.path("pki").exists());
    assert!(lab.ledger.certificates().unwrap().is_empty());

    let mut lab = sealed();
    let alice = lab.issue("alice");
    let before = lab.ledger.certificates().unwrap();
    for (given, code, word) in [
        (None, Code::Locked, "not at hand"),
        (Some("wrong horse"), Code::Refused, "does not open"),
    ] {
        lab.store = store(&lab, true, given);
        let refused = Failure::from(lab.issue_as(client("bob"), T0).unwrap_err());
        assert_eq!(refused.code, code, "{refused}");
        assert!(
            refused.message.contains("client-ca/g1/ca.key") && refused.message.contains(word),
            "{refused}"
        );
        assert_eq!(lab.store.try_keys().map_err(|e| Failure::from(e).code), Err(code));
        assert_eq!(lab.ledger.certificates().unwrap(), before);
    }
    // A revocation is in the ledger all the same; its list waits, and is made once there is a passphrase.
    lab.store = store(&lab, true, None);
    let outcome = lab.revoke("alice", later(1)).unwrap();
    assert!(outcome.recorded);
    assert!(!outcome.publication.failures.is_empty());
    assert!(
        outcome
            .publication
            .failures
            .iter()
            .all(|f| f.code == Code::Locked)
    );
    lab.store = store(&lab, true, Some(PASSPHRASE));
    let caught_up = lab.refresh(later(2));
    assert!(caught_up.failures.is_empty() && !caught_up.published.is_empty());
    let list = std::fs::read_to_string(lab.path("pki/client-ca/g1/ca.crl")).unwrap();
    std::fs::write(lab.path("list"), list).unwrap();
    let shown = openssl_says(&["crl", "-noout", "-text", "-in", text(&lab.path("list"))]);
    assert!(
        shown.to_lowercase().contains(&alice.certificate.serial),
        "{shown}"
    );
}

#[test]
fn keys_are_brought_under_the_passphrase_and_out_again_whatever_was_left_half_done() {
    let lab = Lab::new();
    let publics = keys(&lab).map(|key| of_certificate(&key));
    let encrypt = store(&lab, true, Some(PASSPHRASE));
    assert_eq!(encrypt.unlike_the_config().unwrap().len(), 2);
    assert_eq!(encrypt.seal_keys().unwrap().len(), 2);
    assert!(encrypt.unlike_the_config().unwrap().is_empty());
    assert!(encrypt.seal_keys().unwrap().is_empty(), "done already");
    for (key, public_key) in keys(&lab).iter().zip(&publics) {
        assert_eq!(public(&lab, key, PASSPHRASE).as_ref(), Some(public_key));
        assert_eq!(key.metadata().unwrap().mode() & 0o7777, 0o600);
    }
    let left = std::fs::read_dir(lab.path("pki/client-ca/g1")).unwrap().count();
    assert_eq!(left, 5, "ca.crt, ca.key, ca.crl and the canary's two");

    // One of them in the clear, as a process that was killed would leave it.
    let [_, client_key] = keys(&lab);
    let decrypt = store(&lab, false, Some(PASSPHRASE));
    let half = std::fs::read(&client_key).unwrap();
    assert_eq!(decrypt.seal_keys().unwrap().len(), 2);
    std::fs::write(&client_key, half).unwrap();
    // Another passphrase would leave two keys under different ones.
    let other = store(&lab, true, Some("another horse"));
    let before = keys(&lab).map(|key| std::fs::read(key).unwrap());
    assert!(matches!(other.seal_keys(), Err(PkiError::WrongPassphrase { .. })));
    assert_eq!(keys(&lab).map(|key| std::fs::read(key).unwrap()), before);
    assert_eq!(encrypt.seal_keys().unwrap().len(), 1);
    // Without one nothing moves in either direction.
    for credential in [true, false] {
        let none = store(&lab, credential, None);
        assert_eq!(
            none.seal_keys().map_err(|e| Failure::from(e).code),
            Err(Code::Locked)
        );
    }
    assert_eq!(decrypt.seal_keys().unwrap().len(), 2);
    for (key, public_key) in keys(&lab).iter().zip(publics) {
        assert_eq!(openssl_says(&["pkey", "-pubout", "-in", text(key)]), public_key);
    }
}

/// What a person made with OpenSSL is a key like any other.
#[test]
fn keys_that_openssl_encrypted_are_opened() {
    for how in [
        &["-v2", "aes-256-cbc"][..],
        &["-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA512", "-iter", "5000"],
        &["-scrypt"],
    ] {
        let mut lab = Lab::new();
        let passout = format!("pass:{PASSPHRASE}");
        for key in keys(&lab) {
            let out = lab.path("made.key");
            let mut arguments = vec![
                "pkcs8",
                "-topk8",
                "-in",
                text(&key),
                "-out",
                text(&out),
                "-passout",
                &passout,
            ];
            arguments.extend(how);
            openssl_says(&arguments);
            std::fs::rename(&out, &key).unwrap();
        }
        lab.store = store(&lab, true, Some(PASSPHRASE));
        assert!(lab.store.unlike_the_config().unwrap().is_empty());
        lab.issue("alice");
    }
}

#[test]
fn p24_a_passphrase_is_the_first_line_is_not_short_and_is_not_printed() {
    let lab = sealed();
    let file = lab.path("passphrase");
    for (content, taken) in [
        ("correct horse\n", true),
        ("correct horse\nand more", true),
        ("correct\n", false),
        ("\ncorrect horse", false),
        ("", false),
    ] {
        std::fs::write(&file, content).unwrap();
        let read = Passphrase::read(&file);
        match read {
            Ok(read) => assert!(taken && read == *passphrase(PASSPHRASE), "{content:?}"),
            Err(error) => {
                assert!(!taken, "{content:?}");
                let failure = Failure::from(error);
                assert!(failure.message.contains(text(&file)), "{failure}");
                assert!(!failure.to_string().contains("correct"), "{failure}");
            }
        }
    }
    let printed = format!("{:?} {:#?}", lab.store, lab.store);
    assert!(printed.contains("Passphrase(..)"), "{printed}");
    let decimal = format!("{:?}", PASSPHRASE.as_bytes());
    for secret in [PASSPHRASE, decimal.trim_matches(['[', ']'])] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[test]
fn p23_p24_a_new_generation_s_key_is_under_the_same_passphrase_or_not_made() {
    let mut lab = sealed();
    let key = lab.path("pki/client-ca/g2/ca.key");
    let refuse = |lab: &mut Lab| {
        for (given, code) in [(None, Code::Locked), (Some("another one"), Code::Refused)] {
            lab.store = store(lab, true, given);
            let refused = lab.try_introduce(Authority::Client).unwrap_err();
            assert_eq!(Failure::from(refused).code, code);
            assert!(!key.parent().unwrap().exists());
            assert!(lab.store.rotation(Authority::Client).unwrap().phase.is_settled());
        }
    };
    refuse(&mut lab);
    // Of a key that is lost nobody can tell; the other authority's is under the passphrase too.
    std::fs::remove_file(&keys(&lab)[1]).unwrap();
    refuse(&mut lab);
    lab.store = store(&lab, true, Some(PASSPHRASE));
    lab.introduce(Authority::Client);
    assert_eq!(public(&lab, &key, PASSPHRASE), Some(of_certificate(&key)));
}

#[test]
fn p23_p24_in_a_rotation_neither_a_lost_key_nor_one_that_goes_stands_in_the_way_of_the_others() {
    let mut lab = sealed();
    lab.introduce(Authority::Client);
    lab.store = store(&lab, false, Some(PASSPHRASE));
    assert_eq!(lab.store.seal_keys().unwrap().len(), 3);
    drop_one(&lab.store, Authority::Client, Which::Old).unwrap();
    lab.store = store(&lab, true, Some(PASSPHRASE));
    assert_eq!(lab.store.unlike_the_config().unwrap().len(), 2);
    assert_eq!(lab.store.seal_keys().unwrap().len(), 2);
    // The one that goes is destroyed soon: nobody is told to encrypt what `seal_keys` leaves alone.
    assert_eq!(lab.store.unlike_the_config().unwrap(), Vec::<PathBuf>::new());

    let mut lab = sealed();
    lab.introduce(Authority::Client);
    std::fs::remove_file(&keys(&lab)[1]).unwrap();
    lab.store = store(&lab, false, Some(PASSPHRASE));
    assert_eq!(lab.store.seal_keys().unwrap().len(), 2);
}

#[test]
fn p23_p24_a_rotation_does_not_begin_with_keys_that_are_still_to_be_sealed() {
    let mut lab = Lab::new();
    lab.store = store(&lab, true, Some(PASSPHRASE));
    let refused = lab.try_introduce(Authority::Client).unwrap_err();
    assert!(refused.to_string().contains("is in the clear"), "{refused}");
    assert!(lab.store.rotation(Authority::Client).unwrap().phase.is_settled());
    assert_eq!(lab.store.seal_keys().unwrap().len(), 2);
    lab.introduce(Authority::Client);
}
