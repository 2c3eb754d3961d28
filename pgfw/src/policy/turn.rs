//! When a policy becomes another one by itself: by the clock alone, with nobody's help.

use super::compile::Inputs;
use crate::clock::BootTime;
use crate::ledger::types::Authority;

/// The next moment at which [`super::compile()`] would give something else: an entry ends, a certificate begins or ends.
/// Until then the same inputs compile to the same policy, as long as the two clocks keep their distance.
pub fn next_turn(inputs: &Inputs<'_>) -> Option<BootTime> {
    let Inputs {
        config: _,
        entries,
        certificates,
        leases,
        now,
        boot_id,
        // An entry that counts in another generation only wakes somebody for nothing.
        generation: _,
    } = inputs;
    let entries = entries
        .iter()
        .filter_map(|entry| Some(entry.end.as_ref()?.boot_end(now, boot_id)));
    let certificates = certificates
        .iter()
        .filter(|certificate| certificate.authority == Authority::Client && certificate.revoked.is_none())
        .flat_map(|certificate| [certificate.not_before, certificate.not_after])
        .map(|moment| now.boot_at(moment));
    let leases = leases.iter().map(|lease| lease.end.boot_end(now, boot_id));
    entries
        .chain(certificates)
        .chain(leases)
        .filter(|moment| *moment > now.boot)
        .min()
}
