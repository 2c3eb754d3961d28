//! The compiled programs: one packet at a time (BPF_PROG_TEST_RUN), and on a cable between two namespaces.

mod agree;
mod bench;
mod budget;
mod coverage;
mod events;
mod kernel;
mod life;
mod model;
mod pair;
mod parsing;
mod state;
mod traffic;
mod verifier;
