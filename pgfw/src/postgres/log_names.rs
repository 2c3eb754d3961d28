//! Which files of a folder are one server's logs: several servers may write theirs to the same.

/// `log_filename` of a server, whose collector puts the time into it (syslogger.c: `logfile_getname`, pg_strftime).
#[derive(Debug, Clone)]
pub struct LogNames(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// Of a number; blanks may stand for leading zeros.
    Number,
    /// Names of days and months, in English.
    Word,
    /// Whatever else there is.
    Any,
}

impl LogNames {
    /// Of the files in JSON: their ending is the server's.
    pub fn of(log_filename: &str) -> LogNames {
        let pattern = log_filename.rsplit('/').next().unwrap_or_default();
        let stem = pattern.strip_suffix(".log").unwrap_or(pattern);
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = stem.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            let conversion = rest.find(|c| !matches!(c, 'E' | 'O'));
            let part = match conversion {
                Some('%') => {
                    text.push('%');
                    continue;
                }
                Some(
                    'C' | 'd' | 'e' | 'g' | 'G' | 'H' | 'I' | 'j' | 'k' | 'l' | 'm' | 'M' | 's' | 'S' | 'u'
                    | 'U' | 'V' | 'w' | 'W' | 'y' | 'Y',
                ) => Part::Number,
                Some('a' | 'A' | 'b' | 'B' | 'h' | 'p') => Part::Word,
                Some(_) | None => Part::Any,
            };
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(part);
        }
        text.push_str(".json");
        parts.push(Part::Text(text));
        LogNames(parts)
    }

    pub fn has(&self, name: &str) -> bool {
        let LogNames(parts) = self;
        fits(parts, name)
    }
}

fn fits(parts: &[Part], name: &str) -> bool {
    let Some((first, others)) = parts.split_first() else {
        return name.is_empty();
    };
    let may_be = |c: char| match first {
        Part::Text(_) => false,
        Part::Number => c.is_ascii_digit() || c == ' ',
        Part::Word => c.is_ascii_alphabetic(),
        Part::Any => true,
    };
    if let Part::Text(text) = first {
        return name
            .strip_prefix(text.as_str())
            .is_some_and(|rest| fits(others, rest));
    }
    // No number of strftime's is longer; without a bound, a long name of digits would be divided among numbers in every way.
    let longest = if matches!(first, Part::Number) {
        10
    } else {
        usize::MAX
    };
    let lengths = name.char_indices().take(longest).take_while(|(_, c)| may_be(*c));
    lengths
        .map(|(at, c)| at + c.len_utf8())
        .any(|end| name.get(end..).is_some_and(|rest| fits(others, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbours_log_is_not_ones_own() {
        // log_filename, name, whether it is one
        let rows = [
            (
                "postgresql-%Y-%m-%d_%H%M%S.log",
                "postgresql-2026-11-27_060000.json",
                true,
            ),
            (
                "postgresql-%Y-%m-%d_%H%M%S.log",
                "postgresql-16-main-2026-11-27_060000.json",
                false,
            ),
            (
                "postgresql-%Y-%m-%d_%H%M%S.log",
                "postgresql-2026-11-27_060000.log",
                false,
            ),
            ("postgresql-15-main.log", "postgresql-15-main.json", true),
            ("postgresql-15-main.log", "postgresql-16-main.json", false),
            ("postgresql-15-main.log", "postgresql-15-main.json.1", false),
            ("15-%a", "15-Fri.json", true),
            ("15-%a", "16-Fri.json", false),
            ("15-%e.log", "15- 7.json", true),
            ("100%%-%s.log", "100%-1795723521.json", true),
            ("%Ey.log", "26.json", true),
            ("x%", "xy.json", true),
            ("x%", "x.json", false),
        ];
        for (pattern, name, is_one) in rows {
            assert_eq!(LogNames::of(pattern).has(name), is_one, "{pattern} {name}");
        }
    }
}
