//! What every test of the PKI starts from: a store, a ledger, a folder that a server reads, and OpenSSL beside it.

mod agreement;
mod files;
mod foreign;
mod modes;
mod names;
mod p12;
mod profile;
mod renewal;
mod revocation;
mod rotation;
mod sealed;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::clock::WallTime;
use crate::ledger::Ledger;
use crate::ledger::types::RevocationReason;

/// 2027-01-15 08:00:00 UTC.
const T0: WallTime = WallTime(1_800_000_000);
const DAY: i64 = 86_400;

struct Lab {
    folder: TempDir,
    store: Store,
    ledger: Ledger,
    targets: CrlTargets,
}

impl Lab {
    /// With nothing in it.
    fn empty() -> Lab {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        Lab {
            store: Store::new(path("pki")),
            ledger: Ledger::open(&path("ledger.db")).unwrap(),
            targets: CrlTargets {
                folders: vec![path("crl")],
                ttl: days(365),
            },
            folder,
        }
    }

    /// With both authorities and published CRLs.
    fn new() -> Lab {
        let mut lab = Lab::empty();
        lab.init(T0).unwrap();
        lab.refresh(T0);
        lab
    }

    fn init(&mut self, now: WallTime) -> Result<Vec<AuthorityInfo>, PkiError> {
        let request = InitRequest {
            host: "db1",
            crl_ttl: days(365),
            requester: "root",
        };
        init(&self.store, &mut self.ledger, &request, now)
    }

    fn issue(&mut self, name: &str) -> Issued {
        self.issue_as(client(name), T0).unwrap()
    }

    fn issue_as(&mut self, request: ClientRequest<'_>, now: WallTime) -> Result<Issued, PkiError> {
        issue_client(&self.store, &mut self.ledger, &request, now)
    }

    fn issue_server(&mut self, names: &[crate::config::ServerName]) -> Result<Issued, PkiError> {
        let request = ServerRequest {
            cluster: "main",
            names,
            ttl: days(90),
            requester: "root",
        };
        issue_server(&self.store, &mut self.ledger, &request, T0)
    }

    fn revoke(&mut self, target: &str, now: WallTime) -> Result<RevokeOutcome, PkiError> {
        let request = RevokeRequest {
            target,
            reason: RevocationReason::KeyCompromise,
            requester: "root",
        };
        revoke(&self.store, &mut self.ledger, &request, &self.targets, now)
    }

    fn refresh(&mut self, now: WallTime) -> Publication {
        refresh(&self.store, &mut self.ledger, &[], &self.targets, now).unwrap()
    }

    fn published(&self) -> &Path {
        &self.targets.folders[0]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn client(name: &str) -> ClientRequest<'_> {
    ClientRequest {
        name,
        ttl: days(30),
        csr: None,
        kind: KeyKind::P256,
        superuser: false,
        requester: "root",
        reason: None,
    }
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 86_400)
}

fn later(seconds: i64) -> WallTime {
    WallTime(T0.0 + seconds)
}

/// Runs `openssl`; what it prints is the second opinion.
fn openssl(arguments: &[&str]) -> Output {
    Command::new("openssl")
        .args(arguments)
        .output()
        .expect("openssl is installed")
}

/// The standard output of an `openssl` that has to succeed.
fn openssl_says(arguments: &[&str]) -> String {
    let output = openssl(arguments);
    assert!(
        output.status.success(),
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
