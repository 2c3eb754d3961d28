//! Proof, from the server itself, that a generation counts.
//!
//! `pg_reload_conf()` returns true for a broken file, and SHOW then displays what is not in force. What cannot lie: a
//! marker line that only these two files hold answers, and the certificate that is served is the new one.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::hba::PROBE_ROLE;
use super::sql::Sql;
use super::tls::{self, Credential, Version};
use super::wire::{self, Answer, Startup};
use super::{Running, Server, TlsMaterial};

/// Whether the server has loaded the pair of files that holds `marker`, and no other.
///
/// Two questions: the marker's role must get in, which takes the new pg_hba.conf *and* the new pg_ident.conf (a
/// reload takes each file by itself); any other role must not, since under an old `local all all trust` all get in.
///
/// # Errors
/// The server cannot be asked (it starts, or is full): no answer either way.
pub fn marker_loaded(running: &Running, marker: &str) -> io::Result<bool> {
    let ask = |user| {
        let socket = running
            .socket()
            .ok_or_else(|| io::Error::other("the server has no Unix socket"))?;
        let mut stream = wire::connect_unix(&socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let startup = Startup {
            user,
            database: marker,
            replication: false,
        };
        match wire::start_up(&mut stream, &startup)? {
            Answer::Ok => Ok(true),
            Answer::Refused { sqlstate, message: _ } if sqlstate == "28000" => Ok(false),
            Answer::Password(_) | Answer::Other(_) => Ok(false),
            Answer::Refused { sqlstate, message } => Err(io::Error::other(format!("{message} ({sqlstate})"))),
        }
    };
    Ok(ask(PROBE_ROLE)? && !ask("nobody-else")?)
}

/// Waits until the server has done its reload, and says whether it then holds the marker's files.
///
/// A reload is asynchronous. It is over when the marker answers, or when a session that began after it sees another
/// load time: the postmaster reads everything in one go, between two connections (postmaster.c: `SIGHUP_handler`,
/// `process_pm_reload_request` from 16 on).
pub(super) fn await_marker(
    server: &Server,
    running: &Running,
    marker: &str,
    before: Option<&str>,
) -> Result<(), String> {
    await_answer(server, running, marker, before, true)
        .map_err(|e| e.unwrap_or_else(|| "the rules it answers by are others".to_owned()))
}

/// Waits until the server no longer answers to `marker`. Proves that it read the files in their place where those are
/// known to be good: of a bad pg_hba.conf and a good pg_ident.conf it takes the second, and then the marker goes too.
pub(super) fn await_gone(
    server: &Server,
    running: &Running,
    marker: &str,
    before: Option<&str>,
) -> Result<(), String> {
    await_answer(server, running, marker, before, false)
        .map_err(|e| e.unwrap_or_else(|| "it does not read its files again".to_owned()))
}

/// Waits until the marker answers (`wanted`) or no longer does. Otherwise why not; `None`: time ran out, and the server
/// goes by what it had.
fn await_answer(
    server: &Server,
    running: &Running,
    marker: &str,
    before: Option<&str>,
    wanted: bool,
) -> Result<(), Option<String>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = marker_loaded(running, marker);
        if seen.as_ref().is_ok_and(|loaded| *loaded == wanted) {
            return Ok(());
        }
        let now = load_time(server, running);
        if before.is_some() && now.is_some() && now.as_deref() != before {
            return match marker_loaded(running, marker) {
                Ok(loaded) if loaded == wanted => Ok(()),
                Ok(_) => Err(Some("it reloaded and kept the rules it had".to_owned())),
                Err(e) => Err(Some(format!("it reloaded and cannot be asked: {e}"))),
            };
        }
        if Instant::now() > deadline {
            return Err(seen.err().map(|e| format!("it cannot be asked: {e}")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// When the postmaster last read its configuration, as a new session inherits it.
pub(super) fn load_time(server: &Server, running: &Running) -> Option<String> {
    let sql = Sql::connect_to(server, running).ok()?;
    sql.column("select pg_conf_load_time()::text", &[]).ok()?.pop()
}

/// Checks over TLS that the server serves the new certificate and asks for certificates of these client authorities, each
/// of them and no other (it sends the names of `ssl_ca_file` as they stand there: be-secure-openssl.c,
/// `SSL_CTX_set_client_CA_list`). `None` when it listens on no TCP address.
pub(super) fn served(running: &Running, material: &TlsMaterial) -> Result<Option<String>, String> {
    let Some(address) = running.tcp() else {
        return Ok(None);
    };
    let session = tls::connect(address, None, Version::V1_3).map_err(|e| format!("TLS on {address}: {e}"))?;
    let served = session.served().ok_or("it serves no certificate")?;
    let wanted = first_certificate(&material.server_cert_pem)?;
    if served != wanted {
        return Err(format!(
            "on {address} it serves the certificate with serial {}, not {}",
            serial(&served)?,
            serial(&wanted)?
        ));
    }
    let asked = session.authorities();
    let trusted = subjects(&material.client_ca_pem)?;
    if trusted.iter().any(|name| !asked.contains(name)) {
        return Err(format!(
            "on {address} it does not ask for certificates of the client authority"
        ));
    }
    if asked.iter().any(|name| !trusted.contains(name)) {
        return Err(format!(
            "on {address} it asks for certificates of another authority than pgfw's too"
        ));
    }
    if let Some(canary) = &material.canary {
        refuses(address, canary)?;
    }
    serial(&wanted).map(Some)
}

/// Whether a revoked certificate is refused as such. Under TLS 1.3 the server's alert comes after the client's part of the
/// handshake (RFC 8446 section 4.4.4).
fn refuses(address: SocketAddr, (certificate, key): &(String, String)) -> Result<(), String> {
    let credential = Credential { certificate, key };
    let startup = Startup {
        user: PROBE_ROLE,
        database: PROBE_ROLE,
        replication: false,
    };
    let tried = tls::connect(address, Some(credential), Version::V1_3)
        .and_then(|mut session| session.start_up(&startup));
    match tried {
        Err(error) if is_revoked(&error) => Ok(()),
        Err(error) => Err(format!(
            "on {address} it does not say of a revoked certificate that it is revoked: {error}"
        )),
        Ok(_) => Err(format!(
            "on {address} it takes a revoked certificate for a good one"
        )),
    }
}

fn is_revoked(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    inner
        == Some(&rustls::Error::AlertReceived(
            rustls::AlertDescription::CertificateRevoked,
        ))
}

/// The leaf of a PEM chain.
pub(super) fn first_certificate(pem: &str) -> Result<CertificateDer<'static>, String> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| e.to_string())
}

/// Upper-case hexadecimal, as OpenSSL prints it.
fn serial(certificate: &CertificateDer) -> Result<String, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|e| e.to_string())?;
    let digits: String = parsed.raw_serial().iter().map(|b| format!("{b:02X}")).collect();
    Ok(digits.trim_start_matches("00").to_owned())
}

/// The names of the authorities in a PEM text, DER.
pub(super) fn subjects(pem: &str) -> Result<Vec<Vec<u8>>, String> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(|authority| subject(&authority.map_err(|e| e.to_string())?))
        .collect()
}

fn subject(certificate: &CertificateDer) -> Result<Vec<u8>, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|e| e.to_string())?;
    Ok(parsed.subject().as_raw().to_vec())
}

const PATIENCE: Duration = Duration::from_secs(10);
