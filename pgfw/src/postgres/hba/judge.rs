//! Rendered rules as a server judges them (`pgfw-hba`), in the few words that tests need.

use std::net::IpAddr;
use std::path::Path;

use pgfw_hba::{Admission, Encryption, Hba, Ident, Login, Major, Memory, Nothing, Problem, Server};

/// A pair of files, read back.
#[derive(Debug)]
pub(crate) struct Rules {
    hba: Hba,
    ident: Ident,
}

/// One attempt to log in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) from: From,
    pub(crate) to: To<'a>,
    pub(crate) role: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Tcp { address: IpAddr, tls: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To<'a> {
    Database(&'a str),
    PhysicalReplication,
}

/// What decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision<'r> {
    Line {
        number: usize,
        method: &'static str,
        map: Option<&'r [u8]>,
    },
    None,
    Undecided {
        number: usize,
    },
}

impl Rules {
    /// # Errors
    /// What keeps a server from loading them.
    pub(crate) fn parse(hba: &str, ident: &str, major: u16) -> Result<Rules, Problem> {
        let server = Server::of(Major::of(major).expect("a major of these"));
        let files = Memory::of([("/hba", hba), ("/ident", ident)]);
        let rules = Rules {
            hba: Hba::read(Path::new("/hba"), &files, &server),
            ident: Ident::read(Path::new("/ident"), &files, &server),
        };
        match rules.hba.errors.iter().chain(&rules.ident.errors).next() {
            Some(problem) => Err(problem.clone()),
            None => Ok(rules),
        }
    }

    pub(crate) fn decide(&self, attempt: &Attempt) -> Decision<'_> {
        let From::Tcp { address, tls } = attempt.from;
        let encryption = if tls { Encryption::Tls } else { Encryption::None };
        let (database, replication) = match attempt.to {
            To::Database(name) => (name, false),
            To::PhysicalReplication => ("", true),
        };
        let login = Login {
            from: pgfw_hba::From::Tcp { address, encryption },
            database: database.as_bytes(),
            role: attempt.role.as_bytes(),
            replication,
        };
        match self.hba.decide(&login, &Nothing) {
            pgfw_hba::Decision::Line(line) => Decision::Line {
                number: line.at.number,
                method: line.method.name(),
                map: line.options.map.as_deref(),
            },
            pgfw_hba::Decision::NoLine => Decision::None,
            pgfw_hba::Decision::Undecided { line, doubt: _ } => Decision::Undecided {
                number: line.at.number,
            },
        }
    }

    /// Whether a certificate of `identity` gets in.
    pub(crate) fn certificate_admitted(&self, attempt: &Attempt, identity: &str) -> bool {
        match self.decide(attempt) {
            Decision::Line {
                number: _,
                method: "cert",
                map,
            } => matches!(
                self.ident
                    .admits(map, identity.as_bytes(), attempt.role.as_bytes(), &Nothing),
                Admission::Line(_) | Admission::ByName(true)
            ),
            Decision::Line {
                number: _,
                method: _,
                map: _,
            }
            | Decision::None
            | Decision::Undecided { number: _ } => false,
        }
    }
}
