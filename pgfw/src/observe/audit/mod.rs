//! The audit log: what happened to access on this host, one JSON object a line.
//!
//! Whatever a client sends stands in it as the content of a JSON string, so none of it can end a line or a string.
//! docs/audit-log.md has an example of each event; a test holds it to what is here.

mod file;
mod journal;
mod writer;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::invisible::is_invisible;
use crate::ledger::types::RevocationReason;

pub use file::Settings;
pub use writer::Audit;

/// Who asked for something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct By {
    /// A user of this host, or `pgfw` for what the daemon does of its own accord.
    pub by: String,
    /// The address at the other end of the SSH session in which the command was typed; `null` at a console.
    pub from: Option<IpAddr>,
}

/// Who is at the other end of a connection to PostgreSQL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Client {
    /// `null` over the Unix socket.
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    /// As the client asked for it.
    pub role: Option<String>,
    pub database: Option<String>,
    /// Whole, as the server has it: `CN=alice`. `null` without one, or where the server did not come to look at it.
    pub certificate: Option<String>,
    /// The certificate's name.
    pub identity: Option<String>,
    /// 32 hexadecimal digits, as `pgfw cert list` shows it; `null` where the session was over before it could be asked for.
    pub serial: Option<String>,
    /// `cert`, `scram-sha-256`, `peer`, …
    pub method: Option<String>,
}

/// What happened. The name in `event` is the variant's.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    LeaseGranted {
        identity: String,
        serial: String,
        source: IpAddr,
        until: String,
    },
    /// Only who has shown a certificate of a client authority of this host gets as far as to be refused.
    LeaseRefused {
        /// `null` where the certificate proves nothing.
        identity: Option<String>,
        serial: Option<String>,
        source: IpAddr,
        reason: String,
    },
    LeaseEnded {
        identity: String,
        serial: String,
        source: IpAddr,
        reason: &'static str,
    },
    CertificateIssued {
        identity: String,
        serial: String,
        not_after: String,
        /// `client` or `server`.
        authority: &'static str,
        reason: Option<String>,
        #[serde(flatten)]
        by: By,
    },
    /// In the place of one of the same name, which nobody asked for anew.
    CertificateRenewed {
        identity: String,
        serial: String,
        not_after: String,
        authority: &'static str,
        #[serde(flatten)]
        by: By,
    },
    CertificateRevoked {
        /// `null` for a serial that the ledger does not know.
        identity: Option<String>,
        serial: String,
        authority: &'static str,
        reason: RevocationReason,
        #[serde(flatten)]
        by: By,
    },
    /// A generation of an authority: `ca init`, `ca rotate`.
    AuthorityChanged {
        change: AuthorityChange,
        authority: &'static str,
        generation: u32,
        #[serde(flatten)]
        by: By,
    },
    /// PostgreSQL's files: `pg apply`, `reload`, `pg release`, and what became of an apply that had to be confirmed.
    RulesChanged {
        change: RulesChange,
        cluster: String,
        /// Whose files count now; `null`: those from before pgfw.
        generation: Option<u32>,
        #[serde(flatten)]
        by: By,
    },
    PolicyChanged {
        change: Change,
        /// SHA-256 of the pgfw.toml that judged before and that judges now; `null` where none does.
        old_hash: Option<String>,
        new_hash: Option<String>,
        /// The entry, for a change of one.
        net: Option<IpNet>,
        service: Option<String>,
        /// How long the entry lasts, in seconds.
        seconds: Option<u64>,
        comment: Option<String>,
        #[serde(flatten)]
        by: By,
    },
    ConnectionOpened {
        cluster: String,
        #[serde(flatten)]
        client: Client,
    },
    ConnectionClosed {
        cluster: String,
        #[serde(flatten)]
        client: Client,
        /// How long the session lasted.
        seconds: f64,
        /// Payload to and from the client, as the kernel counted it when it was last asked; `null` where the session was
        /// over before that, and over the Unix socket.
        bytes_sent: Option<u64>,
        bytes_received: Option<u64>,
    },
    LoginRefused {
        cluster: String,
        #[serde(flatten)]
        client: Client,
        /// The server's own words.
        reason: String,
        /// SQLSTATE.
        code: Option<String>,
    },
    /// A session by a certificate that nobody issued here.
    UnknownCertificate {
        cluster: String,
        #[serde(flatten)]
        client: Client,
    },
    /// What should stand here and does not.
    RecordsLost {
        cluster: Option<String>,
        /// `null` where nobody knows.
        records: Option<u64>,
        reason: String,
    },
}

/// Of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Reloaded,
    /// It undoes itself unless confirmed.
    OnTrial,
    Confirmed,
    RolledBack,
    Allowed,
    Denied,
    Removed,
}

/// Of one generation of an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthorityChange {
    /// It is there. The first signs at once.
    Made,
    /// What is issued from now on is of it.
    Signs,
    /// What it issued is to count no more.
    Dropped,
    /// Its key is destroyed and its lists are gone.
    Retired,
}

/// Of the files of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RulesChange {
    Applied,
    /// It undoes itself unless confirmed.
    OnTrial,
    Confirmed,
    RolledBack,
    /// They are the server's own again.
    Released,
}

impl Event {
    /// The name that `event` has.
    pub fn name(&self) -> &'static str {
        match self {
            Event::LeaseGranted { .. } => "lease_granted",
            Event::LeaseRefused { .. } => "lease_refused",
            Event::LeaseEnded { .. } => "lease_ended",
            Event::CertificateIssued { .. } => "certificate_issued",
            Event::CertificateRenewed { .. } => "certificate_renewed",
            Event::CertificateRevoked { .. } => "certificate_revoked",
            Event::AuthorityChanged { .. } => "authority_changed",
            Event::RulesChanged { .. } => "rules_changed",
            Event::PolicyChanged { .. } => "policy_changed",
            Event::ConnectionOpened { .. } => "connection_opened",
            Event::ConnectionClosed { .. } => "connection_closed",
            Event::LoginRefused { .. } => "login_refused",
            Event::UnknownCertificate { .. } => "unknown_certificate",
            Event::RecordsLost { .. } => "records_lost",
        }
    }

    /// What somebody should look at.
    fn is_warning(&self) -> bool {
        match self {
            Event::LeaseRefused { .. }
            | Event::LoginRefused { .. }
            | Event::UnknownCertificate { .. }
            | Event::RecordsLost { .. } => true,
            Event::LeaseGranted { .. }
            | Event::LeaseEnded { .. }
            | Event::CertificateIssued { .. }
            | Event::CertificateRenewed { .. }
            | Event::CertificateRevoked { .. }
            | Event::AuthorityChanged { .. }
            | Event::RulesChanged { .. }
            | Event::PolicyChanged { .. }
            | Event::ConnectionOpened { .. }
            | Event::ConnectionClosed { .. } => false,
        }
    }
}

/// An event and when it was.
#[derive(Debug, Clone, Serialize)]
struct Record<'a> {
    /// RFC 3339 in UTC, to the millisecond.
    time: &'a str,
    /// Of this form; a field that is added leaves it, one that changes its meaning does not.
    version: u32,
    #[serde(flatten)]
    event: &'a Event,
}

/// Without its line break.
fn line(event: &Event, wall_ns: i128) -> String {
    let record = Record {
        time: &time(wall_ns),
        version: 1,
        event,
    };
    let text = serde_json::to_string(&record).expect("events of this crate are JSON");
    if !text.contains(is_invisible) {
        return text;
    }
    // RFC 8259 asks it of U+0000 to U+001F alone and allows it of every character; outside of strings there is none of these.
    let mut line = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if is_invisible(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                line.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            line.push(c);
        }
    }
    line
}

fn time(wall_ns: i128) -> String {
    let ms = wall_ns.div_euclid(1_000_000) * 1_000_000;
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    time::OffsetDateTime::from_unix_timestamp_nanos(ms)
        .ok()
        .and_then(|t| t.format(&format).ok())
        .unwrap_or_else(|| format!("@{}", ms / 1_000_000_000))
}

#[cfg(test)]
mod tests;
