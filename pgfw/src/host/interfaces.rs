//! Which interfaces a config means: names and globs against what the kernel has now, in this network namespace.

use crate::failure::{Code, Explain};

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    pub index: u32,
    pub name: String,
}

/// Why the interfaces of a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    #[error("the interfaces of this host cannot be listed")]
    List { source: nix::Error },
    #[error("there is no interface {name}")]
    Missing { name: String, present: Vec<String> },
    #[error("no interface is named in firewall.interfaces")]
    NoneNamed { present: Vec<String> },
    #[error("no interface matches {patterns}")]
    NoneMatches { patterns: String, present: Vec<String> },
}

impl Explain for InterfaceError {
    fn code(&self) -> Code {
        match self {
            InterfaceError::List { source: _ } => Code::Refused,
            InterfaceError::Missing { name: _, present: _ }
            | InterfaceError::NoneNamed { present: _ }
            | InterfaceError::NoneMatches {
                patterns: _,
                present: _,
            } => Code::Invalid,
        }
    }

    fn remedy(&self) -> String {
        match self {
            InterfaceError::List { source: _ } => "Look at this process's limits and capabilities.".into(),
            InterfaceError::Missing { name, present } => {
                let near = crate::config::near_miss(name, present).map(|n| format!(" Did you mean {n}?"));
                format!(
                    "Write one of {} in firewall.interfaces.{}",
                    present.join(", "),
                    near.unwrap_or_default()
                )
            }
            InterfaceError::NoneNamed { present } | InterfaceError::NoneMatches { patterns: _, present } => {
                format!(
                    "This host has {}; name at least one in firewall.interfaces.",
                    present.join(", ")
                )
            }
        }
    }
}

/// Every interface of this network namespace but `lo`.
///
/// # Errors
/// [`InterfaceError::List`].
pub fn all() -> Result<Vec<Interface>, InterfaceError> {
    let list = nix::net::if_::if_nameindex().map_err(|source| InterfaceError::List { source })?;
    let mut all: Vec<Interface> = list
        .iter()
        .map(|i| Interface {
            index: i.index(),
            name: i.name().to_string_lossy().into_owned(),
        })
        .filter(|i| i.name != "lo")
        .collect();
    all.sort();
    Ok(all)
}

/// The interfaces that the patterns mean.
///
/// # Errors
/// A plain name that is not there, or nothing that matches at all.
pub fn matching(patterns: &[String]) -> Result<Vec<Interface>, InterfaceError> {
    let (found, missing) = present(patterns)?;
    if let Some(name) = missing.into_iter().next() {
        return Err(InterfaceError::Missing {
            name,
            present: names(&all()?),
        });
    }
    if found.is_empty() {
        let present = names(&all()?);
        return Err(if patterns.is_empty() {
            InterfaceError::NoneNamed { present }
        } else {
            InterfaceError::NoneMatches {
                patterns: patterns.join(", "),
                present,
            }
        });
    }
    Ok(found)
}

/// The interfaces that match, and the plain names that are not there (yet).
///
/// # Errors
/// [`InterfaceError::List`].
pub fn present(patterns: &[String]) -> Result<(Vec<Interface>, Vec<String>), InterfaceError> {
    let all = all()?;
    let missing = patterns
        .iter()
        .filter(|p| !p.contains(['*', '?']) && !all.iter().any(|i| i.name == **p))
        .cloned()
        .collect();
    let found = all
        .into_iter()
        .filter(|i| patterns.iter().any(|p| glob(p.as_bytes(), i.name.as_bytes())))
        .collect();
    Ok((found, missing))
}

fn names(interfaces: &[Interface]) -> Vec<String> {
    interfaces.iter().map(|i| i.name.clone()).collect()
}

/// `*` is any run of characters, `?` any one.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => glob(rest, name) || (!name.is_empty() && glob(pattern, &name[1..])),
        (Some((b'?', rest)), Some((_, tail))) => glob(rest, tail),
        (Some((p, rest)), Some((n, tail))) => p == n && glob(rest, tail),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        let matches = |p: &str, n: &str| glob(p.as_bytes(), n.as_bytes());
        for (pattern, name) in [
            ("eth0", "eth0"),
            ("eth*", "eth0"),
            ("en?s*", "en0s31f6"),
            ("*", "bond0"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("eth0", "eth00"),
            ("eth?", "eth"),
            ("eth?", "eth10"),
            ("", "eth0"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn f29_lo_is_never_among_the_interfaces() {
        assert!(all().expect("listed").iter().all(|i| i.name != "lo"));
        assert!(
            present(&["lo".into(), "l*".into()])
                .expect("listed")
                .0
                .iter()
                .all(|i| i.name != "lo")
        );
    }
}
