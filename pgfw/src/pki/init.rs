//! `pgfw ca init`: the two authorities, their first CRLs and the canary.

use std::path::Path;
use std::time::Duration;

use super::authority::{AuthorityInfo, CRL_FILE, SigningAuthority};
use super::crl::{Crl, Revoked};
use super::key::Key;
use super::leaf::Leaf;
use super::store::{CANARY_CERTIFICATE, CANARY_KEY, Store};
use super::{PkiError, files};
use crate::clock::WallTime;
use crate::ledger::Ledger;
use crate::ledger::types::{Authority, Revocation, RevocationReason};

/// The CN of the certificate that is revoked from birth: a server that lets it in does not check revocation.
pub const CANARY: &str = "pgfw-canary";

/// What `pgfw ca init` is told.
#[derive(Debug, Clone, Copy)]
pub struct InitRequest<'a> {
    /// This host's name, for the authorities' own names.
    pub host: &'a str,
    /// `pki.crl_ttl`.
    pub crl_ttl: Duration,
    pub requester: &'a str,
}

/// Makes both authorities, or after a crash the one that is missing.
///
/// # Errors
/// [`PkiError::AuthoritiesExist`]; [`PkiError::AuthorityLost`] where the ledger remembers leaves of a missing one.
pub fn init(
    store: &Store,
    ledger: &mut Ledger,
    request: &InitRequest<'_>,
    now: WallTime,
) -> Result<Vec<AuthorityInfo>, PkiError> {
    let mut missing = Vec::new();
    for authority in Authority::ALL {
        if store.generations_there(authority)?.is_empty() {
            missing.push(authority);
        }
    }
    if missing.is_empty() {
        return Err(PkiError::AuthoritiesExist {
            directory: store.directory().to_owned(),
        });
    }
    for certificate in ledger.certificates()? {
        // A canary alone is what a crash in the middle of this function leaves.
        if missing.contains(&certificate.authority) && certificate.name != CANARY {
            return Err(PkiError::AuthorityLost {
                authority: certificate.authority,
                folder: store.family(certificate.authority),
            });
        }
    }
    store.can_write_keys()?;
    files::make_folder(store.directory(), 0o700)?;
    for authority in missing {
        files::make_folder(&store.family(authority), 0o700)?;
        // The first, unless it is said that a later one signs.
        let signs = store.rotation(authority)?.phase.signs();
        files::make_folder_with(&store.generation(authority, signs), |folder| {
            fill(store, folder, authority, signs, ledger, request, now)
        })?;
    }
    let mut infos = store.authorities(Authority::Server)?;
    infos.extend(store.authorities(Authority::Client)?);
    Ok(infos)
}

/// One generation: key, certificate, an empty list, and of clients the canary.
pub(super) fn fill(
    store: &Store,
    folder: &Path,
    authority: Authority,
    generation: u32,
    ledger: &mut Ledger,
    request: &InitRequest<'_>,
    now: WallTime,
) -> Result<(), PkiError> {
    let InitRequest {
        host,
        crl_ttl,
        requester,
    } = *request;
    let signing = SigningAuthority::create(store, authority, generation, host, folder, now)?;
    let mut revoked = Revoked::new();
    if authority == Authority::Client {
        let key = Key::generate()?;
        let leaf = Leaf {
            name: CANARY,
            alternatives: Vec::new(),
            ttl: Duration::from_secs(u64::MAX), // as long as its issuer: it is to be refused as revoked, never as expired
            requester,
            reason: Some("revoked from birth, to try revocation with"),
        };
        let canary = leaf.sign(&signing, &key, now)?;
        key.write(&folder.join(CANARY_KEY))?;
        files::write(
            &folder.join(CANARY_CERTIFICATE),
            canary.pem.as_bytes(),
            files::PUBLIC,
        )?;
        let reason = RevocationReason::CessationOfOperation;
        revoked.insert(canary.serial.clone(), (now, reason));
        ledger.record_certificate(&canary)?;
        ledger.record_revocations(&[Revocation {
            serial: canary.serial,
            authority,
            authority_generation: canary.authority_generation,
            revoked: now,
            reason,
            requester: requester.to_owned(),
        }])?;
    }
    let crl = Crl::next(0, revoked, crl_ttl, now).sign(&signing)?;
    files::write(&folder.join(CRL_FILE), crl.as_bytes(), files::PUBLIC)
}
