//! What can be wrong with a configuration file, said with file, line and key.

use std::path::PathBuf;

use crate::failure::{Code, Explain};

/// Why a file was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{} cannot be read", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{} is a folder, not a file", file.display())]
    Folder { file: PathBuf },
    #[error("{}:{line}: this is not text in UTF-8", file.display())]
    NotText { file: PathBuf, line: usize },
    /// Not TOML, or of the wrong type.
    #[error("{}:{line}: {message}", file.display())]
    Syntax {
        file: PathBuf,
        line: usize,
        message: String,
    },
    #[error("{}:{line}: unknown key `{key}`", file.display())]
    UnknownKey {
        file: PathBuf,
        line: usize,
        key: String,
        known: Vec<String>,
    },
    /// A value that parses and cannot be meant.
    #[error("{}:{line}: {key}: {message}", file.display())]
    Value {
        file: PathBuf,
        line: usize,
        key: String,
        message: String,
        remedy: String,
    },
}

impl Explain for ConfigError {
    fn code(&self) -> Code {
        Code::Invalid
    }

    fn remedy(&self) -> String {
        match self {
            ConfigError::Read { file, source } if source.kind() == std::io::ErrorKind::NotFound => format!(
                "Write {} (the annotated example config/pgfw.toml is a start), or name another file with --config.",
                file.display()
            ),
            ConfigError::Read { file, source: _ } => {
                format!("Make {} readable for the user that runs pgfw.", file.display())
            }
            ConfigError::Folder { file } => {
                format!("Name the file itself, like {}.", file.join("pgfw.toml").display())
            }
            ConfigError::NotText { file, line: _ } => format!(
                "Save {} as UTF-8; if it is no configuration, name another file with --config.",
                file.display()
            ),
            ConfigError::Syntax {
                file: _,
                line,
                message: _,
            } => {
                format!("Correct line {line}; `pgfw config check` tells when it is right.")
            }
            ConfigError::UnknownKey {
                file: _,
                line: _,
                key,
                known,
            } => match near_miss(key, known) {
                Some(near) => format!("Did you mean `{near}`?"),
                None => format!("Known here: {}.", known.join(", ")),
            },
            ConfigError::Value {
                file: _,
                line: _,
                key: _,
                message: _,
                remedy,
            } => remedy.clone(),
        }
    }
}

/// The known word closest to `word`, if one is close.
pub(crate) fn near_miss<'a>(word: &str, known: &'a [String]) -> Option<&'a str> {
    known
        .iter()
        .map(|k| (strsim::jaro_winkler(word, k), k.as_str()))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}
