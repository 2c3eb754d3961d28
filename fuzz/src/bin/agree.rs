//! The decision beside the compiled program, fuzzed.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(init: pgfw_fuzz::agree::prepare(), |frame: &[u8]| {
    pgfw_fuzz::agree::check(frame)
});

#[cfg(not(fuzzing))]
fn main() {
    pgfw_fuzz::replay(pgfw_fuzz::agree::check);
}
