//! What a test tells `cargo xtask vm` about the kernel of its guest.

use std::io::Write;

/// For a test that cannot run since this kernel lacks something. It returns; the test then ends, and is counted neither
/// as passed nor as failed.
///
/// Outside a guest nothing is ever left out.
///
/// # Panics
/// Outside a guest.
#[track_caller]
pub fn lacking(what: &str) {
    assert!(
        in_guest(),
        "this kernel lacks {what}, which every host of the tests must have"
    );
    let thread = std::thread::current();
    say(&format!("lacking: {}: {what}", thread.name().unwrap_or("?")));
}

/// Something about this kernel that belongs into docs/platforms.md.
pub fn fact(name: &str, value: &str) {
    if in_guest() {
        say(&format!("fact: {name}: {value}"));
    }
}

/// Whether this runs in a guest of `cargo xtask vm`.
pub fn in_guest() -> bool {
    std::env::var_os("PGFW_GUEST").is_some()
}

/// Past libtest, which keeps what a test prints until it fails. One write, so that lines are not mixed.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(format!("\n{line}\n").as_bytes());
    let _ = stdout.flush();
}
