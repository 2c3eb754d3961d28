//! One thing that the daemon does, killed at each of its steps.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use pgfw::fault::VARIABLE;
use pgfw_tests::lab::{Daemon, EchoServer, Instance, PATIENCE, Reach, Site, address, tcp};

use crate::{CONFIG, SHORT, configured};

/// Brings an instance to where the thing begins, and leaves no daemon.
pub(super) type Before = Box<dyn Fn(&Instance<'_>)>;

pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) before: Before,
    pub(super) act: Act,
    /// What may be found while the daemon is dead.
    pub(super) dead: Vec<View>,
    /// What `status` may say once it runs again.
    pub(super) states: Vec<&'static str>,
}

#[derive(Clone, Copy)]
pub(super) enum Act {
    Start,
    Command(&'static [&'static str]),
    Stop,
}

/// Whether the client and the stranger reach the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View(pub(super) bool, pub(super) bool);

/// A step and how often it was come to.
type Moment = (String, u32);

const TRACE: &str = "/run/trace";

impl Scenario {
    pub(super) fn kill_at_every_step(&self) {
        let site = Site::new();
        let _server = EchoServer::start(&site.db, "[::]:5432");
        let moments = self.moments(&site);
        assert!(!moments.is_empty(), "{}: nothing happens", self.name);
        for (step, time) in moments {
            let at = format!("{}, killed at {step}:{time}", self.name);
            let pgfw = fresh(&site);
            (self.before)(&pgfw);
            self.act(&pgfw, &format!("{step}:{time}"), &at);
            let dead = view(&site);
            assert!(self.dead.contains(&dead), "{at}: {dead:?} while it is dead");

            let daemon = pgfw.start();
            self.compare(&site, &pgfw, &at);
            // And it can go on.
            pgfw.configure(&CONFIG.replace("10.20.0.0/16", "10.0.0.0/8"));
            if !pgfw.status().0["pending"].is_null() {
                pgfw.ok(&["confirm"]);
            }
            let said = pgfw.ok(&["reload"]);
            assert!(said.contains("counts now"), "{at}: {said}");
            drop(daemon);
        }
    }

    /// The names of all steps, those of the way to it included.
    pub(super) fn all_steps(&self) -> Vec<String> {
        let site = Site::new();
        self.trace(&site)
    }

    /// The steps of the thing itself.
    fn moments(&self, site: &Site) -> Vec<Moment> {
        let trace = self.trace(site);
        let ready = trace.iter().position(|step| step == "ready").unwrap();
        let mut times: BTreeMap<&String, u32> = BTreeMap::new();
        let counted = trace.iter().map(|step| {
            let time = times.entry(step).or_default();
            *time += 1;
            (step.clone(), *time)
        });
        let counted: Vec<Moment> = counted.collect();
        match self.act {
            Act::Start => counted[..=ready].to_vec(),
            Act::Command(_) | Act::Stop => counted[ready + 1..].to_vec(),
        }
    }

    fn trace(&self, site: &Site) -> Vec<String> {
        let pgfw = fresh(site);
        (self.before)(&pgfw);
        let daemon = pgfw.start_command(pgfw.command(&["run"]).env(VARIABLE, format!("trace:{TRACE}")));
        match self.act {
            Act::Start => drop(daemon),
            Act::Command(arguments) => {
                pgfw.ok(arguments);
                drop(daemon);
            }
            Act::Stop => assert!(daemon.stop().success()),
        }
        site.db.read(TRACE).lines().map(str::to_owned).collect()
    }

    /// Does it with a daemon that dies of it.
    fn act(&self, pgfw: &Instance<'_>, fault: &str, at: &str) {
        let started = pgfw.try_start(pgfw.command(&["run"]).env(VARIABLE, fault));
        let wait = |mut daemon: Daemon| {
            let ended = daemon.wait(PATIENCE);
            assert_eq!(ended.code(), None, "{at}: it ended by itself: {}", daemon.log());
        };
        match (self.act, started) {
            (Act::Start, Err(ended)) => assert_eq!(ended.code, None, "{at}: {}", ended.stderr),
            // Killed after it was ready.
            (Act::Start, Ok(daemon)) => wait(daemon),
            (Act::Command(arguments), Ok(daemon)) => {
                pgfw.pgfw(arguments);
                wait(daemon);
            }
            (Act::Stop, Ok(daemon)) => {
                daemon.signal(Signal::SIGTERM);
                wait(daemon);
            }
            (Act::Command(_) | Act::Stop, Err(ended)) => panic!("{at}: no start: {}", ended.stderr),
        }
    }

    /// Kernel, ledger and files, once a daemon runs again.
    fn compare(&self, site: &Site, pgfw: &Instance<'_>, at: &str) {
        let status = pgfw.status();
        let at = format!("{at}: {}", status.summary());
        assert!(self.states.contains(&status.state()), "{at}");
        let ledger = Ledger::read(site);
        let judging = status.0["generation"].as_u64().unwrap();
        let pending = status.0["pending"]["generation"].as_u64();
        assert_eq!(ledger.pending, pending, "{at}: what waits");
        assert_eq!(pending.or(ledger.confirmed), Some(judging), "{at}: what judges");
        let marker = site
            .db
            .within(|| std::path::Path::new("/etc/pgfw/.confirmed").exists());
        assert_eq!(marker, ledger.confirmed.is_some(), "{at}: the marker");
        let mut kept: Vec<String> = [ledger.confirmed, ledger.pending]
            .into_iter()
            .flatten()
            .map(|number| format!("gen-{number}"))
            .collect();
        kept.sort();
        assert_eq!(pinned(site, "gen-"), kept, "{at}: generations in the kernel");
        assert_eq!(
            pinned(site, "-xdp").len() + pinned(site, "-egress").len(),
            2,
            "{at}: links"
        );
        let expected = ledger.view(judging);
        assert_eq!(view(site), expected, "{at}: the ledger says {ledger:?}");
        assert_eq!(status.attention().matches("could not").count(), 0, "{at}");
    }
}

/// An installation on which pgfw has never run.
fn fresh(site: &Site) -> Instance<'_> {
    let pgfw = configured(site, CONFIG);
    pgfw.ok(&["off"]);
    site.db.within(|| {
        for folder in ["/var/lib/pgfw", "/run/pgfw"] {
            let _ = std::fs::remove_dir_all(folder);
        }
        for file in ["/etc/pgfw/.confirmed", TRACE] {
            let _ = std::fs::remove_file(file);
        }
    });
    pgfw
}

fn view(site: &Site) -> View {
    let reaches = |from| match tcp(from, address::DB, 5432, SHORT) {
        Reach::Open => true,
        Reach::Silent => false,
        other @ (Reach::Refused | Reach::Unreachable(_)) => panic!("{other:?}"),
    };
    View(reaches(&site.client), reaches(&site.stranger))
}

/// Names below the pin folder that contain this.
fn pinned(site: &Site, part: &str) -> Vec<String> {
    let mut found = site.db.within(|| {
        let mut found = Vec::new();
        let mut folders = vec![std::path::PathBuf::from("/sys/fs/bpf/pgfw")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.contains(part) {
                    found.push(name);
                }
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        found
    });
    found.sort();
    found
}

/// What the ledger says, read as a stranger would.
#[derive(Debug)]
struct Ledger {
    confirmed: Option<u64>,
    pending: Option<u64>,
    configs: BTreeMap<u64, String>,
    /// `allow` or `deny`, and the network.
    entries: Vec<(String, String)>,
}

impl Ledger {
    fn read(site: &Site) -> Ledger {
        site.db.within(|| {
            let db = rusqlite::Connection::open("/var/lib/pgfw/ledger.db").unwrap();
            let mut ledger = Ledger {
                confirmed: None,
                pending: None,
                configs: BTreeMap::new(),
                entries: Vec::new(),
            };
            let mut rows = db
                .prepare("SELECT number, state, config FROM generations")
                .unwrap();
            let mut rows = rows.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let number = u64::try_from(row.get::<_, i64>(0).unwrap()).unwrap();
                match row.get::<_, String>(1).unwrap().as_str() {
                    "confirmed" => ledger.confirmed = Some(number),
                    "pending" => ledger.pending = Some(number),
                    _ => {}
                }
                ledger.configs.insert(number, row.get(2).unwrap());
            }
            let mut rows = db.prepare("SELECT kind, net FROM entries").unwrap();
            let mut rows = rows.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                ledger.entries.push((row.get(0).unwrap(), row.get(1).unwrap()));
            }
            ledger
        })
    }

    /// What the client and the stranger find under a generation.
    fn view(&self, generation: u64) -> View {
        let reaches = |net: &str| {
            let said = |kind: &str| self.entries.iter().any(|(k, n)| k == kind && n == net);
            (self.configs[&generation].contains(net) || said("allow")) && !said("deny")
        };
        View(reaches("10.20.0.0/16"), reaches("192.168.1.0/24"))
    }
}
