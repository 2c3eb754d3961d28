//! Tables, each row a rule of hba.c. That the rules are hba.c's is shown by the comparison with real servers, which is
//! part of pgfw's own tests.

mod deciding;
mod disk;
mod everyone;
mod expressions;
mod ranges;
mod reading;

use std::path::Path;

use crate::{Hba, Ident, Major, Memory, Server};

const FILE: &str = "/etc/pg/pg_hba.conf";

fn hba(text: &str, major: Major) -> Hba {
    hba_among(text, &[], major)
}

/// Beside other files, by their name.
fn hba_among(text: &str, others: &[(&str, &str)], major: Major) -> Hba {
    let own = [(FILE.to_owned(), text.to_owned())];
    let others = others
        .iter()
        .map(|(name, text)| (format!("/etc/pg/{name}"), (*text).to_owned()));
    let files = Memory::of(own.into_iter().chain(others));
    Hba::read(Path::new(FILE), &files, &Server::of(major))
}

fn ident(text: &str, major: Major) -> Ident {
    let files = Memory::of([(FILE, text)]);
    Ident::read(Path::new(FILE), &files, &Server::of(major))
}
