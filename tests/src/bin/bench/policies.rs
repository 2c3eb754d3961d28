//! Policies of a given size.

use ipnet::IpNet;
use pgfw::policy::coverage::{Compiled, Coverage, CoverageKey, ServiceId, ServicePort, Until};
use pgfw_common::host::World;
use pgfw_tests::bench::{Bench, PG, SSH, allowed, from_now, key, world};

/// Open for as long as a lease or a certificate of some days.
pub(crate) fn for_days() -> Coverage {
    Coverage {
        allow: Until::At(from_now(7 * 86_400_000)),
        ..allowed()
    }
}

/// SSH for the world and PostgreSQL at 5432 for these networks.
pub(crate) fn guarded(networks: impl IntoIterator<Item = IpNet>, coverage: Coverage) -> Compiled {
    let mut policy = Compiled::default();
    service(&mut policy, SSH, 22, "ssh");
    service(&mut policy, PG, 5432, "postgres main");
    for net in ["0.0.0.0/0", "::/0"] {
        policy.coverage.insert(key(SSH, net), world());
    }
    open(&mut policy, PG, networks, coverage);
    policy
}

pub(crate) fn service(policy: &mut Compiled, id: ServiceId, port: u16, name: &str) {
    policy.services.insert(ServicePort { protocol: 6, port }, id);
    policy.names.insert(id, name.to_owned());
}

pub(crate) fn open(
    policy: &mut Compiled,
    service: ServiceId,
    networks: impl IntoIterator<Item = IpNet>,
    coverage: Coverage,
) {
    let rows = networks
        .into_iter()
        .map(|net| (CoverageKey { service, net }, coverage));
    policy.coverage.extend(rows);
}

/// A policy in the kernel, with nothing beside it that judges the same.
pub(crate) fn enforced(policy: &Compiled) -> Bench {
    Bench::like(policy, World::default())
}
