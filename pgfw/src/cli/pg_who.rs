//! `pgfw pg who`: what a server's rules, and the filter before it, make of a login.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{Context, output};
use crate::api::{self, Verdict as Passes};
use crate::datapath::Datapath;
use crate::failure::{Code, Failure};
use crate::observe::frame::{self, Transport};
use crate::ops::{self, Engine, Question, Verdict, Who};

#[derive(Debug, Args)]
pub(super) struct WhoArguments {
    /// Only this `[[postgres]]` section; default: every one.
    #[arg(value_name = "NAME")]
    cluster: Option<String>,
    /// The role that is asked for.
    #[arg(long, value_name = "ROLE")]
    user: String,
    /// The database; default: the role's name.
    #[arg(long, conflicts_with = "replication")]
    database: Option<String>,
    /// Physical replication instead of a database.
    #[arg(long)]
    replication: bool,
    /// The client's address; without one it comes through the Unix socket.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// Without TLS.
    #[arg(long, requires = "from", conflicts_with = "cert")]
    plaintext: bool,
    /// The client shows a valid certificate of this name.
    #[arg(long, value_name = "NAME", requires = "from")]
    cert: Option<String>,
    /// The operating-system user at the other end of the Unix socket.
    #[arg(long, value_name = "USER", conflicts_with = "from")]
    os_user: Option<String>,
}

/// What the filter says to a first packet from there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
enum Filter {
    Pass {
        reason: String,
    },
    Drop {
        reason: String,
    },
    /// Nobody asked it, or there is none.
    Unknown {
        why: String,
    },
}

#[derive(Debug, Serialize)]
struct Both {
    #[serde(flatten)]
    who: Who,
    /// None for a Unix socket.
    filter: Option<Filter>,
}

impl WhoArguments {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        context.require_root("pg who")?;
        let WhoArguments {
            cluster,
            user,
            database,
            replication,
            from,
            plaintext,
            cert,
            os_user,
        } = self;
        let question = Question {
            database: database.unwrap_or_else(|| user.clone()),
            user,
            replication,
            from,
            plaintext,
            certificate: cert,
            system_user: os_user,
        };
        let answers = ops::pg_who(&context.paths, cluster.as_deref(), &question)?;
        let answers: Vec<Both> = answers
            .into_iter()
            .map(|asked| Both {
                filter: from.map(|from| match asked.through_loopback {
                    true => Filter::Unknown {
                        why: "what this host sends itself is not filtered".to_owned(),
                    },
                    false => ask_filter(context, from, asked.port),
                }),
                who: asked.who,
            })
            .collect();
        if context.json {
            output::json(&answers);
        } else {
            answers.iter().for_each(print);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The loaded program's own verdict, as `pgfw check` gives it; without the daemon from the pins.
fn ask_filter(context: &Context, from: IpAddr, port: u16) -> Filter {
    let frame = frame::build(from, port, Transport::TcpSyn);
    let asked = context.client().post::<api::Checked>(
        "/v1/check",
        &api::Check {
            frame: frame::to_hex(&frame),
        },
    );
    let asked = match asked {
        Err(failure) if failure.code == Code::Unreachable && Datapath::exists(&context.paths.bpffs) => {
            Engine::look(&context.paths).and_then(|engine| engine.check(&frame))
        }
        asked => asked,
    };
    match asked {
        Ok(checked) => {
            let reason = format!("{} ({})", checked.reason, checked.meaning);
            match checked.verdict {
                Passes::Pass => Filter::Pass { reason },
                Passes::Drop => Filter::Drop { reason },
            }
        }
        Err(failure) => Filter::Unknown { why: failure.message },
    }
}

fn print(both: &Both) {
    let Both { who, filter } = both;
    let Who {
        cluster,
        verdict,
        because,
        line,
        method: _,
        options: _,
        map_line,
        notes,
    } = who;
    let verdict = match verdict {
        Verdict::LetIn => "let in",
        Verdict::Asked => "asked",
        Verdict::Refused => "refused",
        Verdict::Undecided => "undecided",
    };
    output::say!("{cluster}: {verdict}: {because}");
    for line in line.iter().chain(map_line) {
        output::say!("  {} line {}", line.file, line.number);
        output::say!("    {}", line.text);
    }
    match filter {
        Some(Filter::Pass { reason }) => output::say!("  the filter lets it through: {reason}"),
        Some(Filter::Drop { reason }) => output::say!("  ! the filter drops it: {reason}"),
        Some(Filter::Unknown { why }) => output::say!("  the filter was not asked: {why}"),
        None => {}
    }
    for note in notes {
        output::say!("  ! {note}");
    }
}
