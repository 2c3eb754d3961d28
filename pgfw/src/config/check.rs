//! Raw text → checked [`Config`]: parse, don't validate. Every refusal names file, line and key.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::raw;
use super::values::File;
use super::*;

pub(super) fn check(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let file = File { text, path };
    let raw: raw::Config = toml::from_str(text).map_err(|e| file.syntax(&e))?;
    let raw::Config {
        firewall,
        ssh,
        postgres,
        service,
        pki,
        audit,
        gate,
        identity,
        login,
    } = raw;

    let config = Config {
        text: text.to_owned(),
        firewall: file.firewall(firewall)?,
        ssh: file.ssh(ssh)?,
        postgres: file.all(postgres, |f, c| f.cluster(c))?,
        services: file.all(service, |f, s| f.service(s))?,
        pki: file.pki(pki)?,
        audit: file.audit(audit)?,
        gate: gate.map(|g| file.gate(g)).transpose()?,
        identities: file.all(identity, |f, i| f.identity(i))?,
        logins: file.all(login, |f, l| f.login(l))?,
    };
    file.ports_are_disjoint(&config)?;
    Ok(config)
}

impl File<'_> {
    fn firewall(&self, raw: raw::Firewall) -> Result<Firewall, ConfigError> {
        let raw::Firewall {
            interfaces,
            attach,
            mode,
            on_stop,
            forwarded,
            dhcp_client,
            echo,
            link_layer,
        } = raw;
        let interfaces = interfaces.unwrap_or_default();
        for i in &interfaces {
            if i.as_ref() == "lo" {
                return Err(self.value(
                    i,
                    "firewall.interfaces",
                    "`lo` is never filtered",
                    "Take `lo` out; what runs on this host may always reach it.",
                ));
            }
            if i.as_ref().is_empty() || i.as_ref().len() > 15 {
                return Err(self.value(
                    i,
                    "firewall.interfaces",
                    format!("`{}` is no interface name", i.as_ref()),
                    "Interface names have 1 to 15 characters; `ip link` lists them.",
                ));
            }
        }
        Ok(Firewall {
            interfaces: interfaces.into_iter().map(Spanned::into_inner).collect(),
            attach: self.word(
                attach,
                "firewall.attach",
                Attach::Auto,
                &[
                    ("auto", Attach::Auto),
                    ("native", Attach::Native),
                    ("generic", Attach::Generic),
                ],
            )?,
            mode: self.word(
                mode,
                "firewall.mode",
                Mode::Enforce,
                &[("enforce", Mode::Enforce), ("audit", Mode::Audit)],
            )?,
            on_stop: self.word(
                on_stop,
                "firewall.on_stop",
                OnStop::Keep,
                &[("keep", OnStop::Keep), ("detach", OnStop::Detach)],
            )?,
            forwarded: self.word(
                forwarded,
                "firewall.forwarded",
                None,
                &[("drop", Some(Forwarded::Drop)), ("track", Some(Forwarded::Track))],
            )?,
            dhcp_client: dhcp_client.unwrap_or(true),
            echo: self.word(
                echo,
                "firewall.echo",
                Echo::Drop,
                &[
                    ("drop", Echo::Drop),
                    ("limit", Echo::Limit),
                    ("accept", Echo::Accept),
                ],
            )?,
            link_layer: match link_layer {
                None => ["lldp", "lacp", "eapol", "stp"]
                    .iter()
                    .map(|n| link_layer_name(n).expect("known"))
                    .collect(),
                Some(names) => self.all(names, |f, n| {
                    link_layer_name(n.as_ref()).ok_or_else(|| {
                        f.value(
                            &n,
                            "firewall.link_layer",
                            format!("`{}` is no link-layer protocol that pgfw knows", n.as_ref()),
                            "Write lldp, lacp, eapol, stp, or an EtherType like 0x88cc.",
                        )
                    })
                })?,
            },
        })
    }

    fn ssh(&self, raw: raw::Ssh) -> Result<Ssh, ConfigError> {
        let raw::Ssh { ports, allow } = raw;
        let ports = match ports {
            None => vec![22],
            Some(ports) => self.all(ports, |f, p| f.port(&p, "ssh.ports"))?,
        };
        if ports.is_empty() {
            return Err(self.somewhere(
                "ssh.ports",
                "ssh.ports is empty, and this host could not be reached any more",
                "Name the ports where sshd listens (`ss -tlnp`), or leave the key out for 22.",
            ));
        }
        let allow = match allow {
            None => vec![
                "0.0.0.0/0".parse().expect("a network"),
                "::/0".parse().expect("a network"),
            ],
            Some(nets) => self.networks(nets, "ssh.allow")?,
        };
        Ok(Ssh { ports, allow })
    }

    fn pki(&self, raw: raw::Pki) -> Result<Pki, ConfigError> {
        let raw::Pki {
            directory,
            client_ttl,
            server_ttl,
            crl_ttl,
            key_passphrase_credential,
        } = raw;
        Ok(Pki {
            directory: directory.map_or_else(
                || Ok(PathBuf::from("/etc/pgfw/pki")),
                |d| self.path(&d, "pki.directory"),
            )?,
            client_ttl: self.duration(client_ttl, "pki.client_ttl", "30d")?,
            server_ttl: self.duration(server_ttl, "pki.server_ttl", "90d")?,
            crl_ttl: self.duration(crl_ttl, "pki.crl_ttl", "365d")?,
            key_passphrase_credential: key_passphrase_credential
                .map(|name| self.credential(name))
                .transpose()?,
        })
    }

    fn audit(&self, raw: raw::Audit) -> Result<AuditLog, ConfigError> {
        let raw::Audit { file, fsync, rotate } = raw;
        Ok(AuditLog {
            file: file.map(|file| self.path(&file, "audit.file")).transpose()?,
            fsync: self.word(
                fsync,
                "audit.fsync",
                Fsync::Batch,
                &[
                    ("each", Fsync::Each),
                    ("batch", Fsync::Batch),
                    ("off", Fsync::Off),
                ],
            )?,
            rotate: rotate.map_or(Ok(100_000_000), |size| self.size(&size, "audit.rotate"))?,
        })
    }

    /// A file's name, and a word of a unit file.
    fn credential(&self, name: raw::Text) -> Result<String, ConfigError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        let text = name.as_ref();
        if text.is_empty() || text.len() > 255 || text.starts_with('.') || !text.bytes().all(fits) {
            return Err(self.value(
                &name,
                "pki.key_passphrase_credential",
                format!("`{text}` is not the name of a credential"),
                "Name the one that LoadCredentialEncrypted= of the unit gives, like \"pgfw-ca\"; never the passphrase itself.",
            ));
        }
        Ok(name.into_inner())
    }

    /// One port of one protocol belongs to one service.
    fn ports_are_disjoint(&self, config: &Config) -> Result<(), ConfigError> {
        let mut names: HashSet<&str> = HashSet::from(["ssh"]);
        let names_of = config
            .postgres
            .iter()
            .map(|c| &c.name)
            .chain(config.services.iter().map(|s| &s.name));
        if config.gate.is_some() {
            names.insert(GATE);
        }
        for name in names_of {
            if !names.insert(name) {
                return Err(self.somewhere(
                    name,
                    "two services have this name",
                    "Give each a name of its own.",
                ));
            }
        }
        let mut seen: HashMap<(u8, u16), &str> = HashMap::new();
        let ssh = config.ssh.ports.iter().map(|p| (6, *p, "ssh"));
        let clusters = config.postgres.iter().map(|c| (6, c.port, c.name.as_str()));
        let services = config.services.iter().flat_map(|s| {
            let ports = if s.ports.is_empty() {
                vec![0]
            } else {
                s.ports.clone()
            };
            ports.into_iter().map(|p| (s.protocol, p, s.name.as_str()))
        });
        let gate = config.gate.iter().map(|g| (6, g.listen.port(), GATE));
        for (protocol, port, name) in ssh.chain(clusters).chain(services).chain(gate) {
            match seen.insert((protocol, port), name) {
                None => {}
                Some(other) if other == name => {
                    return Err(self.somewhere(
                        name,
                        format!("port {port} stands twice in the ports of {name}"),
                        "Write it once.",
                    ));
                }
                Some(other) => {
                    return Err(self.somewhere(
                        name,
                        format!(
                            "port {port} (IP protocol {protocol}) belongs to two services: {other} and {name}"
                        ),
                        "Give each service ports of its own.",
                    ));
                }
            }
        }
        for (kind, all) in [
            (
                "identity",
                config.identities.iter().map(|i| &i.name).collect::<Vec<_>>(),
            ),
            ("login", config.logins.iter().map(|l| &l.name).collect()),
        ] {
            let mut seen = HashSet::new();
            if let Some(twice) = all.into_iter().find(|n| !seen.insert(n.as_str())) {
                return Err(self.somewhere(
                    twice,
                    format!("two [[{kind}]] sections have this name"),
                    "Merge them into one, or rename one.",
                ));
            }
        }
        Ok(())
    }
}

fn link_layer_name(name: &str) -> Option<LinkLayer> {
    Some(match name {
        "lldp" => LinkLayer::EtherType(0x88cc),
        "lacp" => LinkLayer::EtherType(0x8809),
        "eapol" => LinkLayer::EtherType(0x888e),
        "stp" => LinkLayer::Stp,
        other => LinkLayer::EtherType(
            u16::from_str_radix(other.strip_prefix("0x")?, 16)
                .ok()
                .filter(|t| *t >= 0x0600)?,
        ),
    })
}
