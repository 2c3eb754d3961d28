//! `pgfw ca encrypt`, `ca decrypt`: the authorities' keys under a passphrase, or in the clear.

use std::process::ExitCode;

use super::passphrase::Asked;
use super::{Context, output};
use crate::failure::Failure;
use crate::ops::Engine;

pub(super) fn run(context: &Context, encrypt: bool) -> Result<ExitCode, Failure> {
    let asked = if encrypt { Asked::Anew } else { Asked::Once };
    let rewritten = context.unlocked(asked, || Engine::open(&context.paths)?.seal_keys(encrypt))?;
    if context.json {
        output::json(&serde_json::json!({ "rewritten": rewritten }));
        return Ok(ExitCode::SUCCESS);
    }
    for file in &rewritten {
        let now = if encrypt { "encrypted" } else { "in the clear" };
        println!("{} is {now}.", file.display());
    }
    if rewritten.is_empty() {
        println!("Nothing to do: every key is as pgfw.toml says.");
    } else if encrypt {
        println!(
            "What stood in the clear may be in backups, and in blocks of the disk that nothing overwrote."
        );
        println!("Keep the passphrase where this host is not: without it none of these keys is of use.");
    }
    Ok(ExitCode::SUCCESS)
}
