//! When a certificate is to be replaced, by the one clock that its end is on.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::FromDer;

use super::{PkiError, serial};
use crate::clock::WallTime;
use crate::ledger::types::Certificate;

/// What a certificate says of itself, whoever issued it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// 32 lowercase hexadecimal digits, or more for one of another authority.
    pub serial: String,
    pub not_before: WallTime,
    pub not_after: WallTime,
}

impl Life {
    /// Of the first certificate in a PEM text.
    ///
    /// # Errors
    /// [`PkiError::Damaged`] with this `file`'s name.
    pub fn of_pem(pem: &str, file: &std::path::Path) -> Result<Life, PkiError> {
        let damaged = |detail: String| PkiError::Damaged {
            file: file.to_owned(),
            detail,
        };
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| damaged("it holds no CERTIFICATE in PEM".into()))?;
        let (_, x509) =
            x509_parser::certificate::X509Certificate::from_der(&der).map_err(|e| damaged(e.to_string()))?;
        Ok(Life {
            serial: serial::hex(x509.raw_serial()),
            not_before: WallTime(x509.validity().not_before.timestamp()),
            not_after: WallTime(x509.validity().not_after.timestamp()),
        })
    }

    /// Two thirds of its life, less up to a twentieth of it: what was issued together is not renewed together. The
    /// serial is random, so it is the jitter too, and every look finds the same moment.
    pub fn renew_at(&self) -> WallTime {
        let life = self.not_after.0.saturating_sub(self.not_before.0).max(0);
        let digits = self.serial.get(self.serial.len().saturating_sub(4)..);
        let lot = digits.and_then(|d| i64::from_str_radix(d, 16).ok()).unwrap_or(0);
        let earlier = (life / 20).saturating_mul(lot) / 0xffff;
        WallTime(self.not_before.0 + life / 3 * 2 - earlier)
    }

    /// With a sixth of its life left, its renewal has failed for as long as that again.
    pub fn alarm_at(&self) -> WallTime {
        let life = self.not_after.0.saturating_sub(self.not_before.0).max(0);
        WallTime(self.not_after.0 - life / 6)
    }
}

impl From<&Certificate> for Life {
    fn from(certificate: &Certificate) -> Life {
        Life {
            serial: certificate.serial.clone(),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
        }
    }
}
