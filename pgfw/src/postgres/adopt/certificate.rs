//! The certificate that a server serves today: for which names, and whether somebody else signed it.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::is_host_name;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Served {
    /// Names and addresses; wildcards are left out.
    pub(super) names: Vec<String>,
    /// Not by itself: an authority that clients may know.
    pub(super) signed_by_another: bool,
}

/// The leaf of a PEM file.
pub(super) fn served(pem: &str) -> Option<Served> {
    let leaf = CertificateDer::pem_slice_iter(pem.as_bytes()).next()?.ok()?;
    let (_, leaf) = X509Certificate::from_der(&leaf).ok()?;
    let names = leaf.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => is_host_name(name).then(|| (*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|a| a.to_string()),
        GeneralName::OtherName(..)
        | GeneralName::RFC822Name(_)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::URI(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => None,
    });
    Some(Served {
        names: names.collect(),
        signed_by_another: leaf.issuer() != leaf.subject(),
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
