//! Asking whoever sits at the terminal whether a change is to stay, as iptables-apply does. Only a yes keeps it: a closed
//! connection, a signal, or no answer in time mean no; and should this process be killed, the kernel undoes it.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// How long an answer is waited for; the kernel undoes the change after that.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Whether input and output are a terminal's.
pub(super) fn someone_is_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Whether the change is to stay.
pub(super) fn keep_it() -> bool {
    print!(
        "Does it work? Try a second SSH session, and psql. Keep it? Within {} s it undoes itself. [y/N] ",
        PATIENCE.as_secs()
    );
    // A terminal that is gone is found out below.
    let _ = std::io::stdout().flush();
    let answer = answer(Instant::now() + PATIENCE).unwrap_or_default();
    let keep = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    if !keep {
        // Nobody may be there to read it: writing to a terminal that hung up fails, and is no reason to stop here.
        let _ = writeln!(std::io::stdout());
    }
    keep
}

/// A line from the terminal; `None` when it hung up, a signal came or time is over.
fn answer(until: Instant) -> Option<String> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGQUIT,
        Signal::SIGTSTP,
    ] {
        signals.add(signal);
    }
    // They stay blocked: what follows, the rollback, is not to be cut short by the next one.
    signals.thread_block().ok()?;
    let caught = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).ok()?;
    let terminal = std::io::stdin();
    let mut line = Vec::new();
    loop {
        let mut watched = [
            PollFd::new(terminal.as_fd(), PollFlags::POLLIN),
            PollFd::new(caught.as_fd(), PollFlags::POLLIN),
        ];
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if poll(&mut watched, timeout).ok()? == 0 || watched[1].any().unwrap_or(true) {
            return None;
        }
        let mut bytes = [0; 256];
        match nix::unistd::read(&terminal, &mut bytes) {
            Ok(0) | Err(_) => return None,
            Ok(length) => line.extend_from_slice(&bytes[..length]),
        }
        if line.contains(&b'\n') {
            return String::from_utf8(line).ok();
        }
    }
}
