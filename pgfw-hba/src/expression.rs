//! Regular expressions, as far as they mean the same here and in PostgreSQL.
//!
//! PostgreSQL compiles what follows the `/` by its own engine as an advanced expression, over single bytes and the C
//! locale's classes: a login is judged before any database's encoding is known (hba.c: `regcomp_auth_token`; mbutils.c:
//! the encoding is `SQL_ASCII` until then). Whether it matches at all does not depend on greediness, so the common part
//! of the grammar is translated. The rest (back references, lookaround, word boundaries, options, collating elements) is
//! [`Unfit::Beyond`].

use regex::bytes::{Regex, RegexBuilder};

use crate::check::Truth;

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct Expression {
    whole: Regex,
    group: Group,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// PostgreSQL does not compile it: the file with it is not loaded.
    Invalid(String),
    /// It may well be right; what it means is not known here.
    Beyond(String),
}

/// The first pair of parentheses, which `\1` in pg_ident.conf stands for.
#[derive(Debug, Clone)]
enum Group {
    /// There is none.
    None,
    /// In every match there is one, between these: its text follows from the rest when only one way to match exists.
    Between {
        before: Regex,
        inside: Regex,
        after: Regex,
    },
    /// Repeated or in an alternative: which of its texts counts is a matter of the engine.
    Elsewhere,
}

/// What `\1` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Captured {
    NoMatch,
    NoGroup,
    Text(Vec<u8>),
    Unknown,
}

impl Expression {
    /// Compiles what follows the slash.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn new(text: &[u8]) -> Result<Expression, Unfit> {
        let mut parser = Parser {
            rest: text,
            out: String::new(),
            depth: 0,
            group: None,
            groups: 0,
            anchors: Vec::new(),
            branches: 1,
        };
        if text.starts_with(b"***")
            || (text.starts_with(b"(?") && text.get(2).is_some_and(u8::is_ascii_alphabetic))
        {
            return Err(beyond("it begins with options"));
        }
        parser.alternatives()?;
        if !parser.rest.is_empty() {
            return Err(invalid("parentheses () not balanced"));
        }
        let whole = compile(&parser.out)?;
        let group = parser.first_group()?;
        Ok(Expression { whole, group })
    }

    pub fn is_match(&self, subject: &[u8]) -> bool {
        self.whole.is_match(subject)
    }

    pub(crate) fn capture(&self, subject: &[u8]) -> Captured {
        if !self.is_match(subject) {
            return Captured::NoMatch;
        }
        let Group::Between {
            before,
            inside,
            after,
        } = &self.group
        else {
            return match self.group {
                Group::None => Captured::NoGroup,
                Group::Elsewhere | Group::Between { .. } => Captured::Unknown,
            };
        };
        let mut only: Option<&[u8]> = None;
        for start in (0..=subject.len()).filter(|start| before.is_match(&subject[..*start])) {
            for end in (start..=subject.len()).filter(|end| after.is_match(&subject[*end..])) {
                let text = &subject[start..end];
                if inside.is_match(text) {
                    if only.is_some_and(|other| other != text) {
                        return Captured::Unknown;
                    }
                    only = Some(text);
                }
            }
        }
        only.map_or(Captured::Unknown, |text| Captured::Text(text.to_vec()))
    }
}

/// Of a token: the expression behind its slash, where the major has them there.
pub(crate) fn of_token(text: &[u8]) -> Option<Result<Expression, Unfit>> {
    text.strip_prefix(b"/").map(Expression::new)
}

pub(crate) fn truth(expression: &Result<Expression, Unfit>, subject: &[u8]) -> Truth {
    match expression {
        Ok(expression) => Truth::of(expression.is_match(subject)),
        Err(Unfit::Beyond(why) | Unfit::Invalid(why)) => Truth::unknown(&format!(
            "a regular expression that is not understood here: {why}"
        )),
    }
}

fn compile(pattern: &str) -> Result<Regex, Unfit> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .dot_matches_new_line(true)
        .build()
        .map_err(|_| beyond("it is too large"))
}

/// Reads PostgreSQL's form (regc_lex.c, regcomp.c) and writes that of the crate `regex`.
struct Parser<'a> {
    rest: &'a [u8],
    out: String,
    depth: usize,
    /// Where the first capturing pair stands in `out`, with and without its parentheses, and whether it is plain.
    group: Option<GroupAt>,
    groups: usize,
    /// Where in `out` an anchor stands.
    anchors: Vec<usize>,
    /// At the top.
    branches: usize,
}

struct GroupAt {
    open: usize,
    close: usize,
    plain: bool,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn sees(&self, b: u8) -> bool {
        self.rest.first() == Some(&b)
    }

    fn alternatives(&mut self) -> Result<(), Unfit> {
        loop {
            self.branch()?;
            if !self.sees(b'|') {
                return Ok(());
            }
            self.next();
            self.out.push('|');
            if self.depth == 0 {
                self.branches += 1;
            }
        }
    }

    fn branch(&mut self) -> Result<(), Unfit> {
        while let Some(&b) = self.rest.first() {
            match b {
                b'|' => return Ok(()),
                b')' if self.depth > 0 => return Ok(()),
                b')' => return Err(invalid("parentheses () not balanced")),
                b'^' | b'$' => {
                    self.next();
                    self.anchors.push(self.out.len());
                    // A quantifier behind it is one that has nothing to repeat.
                    self.out.push_str(if b == b'^' { "\\A" } else { "\\z" });
                }
                b'*' | b'+' | b'?' => return Err(invalid("quantifier operand invalid")),
                b'{' if self.rest.get(1).is_some_and(u8::is_ascii_digit) => {
                    return Err(invalid("quantifier operand invalid"));
                }
                _ => self.piece()?,
            }
        }
        Ok(())
    }

    fn piece(&mut self) -> Result<(), Unfit> {
        let at = self.out.len();
        match self.next() {
            Some(b'(') => {
                self.parentheses()?;
                if self.quantifier()?
                    && let Some(group) = &mut self.group
                    && group.open >= at
                {
                    group.plain = false;
                }
                return Ok(());
            }
            Some(b'[') => self.bracket()?,
            Some(b'.') => self.out.push('.'),
            Some(b'\\') => {
                let set = self.escape()?;
                self.set(&set);
            }
            Some(b) => self.set(&Set::one(b)),
            None => {}
        }
        self.quantifier()?;
        Ok(())
    }

    fn parentheses(&mut self) -> Result<(), Unfit> {
        let captures = match self.rest {
            [b'?', b':', rest @ ..] => {
                self.rest = rest;
                false
            }
            [b'?', b'=' | b'!' | b'<' | b'#', ..] => return Err(beyond("it looks around")),
            [b'?', ..] => return Err(invalid("quantifier operand invalid")),
            _ => true,
        };
        self.depth += 1;
        if self.depth > 50 {
            return Err(beyond("it is nested too deeply"));
        }
        let open = self.out.len();
        self.groups += usize::from(captures);
        let first = captures && self.groups == 1;
        self.out.push_str("(?:");
        self.alternatives()?;
        if self.next() != Some(b')') {
            return Err(invalid("parentheses () not balanced"));
        }
        self.out.push(')');
        self.depth -= 1;
        if first {
            self.group = Some(GroupAt {
                open,
                close: self.out.len(),
                plain: self.depth == 0,
            });
        }
        Ok(())
    }

    /// Whether there is one.
    fn quantifier(&mut self) -> Result<bool, Unfit> {
        match self.rest {
            [b @ (b'*' | b'+' | b'?'), ..] => {
                self.out.push(char::from(*b));
                self.next();
            }
            [b'{', digit, ..] if digit.is_ascii_digit() => {
                self.next();
                self.bounds()?;
            }
            _ => return Ok(false),
        }
        // Not greedy: another way to match the same.
        if self.sees(b'?') {
            self.next();
        }
        Ok(true)
    }

    fn bounds(&mut self) -> Result<(), Unfit> {
        let least = self.number()?;
        let most = if self.sees(b',') {
            self.next();
            match self.sees(b'}') {
                true => None,
                false => Some(self.number()?),
            }
        } else {
            Some(least)
        };
        if self.next() != Some(b'}') || most.is_some_and(|most| most < least) {
            return Err(invalid("invalid repetition count(s)"));
        }
        let most = most.map_or_else(String::new, |most| most.to_string());
        self.out.push_str(&format!("{{{least},{most}}}"));
        Ok(())
    }

    /// At most 255 (regguts.h: `DUPMAX`).
    fn number(&mut self) -> Result<u32, Unfit> {
        let digits = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        let number = std::str::from_utf8(number).ok().and_then(|n| n.parse().ok());
        number
            .filter(|n| *n <= 255)
            .ok_or_else(|| invalid("invalid repetition count(s)"))
    }

    /// What stands behind a backslash (regc_lex.c: `lexescape`).
    fn escape(&mut self) -> Result<Set, Unfit> {
        let b = self.next().ok_or_else(|| invalid("invalid escape \\ sequence"))?;
        Ok(match b {
            b'd' => Set::class(b"digit")?,
            b's' => Set::class(b"space")?,
            b'w' => Set::class(b"word")?,
            b'D' => Set::class(b"digit")?.complement(),
            b'S' => Set::class(b"space")?.complement(),
            b'W' => Set::class(b"word")?.complement(),
            b'n' => Set::one(b'\n'),
            b'r' => Set::one(b'\r'),
            b't' => Set::one(b'\t'),
            b'f' => Set::one(0x0c),
            b'v' => Set::one(0x0b),
            b if b.is_ascii_alphanumeric() => return Err(beyond("an escape")),
            b => Set::one(b),
        })
    }

    /// A bracket expression, its `[` taken.
    fn bracket(&mut self) -> Result<(), Unfit> {
        let negated = self.sees(b'^');
        if negated {
            self.next();
        }
        let unclosed = || invalid("brackets [] not balanced");
        let mut set = Set::default();
        let mut first = true;
        loop {
            let b = self.next().ok_or_else(unclosed)?;
            let low = match b {
                b']' if !first => break,
                b'-' if !first => return Err(beyond("a hyphen in brackets")),
                b'[' if self.sees(b':') => {
                    let end = self
                        .rest
                        .windows(2)
                        .position(|w| w == b":]")
                        .ok_or_else(unclosed)?;
                    let class = Set::class(&self.rest[1..end.max(1)])?;
                    set.add(&class);
                    self.rest = &self.rest[end + 2..];
                    first = false;
                    if self.sees(b'-') {
                        return Err(beyond("a hyphen in brackets"));
                    }
                    continue;
                }
                b'[' if self.sees(b'.') || self.sees(b'=') => return Err(beyond("a collating element")),
                b'\\' => {
                    let escaped = self.escape()?;
                    set.add(&escaped);
                    first = false;
                    if self.sees(b'-') {
                        return Err(beyond("a hyphen in brackets"));
                    }
                    continue;
                }
                b => b,
            };
            first = false;
            match self.rest {
                [b'-', b']' | b'[' | b'\\' | b'-', ..] => return Err(beyond("a hyphen in brackets")),
                [b'-', high, rest @ ..] => {
                    if *high < low {
                        return Err(invalid("invalid character range"));
                    }
                    (low..=*high).for_each(|b| set.0[usize::from(b)] = true);
                    self.rest = rest;
                }
                _ => set.0[usize::from(low)] = true,
            }
        }
        self.set(&if negated { set.complement() } else { set });
        Ok(())
    }

    fn set(&mut self, set: &Set) {
        let members: Vec<u8> = (0..=u8::MAX).filter(|b| set.0[usize::from(*b)]).collect();
        match members.as_slice() {
            // Nothing at all: an intersection that is empty.
            [] => self.out.push_str("[a&&b]"),
            members => {
                self.out.push('[');
                for b in members {
                    self.out.push_str(&format!("\\x{b:02x}"));
                }
                self.out.push(']');
            }
        }
    }

    fn first_group(&self) -> Result<Group, Unfit> {
        let Some(GroupAt { open, close, plain }) = self.group else {
            return Ok(Group::None);
        };
        let (before, inside, after) = (&self.out[..open], &self.out[open..close], &self.out[close..]);
        // An anchor holds where the piece that is looked at by itself begins or ends, or it does not.
        let anchors = |range: std::ops::Range<usize>, kind: &str| {
            let mut here = self.anchors.iter().filter(|at| range.contains(at));
            here.any(|at| self.out[*at..].starts_with(kind))
        };
        let misplaced =
            anchors(0..open, "\\z") || anchors(open..close, "\\") || anchors(close..self.out.len(), "\\A");
        if !plain || self.branches > 1 || misplaced {
            return Ok(Group::Elsewhere);
        }
        Ok(Group::Between {
            before: compile(&format!("(?:{before})\\z"))?,
            inside: compile(&format!("\\A{inside}\\z"))?,
            after: compile(&format!("\\A(?:{after})"))?,
        })
    }
}

struct Set([bool; 256]);

impl Default for Set {
    fn default() -> Set {
        Set([false; 256])
    }
}

impl Set {
    fn one(b: u8) -> Set {
        Set::by(|other| other == b)
    }

    fn by(is: impl Fn(u8) -> bool) -> Set {
        let mut set = Set::default();
        (0..=u8::MAX).for_each(|b| set.0[usize::from(b)] = is(b));
        set
    }

    /// regc_locale.c: `cclasscvec`; regc_pg_locale.c: the C locale knows ASCII.
    fn class(name: &[u8]) -> Result<Set, Unfit> {
        Ok(match name {
            b"alnum" => Set::by(|b| b.is_ascii_alphanumeric()),
            b"alpha" => Set::by(|b| b.is_ascii_alphabetic()),
            b"blank" => Set::by(|b| b == b' ' || b == b'\t'),
            b"cntrl" => Set::by(|b| b <= 0x1f || (0x7f..=0x9f).contains(&b)),
            b"digit" => Set::by(|b| b.is_ascii_digit()),
            b"graph" => Set::by(|b| b.is_ascii_graphic()),
            b"lower" => Set::by(|b| b.is_ascii_lowercase()),
            b"print" => Set::by(|b| b.is_ascii_graphic() || b == b' '),
            b"punct" => Set::by(|b| b.is_ascii_punctuation()),
            b"space" => Set::by(|b| matches!(b, b' ' | 0x09..=0x0d)),
            b"upper" => Set::by(|b| b.is_ascii_uppercase()),
            b"word" => Set::by(|b| b.is_ascii_alphanumeric() || b == b'_'),
            b"xdigit" => Set::by(|b| b.is_ascii_hexdigit()),
            _ => return Err(invalid("invalid character class")),
        })
    }

    fn add(&mut self, other: &Set) {
        self.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(mine, theirs)| *mine |= theirs);
    }

    fn complement(mut self) -> Set {
        self.0.iter_mut().for_each(|member| *member = !*member);
        self
    }
}

fn invalid(message: &str) -> Unfit {
    Unfit::Invalid(message.to_owned())
}

fn beyond(message: &str) -> Unfit {
    Unfit::Beyond(message.to_owned())
}
