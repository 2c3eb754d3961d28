//! `list`, `check`: what counts now, from the kernel and the ledger.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Engine;
use super::guard::admits;
use crate::api::{Because, Checked, CheckedFrames, List, Network, ShortAnswer, Verdict};
use crate::clock::{Now, WallTime};
use pgfw_common::reason::Action;

use crate::datapath::Datapath;
use crate::failure::Failure;
use crate::ledger::types::Entry;
use crate::policy::coverage::ServiceId;
use crate::policy::{Answer, Opening, Origin};

impl Engine {
    /// Every network that something opens or closes, at each service.
    ///
    /// # Errors
    /// A ledger that cannot be read.
    pub fn list(&self) -> Result<List, Failure> {
        if self.rescue.as_ref().is_some_and(|rescue| rescue.kept.is_some()) {
            self.not_in_rescue("a list")?;
        }
        let now = Now::read();
        let config = self.config()?;
        let compiled = self.compile(&config, self.judging(&now)?.unwrap_or(0), &now)?;
        let entries = self.facts()?.entries;
        let mut networks: BTreeMap<(ServiceId, ipnet::IpNet), Vec<Because>> = BTreeMap::new();
        for opening in self.openings(&config, &now)? {
            let name = compiled.names.get(&opening.service).map_or("", String::as_str);
            networks
                .entry((opening.service, opening.net))
                .or_default()
                .push(because(&opening, name, &entries));
        }
        let listed = networks.keys().map(|(service, net)| Network {
            service: compiled.names.get(service).cloned().unwrap_or_default(),
            net: *net,
            answer: if admits(&compiled, *service, net.addr(), now.boot) {
                Answer::Allow
            } else {
                Answer::Deny
            },
            because: covering(&networks, *service, *net),
        });
        Ok(List {
            networks: listed.collect(),
        })
    }

    /// Asks the loaded program.
    ///
    /// # Errors
    /// Nothing is loaded, or the kernel does not take the frame.
    pub fn check(&self, frame: &[u8]) -> Result<Checked, Failure> {
        let now = Now::read();
        let (number, datapath) = self.asked(&now)?;
        let ifindex = asked_about(datapath)?;
        let answer = datapath.check(number, frame, ifindex)?;
        let config = self.config_of(number)?;
        let compiled = self.compile(&config, number, &now)?;
        let entries = self.facts()?.entries;
        let name = answer.service.and_then(|s| compiled.names.get(&s)).cloned();
        let mut because: Vec<Because> = match (answer.service, source_of(frame)) {
            (Some(service), Some(source)) => self
                .openings(&config, &now)?
                .iter()
                .filter(|o| o.service == service && o.net.contains(&source))
                .map(|o| self::because(o, name.as_deref().unwrap_or(""), &entries))
                .collect(),
            (Some(_) | None, _) => Vec::new(),
        };
        because.sort_by_key(|b| std::cmp::Reverse(b.net.prefix_len()));
        Ok(Checked {
            verdict: verdict(answer.verdict),
            reason: answer.reason.name().to_owned(),
            meaning: answer.reason.meaning().to_owned(),
            service: name,
            because,
            generation: number,
        })
    }

    /// Asks the loaded program about many packets, each by itself: what one would change, none does.
    ///
    /// # Errors
    /// As for [`Engine::check`].
    pub fn check_frames(&self, frames: &[Vec<u8>]) -> Result<CheckedFrames, Failure> {
        let now = Now::read();
        let (generation, datapath) = self.asked(&now)?;
        let ifindex = asked_about(datapath)?;
        let compiled = self.compile(&self.config_of(generation)?, generation, &now)?;
        let answers = frames.iter().map(|frame| {
            let answer = datapath.check(generation, frame, ifindex)?;
            Ok(ShortAnswer {
                verdict: verdict(answer.verdict),
                reason: answer.reason.name().to_owned(),
                service: answer.service.and_then(|s| compiled.names.get(&s)).cloned(),
            })
        });
        Ok(CheckedFrames {
            generation,
            answers: answers.collect::<Result<_, Failure>>()?,
        })
    }

    /// The policy that judges, and the kernel's side of it.
    fn asked(&self, now: &Now) -> Result<(u64, &Datapath), Failure> {
        let not_loaded = || {
            Failure::refused(
                "no policy judges packets on this host now",
                "Look at `pgfw status`; `pgfw reload` brings the policy of pgfw.toml.",
            )
        };
        let number = self.judging(now)?.ok_or_else(not_loaded)?;
        Ok((number, self.datapath.as_ref().ok_or_else(not_loaded)?))
    }
}

/// Who opens or closes a network, the most specific first: what stands there by itself, and every wider network around it.
fn covering(
    networks: &BTreeMap<(ServiceId, ipnet::IpNet), Vec<Because>>,
    service: ServiceId,
    net: ipnet::IpNet,
) -> Vec<Because> {
    let around = std::iter::successors(Some(net), ipnet::IpNet::supernet);
    around
        .filter_map(|net| networks.get(&(service, net)))
        .flatten()
        .cloned()
        .collect()
}

/// The interface that a packet is said to come in on. One that is gone keeps its link for a while, and the kernel takes
/// no packet from it.
fn asked_about(datapath: &Datapath) -> Result<Option<u32>, Failure> {
    let attached = datapath.attached()?;
    Ok(attached.iter().find(|a| a.alive).map(|a| a.ifindex))
}

fn verdict(action: Action) -> Verdict {
    match action {
        Action::Pass => Verdict::Pass,
        Action::Drop => Verdict::Drop,
    }
}

fn because(opening: &Opening, service: &str, entries: &[Entry]) -> Because {
    let comment = match opening.origin {
        Origin::Entry(id) => entries
            .iter()
            .find(|e| e.id == id)
            .and_then(|e| e.comment.clone()),
        Origin::Config(_) | Origin::Identity(_) | Origin::Login(_) | Origin::Lease(_) => None,
    };
    Because {
        net: opening.net,
        service: service.to_owned(),
        answer: opening.answer,
        origin: opening.origin.clone(),
        until: opening.end.map(WallTime::rfc3339),
        comment,
    }
}

/// The source address of a frame, found the way the program finds it.
fn source_of(frame: &[u8]) -> Option<IpAddr> {
    etherparse::SlicedPacket::from_ethernet(frame)
        .ok()
        .and_then(|packet| match packet.net {
            Some(etherparse::NetSlice::Ipv4(ip)) => Some(IpAddr::V4(ip.header().source_addr())),
            Some(etherparse::NetSlice::Ipv6(ip)) => Some(IpAddr::V6(ip.header().source_addr())),
            Some(etherparse::NetSlice::Arp(_)) | None => None,
        })
}
