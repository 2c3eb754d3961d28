//! The ledger and the authorities on a disk that is really full.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use pgfw::clock::WallTime;
use pgfw::failure::Failure;
use pgfw::ledger::types::{EntryKind, NewEntry};
use pgfw::ledger::{Ledger, LedgerError};
use pgfw::pki::{
    ClientRequest, CrlTargets, InitRequest, KeyKind, RevokeRequest, Store, init, issue_client, refresh,
    revoke,
};

const T0: WallTime = WallTime(1_800_000_000);

/// Runs `test` with a small file system of its own, which nothing outside of this thread sees.
fn on_a_small_disk(test: impl FnOnce(&Path) + Send + 'static) {
    let folder = tempfile::tempdir().expect("a folder to mount on");
    let path = folder.path().to_owned();
    let run = move || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("root may make a mount namespace");
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .expect("mounts stay in here");
        mount(
            Some("tmpfs"),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=512k"),
        )
        .expect("a tmpfs");
        test(&path);
    };
    std::thread::spawn(run)
        .join()
        .expect("the test above says what went wrong");
}

/// Takes every free block, and gives them back when removed.
fn fill(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("ballast");
    let mut file = File::create(&path).expect("a new file");
    while file.write_all(&[0; 4096]).is_ok() {}
    path
}

fn allow(net: &str) -> NewEntry {
    NewEntry {
        kind: EntryKind::Allow,
        net: net.parse().expect("a network"),
        service: None,
        end: None,
        comment: None,
        requester: "root".into(),
        generation: None,
    }
}

#[test]
fn a_full_disk_opens_nothing_changes_nothing_and_still_answers() {
    on_a_small_disk(|disk| {
        let file = disk.join("ledger.db");
        let mut ledger = Ledger::open(&file).unwrap();
        ledger.put_entry(&allow("10.0.0.0/8"), T0).unwrap();
        let before = ledger.entries().unwrap();
        let ballast = fill(disk);

        let error = ledger.put_entry(&allow("10.1.0.0/16"), T0).unwrap_err();
        assert!(matches!(error, LedgerError::Full { .. }), "{error:?}");
        let failure = Failure::from(error);
        assert_eq!(
            failure.remedy,
            format!("Free space on the file system of {}.", file.display())
        );
        assert_eq!(ledger.entries().unwrap(), before);

        // A daemon that is started now still learns whom to let in.
        drop(ledger);
        let mut ledger = Ledger::open(&file).unwrap();
        assert_eq!(ledger.entries().unwrap(), before);
        assert_eq!(Ledger::open_read_only(&file).unwrap().entries().unwrap(), before);

        std::fs::remove_file(ballast).unwrap();
        ledger.put_entry(&allow("10.1.0.0/16"), T0).unwrap();
        assert_eq!(ledger.entries().unwrap().len(), 2);
    });
}

#[test]
fn a_revocation_on_a_full_disk_says_what_is_missing_and_is_made_up_for() {
    on_a_small_disk(|disk| {
        let day = Duration::from_secs(86_400);
        let mut ledger = Ledger::open(&disk.join("ledger.db")).unwrap();
        let store = Store::new(disk.join("pki"));
        let targets = CrlTargets {
            folders: vec![disk.join("crl")],
            ttl: 365 * day,
        };
        let request = InitRequest {
            host: "db1",
            crl_ttl: targets.ttl,
            requester: "root",
        };
        init(&store, &mut ledger, &request, T0).unwrap();
        let request = ClientRequest {
            name: "alice",
            ttl: 30 * day,
            csr: None,
            kind: KeyKind::P256,
            superuser: false,
            requester: "root",
            reason: None,
        };
        let alice = issue_client(&store, &mut ledger, &request, T0)
            .unwrap()
            .certificate;
        refresh(&store, &mut ledger, &[], &targets, T0).unwrap();
        let lists = |folder: &Path| -> Vec<Vec<u8>> {
            let files = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path());
            files.map(|f| std::fs::read(f).unwrap()).collect()
        };
        let before = lists(&disk.join("crl"));
        let ballast = fill(disk);

        let request = RevokeRequest {
            target: "alice",
            reason: pgfw::ledger::types::RevocationReason::KeyCompromise,
            requester: "root",
        };
        let outcome = revoke(&store, &mut ledger, &request, &targets, T0).unwrap();
        // Everything that has to close is named for those who close it; nothing on the disk is half-written.
        assert_eq!(outcome.selection.certificates, std::slice::from_ref(&alice));
        assert!(!outcome.recorded);
        assert_eq!(outcome.publication.published, []);
        assert!(
            outcome
                .publication
                .failures
                .iter()
                .all(|f| f.remedy.starts_with("Free space")),
            "{outcome:?}"
        );
        assert_eq!(lists(&disk.join("crl")), before);

        std::fs::remove_file(ballast).unwrap();
        ledger.record_revocations(&outcome.selection.revocations).unwrap();
        refresh(&store, &mut ledger, &[], &targets, T0).unwrap();
        assert_ne!(lists(&disk.join("crl")), before);
        assert_eq!(
            ledger
                .certificate_by_serial(&alice.serial)
                .unwrap()
                .unwrap()
                .revoked,
            Some(T0)
        );
    });
}
