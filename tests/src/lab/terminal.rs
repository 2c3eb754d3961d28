//! A program on a terminal of its own, as a person in an SSH session has it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::openpty;
use nix::unistd::setsid;

use super::{PATIENCE, eventually};

/// The person's end.
#[derive(Debug)]
pub struct Terminal {
    keyboard: Option<File>,
    child: std::process::Child,
    shown: String,
}

impl Terminal {
    #[track_caller]
    pub fn start(mut command: Command) -> Terminal {
        let ends = openpty(None, None).expect("a terminal can be made");
        // Whoever else held the person's end would keep the line open.
        for end in [&ends.master, &ends.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("a descriptor can be closed on exec");
        }
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor can be copied"));
        command
            .stdin(end(&ends.slave))
            .stdout(end(&ends.slave))
            .stderr(end(&ends.slave));
        // SAFETY: between fork and exec only system calls are made.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                // Its controlling terminal, so that a hang-up reaches it as a signal.
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            })
        };
        let child = command.spawn().expect("a program can be started");
        // The command holds copies of the program's end, too.
        drop((command, ends.slave));
        fcntl(&ends.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .expect("a terminal can be told not to wait");
        Terminal {
            keyboard: Some(ends.master.into()),
            child,
            shown: String::new(),
        }
    }

    /// Waits until this stands on the screen.
    #[track_caller]
    pub fn shows(&mut self, text: &str) {
        let what = format!("the terminal shows {text:?}");
        eventually(&what, PATIENCE, || {
            self.look();
            self.shown.contains(text).then_some(())
        });
    }

    /// All that was shown so far.
    pub fn look(&mut self) -> &str {
        let mut buffer = [0; 4096];
        while let Some(Ok(length @ 1..)) = self.keyboard.as_mut().map(|k| k.read(&mut buffer)) {
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        &self.shown
    }

    #[track_caller]
    pub fn types(&mut self, text: &str) {
        let keyboard = self.keyboard.as_mut().expect("it has not hung up");
        keyboard.write_all(text.as_bytes()).expect("somebody listens");
    }

    /// What becomes of a terminal whose SSH connection is lost.
    pub fn hangs_up(&mut self) {
        self.look();
        self.keyboard = None;
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id fits")
    }

    #[track_caller]
    pub fn ends(&mut self) -> ExitStatus {
        eventually("the program ends", PATIENCE, || {
            self.look();
            self.child.try_wait().expect("a child can be waited for")
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
