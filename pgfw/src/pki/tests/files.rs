use std::os::unix::fs::MetadataExt;

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};

use super::super::authority::SigningAuthority;
use super::super::files;
use super::*;
use crate::config::ServerName;
use crate::failure::Failure;
use crate::ledger::types::Authority;

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

/// Every file and folder below `folder`, links not followed.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

#[test]
fn p24_keys_are_private_from_their_first_byte_under_any_umask() {
    for bits in [0, 0o022, 0o077, 0o777] {
        // The umask belongs to the process; a thread that has left the shared one has its own.
        let test = move || {
            unshare(CloneFlags::CLONE_FS).unwrap();
            let mut lab = Lab::empty();
            umask(Mode::from_bits_truncate(bits));
            // Before a byte is in it.
            let (scratch, file) = files::create_scratch(&lab.path("new.key")).unwrap();
            assert_eq!(mode(&scratch) & 0o177, 0, "umask {bits:o}");
            assert_eq!(file.metadata().unwrap().len(), 0);
            lab.init(T0).unwrap();
            lab.refresh(T0);
            lab.issue_server(&[ServerName::Dns("db".into())]).unwrap();
            let alice = lab.issue("alice");
            let target = BundleTarget {
                host: "db".into(),
                port: 5432,
                database: "app".into(),
                user: "alice".into(),
                trust: Trust::Own,
            };
            write_bundle(&lab.store, &alice, &target, &lab.path("bundle")).unwrap();
            let mut keys = 0;
            for path in tree(lab.folder.path()) {
                let kind = path.symlink_metadata().unwrap().file_type();
                let below = |name| path.starts_with(lab.path(name));
                if kind.is_symlink() || path == scratch {
                    continue;
                }
                let (folder, found) = (kind.is_dir(), mode(&path));
                let expected = match path.extension().and_then(|e| e.to_str()) {
                    Some("key" | "pk8" | "db" | "db-journal") => 0o600,
                    _ if folder && below("crl") => 0o755,
                    _ if folder => 0o700,
                    _ => 0o644,
                };
                keys += u32::from(path.extension().is_some_and(|e| e == "key"));
                assert_eq!(
                    format!("{found:o}"),
                    format!("{expected:o}"),
                    "umask {bits:o}, {}",
                    path.display()
                );
            }
            assert_eq!(keys, 6, "two authorities, canary, server, alice, bundle");
        };
        std::thread::spawn(test).join().unwrap();
    }
}

#[test]
fn p24_no_key_is_printed() {
    let mut lab = Lab::new();
    let alice = lab.issue("alice");
    let ca = lab.path("pki/client-ca/g1");
    let authority = SigningAuthority::load(&lab.store, Authority::Client, 1, &ca).unwrap();
    let key = lab.store.open_key(&ca.join("ca.key")).unwrap();
    let printed = format!(
        "{key:?} {authority:?} {alice:?} {:?} {:#?}",
        lab.store, lab.ledger
    );
    let json = serde_json::to_string(&alice).unwrap();
    for file in [ca.join("ca.key"), alice.key_file.clone().unwrap()] {
        let pem = std::fs::read_to_string(&file).unwrap();
        for line in pem.lines() {
            assert!(!printed.contains(line) && !json.contains(line), "{line}");
        }
        // As decimal bytes, which is how a derived Debug prints them: the private scalar of PKCS #8 P-256.
        let der = openssl(&[
            "pkcs8",
            "-topk8",
            "-nocrypt",
            "-outform",
            "DER",
            "-in",
            text(&file),
        ])
        .stdout;
        let scalar = format!("{:?}", &der[36..68]);
        assert!(!printed.contains(scalar.trim_matches(['[', ']'])));
    }

    // Nor quoted by an error about it.
    let pem = std::fs::read_to_string(ca.join("ca.key")).unwrap();
    let broken = pem.replacen("MIG", "MIH", 1);
    std::fs::write(ca.join("ca.key"), &broken).unwrap();
    let failure = Failure::from(lab.issue_as(client("bob"), T0).unwrap_err());
    assert!(failure.message.contains("ca.key"), "{failure}");
    for line in broken.lines() {
        assert!(!failure.to_string().contains(line), "{failure}");
    }
}

#[test]
fn a_key_of_another_certificate_signs_nothing() {
    let mut lab = Lab::new();
    let other = lab.issue("alice").key_file.unwrap();
    std::fs::copy(other, lab.path("pki/client-ca/g1/ca.key")).unwrap();
    let failure = Failure::from(lab.issue_as(client("bob"), T0).unwrap_err());
    assert!(failure.message.contains("it is not the key of"), "{failure}");
    assert!(!lab.ledger.certificates().unwrap().iter().any(|c| c.name == "bob"));
}

#[test]
fn p13_certificate_and_key_are_replaced_as_a_pair() {
    let mut lab = Lab::new();
    assert_eq!(lab.store.server_pair("main").unwrap(), None);
    let mut former: Option<ServerPair> = None;
    for _ in 0..4 {
        lab.issue_server(&[ServerName::Dns("db".into())]).unwrap();
        let pair = lab.store.server_pair("main").unwrap().unwrap();
        assert_eq!(pair.certificate.parent(), pair.key.parent());
        let of_certificate = openssl_says(&["x509", "-noout", "-pubkey", "-in", text(&pair.certificate)]);
        assert_eq!(
            openssl_says(&["pkey", "-pubout", "-in", text(&pair.key)]),
            of_certificate
        );
        // Who had followed the link before still reads a whole pair.
        if let Some(former) = former {
            assert_ne!(former, pair);
            assert!(former.certificate.exists() && former.key.exists());
        }
        former = Some(pair);
    }
    assert_eq!(
        files::names_in(&lab.path("pki/server")).unwrap().len(),
        3,
        "the link and two folders"
    );
}

#[test]
fn p13_an_issue_cut_off_anywhere_leaves_the_former_certificate_or_the_new_one() {
    let mut lab = Lab::new();
    let first = lab.issue("alice");
    let recorded = lab.ledger.certificates().unwrap().len();
    // The ledger has it, the files were never written: nothing is at its place.
    let folder = lab.path("pki/issued");
    let cut = folder.join("..alice.00.new");
    std::fs::create_dir(&cut).unwrap();
    std::fs::write(cut.join("alice.key"), "half a").unwrap();
    std::os::unix::fs::symlink(".alice.00", folder.join(".alice.new")).unwrap();
    let read = |issued: &Issued| std::fs::read_to_string(&issued.certificate_file).unwrap();
    assert_eq!(read(&first), first.certificate.pem);

    let second = lab.issue("alice");
    assert_eq!(read(&second), second.certificate.pem);
    assert_eq!(lab.ledger.certificates().unwrap().len(), recorded + 1);
    assert!(!cut.exists(), "half a key does not stay");
    let mut left = files::names_in(&folder).unwrap();
    left.sort();
    let serials = [&first, &second].map(|i| format!(".alice.{}", i.certificate.serial));
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(serials.iter().all(|s| left.contains(s)));
}

#[test]
fn authorities_are_made_once() {
    let mut lab = Lab::empty();
    let failure = Failure::from(lab.issue_as(client("alice"), T0).unwrap_err());
    assert!(failure.remedy.contains("pgfw ca init"), "{failure}");
    assert_eq!(lab.init(T0).unwrap().len(), 2);
    let before = std::fs::read(lab.path("pki/client-ca/g1/ca.crt")).unwrap();
    let refused = lab.init(T0).unwrap_err();
    assert!(
        matches!(refused, PkiError::AuthoritiesExist { .. }),
        "{refused:?}"
    );
    assert_eq!(
        std::fs::read(lab.path("pki/client-ca/g1/ca.crt")).unwrap(),
        before
    );
}

#[test]
fn an_init_cut_off_in_the_middle_is_finished_by_the_next() {
    let mut lab = Lab::empty();
    lab.init(T0).unwrap();
    let server = std::fs::read(lab.path("pki/server-ca/g1/ca.crt")).unwrap();
    // The client authority's folder was being filled.
    std::fs::rename(lab.path("pki/client-ca/g1"), lab.path("pki/client-ca/.g1.new")).unwrap();
    assert_eq!(lab.init(T0).unwrap().len(), 2);
    assert_eq!(
        std::fs::read(lab.path("pki/server-ca/g1/ca.crt")).unwrap(),
        server
    );
    assert_eq!(files::names_in(&lab.path("pki/client-ca")).unwrap(), ["g1"]);
    lab.issue("alice");
}

#[test]
fn an_authority_whose_leaves_are_out_is_not_silently_replaced() {
    let mut lab = Lab::new();
    lab.issue("alice");
    std::fs::remove_dir_all(lab.path("pki/client-ca")).unwrap();
    let failure = Failure::from(lab.init(T0).unwrap_err());
    assert!(failure.message.contains("client-ca is gone"), "{failure}");
    assert!(!lab.path("pki/client-ca").exists());
}

#[test]
fn a_bundle_says_how_to_connect() {
    let mut lab = Lab::new();
    let alice = lab.issue("alice");
    let target = BundleTarget {
        host: "db.example.com".into(),
        port: 5433,
        database: "app".into(),
        user: "alice".into(),
        trust: Trust::Own,
    };
    let folder = lab.path("for alice");
    let bundle = write_bundle(&lab.store, &alice, &target, &folder).unwrap();
    let service = std::fs::read_to_string(folder.join("pg_service.conf")).unwrap();
    let path = |file| folder.join(file).display().to_string();
    for line in [
        "[alice]",
        "host=db.example.com",
        "port=5433",
        "dbname=app",
        "user=alice",
        "sslmode=verify-full",
        &format!("sslrootcert={}", path("root.crt")),
        &format!("sslkey={}", path("postgresql.key")),
    ] {
        assert!(service.lines().any(|l| l == line), "{line}: {service}");
    }
    assert_eq!(
        bundle.command,
        format!("PGSERVICEFILE='{}' psql service=alice", path("pg_service.conf"))
    );
    let root = std::fs::read_to_string(folder.join("root.crt")).unwrap();
    assert_eq!(root, lab.store.roots(Authority::Server).unwrap());
    let same =
        |file: &str, of: &Path| std::fs::read(folder.join(file)).unwrap() == std::fs::read(of).unwrap();
    assert!(same("postgresql.crt", &alice.certificate_file));
    assert!(same("postgresql.key", alice.key_file.as_ref().unwrap()));

    let odd = BundleTarget {
        database: "a\nhost=evil".into(),
        ..target
    };
    let refused = write_bundle(&lab.store, &alice, &odd, &lab.path("odd")).unwrap_err();
    assert!(matches!(refused, PkiError::Name { .. }), "{refused:?}");
    assert!(!lab.path("odd").exists());
}
