//! The inside judge: the host-side decision and the compiled program, asked in the same process, say the same.

use std::cell::OnceCell;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use pgfw::datapath::Probe;
use pgfw_common::frames::Frame;
use pgfw_common::host::World;
use pgfw_common::host::corpus::Wanted;
use pgfw_common::host::scene::{self, Switches};
use pgfw_tests::bench::scene::Scene;

/// What BPF_PROG_TEST_RUN takes for a frame: an Ethernet header at least, and what its first buffer holds at most.
const LENGTHS: std::ops::RangeInclusive<usize> = 14..=3_000;

/// Asks both in both scenes.
///
/// # Panics
/// When they disagree, or when this process cannot load the programs: it needs root.
pub fn check(frame: &[u8]) {
    if !LENGTHS.contains(&frame.len()) {
        return;
    }
    JUDGES.with(|judges| {
        for judge in judges.get_or_init(Judge::both) {
            judge.check(frame);
        }
    });
}

/// Loads the programs, which takes longer than any frame.
///
/// # Panics
/// Without root.
pub fn prepare() {
    JUDGES.with(|judges| judges.get_or_init(Judge::both).len());
}

thread_local! {
    /// Of the one thread that libFuzzer has: it enters their namespaces for good.
    static JUDGES: OnceCell<[Judge; 2]> = const { OnceCell::new() };
}

struct Judge {
    switches: Switches,
    world: World,
    scene: Scene,
    probe: Probe,
}

impl Judge {
    fn both() -> [Judge; 2] {
        // The engine ends its process without unwinding: mounts in a namespace of their own go with it all the same.
        unshare(CloneFlags::CLONE_NEWNS).expect("root, for a mount namespace");
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .expect("a private mount namespace");
        Switches::BOTH.map(|switches| {
            let scene = Scene::new(switches);
            Judge {
                switches,
                world: scene::world(switches),
                probe: scene.bench.datapath.probe(1).expect("the probe"),
                scene,
            }
        })
    }

    fn check(&self, frame: &[u8]) {
        let here = Wanted::from(self.world.ask(frame, scene::ARRIVAL));
        self.scene.bench.namespace.enter();
        let answer = self.probe.ask(frame, None).expect("an answer");
        let there = Wanted {
            reason: answer.reason,
            service: answer.service.map(|service| service.0),
        };
        assert_eq!(
            here,
            there,
            "switches {:?}: the host says {here}, the kernel {there}: {}",
            self.switches,
            Frame(frame.to_vec()).hex()
        );
    }
}
