//! `[[service]]`, `[[identity]]`, `[[login]]`: what else is served, and who may log in.

use super::raw::{self, Text};
use super::values::File;
use super::*;

impl File<'_> {
    pub(super) fn service(&self, raw: raw::Service) -> Result<Service, ConfigError> {
        let raw::Service {
            name,
            protocol,
            ports,
            allow,
        } = raw;
        let number = match &protocol {
            None => 6,
            Some(p) => protocol_number(p.as_ref()).ok_or_else(|| {
                self.value(
                    p,
                    "service.protocol",
                    format!("`{}` is no IP protocol that pgfw knows", p.as_ref()),
                    format!("Write {PROTOCOLS}."),
                )
            })?,
        };
        let has_ports = matches!(number, 6 | 17 | 132 | 33 | 136);
        let mut all = Vec::new();
        for p in &ports {
            all.extend(self.port_range(p)?);
        }
        if has_ports == all.is_empty() {
            let remedy = if has_ports {
                "Add ports = [\"9100\"], or a range like \"5000-5010\"."
            } else {
                "Take `ports` out: this protocol has none."
            };
            return Err(self.value(
                &name,
                "service.ports",
                format!(
                    "service `{}` needs {} ports",
                    name.as_ref(),
                    if has_ports { "its" } else { "no" }
                ),
                remedy,
            ));
        }
        let slug = self.slug(&name, "service.name")?;
        if slug == "ssh" {
            return Err(self.value(
                &name,
                "service.name",
                "`ssh` is the section [ssh]",
                "Choose another name.",
            ));
        }
        Ok(Service {
            name: slug,
            protocol: number,
            ports: all,
            allow: self.networks(allow, "service.allow")?,
        })
    }

    fn port_range(&self, text: &Text) -> Result<std::ops::RangeInclusive<u16>, ConfigError> {
        let (low, high) = text
            .as_ref()
            .split_once('-')
            .unwrap_or((text.as_ref(), text.as_ref()));
        match (low.trim().parse::<u16>(), high.trim().parse::<u16>()) {
            (Ok(low), Ok(high)) if low > 0 && low <= high => Ok(low..=high),
            (Ok(_) | Err(_), Ok(_) | Err(_)) => Err(self.value(
                text,
                "service.ports",
                format!("`{}` is neither a port nor a range", text.as_ref()),
                "Write \"9100\", or \"5000-5010\" with the lower port first.",
            )),
        }
    }

    /// No database at all makes sense for a standby only, which replicates and does nothing else.
    fn databases(
        &self,
        items: Option<Vec<Text>>,
        key: &str,
        replication: bool,
    ) -> Result<Option<Vec<String>>, ConfigError> {
        match items {
            Some(none) if none.is_empty() && replication => Ok(Some(Vec::new())),
            items => self.pg_names(items, key),
        }
    }

    fn user(&self, user: Text) -> Result<String, ConfigError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-$".contains(&b);
        if user.as_ref().is_empty() || !user.as_ref().bytes().all(fits) {
            return Err(self.value(
                &user,
                "identity.kept_for",
                format!("`{}` is not the name of a user", user.as_ref()),
                "Name the user that the program runs as on this host, like \"pgbouncer\".",
            ));
        }
        Ok(user.into_inner())
    }

    /// systemd.unit(5): characters, length and a suffix.
    fn unit(&self, unit: Text) -> Result<String, ConfigError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
        let text = unit.as_ref();
        let whole = [".service", ".target", ".socket"].iter().any(|suffix| {
            text.strip_suffix(suffix)
                .is_some_and(|name| !name.is_empty() && !name.starts_with(['-', '.']))
        });
        if !whole || text.len() > 255 || !text.bytes().all(fits) {
            return Err(self.value(
                &unit,
                "identity.reload_unit",
                format!("`{text}` is not the name of a unit"),
                "Name the unit of the program with its suffix, like \"pgbouncer.service\".",
            ));
        }
        Ok(unit.into_inner())
    }

    pub(super) fn identity(&self, raw: raw::Identity) -> Result<Identity, ConfigError> {
        let raw::Identity {
            name,
            roles,
            databases,
            replication,
            networks,
            roaming,
            ttl,
            kept_for,
            reload_unit,
        } = raw;
        self.pg_name(&name, "identity.name", 63)?;
        if name.as_ref().contains('/') || name.as_ref().starts_with('.') {
            return Err(self.value(
                &name,
                "identity.name",
                format!("`{}` cannot name a folder", name.as_ref()),
                "Identity names may not contain `/` or begin with a dot.",
            ));
        }
        if let (Some(unit), None) = (&reload_unit, &kept_for) {
            return Err(self.value(
                unit,
                "identity.reload_unit",
                format!("no certificate is kept on this host for `{}`", name.as_ref()),
                "Set kept_for too, to the user that the unit's program runs as.",
            ));
        }
        let roles = self
            .pg_names(roles, "identity.roles")?
            .unwrap_or_else(|| vec![name.as_ref().clone()]);
        Ok(Identity {
            databases: self.databases(databases, "identity.databases", replication)?,
            networks: self.networks(networks, "identity.networks")?,
            ttl: ttl
                .map(|t| self.duration(Some(t), "identity.ttl", "30d"))
                .transpose()?,
            kept_for: kept_for.map(|user| self.user(user)).transpose()?,
            reload_unit: reload_unit.map(|unit| self.unit(unit)).transpose()?,
            name: name.into_inner(),
            roles,
            replication,
            roaming,
        })
    }

    pub(super) fn login(&self, raw: raw::Login) -> Result<Login, ConfigError> {
        let raw::Login {
            name,
            method,
            roles,
            databases,
            replication,
            networks,
            plaintext,
        } = raw;
        self.pg_name(&name, "login.name", 63)?;
        let roles = self
            .pg_names(roles, "login.roles")?
            .unwrap_or_else(|| vec![name.as_ref().clone()]);
        Ok(Login {
            method: self.word(
                Some(method),
                "login.method",
                Method::ScramSha256,
                &[("scram-sha-256", Method::ScramSha256), ("md5", Method::Md5)],
            )?,
            databases: self.databases(databases, "login.databases", replication)?,
            networks: self.networks(networks, "login.networks")?,
            plaintext: self.word(
                plaintext,
                "login.plaintext",
                Plaintext::Never,
                &[("never", Plaintext::Never), ("loopback", Plaintext::Loopback)],
            )?,
            name: name.into_inner(),
            roles,
            replication,
        })
    }
}

/// What may be written for an IP protocol.
pub const PROTOCOLS: &str = "tcp, udp, sctp, vrrp, esp, ah, gre, ospf, or a number from 0 to 255";

/// An IP protocol by its name or number.
pub fn protocol_number(name: &str) -> Option<u8> {
    Some(match name {
        "tcp" => 6,
        "udp" => 17,
        "dccp" => 33,
        "gre" => 47,
        "esp" => 50,
        "ah" => 51,
        "ospf" => 89,
        "vrrp" => 112,
        "sctp" => 132,
        "udplite" => 136,
        number => number.parse().ok()?,
    })
}
