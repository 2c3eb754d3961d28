//! `pgfw pg who`: which line of a live server decides a login, and what happens then.

use std::net::IpAddr;

use pgfw_hba::{
    Admission, CertName, ClientCert, Decision, Encryption, From, HbaLine, Ident, Login, Method, Truth,
};
use serde::{Deserialize, Serialize};

use super::certificates::no_cluster;
use crate::config::Config;
use crate::failure::Failure;
use crate::paths::Paths;
use crate::postgres::{Rules, Server};

/// A login that is thought of.
#[derive(Debug, Clone)]
pub struct Question {
    pub user: String,
    pub database: String,
    pub replication: bool,
    /// `None`: over the Unix socket.
    pub from: Option<IpAddr>,
    pub plaintext: bool,
    /// The common name of the certificate that the client shows.
    pub certificate: Option<String>,
    /// The operating-system user at the other end of a Unix socket.
    pub system_user: Option<String>,
}

/// What a cluster's rules say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    pub cluster: String,
    pub verdict: Verdict,
    /// One sentence.
    pub because: String,
    /// The line that decides, or that may.
    pub line: Option<Line>,
    pub method: Option<String>,
    /// `name=value`, as they stand.
    pub options: Vec<String>,
    /// The line of pg_ident.conf that admits, or that may.
    pub map_line: Option<Line>,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    LetIn,
    /// Who knows the password, or has the ticket, is let in.
    Asked,
    Refused,
    Undecided,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub file: String,
    pub number: usize,
    pub text: String,
}

/// The answer, and what it takes to ask the filter as well.
#[derive(Debug)]
pub struct Asked {
    pub who: Who,
    pub port: u16,
    /// The address is this host's: its packets do not come in through an interface.
    pub through_loopback: bool,
}

/// Every cluster of `pgfw.toml`, or the one named.
///
/// # Errors
/// No such cluster; a config or a cluster that cannot be read.
pub fn pg_who(paths: &Paths, cluster: Option<&str>, question: &Question) -> Result<Vec<Asked>, Failure> {
    let config = Config::read(&paths.config)?;
    let meant = config
        .postgres
        .iter()
        .filter(|c| cluster.is_none_or(|name| c.name == name));
    let answers: Vec<Asked> = meant
        .map(|cluster| {
            let server = Server::find(cluster)?;
            let rules = Rules::of(&server)?;
            Ok(Asked {
                who: answer(&cluster.name, &rules, question),
                port: server.port,
                through_loopback: question.from.is_some_and(|from| rules.live.is_own(from)),
            })
        })
        .collect::<Result<_, Failure>>()?;
    match cluster {
        Some(name) if answers.is_empty() => Err(no_cluster(&config, name, &paths.config)),
        Some(_) | None => Ok(answers),
    }
}

fn answer(cluster: &str, rules: &Rules, question: &Question) -> Who {
    let mut who = Who {
        cluster: cluster.to_owned(),
        verdict: Verdict::Undecided,
        because: String::new(),
        line: None,
        method: None,
        options: Vec::new(),
        map_line: None,
        notes: rules.notes.clone(),
    };
    let wrong = rules.hba.errors.first();
    who.notes.extend(rules.ident.errors.first().map(|problem| {
        format!("the maps are not loaded, since {problem}; a running server goes by those that it had")
    }));
    if let Truth::Unknown(doubt) = rules.hba.loads() {
        who.notes.push(format!(
            "whether the server takes its rules is not known: {}",
            doubt.0
        ));
    }
    if let Some(problem) = wrong {
        who.because = match rules.running {
            true => {
                format!("the rules are not loaded, since {problem}; the server goes by those that it had")
            }
            false => format!("the server does not start, since {problem}"),
        };
        return who;
    }
    if question.from.is_some() && !question.plaintext && !rules.ssl {
        who.verdict = Verdict::Refused;
        who.because = "the server does not speak TLS (ssl = off)".to_owned();
        return who;
    }
    let login = question.login();
    let line = match rules.hba.decide(&login, &rules.live) {
        Decision::NoLine => {
            who.verdict = Verdict::Refused;
            who.because = "no line is for this login".to_owned();
            return who;
        }
        Decision::Line(line) => line,
        Decision::Undecided { line, doubt } => {
            who.because = format!("this line may be for it: {}", doubt.0);
            who.put(line);
            return who;
        }
    };
    who.put(line);
    who.method(line, &rules.ident, rules, question);
    who
}

impl Question {
    fn login(&self) -> Login<'_> {
        let encryption = if self.plaintext {
            Encryption::None
        } else {
            Encryption::Tls
        };
        Login {
            from: self
                .from
                .map_or(From::Local, |address| From::Tcp { address, encryption }),
            database: self.database.as_bytes(),
            role: self.user.as_bytes(),
            replication: self.replication,
        }
    }
}

impl Who {
    fn put(&mut self, line: &HbaLine) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.line = Some(shown(&line.at, &line.raw));
        self.method = Some(line.method.name().to_owned());
        let options = line.options.all.iter();
        self.options = options
            .map(|(name, value)| format!("{}={}", text(name), text(value)))
            .collect();
    }

    fn says(&mut self, verdict: Verdict, because: impl Into<String>) {
        self.verdict = verdict;
        self.because = because.into();
    }

    /// auth.c: `ClientAuthentication`. A certificate is asked for first, whatever the method; its name counts last.
    fn method(&mut self, line: &HbaLine, ident: &Ident, rules: &Rules, question: &Question) {
        let certificate = question.certificate.as_deref();
        if let (ClientCert::Ca | ClientCert::Full, None) = (line.options.clientcert, certificate) {
            return self.says(
                Verdict::Refused,
                "the line asks for a certificate; say whose with --cert",
            );
        }
        let by_name = |who: &mut Who, verdict, otherwise: &str| match (line.options.clientcert, certificate) {
            (ClientCert::Full, Some(name)) => {
                let name = match line.options.clientname {
                    CertName::CommonName => name.to_owned(),
                    // Its subject in pgfw's certificates is the name alone.
                    CertName::DistinguishedName => format!("CN={name}"),
                };
                who.map(line, ident, rules, question, &name, "certificate", verdict);
            }
            (ClientCert::None | ClientCert::Ca, _) | (ClientCert::Full, None) => who.says(verdict, otherwise),
        };
        match line.method {
            Method::Reject => self.says(Verdict::Refused, "the line rejects"),
            Method::Trust if line.options.clientcert == ClientCert::Ca => {
                self.says(Verdict::LetIn, "any valid certificate will do");
            }
            Method::Trust | Method::Cert => by_name(self, Verdict::LetIn, "without any proof"),
            Method::Password | Method::Md5 | Method::ScramSha256 => {
                by_name(self, Verdict::Asked, "for the role's password");
            }
            Method::Ldap | Method::Pam | Method::Radius => {
                by_name(self, Verdict::Asked, "for a password that another service knows");
            }
            Method::Gss => by_name(self, Verdict::Asked, "for a Kerberos ticket"),
            Method::Oauth => by_name(self, Verdict::Asked, "for a token"),
            Method::Ident => self.says(
                Verdict::Undecided,
                "it depends on what the client's host says of its user (ident, RFC 1413)",
            ),
            Method::Peer => match &question.system_user {
                Some(user) => self.map(line, ident, rules, question, user, "user", Verdict::LetIn),
                None => self.says(
                    Verdict::Undecided,
                    "it depends on the operating-system user; say which with --os-user",
                ),
            },
        }
    }

    #[expect(clippy::too_many_arguments, reason = "they are all that a map is asked about")]
    fn map(
        &mut self,
        line: &HbaLine,
        ident: &Ident,
        rules: &Rules,
        question: &Question,
        system_user: &str,
        kind: &str,
        otherwise: Verdict,
    ) {
        let role = &question.user;
        let map = line.options.map.as_deref();
        let admission = ident.admits(map, system_user.as_bytes(), role.as_bytes(), &rules.live);
        let proof = match otherwise {
            Verdict::Asked => ", and is asked for a password as well",
            Verdict::LetIn | Verdict::Refused | Verdict::Undecided => "",
        };
        match admission {
            Admission::ByName(true) => {
                self.says(otherwise, format!("the {kind}'s name is the role's{proof}"));
            }
            Admission::ByName(false) => self.says(
                Verdict::Refused,
                format!("without a map the {kind}'s name has to be the role's"),
            ),
            Admission::Line(by) => {
                self.map_line = Some(shown(&by.at, &by.raw));
                self.says(
                    otherwise,
                    format!("the map lets {kind} {system_user} be {role}{proof}"),
                );
            }
            Admission::NoLine => self.says(
                Verdict::Refused,
                format!("no line of the map lets {kind} {system_user} be {role}"),
            ),
            Admission::Broken(by) => {
                self.map_line = Some(shown(&by.at, &by.raw));
                self.says(
                    Verdict::Refused,
                    "the map's line names a part that its expression does not mark",
                );
            }
            Admission::Undecided { line: by, doubt } => {
                self.map_line = Some(shown(&by.at, &by.raw));
                self.says(Verdict::Undecided, doubt.0);
            }
        }
    }
}

fn shown(at: &pgfw_hba::At, raw: &[u8]) -> Line {
    Line {
        file: at.file.display().to_string(),
        number: at.number,
        text: String::from_utf8_lossy(raw).trim().to_owned(),
    }
}
