//! `pgfw lease HOST`, `pgfw connect SERVICE -- COMMAND`: the client side of the gate.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use super::{Context, output};
use crate::client::{ClientError, Given, LeaseKeeper, Profile, Taken};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(super) struct Lease {
    /// The database host, by a name in its certificate.
    host: String,
    #[command(flatten)]
    files: Files,
    /// Stay, keep it for as long as this runs, and give it back at the end (Ctrl-C).
    #[arg(long, conflicts_with = "give_back")]
    keep: bool,
    /// Give back what an earlier `pgfw lease` took.
    #[arg(long)]
    give_back: bool,
}

#[derive(Debug, Args)]
pub(super) struct Connect {
    /// A section of pg_service.conf; the command finds it as PGSERVICE.
    service: String,
    #[command(flatten)]
    files: Files,
    /// What to run while the lease is held.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What is not where libpq would look.
#[derive(Debug, Args)]
struct Files {
    /// The client certificate (PEM); default: sslcert, PGSSLCERT, ~/.postgresql/postgresql.crt.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its key (PEM); default: sslkey, PGSSLKEY, ~/.postgresql/postgresql.key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The authority that vouches for the gate; default: sslrootcert, PGSSLROOTCERT, ~/.postgresql/root.crt.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// The gate's port.
    #[arg(long, env = "PGFW_GATE_PORT", value_name = "PORT")]
    gate_port: Option<u16>,
}

impl From<Files> for Given {
    fn from(files: Files) -> Given {
        let Files {
            cert,
            key,
            root,
            gate_port,
        } = files;
        Given {
            certificate: cert,
            key,
            root,
            gate_port,
        }
    }
}

impl Lease {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let Lease {
            host,
            files,
            keep,
            give_back,
        } = self;
        let profile = Profile::of_host(&host, files.into());
        runtime()?.block_on(async {
            let mut keeper = LeaseKeeper::new(profile).await?;
            let taken = keeper.take().await?;
            if give_back {
                return given_back(keeper, context).await;
            }
            keeper.prove().await?;
            if context.json {
                output::json(&taken);
            } else {
                for line in said(&taken) {
                    println!("{line}");
                }
            }
            complain(&taken);
            if !keep {
                return Ok(());
            }
            let failed = |source| Failure::from(ClientError::Runtime { source });
            let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
            let mut term = signal(SignalKind::terminate()).map_err(failed)?;
            loop {
                tokio::select! {
                    _ = int.recv() => break,
                    _ = term.recv() => break,
                    () = tokio::time::sleep(keeper.again_in()) => again(&mut keeper).await,
                }
            }
            given_back(keeper, context).await
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn given_back(keeper: LeaseKeeper, context: &Context) -> Result<(), Failure> {
    let closed = keeper.give_back().await?;
    if context.json {
        output::json(&closed);
    } else if closed.is_empty() {
        println!("Nothing is given back: another pgfw on this machine uses the same key.");
    } else {
        for address in closed {
            println!("{address} is closed again, unless something else opens it.");
        }
    }
    Ok(())
}

impl Connect {
    pub(super) fn run(self, _: &Context) -> Result<ExitCode, Failure> {
        let Connect {
            service,
            files,
            command,
        } = self;
        let profile = Profile::of_service(&service, files.into())?;
        runtime()?.block_on(async {
            let mut keeper = LeaseKeeper::new(profile).await?;
            let taken = keeper.take().await?;
            complain(&taken);
            if let Err(failure) = keeper.prove().await {
                let _ = keeper.give_back().await;
                return Err(failure);
            }
            let code = run_beside(&mut keeper, &service, &command).await;
            // What is not given back ends by itself.
            if let Err(failure) = keeper.give_back().await {
                eprintln!("pgfw: the lease is not given back: {}", failure.message);
            }
            code
        })
    }
}

/// Runs the command with the terminal it was given, and keeps the lease meanwhile.
async fn run_beside(
    keeper: &mut LeaseKeeper,
    service: &str,
    command: &[String],
) -> Result<ExitCode, Failure> {
    let failed = |source| Failure::from(ClientError::Runtime { source });
    let kinds = [
        (SignalKind::terminate(), Signal::SIGTERM),
        (SignalKind::hangup(), Signal::SIGHUP),
    ];
    let [mut term, mut hangup] = kinds.map(|(kind, _)| signal(kind));
    let (term, hangup) = (
        term.as_mut().map_err(|e| failed(e.kind().into()))?,
        hangup.as_mut().map_err(|e| failed(e.kind().into()))?,
    );
    // The terminal sends these to the command as well, which knows what they mean: psql goes on.
    let _int = signal(SignalKind::interrupt()).map_err(failed)?;
    let _quit = signal(SignalKind::quit()).map_err(failed)?;
    let (program, arguments) = command.split_first().expect("clap requires a command");
    let mut child = std::process::Command::new(program)
        .args(arguments)
        .env("PGSERVICE", service)
        .spawn()
        .map_err(|source| ClientError::Command {
            command: program.clone(),
            source,
        })?;
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id fits"));
    let mut ended = tokio::task::spawn_blocking(move || child.wait());
    let status = loop {
        tokio::select! {
            status = &mut ended => break status,
            _ = term.recv() => { let _ = kill(pid, Signal::SIGTERM); }
            _ = hangup.recv() => { let _ = kill(pid, Signal::SIGHUP); }
            () = tokio::time::sleep(keeper.again_in()) => again(keeper).await,
        }
    };
    use std::os::unix::process::ExitStatusExt;
    let code = match status {
        // As a shell says it.
        Ok(Ok(status)) => status
            .code()
            .or(status.signal().map(|s| 128 + s))
            .and_then(|code| u8::try_from(code).ok()),
        Ok(Err(_)) | Err(_) => None,
    };
    Ok(ExitCode::from(code.unwrap_or(1)))
}

async fn again(keeper: &mut LeaseKeeper) {
    match keeper.take().await {
        Ok(taken) => complain(&taken),
        // What was taken holds until its end; it is tried again before that.
        Err(failure) => eprintln!("pgfw: the lease is not extended: {}", failure.message),
    }
}

fn said(taken: &Taken) -> Vec<String> {
    let lease = |lease: &crate::client::Lease| {
        let state = &lease.state;
        let ports: Vec<String> = state.ports.iter().map(u16::to_string).collect();
        format!(
            "{} may connect from {} to port {} until {}.",
            state.identity,
            state.address,
            ports.join(", "),
            state.until
        )
    };
    let renewed = taken
        .renewed
        .iter()
        .map(|serial| format!("The certificate is renewed; its serial is {serial}."));
    taken.leases.iter().map(lease).chain(renewed).collect()
}

/// What is missing beside what there is.
fn complain(taken: &Taken) {
    for failure in &taken.missing {
        eprintln!("pgfw: {}", failure.message);
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|source| ClientError::Runtime { source }.into())
}
