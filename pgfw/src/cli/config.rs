//! `pgfw config check`: says whether a file would be accepted, without using it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::{Context, output};
use crate::failure::Failure;
use crate::pki::Store;

#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Check a file; exit 2 and the line when it is not right.
    Check {
        /// The file; default: the one of --config.
        file: Option<PathBuf>,
    },
}

impl Config {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let Config::Check { file } = self;
        let file = file.unwrap_or_else(|| context.paths.config.clone());
        let config = crate::config::Config::read(&file)?;
        crate::host::interfaces::matching(&config.firewall.interfaces)?;
        let loose = Store::new(&config.pki.directory).loose();
        let loose: Vec<String> = loose.iter().map(|l| format!("{l}. {}", l.remedy())).collect();
        if context.json {
            output::json(&serde_json::json!({ "file": file, "ok": true, "attention": loose }));
        } else {
            println!(
                "{} is right: {} cluster(s), {} identities, {} logins, interfaces {}.",
                file.display(),
                config.postgres.len(),
                config.identities.len(),
                config.logins.len(),
                config.firewall.interfaces.join(", "),
            );
        }
        if !context.json {
            loose.iter().for_each(|line| println!("! {line}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}
