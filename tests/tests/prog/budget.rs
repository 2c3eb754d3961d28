//! What the programs may cost the verifier, on the kernel that runs this.

use aya::programs::ProgramInfo;
use pgfw_common::record::ABI;
use pgfw_tests::bench::{Bench, policy};
use pgfw_tests::lab::guest::fact;

use crate::verifier::{Verified, verify};

/// Instructions that the verifier may have to follow, branches and all.
const LIMIT: u32 = 30_000;

/// Bytes, MAX_BPF_STACK of include/linux/filter.h; the sum over all functions is more than any chain of calls takes.
const STACK: u32 = 1_024;

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
    let kernel = bench.datapath.kernel();
    for (folder, name) in [
        (&shared, "entry"),
        (&shared, "egress"),
        (&shared, "clock"),
        (&own, "policy"),
        (&own, "probe"),
        (&own, "note"),
    ] {
        let info = ProgramInfo::from_pin(folder.join(name)).expect("a pinned program");
        let verified = verify(&kernel.program(name), &info);
        if let Some(told) = info.verified_instruction_count() {
            // Without the debugging information that the loader hands over, the count is the same.
            assert_eq!(verified.instructions, told, "{name}");
        }
        let Verified { instructions, stack } = verified;
        fact(
            &format!("instructions verified, {name}"),
            &format!("{instructions}, stack {stack}"),
        );
        assert!(
            instructions <= LIMIT,
            "{name}: {instructions} verified instructions, at most {LIMIT} are allowed"
        );
        assert!(
            stack <= STACK,
            "{name}: {stack} bytes of stack, at most {STACK} are allowed"
        );
    }
    for (about, choice) in kernel.choices() {
        fact(about, choice);
    }
}
