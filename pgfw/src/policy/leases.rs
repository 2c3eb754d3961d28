//! Which leases count, and until when.

use std::collections::HashMap;

use super::compile::Inputs;
use super::coverage::Until;
use crate::clock::WallTime;
use crate::ledger::types::{Authority, Certificate, Lease};

/// The leases that open their address now, each until its time or the end of the certificate that it was granted to,
/// whichever is first; the same end on the wall clock beside it. Without a gate, or an identity that roams, there are none.
pub fn live<'a>(inputs: &Inputs<'a>) -> Vec<(&'a Lease, Until, WallTime)> {
    if inputs.config.gate.is_none() || inputs.leases.is_empty() {
        return Vec::new();
    }
    let valid: HashMap<&str, &Certificate> = inputs
        .certificates
        .iter()
        .filter(|c| c.authority == Authority::Client && c.valid_at(inputs.now.wall()))
        .map(|c| (c.serial.as_str(), c))
        .collect();
    let counts = |lease: &&'a Lease| {
        let roams = inputs.config.identity(&lease.identity).is_some_and(|i| i.roaming);
        roams && !lease.ended(&inputs.now, inputs.boot_id)
    };
    let end = |lease: &'a Lease| {
        let certificate = valid
            .get(lease.serial.as_str())
            .filter(|c| c.name == lease.identity)?;
        let by_itself = lease.end.boot_end(&inputs.now, inputs.boot_id);
        let with_it = inputs.now.boot_at(certificate.not_after);
        Some(if with_it < by_itself {
            (lease, Until::At(with_it), certificate.not_after)
        } else {
            (lease, Until::At(by_itself), lease.end.wall)
        })
    };
    inputs.leases.iter().filter(counts).filter_map(end).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock::{BootTime, Now};
    use crate::config::Config;
    use crate::ledger::types::EntryEnd;

    const WALL: i64 = 1_800_000_000;
    const SECOND: u64 = 1_000_000_000;
    const BOOT: &str = "this-boot";

    fn at(seconds: u64) -> Now {
        Now {
            boot: BootTime((1_000 + seconds) * SECOND),
            wall_ns: (i128::from(WALL) + i128::from(seconds)) * i128::from(SECOND),
        }
    }

    fn certificate(name: &str, serial: &str, lasts: i64) -> Certificate {
        Certificate {
            serial: serial.into(),
            authority: Authority::Client,
            authority_generation: 1,
            name: name.into(),
            subject_dn: format!("/CN={name}"),
            not_before: WallTime(WALL - 300),
            not_after: WallTime(WALL + lasts),
            issued: WallTime(WALL),
            requester: "root".into(),
            reason: None,
            revoked: None,
            revoke_reason: None,
            pem: String::new(),
        }
    }

    fn lease(identity: &str, serial: &str, lasts: u64) -> Lease {
        Lease {
            id: 1,
            address: "198.51.100.7".parse().expect("an address"),
            identity: identity.into(),
            serial: serial.into(),
            granted: WallTime(WALL),
            end: EntryEnd::after(std::time::Duration::from_secs(lasts), &at(0), BOOT),
        }
    }

    const GATE: &str = "[gate]\nlisten = \"0.0.0.0:5430\"\n";
    const ROAMS: &str = "[[identity]]\nname = \"ann\"\nroaming = true\n";

    /// When the one lease ends, in seconds, in a config, at a moment.
    fn end(text: &str, lease: Lease, certificate: Certificate, seconds: u64) -> Option<i64> {
        let text = format!("[firewall]\ninterfaces = [\"eth0\"]\n{text}");
        let config = Config::parse(&text, Path::new("pgfw.toml")).expect("a good config");
        let (certificates, leases) = ([certificate], [lease]);
        let found = live(&Inputs {
            config: &config,
            entries: &[],
            certificates: &certificates,
            leases: &leases,
            now: at(seconds),
            boot_id: BOOT,
            generation: 1,
        });
        let (_, until, wall) = found.first()?;
        let Until::At(boot) = until else {
            panic!("it has no end: {until:?}")
        };
        let from_boot = i64::try_from(boot.0 / SECOND).expect("seconds") - 1_000;
        assert_eq!(from_boot, wall.0 - WALL, "both clocks");
        Some(from_boot)
    }

    // Whichever is first: the lease's time, the certificate's end, a revocation, a config without it.
    #[test]
    fn p35_a_lease_counts_as_long_as_everything_that_holds_it() {
        let both = format!("{GATE}{ROAMS}");
        let granted = |lasts| lease("ann", "a1", lasts);
        let held = |lasts| certificate("ann", "a1", lasts);
        assert_eq!(end(&both, granted(600), held(3_600), 0), Some(600));
        assert_eq!(end(&both, granted(3_600), held(600), 0), Some(600));
        assert_eq!(end(&both, granted(600), held(3_600), 599), Some(600));
        assert_eq!(end(&both, granted(600), held(3_600), 600), None);
        assert_eq!(end(&both, granted(3_600), held(600), 600), None);
        let revoked = Certificate {
            revoked: Some(WallTime(WALL)),
            ..held(3_600)
        };
        assert_eq!(end(&both, granted(600), revoked, 0), None);
        let others = certificate("ann", "a2", 3_600);
        assert_eq!(end(&both, granted(600), others, 0), None);
        assert_eq!(end(&both, granted(600), certificate("bob", "a1", 3_600), 0), None);
        let servers = Certificate {
            authority: Authority::Server,
            ..held(3_600)
        };
        assert_eq!(end(&both, granted(600), servers, 0), None);
        assert_eq!(end(ROAMS, granted(600), held(3_600), 0), None);
        let stays = format!("{GATE}[[identity]]\nname = \"ann\"\n");
        assert_eq!(end(&stays, granted(600), held(3_600), 0), None);
        assert_eq!(end(GATE, granted(600), held(3_600), 0), None);
    }
}
