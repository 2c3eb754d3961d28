//! The known differences: the table of `docs/differences.md`.

use std::collections::BTreeMap;

use pgfw_common::frames::Frame;
use pgfw_common::reason::{Action, Reason};

use crate::generate::Case;
use crate::side::Outcome;

/// Where a packet got further, what pgfw said, and what conntrack called it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    /// `pgfw` or `classic`: who let it in.
    pub(crate) lets_in: String,
    /// The spelling of pgfw's reason.
    pub(crate) reason: String,
    /// The word of `--ctstate`; "NEW, hidden" behind headers that the classic side does not look through.
    pub(crate) state: String,
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "| {} | `{}` | `{}` |", self.lets_in, self.reason, self.state)
    }
}

/// How one case differs, if it does.
pub(crate) fn class(pgfw: &Outcome, classic: &Outcome) -> Option<Class> {
    let (here, there) = (pgfw.reached.len(), classic.reached.len());
    if here == there {
        return None;
    }
    let lets_in = if here > there { "pgfw" } else { "classic" };
    let wanted = if here > there { Action::Pass } else { Action::Drop };
    let of_wanted = |reason: &&Reason| reason.action() == wanted;
    let reason = pgfw.reasons.iter().find(of_wanted);
    let state = if here > there {
        classic.came.last()
    } else {
        classic.reached.last()
    };
    // What conntrack and the rules cannot look through is another matter than what they see and refuse.
    // A DHCP server's answer is refused there either way.
    let hidden = here > there
        && reason != Some(&Reason::DhcpClient)
        && pgfw.frames.iter().any(is_behind_another_header);
    let state = state.map_or("not seen", |state| state.name());
    Some(Class {
        lets_in: lets_in.to_owned(),
        reason: reason.map_or("none", |reason| reason.name()).to_owned(),
        state: match (state, hidden) {
            ("NEW", true) => "NEW, hidden".to_owned(),
            (state, _) => state.to_owned(),
        },
    })
}

/// Whether the IPv6 extension headers before the transport header hold an authentication or a mobility header.
fn is_behind_another_header(frame: &Frame) -> bool {
    let bytes = &frame.0;
    let mut at = 12;
    while let Some([0x81 | 0x88, 0x00 | 0xa8]) = bytes.get(at..at + 2) {
        at += 4;
    }
    if bytes.get(at..at + 2) != Some(&[0x86, 0xdd]) || bytes.len() < at + 42 {
        return false;
    }
    let (mut next, mut header) = (bytes[at + 8], at + 42);
    while let (0 | 43 | 44 | 60, Some([after, length])) = (next, bytes.get(header..header + 2)) {
        header += if next == 44 {
            8
        } else {
            (usize::from(*length) + 1) * 8
        };
        next = *after;
    }
    matches!(next, 51 | 135)
}

/// The rows of the table, by their first three cells.
pub(crate) fn rows(document: &str) -> Vec<Class> {
    document
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line
                .split('|')
                .map(|cell| cell.trim().trim_matches('`'))
                .collect();
            let [_, lets_in @ ("pgfw" | "classic"), reason, state, what, why, _] = cells[..] else {
                return None;
            };
            assert!(
                !what.is_empty() && !why.is_empty(),
                "a row without its reason: {line}"
            );
            Some(Class {
                lets_in: lets_in.to_owned(),
                reason: reason.to_owned(),
                state: state.to_owned(),
            })
        })
        .collect()
}

/// What was found, with the number of cases and the first few of each class.
#[derive(Default)]
pub(crate) struct Found(pub(crate) BTreeMap<Class, (usize, Vec<String>)>);

const EXAMPLES: usize = 4;

impl Found {
    pub(crate) fn add(&mut self, class: Class, case: &Case, pgfw: &Outcome, classic: &Outcome) {
        let (count, examples) = self.0.entry(class).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            let reasons: Vec<&str> = pgfw.reasons.iter().map(|reason| reason.name()).collect();
            let frames: Vec<String> = pgfw.frames.iter().map(|frame| frame.hex()).collect();
            examples.push(format!(
                "  case {} ({}), {:?}, {:?}\n    pgfw: {} reached, {reasons:?}; classic: {:?} came, {} reached\n    {}",
                case.number,
                case.name(),
                case.setting,
                case.ends,
                pgfw.reached.len(),
                classic.came,
                classic.reached.len(),
                frames.join("\n    ")
            ));
        }
    }
}
