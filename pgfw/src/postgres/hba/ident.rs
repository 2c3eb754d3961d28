//! pg_ident.conf: the maps that pg_hba.conf names.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::{Refused, quote};

/// One map: which system users may be which role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// Letters, digits and `-`: needs no quotes in either file.
    pub name: String,
    /// (system user, role)
    pub rows: Vec<(String, String)>,
}

impl Map {
    pub fn new(name: &str) -> Map {
        Map {
            name: name.to_owned(),
            rows: Vec::new(),
        }
    }

    /// The map of a cell: these identities, this role. Named after its content, so that a line of pg_hba.conf changes
    /// only when who may use it does. 16 hex digits: two maps may not share a name, and nobody can choose one.
    pub fn of_cell(identities: &BTreeSet<String>, role: &str) -> Map {
        let mut hash = Sha256::new();
        for part in std::iter::once(role).chain(identities.iter().map(String::as_str)) {
            hash.update(part);
            // No name holds a NUL.
            hash.update([0]);
        }
        let mut map = Map::new(&format!("cell-{}", super::short_hex(&hash.finalize())));
        for identity in identities {
            map.add(identity, role);
        }
        map
    }

    pub fn add(&mut self, system_user: &str, role: &str) {
        let row = (system_user.to_owned(), role.to_owned());
        if !self.rows.contains(&row) {
            self.rows.push(row);
        }
    }
}

/// Renders the maps.
///
/// # Errors
/// [`Refused`] for a name that would be an expression.
pub fn render(maps: &[Map], major: u16) -> Result<String, Refused> {
    let own = lines(maps, major)?;
    Ok(format!(
        "# Written by pgfw, together with pg_hba.conf. Change pgfw.toml instead.\n{own}"
    ))
}

/// The maps' lines alone.
///
/// # Errors
/// As for [`render`].
pub fn lines(maps: &[Map], major: u16) -> Result<String, Refused> {
    let mut text = String::new();
    for Map { name, rows } in maps {
        for (user, role) in rows {
            let token = quote::system_user(user).ok_or_else(|| Refused::SystemUser { name: user.clone() })?;
            text.push_str(&format!("{name} {token} {}\n", super::name(role, major)?));
        }
    }
    Ok(text)
}
