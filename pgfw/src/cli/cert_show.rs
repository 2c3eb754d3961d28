//! `pgfw cert list | show | export-crl`: what is known of certificates, for people and for programs.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::passphrase::Asked;
use super::{Context, output};
use crate::clock::{Now, WallTime};
use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::ledger::types::{Certificate, RevocationReason};
use crate::ops::Engine;
use crate::pki::{self, Life, Store};

pub(super) fn list(context: &Context) -> Result<ExitCode, Failure> {
    let now = Now::read().wall();
    let mut certificates = Engine::look(&context.paths)?.ledger().certificates()?;
    // What ends soon is what this list is read for.
    certificates.sort_by_key(|c| (!c.valid_at(now), c.not_after));
    if context.json {
        output::json(&certificates);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = certificates.iter().map(|c| {
        vec![
            c.name.clone(),
            c.authority.to_string(),
            state(c, now),
            c.not_after.rfc3339(),
            c.serial.clone(),
            c.requester.clone(),
        ]
    });
    output::table(
        &["name", "kind", "state", "valid until", "serial", "issued by"],
        rows,
    );
    Ok(ExitCode::SUCCESS)
}

pub(super) fn show(context: &Context, target: &str) -> Result<ExitCode, Failure> {
    let now = Now::read().wall();
    let all = Engine::look(&context.paths)?.ledger().certificates()?;
    let serial = target.replace(':', "").to_ascii_lowercase();
    let found: Vec<Shown> = all
        .iter()
        .filter(|c| c.name == target || c.serial == serial)
        .map(|certificate| Shown {
            certificate,
            state: state(certificate, now),
            renew_at: Life::from(certificate).renew_at(),
            serial_decimal: certificate.serial_decimal(),
        })
        .collect();
    if found.is_empty() {
        return Err(Failure::new(
            Code::NotFound,
            format!("no certificate is named `{target}`, and none has that serial"),
            "`pgfw cert list` shows names and serials (32 hexadecimal digits).",
        ));
    }
    if context.json {
        output::json(&found);
    } else {
        found.iter().for_each(print);
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    certificate: &'a Certificate,
    state: String,
    /// When a server's is renewed, and a client's should be.
    renew_at: WallTime,
    /// As `pg_stat_ssl` shows it.
    serial_decimal: Option<String>,
}

fn print(shown: &Shown<'_>) {
    let Shown {
        certificate,
        state,
        renew_at,
        serial_decimal,
    } = shown;
    let Certificate {
        serial,
        authority,
        authority_generation,
        name: _,
        subject_dn,
        not_before,
        not_after,
        issued,
        requester,
        reason,
        revoked: _,
        revoke_reason,
        pem: _,
    } = certificate;
    println!("{subject_dn}: {state}");
    println!("  serial       {serial}");
    if let Some(decimal) = serial_decimal {
        println!("  pg_stat_ssl  {decimal}");
    }
    println!("  authority    {authority}, generation {authority_generation}");
    println!(
        "  valid        {} to {}",
        not_before.rfc3339(),
        not_after.rfc3339()
    );
    println!("  renew at     {}", renew_at.rfc3339());
    println!("  issued       {} by {requester}", issued.rfc3339());
    if let Some(reason) = reason {
        println!("  for          {reason}");
    }
    if let Some(reason) = revoke_reason {
        println!("  revoked for  {}", words(*reason));
    }
}

/// In the words of `cert revoke --reason`.
const fn words(reason: RevocationReason) -> &'static str {
    match reason {
        RevocationReason::Unspecified => "unspecified",
        RevocationReason::KeyCompromise => "key-compromise",
        RevocationReason::AffiliationChanged => "affiliation-changed",
        RevocationReason::Superseded => "superseded",
        RevocationReason::CessationOfOperation => "cessation-of-operation",
        RevocationReason::PrivilegeWithdrawn => "privilege-withdrawn",
    }
}

fn state(certificate: &Certificate, now: WallTime) -> String {
    match certificate.revoked {
        Some(at) => format!("revoked {}", at.rfc3339()),
        None if certificate.valid_at(now) => "valid".into(),
        None if now < certificate.not_before => "not yet valid".into(),
        None => "expired".into(),
    }
}

pub(super) fn export_crl(context: &Context, folder: Option<&Path>) -> Result<ExitCode, Failure> {
    let store = Store::new(Config::read(&context.paths.config)?.pki.directory);
    let text = pki::export(&store, folder)?;
    match folder {
        _ if context.json => output::json(&Exported { folder, pem: &text }),
        Some(folder) => println!("The CRLs are in {}.", folder.display()),
        None => print!("{text}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// With a passphrase that the daemon was not given, or a key that is brought for this alone.
pub(super) fn publish_crl(context: &Context) -> Result<ExitCode, Failure> {
    let until = context.unlocked(Asked::Once, || Engine::open(&context.paths)?.publish_lists())?;
    if context.json {
        output::json(&serde_json::json!({ "until": until }));
    } else if let Some(until) = until {
        println!("The CRLs are published and hold until {}.", until.rfc3339());
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Exported<'a> {
    folder: Option<&'a Path>,
    pem: &'a str,
}
