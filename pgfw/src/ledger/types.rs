//! What the ledger's rows mean, without SQLite: the values that policy, PKI and the control API exchange.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::clock::{BootTime, Now, WallTime};

/// One network that an administrator allowed or denied at run time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub id: i64,
    pub kind: EntryKind,
    pub net: IpNet,
    /// `None`: for an allow the PostgreSQL ports of every cluster, for a deny every service.
    pub service: Option<String>,
    /// `None`: until removed.
    pub end: Option<EntryEnd>,
    pub comment: Option<String>,
    /// Who asked for it, as the control socket saw them.
    pub requester: String,
    pub created: WallTime,
    /// `Some(n)`: a change that waits for confirmation and counts in generation `n` only.
    pub generation: Option<u64>,
    /// `Some(n)`: pending generation `n` leaves this entry out. Confirming deletes it, rolling back keeps it.
    pub removed_by: Option<u64>,
}

impl Entry {
    /// An entry that has no number yet, as it would count.
    pub fn of(new: &NewEntry, created: WallTime) -> Entry {
        let NewEntry {
            kind,
            net,
            service,
            end,
            comment,
            requester,
            generation,
        } = new.clone();
        let removed_by = None;
        Entry {
            id: 0,
            kind,
            net,
            service,
            end,
            comment,
            requester,
            created,
            generation,
            removed_by,
        }
    }

    /// Whether the policy of `generation` contains this entry.
    pub fn counts_in(&self, generation: u64) -> bool {
        self.generation.is_none_or(|own| own == generation) && self.removed_by != Some(generation)
    }

    /// Whether the entry's end, if it has one, has come.
    pub fn ended(&self, now: &Now, boot_id: &str) -> bool {
        self.end
            .as_ref()
            .is_some_and(|end| end.boot_end(now, boot_id) <= now.boot)
    }
}

/// An entry on its way into the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEntry {
    pub kind: EntryKind,
    pub net: IpNet,
    pub service: Option<String>,
    pub end: Option<EntryEnd>,
    pub comment: Option<String>,
    pub requester: String,
    /// `Some(n)`: counts only once pending generation `n` is confirmed, and in it.
    pub generation: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    Allow,
    Deny,
}

/// Seconds.
const A_DAY: i64 = 86_400;

/// A moment on both clocks: the boot clock decides during the boot in which it was said, the wall clock after that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryEnd {
    pub wall: WallTime,
    pub boot: BootTime,
    /// [`crate::clock::boot_id`] of the boot whose clock `boot` is.
    pub boot_id: String,
}

impl EntryEnd {
    /// The end of something that starts now and lasts `duration`.
    pub fn after(duration: std::time::Duration, now: &Now, boot_id: &str) -> EntryEnd {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        EntryEnd {
            wall: WallTime(now.wall().0.saturating_add(seconds)),
            boot: BootTime(now.boot.0.saturating_add(nanoseconds)),
            boot_id: boot_id.to_owned(),
        }
    }

    /// Whether what has ended by now has ended for good. One of an earlier boot ends by the wall clock, which may be wrong at
    /// boot: it stays for another day, and counts again should the clock be set back.
    pub fn is_settled(&self, now: &Now, boot_id: &str) -> bool {
        self.boot_id == boot_id || self.wall.0 + A_DAY < now.wall().0
    }

    /// The end on the boot clock of this boot. Within one boot it never moves, whatever the wall clock does.
    pub fn boot_end(&self, now: &Now, boot_id: &str) -> BootTime {
        if self.boot_id == boot_id {
            self.boot
        } else {
            now.boot_at(self.wall)
        }
    }
}

/// One address that reaches PostgreSQL because whoever is there held a certificate at the gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub id: i64,
    /// Never an IPv4-mapped one.
    pub address: IpAddr,
    pub identity: String,
    /// Of the certificate: without it the lease counts no more.
    pub serial: String,
    pub granted: WallTime,
    pub end: EntryEnd,
}

impl Lease {
    /// Whether its end has come; its certificate may have ended before.
    pub fn ended(&self, now: &Now, boot_id: &str) -> bool {
        self.end.boot_end(now, boot_id) <= now.boot
    }

    /// The one address as a network.
    pub fn net(&self) -> IpNet {
        self.address.into()
    }
}

/// A lease on its way into the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLease {
    pub address: IpAddr,
    pub identity: String,
    pub serial: String,
    pub end: EntryEnd,
}

/// A certificate that was issued, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// 32 lowercase hexadecimal digits.
    pub serial: String,
    pub authority: Authority,
    /// Which generation of that authority signed it.
    pub authority_generation: u32,
    /// The CN: an identity, or a server's first name.
    pub name: String,
    /// As PostgreSQL prints it in `pg_stat_ssl.client_dn`, before cutting: `/CN=alice`.
    pub subject_dn: String,
    pub not_before: WallTime,
    /// The first second in which OpenSSL, and so PostgreSQL, refuses it (X509_cmp_time in x509_vfy.c). RFC 5280 section
    /// 4.1.2.5 and webpki count this second in; the earlier end is the one that closes.
    pub not_after: WallTime,
    pub issued: WallTime,
    pub requester: String,
    /// Why it was issued, in the requester's words.
    pub reason: Option<String>,
    pub revoked: Option<WallTime>,
    pub revoke_reason: Option<RevocationReason>,
    pub pem: String,
}

impl Certificate {
    /// Within its validity and not revoked.
    pub fn valid_at(&self, at: WallTime) -> bool {
        self.revoked.is_none() && self.not_before <= at && at < self.not_after
    }

    /// The serial as `pg_stat_ssl.client_serial` shows it.
    pub fn serial_decimal(&self) -> Option<String> {
        u128::from_str_radix(&self.serial, 16).ok().map(|n| n.to_string())
    }
}

/// Which of the two authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authority {
    Server,
    Client,
}

impl Authority {
    pub const ALL: [Authority; 2] = [Authority::Server, Authority::Client];

    pub const fn as_str(self) -> &'static str {
        match self {
            Authority::Server => "server",
            Authority::Client => "client",
        }
    }
}

impl std::fmt::Display for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// CRLReason of RFC 5280 section 5.3.1, as far as a leaf can have it; numbers are the RFC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    Unspecified = 0,
    KeyCompromise = 1,
    AffiliationChanged = 3,
    Superseded = 4,
    CessationOfOperation = 5,
    PrivilegeWithdrawn = 9,
}

impl RevocationReason {
    pub const ALL: [RevocationReason; 6] = [
        RevocationReason::Unspecified,
        RevocationReason::KeyCompromise,
        RevocationReason::AffiliationChanged,
        RevocationReason::Superseded,
        RevocationReason::CessationOfOperation,
        RevocationReason::PrivilegeWithdrawn,
    ];

    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Reasons that no leaf of ours gets (cACompromise, certificateHold …) read as unspecified: revoked is revoked.
    pub fn from_number(number: u8) -> RevocationReason {
        Self::ALL
            .into_iter()
            .find(|r| r.number() == number)
            .unwrap_or(RevocationReason::Unspecified)
    }
}

/// One revocation. It stands by itself, so that a serial can be revoked whose certificate the ledger has lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    pub serial: String,
    pub authority: Authority,
    pub authority_generation: u32,
    pub revoked: WallTime,
    pub reason: RevocationReason,
    pub requester: String,
}

/// One policy that was, is or may become the one this host runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// From 1, never reused.
    pub number: u64,
    /// The configuration's text.
    pub config: String,
    /// SHA-256 of `config`, hexadecimal.
    pub hash: String,
    pub state: GenerationState,
    pub created: WallTime,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerationState {
    Pending {
        deadline: EntryEnd,
    },
    Confirmed,
    RolledBack,
    /// Was confirmed until another one was.
    Superseded,
}

/// Something that had to be closed and could not be yet; retried until it is, and shown until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingWork {
    pub kind: WorkKind,
    /// What it is about: a serial, a cluster's name, a network.
    pub argument: String,
    pub since: WallTime,
    pub attempts: u32,
    pub last_error: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// Argument: the folder into which the CRLs are to be published.
    PublishCrl,
    /// Argument: a serial whose networks are to leave the packet filter.
    CloseFilter,
    /// Argument: `CLUSTER/SERIAL` whose sessions are to end.
    EndSessions,
}
