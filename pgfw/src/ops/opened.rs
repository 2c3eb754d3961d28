//! What a certificate opens: asked of the policy that judges, since pgfw.toml may be ahead of it, or nothing enforced.

use ipnet::IpNet;
use serde::Serialize;

use super::Engine;
use crate::clock::Now;
use crate::config::Config;
use crate::failure::Failure;
use crate::policy::{Answer, Opening, Origin};

/// Networks of one identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Opened {
    /// Open for it now.
    pub networks: Vec<IpNet>,
    /// In pgfw.toml, and not open.
    pub shut: Vec<Shut>,
}

/// A network that is not open although a valid certificate is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shut {
    pub net: IpNet,
    pub why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// No policy judges packets now.
    NotEnforced,
    /// The policy that judges does not have it.
    NotReloaded,
    /// A deny covers it.
    Denied,
}

impl Engine {
    /// What is open for an identity now, and what is not.
    ///
    /// # Errors
    /// A config or a ledger that cannot be read.
    pub fn opened_for(&self, name: &str) -> Result<Opened, Failure> {
        let networks = |config: &Config| {
            config
                .identity(name)
                .map_or_else(Vec::new, |i| i.networks.clone())
        };
        let wanted = networks(&Config::read(&self.paths.config)?);
        let now = Now::read();
        let mut opened = Opened::default();
        let Some(number) = self.judging(&now)? else {
            let why = Why::NotEnforced;
            opened.shut = wanted.into_iter().map(|net| Shut { net, why }).collect();
            return Ok(opened);
        };
        let config = self.config_of(number)?;
        let openings = self.openings(&config, &now)?;
        let origin = Origin::Identity(name.to_owned());
        let denied = |own: &Opening| {
            let mut denies = openings.iter().filter(|o| o.answer == Answer::Deny);
            denies.any(|deny| deny.service == own.service && deny.net.contains(&own.net))
        };
        let runs = networks(&config);
        for net in wanted
            .iter()
            .chain(runs.iter().filter(|net| !wanted.contains(net)))
        {
            let own: Vec<&Opening> = openings
                .iter()
                .filter(|o| o.net == *net && o.origin == origin)
                .collect();
            let why = match own.as_slice() {
                [] => Why::NotReloaded,
                all if all.iter().all(|o| denied(o)) => Why::Denied,
                _ => {
                    opened.networks.push(*net);
                    continue;
                }
            };
            opened.shut.push(Shut { net: *net, why });
        }
        Ok(opened)
    }
}
