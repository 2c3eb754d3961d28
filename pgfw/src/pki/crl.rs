//! One certificate revocation list: what a file says, and how a new one is signed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::authority::{AuthorityInfo, SigningAuthority, date};
use super::{PkiError, files, pem, serial};
use crate::clock::WallTime;
use crate::ledger::types::RevocationReason;

/// OpenSSL refuses every certificate while thisUpdate lies ahead; an hour back, a clock that is set back locks
/// nobody out.
const BACKDATED_SECONDS: i64 = 3600;

/// What one CRL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Crl {
    pub(super) number: u64,
    pub(super) this_update: WallTime,
    pub(super) next_update: WallTime,
    pub(super) revoked: Revoked,
}

/// By serial: since when, and why.
pub(super) type Revoked = BTreeMap<String, (WallTime, RevocationReason)>;

impl Crl {
    /// Reads a file; `None` when there is none. A list that `issuer` did not sign is damage.
    pub(super) fn read(file: &Path, issuer: &AuthorityInfo) -> Result<Option<Crl>, PkiError> {
        let damaged = |detail: String| PkiError::Damaged {
            file: file.to_owned(),
            detail,
        };
        let Some(text) = files::read_if_there(file)? else {
            return Ok(None);
        };
        let der = pem::crl(&text, file)?;
        let (_, list) = CertificateRevocationList::from_der(&der).map_err(|e| damaged(e.to_string()))?;
        let ca = pem::certificate(&files::read(&issuer.certificate)?, &issuer.certificate)?;
        let (_, ca) =
            x509_parser::certificate::X509Certificate::from_der(&ca).map_err(|e| damaged(e.to_string()))?;
        list.verify_signature(ca.public_key())
            .map_err(|_| damaged(format!("{} did not sign it", issuer.certificate.display())))?;
        let next_update = list
            .next_update()
            .ok_or_else(|| damaged("it has no nextUpdate".into()))?;
        let number = list.crl_number().map(|n| n.to_bytes_be()).unwrap_or_default();
        let revoked = list.iter_revoked_certificates().map(|entry| {
            let reason = entry.reason_code().map_or(0, |(_, code)| code.0);
            let since = WallTime(entry.revocation_date.timestamp());
            (
                serial::hex(entry.raw_serial()),
                (since, RevocationReason::from_number(reason)),
            )
        });
        Ok(Some(Crl {
            number: number.iter().fold(0, |n: u64, byte| {
                n.saturating_mul(256).saturating_add(u64::from(*byte))
            }),
            this_update: WallTime(list.last_update().timestamp()),
            next_update: WallTime(next_update.timestamp()),
            revoked: revoked.collect(),
        }))
    }

    /// A list of `revoked` as of `now`; its number is above `former`'s, and by the clock above that of any list
    /// that was lost.
    pub(super) fn next(former: u64, revoked: Revoked, ttl: Duration, now: WallTime) -> Crl {
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        Crl {
            number: former.saturating_add(1).max(u64::try_from(now.0).unwrap_or(0)),
            this_update: WallTime(now.0 - BACKDATED_SECONDS),
            next_update: WallTime(now.0.saturating_add(ttl)),
            revoked,
        }
    }

    /// Signed, in PEM.
    pub(super) fn sign(&self, authority: &SigningAuthority) -> Result<String, PkiError> {
        let Crl {
            number,
            this_update,
            next_update,
            revoked,
        } = self;
        let entries = revoked.iter().filter_map(|(digits, (since, reason))| {
            Some(RevokedCertParams {
                serial_number: serial::number(digits)?,
                revocation_time: date(*since),
                reason_code: Some(code(*reason)),
                invalidity_date: None,
            })
        });
        CertificateRevocationListParams {
            this_update: date(*this_update),
            next_update: date(*next_update),
            crl_number: SerialNumber::from(*number),
            issuing_distribution_point: None,
            revoked_certs: entries.collect(),
            key_identifier_method: KeyIdMethod::PreSpecified(authority.info.key_identifier.clone()),
        }
        .signed_by(authority.issuer())
        .and_then(|list| list.pem())
        .map_err(PkiError::crypto(format!(
            "the CRL of the {} authority",
            authority.info.authority
        )))
    }
}

/// Joins what two sources say; of two times the earlier counts.
pub(super) fn join(
    into: &mut Revoked,
    other: impl IntoIterator<Item = (String, (WallTime, RevocationReason))>,
) {
    for (serial, said) in other {
        let known = into.entry(serial).or_insert(said);
        if said.0 < known.0 {
            *known = said;
        }
    }
}

const fn code(reason: RevocationReason) -> rcgen::RevocationReason {
    match reason {
        RevocationReason::Unspecified => rcgen::RevocationReason::Unspecified,
        RevocationReason::KeyCompromise => rcgen::RevocationReason::KeyCompromise,
        RevocationReason::AffiliationChanged => rcgen::RevocationReason::AffiliationChanged,
        RevocationReason::Superseded => rcgen::RevocationReason::Superseded,
        RevocationReason::CessationOfOperation => rcgen::RevocationReason::CessationOfOperation,
        RevocationReason::PrivilegeWithdrawn => rcgen::RevocationReason::PrivilegeWithdrawn,
    }
}
