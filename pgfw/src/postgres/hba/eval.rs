//! What a server would make of rendered rules: the first line that matches, its method, its map. Pure.
//!
//! It reads what this module renders and the usual forms of `local` lines. What it cannot decide (group membership,
//! included files, foreign expressions) is said so, never guessed.

use std::net::IpAddr;

use ipnet::IpNet;

use super::quote;

/// A pair of files, read back.
#[derive(Debug, Clone)]
pub struct Rules {
    lines: Vec<Line>,
    maps: Vec<MapRow>,
    major: u16,
}

/// One attempt to log in, as far as the rules look at it.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    pub from: From,
    pub to: To<'a>,
    pub role: &'a str,
}

/// How the connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Socket,
    Tcp { address: IpAddr, tls: bool },
}

/// What it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To<'a> {
    /// A session in a database, logical replication included.
    Database(&'a str),
    PhysicalReplication,
}

/// The line that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision<'r> {
    Line {
        number: usize,
        method: &'r str,
        map: Option<&'r str>,
    },
    /// No line matches: refused.
    None,
    /// This line may match; that depends on what the files do not say.
    Undecided { number: usize },
}

/// A file that does not have the form this module reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file} line {line}: {message}")]
pub struct Unreadable {
    pub file: &'static str,
    pub line: usize,
    pub message: String,
}

impl Rules {
    /// Reads a pg_hba.conf and its pg_ident.conf.
    ///
    /// # Errors
    /// [`Unreadable`], naming the line.
    pub fn parse(hba: &str, ident: &str, major: u16) -> Result<Rules, Unreadable> {
        let mut lines = Vec::new();
        for (number, fields) in fields(hba) {
            lines.push(Line::parse(number, &fields).map_err(|message| Unreadable {
                file: "pg_hba.conf",
                line: number,
                message,
            })?);
        }
        let mut maps = Vec::new();
        for (number, fields) in fields(ident) {
            let [map, user, role] = fields.as_slice() else {
                return Err(Unreadable {
                    file: "pg_ident.conf",
                    line: number,
                    message: "not three fields".to_owned(),
                });
            };
            maps.push(MapRow {
                map: map[0].text.clone(),
                user: user[0].text.clone(),
                role: role[0].clone(),
            });
        }
        Ok(Rules { lines, maps, major })
    }

    /// The first line that matches.
    pub fn decide(&self, attempt: &Attempt) -> Decision<'_> {
        for line in &self.lines {
            match line.matches(attempt, self.major) {
                Match::No => {}
                Match::Unknown => return Decision::Undecided { number: line.number },
                Match::Yes => {
                    return Decision::Line {
                        number: line.number,
                        method: &line.method,
                        map: line.map.as_deref(),
                    };
                }
            }
        }
        Decision::None
    }

    /// Whether `map` lets `system_user` (a certificate's CN) be `role`. An expression as system user counts as yes for
    /// everyone: it is never rendered, and taking it for harmless would be the worse mistake.
    pub fn map_admits(&self, map: &str, system_user: &str, role: &str) -> bool {
        self.maps.iter().any(|row| {
            row.map == map
                && (row.user.starts_with('/') || row.user == system_user)
                && matches!(
                    name_matches(&row.role, role, &[], self.major),
                    Match::Yes | Match::Unknown
                )
        })
    }

    /// Whether a certificate of `identity` gets in.
    pub fn certificate_admitted(&self, attempt: &Attempt, identity: &str) -> bool {
        match self.decide(attempt) {
            Decision::Line {
                number: _,
                method: "cert",
                map: Some(map),
            } => self.map_admits(map, identity, attempt.role),
            Decision::Line {
                number: _,
                method: "cert",
                map: None,
            } => identity == attempt.role,
            Decision::Line {
                number: _,
                method: _,
                map: _,
            }
            | Decision::None
            | Decision::Undecided { number: _ } => false,
        }
    }
}

#[derive(Debug, Clone)]
struct MapRow {
    map: String,
    user: String,
    role: Token,
}

#[derive(Debug, Clone)]
struct Line {
    number: usize,
    kind: Kind,
    databases: Vec<Token>,
    roles: Vec<Token>,
    /// `None`: `all`.
    network: Option<IpNet>,
    method: String,
    map: Option<String>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    Unknown,
}

impl Line {
    fn parse(number: usize, fields: &[Vec<Token>]) -> Result<Line, String> {
        let word = |i: usize| fields.get(i).map(|f| f[0].text.as_str());
        let kind = match word(0) {
            Some("local") => Kind::Local,
            Some("host") => Kind::Host,
            Some("hostssl") => Kind::HostSsl,
            Some("hostnossl") => Kind::HostNoSsl,
            other => return Err(format!("a line of type {other:?}")),
        };
        let (network, rest) = match kind {
            Kind::Local => (None, 3),
            Kind::Host | Kind::HostSsl | Kind::HostNoSsl => match word(3) {
                Some("all") => (None, 4),
                Some(text) => (Some(text.parse().map_err(|_| format!("address {text:?}"))?), 4),
                None => return Err("no address".to_owned()),
            },
        };
        let option = |f: &Vec<Token>| f[0].text.strip_prefix("map=").map(str::to_owned);
        Ok(Line {
            number,
            kind,
            databases: fields.get(1).ok_or("no database")?.clone(),
            roles: fields.get(2).ok_or("no role")?.clone(),
            network,
            method: word(rest).ok_or("no method")?.to_owned(),
            map: fields.iter().skip(rest + 1).find_map(option),
        })
    }

    fn matches(&self, attempt: &Attempt, major: u16) -> Match {
        let here = match (self.kind, attempt.from) {
            (Kind::Local, From::Socket) => true,
            (Kind::Local, From::Tcp { .. })
            | (Kind::Host | Kind::HostSsl | Kind::HostNoSsl, From::Socket) => false,
            (Kind::Host, From::Tcp { address, tls: _ }) => self.network_holds(address),
            (Kind::HostSsl, From::Tcp { address, tls }) => tls && self.network_holds(address),
            (Kind::HostNoSsl, From::Tcp { address, tls }) => !tls && self.network_holds(address),
        };
        if !here {
            return Match::No;
        }
        let database = any(&self.databases, |t| database_matches(t, attempt, major));
        let role = any(&self.roles, |t| name_matches(t, attempt.role, &["all"], major));
        match (database, role) {
            (Match::No, _) | (_, Match::No) => Match::No,
            (Match::Yes, Match::Yes) => Match::Yes,
            (Match::Unknown, Match::Yes | Match::Unknown) | (Match::Yes, Match::Unknown) => Match::Unknown,
        }
    }

    fn network_holds(&self, address: IpAddr) -> bool {
        self.network.is_none_or(|n| n.contains(&address))
    }
}

fn any(tokens: &[Token], each: impl Fn(&Token) -> Match) -> Match {
    let mut seen = Match::No;
    for token in tokens {
        match each(token) {
            Match::Yes => return Match::Yes,
            Match::Unknown => seen = Match::Unknown,
            Match::No => {}
        }
    }
    seen
}

/// hba.c: `check_db`. Physical replication matches its keyword and nothing else.
fn database_matches(token: &Token, attempt: &Attempt, major: u16) -> Match {
    let keyword = (!token.quoted).then_some(token.text.as_str());
    match attempt.to {
        To::PhysicalReplication => match keyword {
            Some("replication") => Match::Yes,
            Some(_) | None => Match::No,
        },
        To::Database(name) => match keyword {
            Some("replication") => Match::No,
            Some("sameuser") if name == attempt.role => Match::Yes,
            Some("sameuser") => Match::No,
            Some("samerole" | "samegroup") => Match::Unknown,
            Some(_) | None => name_matches(token, name, &["all"], major),
        },
    }
}

fn name_matches(token: &Token, name: &str, everything: &[&str], major: u16) -> Match {
    if !token.quoted {
        if everything.contains(&token.text.as_str()) {
            return Match::Yes;
        }
        if token.text.starts_with(['+', '@']) {
            return Match::Unknown;
        }
    }
    let yes_if = |same| if same { Match::Yes } else { Match::No };
    // In quotes as well: hba.c, `regcomp_auth_token`.
    if token.text.starts_with('/') && major >= 16 {
        return quote::unescaped(&token.text).map_or(Match::Unknown, |literal| yes_if(literal == name));
    }
    yes_if(token.text == name)
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    text: String,
    quoted: bool,
}

/// The fields of each line that has any, with its number; a field is a list of tokens (hba.c: `next_token`).
fn fields(file: &str) -> Vec<(usize, Vec<Vec<Token>>)> {
    let mut out = Vec::new();
    let mut lines = file.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        // A trailing backslash joins the next line, in a comment as well.
        let mut text = first.to_owned();
        while text.ends_with('\\') {
            text.pop();
            match lines.next() {
                Some((_, next)) => text.push_str(next),
                None => break,
            }
        }
        let fields = split(&text);
        if !fields.is_empty() {
            out.push((index + 1, fields));
        }
    }
    out
}

fn split(line: &str) -> Vec<Vec<Token>> {
    let mut fields: Vec<Vec<Token>> = Vec::new();
    let mut chars = line.chars().peekable();
    let mut joins = false;
    loop {
        while chars.next_if(|c| matches!(c, ' ' | '\t' | '\r')).is_some() {}
        match chars.peek() {
            None | Some('#') => return fields,
            Some(_) => {}
        }
        let mut token = Token {
            text: String::new(),
            quoted: false,
        };
        let (mut in_quotes, mut was_quote, mut comma) = (false, false, false);
        while let Some(c) = chars.next_if(|c| in_quotes || !matches!(c, ' ' | '\t' | '\r' | '#')) {
            if c == ',' && !in_quotes {
                comma = true;
                break;
            }
            if c != '"' || was_quote {
                token.text.push(c);
            }
            was_quote = in_quotes && c == '"' && !was_quote;
            if c == '"' {
                in_quotes = !in_quotes;
                token.quoted = true;
            }
        }
        match fields.last_mut() {
            Some(field) if joins => field.push(token),
            Some(_) | None => fields.push(vec![token]),
        }
        joins = comma;
    }
}
