//! What the demo prints: captions, the commands as they are run, and what came of them.

use std::io::IsTerminal;

/// A step begins.
pub(crate) fn caption(text: &str) {
    println!("\n{}", bold(&format!("── {text}")));
}

pub(crate) fn command(line: &str) {
    println!("   {}", bold(&format!("$ {line}")));
}

pub(crate) fn note(text: &str) {
    println!("   {text}");
}

/// Output of a command, indented.
pub(crate) fn output(text: &str) {
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        println!("     {line}");
    }
}

pub(crate) fn right(text: &str) {
    println!("   ✓ {text}");
}

/// Ends the demo: an outcome is not what it should be. Unwinds, so that the lab is taken down.
#[track_caller]
pub(crate) fn fail(text: &str) -> ! {
    println!("   ✗ {text}");
    panic!("the demo ended at a wrong outcome: {text}");
}

#[track_caller]
pub(crate) fn check(holds: bool, what: &str) {
    if holds { right(what) } else { fail(what) }
}

fn bold(text: &str) -> String {
    if std::io::stdout().is_terminal() {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
