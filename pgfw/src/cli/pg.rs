//! `pgfw pg apply`, `pg release`: writes PostgreSQL's files and proves that the server goes by them; gives them back.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;

use super::passphrase::Asked;
use super::{Context, output, pg_plan, pg_trial};
use crate::failure::Failure;
use crate::ops::{self, Engine};
use crate::postgres::{Applied, Edits, Given, Leave, Options, Released, Step, Untried, Verdict};

#[derive(Debug, Subcommand)]
pub(super) enum Pg {
    /// Print the sections for pgfw.toml that keep what works today: from the servers' own files, nothing changed.
    Adopt {
        /// A Debian cluster like 15/main, or a data directory; default: every server of this host that is found.
        #[arg(value_name = "SERVER")]
        servers: Vec<String>,
    },
    /// Write pg_hba.conf, pg_ident.conf and the TLS settings, reload, and prove on the server that they count.
    Apply {
        /// Only this `[[postgres]]` section; default: every one that pgfw manages.
        #[arg(value_name = "NAME")]
        cluster: Option<String>,
        /// Go on over files that somebody edited by hand; the edited ones are kept beside.
        #[arg(long)]
        replace_edits: bool,
        /// Go on where no server of its own can try the rules first: without `initdb`, or without network namespaces.
        #[arg(long)]
        without_scratch: bool,
        /// Undo it by itself after this time unless `pgfw confirm` comes first, like 60s; with the daemon dead as well.
        #[arg(long, value_name = "TIME", value_parser = trial_time)]
        confirm: Option<Duration>,
    },
    /// What an apply would change: the files, who gets in, and whom that cuts. Changes nothing.
    Plan(pg_plan::PlanArguments),
    /// Undo what was not confirmed in time, and finish or undo what was cut off. The daemon does this by itself.
    Settle {
        /// Only this `[[postgres]]` section; default: every one that an apply has left something of.
        #[arg(value_name = "NAME")]
        cluster: Option<String>,
        /// Wait until the deadline of what waits for its confirmation.
        #[arg(long)]
        wait: bool,
    },
    /// Give PostgreSQL's files back as they were before pgfw, so that nothing leads to pgfw's folders any more.
    Release {
        /// Only this `[[postgres]]` section; default: every one.
        #[arg(value_name = "NAME")]
        cluster: Option<String>,
        /// Leave what pgfw wrote last, as the server's own files, so that logins go on.
        #[arg(long)]
        keep: bool,
    },
    /// Whether filter and rules agree, and what is drift, overridden, or unfit for a restart; exits 1 if anything is found.
    Verify {
        /// Only this `[[postgres]]` section; default: every one.
        #[arg(value_name = "NAME")]
        cluster: Option<String>,
    },
    /// Which line of the server's rules decides a login, what happens then, and whether the filter lets it through.
    Who(super::pg_who::WhoArguments),
}

impl Pg {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Pg::Adopt { servers } => super::pg_adopt::run(context, &servers),
            Pg::Apply {
                cluster,
                replace_edits,
                without_scratch,
                confirm,
            } => {
                let options = Options {
                    edits: if replace_edits {
                        Edits::Replace
                    } else {
                        Edits::Refuse
                    },
                    untried: if without_scratch {
                        Untried::Allow
                    } else {
                        Untried::Refuse
                    },
                    confirm,
                };
                context.require_root("pg apply")?;
                let names = ops::clusters_to_apply(&context.paths, cluster.as_deref())?;
                let mut engine = Engine::open(&context.paths)?;
                let apply = |name: &str| {
                    pg_plan::warn(context, name);
                    let applied = context.unlocked(Asked::Once, || engine.pg_apply(name, &options))?;
                    if let (Some(time), Some(_)) = (confirm, &applied.undoes_itself)
                        && let Err(failure) = pg_trial::watch(context, name, time)
                    {
                        ops::settle_trial(&context.paths, name, Verdict::Undo)?;
                        return Err(failure);
                    }
                    Ok(applied)
                };
                each(context, &names, apply, print)
            }
            Pg::Plan(arguments) => arguments.run(context),
            Pg::Settle { cluster, wait } => {
                context.require_root("pg settle")?;
                let names = match cluster {
                    Some(name) => vec![name],
                    None => ops::unfinished(&context.paths),
                };
                let settle = |name: &str| {
                    if wait {
                        ops::settle_when_due(&context.paths, name)
                    } else {
                        ops::settle_trial(&context.paths, name, Verdict::Due)
                    }
                };
                each(context, &names, settle, pg_trial::print)
            }
            Pg::Verify { cluster } => super::pg_verify::run(context, cluster.as_deref()),
            Pg::Who(arguments) => arguments.run(context),
            Pg::Release { cluster, keep } => {
                context.require_root("pg release")?;
                let names = ops::clusters_to_release(&context.paths, cluster.as_deref())?;
                let leave = if keep { Leave::Written } else { Leave::Former };
                let release = |name: &str| ops::pg_release(&context.paths, name, leave);
                each(context, &names, release, print_released)
            }
        }
    }
}

/// Long enough to try something, and no longer than somebody watches.
fn trial_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if (1..=86_400).contains(&time.as_secs()) {
        Ok(time)
    } else {
        Err("give it between a second and a day".to_owned())
    }
}

/// One cluster after the other: what fails at one does not keep the others, and what was done is said.
fn each<T: Serialize>(
    context: &Context,
    names: &[String],
    mut work: impl FnMut(&str) -> Result<T, Failure>,
    print: impl Fn(&T),
) -> Result<ExitCode, Failure> {
    let mut done = Vec::new();
    let mut failures = Vec::new();
    for name in names {
        match work(name) {
            Ok(one) => {
                if !context.json {
                    print(&one);
                }
                done.push(one);
            }
            Err(failure) => failures.push(failure),
        }
    }
    if context.json && (failures.is_empty() || !done.is_empty()) {
        output::json(&done);
    }
    let last = failures.pop();
    for failure in &failures {
        output::failure(failure, context.json);
    }
    last.map_or(Ok(ExitCode::SUCCESS), Err)
}

pub(super) fn print(applied: &Applied) {
    let Applied {
        cluster,
        generation,
        unchanged,
        undoes_itself,
        steps,
        pending_restart,
        restart,
        overridden,
        missing_roles,
        create_roles,
        notes,
    } = applied;
    if *unchanged {
        output::say!("{cluster}: nothing to change; generation {generation} is in place.");
    }
    for step in steps {
        output::say!("{cluster}: {}", said(step));
    }
    if let Some(until) = undoes_itself {
        output::say!("{cluster}: this undoes itself at {until}; keep it with: pgfw confirm");
    }
    if !pending_restart.is_empty() {
        output::say!(
            "{cluster}: ! the server has to be restarted; from then on counts: {}",
            pending_restart.join(", ")
        );
        output::say!("{cluster}:     {restart}");
    }
    for other in overridden {
        output::say!(
            "{cluster}: ! {} does not count: {} has the last word; {}.",
            other.name,
            other.place(),
            other.remedy()
        );
    }
    if !missing_roles.is_empty() {
        output::say!(
            "{cluster}: ! roles that do not exist yet: {}",
            missing_roles.join(", ")
        );
        for statement in create_roles {
            output::say!("{cluster}:     {statement}");
        }
    }
    for note in notes {
        output::say!("{cluster}: ! {note}");
    }
}

fn said(step: &Step) -> String {
    match step {
        Step::Written { directory } => format!("written to {}", directory.display()),
        Step::RulesTried {
            admitted,
            refused,
            left_out,
        } => {
            let rest = match left_out {
                0 => String::new(),
                left => format!("; there was no time for {left} more"),
            };
            format!(
                "tried on a server of its own: of {} logins {admitted} get in and {refused} are refused, as pgfw.toml says{rest}",
                admitted + refused
            )
        }
        Step::Switched => "switched to it".into(),
        Step::Reloaded { pid } => format!("the server (pid {pid}) was told to reload"),
        Step::RulesProven { marker } => format!("proven: the server goes by these rules ({marker})"),
        Step::TlsProven { serial } => format!("proven: the server serves certificate {serial}"),
        Step::NoTcp => "the server listens on no TCP address; its certificate cannot be looked at".into(),
        Step::AtNextStart => "the server is down: this counts at its next start".into(),
        Step::RenderedOnly => "rendered only (manage = \"render\"); nothing of the server was touched".into(),
    }
}

fn print_released(released: &Released) {
    let Released {
        cluster,
        unchanged,
        steps,
        pending_restart,
        left,
        complaints,
        crls_lapse,
    } = released;
    if *unchanged {
        output::say!("{cluster}: nothing to give back; none of its files is pgfw's.");
    }
    for step in steps {
        output::say!("{cluster}: {}", given(step));
    }
    for path in left {
        output::say!(
            "{cluster}: ! {} was changed by somebody else and is as it was found",
            path.display()
        );
    }
    if !pending_restart.is_empty() {
        output::say!(
            "{cluster}: ! from its next restart on: {}",
            pending_restart.join(", ")
        );
    }
    for complaint in complaints {
        output::say!("{cluster}: ! the server finds fault with {complaint}");
    }
    if let Some(at) = crls_lapse {
        output::say!(
            "{cluster}: ! what is revoked from now on counts no more here, and at {at} the CRLs lapse: then no \
             certificate is accepted"
        );
    }
    if !unchanged {
        output::say!(
            "{cluster}: `pgfw pg apply` takes it over again; manage = \"none\" in its [[postgres]] section says not to."
        );
    }
}

fn given(step: &Given) -> String {
    match step {
        Given::Former { path } => format!("{} is what it was before pgfw", path.display()),
        Given::Removed { path } => format!("{} is gone, as before pgfw", path.display()),
        Given::Written { path } => format!("{} is the server's own and holds pgfw's last", path.display()),
        Given::NotIncluded { file } => {
            format!("{} includes nothing of pgfw's folders any more", file.display())
        }
        Given::Material { directory } => {
            format!(
                "certificate, key, authority and CRLs are in {}",
                directory.display()
            )
        }
        Given::Reloaded { pid } => format!("the server (pid {pid}) was told to reload"),
        Given::Taken => "proven: the server takes the former rules".into(),
        Given::Proven => "proven: the server goes by these files".into(),
        Given::AtNextStart => "the server is down: this counts at its next start".into(),
    }
}
