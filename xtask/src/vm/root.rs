//! A guest's first root: init, modules, the test binaries that `cargo xtask test` runs, what they call, and the plan.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::initramfs::Initramfs;
use super::kernels::Kernel;
use super::modules::{self, Modules, WANTED};
use super::programs::Programs;
use crate::{shell, test};

/// Test binaries, and which of their tests run in every guest: none named means all. They are those that the kernel
/// decides about; what only PostgreSQL or the ledger decides is the same everywhere.
const SUITES: [(&str, &[&str]); 4] = [
    ("prog", &[]),
    ("machine", &[]),
    ("net", &["f27", "f55"]),
    (
        "sys",
        &["f31", "f32", "f38_on_a_kernel", "f38_without_a_capability"],
    ),
];

/// Fewer random packets than on the host: a guest is some twenty times slower.
const RANDOM_PACKETS: u32 = 300;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// What is built once for all guests.
#[derive(Debug)]
pub(super) struct Suites {
    init: PathBuf,
    pgfw: PathBuf,
    tests: Vec<(&'static str, PathBuf)>,
}

impl Suites {
    pub(super) fn build() -> Result<Suites> {
        let pgfw = test::build_pgfw()?;
        shell::run(shell::cargo().args(["build", "--quiet", "--package", "pgfw-tests", "--bin", "guest"]))?;
        let mut cargo = shell::cargo();
        cargo.args(["test", "--no-run", "--package", "pgfw-tests"]);
        for (name, _) in SUITES {
            cargo.args(["--test", name]);
        }
        let output = cargo.output().context("cargo cannot be started")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            anyhow::bail!("{said}The tests do not build.");
        }
        let tests = SUITES.iter().map(|(name, _)| {
            let path = executable(&said, name).with_context(|| format!("cargo built no test {name}"))?;
            Ok((*name, shell::workspace().join(path)))
        });
        Ok(Suites {
            init: pgfw.with_file_name("guest"),
            tests: tests.collect::<Result<_>>()?,
            pgfw,
        })
    }

    /// Writes the first root for a kernel; gives the modules that it does not have.
    pub(super) fn write(&self, kernel: &Kernel, filter: &[String], to: &Path) -> Result<Vec<String>> {
        let mut archive = Initramfs::default();
        let mut programs = Programs::default();
        for folder in ["/proc", "/sys", "/dev", "/run", "/tmp", "/var", "/root", "/etc"] {
            archive.folder(folder);
        }
        archive.file("/etc/passwd", PASSWD.as_bytes());
        archive.file("/etc/group", GROUP.as_bytes());
        let mut plan = String::new();
        let available = Modules::read(&kernel.root, &kernel.release)?;
        let (order, absent) = available.order(&WANTED);
        for file in order {
            let path = format!("/modules/{}.ko", modules::name(&file));
            archive.file(&path, &available.content(&file)?);
            writeln!(plan, "module {path}")?;
        }
        let stripped = to.with_extension("stripped");
        let mut add = |archive: &mut Initramfs, path: &str, binary: &Path| {
            // Half of a debug build is line tables, which the kernel would have to unpack.
            shell::run_quietly(
                Command::new("strip")
                    .args(["--strip-debug", "-o"])
                    .arg(&stripped)
                    .arg(binary),
            )?;
            programs.add(archive, path, &stripped)
        };
        add(&mut archive, "/init", &self.init)?;
        add(&mut archive, "/bin/pgfw", &self.pgfw)?;
        for (key, value) in [
            ("PATH", "/bin:/sbin:/usr/bin:/usr/sbin"),
            ("PGFW_BIN", "/bin/pgfw"),
            ("PGFW_GUEST", "1"),
            ("PGFW_RANDOM_PACKETS", &RANDOM_PACKETS.to_string()),
        ] {
            writeln!(plan, "env {key} {value}")?;
        }
        for ((name, binary), (_, usual)) in self.tests.iter().zip(SUITES) {
            add(&mut archive, &format!("/tests/{name}"), binary)?;
            let mut line = format!("test {name} /tests/{name} --test-threads 2");
            for part in filter {
                write!(line, " {part}")?;
            }
            if filter.is_empty() {
                for part in usual {
                    write!(line, " {part}")?;
                }
            }
            writeln!(plan, "{line}")?;
        }
        let _ = std::fs::remove_file(&stripped);
        programs.lab(&mut archive)?;
        archive.file("/plan", plan.as_bytes());
        std::fs::write(to, archive.close()).with_context(|| format!("{} cannot be written", to.display()))?;
        Ok(absent)
    }
}

/// `Executable tests/prog/main.rs (target/debug/deps/prog-0123456789abcdef)`
fn executable(said: &str, name: &str) -> Option<PathBuf> {
    said.lines().find_map(|line| {
        let path = line.trim().strip_prefix("Executable ")?.rsplit_once('(')?.1;
        let path = PathBuf::from(path.strip_suffix(')')?);
        let stem = path.file_name()?.to_str()?.rsplit_once('-')?.0;
        (stem == name).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_binary_is_found_by_its_name() {
        let said = "   Compiling pgfw-tests v0.1.0\n  Executable tests/prog/main.rs (target/debug/deps/prog-a7ec7d)\n  \
                    Executable tests/pki.rs (target/debug/deps/pki-35e383)\n";
        assert_eq!(
            executable(said, "prog"),
            Some("target/debug/deps/prog-a7ec7d".into())
        );
        assert_eq!(executable(said, "pro"), None);
    }
}
