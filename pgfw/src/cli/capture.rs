//! `pgfw check --pcap FILE`: the loaded program's verdict on every packet of a capture.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::{Context, output};
use crate::api::{CheckFrames, CheckedFrames, Client, Flow, ShortAnswer, Verdict};
use crate::failure::{Code, Failure};
use crate::observe::frame::{self, LONGEST};
use crate::observe::packet::flow;
use crate::observe::pcap::{Packet, Reader};

/// Hex digits in one request; the daemon takes 64 KiB.
const DIGITS_AT_ONCE: usize = 48 * 1024;

pub(super) fn check(context: &Context, file: &Path) -> Result<ExitCode, Failure> {
    let mut reader = Reader::new(open(file)?)?;
    let mut batch = Batch::default();
    let mut number = 0;
    while let Some(packet) = reader.packet()? {
        number += 1;
        let frame = whole(&packet);
        if !batch.rows.is_empty() && batch.digits + frame.as_ref().map_or(0, |f| f.len() * 2) > DIGITS_AT_ONCE
        {
            std::mem::take(&mut batch).finish(context)?;
        }
        batch.add(number, &packet, frame);
    }
    batch.finish(context)?;
    Ok(ExitCode::SUCCESS)
}

fn open(file: &Path) -> Result<Box<dyn Read>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(std::io::stdin()));
    }
    let open = File::open(file).map_err(|error| {
        Failure::new(
            Code::Invalid,
            format!("{} cannot be read: {error}", file.display()),
            "Name a capture file as tcpdump -w writes it, or - for standard input.",
        )
    })?;
    Ok(Box::new(BufReader::new(open)))
}

/// The frame as it was on the wire: what a capture cut off counts as zeros, or the packet would be malformed. `None` for
/// what the kernel takes no question about.
fn whole(packet: &Packet) -> Option<Vec<u8>> {
    let length = usize::try_from(packet.length).ok()?;
    let mut frame = packet.bytes.clone();
    frame.resize(length.max(frame.len()), 0);
    frame::can_be_asked(frame.len()).then_some(frame)
}

/// Packets that are asked about together, in their order.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    frames: Vec<String>,
    digits: usize,
}

/// One packet of the capture. Serialized with `--json`, one a line.
#[derive(Serialize)]
struct Row {
    /// From 1 on, as tcpdump and Wireshark count.
    number: u64,
    #[serde(flatten)]
    flow: Flow,
    length: u32,
    #[serde(flatten)]
    answer: Option<ShortAnswer>,
    #[serde(skip)]
    asked: bool,
}

impl Batch {
    fn add(&mut self, number: u64, packet: &Packet, frame: Option<Vec<u8>>) {
        self.rows.push(Row {
            number,
            flow: flow(&packet.bytes),
            length: packet.length,
            answer: None,
            asked: frame.is_some(),
        });
        if let Some(frame) = frame {
            let hex = frame::to_hex(&frame);
            self.digits += hex.len();
            self.frames.push(hex);
        }
    }

    fn finish(self, context: &Context) -> Result<(), Failure> {
        let Batch {
            rows,
            frames,
            digits: _,
        } = self;
        let mut answers = ask(&context.client(), frames)?.into_iter();
        for mut row in rows {
            if row.asked {
                row.answer = answers.next();
            }
            if context.json {
                println!(
                    "{}",
                    serde_json::to_string(&row).expect("messages of this crate are JSON")
                );
            } else {
                println!("{}", row.line());
            }
        }
        Ok(())
    }
}

fn ask(client: &Client, frames: Vec<String>) -> Result<Vec<ShortAnswer>, Failure> {
    if frames.is_empty() {
        return Ok(Vec::new());
    }
    let CheckedFrames {
        generation: _,
        answers,
    } = client.post("/v1/check/frames", &CheckFrames { frames })?;
    Ok(answers)
}

impl Row {
    fn line(&self) -> String {
        let Row {
            number,
            flow,
            length,
            answer,
            asked: _,
        } = self;
        let said = match answer {
            Some(ShortAnswer {
                verdict,
                reason,
                service,
            }) => {
                let verdict = match verdict {
                    Verdict::Pass => "pass",
                    Verdict::Drop => "drop",
                };
                let service = service.as_ref().map(|s| format!(" ({s})")).unwrap_or_default();
                format!("{verdict} {reason}{service}")
            }
            None => format!(
                "not asked (a frame of {} to {LONGEST} bytes can be)",
                frame::SHORTEST
            ),
        };
        format!("{number} {said}: {}, {length} bytes", output::flow(flow))
    }
}
