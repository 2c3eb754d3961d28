//! What the programs may cost the verifier, on the kernel that runs this.

use aya::programs::ProgramInfo;
use pgfw_common::record::ABI;
use pgfw_tests::bench::{Bench, policy};

/// Instructions that the verifier may have to follow, branches and all.
const LIMIT: u32 = 20_000;

#[test]
fn the_programs_stay_within_the_verifiers_budget() {
    // Everything that a policy can switch on: what is off, the verifier removes.
    let mut policy = policy();
    policy.settings.forwarded_track = true;
    policy.settings.echo = pgfw::config::Echo::Limit;
    policy.settings.dhcp_client = true;
    policy.settings.stp = true;
    let bench = Bench::new(&policy);
    let shared = bench.bpffs.path().join(format!("pgfw/v{ABI}"));
    let own = shared.join("gen-1");
    for (folder, name) in [
        (&shared, "entry"),
        (&shared, "egress"),
        (&shared, "clock"),
        (&own, "policy"),
        (&own, "probe"),
        (&own, "note"),
    ] {
        let info = ProgramInfo::from_pin(folder.join(name)).expect("a pinned program");
        let verified = info.verified_instruction_count().expect("a kernel that tells");
        println!(
            "{name}: {verified} instructions verified, {} bytes of machine code",
            info.size_jitted()
        );
        assert!(
            verified <= LIMIT,
            "{name}: {verified} verified instructions, at most {LIMIT} are allowed"
        );
    }
}
