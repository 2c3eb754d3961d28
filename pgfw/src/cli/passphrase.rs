//! Asks for the passphrase of the authorities' keys at the terminal, without echo, when something turned out to need it.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};

use nix::sys::signal::SigmaskHow;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::{Context, question};
use crate::failure::{Code, Failure};
use crate::ops;
use crate::pki::Passphrase;

/// How often it is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    /// It exists: keys are under it.
    Once,
    /// It may be a new one, which a typing error would lose.
    Anew,
}

impl Context {
    /// Does it, and where a passphrase was missing asks for it and does it again. Whatever locks it takes are not held while
    /// somebody types.
    pub(super) fn unlocked<T>(
        &self,
        asked: Asked,
        mut work: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match work() {
            Err(failure) if failure.code == Code::Locked && !ops::passphrase_given() => {
                let Some(passphrase) = ask(asked)? else {
                    return Err(failure);
                };
                ops::give_passphrase(passphrase);
                work()
            }
            done => done,
        }
    }
}

/// `None`: there is no terminal.
fn ask(asked: Asked) -> Result<Option<Passphrase>, Failure> {
    // Whoever redirects both is a script, which nobody sits in front of; output alone may go anywhere.
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Ok(None);
    }
    let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
        return Ok(None);
    };
    let first = type_in(&mut terminal, "Passphrase of the authorities' keys: ")?;
    if let Asked::Anew = asked
        && type_in(&mut terminal, "Once more: ")? != first
    {
        return Err(Failure::refused(
            "the two passphrases are not the same",
            "Run this again.",
        ));
    }
    Ok(Some(Passphrase::new(&first, "the terminal")?))
}

fn type_in(terminal: &mut File, prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |what: &str| {
        Failure::refused(
            format!("no passphrase was typed in: {what}"),
            "Run this again, or with --passphrase-file FILE.",
        )
    };
    // Before echo is off: a Ctrl-C in between would leave it so.
    let before = question::signals().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let before = before.map_err(|errno| failed(errno.desc()))?;
    let echo = Silent::begin(terminal).map_err(|errno| failed(errno.desc()))?;
    let said = write!(terminal, "{prompt}").and_then(|()| terminal.flush());
    let line = question::line(&*terminal, None);
    drop(echo);
    let _ = writeln!(terminal);
    // A Ctrl-C that came meanwhile ends this process here, with the terminal as it was.
    let _ = before.thread_set_mask();
    said.map_err(|error| failed(&error.to_string()))?;
    line.ok_or_else(|| failed("it was broken off"))
}

/// Echo is off as long as this lives.
struct Silent {
    terminal: File,
    before: Termios,
}

impl Silent {
    fn begin(terminal: &File) -> nix::Result<Silent> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        // What was typed before the question was for somebody else.
        let terminal = terminal.try_clone().map_err(|_| nix::errno::Errno::EMFILE)?;
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent)?;
        Ok(Silent { terminal, before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}
