//! What the programs may cost the verifier, on the kernel that runs this.

use std::collections::BTreeMap;
use std::path::Path;

use aya::programs::ProgramInfo;
use pgfw::datapath::COMPILER;
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
    policy.settings.gate_port = Some(5430);
    let bench = Bench::new(&policy);
    let shared = bench.bpffs.path().join(format!("pgfw/v{ABI}"));
    let own = shared.join("gen-1");
    let kernel = bench.datapath.kernel();
    let mut counts = BTreeMap::new();
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
        counts.insert(name.to_owned(), instructions);
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
    let now = Counts {
        kernel: nix::sys::utsname::uname()
            .expect("a kernel has a name")
            .release()
            .to_string_lossy()
            .into_owned(),
        compiler: COMPILER.to_owned(),
        counts,
    };
    if std::env::var_os("PGFW_COUNTS").is_some_and(|what| what == "renew") {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("counts.txt");
        std::fs::write(file, now.text()).expect("the counts can be written");
    } else {
        now.compare(&Counts::parse(include_str!("../../counts.txt")));
    }
}

/// Verified instructions of each program: what the compiled program is, counted in a way that does not drift as times do.
#[derive(Debug)]
struct Counts {
    kernel: String,
    compiler: String,
    counts: BTreeMap<String, u32>,
}

/// By so much of a hundred a program may change before somebody has to say that it is meant.
const CHANGE: u32 = 10;

impl Counts {
    fn parse(text: &str) -> Counts {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut rows: BTreeMap<&str, &str> = lines.filter_map(|line| line.split_once(": ")).collect();
        let mut word = |name| rows.remove(name).expect("counts.txt names it").to_owned();
        Counts {
            kernel: word("kernel"),
            compiler: word("compiler"),
            counts: rows
                .into_iter()
                .map(|(name, count)| (name.to_owned(), count.parse().expect("a number")))
                .collect(),
        }
    }

    fn text(&self) -> String {
        let Counts {
            kernel,
            compiler,
            counts,
        } = self;
        let rows: String = counts
            .iter()
            .map(|(name, count)| format!("{name}: {count}\n"))
            .collect();
        format!(
            "# Instructions that the verifier follows, everything switched on. Written by `cargo xtask counts`; compared\n\
             # within {CHANGE} % by tests/prog/budget.rs, on this kernel and with this compiler.\n\
             kernel: {kernel}\ncompiler: {compiler}\n{rows}"
        )
    }

    /// Other kernels verify otherwise, other compilers compile otherwise: those are not compared.
    fn compare(&self, committed: &Counts) {
        if (&self.kernel, &self.compiler) != (&committed.kernel, &committed.compiler) {
            return;
        }
        for (name, now) in &self.counts {
            let then = committed.counts.get(name).copied().unwrap_or(0);
            assert!(
                now.abs_diff(then) * 100 <= then * CHANGE,
                "{name}: {now} verified instructions, {then} in tests/counts.txt; if that is meant: cargo xtask counts"
            );
        }
    }
}
