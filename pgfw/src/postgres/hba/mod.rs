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

/// A name that no token means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("`{name}` begins with `/`, which pg_ident.conf reads as a regular expression")]
    SystemUser { name: String },
    #[error(
        "`{name}` begins with `/`, for which the rules of PostgreSQL {major} have no safe token: 16 reads it as a regular expression, and an upgrade takes the rules along"
    )]
    BeforeExpressions { name: String, major: u16 },
}

impl Explain for Refused {
    fn code(&self) -> Code {
        Code::Invalid
    }
    fn remedy(&self) -> String {
        match self {
            Refused::SystemUser { .. } => {
                "Give the identity (or the operating-system user) a name that does not begin with `/`."
                    .to_owned()
            }
            Refused::BeforeExpressions { .. } => {
                "Give the role or database a name that does not begin with `/`, or upgrade the server first."
                    .to_owned()
            }
        }
    }
}

/// A database or role name as a token of either file.
///
/// # Errors
/// [`Refused`].
fn name(name: &str, major: u16) -> Result<String, Refused> {
    quote::name(name, major).ok_or_else(|| Refused::BeforeExpressions {
        name: name.to_owned(),
        major,
    })
}

/// The first 16 hex digits of a digest: enough to tell generations and maps apart, short enough for a database name.
pub fn short_hex(digest: &[u8]) -> String {
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}
