//! Asking whoever sits at the terminal whether a change is to stay, as iptables-apply does. Only a yes keeps it: a closed
//! connection, a signal, or no answer in time mean no; and should this process be killed, the kernel undoes it.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use zeroize::Zeroizing;

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
    let answer = line(std::io::stdin(), Some(Instant::now() + PATIENCE)).unwrap_or_default();
    let answer = String::from_utf8_lossy(&answer).trim().to_ascii_lowercase();
    let keep = matches!(answer.as_str(), "y" | "yes");
    if !keep {
        // Nobody may be there to read it: writing to a terminal that hung up fails, and is no reason to stop here.
        let _ = writeln!(std::io::stdout());
    }
    keep
}

/// A line from the terminal, overwritten when dropped; `None` when it hung up, a signal came or time is over.
pub(super) fn line(terminal: impl AsFd, until: Option<Instant>) -> Option<Zeroizing<Vec<u8>>> {
    let signals = signals();
    // They stay blocked: what follows, the rollback, is not to be cut short by the next one.
    signals.thread_block().ok()?;
    let caught = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).ok()?;
    // Room for the longest line of a terminal (N_TTY_BUF_SIZE): what grows leaves copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(4096));
    loop {
        let mut watched = [
            PollFd::new(terminal.as_fd(), PollFlags::POLLIN),
            PollFd::new(caught.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(left) => PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        if poll(&mut watched, timeout).ok()? == 0 || watched[1].any().unwrap_or(true) {
            return None;
        }
        let mut bytes = Zeroizing::new([0; 256]);
        match nix::unistd::read(&terminal, bytes.as_mut_slice()) {
            Ok(0) | Err(_) => return None,
            Ok(length) => line.extend_from_slice(&bytes[..length]),
        }
        if line.contains(&b'\n') {
            return Some(line);
        }
    }
}

/// What ends or stops a program that waits for somebody to type.
pub(super) fn signals() -> SigSet {
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
    signals
}
