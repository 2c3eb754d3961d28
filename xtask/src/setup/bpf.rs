//! The compiler and the linker of the programs that run in the kernel.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell;

/// The one that goes with the aya family of this workspace.
pub(super) const LINKER_VERSION: &str = "0.13.0";

/// Debian's name for a compiler that carries `core` for bpfel-unknown-none.
pub(super) const COMPILER_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// A Rust compiler that can make BPF programs. `pgfw/build.rs` looks in the same order.
#[derive(Debug)]
pub(super) struct Compiler {
    pub(super) name: &'static str,
    pub(super) version: String,
    /// The linker's LLVM must not be older.
    pub(super) llvm: u32,
}

impl Compiler {
    pub(super) fn find() -> Option<Compiler> {
        if let Some(chosen) = std::env::var_os("PGFW_BPF_RUSTC") {
            return Compiler::describe("the compiler that PGFW_BPF_RUSTC names", Path::new(&chosen));
        }
        let debian = Path::new("/usr/bin/rustc");
        if has_bpf_core(debian) {
            return Compiler::describe("Debian's rustc", debian);
        }
        // A nightly builds `core` itself, from rust-src: without it, it is of no use.
        let sysroot =
            PathBuf::from(shell::ask("rustup", &["run", "nightly", "rustc", "--print", "sysroot"])?.trim());
        sysroot
            .join("lib/rustlib/src/rust/library/core")
            .is_dir()
            .then_some(())?;
        Compiler::describe("rustup's nightly", &sysroot.join("bin/rustc"))
    }

    fn describe(name: &'static str, rustc: &Path) -> Option<Compiler> {
        let text = shell::ask(rustc, &["-vV"])?;
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
        Some(Compiler {
            name,
            version: field("release: ")?.to_owned(),
            llvm,
        })
    }
}

fn has_bpf_core(rustc: &Path) -> bool {
    let Some(folder) = shell::ask(
        rustc,
        &["--print", "target-libdir", "--target", "bpfel-unknown-none"],
    ) else {
        return false;
    };
    let Ok(files) = Path::new(folder.trim()).read_dir() else {
        return false;
    };
    files
        .flatten()
        .any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
}

/// Where setup puts what it builds: inside the clone, so that a person's own tools stay as they are.
fn tools() -> PathBuf {
    shell::workspace().join("target/tools")
}

/// A bpf-linker of the right version whose LLVM is recent enough: our own, or the one in cargo's folder.
pub(super) fn linker(llvm: u32) -> Option<PathBuf> {
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let roots = [Some(tools()), cargo_home];
    roots
        .into_iter()
        .flatten()
        .find(|root| fits(root, llvm))
        .map(|root| root.join("bin/bpf-linker"))
}

fn fits(root: &Path, llvm: u32) -> bool {
    // cargo's own record is the only place that tells which LLVM a bpf-linker was built with.
    let record = std::fs::read_to_string(root.join(".crates2.json")).unwrap_or_default();
    let entry = record
        .split_once(&format!("\"bpf-linker {LINKER_VERSION} "))
        .map(|(_, rest)| rest);
    let features = entry.and_then(|rest| Some(rest.split_once("\"features\":[")?.1.split_once(']')?.0));
    let built_with = features.and_then(|list| {
        let names = list.split(',').map(|name| name.trim_matches('"'));
        names
            .filter_map(|name| name.strip_prefix("llvm-")?.parse::<u32>().ok())
            .max()
    });
    built_with.is_some_and(|built| built >= llvm)
        && shell::ask(root.join("bin/bpf-linker"), &["--version"])
            .is_some_and(|text| text.contains(LINKER_VERSION))
}

pub(super) fn llvm_package(llvm: u32) -> String {
    format!("llvm-{llvm}-dev")
}

pub(super) fn has_llvm(llvm: u32) -> bool {
    prefix(llvm).join("bin/llvm-config").exists()
}

fn prefix(llvm: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{llvm}"))
}

pub(super) fn build_linker(llvm: u32) -> Result<()> {
    let feature = format!("llvm-{llvm}");
    shell::run_quietly(
        shell::cargo()
            .args([
                "install",
                "bpf-linker",
                "--locked",
                "--force",
                "--version",
                LINKER_VERSION,
            ])
            .args(["--no-default-features", "--features", &feature, "--root"])
            .arg(tools())
            .env("LLVM_PREFIX", prefix(llvm))
            .env_remove("CARGO_TARGET_DIR"),
    )
    .with_context(|| format!("bpf-linker {LINKER_VERSION} cannot be built with LLVM {llvm}"))?;
    if linker(llvm).is_none() {
        bail!("bpf-linker was built but does not start: see `target/tools/bin/bpf-linker --version`.");
    }
    Ok(())
}
