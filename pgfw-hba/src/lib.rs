//! PostgreSQL's `pg_hba.conf` and `pg_ident.conf`, read as a server of a given major version reads them, and asked what
//! it would answer.
//!
//! ```
//! use std::path::Path;
//! use pgfw_hba::{Decision, Encryption, From, Hba, Login, Major, Memory, Nothing, Server};
//!
//! let files = Memory::of([("/pg_hba.conf", "hostssl app alice 10.0.0.0/8 cert map=m\nhost all all all reject\n")]);
//! let hba = Hba::read(Path::new("/pg_hba.conf"), &files, &Server::of(Major::V16));
//! assert!(hba.errors.is_empty());
//! let from = From::Tcp { address: "10.1.2.3".parse().unwrap(), encryption: Encryption::Tls };
//! let login = Login { from, database: b"app", role: b"alice", replication: false };
//! let Decision::Line(line) = hba.decide(&login, &Nothing) else { panic!() };
//! assert_eq!((line.at.number, line.method.name()), (1, "cert"));
//! ```
//!
//! Three answers exist, not two: what the files alone do not tell (who is a member of what, a name's address, an
//! expression beyond the part that is understood here) is [`Undecided`](Decision::Undecided) and never guessed.
//!
//! Everything is bytes: a server reads these files before it knows a database's encoding. The grammar is that of
//! `src/backend/libpq/hba.c` and `src/backend/utils/misc/conffiles.c`; what differs between majors is asked of
//! [`Major`] where it differs.

#![forbid(unsafe_code)]

mod address;
mod check;
mod cover;
mod everyone;
mod expression;
mod files;
mod hba;
mod ident;
mod options;
mod ranges;
#[cfg(test)]
mod tests;
mod token;

pub use address::{Address, Interface};
pub use check::{Decision, Doubt, Encryption, From, Login, Nothing, Truth, World};

pub use cover::{Kind, Left, Reach, reach};
pub use everyone::{Everyone, Name, Share, Target, Way};
pub use expression::{Expression, Unfit};
pub use files::{Disk, Entry, Files, Memory};
pub use hba::{Connection, Hba, HbaLine, Method, Pattern};
pub use ident::{Admission, Holder, Ident, IdentLine};
pub use options::{CertName, ClientCert, Options};
pub use ranges::{Range, Ranges};
pub use token::{At, Problem, Token};

/// A major version whose grammar is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Major {
    V15,
    V16,
    V17,
    V18,
}

impl Major {
    pub const ALL: [Major; 4] = [Major::V15, Major::V16, Major::V17, Major::V18];

    /// The version of that number, if it is one of these.
    pub fn of(number: u16) -> Option<Major> {
        Major::ALL.into_iter().find(|major| major.number() == number)
    }

    pub fn number(self) -> u16 {
        match self {
            Major::V15 => 15,
            Major::V16 => 16,
            Major::V17 => 17,
            Major::V18 => 18,
        }
    }

    /// `include…` lines, expressions as databases and roles, keywords in pg_ident's third column.
    pub(crate) fn has_includes_and_expressions(self) -> bool {
        self >= Major::V16
    }
}

/// What of a server the grammar depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub major: Major,
    /// Built with GSSAPI, as Debian's and the PostgreSQL project's packages are: without it `gss` is no method.
    pub gss: bool,
    /// Built with PAM.
    pub pam: bool,
    /// Built with LDAP.
    pub ldap: bool,
    /// `oauth_validator_libraries` (from 18 on); `None` where nobody asked.
    pub oauth_validators: Option<Vec<String>>,
}

impl Server {
    /// As the usual packages are built, with default settings.
    pub fn of(major: Major) -> Server {
        Server {
            major,
            gss: true,
            pam: true,
            ldap: true,
            oauth_validators: Some(Vec::new()),
        }
    }
}

/// A start-up packet's database and role are cut to this many bytes (`NAMEDATALEN` - 1; backend_startup.c,
/// `ProcessStartupPacket`); longer tokens in the files match nothing.
pub const LONGEST_NAME: usize = 63;
