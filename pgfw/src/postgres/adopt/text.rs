//! Foreign names and lines as text of a TOML file: in strings they mean themselves, in comments they stay comments.

use std::fmt::Write;

/// A basic string (TOML 1.0, "String").
pub(super) fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_hidden(c) => {
                let _written = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Bytes for a comment or a sentence: one line, nothing in it that a terminal or a reader would take for something else.
pub(super) fn shown(bytes: &[u8]) -> String {
    /// Longer ones tell a person nothing more.
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::new();
    for (n, c) in text.trim().chars().enumerate() {
        if n == MOST {
            out.push('…');
            break;
        }
        match c {
            '\t' => out.push(' '),
            c if is_hidden(c) => {
                let _written = write!(out, "{}", c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    out
}

/// Control characters, and those that turn or hide what stands around them (Unicode TR 36, "Bidirectional Text Spoofing").
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
}

/// An array of strings, over several lines where one would be too long.
pub(super) fn array(items: &[String]) -> String {
    const WIDTH: usize = 100;
    let one = format!("[{}]", items.join(", "));
    if one.chars().count() <= WIDTH {
        return one;
    }
    let mut lines = String::from("[");
    let mut line = String::new();
    for item in items {
        if !line.is_empty() && line.chars().count() + item.chars().count() > WIDTH {
            let _written = write!(lines, "\n    {}", line.trim_end());
            line.clear();
        }
        let _written = write!(line, "{item}, ");
    }
    let _written = write!(lines, "\n    {}\n]", line.trim_end());
    lines
}

/// The same of text.
pub(super) fn strings<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| string(item.as_ref())).collect();
    array(&items)
}
