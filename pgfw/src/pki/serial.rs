//! Serial numbers: random, 16 bytes, 32 hexadecimal digits everywhere.

use rcgen::SerialNumber;
use ring::rand::{SecureRandom, SystemRandom};

use super::PkiError;

const BYTES: usize = 16;

/// A fresh serial: positive and of 16 bytes in DER, so that every tool prints the same 32 digits. 126 of its bits
/// are random (RFC 5280 section 4.1.2.2 wants unique and positive; the CA/Browser Forum 64 random bits).
pub(super) fn random() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0; BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| PkiError::NoRandomness)?;
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// As the ledger writes it; DER's leading zero is not part of the number.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes
        .iter()
        .skip_while(|b| **b == 0)
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("{digits:0>32}")
}

/// The number behind the ledger's digits.
pub(super) fn number(hex: &str) -> Option<SerialNumber> {
    let bytes = (0..hex.len())
        .step_by(2)
        .map(|i| {
            hex.get(i..i + 2)
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
        })
        .collect::<Option<Vec<u8>>>()?;
    Some(SerialNumber::from_slice(&bytes))
}

/// A serial as a person copies it: upper or lower case, with colons or without.
pub(super) fn parse(text: &str) -> Option<String> {
    let digits: String = text
        .chars()
        .filter(|c| *c != ':')
        .collect::<String>()
        .to_ascii_lowercase();
    (digits.len() == 2 * BYTES && digits.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digits)
}
