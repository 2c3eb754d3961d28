//! `pgfw connections`: who is connected, by which certificate.

use std::process::ExitCode;

use clap::Args;

use super::{Context, output};
use crate::failure::Failure;
use crate::ops::{ClusterConnections, Connection, Connections as Found, Engine, Shown, Traffic};

#[derive(Debug, Args)]
pub(super) struct Connections {
    /// Only this `[[postgres]]` section; default: every one.
    #[arg(value_name = "NAME")]
    cluster: Option<String>,
}

impl Connections {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        context.require_root("connections")?;
        let found = Engine::look(&context.paths)?.connections(self.cluster.as_deref())?;
        let Found { clusters, alarms } = &found;
        if context.json {
            output::json(&found);
        } else {
            print(clusters);
            for alarm in alarms {
                println!("! {}.", output::printable(alarm));
            }
        }
        Ok(match alarms.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

fn print(clusters: &[ClusterConnections]) {
    let rows = clusters.iter().flat_map(|of| {
        of.connections
            .iter()
            .map(move |connection| row(&of.cluster, connection))
    });
    output::table(
        &[
            "cluster",
            "identity",
            "role",
            "database",
            "from",
            "since",
            "sent",
            "received",
            "rtt",
            "resent",
            "certificate",
        ],
        rows,
    );
    for of in clusters {
        if let Some(why) = &of.unreachable {
            println!(
                "! {}: its sessions are not known: {}.",
                of.cluster,
                output::printable(why.trim_end_matches('.'))
            );
        }
    }
}

fn row(cluster: &str, connection: &Connection) -> Vec<String> {
    let Connection {
        remote,
        local: _,
        session,
        since,
        traffic,
        certificate,
    } = connection;
    let none = || "-".to_owned();
    let text = |text: Option<&String>| text.map_or_else(none, |text| output::printable(text));
    let role = session.as_ref().and_then(|s| s.role.as_ref());
    let database = match session {
        Some(session) if session.database.is_none() => "(replication)".to_owned(),
        Some(session) => text(session.database.as_ref()),
        None => none(),
    };
    let from = match (remote, session) {
        (Some(remote), _) => remote.to_string(),
        (None, _) => "local".to_owned(),
    };
    let (sent, received, rtt, resent) = match traffic {
        Some(Traffic {
            bytes_sent,
            bytes_received,
            rtt_microseconds,
            retransmits,
        }) => (
            bytes_sent.to_string(),
            bytes_received.to_string(),
            format!("{}.{:03} ms", rtt_microseconds / 1000, rtt_microseconds % 1000),
            retransmits.to_string(),
        ),
        None => (none(), none(), none(), none()),
    };
    let (identity, shown) = match certificate {
        Some(Shown::Ledger {
            serial,
            identity,
            dn,
            issued: _,
            issued_by,
            reason,
            not_after,
            revoked,
        }) => {
            let why = reason
                .as_ref()
                .map_or_else(String::new, |reason| format!(", {}", output::printable(reason)));
            let revoked = revoked
                .as_ref()
                .map_or_else(String::new, |at| format!(", REVOKED {at}"));
            let by = output::printable(issued_by);
            let dn = output::printable(dn);
            (
                output::printable(identity),
                format!("{dn} serial {serial} by {by}{why}, until {not_after}{revoked}"),
            )
        }
        Some(Shown::Unknown {
            serial,
            dn,
            issuer: _,
        }) => (
            "UNKNOWN".to_owned(),
            format!(
                "{} serial {serial}, which nobody issued here",
                output::printable(dn)
            ),
        ),
        Some(Shown::Foreign { serial, dn, issuer }) => (
            none(),
            format!(
                "{} serial {serial} by {}",
                output::printable(dn),
                output::printable(issuer)
            ),
        ),
        None if session.is_none() => (none(), "not logged in".to_owned()),
        None => (none(), none()),
    };
    vec![
        cluster.to_owned(),
        identity,
        text(role),
        database,
        from,
        text(since.as_ref()),
        sent,
        received,
        rtt,
        resent,
        shown,
    ]
}
