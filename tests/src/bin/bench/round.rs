//! Interleaved rounds: all contestants once, then all once more, so that whatever the machine does meanwhile
//! happens to all of them.

use crate::report::Samples;

/// One thing that can be measured again and again.
pub(crate) struct Contestant<'a> {
    pub(crate) name: String,
    measure: Box<dyn FnMut() -> f64 + 'a>,
}

impl<'a> Contestant<'a> {
    pub(crate) fn new(name: impl Into<String>, measure: impl FnMut() -> f64 + 'a) -> Contestant<'a> {
        Contestant {
            name: name.into(),
            measure: Box::new(measure),
        }
    }
}

/// Measures each once a round, after one round that does not count; the samples are in the contestants' order.
///
/// Every second round runs backwards: what grows steadily through a round falls on none in particular.
pub(crate) fn interleave(rounds: usize, contestants: &mut [Contestant<'_>]) -> Vec<Samples> {
    for contestant in contestants.iter_mut() {
        (contestant.measure)();
    }
    let mut samples = vec![Samples::default(); contestants.len()];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..contestants.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let contestant = &mut contestants[index];
            let value = (contestant.measure)();
            assert!(value.is_finite(), "{}: {value}", contestant.name);
            samples[index].push(value);
        }
    }
    samples
}
