//! `pgfw check`: the loaded program's own verdict on a packet.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Context, capture, list, output};
use crate::api::{self, Verdict};
use crate::config::{PROTOCOLS, protocol_number};
use crate::failure::Failure;
use crate::observe::frame::{self, Transport};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Where the packet comes from.
    #[arg(value_name = "SOURCE", required_unless_present_any = ["hex", "pcap"])]
    source: Option<IpAddr>,
    /// The port it goes to.
    #[arg(long, default_value_t = 5432)]
    port: u16,
    /// tcp, udp, or any other that a service can have: vrrp, esp, a number.
    #[arg(long, default_value = "tcp", value_parser = protocol)]
    protocol: u8,
    /// A segment in the middle of a connection (ACK) instead of its first (SYN).
    #[arg(long, conflicts_with = "protocol")]
    ack: bool,
    /// A whole frame as hex, from the Ethernet header on.
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["source", "ack"])]
    hex: Option<String>,
    /// Every packet of a capture that tcpdump -w wrote, one line each; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "port", "protocol", "ack", "hex", "quiet"])]
    pcap: Option<PathBuf>,
    /// Print nothing; exit 0 for pass, 1 for drop.
    #[arg(long)]
    quiet: bool,
}

const TCP: u8 = 6;
const UDP: u8 = 17;

fn protocol(name: &str) -> Result<u8, String> {
    protocol_number(name).ok_or_else(|| format!("no IP protocol that pgfw knows; write {PROTOCOLS}"))
}

impl Check {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let Check {
            source,
            port,
            protocol,
            ack,
            hex,
            pcap,
            quiet,
        } = self;
        if let Some(file) = pcap {
            return capture::check(context, &file);
        }
        let frame = match (hex, source) {
            (Some(hex), _) => frame::from_hex(&hex)?,
            (None, Some(source)) => {
                let transport = match (protocol, ack) {
                    (TCP, true) => Transport::TcpAck,
                    (TCP, false) => Transport::TcpSyn,
                    (UDP, _) => Transport::Udp,
                    (other, _) => Transport::Other(other),
                };
                frame::build(source, port, transport)
            }
            (None, None) => {
                return Err(Failure::invalid(
                    "no packet is named",
                    "Name a source address, --hex or --pcap.",
                ));
            }
        };
        let checked: api::Checked = context.client().post(
            "/v1/check",
            &api::Check {
                frame: frame::to_hex(&frame),
            },
        )?;
        if context.json {
            output::json(&checked);
        } else if !quiet {
            let verdict = match checked.verdict {
                Verdict::Pass => "pass",
                Verdict::Drop => "drop",
            };
            println!("{verdict}: {} ({})", checked.reason, checked.meaning);
            if let Some(service) = &checked.service {
                println!("  service {service}");
            }
            for because in &checked.because {
                let until = because
                    .until
                    .as_ref()
                    .map(|u| format!(", until {u}"))
                    .unwrap_or_default();
                println!(
                    "  {} {}: {}{until}",
                    list::answer(because.answer),
                    because.net,
                    list::describe(because)
                );
            }
        }
        let drop = checked.verdict == Verdict::Drop;
        Ok(if quiet && drop {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}
