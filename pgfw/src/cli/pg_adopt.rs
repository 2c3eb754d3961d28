//! `pgfw pg adopt`: what runs already, as sections for pgfw.toml.

use std::process::ExitCode;

use super::{Context, output};
use crate::failure::{Code, Failure};
use crate::ops;

pub(super) fn run(context: &Context, servers: &[String]) -> Result<ExitCode, Failure> {
    context.require_root("pg adopt")?;
    let adopted = ops::pg_adopt(servers)?;
    if adopted.servers.is_empty() && adopted.problems.is_empty() {
        return Err(Failure::new(
            Code::NotFound,
            "no PostgreSQL server is found on this host",
            "Name its data directory: pgfw pg adopt /srv/postgresql/data",
        ));
    }
    if context.json {
        output::json(&adopted);
    } else {
        print!("{}", adopted.text);
        for problem in &adopted.problems {
            eprintln!("pgfw: {}", output::one_line(problem));
        }
    }
    Ok(match adopted.problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
