//! Distinguished names: OpenSSL's hash of one, PostgreSQL's spelling of one.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use x509_parser::asn1_rs::Tag;
use x509_parser::x509::X509Name;

/// The hash by which OpenSSL finds a CRL or a CA in a folder; printed with `%08x` it is the file's name.
///
/// The first four bytes, little-endian, of the SHA-1 of the canonical encoding (`X509_NAME_hash_ex` and
/// `x509_name_canon` in crypto/x509/x_name.c). A wrong name is a CRL that is never found, and PostgreSQL then
/// refuses every certificate.
pub(super) fn openssl_hash(name: &X509Name<'_>) -> u32 {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &canonical(name));
    let first = hash.as_ref().first_chunk().expect("SHA-1 has 20 bytes");
    u32::from_le_bytes(*first)
}

/// `X509_NAME` as PostgreSQL prints it (`X509_NAME_to_cstring` in be-secure-openssl.c) for names of common names only.
pub(super) fn postgres_dn(common_name: &str) -> String {
    format!("/CN={common_name}")
}

/// The RDNs one after the other, without the outer SEQUENCE; strings as UTF-8 in lower case with single blanks.
fn canonical(name: &X509Name<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for rdn in name.iter_rdn() {
        let mut attributes: Vec<Vec<u8>> = rdn
            .iter()
            .map(|attribute| {
                let value = attribute.attr_value();
                let (tag, bytes) = match utf8(value.tag(), value.data) {
                    Some(text) => (Tag::Utf8String.0, fold(&text)),
                    None => (value.tag().0, value.data.to_vec()),
                };
                let mut pair = tlv(0x06, attribute.attr_type().as_bytes());
                pair.extend(tlv(tag.to_be_bytes()[3], &bytes));
                tlv(0x30, &pair)
            })
            .collect();
        // DER: the members of a SET OF stand in ascending order.
        attributes.sort();
        out.extend(tlv(0x31, &attributes.concat()));
    }
    out
}

/// The string types of `ASN1_MASK_CANON`; anything else is hashed as it is.
fn utf8(tag: Tag, bytes: &[u8]) -> Option<String> {
    let latin1 = || bytes.iter().map(|b| char::from(*b)).collect();
    let wide = |width: usize| {
        bytes
            .chunks(width)
            .map(|unit| unit.iter().fold(0u32, |code, b| (code << 8) | u32::from(*b)))
            .map(char::from_u32)
            .collect::<Option<String>>()
    };
    match tag {
        Tag::Utf8String => String::from_utf8(bytes.to_vec()).ok(),
        Tag::PrintableString | Tag::T61String | Tag::Ia5String | Tag::VisibleString => Some(latin1()),
        Tag::BmpString => wide(2),
        Tag::UniversalString => wide(4),
        _ => None,
    }
}

/// ASCII blanks trimmed and collapsed, ASCII letters in lower case; everything else untouched (`asn1_string_canon`).
fn fold(text: &str) -> Vec<u8> {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r');
    let words: Vec<Vec<u8>> = text
        .as_bytes()
        .split(blank)
        .filter(|word| !word.is_empty())
        .map(<[u8]>::to_ascii_lowercase)
        .collect();
    words.join(&b' ')
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|b| **b == 0).count()..];
    match (content.len(), significant) {
        (0..=127, _) => out.push(content.len().to_be_bytes()[length.len() - 1]),
        (_, bytes) => {
            out.push(0x80 | bytes.len().to_be_bytes()[length.len() - 1]);
            out.extend(bytes);
        }
    }
    out.extend(content);
    out
}
