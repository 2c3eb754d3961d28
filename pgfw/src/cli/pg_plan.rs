//! `pgfw pg plan`: what an apply would change, as a diff and in meaning.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;

use super::{Context, output};
use crate::failure::Failure;
use crate::ops::{self, Access, Cut, CutCertificate, CutKind, Names, Over, Planned, Row, Stray};
use crate::postgres::{Difference, Setting};

#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    /// Only this `[[postgres]]` section; default: every one that pgfw manages.
    #[arg(value_name = "NAME")]
    cluster: Option<String>,
    /// Show who gets in as before, too.
    #[arg(long)]
    all: bool,
    /// Print nothing; exit 0 where an apply has nothing to do, 1 where it has.
    #[arg(long, conflicts_with = "all")]
    quiet: bool,
}

impl PlanArguments {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        context.require_root("pg plan")?;
        let PlanArguments { cluster, all, quiet } = self;
        let names = ops::clusters_to_apply(&context.paths, cluster.as_deref())?;
        let planned = names.iter().map(|name| ops::pg_plan(&context.paths, name));
        let planned: Vec<Planned> = planned.collect::<Result<_, _>>()?;
        if quiet {
            let nothing = planned.iter().all(|planned| !planned.differs());
            return Ok(if nothing {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        if context.json {
            output::json(&planned);
        } else {
            planned.iter().for_each(|planned| print(planned, all));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Before something is applied: what that cuts, in a line. What cannot be found out is said by the apply itself.
pub(super) fn warn(context: &Context, cluster: &str) {
    if context.json {
        return;
    }
    let planned = ops::pg_plan(&context.paths, cluster).ok();
    if let Some(cuts) = planned.as_ref().and_then(Planned::cuts) {
        output::say!("{cluster}: ! {cuts} will not get in any more as before; running sessions go on");
    }
}

fn print(planned: &Planned, all: bool) {
    let Planned {
        cluster,
        unchanged,
        obstacles,
        files,
        tls,
        settings,
        access,
        sessions,
        certificates,
        stray,
        missing_roles,
        create_roles,
        pending_restart,
        restart,
        notes,
        not_seen,
    } = planned;
    if *unchanged {
        output::say!("{cluster}: nothing to change in its files.");
    }
    for obstacle in obstacles {
        output::say!("{cluster}: ! an apply is refused: {obstacle}");
    }
    files.iter().for_each(difference);
    for sentence in tls {
        output::say!("{cluster}: {sentence}");
    }
    settings.iter().for_each(|one| setting(cluster, one));
    if let Some(access) = access {
        who(cluster, access, all);
    }
    cut_sessions(cluster, sessions);
    certificates.iter().for_each(|one| certificate(cluster, one));
    stray.iter().for_each(|one| strays(cluster, one));
    if !missing_roles.is_empty() {
        output::say!(
            "{cluster}: ! roles that do not exist: {}",
            missing_roles.join(", ")
        );
        for statement in create_roles {
            output::say!("{cluster}:     {statement}");
        }
    }
    if !pending_restart.is_empty() {
        output::say!(
            "{cluster}: ! the server has to be restarted, which ends every session; from then on counts: {}",
            pending_restart.join(", ")
        );
        output::say!("{cluster}:     {restart}");
    }
    for what in not_seen {
        output::say!("{cluster}: not seen: {what}");
    }
    for note in notes {
        output::say!("{cluster}: note: {note}");
    }
    match planned.cuts() {
        Some(cuts) => output::say!("{cluster}: cut: {cuts}. Nothing was changed."),
        None => output::say!("{cluster}: nobody is known to be cut. Nothing was changed."),
    }
}

fn difference(file: &Difference) {
    let Difference { path, diff } = file;
    if diff.is_empty() {
        output::say!("{} changes in what is not shown", path.display());
        return;
    }
    // https://no-color.org: set and not empty means without.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if !std::io::stdout().is_terminal() {
        // For `patch`, byte by byte.
        print!("{diff}");
        return;
    }
    for line in diff.lines() {
        let color = match line.as_bytes().first() {
            _ if line.starts_with("--- ") || line.starts_with("+++ ") => "1",
            Some(b'-') => "31",
            Some(b'+') => "32",
            Some(b'@') => "36",
            Some(_) | None => "0",
        };
        let line = output::one_line(line);
        if plain {
            println!("{line}");
        } else {
            println!("\x1b[{color}m{line}\x1b[0m");
        }
    }
}

fn setting(cluster: &str, setting: &Setting) {
    let Setting {
        name,
        now,
        then,
        restart,
        overridden,
    } = setting;
    let now = now
        .as_deref()
        .map_or("not set".to_owned(), |now| format!("'{now}'"));
    match overridden {
        Some(by) => output::say!(
            "{cluster}: ! {name} stays {now} and not '{then}': {} has the last word; {}",
            by.place(),
            by.remedy()
        ),
        None => {
            let when = if *restart {
                ", from the next restart on"
            } else {
                ""
            };
            output::say!("{cluster}: {name}: {now} -> '{then}'{when}");
        }
    }
}

fn who(cluster: &str, access: &Access, all: bool) {
    let Access { lost, gained, stays } = access;
    let stay = if all { stays.as_slice() } else { &[] };
    let signed = [("-", lost.as_slice()), ("+", gained), ("", stay)];
    if signed.iter().any(|(_, rows)| !rows.is_empty()) {
        let what = match (lost.is_empty(), gained.is_empty()) {
            (true, true) => "who gets in, as before",
            (false, true) => "who gets in no more (-)",
            (true, false) => "who gets in anew (+)",
            (false, false) => "who gets in no more (-) and anew (+)",
        };
        output::say!("{cluster}: {what}:");
        let rows = signed
            .into_iter()
            .flat_map(|(sign, rows)| rows.iter().map(move |row| (sign, row)));
        output::table(
            &["", "as", "in", "by", "from", "over"],
            rows.map(|(sign, row)| {
                let [role, database, by, from, over] = columns(row);
                vec![sign.to_owned(), role, database, by, from, over]
            }),
        );
    } else {
        output::say!("{cluster}: nobody gets in who did not, and everybody does who did.");
    }
    if !all && !stays.is_empty() {
        output::say!(
            "{cluster}: besides, {} such lines stay; --all shows them.",
            stays.len()
        );
    }
}

fn columns(row: &Row) -> [String; 5] {
    let Row {
        roles,
        databases,
        own_database,
        replication,
        by,
        from,
        over,
    } = row;
    let mut targets: Vec<String> = names(databases, "database").into_iter().collect();
    if *own_database && !databases.others {
        targets.push("the role's own".to_owned());
    }
    if *replication {
        targets.push("(replication)".to_owned());
    }
    let from = match from.as_slice() {
        [] => String::new(),
        [v4, v6] if v4 == "0.0.0.0/0" && v6 == "::/0" => "everywhere".to_owned(),
        some => some_of(some),
    };
    let over: Vec<&str> = over.iter().map(|over| named(*over)).collect();
    [
        names(roles, "role").unwrap_or_default(),
        targets.join(", "),
        some_of(by),
        from,
        over.join(", "),
    ]
}

fn named(over: Over) -> &'static str {
    match over {
        Over::Socket => "socket",
        Over::Plaintext => "plaintext",
        Over::Tls => "TLS",
        Over::Gss => "GSSAPI",
    }
}

fn names(names: &Names, what: &str) -> Option<String> {
    let Names { names, others, all } = names;
    if *all {
        return Some(format!("(every {what})"));
    }
    let others = others.then(|| format!("(any other {what})"));
    let listed = (!names.is_empty()).then(|| some_of(names));
    let parts: Vec<String> = listed.into_iter().chain(others).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// So many of a list are shown; JSON has them all.
const SHOWN: usize = 6;

fn some_of(all: &[String]) -> String {
    match all.len() {
        many if many > SHOWN => format!("{}, +{}", all[..SHOWN - 1].join(", "), many - SHOWN + 1),
        _ => all.join(", "),
    }
}

/// Those that differ in their number and address only share a line.
fn cut_sessions(cluster: &str, sessions: &[Cut]) {
    let mut groups: BTreeMap<(CutKind, bool, bool, String, &str), Vec<String>> = BTreeMap::new();
    for cut in sessions {
        let Cut {
            kind,
            certain,
            already,
            why,
            certificate,
            session,
            stream,
        } = cut;
        let role = session.role.as_deref().unwrap_or("?");
        let into = session
            .database
            .as_ref()
            .map_or(String::new(), |name| format!(" in {name}"));
        let by = certificate
            .as_ref()
            .map_or(String::new(), |name| format!(" by certificate {name}"));
        let mut client = match session.address {
            Some(address) => address.to_string(),
            None => "the Unix socket".to_owned(),
        };
        if let Some(stream) = stream {
            let told = [&stream.application, &stream.state, &stream.sync_state];
            let told: Vec<&str> = told.into_iter().flatten().map(String::as_str).collect();
            client.push_str(&format!(" ({})", told.join(", ")));
        }
        groups
            .entry((*kind, !certain, *already, format!("{role}{into}{by}"), why))
            .or_default()
            .push(client);
    }
    for ((kind, uncertain, already, who, why), mut clients) in groups {
        let count = clients.len();
        clients.sort();
        clients.dedup();
        let (one, goes_on) = match kind {
            CutKind::Standby => ("standby", "streams on"),
            CutKind::Subscriber => ("subscriber", "streams on"),
            CutKind::Session => ("session", "goes on"),
        };
        let number = if count == 1 {
            String::new()
        } else {
            format!("{count} times ")
        };
        let fails = match (uncertain, already) {
            (true, _) => "may fail at its next reconnect",
            (false, false) => "fails at its next reconnect",
            (false, true) => "fails at its next reconnect, as by the rules of now",
        };
        output::say!(
            "{cluster}: ! {number}{one} {who} from {}: {goes_on}, and {fails}: {why}",
            some_of(&clients)
        );
    }
}

fn certificate(cluster: &str, cut: &CutCertificate) {
    let CutCertificate {
        name,
        serial,
        until,
        wholly,
        lost,
    } = cut;
    let head = format!("{cluster}: ! certificate {name} (serial {serial}, until {until})");
    if *wholly {
        output::say!("{head} gets in nowhere any more");
        return;
    }
    output::say!("{head} gets in no more");
    for row in lost {
        let [role, database, _, from, over] = columns(row);
        output::say!("{cluster}:     as {role} in {database} from {from} over {over}");
    }
}

fn strays(cluster: &str, stray: &Stray) {
    let Stray {
        login,
        clients,
        offer,
    } = stray;
    let listed = |all: &[std::net::IpAddr]| {
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        some_of(&all)
    };
    output::say!(
        "{cluster}: ! login {login}: a client that offers a certificate which the server does not trust is refused before \
         its password is asked for"
    );
    output::say!(
        "{cluster}:     libpq offers ~/.postgresql/postgresql.crt by itself; sslcertmode=disable (libpq 16), or sslcert= with a path \
         that is not there, keeps it from that"
    );
    if !offer.is_empty() {
        output::say!("{cluster}:     such a certificate was shown by {}", listed(offer));
    }
    if !clients.is_empty() {
        output::say!("{cluster}:     connected now over TLS: {}", listed(clients));
    }
}
