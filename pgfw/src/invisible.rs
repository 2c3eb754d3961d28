//! Characters that a reader does not see, or that do something to whoever shows them.

/// What moves a terminal's cursor or ends a line for some readers (controls, C1 among them, and Unicode's separators of lines
/// and paragraphs), and what turns the order in which a text reads (bidirectional and invisible format characters, UAX #9).
pub(crate) fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
