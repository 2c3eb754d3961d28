//! Revoking: `pgfw cert revoke NAME|SERIAL`. Idempotent, and nothing that closes waits for what cannot be written.

use serde::Serialize;

use super::publish::{CrlTargets, Publication, publish};
use super::store::Store;
use super::{PkiError, serial};
use crate::clock::WallTime;
use crate::ledger::Ledger;
use crate::ledger::types::{Authority, Certificate, Revocation, RevocationReason};

/// What `pgfw cert revoke` is told.
#[derive(Debug, Clone, Copy)]
pub struct RevokeRequest<'a> {
    /// A client certificate's name (all of its certificates), or the serial of any one.
    pub target: &'a str,
    pub reason: RevocationReason,
    pub requester: &'a str,
}

/// What is to be revoked; the rest of pgfw closes the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Selection {
    /// Certificates not revoked before and not expired.
    pub certificates: Vec<Certificate>,
    /// One per certificate, and per client authority for a serial that the ledger does not know.
    pub revocations: Vec<Revocation>,
    /// Certificates of the same target that were revoked before: their closing is made sure of again.
    pub already: Vec<Certificate>,
    /// Certificates of the same target that have expired: nothing takes them any more, but a session outlives them.
    pub expired: Vec<Certificate>,
}

/// What revoking did on the side of certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RevokeOutcome {
    pub selection: Selection,
    /// Whether the ledger has it. If not, the reason is among the publication's failures, and whoever called keeps
    /// [`Selection::revocations`] and tries again.
    pub recorded: bool,
    pub publication: Publication,
}

/// Finds what a target means. Nothing is changed.
///
/// # Errors
/// [`PkiError::UnknownTarget`]
pub fn select(
    store: &Store,
    ledger: &Ledger,
    request: &RevokeRequest<'_>,
    now: WallTime,
) -> Result<Selection, PkiError> {
    let RevokeRequest {
        target,
        reason,
        requester,
    } = *request;
    let revocation = |serial: &str, authority, authority_generation| Revocation {
        serial: serial.to_owned(),
        authority,
        authority_generation,
        revoked: now,
        reason,
        requester: requester.to_owned(),
    };
    let all = ledger.certificates()?;
    let mut chosen: Vec<&Certificate> = all
        .iter()
        .filter(|c| c.authority == Authority::Client && c.name == target)
        .collect();
    let digits = serial::parse(target);
    if chosen.is_empty() {
        chosen.extend(all.iter().filter(|c| Some(&c.serial) == digits.as_ref()));
    }
    let mut selection = Selection::default();
    for certificate in &chosen {
        if certificate.revoked.is_some() {
            selection.already.push((*certificate).clone());
        } else if now < certificate.not_after {
            selection.certificates.push((*certificate).clone());
            selection.revocations.push(revocation(
                &certificate.serial,
                certificate.authority,
                certificate.authority_generation,
            ));
        } else {
            selection.expired.push((*certificate).clone());
        }
    }
    if !chosen.is_empty() {
        return Ok(selection);
    }
    match digits {
        // A ledger that was lost or restored does not know it; whoever read the serial in a log still can revoke it.
        Some(serial) => {
            for generation in store.generations_there(Authority::Client)? {
                selection
                    .revocations
                    .push(revocation(&serial, Authority::Client, generation));
            }
            Ok(selection)
        }
        None => Err(PkiError::UnknownTarget {
            target: target.to_owned(),
            near: near(target, &all),
        }),
    }
}

/// Publishes and records a selection: the CRLs first, since the server reads them at its next connection.
///
/// `ledger`: `None` when it cannot be opened; the CRLs are published all the same.
///
/// # Errors
/// [`PkiError::NoAuthority`]; what could not be written is in the outcome.
pub fn carry_out(
    store: &Store,
    ledger: Option<&mut Ledger>,
    selection: Selection,
    targets: &CrlTargets,
    now: WallTime,
) -> Result<RevokeOutcome, PkiError> {
    let mut revocations = selection.revocations.clone();
    let mut unread = None;
    match ledger.as_deref().map(Ledger::revocations) {
        Some(Ok(known)) => revocations.extend(known),
        Some(Err(e)) => unread = Some(e),
        None => {}
    }
    let mut publication = publish(store, &revocations, targets, now)?;
    if let Some(error) = unread {
        publication.note(error);
    }
    let recorded = match ledger.map(|ledger| ledger.record_revocations(&selection.revocations)) {
        Some(Ok(_)) => true,
        Some(Err(error)) => {
            publication.note(error);
            false
        }
        None => false,
    };
    Ok(RevokeOutcome {
        selection,
        recorded,
        publication,
    })
}

/// [`select`] and [`carry_out`].
///
/// # Errors
/// [`PkiError::UnknownTarget`], [`PkiError::NoAuthority`]; what could not be written is in the outcome.
pub fn revoke(
    store: &Store,
    ledger: &mut Ledger,
    request: &RevokeRequest<'_>,
    targets: &CrlTargets,
    now: WallTime,
) -> Result<RevokeOutcome, PkiError> {
    let selection = select(store, ledger, request, now)?;
    carry_out(store, Some(ledger), selection, targets, now)
}

fn near(target: &str, all: &[Certificate]) -> Option<String> {
    let names: Vec<String> = all
        .iter()
        .filter(|c| c.authority == Authority::Client)
        .map(|c| c.name.clone())
        .collect();
    crate::config::near_miss(target, &names).map(str::to_owned)
}
