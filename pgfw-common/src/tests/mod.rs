//! The decision over ordinary maps. Whole tables of single packets stand beside the compiled program (tests/prog), which
//! must say the same; here are the stories that need a past, and the records.

mod corpus;
mod document;
mod errors;
mod fragments;
mod parsing;
mod records;
mod stories;
