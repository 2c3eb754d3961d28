//! An authority is replaced while its clients go on logging in.

mod client;
mod killed;
mod sealed;
mod server;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Scope;

use pgfw::fault::VARIABLE;
use pgfw_tests::lab::{Namespace, PATIENCE, Psql, address, eventually, run};
use serde_json::Value;

use super::stage::{Leaf, Stage};

const PKI: &str = "/etc/pgfw/pki";
const FILES: &str = "/var/lib/pgfw/postgres/main";
const KEPT_FOR: &str =
    "[[identity]]\nname = \"agent\"\nroles = [\"bob\"]\ndatabases = [\"app\"]\nkept_for = \"postgres\"\n";
const KEPT: &str = "/var/lib/pgfw/clients/agent/current";

/// A client that logs in again and again, and may never be refused.
struct Client {
    name: String,
    stop: Arc<AtomicBool>,
    times: Arc<AtomicUsize>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Client {
    fn begin<'scope>(
        scope: &'scope Scope<'scope, '_>,
        from: &'scope Namespace,
        role: &str,
        leaf: &Leaf,
    ) -> Client {
        let client = Client {
            name: format!("{role} by {}", leaf.serial()),
            stop: Arc::default(),
            times: Arc::default(),
            refused: Arc::default(),
        };
        let (stop, times, refused) = (
            Arc::clone(&client.stop),
            Arc::clone(&client.times),
            Arc::clone(&client.refused),
        );
        let (role, folder) = (role.to_owned(), leaf.folder.clone());
        scope.spawn(move || {
            let psql = psql(from, &role, &folder);
            while !stop.load(Ordering::SeqCst) {
                let outcome = psql.query("select 1");
                times.fetch_add(1, Ordering::SeqCst);
                if !outcome.success() {
                    refused.lock().unwrap().push(outcome.stderr);
                }
            }
        });
        client
    }

    /// Waits for whole logins from here on, and looks back.
    #[track_caller]
    fn gets_in(&self) {
        let before = self.times.load(Ordering::SeqCst);
        eventually("it logs in", PATIENCE, || {
            (self.times.load(Ordering::SeqCst) >= before + 3).then_some(())
        });
        let refused = self.refused.lock().unwrap();
        assert!(refused.is_empty(), "{} was refused: {refused:?}", self.name);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// As [`Stage::with_certificate`], for another thread.
fn psql<'lab>(from: &'lab Namespace, role: &str, folder: &std::path::Path) -> Psql<'lab> {
    Psql::at(from)
        .set("host", "db.example.com")
        .set("hostaddr", address::DB.to_string())
        .set("user", role)
        .set("dbname", "app")
        .certificate(folder, "postgresql")
}

fn generation(leaf: &Leaf) -> u64 {
    leaf.certificate["authority_generation"].as_u64().unwrap()
}

/// `pgfw ca rotate status --json` of one authority.
fn status(stage: &Stage<'_>, authority: &str) -> Value {
    let all: Value = serde_json::from_str(&stage.pgfw.ok(&["--json", "ca", "rotate", "status"])).unwrap();
    let mut all = all.as_array().unwrap().iter();
    all.find(|one| one["authority"] == authority).unwrap().clone()
}

fn rotate(stage: &Stage<'_>, what: &str) -> String {
    let arguments: Vec<&str> = ["ca", "rotate"].into_iter().chain(what.split(' ')).collect();
    stage.pgfw.ok(&arguments)
}

/// Has the command die at a step.
#[track_caller]
fn killed_at(stage: &Stage<'_>, what: &str, step: &str) {
    let arguments: Vec<&str> = ["ca", "rotate"].into_iter().chain(what.split(' ')).collect();
    let killed = run(stage.pgfw.command(&arguments).env(VARIABLE, step));
    assert_eq!(killed.code, None, "`{what}` does not come to {step}: {killed:?}");
}

fn certificates_in(text: &str) -> usize {
    text.matches("BEGIN CERTIFICATE").count()
}

fn exists(stage: &Stage<'_>, path: &str) -> bool {
    let path = PathBuf::from(path);
    stage.site.db.within(move || path.exists())
}

fn lists(stage: &Stage<'_>) -> usize {
    stage
        .site
        .db
        .within(|| std::fs::read_dir(format!("{FILES}/crl")).unwrap().count())
}
