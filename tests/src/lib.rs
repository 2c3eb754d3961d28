//! What the tests that need root stand on.

pub mod bench;
pub mod lab;
pub mod scratch;
