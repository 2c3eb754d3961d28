//! PKCS #12, as OpenSSL and Java read it.

use std::os::unix::fs::MetadataExt;

use zeroize::Zeroizing;

use super::*;
use crate::failure::Failure;

/// What OpenSSL finds in it, its names included; `None` when the password is another.
fn opened(file: &Path, password: &str) -> Option<String> {
    let passin = format!("pass:{password}");
    let said = openssl(&["pkcs12", "-nodes", "-in", text(file), "-passin", &passin]);
    said.status
        .success()
        .then(|| String::from_utf8(said.stdout).unwrap())
}

fn keytool(file: &Path, password: &str) -> Output {
    Command::new("keytool")
        .args([
            "-list",
            "-v",
            "-storetype",
            "PKCS12",
            "-storepass",
            password,
            "-keystore",
        ])
        .arg(file)
        .output()
        .expect("keytool is installed")
}

#[test]
fn p24_openssl_and_java_find_key_and_certificate_and_only_with_the_password() {
    for kind in [KeyKind::P256, KeyKind::Ed25519] {
        let mut lab = Lab::new();
        let request = ClientRequest {
            kind,
            ..client("alice")
        };
        let alice = lab.issue_as(request, T0).unwrap();
        let folder = lab.path("bundle");
        std::fs::create_dir(&folder).unwrap();
        let chosen = Passphrase::new(&Zeroizing::new(b"of her own choice\n".to_vec()), "this test").unwrap();
        for password in [None, Some(&chosen)] {
            let P12 { file, password_file } = write_p12(&alice, &folder, password).unwrap();
            let word = match (&password_file, password) {
                (Some(file), None) => {
                    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
                    std::fs::read_to_string(file).unwrap()
                }
                (None, Some(_)) => "of her own choice".to_owned(),
                other => panic!("{other:?}"),
            };
            assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
            let whole = opened(&file, &word).unwrap();
            assert!(whole.contains("friendlyName: user\n"), "{whole}");
            let part = lab.path("part.pem");
            std::fs::write(&part, &whole).unwrap();
            let of = |command: &str, file: &Path| {
                let form = if command == "pkey" { "-pubout" } else { "-pubkey" };
                openssl_says(&[command, form, "-in", text(file)])
            };
            // The first line on is the public key in both.
            let key = of("pkey", &part);
            assert_eq!(key, of("pkey", alice.key_file.as_ref().unwrap()));
            assert!(of("x509", &part).starts_with(&key));
            assert_eq!(whole.matches("BEGIN CERTIFICATE").count(), 1);
            assert_eq!(opened(&file, "another"), None);
            assert_eq!(opened(&file, ""), None);

            let java = keytool(&file, &word);
            let shown = String::from_utf8_lossy(&java.stdout);
            assert!(java.status.success(), "{shown}");
            for line in [
                "Your keystore contains 1 entry",
                "Alias name: user",
                "Entry type: PrivateKeyEntry",
                "Owner: CN=alice",
            ] {
                assert!(shown.contains(line), "no {line:?} in:\n{shown}");
            }
            assert!(!keytool(&file, "another").status.success());
        }
    }
}

#[test]
fn a_key_that_stayed_with_the_requester_is_in_no_such_file() {
    let mut lab = Lab::new();
    let (key, csr) = (lab.path("own.key"), lab.path("own.csr"));
    openssl_says(&[
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=alice",
        "-keyout",
        text(&key),
        "-out",
        text(&csr),
    ]);
    let csr = std::fs::read_to_string(csr).unwrap();
    let request = ClientRequest {
        csr: Some(&csr),
        ..client("alice")
    };
    let alice = lab.issue_as(request, T0).unwrap();
    let refused = Failure::from(write_p12(&alice, lab.folder.path(), None).unwrap_err());
    assert!(refused.message.contains("`alice`"), "{refused}");
    assert!(!lab.path("postgresql.p12").exists() && !lab.path("postgresql.p12.password").exists());
}
