//! The gate as its unit starts it: a process of its own, as its own user.

use std::io::Write;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

use super::process::{self, Child};
use super::{Instance, PATIENCE, eventually};

/// A running `pgfw gate`. Killed when dropped.
#[derive(Debug)]
pub struct Gate {
    child: Child,
}

impl Instance<'_> {
    /// Makes the gate's user, as `systemd-sysusers` does.
    pub fn make_gate_user(&self) {
        self.host().within(|| {
            let append = |file: &str, line: &str| {
                let text = std::fs::read_to_string(file).expect("a list of users can be read");
                if !text.contains("pgfw-gate:") {
                    let opened = std::fs::OpenOptions::new().append(true).open(file);
                    let mut opened = opened.expect("a list of users can be written");
                    writeln!(opened, "{line}").expect("a list of users can be written");
                }
            };
            append("/etc/passwd", "pgfw-gate:x:64999:64999::/:/usr/sbin/nologin");
            append("/etc/group", "pgfw-gate:x:64999:");
        });
    }

    /// Starts the gate as its own user and waits until it says that it listens.
    #[track_caller]
    pub fn start_gate(&self) -> Gate {
        let gate = self.start_gate_unready();
        gate.listens();
        gate
    }

    /// The same without waiting.
    #[track_caller]
    pub fn start_gate_unready(&self) -> Gate {
        let mut command = self.command_as_user("pgfw-gate", &["gate"]);
        Gate {
            child: Child::start(&mut command).talkative(),
        }
    }
}

impl Gate {
    /// Waits until it has said that it listens.
    #[track_caller]
    pub fn listens(&self) {
        eventually("the gate listens", PATIENCE, || {
            self.log().contains("the gate listens").then_some(())
        });
    }

    pub fn pid(&self) -> i32 {
        self.child.pid().as_raw()
    }

    /// kill -9.
    pub fn kill(mut self) {
        process::stop(&mut self.child, Signal::SIGKILL);
    }

    /// What `systemctl stop` does.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        process::stop(&mut self.child, Signal::SIGTERM)
    }

    pub fn log(&self) -> String {
        self.child.stderr()
    }
}
