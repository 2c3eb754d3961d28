//! What becomes of a line: a `[[login]]`, nothing that is missed, or something that pgfw.toml cannot say.

use pgfw_hba::{ClientCert, Connection, HbaLine, Method as Asks};

use crate::config::Method;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// Of type local: kept as a line.
    Local,
    Login(Method),
    Refuses,
    /// Why not, and what to do instead; each a sentence.
    Lost {
        why: &'static str,
        instead: &'static str,
    },
}

pub(super) fn fate(line: &HbaLine) -> Fate {
    const IDENTITY: &str =
        "Give each of them an [[identity]] and a certificate: pgfw cert issue NAME --bundle DIR.";
    const PASSWORD: &str =
        "Give each of them a password and a [[login]], or an [[identity]] with a certificate.";
    if line.connection == Connection::Local {
        return Fate::Local;
    }
    let lost = |why, instead| Fate::Lost { why, instead };
    if line.method == Asks::Reject {
        return Fate::Refuses;
    }
    if line.connection == Connection::HostGssEnc {
        return lost("it is for connections that GSSAPI encrypts", PASSWORD);
    }
    match line.options.clientcert {
        ClientCert::Ca | ClientCert::Full => {
            return lost(
                "it asks for a certificate of the authority that the server trusts today, and pgfw has one of its own",
                IDENTITY,
            );
        }
        ClientCert::None => {}
    }
    match line.method {
        Asks::ScramSha256 => Fate::Login(Method::ScramSha256),
        // The method md5 takes passwords of either kind (auth.c: `CheckPWChallengeAuth`).
        Asks::Md5 | Asks::Password => Fate::Login(Method::Md5),
        Asks::Trust => lost("it lets everybody in without any proof (trust)", PASSWORD),
        Asks::Ident => lost(
            "it believes what the client's host says of its user (ident)",
            PASSWORD,
        ),
        Asks::Ldap => lost("it asks an LDAP server for the password", PASSWORD),
        Asks::Pam => lost("it asks PAM for the password", PASSWORD),
        Asks::Radius => lost("it asks a RADIUS server for the password", PASSWORD),
        Asks::Gss => lost("it asks for a Kerberos ticket (gss)", PASSWORD),
        Asks::Oauth => lost("it asks for a token (oauth)", PASSWORD),
        Asks::Cert => lost("it asks for a certificate", IDENTITY),
        // Never on such lines, and a refusal each if ever.
        Asks::Reject | Asks::Peer => Fate::Refuses,
    }
}
