//! What the tests that need root stand on.

pub mod lab;
pub mod scratch;
