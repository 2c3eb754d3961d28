//! What was measured: samples, rows with their targets, tables. Printed as it comes, kept for JSON and the document.

use std::path::Path;

use serde_json::{Value, json};

/// Everything that one run measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) tables: Vec<Table>,
}

impl Report {
    /// Prints a table and keeps it.
    pub(crate) fn add(&mut self, table: Table) {
        print!("{}", table.text());
        self.tables.push(table);
    }

    /// How many rows have a target, and how many of those miss it.
    pub(crate) fn targets(&self) -> (usize, usize) {
        let rows = || self.tables.iter().flat_map(|table| &table.rows);
        let met: Vec<bool> = rows().filter_map(Row::met).collect();
        (met.len(), met.iter().filter(|met| !**met).count())
    }

    /// Every sample of every row, with what the machine is.
    pub(crate) fn write_json(&self, path: &Path, machine: &crate::machine::Machine) -> std::io::Result<()> {
        let tables: Vec<Value> = self.tables.iter().map(Table::json).collect();
        let all = json!({ "machine": machine.json(), "tables": tables });
        std::fs::write(path, format!("{all:#}\n"))
    }
}

/// Rows that belong together.
#[derive(Debug)]
pub(crate) struct Table {
    /// The section as it is asked for: `packet`.
    pub(crate) section: &'static str,
    pub(crate) title: String,
    /// What a reader has to know to read the numbers, in whole sentences.
    pub(crate) about: String,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(section: &'static str, title: &str, about: &str) -> Table {
        Table {
            section,
            title: title.to_owned(),
            about: about.to_owned(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The heading and, for each row, its cells.
    pub(crate) fn cells(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let over = self.rows.iter().any(|row| row.unit == Unit::OverEmpty);
        let target = self.rows.iter().any(|row| row.target.is_some());
        let beside = self.rows.iter().any(|row| !row.beside.is_empty());
        let mut heading = vec!["", "median", "min–max"];
        heading.extend(target.then_some("target"));
        heading.extend(over.then_some("cores at 24 Mpps"));
        heading.extend(beside.then_some("beside"));
        let rows = self.rows.iter().map(|row| {
            let (low, high) = row.samples.spread();
            let mut cells = vec![
                row.name.clone(),
                row.unit.show(row.samples.median()),
                format!("{}–{}", row.unit.number(low), row.unit.number(high)),
            ];
            cells.extend(target.then(|| row.verdict()));
            cells.extend(over.then(|| row.cores()));
            cells.extend(beside.then(|| row.beside.clone()));
            cells
        });
        let rows = rows.collect();
        (heading, rows)
    }

    fn text(&self) -> String {
        let (heading, rows) = self.cells();
        let widths: Vec<usize> = (0..heading.len())
            .map(|column| {
                let own = rows.iter().map(|row| row[column].chars().count());
                own.chain([heading[column].chars().count()]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<String> = cells
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| match column {
                    1 | 2 => format!("{cell:>width$}"),
                    _ => format!("{cell:width$}"),
                })
                .collect();
            format!("  {}\n", padded.join("  ").trim_end())
        };
        let mut text = format!("\n{}: {}\n", self.section, self.title);
        text += &line(&mut heading.iter().copied());
        for row in &rows {
            text += &line(&mut row.iter().map(String::as_str));
        }
        text
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({ "section": self.section, "title": self.title, "about": self.about, "rows": rows })
    }
}

/// One thing measured.
#[derive(Debug)]
pub(crate) struct Row {
    name: String,
    unit: Unit,
    samples: Samples,
    target: Option<Target>,
    beside: String,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: Unit, samples: Samples) -> Row {
        Row {
            name: name.into(),
            unit,
            samples,
            target: None,
            beside: String::new(),
        }
    }

    #[must_use]
    pub(crate) fn at_most(mut self, limit: f64) -> Row {
        self.target = Some(Target::AtMost(limit));
        self
    }

    #[must_use]
    pub(crate) fn at_least(mut self, limit: f64) -> Row {
        self.target = Some(Target::AtLeast(limit));
        self
    }

    /// A word about this row in a column of its own: another figure, where it comes from.
    #[must_use]
    pub(crate) fn beside(mut self, text: impl Into<String>) -> Row {
        self.beside = text.into();
        self
    }

    /// Whether the median meets the target, where there is one.
    pub(crate) fn met(&self) -> Option<bool> {
        let median = self.samples.median();
        self.target.map(|target| match target {
            Target::AtMost(limit) => median <= limit,
            Target::AtLeast(limit) => median >= limit,
        })
    }

    fn verdict(&self) -> String {
        let Some(target) = self.target else {
            return String::new();
        };
        let (sign, limit) = match target {
            Target::AtMost(limit) => ('≤', limit),
            Target::AtLeast(limit) => ('≥', limit),
        };
        let word = if self.met() == Some(true) { "met" } else { "MISSED" };
        format!("{sign} {} {word}", self.unit.number(limit))
    }

    /// How much of a core the median takes when 24 million such packets come in a second.
    fn cores(&self) -> String {
        match self.unit {
            Unit::OverEmpty => format!("{:.2}", self.samples.median().max(0.0) * 24.0 / 1_000.0),
            Unit::Nanoseconds
            | Unit::Milliseconds
            | Unit::Seconds
            | Unit::Mebibytes
            | Unit::PerSecond
            | Unit::Gigabits
            | Unit::Ratio => String::new(),
        }
    }

    fn json(&self) -> Value {
        let Row {
            name,
            unit,
            samples,
            target,
            beside,
        } = self;
        let (low, high) = samples.spread();
        json!({
            "name": name,
            "unit": unit.name(),
            "median": samples.median(),
            "min": low,
            "max": high,
            "target": target.map(|target| match target {
                Target::AtMost(limit) => json!({ "at_most": limit }),
                Target::AtLeast(limit) => json!({ "at_least": limit }),
            }),
            "met": self.met(),
            "beside": beside,
            "samples": samples.0,
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// What the numbers of a row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nanoseconds a packet over an empty program in the same round.
    OverEmpty,
    /// Nanoseconds, of whatever.
    Nanoseconds,
    Milliseconds,
    Seconds,
    Mebibytes,
    /// Transactions, connections.
    PerSecond,
    /// Gigabits a second.
    Gigabits,
    Ratio,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::OverEmpty => "ns over empty",
            Unit::Nanoseconds => "ns",
            Unit::Milliseconds => "ms",
            Unit::Seconds => "s",
            Unit::Mebibytes => "MiB",
            Unit::PerSecond => "/s",
            Unit::Gigabits => "Gbit/s",
            Unit::Ratio => "",
        }
    }

    fn number(self, value: f64) -> String {
        let decimals = match self {
            Unit::PerSecond => 0,
            Unit::OverEmpty | Unit::Nanoseconds | Unit::Mebibytes | Unit::Gigabits => 1,
            Unit::Milliseconds => 2,
            Unit::Seconds | Unit::Ratio => 3,
        };
        format!("{value:.decimals$}")
    }

    fn show(self, value: f64) -> String {
        let unit = if self == Unit::OverEmpty {
            "ns"
        } else {
            self.name()
        };
        format!("{} {unit}", self.number(value)).trim_end().to_owned()
    }
}

/// One value for each round, in the order of the rounds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// A value that is known rather than measured several times.
    pub(crate) fn one(value: f64) -> Samples {
        Samples(vec![value])
    }

    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[count / 2],
            count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
        }
    }

    /// The value below which this share of all lies: 0.99 for p99.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let sorted = self.sorted();
        let last = sorted.len().saturating_sub(1);
        sorted
            .get((last as f64 * share).round() as usize)
            .copied()
            .unwrap_or(f64::NAN)
    }

    pub(crate) fn spread(&self) -> (f64, f64) {
        (self.quantile(0.0), self.quantile(1.0))
    }

    /// Round by round, how much more than another.
    #[must_use]
    pub(crate) fn over(&self, floor: &Samples) -> Samples {
        self.with(floor, |own, floor| own - floor)
    }

    /// Round by round, how many times another.
    #[must_use]
    pub(crate) fn times(&self, base: &Samples) -> Samples {
        self.with(base, |own, base| own / base)
    }

    #[must_use]
    pub(crate) fn map(&self, change: impl Fn(f64) -> f64) -> Samples {
        Samples(self.0.iter().map(|value| change(*value)).collect())
    }

    fn with(&self, other: &Samples, join: impl Fn(f64, f64) -> f64) -> Samples {
        assert_eq!(self.0.len(), other.0.len(), "samples of the same rounds");
        Samples(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(own, other)| join(*own, *other))
                .collect(),
        )
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Samples {
        Samples(values.into_iter().collect())
    }
}

impl Extend<f64> for Samples {
    fn extend<I: IntoIterator<Item = f64>>(&mut self, values: I) {
        self.0.extend(values);
    }
}
