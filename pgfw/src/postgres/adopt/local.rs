//! Lines of type local: kept as lines, in their order. Pure.
//!
//! One that cannot be kept still has its place: the logins that it decided must not fall to a later line that lets them
//! in, so a reject stands in for it.

use pgfw_hba::{Connection, HbaLine, Ident, Method, Pattern, Token};

use super::sections::Note;
use super::text::shown;

/// An element of `local`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocalLine {
    /// `None`: it cannot be written at all.
    pub(super) text: Option<String>,
    pub(super) notes: Vec<Note>,
}

/// `before`: the lines that are asked first.
pub(super) fn of_line(
    line: &HbaLine,
    before: &[HbaLine],
    ident: &Ident,
    superuser: &str,
) -> Option<LocalLine> {
    if line.connection != Connection::Local {
        return None;
    }
    let mut notes = Vec::new();
    let mut note = |differs: bool, text: String| notes.push(Note { differs, text });
    let mut lost = None;
    let options = &line.options.all;
    let has = |name: &str| options.iter().any(|(n, _)| n == name.as_bytes());
    if let Some(map) = &line.options.map {
        let rows = ident.lines.iter().filter(|row| row.map == *map);
        let rows: Vec<String> = rows
            .map(|row| format!("{} as {}", shown(&row.user.text), shown(&row.role.token.text)))
            .collect();
        lost = Some(format!(
            "refused then: it goes by map {}, and pgfw writes pg_ident.conf ({})",
            shown(map),
            match rows.as_slice() {
                [] => "the map has no line".to_owned(),
                rows => rows.join(", "),
            }
        ));
    } else if has("ldapbindpasswd") || has("radiussecrets") {
        lost = Some(
            "refused until you put the line here as it stands: it holds a secret, which is not printed"
                .to_owned(),
        );
    }
    match line.method {
        Method::Trust => note(
            false,
            "trust: every user of this host is let in as whom he says he is".to_owned(),
        ),
        Method::Md5 => note(
            false,
            "md5: passwords may still be kept as MD5; scram-sha-256 once none is".to_owned(),
        ),
        Method::Password | Method::ScramSha256 => {}
        Method::Reject
        | Method::Ident
        | Method::Peer
        | Method::Gss
        | Method::Pam
        | Method::Ldap
        | Method::Cert
        | Method::Radius
        | Method::Oauth => {}
    }
    let takes_superuser = |line: &HbaLine| {
        let named = |p: &Pattern| p.keyword() == Some(b"all") || p.token.text == superuser.as_bytes();
        line.roles.iter().any(named)
    };
    let every_database = |line: &HbaLine| line.databases.iter().any(|p| p.keyword() == Some(b"all"));
    let mut before = before
        .iter()
        .filter(|other| other.connection == Connection::Local);
    let takes_superuser =
        takes_superuser(line) && !before.any(|other| every_database(other) && takes_superuser(other));
    if takes_superuser && !matches!(line.method, Method::Peer | Method::Reject) {
        note(
            true,
            format!(
                "{} gets in here by peer only, then: as root or {}",
                shown(superuser.as_bytes()),
                shown(superuser.as_bytes())
            ),
        );
    }
    let method = match &lost {
        Some(_) => vec!["reject".to_owned()],
        None => {
            let options = options.iter().map(|(name, value)| {
                let text = [name.as_slice(), b"=", value.as_slice()].concat();
                quoted(&text)
            });
            let words: Option<Vec<String>> = options.collect();
            match words {
                Some(options) => [line.method.name().to_owned()]
                    .into_iter()
                    .chain(options)
                    .collect(),
                None => {
                    lost =
                        Some("refused then: an option of it is no text that pgfw.toml can hold".to_owned());
                    vec!["reject".to_owned()]
                }
            }
        }
    };
    if let Some(why) = lost {
        note(true, why);
    }
    let fields = patterns(&line.databases).zip(patterns(&line.roles));
    let text = fields.map(|(databases, roles)| format!("local {databases} {roles} {}", method.join(" ")));
    let text = text.filter(|text| !text.contains(['\n', '\r', '\0']) && !text.ends_with('\\'));
    if text.is_none() {
        note(
            true,
            "left out, since pgfw.toml cannot hold its names: the lines below decide, then".to_owned(),
        );
    }
    Some(LocalLine { text, notes })
}

fn patterns(patterns: &[Pattern]) -> Option<String> {
    let tokens: Option<Vec<String>> = patterns.iter().map(|p| token(&p.token)).collect();
    Some(tokens?.join(","))
}

/// The token that reads the same (hba.c: `next_token`): what makes it a keyword, a group or a name is whether it *begins*
/// with a quote.
fn token(token: &Token) -> Option<String> {
    let text = std::str::from_utf8(&token.text).ok()?;
    if token.quoted {
        return quoted(&token.text);
    }
    let plain = |c: char| c.is_alphanumeric() || "_-.+/=:".contains(c);
    let mut chars = text.chars();
    match chars.next() {
        None => None,
        Some(_) if text.chars().all(plain) => Some(text.to_owned()),
        Some(first) => Some(format!("{first}{}", quoted(chars.as_str().as_bytes())?)),
    }
}

fn quoted(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    Some(format!("\"{}\"", text.replace('"', "\"\"")))
}
