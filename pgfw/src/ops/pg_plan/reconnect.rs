//! Whether whoever is connected would be let in again.

use pgfw_hba::{
    Admission, CertName, ClientCert, Decision, Encryption, Everyone, From, HbaLine, Login, Method, Name,
    Ranges, Share, Way,
};

use crate::postgres::{LiveFacts, Secret, Session, shown_dn};

/// What a server goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server<'a> {
    pub(super) rules: &'a Everyone<'a>,
    pub(super) ssl: bool,
    /// The client authorities, DER.
    pub(super) trusted: &'a [Vec<u8>],
    /// It speaks TLS 1.3 only.
    pub(super) only_tls_1_3: bool,
}

/// One that is connected, as it came in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client<'a> {
    pub(super) session: &'a Session,
    /// The name in its certificate.
    pub(super) certificate: Option<&'a str>,
    pub(super) gss: bool,
}

/// What would become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Again {
    In,
    /// It depends on what nobody here knows.
    Perhaps(String),
    Refused(String),
}

impl Server<'_> {
    /// The same login, coming again as it came.
    pub(super) fn again(&self, client: &Client, live: &LiveFacts) -> Again {
        let encryption = client.encryption();
        let again = self.comes(client, encryption, live);
        // Most clients try TLS by themselves where the server offers it (libpq: sslmode=prefer).
        match (again, encryption) {
            (Again::Refused(why), Encryption::None) if client.session.address.is_some() => {
                match self.comes(client, Encryption::Tls, live) {
                    Again::In => Again::Perhaps(format!("{why}; with TLS it gets in")),
                    Again::Perhaps(then) => Again::Perhaps(format!("{why}; with TLS {then}")),
                    Again::Refused(_) => Again::Refused(why),
                }
            }
            (again, _) => again,
        }
    }

    fn comes(&self, client: &Client, encryption: Encryption, live: &LiveFacts) -> Again {
        let session = client.session;
        let refused = |why: &str| Again::Refused(why.to_owned());
        if session.address.is_some() && encryption == Encryption::Tls {
            if !self.ssl {
                return refused("the server speaks no TLS");
            }
            if let (true, Some(version)) = (self.only_tls_1_3, session.tls.as_deref())
                && version != "TLSv1.3"
            {
                return Again::Refused(format!("it speaks {version}, and the server TLSv1.3 only"));
            }
            if let Some(issuer) = self.untrusted_issuer(session) {
                return Again::Refused(format!(
                    "its certificate is of {issuer}, which the server does not trust"
                ));
            }
        }
        match self
            .rules
            .hba()
            .decide(&client.login(encryption), self.rules.world())
        {
            Decision::NoLine => refused("no rule is for it"),
            Decision::Undecided { line, doubt } => {
                Again::Perhaps(format!("{} may decide: {}", named(line), doubt.0))
            }
            Decision::Line(line) => self.line(line, client, live),
        }
    }

    fn line(&self, line: &HbaLine, client: &Client, live: &LiveFacts) -> Again {
        let role = client.role();
        if line.method == Method::Reject {
            return Again::Refused(format!("{} rejects it", named(line)));
        }
        match (line.options.clientcert, client.session.serial.as_ref()) {
            (ClientCert::None, _) => {}
            (ClientCert::Ca | ClientCert::Full, None) => {
                return Again::Refused(format!(
                    "{} asks for a certificate, and it has shown none",
                    named(line)
                ));
            }
            (ClientCert::Ca, Some(_)) => {}
            (ClientCert::Full, Some(_)) => match self.mapped(line, client, role) {
                Again::In => {}
                otherwise @ (Again::Perhaps(_) | Again::Refused(_)) => return otherwise,
            },
        }
        match line.method {
            Method::Trust | Method::Cert | Method::Reject => Again::In,
            Method::Password | Method::Md5 | Method::ScramSha256 => password(line, role, live),
            Method::Peer
            | Method::Ident
            | Method::Gss
            | Method::Pam
            | Method::Ldap
            | Method::Radius
            | Method::Oauth => Again::Perhaps(format!("{} asks for {}", named(line), line.method.name())),
        }
    }

    fn mapped(&self, line: &HbaLine, client: &Client, role: &str) -> Again {
        let Some(name) = client.certificate else {
            return Again::Perhaps("whose certificate it showed is not known".to_owned());
        };
        let asked = match line.options.clientname {
            CertName::CommonName => name.to_owned(),
            CertName::DistinguishedName => format!("CN={name}"),
        };
        let map = line.options.map.as_deref();
        let ident = self.rules.ident();
        match ident.admits(map, asked.as_bytes(), role.as_bytes(), self.rules.world()) {
            Admission::ByName(true) | Admission::Line(_) => Again::In,
            Admission::ByName(false) | Admission::NoLine | Admission::Broken(_) => {
                Again::Refused(format!("certificate {name} may not be {role} by {}", named(line)))
            }
            Admission::Undecided { line: _, doubt } => Again::Perhaps(doubt.0),
        }
    }

    /// Who issued its certificate, where the server refuses it for that.
    pub(super) fn untrusted_issuer<'s>(&self, session: &'s Session) -> Option<&'s str> {
        // A server that trusts nobody asks for no certificate, and is shown none.
        if session.serial.is_none() || self.trusted.is_empty() {
            return None;
        }
        let issuer = session.issuer.as_deref()?;
        let names: Option<Vec<String>> = self.trusted.iter().map(|der| shown_dn(der)).collect();
        names
            .is_some_and(|names| names.iter().all(|name| name != issuer))
            .then_some(issuer)
    }

    /// By what one gets in there, as all who do.
    pub(super) fn ways(&self, client: &Client) -> Option<Vec<Way>> {
        let Decision::Line(line) = self
            .rules
            .hba()
            .decide(&client.login(client.encryption()), self.rules.world())
        else {
            return None;
        };
        let share = Share {
            line,
            from: Ranges::all(),
            doubt: None,
        };
        let name = client.certificate.map(|name| name.as_bytes().to_vec());
        Some(
            self.rules
                .ways(&share, &Name::Named(client.role().into()), &Vec::from_iter(name)),
        )
    }
}

impl<'a> Client<'a> {
    fn encryption(&self) -> Encryption {
        match (&self.session.tls, self.gss) {
            (Some(_), _) => Encryption::Tls,
            (None, true) => Encryption::Gss,
            (None, false) => Encryption::None,
        }
    }

    fn role(&self) -> &'a str {
        self.session.role.as_deref().unwrap_or_default()
    }

    fn login(&self, encryption: Encryption) -> Login<'a> {
        let from = match self.session.address {
            Some(address) => From::Tcp { address, encryption },
            None => From::Local,
        };
        Login {
            from,
            database: self.session.database.as_deref().unwrap_or_default().as_bytes(),
            role: self.role().as_bytes(),
            replication: self.session.database.is_none(),
        }
    }
}

/// Whether the role has a password that the method can use.
fn password(line: &HbaLine, role: &str, live: &LiveFacts) -> Again {
    let secret = live.roles.iter().find(|r| r.name == role).map(|r| r.secret);
    match (secret, line.method) {
        (Some(Secret::None), _) => Again::Refused(format!(
            "{} asks for a password, and {role} has none",
            named(line)
        )),
        (Some(Secret::Md5), Method::ScramSha256) => Again::Refused(format!(
            "{} asks by scram-sha-256, and the password of {role} is kept as md5",
            named(line)
        )),
        (Some(Secret::Md5 | Secret::Scram) | None, _) => {
            Again::Perhaps(format!("{} asks for the password of {role}", named(line)))
        }
    }
}

pub(super) fn named(line: &HbaLine) -> String {
    let text = String::from_utf8_lossy(&line.raw).trim().to_owned();
    format!("`{text}`")
}

#[cfg(test)]
mod tests;
