//! Who is connected, with which certificate; ending the sessions of a revoked one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_postgres::types::{FromSql, Type};

use super::sql::Sql;
use super::{PostgresError, Server};
use crate::config::{Cluster, Config};

/// One live session of a client or a standby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub pid: i32,
    pub role: Option<String>,
    /// `None` for physical replication.
    pub database: Option<String>,
    /// `None` on the Unix socket.
    pub address: Option<std::net::IpAddr>,
    pub port: Option<i32>,
    /// RFC 3339, UTC.
    pub since: String,
    pub tls: Option<String>,
    /// The certificate's serial, in decimal as the server shows it; `None` without a certificate.
    pub serial: Option<String>,
    /// The issuer's DN as the server shows it: `/O=…/CN=…`, cut at 63 bytes.
    pub issuer: Option<String>,
    /// The certificate's DN, cut at 63 bytes: for display only.
    pub subject: Option<String>,
    pub application: Option<String>,
}

/// A certificate whose sessions have to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Decimal, without leading zeros; see [`decimal`].
    pub serial: String,
    /// As the server shows it; see [`shown_dn`]. `None`: whoever issued it.
    pub issuer: Option<String>,
}

/// Live sessions of one cluster. Blocks.
///
/// # Errors
/// The server does not run or does not answer.
pub fn sessions(cluster: &Cluster) -> Result<Vec<Session>, PostgresError> {
    list(&Sql::connect(&Server::find(cluster)?)?, None)
}

/// The same of a server that was found before.
///
/// # Errors
/// As for [`sessions`].
pub fn sessions_at(server: &Server) -> Result<Vec<Session>, PostgresError> {
    list(&Sql::connect(server)?, None)
}

/// The same, and the process that served us meanwhile.
///
/// # Errors
/// As for [`sessions`].
pub fn sessions_and_self(server: &Server) -> Result<(i32, Vec<Session>), PostgresError> {
    let sql = Sql::connect(server)?;
    let own = sql.query("select pg_backend_pid()", &[])?;
    Ok((own.first().map_or(0, |row| row.get(0)), list(&sql, None)?))
}

/// Ends the live sessions of these certificates, on a standby too, and waits until they are gone. Blocks; does nothing
/// when the server is down. Sessions that were ended.
///
/// # Errors
/// The server does not answer, or a session outlives two seconds.
pub fn terminate_sessions(cluster: &Cluster, targets: &[Target]) -> Result<Vec<Session>, PostgresError> {
    terminate(&Server::find(cluster)?, targets)
}

pub(super) fn terminate(server: &Server, targets: &[Target]) -> Result<Vec<Session>, PostgresError> {
    if targets.is_empty() || server.running().is_none() {
        return Ok(Vec::new());
    }
    let sql = Sql::connect(server)?;
    let mut ended: Vec<Session> = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let live = tell_to_end(&sql, targets)?;
        if live.is_empty() {
            return Ok(ended);
        }
        if Instant::now() > deadline {
            return Err(PostgresError::NotProven {
                cluster: server.name.clone(),
                message: format!("{} sessions of what was revoked do not end", live.len()),
            });
        }
        add(&mut ended, live);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Tells these sessions to end and does not wait until they have: hundreds of them keep a server busy for a while.
pub(super) fn begin_to_end(server: &Server, targets: &[Target]) -> Result<Vec<Session>, PostgresError> {
    if targets.is_empty() || server.running().is_none() {
        return Ok(Vec::new());
    }
    tell_to_end(&Sql::connect(server)?, targets)
}

/// Those that there were.
fn tell_to_end(sql: &Sql, targets: &[Target]) -> Result<Vec<Session>, PostgresError> {
    let serials: &[&String] = &targets.iter().map(|t| &t.serial).collect::<Vec<_>>();
    let mut live = list(sql, Some(serials))?;
    live.retain(|session| targets.iter().any(|target| target.is_of(session)));
    if !live.is_empty() {
        // The serial again, in the same statement: a number may be another session's by now.
        sql.query(
            "select pg_terminate_backend(pid) from pg_stat_ssl where client_serial::text = any($1) and pid = any($2)",
            &[&serials, &live.iter().map(|s| s.pid).collect::<Vec<_>>()],
        )?;
    }
    Ok(live)
}

/// Each once, however often it was seen.
pub(super) fn add(ended: &mut Vec<Session>, more: Vec<Session>) {
    let seen: BTreeSet<i32> = ended.iter().map(|session| session.pid).collect();
    ended.extend(more.into_iter().filter(|session| !seen.contains(&session.pid)));
}

/// Roles that the configuration names and the server does not have. Blocks.
///
/// # Errors
/// The server does not run or does not answer.
pub fn missing_roles(cluster: &Cluster, config: &Config) -> Result<Vec<String>, PostgresError> {
    missing(&Sql::connect(&Server::find(cluster)?)?, config)
}

pub(super) fn missing(sql: &Sql, config: &Config) -> Result<Vec<String>, PostgresError> {
    let there: BTreeSet<String> = sql
        .column("select rolname::text from pg_roles", &[])?
        .into_iter()
        .collect();
    let identities = config.identities.iter().flat_map(|i| &i.roles);
    let named: BTreeSet<&String> = identities
        .chain(config.logins.iter().flat_map(|l| &l.roles))
        .collect();
    Ok(named
        .into_iter()
        .filter(|r| !there.contains(*r))
        .cloned()
        .collect())
}

impl Target {
    fn is_of(&self, session: &Session) -> bool {
        let serial = session.serial.as_ref() == Some(&self.serial);
        serial && (self.issuer.is_none() || self.issuer == session.issuer)
    }
}

/// A serial's big-endian bytes as the server shows them (`pg_stat_ssl.client_serial`).
pub fn decimal(serial: &[u8]) -> String {
    // Little-endian decimal digits; serials have at most 20 octets (RFC 5280 4.1.2.2).
    let mut digits: Vec<u8> = Vec::new();
    for byte in serial {
        let mut carry = u16::from(*byte);
        for digit in &mut digits {
            let value = u16::from(*digit) * 256 + carry;
            *digit = (value % 10) as u8;
            carry = value / 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    }
    if digits.is_empty() {
        return "0".to_owned();
    }
    digits.iter().rev().map(|d| char::from(b'0' + d)).collect()
}

/// A certificate's subject as the server shows it where it issued another: `/O=…/CN=…`, at most 63 bytes
/// (be-secure-openssl.c: `X509_NAME_to_cstring`, NAMEDATALEN). `None` when a part of it has no short name or holds what
/// would be escaped; then the serial alone has to do.
pub fn shown_dn(certificate: &[u8]) -> Option<String> {
    use x509_parser::objects::{oid_registry, oid2abbrev};
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let mut shown = String::new();
    for attribute in parsed.subject().iter_attributes() {
        let name = oid2abbrev(attribute.attr_type(), oid_registry()).ok()?;
        let value = attribute.as_str().ok()?;
        let escaped = |c: char| c.is_control() || !c.is_ascii() || ",+\"\\<>;#".contains(c);
        if value.contains(escaped) || value.starts_with(' ') || value.ends_with(' ') {
            return None;
        }
        shown.push_str(&format!("/{name}={value}"));
    }
    shown.truncate(63);
    Some(shown)
}

/// Whether the server has a superuser of this name.
///
/// # Errors
/// The server does not run, or does not answer.
pub fn is_superuser(cluster: &Cluster, name: &str) -> Result<bool, PostgresError> {
    let sql = Sql::connect(&Server::find(cluster)?)?;
    let found = sql.query(
        "select 1 from pg_catalog.pg_roles where rolsuper and rolname = $1",
        &[&name],
    )?;
    Ok(!found.is_empty())
}

/// Text that a database of another encoding may have put there: the server checks no name against the encoding of the one
/// that asks, and cuts a DN in the middle of a character.
struct Lossy(String);

impl<'a> FromSql<'a> for Lossy {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Lossy, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Lossy(String::from_utf8_lossy(raw).into_owned()))
    }

    fn accepts(of: &Type) -> bool {
        matches!(*of, Type::TEXT | Type::NAME | Type::VARCHAR)
    }
}

/// All of them, or those of these serials: of a thousand that end, each look would bring back all that go on.
pub(super) fn list(sql: &Sql, serials: Option<&[&String]>) -> Result<Vec<Session>, PostgresError> {
    let rows = sql.query(
        "select a.pid, a.usename::text, a.datname::text, host(a.client_addr), a.client_port, \
         to_char(a.backend_start at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
         case when s.ssl then s.version end, s.client_serial::text, s.issuer_dn, s.client_dn, a.application_name \
         from pg_stat_activity a join pg_stat_ssl s using (pid) \
         where a.backend_type in ('client backend', 'walsender') and a.pid <> pg_backend_pid() \
         and ($1::text[] is null or s.client_serial::text = any($1)) order by a.pid",
        &[&serials],
    )?;
    let name = |r: &tokio_postgres::Row, at| r.get::<_, Option<Lossy>>(at).map(|Lossy(text)| text);
    let session = |r: &tokio_postgres::Row| Session {
        pid: r.get(0),
        role: name(r, 1),
        database: name(r, 2),
        address: r.get::<_, Option<String>>(3).and_then(|a| a.parse().ok()),
        port: r.get(4),
        since: r.get::<_, Option<String>>(5).unwrap_or_default(),
        tls: r.get(6),
        serial: r.get(7),
        issuer: name(r, 8),
        subject: name(r, 9),
        application: name(r, 10),
    };
    Ok(rows.iter().map(session).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_as_the_server_shows_them() {
        // bytes, decimal
        let rows: [(&[u8], &str); 6] = [
            (&[], "0"),
            (&[0], "0"),
            (&[0, 9], "9"),
            (&[1, 0], "256"),
            (&[0xff; 8], "18446744073709551615"),
            (&[0x7f; 16], "169473963133173273960190490760135540607"),
        ];
        for (bytes, text) in rows {
            assert_eq!(decimal(bytes), text, "{bytes:?}");
        }
    }
}
