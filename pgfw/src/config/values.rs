//! One kind of value each: networks, words, durations, names; and where in the file a wrong one stands.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;

use super::ConfigError;
use super::raw::Text;

/// The file being checked, for messages.
pub(super) struct File<'a> {
    pub text: &'a str,
    pub path: &'a Path,
}

impl File<'_> {
    pub(super) fn all<T, U>(
        &self,
        items: Vec<T>,
        each: impl Fn(&Self, T) -> Result<U, ConfigError>,
    ) -> Result<Vec<U>, ConfigError> {
        items.into_iter().map(|i| each(self, i)).collect()
    }

    pub(super) fn networks(&self, items: Vec<Text>, key: &str) -> Result<Vec<IpNet>, ConfigError> {
        let mut nets = Vec::new();
        let mut seen = HashSet::new();
        for item in items {
            let net = parse_network(item.as_ref())
                .map_err(|(message, remedy)| self.value(&item, key, message, remedy))?;
            if seen.insert(net) {
                nets.push(net);
            }
        }
        Ok(nets)
    }

    /// The daemon and a command run in different folders: only an absolute path means the same to both.
    pub(super) fn path(&self, text: &Text, key: &str) -> Result<PathBuf, ConfigError> {
        let path = PathBuf::from(text.as_ref());
        if path.is_absolute() {
            return Ok(path);
        }
        Err(self.value(
            text,
            key,
            format!("`{}` is not an absolute path", text.as_ref()),
            "Write the whole path, from `/` on.",
        ))
    }

    pub(super) fn port(&self, port: &Spanned<u16>, key: &str) -> Result<u16, ConfigError> {
        match *port.get_ref() {
            0 => Err(self.value(port, key, "0 is not a port", "Write a port from 1 to 65535.")),
            p => Ok(p),
        }
    }

    pub(super) fn word<T: Clone>(
        &self,
        text: Option<Text>,
        key: &str,
        default: T,
        known: &[(&str, T)],
    ) -> Result<T, ConfigError> {
        let Some(text) = text else { return Ok(default) };
        if let Some((_, value)) = known.iter().find(|(k, _)| k == text.as_ref()) {
            return Ok(value.clone());
        }
        let words: Vec<&str> = known.iter().map(|(k, _)| *k).collect();
        Err(self.value(
            &text,
            key,
            format!("`{}` is not a choice here", text.as_ref()),
            format!("Write one of: {}.", words.join(", ")),
        ))
    }

    pub(super) fn duration(
        &self,
        text: Option<Text>,
        key: &str,
        default: &str,
    ) -> Result<Duration, ConfigError> {
        let Some(text) = text else {
            return Ok(humantime::parse_duration(default).expect("defaults are durations"));
        };
        let parsed = humantime::parse_duration(text.as_ref());
        match parsed {
            Ok(d) if d >= Duration::from_secs(60) && d <= Duration::from_secs(20 * 365 * 86400) => Ok(d),
            Ok(_) => Err(self.value(
                &text,
                key,
                format!("`{}` is outside of what certificates last", text.as_ref()),
                "Write a duration between 1m and 20 years.",
            )),
            Err(_) => Err(self.value(
                &text,
                key,
                format!("`{}` is not a duration", text.as_ref()),
                "Write a number and a unit, like \"30d\" or \"12h\".",
            )),
        }
    }

    /// Bytes: a number with kB, MB or GB (powers of 1000).
    pub(super) fn size(&self, text: &Text, key: &str) -> Result<u64, ConfigError> {
        let units = [("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)];
        let parsed = units.iter().find_map(|(unit, bytes)| {
            let number: u64 = text.as_ref().strip_suffix(unit)?.trim_end().parse().ok()?;
            number.checked_mul(*bytes)
        });
        match parsed {
            Some(size) if size >= 10_000 => Ok(size),
            Some(_) => Err(self.value(
                text,
                key,
                format!("`{}` is less than a few lines", text.as_ref()),
                "Write at least \"10kB\".",
            )),
            None => Err(self.value(
                text,
                key,
                format!("`{}` is not a size", text.as_ref()),
                "Write a number and a unit, like \"100MB\" (kB, MB or GB).",
            )),
        }
    }

    /// A name that also becomes a folder and appears on the command line.
    pub(super) fn slug(&self, text: &Text, key: &str) -> Result<String, ConfigError> {
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let name = text.as_ref();
        if name.is_empty() || name.len() > 63 || name.starts_with(['.', '-']) || !name.bytes().all(ok) {
            return Err(self.value(
                text,
                key,
                format!("`{name}` cannot be a name here"),
                "Use letters, digits, `-`, `_` and `.`, at most 63.",
            ));
        }
        Ok(name.to_owned())
    }

    /// A PostgreSQL name: 1 to 63 bytes (NAMEDATALEN - 1), no NUL, no line break.
    pub(super) fn pg_name(&self, text: &Text, key: &str, most: usize) -> Result<(), ConfigError> {
        let name = text.as_ref();
        if name.is_empty() || name.len() > most || name.contains(['\0', '\n', '\r']) {
            return Err(self.value(
                text,
                key,
                format!(
                    "`{}` cannot be a name in PostgreSQL and pg_hba.conf",
                    name.escape_debug()
                ),
                format!("Use 1 to {most} bytes without NUL or line breaks."),
            ));
        }
        Ok(())
    }

    pub(super) fn pg_names(
        &self,
        items: Option<Vec<Text>>,
        key: &str,
    ) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(items) = items else { return Ok(None) };
        if items.is_empty() {
            return Err(self.somewhere(
                key,
                format!("{key} is empty"),
                "Leave the key out for the default, or name at least one.",
            ));
        }
        let mut names: Vec<String> = Vec::new();
        for item in items {
            self.pg_name(&item, key, 63)?;
            if !names.contains(item.as_ref()) {
                names.push(item.into_inner());
            }
        }
        Ok(Some(names))
    }

    pub(super) fn value<T>(
        &self,
        at: &Spanned<T>,
        key: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Value {
            file: self.path.to_owned(),
            line: self.line(at.span().start),
            key: key.to_owned(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// For what is wrong with the whole rather than with one value: the last line that has the word.
    pub(super) fn somewhere(
        &self,
        word: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        let last = word.rsplit('.').next().unwrap_or(word);
        let line = self
            .text
            .lines()
            .collect::<Vec<_>>()
            .iter()
            .rposition(|l| l.contains(last))
            .map_or(1, |n| n + 1);
        ConfigError::Value {
            file: self.path.to_owned(),
            line,
            key: word.to_owned(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    pub(super) fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let line = error.span().map_or(1, |s| self.line(s.start));
        let message = error
            .message()
            .lines()
            .next()
            .unwrap_or("not valid TOML")
            .to_owned();
        // serde's wording; a test holds it.
        if let Some(rest) = message.strip_prefix("unknown field `") {
            let mut quoted = rest.split('`').step_by(2);
            let key = quoted.next().unwrap_or_default().to_owned();
            let known = rest.split('`').skip(2).step_by(2).map(str::to_owned).collect();
            return ConfigError::UnknownKey {
                file: self.path.to_owned(),
                line,
                key,
                known,
            };
        }
        ConfigError::Syntax {
            file: self.path.to_owned(),
            line,
            message,
        }
    }

    pub(super) fn line(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset.min(self.text.len())]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
            + 1
    }
}

/// A network in CIDR notation, or a single address.
///
/// # Errors
/// What is wrong, and what to write instead.
pub fn parse_network(text: &str) -> Result<IpNet, (String, String)> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => {
                return Err((
                    format!("`{text}` is not a network"),
                    "Write an address and a prefix length, like 192.168.1.0/24 or 2001:db8::/48.".into(),
                ));
            }
        },
    };
    check_network(net).map(|()| net)
}

/// Refuses a network that would not mean what it seems to.
///
/// # Errors
/// What is wrong, and what to write instead.
pub fn check_network(net: IpNet) -> Result<(), (String, String)> {
    if net.trunc() != net {
        return Err((
            format!(
                "`{net}` has host bits set beyond its prefix of {}",
                net.prefix_len()
            ),
            format!(
                "Write {} for the network, or {} for the one address.",
                net.trunc(),
                IpNet::from(net.addr())
            ),
        ));
    }
    if let IpNet::V6(v6) = net
        && v6.addr().to_ipv4_mapped().is_some()
        && v6.prefix_len() >= 96
    {
        let v4 = v6.addr().to_ipv4_mapped().expect("just seen");
        return Err((
            format!("`{net}` is an IPv4-mapped network, which never appears on the wire"),
            format!("Write {v4}/{} instead.", v6.prefix_len() - 96),
        ));
    }
    Ok(())
}
