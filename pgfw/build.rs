//! Compiles pgfw-ebpf for the kernel and leaves the object for `include_bytes`.
//!
//! Building for BPF takes a `core` for `bpfel-unknown-none`, which stable toolchains do not ship. Where no compiler has
//! one, this script succeeds all the same: check, clippy and doc need no object, and a real build ends with the one
//! sentence in `src/datapath/object.rs`.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const TARGET: &str = "bpfel-unknown-none";

fn main() -> Result<()> {
    println!("cargo::rustc-check-cfg=cfg(pgfw_bpf_object)");
    println!("cargo::rerun-if-env-changed=PGFW_BPF_RUSTC");
    println!("cargo::rerun-if-env-changed=PATH");
    let workspace = workspace()?;
    for input in [
        "pgfw-ebpf/src",
        "pgfw-ebpf/Cargo.toml",
        "pgfw-common/src",
        "pgfw-common/Cargo.toml",
        "Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    let compiler = Compiler::find()?;
    let linker = find_program("bpf-linker", &workspace);
    let (Some(compiler), Some(linker)) = (compiler, linker) else {
        // A file that is not there counts as changed: the next build looks again.
        println!("cargo::rerun-if-changed=no-bpf-compiler-yet");
        println!("cargo::rustc-env=PGFW_BPF_COMPILER=none");
        return Ok(());
    };
    println!("cargo::rustc-env=PGFW_BPF_COMPILER={}", compiler.version);
    println!("cargo::rerun-if-changed={}", compiler.rustc.display());
    println!("cargo::rerun-if-changed={}", linker.display());

    let object = compile(&workspace, &compiler, &linker)?;
    let copy = out_dir()?.join("pgfw-ebpf.o");
    std::fs::copy(&object, &copy).with_context(|| format!("cannot copy {}", object.display()))?;
    println!("cargo::rustc-env=PGFW_BPF_OBJECT={}", copy.display());
    println!("cargo::rustc-cfg=pgfw_bpf_object");
    Ok(())
}

/// A compiler that can make code for the kernel.
struct Compiler {
    rustc: PathBuf,
    /// The first line of `rustc --version`.
    version: String,
    /// It has rust-src instead of a built `core`.
    build_core: bool,
}

impl Compiler {
    /// In this order: the one that `PGFW_BPF_RUSTC` names, Debian's rustc-web, a rustup nightly with rust-src.
    fn find() -> Result<Option<Compiler>> {
        if let Some(named) = env::var_os("PGFW_BPF_RUSTC") {
            let rustc = PathBuf::from(named);
            return match Compiler::of(&rustc) {
                Some(compiler) => Ok(Some(compiler)),
                None => bail!(
                    "PGFW_BPF_RUSTC is {}, which has neither a core for {TARGET} nor rust-src; name a compiler that has, \
                     or unset the variable",
                    rustc.display()
                ),
            };
        }
        // With rust-src alone it is no help: building `core` takes a nightly's cargo. Setup chooses by the same rule.
        let debian = Compiler::of(Path::new("/usr/bin/rustc")).filter(|compiler| !compiler.build_core);
        Ok(debian.or_else(|| Compiler::of(&rustup_nightly()?)))
    }

    fn of(rustc: &Path) -> Option<Compiler> {
        let sysroot = PathBuf::from(output(Command::new(rustc).args(["--print", "sysroot"]))?);
        let libraries = sysroot.join("lib/rustlib");
        let has_core = std::fs::read_dir(libraries.join(TARGET).join("lib")).is_ok_and(|files| {
            files
                .flatten()
                .any(|f| f.file_name().to_string_lossy().starts_with("libcore-"))
        });
        let has_source = libraries.join("src/rust/library/core").is_dir();
        if !has_core && !has_source {
            return None;
        }
        Some(Compiler {
            version: output(Command::new(rustc).arg("--version"))?,
            rustc: rustc.to_owned(),
            build_core: !has_core,
        })
    }
}

fn rustup_nightly() -> Option<PathBuf> {
    output(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]))
        .map(PathBuf::from)
        .filter(|rustc| rustc.is_file())
}

/// Trimmed standard output of a program that succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.env_remove("RUSTUP_TOOLCHAIN").output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Where `cargo xtask setup` puts programs, in `PATH`, or where `cargo install` puts them.
fn find_program(name: &str, workspace: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    std::iter::once(workspace.join("target/tools/bin"))
        .chain(env::split_paths(&path))
        .chain(cargo_home.map(|home| home.join("bin")))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// Runs cargo for the kernel's target, with a target folder of its own: the outer cargo holds the lock on the other.
fn compile(workspace: &Path, compiler: &Compiler, linker: &Path) -> Result<PathBuf> {
    let target_dir = out_dir()?.join("bpf");
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let mut flags = OsString::new();
    for flag in [
        "-Cdebuginfo=2".to_owned(),
        // Instructions of 32 bits, which every kernel since 5.3 has.
        "-Ctarget-cpu=v3".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.display()),
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        format!("--remap-path-prefix={}=.", workspace.display()),
    ] {
        if !flags.is_empty() {
            flags.push("\x1f");
        }
        flags.push(flag);
    }
    let cargo = match compiler.rustc.parent() {
        // -Zbuild-std wants the cargo of the same toolchain.
        Some(bin) if compiler.build_core => bin.join("cargo").into_os_string(),
        _ => env::var_os("CARGO").context("cargo sets CARGO")?,
    };
    let mut cargo = Command::new(cargo);
    // What the outer build sets for itself (a clippy wrapper, its own flags and profile) is not meant for this one.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_FEATURE_")
            || text.starts_with("CARGO_PROFILE_")
            || text.starts_with("RUSTC")
            || text == "RUSTFLAGS"
            || text == "CARGO_BUILD_TARGET"
            || text == "RUSTUP_TOOLCHAIN"
        {
            cargo.env_remove(&name);
        }
    }
    cargo
        .current_dir(workspace)
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "pgfw-ebpf",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTC", &compiler.rustc)
        // A stable compiler's target of tier 3 needs leave to be used.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        // bpf-linker optimises the whole program itself.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    if compiler.build_core {
        cargo.arg("-Zbuild-std=core");
    }
    if env::var_os("CARGO_FEATURE_LOG").is_some() {
        cargo.args(["--features", "log"]);
    }
    let output = cargo.output().context("cannot run cargo for the BPF programs")?;
    if !output.status.success() {
        bail!(
            "{} could not compile pgfw-ebpf; `cargo xtask setup` installs the compiler it is tested with\n{}",
            compiler.version,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(target_dir.join(TARGET).join("release/pgfw-ebpf"))
}

fn out_dir() -> Result<PathBuf> {
    Ok(PathBuf::from(
        env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?,
    ))
}

fn workspace() -> Result<PathBuf> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("cargo sets CARGO_MANIFEST_DIR")?);
    Ok(manifest.parent().context("pgfw lies in a workspace")?.to_owned())
}
