//! A pseudo-random sequence that is the same for the same seed everywhere (SplitMix64).

pub(crate) struct Random {
    state: u64,
    /// Whether what is wrong is among what is picked.
    pub(crate) errs: bool,
}

impl Random {
    pub(crate) fn new(seed: u64, round: u64) -> Random {
        let mut random = Random {
            state: seed ^ round.wrapping_mul(0xd134_2543_de82_ef95),
            errs: false,
        };
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    /// The same, where anything may be wrong.
    pub(crate) fn errs_in(&mut self, many: usize) -> bool {
        self.errs && self.one_in(many)
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
