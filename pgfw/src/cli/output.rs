//! How things look: lines for people, tables, JSON, and failures on standard error.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::api::Flow;
use crate::failure::Failure;
use crate::invisible::is_invisible;

/// Prints JSON, pretty on a terminal.
pub(super) fn json(value: &impl Serialize) {
    let text = if std::io::stdout().is_terminal() {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    println!("{}", text.expect("messages of this crate are JSON"));
}

/// Says what went wrong and what to do about it.
pub(super) fn failure(failure: &Failure, as_json: bool) {
    if as_json {
        eprintln!("{}", serde_json::to_string(failure).expect("a failure is JSON"));
        return;
    }
    let message = sentence(&failure.message);
    eprintln!("pgfw: {message}");
    eprintln!("      {}", failure.remedy);
}

/// `println!` of a line in which somebody else's names may stand: roles, databases, lines of files.
macro_rules! say {
    ($($argument:tt)*) => {
        println!("{}", $crate::cli::output::one_line(&format!($($argument)*)))
    };
}
pub(super) use say;

/// One line of text, whatever is in it.
pub(super) fn one_line(text: &str) -> String {
    printable(&text.replace('\t', " "))
}

/// Where standard output takes nothing more (a full disk behind `> pgfw.toml`), print! panics: that is said in words, and the
/// exit is 1, so that half a text passes for none.
pub(super) fn fail_when_unwritable() {
    let former = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload().downcast_ref::<String>();
        let why = said.and_then(|said| said.strip_prefix("failed printing to stdout: "));
        let Some(why) = why else { return former(panic) };
        // Standard error may lead to the same place.
        let _unheard = writeln!(
            std::io::stderr(),
            "pgfw: standard output cannot be written to: {why}\n      What was printed is not whole. What the command was to \
             do may be done; `pgfw status` tells."
        );
        std::process::exit(1);
    }));
}

/// A table without borders: what people pipe into grep.
pub(super) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(head.iter().map(|h| h.to_uppercase()));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for row in rows {
        table.add_row(row.iter().map(|cell| one_line(cell)));
    }
    for line in table.lines() {
        println!("{}", line.trim_end());
    }
}

/// A name that somebody else chose, for a terminal: what would move the cursor, break the line, or turn the order in which
/// it reads is written as a number.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Who sends what to whom: `tcp 198.51.100.7:40000 > 192.0.2.1:5432`.
pub(super) fn flow(flow: &Flow) -> String {
    let Flow {
        protocol,
        source,
        source_port,
        destination,
        destination_port,
    } = flow;
    let end = |address: &Option<IpAddr>, port: &Option<u16>| match (address, port) {
        (Some(address), Some(port)) => Some(SocketAddr::new(*address, *port).to_string()),
        (Some(address), None) => Some(address.to_string()),
        (None, _) => None,
    };
    let protocol = protocol.as_deref().unwrap_or("unreadable");
    match (end(source, source_port), end(destination, destination_port)) {
        (Some(source), Some(destination)) => format!("{protocol} {source} > {destination}"),
        (Some(_) | None, _) => protocol.to_owned(),
    }
}

/// Sixteen bytes a line, with their offset: what text2pcap reads.
pub(super) fn hex(digits: &str) {
    for (n, line) in digits.as_bytes().chunks(32).enumerate() {
        let bytes: Vec<_> = line.chunks(2).map(String::from_utf8_lossy).collect();
        println!("    {:04x}  {}", n * 16, bytes.join(" "));
    }
}

fn sentence(text: &str) -> String {
    if text.ends_with(['.', '!', '?']) {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_is_one_line_of_text() {
        // name, shown
        let rows = [
            ("Jürgen 山田", "Jürgen 山田"),
            ("a\nb\r\tc", "a\\u{a}b\\u{d}\\u{9}c"),
            ("\x1b[2J\x07", "\\u{1b}[2J\\u{7}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("ad\u{202e}nim", "ad\\u{202e}nim"),
            ("a\u{200b}b\u{2028}", "a\\u{200b}b\\u{2028}"),
        ];
        for (name, shown) in rows {
            assert_eq!(printable(name), shown);
        }
    }
}
