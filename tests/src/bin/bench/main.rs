//! `cargo xtask bench`: what pgfw costs, beside an empty program and beside what others use, in one run.

mod attack;
mod change;
mod connect;
mod document;
mod flat;
mod flood;
mod idle;
mod installed;
mod kernel;
mod latency;
mod machine;
mod network;
mod packet;
mod policies;
mod question;
mod race;
mod report;
mod round;
mod source;

use std::path::PathBuf;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use machine::Machine;
use report::Report;

/// A part of the run that can be asked for by name.
struct Section {
    name: &'static str,
    run: fn(&mut Report, &Options),
}

/// In the order in which they run.
const SECTIONS: [Section; 7] = [
    Section {
        name: "packet",
        run: packet::run,
    },
    Section {
        name: "flat",
        run: flat::run,
    },
    Section {
        name: "change",
        run: change::run,
    },
    Section {
        name: "idle",
        run: idle::run,
    },
    Section {
        name: "flood",
        run: flood::run,
    },
    Section {
        name: "connect",
        run: connect::run,
    },
    Section {
        name: "attack",
        run: attack::run,
    },
];

/// What every section has to know.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Shows that everything runs, in about a minute; its figures are rough.
    pub(crate) quick: bool,
}

impl Options {
    /// The first, or the second in a quick run.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

fn main() {
    if !nix::unistd::geteuid().is_root() {
        fail("the bench loads programs and makes network namespaces: run it as root");
    }
    keep_mounts();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let asked = Asked::parse(&words);
    let machine = Machine::this(asked.command());
    println!("{}", machine.sentence());
    let mut report = Report::default();
    for section in &SECTIONS {
        if asked.sections.is_empty() || asked.sections.iter().any(|name| name == section.name) {
            (section.run)(&mut report, &asked.options);
        }
    }
    let (targets, missed) = report.targets();
    println!("\n{targets} targets, {missed} missed");
    if let Some(path) = &asked.json {
        report
            .write_json(path, &machine)
            .unwrap_or_else(|error| fail(&format!("{}: {error}", path.display())));
    }
    if asked.document {
        document::write(&report, &machine).unwrap_or_else(|error| fail(&format!("docs/cost.md: {error}")));
    }
}

/// What is mounted from here on goes with this process, however that ends.
fn keep_mounts() {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).expect("mounts of one's own");
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .expect("mounts that nobody else sees");
}

/// What the command line said.
#[derive(Debug, Default)]
struct Asked {
    options: Options,
    json: Option<PathBuf>,
    document: bool,
    sections: Vec<String>,
}

impl Asked {
    /// The command line, but for the name of a file that means something on this machine only.
    fn command(&self) -> String {
        let quick = self.options.quick.then_some("--quick");
        let words = quick.into_iter().chain(self.sections.iter().map(String::as_str));
        words.fold("cargo xtask bench".to_owned(), |line, word| {
            format!("{line} {word}")
        })
    }

    fn parse(words: &[String]) -> Asked {
        let mut asked = Asked::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => asked.options.quick = true,
                "--document" => asked.document = true,
                "--json" => match words.next() {
                    Some(path) => asked.json = Some(path.into()),
                    None => fail("--json needs the name of a file"),
                },
                name if SECTIONS.iter().any(|section| section.name == name) => {
                    asked.sections.push(name.to_owned());
                }
                other => {
                    let names: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
                    fail(&format!("{other} is no section; there are {}", names.join(", ")));
                }
            }
        }
        if asked.document && asked.options.quick {
            fail("a quick run is too rough for docs/cost.md: leave --quick or --document out");
        }
        asked
    }
}

fn fail(what: &str) -> ! {
    eprintln!("{what}");
    std::process::exit(1)
}
