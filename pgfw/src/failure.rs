//! What a person is told when something cannot be done: one sentence that names the thing, one that says what to do.

use serde::{Deserialize, Serialize};

/// An error on its way to a person or over the control socket.
///
/// Every concern has its own `thiserror` enum that implements [`Explain`]; `?` turns it into this.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    /// One sentence: which file, key, address or interface, and what is wrong with it.
    pub message: String,
    /// One sentence: what to do about it.
    pub remedy: String,
}

/// What kind of failure; the exit code and the HTTP status follow from it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Understood and declined, or tried and failed.
    Refused,
    /// The thing named does not exist.
    NotFound,
    /// Usage or configuration is wrong; nothing was tried.
    Invalid,
    /// The daemon does not answer.
    Unreachable,
    /// The caller may not do this.
    Forbidden,
    /// A key is under a passphrase that is not at hand; nothing was done.
    Locked,
}

impl Code {
    /// The HTTP status that goes with it.
    pub const fn http_status(self) -> u16 {
        match self {
            Code::Refused | Code::Locked => 409,
            Code::NotFound => 404,
            Code::Invalid => 422,
            Code::Unreachable => 503,
            Code::Forbidden => 403,
        }
    }

    /// The process's exit code: 0 done, 1 refused or failed, 2 usage or configuration, 3 daemon not
    /// reachable or access to it refused.
    pub const fn exit_code(self) -> u8 {
        match self {
            Code::Refused | Code::NotFound | Code::Locked => 1,
            Code::Invalid => 2,
            Code::Unreachable | Code::Forbidden => 3,
        }
    }
}

/// An error that knows what the reader should do next.
pub trait Explain: std::error::Error {
    fn code(&self) -> Code {
        Code::Refused
    }
    /// One sentence that says what to do.
    fn remedy(&self) -> String;
}

impl<E: Explain> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Failure {
            code: error.code(),
            message,
            remedy: error.remedy(),
        }
    }
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Failure {
            code,
            message: message.into(),
            remedy: remedy.into(),
        }
    }
    pub fn refused(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Failure::new(Code::Refused, message, remedy)
    }
    pub fn invalid(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Failure::new(Code::Invalid, message, remedy)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}", self.message, self.remedy)
    }
}
