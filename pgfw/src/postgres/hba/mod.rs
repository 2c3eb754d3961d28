//! pg_hba.conf and pg_ident.conf as text, rendered from access cells. Pure.

pub mod ident;
#[cfg(test)]
pub(crate) mod judge;
pub mod quote;
pub mod render;
#[cfg(test)]
mod tests;

pub use ident::Map;
pub use render::{Input, PROBE_ROLE, Rendered, marker, marker_in, marker_lines, render};

use crate::failure::{Code, Explain};

/// A name that no token of pg_ident.conf means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` begins with `/`, which pg_ident.conf reads as a regular expression")]
pub struct Refused {
    pub name: String,
}

impl Explain for Refused {
    fn code(&self) -> Code {
        Code::Invalid
    }
    fn remedy(&self) -> String {
        "Give the identity (or the operating-system user) a name that does not begin with `/`.".to_owned()
    }
}

/// The first 16 hex digits of a digest: enough to tell generations and maps apart, short enough for a database name.
pub fn short_hex(digest: &[u8]) -> String {
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}
