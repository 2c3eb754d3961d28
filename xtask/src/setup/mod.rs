//! `cargo xtask setup`: what building, testing and the demo need beyond git and stable Rust.

mod apt;
mod bpf;
mod majors;
mod pgaudit;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::shell;
use crate::vm::qemu::{self, Qemu};

/// Install what building, testing and the demo need, and say what and why.
///
/// Debian packages: a Rust compiler that has `core` for BPF (a rustup nightly with rust-src is as good),
/// PostgreSQL with pgaudit, an SSH server, nmap, the programs of the guides, the filters that the bench compares with and small tools.
/// No service is started, no database cluster is made, nothing is removed. bpf-linker is built into target/tools, QEMU
/// unpacked there, and the other major versions of PostgreSQL into target/majors. On a machine that has it all this does nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only print what would be installed.
    #[arg(long)]
    list: bool,
    /// Do not ask, even on a terminal.
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let missing = missing(&ALL);
    if arguments.list {
        for item in &missing {
            println!("{item}");
        }
        if missing.is_empty() {
            println!("Nothing: everything is there.");
        }
        return Ok(ExitCode::SUCCESS);
    }
    install(missing, arguments.yes)?;
    say_compiler();
    Ok(ExitCode::SUCCESS)
}

fn say_compiler() {
    if let Some(compiler) = bpf::Compiler::find() {
        println!(
            "Programs for the kernel are compiled by {} {} (LLVM {}).",
            compiler.name, compiler.version, compiler.llvm
        );
    }
}

/// What a command needs; a missing one is installed, after a question when a person is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Compile and link the programs for the kernel.
    Bpf,
    /// Namespaces, PostgreSQL, SSH and the scanner.
    Lab,
    /// rustfmt, clippy, the checker of unit files.
    Check,
    /// The C++ compiler that libFuzzer is built with.
    Fuzz,
    /// Machines with other kernels.
    Machine,
    /// What pgfw is measured beside.
    Peers,
    /// A server of every major version of PostgreSQL.
    Majors,
}

/// What `cargo xtask setup` installs. A compiler for libFuzzer comes with `cargo xtask fuzz`, which alone needs it.
const ALL: [Need; 6] = [
    Need::Bpf,
    Need::Lab,
    Need::Check,
    Need::Machine,
    Need::Peers,
    Need::Majors,
];

pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    install(missing(needs), false)?;
    if needs.contains(&Need::Bpf) {
        say_compiler();
    }
    if needs.contains(&Need::Majors) {
        majors::check_passable()?;
    }
    Ok(())
}

/// One thing to install.
#[derive(Debug)]
struct Item {
    what: What,
    why: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Package(&'static str),
    Component(&'static str),
    /// LLVM's headers and bpf-linker; `None` while the compiler that decides the version is missing too.
    Linker(Option<u32>),
    Qemu,
    /// For the major version that Debian's server has, or will have.
    Pgaudit(Option<u16>),
    Server(majors::Major),
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Item { what, why } = self;
        let version = bpf::LINKER_VERSION;
        match what {
            What::Package(name) => write!(f, "{name} (Debian): {why}"),
            What::Qemu => write!(
                f,
                "{} (Debian, unpacked under target/tools): {why}",
                qemu::PACKAGE
            ),
            What::Component(name) => write!(f, "{name} (rustup): {why}"),
            What::Server(major) => write!(f, "{major}: {why}"),
            What::Pgaudit(Some(major)) => write!(f, "{} (Debian): {why}", pgaudit::package(*major)),
            What::Pgaudit(None) => write!(f, "postgresql-NN-pgaudit (Debian; NN as the server's): {why}"),
            What::Linker(Some(llvm)) if bpf::has_llvm(*llvm) => {
                write!(f, "bpf-linker {version} (cargo): {why}")
            }
            What::Linker(Some(llvm)) => {
                write!(
                    f,
                    "{} (Debian) and bpf-linker {version} (cargo): {why}",
                    bpf::llvm_package(*llvm)
                )
            }
            What::Linker(None) => {
                write!(
                    f,
                    "llvm-NN-dev (Debian; NN as the compiler's) and bpf-linker {version} (cargo): {why}"
                )
            }
        }
    }
}

/// Package, the program that shows it is there, and what it is for.
const LAB: [(&str, &str, &str); 17] = [
    ("iproute2", "ip", "makes the lab's networks"),
    (
        "postgresql",
        "pg_createcluster",
        "the database server that the tests protect",
    ),
    (
        "openssh-server",
        "sshd",
        "the SSH server that must stay reachable",
    ),
    ("nmap", "nmap", "the stranger's port scan"),
    (
        "strace",
        "strace",
        "what the daemon asks of the kernel, against what its unit allows",
    ),
    ("tcpdump", "tcpdump", "reads the captures that pgfw writes"),
    ("iputils-ping", "ping", "echo requests"),
    ("ethtool", "ethtool", "switches offloads on and off"),
    (
        "dnsmasq-base",
        "dnsmasq",
        "the DHCP server and the router's advertisements",
    ),
    (
        "isc-dhcp-client",
        "dhclient",
        "the DHCP client that must keep its lease",
    ),
    ("openssl", "openssl", "a second opinion on certificates"),
    (
        "iptables",
        "iptables-restore",
        "the classic rules that packets are judged against, and containers' NAT",
    ),
    (
        "default-jre-headless",
        "keytool",
        "Java's reading of certificates",
    ),
    ("pgbouncer", "pgbouncer", "the pooler of its guide"),
    ("patroni", "patroni", "the cluster of its guide"),
    ("etcd-server", "etcd", "where Patroni keeps who leads"),
    (
        "keepalived",
        "keepalived",
        "VRRP: the address that moves between two hosts",
    ),
];

/// The same of what `cargo xtask bench` compares with.
const PEERS: [(&str, &str, &str); 3] = [
    (
        "xdp-tools",
        "xdp-filter",
        "a packet filter in XDP to measure beside",
    ),
    ("nftables", "nft", "the kernel's packet filter to measure beside"),
    (
        "ipset",
        "ipset",
        "networks for iptables' rules, as many as pgfw gets",
    ),
];

fn missing(needs: &[Need]) -> Vec<Item> {
    let mut items = Vec::new();
    for need in needs {
        match need {
            Need::Bpf => {
                let compiler = bpf::Compiler::find();
                if compiler.is_none() {
                    let why = "compiles the programs that run in the kernel";
                    items.extend(bpf::COMPILER_PACKAGES.map(|name| Item {
                        what: What::Package(name),
                        why,
                    }));
                }
                let llvm = compiler.map(|compiler| compiler.llvm);
                if llvm.is_none_or(|llvm| bpf::linker(llvm).is_none()) {
                    items.push(Item {
                        what: What::Linker(llvm),
                        why: "links the programs that run in the kernel",
                    });
                }
            }
            Need::Lab => {
                let absent = LAB.iter().filter(|(package, program, _)| match *package {
                    "postgresql" => shell::find(program).is_none() || pgaudit::major().is_none(),
                    _ => shell::find(program).is_none(),
                });
                items.extend(absent.map(|(package, _, why)| Item {
                    what: What::Package(package),
                    why,
                }));
                if !pgaudit::is_there() {
                    items.push(Item {
                        what: What::Pgaudit(pgaudit::major()),
                        why: "the extension that audit.pgaudit sets",
                    });
                }
            }
            Need::Peers => {
                let absent = PEERS
                    .iter()
                    .filter(|(_, program, _)| shell::find(program).is_none());
                items.extend(absent.map(|(package, _, why)| Item {
                    what: What::Package(package),
                    why,
                }));
            }
            Need::Majors => {
                let absent = majors::missing();
                if !absent.is_empty() && shell::find("npm").is_none() {
                    items.push(Item {
                        what: What::Package("npm"),
                        why: "fetches other versions of PostgreSQL",
                    });
                }
                items.extend(absent.into_iter().map(|major| Item {
                    what: What::Server(major),
                    why: "the same rules, on a server of every version",
                }));
            }
            Need::Fuzz => {
                if shell::find("c++").is_none() {
                    items.push(Item {
                        what: What::Package("g++"),
                        why: "compiles the fuzzing engine",
                    });
                }
            }
            Need::Machine => {
                if Qemu::find().is_none() {
                    items.push(Item {
                        what: What::Qemu,
                        why: "runs the kernels of the matrix",
                    });
                }
                let tools = [
                    ("xz-utils", "xz", "unpacks kernel modules"),
                    ("kmod", "depmod", "tells what a kernel module needs"),
                ];
                for (package, program, why) in tools {
                    if shell::find(program).is_none() {
                        items.push(Item {
                            what: What::Package(package),
                            why,
                        });
                    }
                }
            }
            Need::Check => {
                let tools = [
                    ("rustfmt", "fmt", "checks the formatting"),
                    ("clippy", "clippy", "checks the code"),
                ];
                for (component, command, why) in tools {
                    if !shell::cargo()
                        .args([command, "--version"])
                        .output()
                        .is_ok_and(|output| output.status.success())
                    {
                        items.push(Item {
                            what: What::Component(component),
                            why,
                        });
                    }
                }
                if shell::find("systemd-analyze").is_none() {
                    items.push(Item {
                        what: What::Package("systemd"),
                        why: "checks the unit files",
                    });
                }
            }
        }
    }
    items
}

fn install(items: Vec<Item>, yes: bool) -> Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    println!("Setup installs:");
    for item in &items {
        println!("  {item}");
    }
    if !yes && shell::on_terminal() && !agreed()? {
        bail!("Nothing was installed.");
    }
    let packages: Vec<&str> = items
        .iter()
        .filter_map(|item| match item.what {
            What::Package(name) => Some(name),
            What::Component(_) | What::Linker(_) | What::Qemu | What::Pgaudit(_) | What::Server(_) => None,
        })
        .collect();
    if !packages.is_empty() {
        println!("Installing {} …", packages.join(", "));
        apt::install(&packages).with_context(|| advice(&packages))?;
    }
    for item in &items {
        match item.what {
            What::Package(_) => {}
            What::Component(name) => {
                println!("Adding {name} …");
                shell::run_quietly(Command::new("rustup").args(["component", "add", name]))
                    .with_context(|| format!("{name} is missing and rustup cannot add it"))?;
            }
            What::Linker(_) => link_tools()?,
            What::Pgaudit(_) => pgaudit::install()?,
            What::Server(ref major) => {
                println!("Unpacking {major} …");
                majors::unpack(major)?;
            }
            What::Qemu => {
                println!("Unpacking {} …", qemu::PACKAGE);
                Qemu::unpack()?;
            }
        }
    }
    Ok(())
}

/// LLVM and bpf-linker, for the compiler that is there by now.
fn link_tools() -> Result<()> {
    let compiler = bpf::Compiler::find().context(
        "Debian's archive gave a compiler that cannot make BPF programs: enable its security archive, \
         or add a nightly with `rustup toolchain install nightly --component rust-src`",
    )?;
    let llvm = compiler.llvm;
    if !bpf::has_llvm(llvm) {
        let package = bpf::llvm_package(llvm);
        println!("Installing {package} …");
        apt::install(&[&package])?;
    }
    println!(
        "Building bpf-linker {} with LLVM {llvm} (about a minute) …",
        bpf::LINKER_VERSION
    );
    bpf::build_linker(llvm)
}

fn advice(packages: &[&str]) -> String {
    let compiler = packages.iter().any(|name| bpf::COMPILER_PACKAGES.contains(name));
    let otherwise =
        "; for the BPF compiler, `rustup toolchain install nightly --component rust-src` does as well";
    format!(
        "setup stopped at {}{}",
        packages.join(", "),
        if compiler { otherwise } else { "" }
    )
}

fn agreed() -> Result<bool> {
    eprint!("Go ahead? [Y/n] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}
