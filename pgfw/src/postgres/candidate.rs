//! What an apply puts in force: the files of a generation, and what TLS material is fit for them.

use std::path::Path;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use super::hba::{self, Input, Rendered};
use super::settings::{self, CLIENT_CA, CONF, HBA, IDENT, SERVER_CERT, SERVER_KEY};
use super::stage::Files;
use super::tls::{self, Credential};
use super::{Owner, PostgresError, Server, TlsMaterial, owner};
use crate::config::{Cluster, Config};
use crate::policy::access;

/// Refuses material that the server would refuse, or that would lock everybody out.
pub(super) fn check(cluster: &Cluster, material: &TlsMaterial, owner: &Owner) -> Result<(), PostgresError> {
    let unfit = |message: String| PostgresError::Material {
        cluster: cluster.name.clone(),
        message,
    };
    let credential = Credential {
        certificate: &material.server_cert_pem,
        key: &material.server_key_pem,
    };
    tls::certified(credential, &ring::default_provider())
        .map_err(|e| unfit(format!("server certificate and key: {e}")))?;
    let authorities: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(material.client_ca_pem.as_bytes()).collect();
    match authorities {
        Ok(all) if !all.is_empty() => {}
        Ok(_) => return Err(unfit("there is no client authority".to_owned())),
        Err(e) => return Err(unfit(format!("client authority: {e}"))),
    }
    // A directory without the issuer's CRL refuses every certificate ("unable to get certificate CRL").
    let any = owner.act(|| {
        let mut entries = std::fs::read_dir(&material.crl_dir)?;
        Ok(entries.any(|e| e.is_ok_and(|e| std::fs::File::open(e.path()).is_ok())))
    });
    match any {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(PostgresError::NoCrl {
            path: material.crl_dir.clone(),
            user: owner.name.clone(),
        }),
    }
}

/// The texts of a generation, and its marker: a digest of everything but the key (whose certificate is in it).
pub(super) struct Texts {
    pub(super) hba: String,
    pub(super) ident: String,
    pub(super) conf: String,
    pub(super) marker: String,
}

/// What is rendered for a server that serves this certificate and trusts these authorities, both PEM.
pub(super) fn texts(
    cluster: &Cluster,
    config: &Config,
    server: &Server,
    (server_cert_pem, client_ca_pem): (&str, &str),
    crl_dir: &Path,
    current: &Path,
) -> Result<Texts, PostgresError> {
    let cells = access::compile(config)?;
    let operator = owner::operator().map_err(PostgresError::file(
        "cannot name the user behind",
        Path::new("/proc/self"),
    ))?;
    let rendered = |marker: &str| {
        hba::render(&Input {
            cluster,
            cells: &cells,
            major: server.major,
            operator: &operator,
            owner: &server.owner.name,
            superuser: &server.owner.name,
            marker,
        })
    };
    let crl_dir = std::path::absolute(crl_dir).map_err(PostgresError::file("cannot find", crl_dir))?;
    let conf = settings::render(&settings::settings(cluster, current, &crl_dir));
    let blank = rendered(&hba::marker(""))?;
    let mut hash = Sha256::new();
    for part in [
        conf.as_str(),
        server_cert_pem,
        client_ca_pem,
        &blank.hba,
        &blank.ident,
    ] {
        hash.update(part);
        hash.update([0]);
    }
    let marker = hba::marker(&hba::short_hex(&hash.finalize()));
    let Rendered { hba, ident } = rendered(&marker)?;
    Ok(Texts {
        hba,
        ident,
        conf,
        marker,
    })
}

/// All files of the generation, and its marker.
pub(super) fn files(
    cluster: &Cluster,
    config: &Config,
    server: &Server,
    material: &TlsMaterial,
    current: &Path,
) -> Result<(Files, String), PostgresError> {
    let pems = (material.server_cert_pem.as_str(), material.client_ca_pem.as_str());
    let Texts {
        hba,
        ident,
        conf,
        marker,
    } = texts(cluster, config, server, pems, &material.crl_dir, current)?;
    let files = vec![
        (HBA, hba.into_bytes()),
        (IDENT, ident.into_bytes()),
        (CONF, conf.into_bytes()),
        (SERVER_CERT, material.server_cert_pem.clone().into_bytes()),
        (SERVER_KEY, material.server_key_pem.clone().into_bytes()),
        (CLIENT_CA, material.client_ca_pem.clone().into_bytes()),
    ];
    Ok((files, marker))
}
