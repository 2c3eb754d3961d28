//! What goes into the audit log, and who is named as having asked for it.

use std::fs;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Engine;
use super::engine::requester;
use crate::api::AddEntry;
use crate::clock::Now;
use crate::config::{AuditLog, Config};
use crate::ledger::types::{Authority, Certificate};
use crate::observe::audit::{Audit, AuthorityChange, By, Change, Event, RulesChange, Settings};
use crate::paths::Paths;
use crate::pki::Selection;
use crate::postgres::{Applied, Released, Settled, Step, Verdict};

/// What the daemon does of its own accord.
const OWN_ACCORD: &str = "pgfw";

/// No chain of processes between a command and the session it was typed in is longer.
const ANCESTORS: usize = 32;

impl Engine {
    /// Runs `work` for somebody who asked for it over the control socket.
    pub fn for_asker<T>(&mut self, by: By, work: impl FnOnce(&mut Engine) -> T) -> T {
        let former = std::mem::replace(&mut self.asking, by);
        let done = work(self);
        self.asking = former;
        done
    }

    /// From here on nobody asks, unless [`Engine::for_asker`] says so.
    pub(super) fn of_own_accord(&mut self) {
        self.asking = own_accord();
    }

    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Goes on where the config says now.
    pub(super) fn configure_audit(&self) {
        if let Ok(config) = self.config() {
            self.audit.configure(settings(&self.paths, &config.audit));
        }
    }

    pub(super) fn say_issued(&self, certificate: &Certificate) {
        self.audit.record(&Event::CertificateIssued {
            identity: certificate.name.clone(),
            serial: certificate.serial.clone(),
            not_after: certificate.not_after.rfc3339(),
            authority: certificate.authority.as_str(),
            reason: certificate.reason.clone(),
            by: self.asking.clone(),
        });
    }

    /// `by`: as the ledger names who asked.
    pub(super) fn say_renewed(&self, certificate: &Certificate, by: &str) {
        let by = match by == super::renewal::REQUESTER {
            true => own_accord(),
            false => self.asking.clone(),
        };
        self.audit.record(&Event::CertificateRenewed {
            identity: certificate.name.clone(),
            serial: certificate.serial.clone(),
            not_after: certificate.not_after.rfc3339(),
            authority: certificate.authority.as_str(),
            by,
        });
    }

    /// What was revoked just now; what was before is not said again.
    pub(super) fn say_revoked(&self, selection: &Selection) {
        for revocation in &selection.revocations {
            let known = selection
                .certificates
                .iter()
                .find(|c| c.serial == revocation.serial);
            self.audit.record(&Event::CertificateRevoked {
                identity: known.map(|certificate| certificate.name.clone()),
                serial: revocation.serial.clone(),
                authority: revocation.authority.as_str(),
                reason: revocation.reason,
                by: self.asking.clone(),
            });
        }
    }

    pub(super) fn say_authority(&self, change: AuthorityChange, authority: Authority, generation: u32) {
        self.audit.record(&Event::AuthorityChanged {
            change,
            authority: authority.as_str(),
            generation,
            by: self.asking.clone(),
        });
    }

    pub(super) fn say_applied(&self, applied: &Applied) {
        // Its files may have been there, and others in force.
        if applied.unchanged && !applied.steps.contains(&Step::Switched) {
            return;
        }
        let change = match applied.undoes_itself {
            Some(_) => RulesChange::OnTrial,
            None => RulesChange::Applied,
        };
        say_rules(
            &self.audit,
            change,
            &applied.cluster,
            Some(applied.generation),
            self.asking.clone(),
        );
    }

    /// Of the policy as a whole. `old`: the hash of what judged before.
    pub(super) fn say_policy(&self, change: Change, old: Option<String>) {
        self.configure_audit();
        self.say(change, old, self.judging_hash(), None);
    }

    /// Nobody confirmed it in time.
    pub(super) fn say_undone(&self, number: u64) {
        self.configure_audit();
        let event = self.changed(
            Change::RolledBack,
            self.hash_of(number),
            self.judging_hash(),
            None,
            own_accord(),
        );
        self.audit.record(&event);
    }

    pub(super) fn say_entry(&self, change: Change, entry: &AddEntry) {
        let hash = self.judging_hash();
        self.say(change, hash.clone(), hash, Some(entry));
    }

    pub(super) fn say_removed(&self, net: IpNet, service: Option<String>) {
        let hash = self.judging_hash();
        let mut event = self.changed(Change::Removed, hash.clone(), hash, None, self.asking.clone());
        if let Event::PolicyChanged {
            net: of, service: at, ..
        } = &mut event
        {
            *of = Some(net);
            *at = service;
        }
        self.audit.record(&event);
    }

    /// SHA-256 of the pgfw.toml of the policy that judges.
    pub(super) fn judging_hash(&self) -> Option<String> {
        self.hash_of(self.judging(&Now::read()).ok()??)
    }

    fn hash_of(&self, number: u64) -> Option<String> {
        Some(self.ledger.generation(number).ok()??.hash)
    }

    fn say(&self, change: Change, old: Option<String>, new: Option<String>, entry: Option<&AddEntry>) {
        let event = self.changed(change, old, new, entry, self.asking.clone());
        self.audit.record(&event);
    }

    fn changed(
        &self,
        change: Change,
        old_hash: Option<String>,
        new_hash: Option<String>,
        entry: Option<&AddEntry>,
        by: By,
    ) -> Event {
        Event::PolicyChanged {
            change,
            old_hash,
            new_hash,
            net: entry.map(|entry| entry.net),
            service: entry.and_then(|entry| entry.service.clone()),
            seconds: entry.and_then(|entry| entry.seconds),
            comment: entry.and_then(|entry| entry.comment.clone()),
            by,
        }
    }
}

/// What became of an apply that waited for its confirmation, or was cut off.
pub(super) fn say_settled(audit: &Audit, settled: &Settled, verdict: Verdict) {
    let (change, cluster, generation) = match settled {
        Settled::Kept { cluster, generation } => (RulesChange::Confirmed, cluster, Some(*generation)),
        Settled::Undone { cluster, back_to, .. } => (RulesChange::RolledBack, cluster, *back_to),
        Settled::Nothing { .. } | Settled::Waits(_) => return,
    };
    let by = match verdict {
        Verdict::Due => own_accord(),
        Verdict::Keep | Verdict::Undo => myself(),
    };
    say_rules(audit, change, cluster, generation, by);
}

/// A confirmation that came too late: the apply has undone itself.
pub(super) fn say_too_late(audit: &Audit, cluster: &str, back_to: Option<u32>) {
    say_rules(audit, RulesChange::RolledBack, cluster, back_to, own_accord());
}

pub(super) fn say_released(paths: &Paths, released: &Released) {
    if !released.unchanged {
        say_rules(
            &open(paths),
            RulesChange::Released,
            &released.cluster,
            None,
            myself(),
        );
    }
}

fn say_rules(audit: &Audit, change: RulesChange, cluster: &str, generation: Option<u32>, by: By) {
    audit.record(&Event::RulesChanged {
        change,
        cluster: cluster.to_owned(),
        generation,
        by,
    });
}

/// Before it is known what the policy that runs says, the file decides.
pub(super) fn open(paths: &Paths) -> Audit {
    let settings = match Config::read(&paths.config) {
        Ok(config) => settings(paths, &config.audit),
        Err(_) => Settings {
            file: paths.audit(),
            fsync: crate::config::Fsync::Batch,
            rotate: u64::MAX,
        },
    };
    Audit::new(settings)
}

fn settings(paths: &Paths, log: &AuditLog) -> Settings {
    let AuditLog { file, fsync, rotate } = log;
    Settings {
        file: file.clone().unwrap_or_else(|| paths.audit()),
        fsync: *fsync,
        rotate: *rotate,
    }
}

/// Whoever runs this process, and from where.
pub fn myself() -> By {
    By {
        by: requester(nix::unistd::getuid().as_raw()),
        from: from_where(),
    }
}

pub(super) fn own_accord() -> By {
    By {
        by: OWN_ACCORD.to_owned(),
        from: None,
    }
}

/// The client of the SSH session in which this was typed. sshd leaves it in the environment of the session's shell
/// (sshd(8): SSH_CONNECTION), and sudo takes it out of that of the command, so those above are looked at too.
fn from_where() -> Option<IpAddr> {
    let mut pid = std::process::id().to_string();
    for _ in 0..ANCESTORS {
        if let Some(address) = fs::read(format!("/proc/{pid}/environ"))
            .ok()
            .and_then(|e| ssh_client(&e))
        {
            return Some(address);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // proc(5): the name before may hold blanks and parentheses; state and parent follow.
        pid = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.to_owned();
        if matches!(pid.as_str(), "0" | "1") {
            return None;
        }
    }
    None
}

fn ssh_client(environment: &[u8]) -> Option<IpAddr> {
    let variables = environment.split(|byte| *byte == 0);
    let mut found = variables.filter_map(|variable| variable.strip_prefix(b"SSH_CONNECTION="));
    let address = found.next()?.split(|byte| *byte == b' ').next()?;
    std::str::from_utf8(address).ok()?.split('%').next()?.parse().ok()
}

/// The serial as a server shows it, in the ledger's form.
pub(super) fn hexadecimal(decimal: &str) -> String {
    decimal
        .parse::<u128>()
        .map_or_else(|_| decimal.to_owned(), |number| format!("{number:032x}"))
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    i64::try_from(Now::read().wall_ns / 1_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_of_an_ssh_session() {
        // environment, address
        let rows: [(&[u8], Option<&str>); 4] = [
            (
                b"A=1\0SSH_CONNECTION=192.0.2.7 40000 198.51.100.1 22\0B=2\0",
                Some("192.0.2.7"),
            ),
            (b"SSH_CONNECTION=fe80::1%eth0 1 fe80::2 22\0", Some("fe80::1")),
            (b"X_SSH_CONNECTION=192.0.2.7 1 2 3\0", None),
            (b"SSH_CONNECTION=\"forged\" 1\0", None),
        ];
        for (environment, address) in rows {
            assert_eq!(ssh_client(environment).map(|a| a.to_string()).as_deref(), address);
        }
    }
}
