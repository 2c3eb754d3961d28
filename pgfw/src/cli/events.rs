//! `pgfw events`: a sample of the packets that were dropped, and why.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use pgfw_common::reason::{Action, Reason};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Context, output};
use crate::api::{Event, Events as Told, LONGEST_WAIT, LostEvents, Verdict};
use crate::failure::Failure;
use crate::observe::frame::from_digits;
use crate::observe::pcap::{Packet, Writer};

/// The daemon remembers the last 4096; in the long run at most 1000 a second are told on each CPU. The counters of
/// `pgfw status --verbose` miss none.
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Go on with those that come in, until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// Only with this reason, as docs/reasons.md lists them; can be repeated.
    #[arg(long, value_name = "REASON", value_parser = reasons(), hide_possible_values = true)]
    reason: Vec<String>,
    /// Show the packet's first bytes too.
    #[arg(long)]
    hex: bool,
    /// Write them into a capture file for tcpdump and Wireshark instead of printing them; `-` is standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "hex")]
    write: Option<PathBuf>,
}

fn reasons() -> clap::builder::PossibleValuesParser {
    let dropping = Reason::ALL
        .into_iter()
        .filter(|reason| reason.action() == Action::Drop);
    dropping.map(Reason::name).collect::<Vec<_>>().into()
}

impl Events {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let client = context.client();
        let mut to = self.output(context.json)?;
        let (mut after, mut wait) = (0, 0);
        loop {
            let told: Told = client.get(&format!("/v1/events?after={after}&wait={wait}"))?;
            for event in &told.events {
                if self.reason.is_empty() || self.reason.contains(&event.reason) {
                    to.event(event)?;
                }
            }
            to.flush()?;
            if told.events.is_empty() {
                if !self.follow {
                    return to.close(told.lost);
                }
                wait = LONGEST_WAIT;
            }
            after = told.next;
        }
    }

    fn output(&self, json: bool) -> Result<Output, Failure> {
        Ok(match &self.write {
            Some(file) => Output::capture(file)?,
            None if json => Output::Json,
            None => Output::Lines { hex: self.hex },
        })
    }
}

/// Where events go.
enum Output {
    Lines {
        hex: bool,
    },
    /// One object a line.
    Json,
    Capture {
        file: PathBuf,
        writer: Writer<Box<dyn Write>>,
        packets: u64,
    },
}

impl Output {
    fn capture(file: &Path) -> Result<Output, Failure> {
        let open = || -> std::io::Result<Writer<Box<dyn Write>>> {
            let to: Box<dyn Write> = if file == Path::new("-") {
                Box::new(std::io::stdout())
            } else {
                Box::new(BufWriter::new(File::create(file)?))
            };
            Writer::new(to)
        };
        Ok(Output::Capture {
            writer: open().map_err(|error| not_written(file, &error))?,
            file: file.to_owned(),
            packets: 0,
        })
    }

    fn event(&mut self, event: &Event) -> Result<(), Failure> {
        match self {
            Output::Lines { hex } => {
                println!("{}", line(event));
                if *hex {
                    output::hex(&event.head);
                }
                Ok(())
            }
            Output::Json => {
                println!(
                    "{}",
                    serde_json::to_string(event).expect("messages of this crate are JSON")
                );
                Ok(())
            }
            Output::Capture {
                file,
                writer,
                packets,
            } => {
                *packets += 1;
                writer
                    .packet(&packet(event)?)
                    .map_err(|error| not_written(file, &error))
            }
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        match self {
            // Lines are flushed as they end.
            Output::Lines { hex: _ } | Output::Json => Ok(()),
            Output::Capture {
                file,
                writer,
                packets: _,
            } => writer.flush().map_err(|error| not_written(file, &error)),
        }
    }

    /// On standard error: what is printed can be worked on.
    fn close(self, lost: LostEvents) -> Result<ExitCode, Failure> {
        if let Output::Capture { file, packets, .. } = &self {
            eprintln!("{packets} packets written to {}", file.display());
        }
        let LostEvents { limited, full } = lost;
        if limited + full > 0 && !matches!(self, Output::Json) {
            eprintln!(
                "{} drops were counted and not told: {limited} came too fast, {full} found nobody reading",
                limited + full
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn line(event: &Event) -> String {
    let Event {
        number: _,
        time,
        interface,
        reason,
        verdict,
        flow,
        length,
        head: _,
    } = event;
    let audit = match verdict {
        Verdict::Drop => "",
        Verdict::Pass => " (audit: passed)",
    };
    format!(
        "{time} {interface} {reason}{audit} {}, {length} bytes",
        output::flow(flow)
    )
}

fn packet(event: &Event) -> Result<Packet, Failure> {
    let time = OffsetDateTime::parse(&event.time, &Rfc3339);
    Ok(Packet {
        nanoseconds: time.map_or(0, OffsetDateTime::unix_timestamp_nanos),
        length: event.length,
        bytes: from_digits(&event.head)?,
    })
}

fn not_written(file: &Path, error: &std::io::Error) -> Failure {
    Failure::refused(
        format!("{} cannot be written: {error}", file.display()),
        "Name a file in a folder that you may write to, with room for it.",
    )
}
