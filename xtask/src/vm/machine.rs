//! One guest: QEMU with a kernel and a first root, watched until it ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::kernels::Kernel;
use super::qemu::Qemu;

/// A guest says every five seconds that it is alive; one that is silent for so long has locked up.
const SILENCE: Duration = Duration::from_secs(90);

/// However busy it is, it is ended after this.
const LONGEST: Duration = Duration::from_secs(40 * 60);

/// How the kernel's own code is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accelerator {
    Kvm,
    /// QEMU's translator: slow and always there.
    Tcg,
}

impl Accelerator {
    /// KVM when a kernel is seen to boot with it within seconds: on nested hosts it may be there and hang.
    pub(super) fn probe(qemu: &Qemu, kernel: &Kernel) -> Result<Accelerator> {
        const WITHIN: Duration = Duration::from_secs(10);
        if File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Accelerator::Tcg);
        }
        // Without a root it panics at once, which ends the machine.
        let mut command = qemu.command();
        command
            .args([
                "-accel",
                "kvm",
                "-cpu",
                "host",
                "-m",
                "256",
                "-no-reboot",
                "-nographic",
            ])
            .args(["-nodefaults", "-monitor", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(&kernel.image)
            .args(["-append", "console=ttyS0 panic=-1 quiet"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = Running(command.spawn().context("QEMU cannot be started")?);
        let (said, lines) = mpsc::channel();
        listen(&mut child.0, said);
        let end = Instant::now() + WITHIN;
        let mut panicked = false;
        while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            panicked |= line.contains("Kernel panic");
        }
        Ok(if panicked {
            Accelerator::Kvm
        } else {
            Accelerator::Tcg
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "KVM",
            Accelerator::Tcg => "TCG",
        }
    }
}

/// What a guest is made of, and where what it says is kept.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) qemu: &'a Qemu,
    pub(super) accelerator: Accelerator,
    pub(super) kernel: &'a Kernel,
    pub(super) folder: PathBuf,
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// It said that it is done, and switched off.
    Done,
    /// It ended without saying so: a panic, or QEMU itself.
    Broken,
    /// Nothing was heard of it for too long.
    Silent,
    /// It took too long.
    TooLong,
}

impl Machine<'_> {
    pub(super) fn initramfs(&self) -> PathBuf {
        self.folder.join("initramfs")
    }

    pub(super) fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    pub(super) fn transcript(&self) -> PathBuf {
        self.folder.join("tests.log")
    }

    /// Boots it and hands on what its tests print, line by line.
    pub(super) fn run(&self, mut heard: impl FnMut(&str)) -> Result<End> {
        let mut command = self.qemu.command();
        let (accelerator, cpu) = match self.accelerator {
            Accelerator::Kvm => ("kvm", "host"),
            // One thread for both processors: with two, one may run code that the other is rewriting (static keys, BPF's
            // dispatcher), and the guest oopses with int3 or never leaves a test run.
            Accelerator::Tcg => ("tcg,thread=single", "max"),
        };
        command
            .args(["-accel", accelerator, "-cpu", cpu, "-smp", "2", "-m", "1536"])
            .args(["-nodefaults", "-no-reboot", "-nographic", "-monitor", "none"])
            .arg("-serial")
            .arg(format!("file:{}", self.console().display()))
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.initramfs())
            .args(["-append", "console=ttyS0 panic=-1 oops=panic rdinit=/init"]);
        // Two NICs of the guest on one cable: a test puts one of them into a namespace of its own.
        for (number, id) in ["a", "b"].into_iter().enumerate() {
            command
                .args(["-netdev", &format!("hubport,hubid=0,id={id}")])
                .args([
                    "-device",
                    &format!("virtio-net-pci,netdev={id},mac=52:54:00:00:00:0{number}"),
                ]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(self.folder.join("qemu.log"))?);
        let mut transcript = File::create(self.transcript())?;
        let mut child = Running(command.spawn().context("QEMU cannot be started")?);
        let (said, lines) = mpsc::channel();
        listen(&mut child.0, said);
        let begun = Instant::now();
        let mut done = false;
        loop {
            if begun.elapsed() > LONGEST {
                return Ok(End::TooLong);
            }
            match lines.recv_timeout(SILENCE) {
                Ok(line) => {
                    writeln!(transcript, "{:7.1} {line}", begun.elapsed().as_secs_f32())?;
                    done |= line == "guest: done";
                    heard(&line);
                }
                Err(RecvTimeoutError::Timeout) => return Ok(End::Silent),
                Err(RecvTimeoutError::Disconnected) => {
                    child.0.wait()?;
                    return Ok(if done { End::Done } else { End::Broken });
                }
            }
        }
    }
}

/// A QEMU that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends each line of its output; hangs up when it ends.
fn listen(child: &mut Child, said: mpsc::Sender<String>) {
    let output = child.stdout.take().expect("a pipe was asked for");
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line);
            if said.send(line.trim_end_matches('\r').to_owned()).is_err() {
                return;
            }
        }
    });
}
