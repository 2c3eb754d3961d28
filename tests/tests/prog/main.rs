//! The compiled programs: one packet at a time (BPF_PROG_TEST_RUN), and on a cable between two namespaces.

mod agree;
mod budget;
mod corpus;
mod coverage;
mod egress;
mod events;
mod fragments;
mod kernel;
mod life;
mod pair;
mod parsing;
mod state;
mod traffic;
mod verifier;
