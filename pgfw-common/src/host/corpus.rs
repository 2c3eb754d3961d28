//! tests/corpus.txt: packets as data, each with its verdict in [`scene`] and one sentence.

use std::str::FromStr;
use std::string::{String, ToString};
use std::vec::Vec;

use crate::decide::Verdict;
use crate::host::frames::Frame;
use crate::host::scene;
use crate::reason::Reason;

const TEXT: &str = include_str!("../../../tests/corpus.txt");

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Of the file, from 1.
    pub line: usize,
    pub what: String,
    /// With all switches off, and with all on.
    pub wanted: [Wanted; 2],
    pub frame: Frame,
}

/// A verdict: `service-closed@pg`, or the reason alone where no service was addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub reason: Reason,
    pub service: Option<u16>,
}

/// Every row, in the order of the file.
///
/// # Panics
/// On a line that is no row, naming it.
pub fn rows() -> Vec<Row> {
    TEXT.lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| {
            row(index + 1, line)
                .unwrap_or_else(|| panic!("tests/corpus.txt:{}: no row of the corpus", index + 1))
        })
        .collect()
}

/// `A sentence. | wanted | hex`, or `wanted off, wanted on` where the switches count.
fn row(line: usize, text: &str) -> Option<Row> {
    let mut columns = text.split('|').map(str::trim);
    let (what, wanted, hex) = (columns.next()?, columns.next()?, columns.next()?);
    if columns.next().is_some() {
        return None;
    }
    let wanted = match wanted.split_once(", ") {
        Some((off, on)) => [off.parse().ok()?, on.parse().ok()?],
        None => [wanted.parse().ok()?; 2],
    };
    Some(Row {
        line,
        what: what.to_string(),
        wanted,
        frame: frame(hex)?,
    })
}

fn frame(hex: &str) -> Option<Frame> {
    let bytes = hex.as_bytes().chunks(2).map(|pair| {
        let digits = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(digits, 16).ok()
    });
    bytes.collect::<Option<Vec<u8>>>().map(Frame)
}

impl From<Verdict> for Wanted {
    fn from(verdict: Verdict) -> Wanted {
        Wanted {
            reason: verdict.reason,
            service: verdict.service.map(|row| row.service),
        }
    }
}

impl FromStr for Wanted {
    type Err = ();

    fn from_str(text: &str) -> Result<Wanted, ()> {
        let (name, service) = match text.split_once('@') {
            Some((name, service)) => {
                let known = scene::SERVICES.into_iter().find(|(_, known)| *known == service);
                (name, Some(known.ok_or(())?.0))
            }
            None => (text, None),
        };
        let reason = Reason::ALL.into_iter().find(|reason| reason.name() == name);
        Ok(Wanted {
            reason: reason.ok_or(())?,
            service,
        })
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.reason.name())?;
        let named = scene::SERVICES
            .into_iter()
            .find(|(number, _)| Some(*number) == self.service);
        match named {
            Some((_, name)) => write!(f, "@{name}"),
            None => Ok(()),
        }
    }
}
