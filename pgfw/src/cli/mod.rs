//! Arguments and output: one file a subcommand. Every command prints for people, or JSON with `--json`.

mod allow;
mod ca;
mod ca_keys;
mod ca_rotate;
mod capture;
mod cert;
mod cert_renew;
mod cert_show;
mod check;
mod config;
mod connections;
mod events;
mod follow;
mod gate;
mod lease;
mod list;
mod off;
mod output;
mod passphrase;
mod pg;
mod pg_adopt;
mod pg_plan;
mod pg_trial;
mod pg_verify;
mod pg_who;
mod question;
mod reload;
mod run;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::api::Client;
use crate::failure::{Code, Failure};
use crate::ops;
use crate::paths::{self, Paths};
use crate::pki::Passphrase;

/// A host firewall for PostgreSQL whose allowlist knows certificates.
#[derive(Debug, Parser)]
#[command(name = "pgfw", version, disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command; each is also an environment variable, so that instances can live side by side.
#[derive(Debug, Args)]
struct Global {
    /// The configuration file.
    #[arg(long, env = "PGFW_CONFIG", default_value = paths::DEFAULT_CONFIG, global = true, help_heading = "Global options")]
    config: PathBuf,
    /// The control socket.
    #[arg(long, env = "PGFW_SOCKET", default_value = paths::DEFAULT_SOCKET, global = true, help_heading = "Global options")]
    socket: PathBuf,
    /// Ledger and PostgreSQL generations.
    #[arg(long, env = "PGFW_STATE_DIR", default_value = paths::DEFAULT_STATE_DIR, global = true, help_heading = "Global options")]
    state_dir: PathBuf,
    /// The pin folder on a bpf file system; made when absent.
    #[arg(long, env = "PGFW_BPFFS", default_value = paths::DEFAULT_BPFFS, global = true, help_heading = "Global options")]
    bpffs: PathBuf,
    /// The passphrase of the authorities' keys is the first line of this file; /dev/fd/3 and the like are files too.
    #[arg(
        long,
        env = "PGFW_PASSPHRASE_FILE",
        value_name = "FILE",
        global = true,
        help_heading = "Global options"
    )]
    passphrase_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon (what the systemd unit starts).
    Run(run::Run),
    /// Run the gate, at which a certificate opens an address (what its systemd unit starts).
    Gate(gate::Gate),
    /// Am I protected, where, by which policy, and what needs attention?
    Status(status::Status),
    /// Open a network, for PostgreSQL unless a service is named.
    Allow(allow::Allow),
    /// Close a network, for every service unless one is named; established connections included.
    Deny(allow::Deny),
    /// Take back an `allow` or a `deny`; established connections drain unless --cut.
    Remove(allow::Remove),
    /// Every network that something opens or closes, by whom, until when.
    List(list::List),
    /// Ask the loaded program what it would do with a packet.
    Check(check::Check),
    /// Packets that were dropped, with reason, addresses and ports; a sample.
    Events(events::Events),
    /// Who is connected to PostgreSQL, by which certificate, and who gave that to whom.
    Connections(connections::Connections),
    /// Bring the filter to what pgfw.toml says now.
    Reload(reload::Reload),
    /// Keep a change that would otherwise undo itself.
    Confirm(reload::Confirm),
    /// Undo a change that waits for `pgfw confirm`.
    Rollback(reload::Rollback),
    /// Detach everything and leave nothing in the kernel; works with the daemon dead.
    Off(off::Off),
    /// Look at a configuration file without using it.
    #[command(subcommand)]
    Config(config::Config),
    /// The two certificate authorities.
    #[command(subcommand)]
    Ca(ca::Ca),
    /// Certificates of the server and of identities.
    #[command(subcommand)]
    Cert(cert::Cert),
    /// Open the database's port for this machine's address, with a certificate, at the gate; needs no root.
    Lease(lease::Lease),
    /// Run a command (psql) while such a lease is held, and give it back.
    Connect(lease::Connect),
    /// PostgreSQL's side: pg_hba.conf, pg_ident.conf, TLS.
    #[command(subcommand)]
    Pg(pg::Pg),
}

/// What every command gets.
#[derive(Debug)]
struct Context {
    paths: Paths,
    json: bool,
}

impl Context {
    fn client(&self) -> Client {
        Client::new(&self.paths.socket).asked_from(ops::myself().from)
    }

    /// Commands that change this host's kernel, files or PostgreSQL themselves need root.
    fn require_root(&self, what: &str) -> Result<(), Failure> {
        if nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        Err(Failure::new(
            Code::Forbidden,
            format!("`pgfw {what}` needs root"),
            format!("Run it as: sudo pgfw {what}"),
        ))
    }
}

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    // Keys pass through this process: it leaves no core dump, not to a program that collects them either (a limit of
    // zero keeps only files from being written, coredump.c).
    if let Err(errno) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%errno, "a crash of this process may leave its memory on disk");
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap: help and version go to standard output and are no failure.
            let code = if error.use_stderr() {
                Code::Invalid.exit_code()
            } else {
                0
            };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let Cli {
        global:
            Global {
                config,
                socket,
                state_dir,
                bpffs,
                passphrase_file,
                json,
            },
        command,
    } = cli;
    let context = Context {
        paths: Paths {
            config,
            socket,
            state_dir,
            bpffs,
        },
        json,
    };
    if !matches!(command, Command::Run(_) | Command::Gate(_)) {
        restore_sigpipe();
        output::fail_when_unwritable();
    }
    if let Some(file) = passphrase_file {
        match Passphrase::read(&file) {
            Ok(passphrase) => ops::give_passphrase(passphrase),
            Err(error) => {
                let failure = Failure::from(error);
                output::failure(&failure, json);
                return ExitCode::from(failure.code.exit_code());
            }
        }
    }
    let result = match command {
        Command::Run(c) => c.run(&context),
        Command::Gate(c) => c.run(&context),
        Command::Status(c) => c.run(&context),
        Command::Allow(c) => c.run(&context),
        Command::Deny(c) => c.run(&context),
        Command::Remove(c) => c.run(&context),
        Command::List(c) => c.run(&context),
        Command::Check(c) => c.run(&context),
        Command::Events(c) => c.run(&context),
        Command::Connections(c) => c.run(&context),
        Command::Reload(c) => c.run(&context),
        Command::Confirm(c) => c.run(&context),
        Command::Rollback(c) => c.run(&context),
        Command::Off(c) => c.run(&context),
        Command::Config(c) => c.run(&context),
        Command::Ca(c) => c.run(&context),
        Command::Cert(c) => c.run(&context),
        Command::Lease(c) => c.run(&context),
        Command::Connect(c) => c.run(&context),
        Command::Pg(c) => c.run(&context),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            output::failure(&failure, context.json);
            ExitCode::from(failure.code.exit_code())
        }
    }
}

/// `pgfw list | head` ends quietly: Rust ignores SIGPIPE, a command-line tool should not. The daemon must: a client
/// that goes away would end it.
fn restore_sigpipe() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: SIG_DFL runs no code of ours.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}
