//! The page that is written: keys, comments, and what there is to say behind or before them.

use super::sections::Note;
use super::text::shown;

pub(super) fn said(note: &Note) -> String {
    let mark = if note.differs { "! " } else { "" };
    format!("{mark}{}", shown_long(&note.text))
}

/// A sentence of ours with names of theirs in it.
pub(super) fn shown_long(text: &str) -> String {
    let words = text.split(' ').map(|word| shown(word.as_bytes()));
    words.collect::<Vec<_>>().join(" ")
}

/// Lines of TOML and comments among them.
#[derive(Default)]
pub(super) struct Page(pub(super) String);

impl Page {
    pub(super) fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    pub(super) fn comment(&mut self, text: &str) {
        self.wrapped("# ", text);
    }

    pub(super) fn notes(&mut self, notes: &[Note]) {
        for note in notes {
            self.wrapped("#   ", &said(note));
        }
    }

    /// What there is to say stands behind a value, or before it where that has several lines.
    pub(super) fn key(&mut self, key: &str, value: &str, comment: &str) {
        match (comment.is_empty(), value.contains('\n')) {
            (true, _) => self.line(&format!("{key} = {value}")),
            (false, false) => self.line(&format!("{key} = {value}  # {}", shown_long(comment))),
            (false, true) => {
                self.comment(comment);
                self.line(&format!("{key} = {value}"));
            }
        }
    }

    /// A comment over as many lines as it takes. What is foreign in it holds no line break; one would end the comment.
    pub(super) fn wrapped(&mut self, prefix: &str, text: &str) {
        const WIDTH: usize = 118;
        let mut line = String::new();
        for word in shown_long(text).split(' ') {
            if !line.is_empty() && prefix.len() + line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(format!("{prefix}{line}").trim_end());
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.line(format!("{prefix}{line}").trim_end());
    }
}
