//! What programs take for one packet, each less what an empty program takes for the same packet in the same round.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use pgfw_common::frames::Frame;
use pgfw_common::reason::Reason;
use pgfw_common::record::ABI;
use pgfw_tests::bench::Bench;
use pgfw_tests::lab::Namespace;

use crate::Options;
use crate::kernel;
use crate::report::Samples;
use crate::round::{Contestant, interleave};
use crate::source::{self, Chain, Source};

/// Programs and their packets, to be run in interleaved rounds.
pub(crate) struct Race<'a> {
    lanes: Vec<Lane<'a>>,
    floors: BTreeMap<(Source, u32), Chain>,
    repeat: u32,
    frags: bool,
}

/// One of them; the figure it gets is found by this.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number(usize);

struct Lane<'a> {
    chain: Chain,
    namespace: &'a Namespace,
    frame: Frame,
    source: Source,
    repeat: u32,
    after: Option<Box<dyn FnMut() + 'a>>,
}

impl<'a> Race<'a> {
    /// On the kind of programs that `bench` has.
    pub(crate) fn new(bench: &Bench, options: &Options) -> Race<'a> {
        Race {
            lanes: Vec::new(),
            floors: BTreeMap::new(),
            repeat: options.pick(200_000, 50_000),
            frags: frags(bench),
        }
    }

    /// The policy of `bench` through the entry, which must say `reason` about nearly all such packets.
    #[track_caller]
    pub(crate) fn entry(
        &mut self,
        bench: &'a Bench,
        source: Source,
        frame: &Frame,
        reason: Reason,
    ) -> Number {
        let number = self.program(
            bench,
            &kernel::pinned(&shared(bench).join("entry")),
            source,
            frame,
        );
        self.check(bench, number, reason);
        number
    }

    /// The policy of `bench` without the entry.
    pub(crate) fn policy(&mut self, bench: &'a Bench, source: Source, frame: &Frame) -> Number {
        let own = shared(bench).join(format!("gen-{}/policy", bench.generation));
        self.program(bench, &kernel::pinned(&own), source, frame)
    }

    /// Any program, in the namespace of `bench`.
    pub(crate) fn program(
        &mut self,
        bench: &'a Bench,
        program: &OwnedFd,
        source: Source,
        frame: &Frame,
    ) -> Number {
        self.lanes.push(Lane {
            chain: Chain::new(source, program.as_fd(), self.frags),
            namespace: &bench.namespace,
            frame: frame.clone(),
            source,
            repeat: self.repeat,
            after: None,
        });
        self.floors
            .entry((source, self.repeat))
            .or_insert_with(|| floor(source, self.frags));
        Number(self.lanes.len() - 1)
    }

    /// Runs this one so many times only, and `before` each.
    pub(crate) fn few(&mut self, Number(index): Number, repeat: u32, before: impl FnMut() + 'a) {
        let lane = &mut self.lanes[index];
        lane.repeat = repeat;
        lane.after = Some(Box::new(before));
        let source = lane.source;
        self.floors
            .entry((source, repeat))
            .or_insert_with(|| floor(source, self.frags));
    }

    /// What each takes over an empty program.
    pub(crate) fn run(self, options: &Options) -> Results {
        let Race {
            lanes,
            floors,
            repeat: _,
            frags: _,
        } = self;
        let keys: Vec<(Source, u32)> = lanes.iter().map(|lane| (lane.source, lane.repeat)).collect();
        // A floor reads no packet, so that any frame with room for a source will do.
        let long = Frame(vec![0; 128]);
        let floor_keys: Vec<(Source, u32)> = floors.keys().copied().collect();
        let mut contestants: Vec<Contestant<'_>> = floors
            .values()
            .zip(&floor_keys)
            .map(|(chain, (_, repeat))| {
                let (frame, repeat) = (&long.0, *repeat);
                // On a thread of its own as the others are.
                Contestant::new("floor", move || {
                    std::thread::scope(|scope| {
                        let ran = scope.spawn(|| chain.run(frame, repeat).1);
                        ran.join().expect("an empty program")
                    })
                })
            })
            .collect();
        for lane in lanes {
            let Lane {
                chain,
                namespace,
                frame,
                source: _,
                repeat,
                mut after,
            } = lane;
            contestants.push(Contestant::new("lane", move || {
                if let Some(before) = &mut after {
                    before();
                }
                namespace.within(|| chain.run(&frame.0, repeat).1)
            }));
        }
        let mut samples = interleave(options.pick(15, 5), &mut contestants);
        let own = samples.split_off(floor_keys.len());
        let floors: BTreeMap<(Source, u32), Samples> = floor_keys.into_iter().zip(samples).collect();
        let over = own
            .iter()
            .zip(&keys)
            .map(|(own, key)| own.over(&floors[key]))
            .collect();
        Results { over, floors }
    }

    /// Measuring something else than what the row says would be worse than not measuring.
    #[track_caller]
    fn check(&self, bench: &Bench, Number(index): Number, reason: Reason) {
        const TRIED: u32 = 2_000;
        let count = || bench.counters().interfaces.get(&0).cloned().unwrap_or_default();
        let before = count();
        let lane = &self.lanes[index];
        let (chain, frame) = (&lane.chain, &lane.frame.0);
        bench.namespace.within(|| chain.run(frame, TRIED));
        let after = count();
        let of = |counts: &BTreeMap<Reason, u64>| counts.get(&reason).copied().unwrap_or(0);
        let grown = of(&after) - of(&before);
        assert!(
            grown * 10 >= u64::from(TRIED) * 8,
            "{grown} of {TRIED} packets are {reason:?}: {:?}",
            after
                .iter()
                .filter(|(reason, count)| before.get(reason) != Some(count))
                .collect::<Vec<_>>()
        );
    }
}

/// What a race measured.
pub(crate) struct Results {
    over: Vec<Samples>,
    floors: BTreeMap<(Source, u32), Samples>,
}

impl Results {
    /// Nanoseconds over an empty program.
    pub(crate) fn of(&self, Number(index): Number) -> Samples {
        self.over[index].clone()
    }

    /// How much more one takes than another.
    pub(crate) fn more(&self, one: Number, other: Number) -> Samples {
        self.of(one).over(&self.of(other))
    }

    /// What an empty program takes, with the program in front of it that draws a source: the least of all medians.
    pub(crate) fn floor(&self) -> Samples {
        let least = self
            .floors
            .values()
            .min_by(|a, b| a.median().total_cmp(&b.median()));
        least.cloned().unwrap_or_default()
    }
}

fn floor(source: Source, frags: bool) -> Chain {
    Chain::new(source, source::empty(frags).as_fd(), frags)
}

/// Where the pins of a bench are.
pub(crate) fn shared(bench: &Bench) -> PathBuf {
    bench.bpffs.path().join(format!("pgfw/v{ABI}"))
}

/// Whether this kernel got the programs that take packets of several buffers.
pub(crate) fn frags(bench: &Bench) -> bool {
    bench.datapath.kernel().multi_buffer
}
