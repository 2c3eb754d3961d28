//! `pgfw cert renew`: what the daemon does by itself, at once and with a word about it.

use std::process::ExitCode;

use super::passphrase::Asked;
use super::{Context, output};
use crate::failure::Failure;
use crate::ops::{self, Renewed};
use crate::postgres::Renewal;

pub(super) fn run(context: &Context, cluster: Option<&str>, who: &str) -> Result<ExitCode, Failure> {
    let names = ops::clusters_to_apply(&context.paths, cluster)?;
    let mut all = Vec::new();
    let mut failed = None;
    for name in names {
        match context.unlocked(Asked::Once, || ops::renew_server(&context.paths, &name, who)) {
            Ok(renewed) => {
                if !context.json {
                    println!("{name}: {}", said(&renewed));
                }
                all.push((name, renewed));
            }
            // What fails at one does not keep the others.
            Err(failure) => {
                if let Some(earlier) = failed.replace(failure) {
                    output::failure(&earlier, context.json);
                }
            }
        }
    }
    if context.json && (failed.is_none() || !all.is_empty()) {
        let all: Vec<_> = all
            .iter()
            .map(|(name, renewed)| Line {
                cluster: name,
                renewed,
            })
            .collect();
        output::json(&all);
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

#[derive(serde::Serialize)]
struct Line<'a> {
    cluster: &'a str,
    #[serde(flatten)]
    renewed: &'a Renewed,
}

fn said(renewed: &Renewed) -> String {
    let Renewed {
        serial,
        until,
        renewal,
    } = renewed;
    let how = match renewal {
        Renewal::Served { serial: _ } => "a handshake shows it",
        Renewal::NoTcp => "the server listens on no TCP address, so no handshake was possible",
        Renewal::AtNextStart => "the server is down, and serves it from its next start on",
        Renewal::RenderedOnly => "it is written; telling the server is yours (manage = \"render\")",
    };
    format!("certificate {serial}, valid until {}: {how}.", until.rfc3339())
}
