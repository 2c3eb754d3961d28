//! What follows the method: `name=value` (hba.c: `parse_hba_auth_opt`).

use crate::Server;
use crate::hba::{Connection, Method};

/// The options that change who is let in, and the names of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `map=`; an empty one is none.
    pub map: Option<Vec<u8>>,
    pub clientcert: ClientCert,
    pub clientname: CertName,
    /// All, in their order, as they stand.
    pub all: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What is asked of a client's certificate. The method `cert` asks for [`ClientCert::Full`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientCert {
    #[default]
    None,
    /// `verify-ca`: a valid one, whosever it is.
    Ca,
    /// `verify-full`: a valid one whose name may be the role.
    Full,
}

/// Which name of the certificate counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CertName {
    #[default]
    CommonName,
    /// The whole subject as RFC 2253 writes it.
    DistinguishedName,
}

/// What reading the options came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) options: Options,
    /// Whether the server takes the line depends on this.
    pub(crate) doubt: Option<String>,
}

pub(crate) fn read<'t>(
    texts: impl Iterator<Item = &'t [u8]>,
    connection: Connection,
    method: Method,
    server: &Server,
) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    for text in texts {
        let shown = String::from_utf8_lossy(text);
        let mut parts = text.splitn(2, |b| *b == b'=');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            return Err(format!("authentication option not in name=value format: {shown}"));
        };
        one(name, value, connection, method, &mut outcome)?;
        outcome.options.all.push((name.to_vec(), value.to_vec()));
    }
    if method == Method::Cert {
        outcome.options.clientcert = ClientCert::Full;
    }
    together(method, server, &mut outcome)?;
    Ok(outcome)
}

fn one(
    name: &[u8],
    value: &[u8],
    connection: Connection,
    method: Method,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let options = &mut outcome.options;
    let shown = String::from_utf8_lossy(name);
    let only = |methods: &[Method]| match methods.contains(&method) {
        true => Ok(()),
        false => {
            let names: Vec<&str> = methods.iter().map(|m| m.name()).collect();
            Err(format!(
                "authentication option \"{shown}\" is only valid for authentication methods {}",
                names.join(", ")
            ))
        }
    };
    let only_hostssl = || match connection == Connection::HostSsl {
        true => Ok(()),
        false => Err(format!("{shown} can only be configured for \"hostssl\" rows")),
    };
    let invalid = || {
        let value = String::from_utf8_lossy(value);
        Err(format!("invalid value for {shown}: \"{value}\""))
    };
    match name {
        b"map" => {
            only(&[
                Method::Ident,
                Method::Peer,
                Method::Gss,
                Method::Cert,
                Method::Oauth,
            ])?;
            options.map = Some(value.to_vec()).filter(|map| !map.is_empty());
        }
        b"clientcert" => {
            only_hostssl()?;
            options.clientcert = match value {
                b"verify-full" => ClientCert::Full,
                b"verify-ca" if method != Method::Cert => ClientCert::Ca,
                _ => return invalid(),
            };
        }
        b"clientname" => {
            only_hostssl()?;
            options.clientname = match value {
                b"CN" => CertName::CommonName,
                b"DN" => CertName::DistinguishedName,
                _ => return invalid(),
            };
        }
        b"pamservice" | b"pam_use_hostname" => only(&[Method::Pam])?,
        b"ldapurl" => {
            only(&[Method::Ldap])?;
            outcome.doubt = Some("libldap decides whether it takes the ldapurl".to_owned());
        }
        b"ldapport" => {
            only(&[Method::Ldap])?;
            if atoi(value) == 0 {
                return invalid();
            }
        }
        b"ldaptls"
        | b"ldapscheme"
        | b"ldapserver"
        | b"ldapbinddn"
        | b"ldapbindpasswd"
        | b"ldapsearchattribute"
        | b"ldapsearchfilter"
        | b"ldapbasedn"
        | b"ldapprefix"
        | b"ldapsuffix" => only(&[Method::Ldap])?,
        b"krb_realm" | b"include_realm" => only(&[Method::Gss])?,
        // For SSPI alone, which no server on Linux has.
        b"compat_realm" | b"upn_username" => only(&[])?,
        b"radiusservers" | b"radiusports" | b"radiussecrets" | b"radiusidentifiers" => {
            only(&[Method::Radius])?;
            outcome.doubt = Some("the server resolves the names of its RADIUS servers".to_owned());
        }
        b"issuer" | b"scope" | b"validator" | b"delegate_ident_mapping" if method == Method::Oauth => {}
        _ => {
            return Err(format!("unrecognized authentication option name: \"{shown}\""));
        }
    }
    Ok(())
}

/// What a method needs, and what it does not take together.
fn together(method: Method, server: &Server, outcome: &mut Outcome) -> Result<(), String> {
    let options = &outcome.options;
    let has = |name: &str| options.all.iter().any(|(n, _)| n == name.as_bytes());
    let needs = |name: &str| match has(name) {
        true => Ok(()),
        false => Err(format!(
            "authentication method \"{}\" requires argument \"{name}\" to be set",
            method.name()
        )),
    };
    match method {
        // A URL sets several of these; then it is in doubt already.
        Method::Ldap if outcome.doubt.is_none() => {
            let bind = has("ldapprefix") || has("ldapsuffix");
            let search = [
                "ldapbasedn",
                "ldapbinddn",
                "ldapbindpasswd",
                "ldapsearchattribute",
                "ldapsearchfilter",
            ];
            if bind && search.into_iter().any(has) {
                return Err("cannot mix options for simple bind and search+bind modes".to_owned());
            }
            if !bind {
                needs("ldapbasedn")?;
            }
            if has("ldapsearchattribute") && has("ldapsearchfilter") {
                return Err("cannot use ldapsearchattribute together with ldapsearchfilter".to_owned());
            }
        }
        Method::Radius => {
            needs("radiusservers")?;
            needs("radiussecrets")?;
        }
        Method::Oauth => {
            needs("scope")?;
            needs("issuer")?;
            match &server.oauth_validators {
                None => outcome.doubt = Some("oauth_validator_libraries is not known".to_owned()),
                Some(libraries) => validator(options, libraries)?,
            }
            let delegates = options
                .all
                .iter()
                .rev()
                .find(|(n, _)| n == b"delegate_ident_mapping")
                .is_some_and(|(_, value)| value == b"1");
            if delegates && has("map") {
                return Err("map cannot be used in combination with delegate_ident_mapping".to_owned());
            }
        }
        Method::Ldap
        | Method::Trust
        | Method::Reject
        | Method::Ident
        | Method::Peer
        | Method::Password
        | Method::Md5
        | Method::ScramSha256
        | Method::Gss
        | Method::Pam
        | Method::Cert => {}
    }
    Ok(())
}

/// auth-oauth.c: `check_oauth_validator`.
fn validator(options: &Options, libraries: &[String]) -> Result<(), String> {
    let named = options.all.iter().rev().find(|(n, _)| n == b"validator");
    match (libraries, named) {
        ([], _) => Err("oauth_validator_libraries must be set for authentication method oauth".to_owned()),
        (_, Some((_, name))) if libraries.iter().any(|l| l.as_bytes() == name) => Ok(()),
        (_, Some(_)) => Err("validator is not permitted by oauth_validator_libraries".to_owned()),
        ([_], None) => Ok(()),
        (_, None) => Err(
            "authentication method \"oauth\" requires argument \"validator\" to be set when \
                          oauth_validator_libraries contains multiple options"
                .to_owned(),
        ),
    }
}

/// atoi(3), as far as zero is concerned.
fn atoi(text: &[u8]) -> i64 {
    let text = String::from_utf8_lossy(text);
    let text = text.trim_start();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = digits.bytes().take_while(u8::is_ascii_digit).count();
    digits[..end].parse().unwrap_or(0)
}
