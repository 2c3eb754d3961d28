//! `pgfw pg verify`: whether the filter and PostgreSQL's rules agree.

use std::process::ExitCode;

use super::{Context, output};
use crate::failure::Failure;
use crate::ops::{self, Finding, Verified};

pub(super) fn run(context: &Context, cluster: Option<&str>) -> Result<ExitCode, Failure> {
    context.require_root("pg verify")?;
    let names = ops::clusters_to_verify(&context.paths, cluster)?;
    let all = names.iter().map(|name| ops::pg_verify(&context.paths, name));
    let all: Vec<Verified> = all.collect::<Result<_, _>>()?;
    if context.json {
        output::json(&all);
    } else {
        all.iter().for_each(print);
    }
    Ok(match all.iter().all(|verified| verified.findings.is_empty()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn print(verified: &Verified) {
    let Verified {
        cluster,
        findings,
        one_layer,
        notes,
    } = verified;
    if findings.is_empty() {
        output::say!("{cluster}: filter and rules agree.");
    }
    let mut before = None;
    for Finding { class, message } in findings {
        if before != Some(*class) {
            output::say!("{cluster}: ! {}", class.title());
            before = Some(*class);
        }
        output::say!("{cluster}:     {message}");
    }
    for line in one_layer {
        output::say!("{cluster}: guarded by {line}");
    }
    for note in notes {
        output::say!("{cluster}: note: {note}");
    }
}
