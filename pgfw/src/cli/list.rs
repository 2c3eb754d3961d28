//! `pgfw list`: every network that something opens or closes.

use std::process::ExitCode;

use clap::Args;

use super::{Context, output};
use crate::api;
use crate::failure::Failure;
use crate::policy::{Answer, Origin};

#[derive(Debug, Args)]
pub(super) struct List {}

impl List {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let list: api::List = context.client().get("/v1/list")?;
        if context.json {
            output::json(&list);
            return Ok(ExitCode::SUCCESS);
        }
        let rows = list.networks.iter().flat_map(|network| {
            network.because.iter().enumerate().map(move |(n, because)| {
                let first = |text: String| if n == 0 { text } else { String::new() };
                vec![
                    first(network.service.clone()),
                    first(network.net.to_string()),
                    first(answer(network.answer).to_owned()),
                    match (&because.origin, because.net == network.net) {
                        // An entry is named by its network.
                        (_, true) | (Origin::Entry(_), false) => describe(because),
                        (
                            Origin::Config(_) | Origin::Identity(_) | Origin::Login(_) | Origin::Lease(_),
                            false,
                        ) => {
                            format!("{} for {}", describe(because), because.net)
                        }
                    },
                    because.until.clone().unwrap_or_else(|| "-".to_owned()),
                    because.comment.clone().unwrap_or_default(),
                ]
            })
        });
        output::table(
            &["service", "network", "now", "because", "until", "comment"],
            rows,
        );
        Ok(ExitCode::SUCCESS)
    }
}

pub(super) fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::Allow => "allow",
        Answer::Deny => "deny",
    }
}

/// Who opens or closes it, in a few words.
pub(super) fn describe(because: &api::Because) -> String {
    match &because.origin {
        Origin::Config(section) => format!("pgfw.toml ({section})"),
        Origin::Identity(name) => format!("certificate of {name}"),
        Origin::Login(name) => format!("login {name}"),
        Origin::Lease(name) => format!("lease of {name}"),
        Origin::Entry(_) => format!("pgfw {} {}", answer(because.answer), because.net),
    }
}
