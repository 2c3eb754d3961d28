//! Why an authority, a certificate or a CRL could not be made or read.

use std::io::ErrorKind;
use std::path::PathBuf;

use crate::clock::WallTime;
use crate::failure::{Code, Explain};
use crate::ledger::LedgerError;
use crate::ledger::types::Authority;

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("there is no {authority} authority in {}", directory.display())]
    NoAuthority {
        authority: Authority,
        directory: PathBuf,
    },
    #[error("the authorities in {} exist already", directory.display())]
    AuthoritiesExist { directory: PathBuf },
    #[error("the ledger knows certificates of the {authority} authority, but {} is gone", folder.display())]
    AuthorityLost { authority: Authority, folder: PathBuf },
    #[error("{} cannot be served: {detail}", file.display())]
    Foreign { file: PathBuf, detail: String },
    #[error("{} is damaged: {detail}", file.display())]
    Damaged { file: PathBuf, detail: String },
    #[error("the authority {} is valid from {} to {} only", file.display(), not_before.rfc3339(), not_after.rfc3339())]
    AuthorityNotValid {
        file: PathBuf,
        not_before: WallTime,
        not_after: WallTime,
    },
    #[error("`{name}` cannot be the name in a certificate: {why}")]
    Name { name: String, why: &'static str },
    #[error("`{name}` is a superuser of PostgreSQL")]
    Superuser { name: String },
    #[error("a certificate that is valid for no time was asked for")]
    NoTime,
    #[error("the server certificate of cluster {cluster} has no names")]
    NoServerNames { cluster: String },
    #[error("the certificate request cannot be used: {detail}")]
    Request { detail: String },
    #[error("no client certificate is named `{target}`, and no certificate has that serial")]
    UnknownTarget { target: String, near: Option<String> },
    #[error("{} cannot be read", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{} cannot be written", file.display())]
    Write { file: PathBuf, source: std::io::Error },
    #[error("{what} could not be made")]
    Crypto { what: String, source: rcgen::Error },
    #[error("the kernel gives no random numbers")]
    NoRandomness,
    #[error("nothing is issued: {loose}")]
    Loose { loose: super::Loose },
    #[error("the key {} is encrypted, and its passphrase is not at hand", file.display())]
    Sealed {
        file: PathBuf,
        credential: Option<String>,
    },
    #[error(
        "keys are to be encrypted (pki.key_passphrase_credential = \"{credential}\"), and no passphrase is at hand"
    )]
    NoPassphrase { credential: String },
    #[error("the key {} is in the clear, though pki.key_passphrase_credential names a passphrase", file.display())]
    InTheClear { file: PathBuf },
    #[error("the passphrase does not open {}", file.display())]
    WrongPassphrase { file: PathBuf },
    #[error("the passphrase from {source_of} has fewer than {least} bytes")]
    ShortPassphrase { source_of: String, least: usize },
    #[error("the key of `{name}` stayed with whoever asked, and is in no bundle")]
    NoKey { name: String },
    #[error("{} could not be encrypted", file.display())]
    NotSealed { file: PathBuf },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl PkiError {
    pub(super) fn crypto(what: impl Into<String>) -> impl FnOnce(rcgen::Error) -> PkiError {
        let what = what.into();
        move |source| PkiError::Crypto { what, source }
    }
}

impl Explain for PkiError {
    fn code(&self) -> Code {
        match self {
            PkiError::NoAuthority { .. } | PkiError::UnknownTarget { .. } => Code::NotFound,
            PkiError::Name { .. } | PkiError::NoTime | PkiError::NoServerNames { .. } => Code::Invalid,
            PkiError::Request { .. } => Code::Invalid,
            PkiError::Read { source, .. } | PkiError::Write { source, .. }
                if source.kind() == ErrorKind::PermissionDenied =>
            {
                Code::Forbidden
            }
            PkiError::Sealed { .. } | PkiError::NoPassphrase { .. } => Code::Locked,
            PkiError::Ledger(ledger) => ledger.code(),
            PkiError::AuthoritiesExist { .. }
            | PkiError::AuthorityLost { .. }
            | PkiError::Foreign { .. }
            | PkiError::Damaged { .. }
            | PkiError::AuthorityNotValid { .. }
            | PkiError::Superuser { .. }
            | PkiError::Read { .. }
            | PkiError::Write { .. }
            | PkiError::Crypto { .. }
            | PkiError::InTheClear { .. }
            | PkiError::WrongPassphrase { .. }
            | PkiError::ShortPassphrase { .. }
            | PkiError::NotSealed { .. }
            | PkiError::NoKey { .. }
            | PkiError::Loose { .. }
            | PkiError::NoRandomness => Code::Refused,
        }
    }

    fn remedy(&self) -> String {
        match self {
            PkiError::NoAuthority { .. } => "Make the two authorities with `pgfw ca init`.".into(),
            PkiError::AuthoritiesExist { .. } => {
                "Nothing is to be done; a new pair would lock every client out.".into()
            }
            PkiError::AuthorityLost { folder, .. } => {
                format!("Restore {} from a backup.", folder.display())
            }
            PkiError::Foreign { .. } => {
                "Have it renewed by whoever issues it, or correct server_certificate, server_key and server_names in \
                 pgfw.toml; the server goes on with what it has."
                    .into()
            }
            PkiError::Damaged { file, .. } => format!("Restore {} from a backup.", file.display()),
            PkiError::AuthorityNotValid { .. } => {
                "Check this host's clock; an authority that has ended must be replaced.".into()
            }
            PkiError::Name { .. } => {
                "Choose a name of 1 to 63 bytes without control characters or blanks at its ends.".into()
            }
            PkiError::Superuser { .. } => "Say --superuser if that is meant.".into(),
            PkiError::NoTime => "Give a time to live of at least a second, like 30d.".into(),
            PkiError::NoServerNames { cluster } => {
                format!("Set server_names of [[postgres]] {cluster} to what clients connect to.")
            }
            PkiError::Request { .. } => {
                "Make a PKCS #10 request in PEM, like `openssl req -new -newkey ec -pkeyopt \
                 ec_paramgen_curve:P-256 -nodes -keyout NAME.key -subj /CN=NAME`."
                    .into()
            }
            PkiError::UnknownTarget { near: Some(near), .. } => format!("Did you mean `{near}`?"),
            PkiError::UnknownTarget { near: None, .. } => {
                "`pgfw cert list` shows names and serials (32 hexadecimal digits).".into()
            }
            PkiError::Read { file, source } | PkiError::Write { file, source } => {
                if source.kind() == ErrorKind::PermissionDenied {
                    "Run this as root.".into()
                } else if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
                    format!("Free space on the file system of {}.", file.display())
                } else {
                    format!("Check {} and its folder.", file.display())
                }
            }
            PkiError::Crypto { .. } => "Check the key and certificate it was to be made from.".into(),
            PkiError::NoRandomness => "Check getrandom(2) in this environment.".into(),
            PkiError::Sealed { credential, .. } => at_hand(credential.as_deref()),
            PkiError::NoPassphrase { credential } => at_hand(Some(credential)),
            PkiError::InTheClear { .. } => {
                "Put the keys that are there under it first, with `pgfw ca encrypt`; then say this again.".into()
            }
            PkiError::WrongPassphrase { file } => format!(
                "Give the one that it was encrypted with; `openssl pkey -noout -in {}` tries it.",
                file.display()
            ),
            PkiError::ShortPassphrase { .. } => {
                "Make a random one, like `openssl rand -base64 24`, and keep a copy where this host is not.".into()
            }
            PkiError::Loose { loose } => loose.remedy(),
            PkiError::NoKey { .. } => "Have them make the file: `openssl pkcs12 -export -name user`.".into(),
            PkiError::NotSealed { .. } => "See that the passphrase is text (UTF-8), and this process's limits (ulimit -a); nothing was changed.".into(),
            PkiError::Ledger(ledger) => ledger.remedy(),
        }
    }
}

/// How a passphrase is brought.
fn at_hand(credential: Option<&str>) -> String {
    let by_hand = "Run this at a terminal, which asks for it, or with --passphrase-file FILE";
    match credential {
        Some(name) => format!("{by_hand}; the daemon takes it from the credential `{name}` of its unit."),
        None => format!(
            "{by_hand}; the daemon takes it from the credential that pki.key_passphrase_credential names."
        ),
    }
}
