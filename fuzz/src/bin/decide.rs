//! The decision by itself, fuzzed.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|frame: &[u8]| pgfw_fuzz::decide::check(frame));

#[cfg(not(fuzzing))]
fn main() {
    pgfw_fuzz::replay(pgfw_fuzz::decide::check);
}
