//! Throwaway authorities and certificates for a scratch server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// A self-signed authority.
#[derive(Debug)]
pub struct Authority {
    pub certificate: String,
    pub der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub certificate: String,
    pub key: String,
    /// Big-endian.
    pub serial: Vec<u8>,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Authority {
            certificate: certificate.pem(),
            der: certificate.der().to_vec(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate to log in with; `serial` has to be new.
    pub fn client(&self, name: &str, serial: &[u8]) -> Leaf {
        self.leaf(name, serial, ExtendedKeyUsagePurpose::ClientAuth)
    }

    pub fn server(&self, name: &str, serial: &[u8]) -> Leaf {
        self.leaf(name, serial, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn leaf(&self, name: &str, serial: &[u8], usage: ExtendedKeyUsagePurpose) -> Leaf {
        let mut params = params(name);
        params.serial_number = Some(SerialNumber::from_slice(serial));
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Leaf {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            serial: serial.to_vec(),
        }
    }

    /// Publishes a CRL in `directory`, under the name OpenSSL looks for, by rename.
    pub fn publish(&self, directory: &Path, revoked: &[&Leaf]) -> PathBuf {
        let now = OffsetDateTime::now_utc();
        let list = CertificateRevocationListParams {
            this_update: now - Duration::HOUR,
            next_update: now + Duration::DAY,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|leaf| RevokedCertParams {
                    serial_number: SerialNumber::from_slice(&leaf.serial),
                    revocation_time: now - Duration::MINUTE,
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = list.signed_by(&self.issuer).expect("a list").pem().expect("PEM");
        fs::create_dir_all(directory).expect("a directory");
        let fresh = directory.join("fresh");
        super::write(&fresh, &pem);
        let hash = Command::new("openssl")
            .args(["crl", "-hash", "-noout", "-in"])
            .arg(&fresh)
            .output()
            .expect("openssl");
        let name = String::from_utf8_lossy(&hash.stdout).trim().to_owned();
        let path = directory.join(format!("{name}.r0"));
        fs::rename(&fresh, &path).expect("rename");
        path
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - Duration::HOUR;
    params.not_after = OffsetDateTime::now_utc() + Duration::DAY;
    params
}
