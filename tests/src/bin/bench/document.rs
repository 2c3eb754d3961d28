//! docs/cost.md, one part for each section; a run replaces the parts that it measured and keeps the others.

use std::io;
use std::path::{Path, PathBuf};

use crate::SECTIONS;
use crate::machine::Machine;
use crate::report::{Report, Table};

const INTRODUCTION: &str = "# What pgfw costs

Written by `cargo xtask bench --document`; do not edit. Each part says when and where it was measured. Every row is a
median over interleaved rounds, with the least and the greatest round beside it; on the path of a packet the unit is
nanoseconds over an empty program in the same round, and the projection is how many cores that alone would take at
24 million packets a second. A target that is missed says so.
";

pub(crate) fn write(report: &Report, machine: &Machine) -> io::Result<()> {
    let file = file();
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    std::fs::write(&file, render(&before, report, machine))
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cost.md")
}

fn render(before: &str, report: &Report, machine: &Machine) -> String {
    let mut text = INTRODUCTION.to_owned();
    for section in &SECTIONS {
        let tables: Vec<&Table> = report
            .tables
            .iter()
            .filter(|table| table.section == section.name)
            .collect();
        if tables.is_empty() {
            text += part(before, section.name).unwrap_or_default();
            continue;
        }
        text += &format!("\n## {}\n\nMeasured {}\n", section.name, machine.sentence());
        for table in tables {
            text += &markdown(table);
        }
    }
    text
}

/// A section's part of the document as it stands, from the empty line before its heading.
fn part<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let start = document.find(&format!("\n## {name}\n"))?;
    let rest = &document[start..];
    let end = rest[1..].find("\n## ").map_or(rest.len(), |end| end + 1);
    Some(&rest[..end])
}

fn markdown(table: &Table) -> String {
    let (heading, rows) = table.cells();
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let heading: Vec<String> = heading.into_iter().map(str::to_owned).collect();
    let mut text = format!("\n### {}\n\n", table.title);
    if !table.about.is_empty() {
        text += &format!("{}\n\n", wrapped(&table.about));
    }
    text += &line(&heading);
    text += &line(&vec!["---".to_owned(); heading.len()]);
    for row in &rows {
        text += &line(row);
    }
    text
}

/// Broken into the document's lines of at most 120 characters.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is one");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > 120 {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines.join("\n")
}
