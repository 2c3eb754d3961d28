//! Fuzz targets: a frame goes in, and a broken promise comes out as a panic. `cargo xtask fuzz` runs them under
//! libFuzzer; built without it, each is a program that tries the files it is given.

pub mod agree;
pub mod decide;

/// Tries every file named on the command line, as libFuzzer does with a finding.
///
/// # Panics
/// When a file cannot be read, and as the target does.
pub fn replay(target: impl Fn(&[u8])) {
    for path in std::env::args_os().skip(1) {
        let frame = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        target(&frame);
        println!("{}: kept its promises", path.display());
    }
}
