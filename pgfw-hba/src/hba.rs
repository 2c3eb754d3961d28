//! The lines of pg_hba.conf (hba.c: `parse_hba_line`, `load_hba`).

use std::io;
use std::path::Path;

use crate::address::{Address, Read};
use crate::check::{Truth, World};
use crate::expression::{self, Expression, Unfit};
use crate::files::Files;
use crate::options::{self, Options};
use crate::token::{At, Line, Problem, Token, Tokenizer};
use crate::{LONGEST_NAME, Server};

/// A pg_hba.conf with everything that it includes.
#[derive(Debug, Clone, Default)]
pub struct Hba {
    /// In the order in which they are asked. Without those that are wrong.
    pub lines: Vec<HbaLine>,
    /// With any of these the file is not loaded: a running server goes on by what it had, and one that starts ends.
    pub errors: Vec<Problem>,
    /// Whether the server takes these lines is not known here.
    pub doubts: Vec<Problem>,
}

/// One line.
#[derive(Debug, Clone)]
pub struct HbaLine {
    pub at: At,
    /// As it stands, its continuations joined.
    pub raw: Vec<u8>,
    pub connection: Connection,
    pub databases: Vec<Pattern>,
    pub roles: Vec<Pattern>,
    /// `None` for `local`.
    pub address: Option<Address>,
    pub method: Method,
    pub options: Options,
}

/// The first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
    HostGssEnc,
    HostNoGssEnc,
}

/// How a login is asked for its proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    Trust,
    Reject,
    Ident,
    Peer,
    Password,
    Md5,
    ScramSha256,
    Gss,
    Pam,
    Ldap,
    Cert,
    Radius,
    Oauth,
}

/// A database or role of a line.
#[derive(Debug, Clone)]
pub struct Pattern {
    pub token: Token,
    /// Behind a slash, from 16 on.
    pub expression: Option<Result<Expression, Unfit>>,
}

impl Hba {
    /// Reads the file and what it includes. A file that cannot be read is an error like any other.
    pub fn read(path: &Path, files: &dyn Files, server: &Server) -> Hba {
        let mut hba = Hba::default();
        let lines = match lines(path, files, server, &mut hba.errors) {
            Ok(lines) => lines,
            Err(problem) => {
                hba.errors.push(problem);
                return hba;
            }
        };
        for line in lines {
            match HbaLine::read(&line, server) {
                Ok((read, doubt)) => {
                    hba.doubts
                        .extend(doubt.map(|message| Problem { at: line.at, message }));
                    hba.lines.push(read);
                }
                Err(message) => hba.errors.push(Problem { at: line.at, message }),
            }
        }
        if hba.lines.is_empty() && hba.errors.is_empty() {
            hba.errors.push(Problem {
                at: start(path),
                message: "it contains no entries".to_owned(),
            });
        }
        hba
    }

    /// Whether a server takes the file.
    pub fn loads(&self) -> Truth {
        match (self.errors.as_slice(), self.doubts.as_slice()) {
            ([], []) => Truth::Yes,
            ([], [doubt, ..]) => Truth::unknown(&doubt.to_string()),
            ([_, ..], _) => Truth::No,
        }
    }
}

/// The whole lines of a file; those that broke while they were read go to `errors`.
pub(crate) fn lines(
    path: &Path,
    files: &dyn Files,
    server: &Server,
    errors: &mut Vec<Problem>,
) -> Result<Vec<Line>, Problem> {
    let tokenizer = Tokenizer {
        files,
        major: server.major,
    };
    let lines = tokenizer.file(path).map_err(|error: io::Error| Problem {
        at: start(path),
        message: error.to_string(),
    })?;
    let mut whole = Vec::new();
    for line in lines {
        // The C code's strings end there, and what is read of such a line depends on the sizes of its buffers.
        let nul = line.raw.contains(&0).then(|| "it holds a NUL byte".to_owned());
        match line.error.clone().or(nul) {
            Some(message) => errors.push(Problem { at: line.at, message }),
            None => whole.push(line),
        }
    }
    Ok(whole)
}

fn start(path: &Path) -> At {
    At {
        file: path.into(),
        number: 1,
    }
}

impl HbaLine {
    fn read(line: &Line, server: &Server) -> Result<(HbaLine, Option<String>), String> {
        let mut fields = line.fields.iter();
        let one = |field: Option<&Vec<Token>>, what: &str| match field.map(Vec::as_slice) {
            Some([token]) => Ok(token.clone()),
            Some(_) => Err(format!("multiple values specified for {what}")),
            None => Err(format!("end-of-line before {what}")),
        };
        let connection = Connection::of(&one(fields.next(), "connection type")?.text)?;
        let mut doubt = None;
        let mut patterns = |field: Option<&Vec<Token>>, what: &str| {
            let tokens = field.ok_or_else(|| format!("end-of-line before {what} specification"))?;
            let patterns = tokens.iter().map(|token| Pattern::of(token, server, &mut doubt));
            patterns.collect::<Result<Vec<_>, String>>()
        };
        let databases = patterns(fields.next(), "database")?;
        let roles = patterns(fields.next(), "role")?;
        let address = match connection {
            Connection::Local => None,
            Connection::Host
            | Connection::HostSsl
            | Connection::HostNoSsl
            | Connection::HostGssEnc
            | Connection::HostNoGssEnc => {
                let token = one(fields.next(), "host address")?;
                Some(match Address::read(&token, &mut doubt)? {
                    Read::Whole(address) => address,
                    Read::NeedsMask(net) => {
                        Address::with_mask(net, &one(fields.next(), "netmask")?, &mut doubt)?
                    }
                })
            }
        };
        let method = Method::of(&one(fields.next(), "authentication type")?.text, server)?;
        let method = method.on(connection)?;
        let texts = fields.flatten().map(|token| token.text.as_slice());
        let read = options::read(texts, connection, method, server)?;
        let line = HbaLine {
            at: line.at.clone(),
            raw: line.raw.clone(),
            connection,
            databases,
            roles,
            address,
            method,
            options: read.options,
        };
        Ok((line, read.doubt.or(doubt)))
    }
}

impl Connection {
    fn of(word: &[u8]) -> Result<Connection, String> {
        Ok(match word {
            b"local" => Connection::Local,
            b"host" => Connection::Host,
            b"hostssl" => Connection::HostSsl,
            b"hostnossl" => Connection::HostNoSsl,
            b"hostgssenc" => Connection::HostGssEnc,
            b"hostnogssenc" => Connection::HostNoGssEnc,
            other => {
                let other = String::from_utf8_lossy(other);
                return Err(format!("invalid connection type \"{other}\""));
            }
        })
    }
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Method::Trust => "trust",
            Method::Reject => "reject",
            Method::Ident => "ident",
            Method::Peer => "peer",
            Method::Password => "password",
            Method::Md5 => "md5",
            Method::ScramSha256 => "scram-sha-256",
            Method::Gss => "gss",
            Method::Pam => "pam",
            Method::Ldap => "ldap",
            Method::Cert => "cert",
            Method::Radius => "radius",
            Method::Oauth => "oauth",
        }
    }

    fn of(word: &[u8], server: &Server) -> Result<Method, String> {
        let word = String::from_utf8_lossy(word);
        let all = [
            Method::Trust,
            Method::Reject,
            Method::Ident,
            Method::Peer,
            Method::Password,
            Method::Md5,
            Method::ScramSha256,
            Method::Gss,
            Method::Pam,
            Method::Ldap,
            Method::Cert,
            Method::Radius,
            Method::Oauth,
        ];
        let method = all.into_iter().find(|method| method.name() == word);
        let built = |method: &Method| match method {
            Method::Gss => server.gss,
            Method::Pam => server.pam,
            Method::Ldap => server.ldap,
            Method::Oauth => server.major.number() >= 18,
            Method::Trust
            | Method::Reject
            | Method::Ident
            | Method::Peer
            | Method::Password
            | Method::Md5
            | Method::ScramSha256
            | Method::Cert
            | Method::Radius => true,
        };
        method
            .filter(built)
            .ok_or_else(|| format!("invalid authentication method \"{word}\""))
    }

    /// What it is on such a line; some do not go together.
    fn on(self, connection: Connection) -> Result<Method, String> {
        match (self, connection == Connection::Local) {
            (Method::Ident, true) => Ok(Method::Peer),
            (Method::Gss, true) => Err("gssapi authentication is not supported on local sockets".to_owned()),
            (Method::Peer, false) => Err("peer authentication is only supported on local sockets".to_owned()),
            (Method::Cert, _) if connection != Connection::HostSsl => {
                Err("cert authentication is only supported on hostssl connections".to_owned())
            }
            (method, _) => Ok(method),
        }
    }
}

impl Pattern {
    fn of(token: &Token, server: &Server, doubt: &mut Option<String>) -> Result<Pattern, String> {
        let expression = match server.major.has_includes_and_expressions() {
            true => compiled(token, doubt)?,
            false => None,
        };
        Ok(Pattern {
            token: token.clone(),
            expression,
        })
    }

    /// The keyword that it may be.
    pub fn keyword(&self) -> Option<&[u8]> {
        (!self.token.quoted).then_some(self.token.text.as_slice())
    }

    /// The group behind a plus sign; among roles only.
    pub fn group(&self) -> Option<&[u8]> {
        self.keyword()?.strip_prefix(b"+")
    }

    /// As a role it is that one and no other.
    pub fn is_literal(&self) -> bool {
        self.expression.is_none() && self.group().is_none() && self.keyword() != Some(b"all")
    }

    /// As a database it is none, but a keyword.
    pub(crate) fn is_database_word(&self) -> bool {
        let words: [&[u8]; 5] = [b"all", b"sameuser", b"samerole", b"samegroup", b"replication"];
        self.keyword().is_some_and(|word| words.contains(&word))
    }

    /// hba.c: `check_role`.
    pub(crate) fn matches_role(&self, role: &[u8], world: &dyn World) -> Truth {
        if let Some(group) = self.group() {
            return is_member(role, group, world);
        }
        if self.keyword() == Some(b"all") {
            return Truth::Yes;
        }
        self.matches_name(role)
    }

    /// hba.c: `check_db`, for a connection to a database.
    pub(crate) fn matches_database(&self, database: &[u8], role: &[u8], world: &dyn World) -> Truth {
        match self.keyword() {
            Some(b"all") => Truth::Yes,
            Some(b"sameuser") => Truth::of(database == role),
            Some(b"samerole" | b"samegroup") => is_member(role, database, world),
            Some(b"replication") => Truth::No,
            Some(_) | None => self.matches_name(database),
        }
    }

    fn matches_name(&self, name: &[u8]) -> Truth {
        match &self.expression {
            Some(expression) => expression::truth(expression, name),
            None => Truth::of(self.token.text == name),
        }
    }
}

/// The expression of a token; one that PostgreSQL does not compile makes its line wrong.
pub(crate) fn compiled(
    token: &Token,
    doubt: &mut Option<String>,
) -> Result<Option<Result<Expression, Unfit>>, String> {
    match expression::of_token(&token.text) {
        Some(Err(Unfit::Invalid(why))) => {
            let shown = String::from_utf8_lossy(&token.text[1..]);
            Err(format!("invalid regular expression \"{shown}\": {why}"))
        }
        Some(Err(Unfit::Beyond(why))) => {
            let shown = String::from_utf8_lossy(&token.text[1..]);
            *doubt = Some(format!(
                "the regular expression \"{shown}\" is not understood here: {why}"
            ));
            Ok(Some(Err(Unfit::Beyond(why))))
        }
        Some(Ok(expression)) => Ok(Some(Ok(expression))),
        None => Ok(None),
    }
}

/// A name of the catalogues is cut before it is looked up, so a longer one is no group.
fn is_member(role: &[u8], group: &[u8], world: &dyn World) -> Truth {
    if group.is_empty() || group.len() > LONGEST_NAME {
        return Truth::No;
    }
    match world.is_member(role, group) {
        Some(is) => Truth::of(is),
        None => Truth::unknown(&format!(
            "whether the role is a member of {:?} is not known",
            String::from_utf8_lossy(group)
        )),
    }
}
