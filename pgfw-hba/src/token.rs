//! Lines, fields and tokens (hba.c: `tokenize_auth_file`, `next_field_expand`, `next_token`).

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::Major;
use crate::files::{Files, beside};

/// One token, its quotes taken away.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Token {
    pub text: Vec<u8>,
    /// It *began* with a quote: then no keyword, `+group` or `@file` is meant. A `/` is an expression all the same.
    pub quoted: bool,
}

/// Where a line stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct At {
    pub file: Arc<Path>,
    /// From 1; of a line with continuations the first.
    pub number: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line {}", self.file.display(), self.number)
    }
}

/// What is wrong with a line, or what about it cannot be known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub at: At,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

impl std::error::Error for Problem {}

/// A line that holds anything, or that broke on the way.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) at: At,
    /// Its continuations joined.
    pub(crate) raw: Vec<u8>,
    /// Never empty, and none of the fields is.
    pub(crate) fields: Vec<Vec<Token>>,
    pub(crate) error: Option<String>,
}

/// Deeper inclusion is an error (conffiles.h: `CONF_FILE_MAX_DEPTH`). 15 has no limit and fails when it runs out of
/// descriptors, which is an error as well.
const DEEPEST: usize = 10;
/// `MAX_TOKEN`, in 15 and 16.
const LONGEST_TOKEN: usize = 10_240;

pub(crate) struct Tokenizer<'a> {
    pub(crate) files: &'a dyn Files,
    pub(crate) major: Major,
}

impl Tokenizer<'_> {
    /// All lines of a file and of those that it includes.
    ///
    /// # Errors
    /// The file itself cannot be read.
    pub(crate) fn file(&self, path: &Path) -> io::Result<Vec<Line>> {
        let text = self.files.read(path)?;
        let mut lines = Vec::new();
        self.lines(path, &text, 0, &mut lines);
        Ok(lines)
    }

    fn lines(&self, path: &Path, text: &[u8], depth: usize, lines: &mut Vec<Line>) {
        let file: Arc<Path> = path.into();
        let mut number = 1;
        let mut rest = text.split_inclusive(|b| *b == b'\n').peekable();
        while rest.peek().is_some() {
            let mut raw = Vec::new();
            let mut continuations = 0;
            let mut last_backslash = 0;
            for piece in rest.by_ref() {
                raw.extend_from_slice(piece);
                while raw.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                    raw.pop();
                }
                // In a comment and within quotes as well. Not where a backslash was stripped before.
                if raw.len() > last_backslash && raw.last() == Some(&b'\\') {
                    raw.pop();
                    last_backslash = raw.len();
                    continuations += 1;
                } else {
                    break;
                }
            }
            let at = At {
                file: file.clone(),
                number,
            };
            number += continuations + 1;
            self.line(at, raw, depth, lines);
        }
    }

    fn line(&self, at: At, raw: Vec<u8>, depth: usize, lines: &mut Vec<Line>) {
        let mut fields: Vec<Vec<Token>> = Vec::new();
        let mut error = None;
        let mut cursor = Cursor { rest: &raw };
        while !cursor.rest.is_empty() && error.is_none() {
            let field = self.field(&at.file, &mut cursor, depth, &mut error);
            if !field.is_empty() {
                fields.push(field);
            }
        }
        if fields.is_empty() && error.is_none() {
            return;
        }
        if error.is_none()
            && self.major.has_includes_and_expressions()
            && let [first, second] = fields.as_slice()
        {
            let (word, name) = (first[0].text.as_slice(), second[0].text.as_slice());
            let included = match word {
                b"include" => Some(self.include(name, &at.file, depth + 1, false, lines)),
                b"include_if_exists" => Some(self.include(name, &at.file, depth + 1, true, lines)),
                b"include_dir" => Some(self.include_dir(name, &at.file, depth + 1, lines)),
                _ => None,
            };
            match included {
                Some(Ok(())) => return,
                Some(Err(message)) => error = Some(message),
                None => {}
            }
        }
        lines.push(Line {
            at,
            raw,
            fields,
            error,
        });
    }

    fn include(
        &self,
        name: &[u8],
        from: &Path,
        depth: usize,
        missing_ok: bool,
        lines: &mut Vec<Line>,
    ) -> Result<(), String> {
        let path = beside(name, from);
        match self.open(&path, depth) {
            Ok(Some(text)) => {
                self.lines(&path, &text, depth, lines);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(Closed::Missing(_)) if missing_ok => Ok(()),
            Err(Closed::Missing(message) | Closed::Other(message)) => Err(message),
        }
    }

    /// conffiles.c: `GetConfFilesInDir`.
    fn include_dir(
        &self,
        name: &[u8],
        from: &Path,
        depth: usize,
        lines: &mut Vec<Line>,
    ) -> Result<(), String> {
        if name.iter().all(|b| b" \t\r\n".contains(b)) {
            return Err("empty configuration directory name".to_owned());
        }
        let directory = beside(name, from);
        let listed = self.files.list(&directory);
        let entries =
            listed.map_err(|e| format!("could not open configuration directory {directory:?}: {e}"))?;
        let mut names: Vec<Vec<u8>> = entries
            .into_iter()
            .filter(|entry| !entry.is_directory)
            .map(|entry| entry.name)
            .filter(|name| name.len() >= 6 && name[0] != b'.' && name.ends_with(b".conf"))
            .collect();
        names.sort();
        let mut errors = Vec::new();
        for name in names {
            let path =
                directory.join(std::os::unix::ffi::OsStrExt::from_bytes(name.as_slice()) as &std::ffi::OsStr);
            let path: &[u8] = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
            if let Err(message) = self.include(path, from, depth, false, lines) {
                errors.push(message);
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors.join("; "))
        }
    }

    /// Opens a further file. `None`: a folder, which opens and then gives nothing; the server logs that and goes on.
    fn open(&self, path: &Path, depth: usize) -> Result<Option<Vec<u8>>, Closed> {
        if depth > DEEPEST {
            return Err(Closed::Other(format!(
                "could not open file {path:?}: maximum nesting depth exceeded"
            )));
        }
        match self.files.read(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(None),
            Err(error) => {
                let message = format!("could not open file {path:?}: {error}");
                Err(match error.kind() == io::ErrorKind::NotFound {
                    true => Closed::Missing(message),
                    false => Closed::Other(message),
                })
            }
        }
    }

    fn field(
        &self,
        from: &Path,
        cursor: &mut Cursor,
        depth: usize,
        error: &mut Option<String>,
    ) -> Vec<Token> {
        let mut tokens = Vec::new();
        while let Some(Taken {
            text,
            initial_quote,
            comma,
        }) = cursor.token()
        {
            // Nothing up to the end of the line that could be told apart from a shorter token there.
            if self.major < Major::V17 && text.len() >= LONGEST_TOKEN {
                *error = Some("authentication file token too long".to_owned());
                break;
            }
            if !initial_quote && text.len() > 1 && text[0] == b'@' {
                self.expand(&text[1..], from, depth + 1, &mut tokens, error);
            } else {
                tokens.push(Token {
                    text,
                    quoted: initial_quote,
                });
            }
            if !comma || error.is_some() {
                break;
            }
        }
        tokens
    }

    /// `@file`: all tokens of all its lines, as one list.
    fn expand(
        &self,
        name: &[u8],
        from: &Path,
        depth: usize,
        tokens: &mut Vec<Token>,
        error: &mut Option<String>,
    ) {
        let path = beside(name, from);
        let text = match self.open(&path, depth) {
            Ok(text) => text.unwrap_or_default(),
            Err(Closed::Missing(message) | Closed::Other(message)) => {
                *error = Some(message);
                return;
            }
        };
        let mut lines = Vec::new();
        self.lines(&path, &text, depth, &mut lines);
        for line in lines {
            if let Some(message) = line.error {
                *error = Some(message);
                return;
            }
            tokens.extend(line.fields.into_iter().flatten());
        }
    }
}

enum Closed {
    Missing(String),
    Other(String),
}

struct Cursor<'a> {
    rest: &'a [u8],
}

struct Taken {
    text: Vec<u8>,
    initial_quote: bool,
    comma: bool,
}

impl Cursor<'_> {
    /// hba.c: `next_token`. A comma ends a token and is left there; a quote that is never closed ends with the line.
    fn token(&mut self) -> Option<Taken> {
        let blank = |b: u8| matches!(b, b' ' | b'\t' | b'\r');
        let skipped = self.rest.iter().take_while(|b| blank(**b) || **b == b',').count();
        self.rest = &self.rest[skipped..];
        let mut text = Vec::new();
        let (mut in_quote, mut was_quote, mut saw_quote) = (false, false, false);
        let (mut initial_quote, mut comma) = (false, false);
        while let Some(&b) = self.rest.first() {
            if !in_quote {
                match b {
                    b'#' => {
                        self.rest = &[];
                        break;
                    }
                    b',' => {
                        comma = true;
                        break;
                    }
                    b if blank(b) => break,
                    _ => {}
                }
            }
            if b != b'"' || was_quote {
                text.push(b);
            }
            was_quote = in_quote && b == b'"' && !was_quote;
            if b == b'"' {
                in_quote = !in_quote;
                saw_quote = true;
                if text.is_empty() {
                    initial_quote = true;
                }
            }
            self.rest = &self.rest[1..];
        }
        (saw_quote || !text.is_empty()).then_some(Taken {
            text,
            initial_quote,
            comma,
        })
    }
}
