//! Why the ledger could not be read or written.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::failure::{Code, Explain};

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("there is no ledger at {}", file.display())]
    Missing { file: PathBuf },
    #[error("the ledger {} cannot be opened", file.display())]
    Open { file: PathBuf, source: std::io::Error },
    #[error("no space left for the ledger {}: nothing was changed", file.display())]
    Full { file: PathBuf },
    #[error("the ledger {} is locked by another process: nothing was changed", file.display())]
    Locked { file: PathBuf },
    #[error("the ledger {} is damaged: {detail}", file.display())]
    Corrupt { file: PathBuf, detail: String },
    #[error("{} is not a ledger of pgfw", file.display())]
    Foreign { file: PathBuf },
    #[error("the ledger {} has schema {found}; this pgfw knows schemas up to {known}", file.display())]
    Newer { file: PathBuf, found: i64, known: i64 },
    #[error("the ledger {} cannot be used: {why}", file.display())]
    Unusable { file: PathBuf, why: String },
    #[error("the ledger {} could not be used: nothing was changed", file.display())]
    Sqlite { file: PathBuf, source: rusqlite::Error },
    #[error("generation {number} is still waiting for confirmation")]
    AlreadyPending { number: u64 },
    #[error("generation {number} is not waiting for confirmation")]
    NotPending { number: u64 },
    #[error("a certificate with serial {serial} is in the ledger already")]
    SerialTaken { serial: String },
}

impl LedgerError {
    pub(super) fn sqlite(file: &Path, source: rusqlite::Error) -> LedgerError {
        let file = file.to_owned();
        if let rusqlite::Error::FromSqlConversionFailure(_, _, detail) = &source {
            return LedgerError::Corrupt {
                file,
                detail: detail.to_string(),
            };
        }
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => LedgerError::Full { file },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LedgerError::Locked { file },
            Some(ErrorCode::DatabaseCorrupt) => LedgerError::Corrupt {
                file,
                detail: source.to_string(),
            },
            Some(ErrorCode::NotADatabase) => LedgerError::Foreign { file },
            _ => LedgerError::Sqlite { file, source },
        }
    }
}

impl Explain for LedgerError {
    fn code(&self) -> Code {
        match self {
            LedgerError::Missing { .. } => Code::NotFound,
            LedgerError::Open { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Code::Forbidden
            }
            LedgerError::Open { .. }
            | LedgerError::Full { .. }
            | LedgerError::Locked { .. }
            | LedgerError::Corrupt { .. }
            | LedgerError::Foreign { .. }
            | LedgerError::Newer { .. }
            | LedgerError::Unusable { .. }
            | LedgerError::Sqlite { .. }
            | LedgerError::AlreadyPending { .. }
            | LedgerError::NotPending { .. }
            | LedgerError::SerialTaken { .. } => Code::Refused,
        }
    }

    fn remedy(&self) -> String {
        match self {
            LedgerError::Missing { file } => format!(
                "Start the daemon once (`pgfw run`) to create {}, or name the right folder with --state-dir.",
                file.display()
            ),
            LedgerError::Open { file, source } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                format!("Run this as root: {} holds who may connect.", file.display())
            }
            LedgerError::Open { file, .. } => {
                format!("Make {} readable and writable for root.", file.display())
            }
            LedgerError::Full { file } => format!("Free space on the file system of {}.", file.display()),
            LedgerError::Locked { file } => format!(
                "Try again; if it stays, find who holds it with `fuser {}`.",
                file.display()
            ),
            LedgerError::Corrupt { file, .. } => format!(
                "Restore {} from a backup; the CRLs beside the authorities keep every revocation.",
                file.display()
            ),
            LedgerError::Foreign { file } => format!(
                "Move {} away or name another folder with --state-dir.",
                file.display()
            ),
            LedgerError::Newer { .. } => "Install the pgfw that wrote it, or a later one.".into(),
            LedgerError::Unusable { file, .. } => format!(
                "Restore {} and restart pgfw: systemctl restart pgfw.",
                file.display()
            ),
            LedgerError::Sqlite { file, .. } => {
                format!("Check {} and its file system, then try again.", file.display())
            }
            LedgerError::AlreadyPending { .. } => {
                "Keep that change with `pgfw confirm` or undo it with `pgfw rollback` first.".into()
            }
            LedgerError::NotPending { .. } => "`pgfw status` shows which generation is in force.".into(),
            LedgerError::SerialTaken { .. } => "Issue the certificate again.".into(),
        }
    }
}
