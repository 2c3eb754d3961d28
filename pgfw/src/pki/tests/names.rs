use proptest::prelude::*;
use rcgen::string::{BmpString, PrintableString};
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::names::openssl_hash;
use super::*;

/// The published file names are the ones under which OpenSSL looks.
#[test]
fn crl_files_bear_the_names_that_openssl_computes() {
    let lab = Lab::new();
    let mut expected = Vec::new();
    for authority in crate::ledger::types::Authority::ALL {
        for info in lab.store.authorities(authority).unwrap() {
            let hash = openssl_says(&["x509", "-subject_hash", "-noout", "-in", text(&info.certificate)]);
            assert_eq!(format!("{:08x}", info.name_hash), hash.trim());
            let file = lab.published().join(format!("{}.r0", hash.trim()));
            assert_eq!(
                openssl_says(&["crl", "-hash", "-noout", "-in", text(&file)]),
                hash
            );
            expected.push(file.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    let mut found = super::super::files::names_in(lab.published()).unwrap();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

fn value() -> impl Strategy<Value = DnValue> {
    prop_oneof![
        "[ \ta-zA-Z0-9äÖ漢=/,-]{0,80}".prop_map(DnValue::Utf8String),
        "[ A-Za-z0-9]{1,200}"
            .prop_map(|text| DnValue::PrintableString(PrintableString::try_from(text).unwrap())),
        "[ A-Za-zäÖ漢]{1,40}".prop_map(|text| DnValue::BmpString(BmpString::try_from(text).unwrap())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// For names of any shape: cases, blanks, scripts, string types, lengths, several attributes.
    #[test]
    fn the_hash_of_any_name_is_openssl_s(common in value(), organization in proptest::option::of(value())) {
        let mut dn = DistinguishedName::new();
        if let Some(organization) = organization {
            dn.push(DnType::OrganizationName, organization);
        }
        dn.push(DnType::CommonName, common);
        let mut params = CertificateParams::default();
        params.distinguished_name = dn;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.crt");
        std::fs::write(&file, certificate.pem()).unwrap();
        let expected = openssl_says(&["x509", "-subject_hash", "-noout", "-in", text(&file)]);
        let (_, x509) = X509Certificate::from_der(certificate.der()).unwrap();
        prop_assert_eq!(format!("{:08x}", openssl_hash(x509.subject())), expected.trim());
    }
}
