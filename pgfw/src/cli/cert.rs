//! `pgfw cert server | issue | renew | revoke`: certificates of the server and of identities.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use super::passphrase::Asked;
use super::{Context, cert_show, output};
use crate::api::Changed;
use crate::failure::{Code, Failure};
use crate::ledger::types::RevocationReason;
use crate::ops::{
    Engine, IssueRequest, IssuedCertificate, Opened, Protected, Revoke, Revoked, Shut, Why, requester,
};
use crate::pki::{KeyKind, P12, Passphrase};

#[derive(Debug, Subcommand)]
pub(super) enum Cert {
    /// Issue the server's certificate for every name and address of server_names.
    Server {
        /// Only this `[[postgres]]` section; default: every one.
        #[arg(value_name = "NAME")]
        cluster: Option<String>,
    },
    /// Issue an identity's certificate; its networks open at once in the policy that runs.
    Issue {
        /// An identity of pgfw.toml.
        name: String,
        /// How long it lasts, at most the identity's ttl, else pki.client_ttl; that is the default too.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
        /// A certificate signing request (PEM); the key stays where it is.
        #[arg(long, value_name = "FILE")]
        csr: Option<PathBuf>,
        /// What the key is that is made here.
        #[arg(long, value_enum, default_value = "p256", conflicts_with = "csr")]
        key: Kind,
        /// Also write a folder that is ready for the client.
        #[arg(long, value_name = "DIR")]
        bundle: Option<PathBuf>,
        /// With certificate and key as PKCS #12 in it (postgresql.p12), for Java; a password is made and written beside.
        #[arg(long, requires = "bundle", conflicts_with = "csr")]
        p12: bool,
        /// The password of that file is the first line of this one.
        #[arg(long, value_name = "FILE", requires = "p12")]
        p12_password_file: Option<PathBuf>,
        /// Needed for `postgres` and the like.
        #[arg(long)]
        superuser: bool,
        /// Why, for the ledger.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Renew the server's certificate where it is due, and have the server serve the newest; the daemon does it by itself.
    Renew {
        /// Only this `[[postgres]]` section; default: every one that pgfw manages.
        #[arg(value_name = "NAME")]
        cluster: Option<String>,
    },
    /// Sign and publish the CRLs where one is missing, incomplete or past half of its time; the daemon does it by itself
    /// where it has the keys.
    PublishCrl,
    /// Revoke: the CRL, the packet filter and live sessions hear of it at once.
    Revoke {
        /// An identity's name (all of its certificates) or one serial.
        #[arg(value_name = "NAME|SERIAL")]
        target: String,
        #[arg(long, value_enum, default_value = "unspecified")]
        reason: Reason,
    },
    /// Every certificate, what ends soon first, then what counts no more.
    List,
    /// All that is known of one certificate, or of every one of a name.
    Show {
        /// A name or one serial.
        #[arg(value_name = "NAME|SERIAL")]
        target: String,
    },
    /// The CRLs for a server on another host, a standby: printed (`ssl_crl_file`), or put into a folder (`ssl_crl_dir`).
    ExportCrl {
        /// A folder, made when absent; its files are replaced whole.
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Kind {
    /// ECDSA, which every client signs with.
    P256,
    Ed25519,
}

/// CRLReason (RFC 5280, section 5.3.1).
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Reason {
    Unspecified,
    KeyCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    PrivilegeWithdrawn,
}

impl From<Reason> for RevocationReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unspecified => RevocationReason::Unspecified,
            Reason::KeyCompromise => RevocationReason::KeyCompromise,
            Reason::AffiliationChanged => RevocationReason::AffiliationChanged,
            Reason::Superseded => RevocationReason::Superseded,
            Reason::CessationOfOperation => RevocationReason::CessationOfOperation,
            Reason::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
        }
    }
}

impl Cert {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        context.require_root("cert")?;
        let who = requester(nix::unistd::getuid().as_raw());
        match self {
            Cert::Server { cluster } => server(context, cluster.as_deref(), &who),
            Cert::Issue {
                name,
                ttl,
                csr,
                key,
                bundle,
                p12,
                p12_password_file,
                superuser,
                reason,
            } => {
                let password = p12_password_file
                    .map(|file| Passphrase::read(&file))
                    .transpose()?;
                let csr = csr.map(|file| read(&file)).transpose()?;
                let request = IssueRequest {
                    name,
                    ttl,
                    csr,
                    kind: match key {
                        Kind::P256 => KeyKind::P256,
                        Kind::Ed25519 => KeyKind::Ed25519,
                    },
                    superuser,
                    reason,
                    bundle,
                    p12: p12.then(|| password.map_or(Protected::Random, Protected::By)),
                };
                issue(context, &request, &who)
            }
            Cert::Renew { cluster } => super::cert_renew::run(context, cluster.as_deref(), &who),
            Cert::PublishCrl => super::cert_show::publish_crl(context),
            Cert::Revoke { target, reason } => revoke(
                context,
                &Revoke {
                    target,
                    reason: reason.into(),
                },
                &who,
            ),
            Cert::List => cert_show::list(context),
            Cert::Show { target } => cert_show::show(context, &target),
            Cert::ExportCrl { folder } => cert_show::export_crl(context, folder.as_deref()),
        }
    }
}

fn server(context: &Context, cluster: Option<&str>, who: &str) -> Result<ExitCode, Failure> {
    let issued = context.unlocked(Asked::Once, || {
        Engine::open(&context.paths)?.issue_server(cluster, who)
    })?;
    if context.json {
        output::json(&issued);
        return Ok(ExitCode::SUCCESS);
    }
    for one in &issued {
        let certificate = &one.certificate;
        println!(
            "Issued {} until {}.",
            certificate.subject_dn,
            certificate.not_after.rfc3339()
        );
        println!("  serial       {}", certificate.serial);
        println!("  certificate  {}", one.certificate_file.display());
    }
    println!("Have the server use it with: pgfw pg apply");
    Ok(ExitCode::SUCCESS)
}

/// Issues, then opens, then writes the folder: what fails late does not hide what was done.
fn issue(context: &Context, request: &IssueRequest, who: &str) -> Result<ExitCode, Failure> {
    let mut engine = Engine::open(&context.paths)?;
    let mut done = context.unlocked(Asked::Once, || engine.issue_client(request, who))?;
    let opened = match context.client().post::<Changed>("/v1/refresh", &()) {
        Err(failure) if failure.code == Code::Unreachable => engine.refreshed(),
        answered => answered,
    };
    let opened = opened
        .and_then(|_| engine.opened_for(&done.issued.certificate.name))
        .map(|opened| done.opened = Some(opened));
    let bundled = match &request.bundle {
        Some(folder) => engine.bundle(&done.issued, folder).and_then(|bundle| {
            let bundle = done.bundle.insert(bundle);
            if let Some(protected) = &request.p12 {
                done.p12 = Some(engine.pkcs12(&done.issued, bundle, protected)?);
            }
            Ok(())
        }),
        None => Ok(()),
    };
    print_issued(context, &done);
    let serial = &done.issued.certificate.serial;
    opened.map_err(|f| {
        late(
            f,
            &format!("certificate {serial} is issued, and its networks are not open"),
        )
    })?;
    bundled.map_err(|f| {
        late(
            f,
            &format!("certificate {serial} is issued, and its bundle is not written"),
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn late(failure: Failure, what: &str) -> Failure {
    Failure::new(
        failure.code,
        format!("{what}: {}", failure.message),
        failure.remedy,
    )
}

fn print_issued(context: &Context, done: &IssuedCertificate) {
    if context.json {
        output::json(done);
        return;
    }
    let IssuedCertificate {
        issued,
        bundle,
        p12,
        opened,
    } = done;
    let certificate = &issued.certificate;
    println!(
        "Issued {} until {}.",
        certificate.subject_dn,
        certificate.not_after.rfc3339()
    );
    if issued.shortened {
        println!("  (shorter than asked for: not longer than its authority)");
    }
    println!("  serial       {}", certificate.serial);
    println!("  certificate  {}", issued.certificate_file.display());
    if let Some(key) = &issued.key_file {
        println!("  key          {}", key.display());
    }
    if let Some(opened) = opened {
        print_networks(opened);
    }
    if let Some(bundle) = bundle {
        println!("  bundle       {}", bundle.folder.display());
        if let Some(P12 { file, password_file }) = p12 {
            println!("  for Java     {} (sslkey)", file.display());
            if let Some(file) = password_file {
                println!("  password     {} (sslpassword)", file.display());
            }
        }
        println!("Connect with:  {}", bundle.command);
    }
}

fn print_networks(opened: &Opened) {
    let Opened { networks, shut } = opened;
    if networks.is_empty() && shut.is_empty() {
        println!("  networks     none of its own: it may log in from wherever the filter admits");
    }
    if !networks.is_empty() {
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        println!("  networks     {} (open while it is valid)", networks.join(", "));
    }
    for Shut { net, why } in shut {
        let until = match why {
            Why::NotEnforced => "opens when pgfw enforces: no policy judges packets now",
            Why::NotReloaded => "not open: `pgfw reload` brings it into the policy that runs",
            Why::Denied => "not open: a `pgfw deny` covers it",
        };
        println!("  networks     {net} ({until})");
    }
}

/// Through the daemon, which tries again what cannot be done now; without one, root does it itself.
fn revoke(context: &Context, request: &Revoke, who: &str) -> Result<ExitCode, Failure> {
    let (revoked, daemon): (Revoked, bool) = match context.client().post("/v1/revoke", request) {
        Err(failure) if failure.code == Code::Unreachable => {
            (Engine::open(&context.paths)?.revoke(request, who)?, false)
        }
        answered => (answered?, true),
    };
    let Revoked {
        certificates,
        layers,
        notes,
        unfinished,
        locked,
        recorded,
    } = &revoked;
    if context.json {
        output::json(&revoked);
    } else {
        for (serial, name) in certificates {
            match name.as_str() {
                "" => println!("Revoked serial {serial}, which the ledger does not know."),
                name => println!("Revoked {name}, serial {serial}."),
            }
        }
        for layer in layers {
            println!("  {:12} {} ({} ms)", layer.name, layer.what, layer.milliseconds);
        }
        for line in notes.iter().chain(unfinished) {
            println!("! {line}");
        }
    }
    if unfinished.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    // Everything that needs no key is closed by now; whoever sits here may have what the daemon lacks. It goes on ending
    // sessions until the lists stand.
    if *locked > 0 && by_hand(context)? && *locked == unfinished.len() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::refused(
        format!("{} could not be reached by all of the revocation", request.target),
        match (daemon, recorded) {
            (true, _) => "The daemon tries again until it is done; `pgfw status` shows what waits.",
            (false, true) => {
                "Start the daemon, which tries again until it is done, or run this again: it changes nothing twice."
            }
            (false, false) => {
                "Free space and run this again before this host restarts: what is closed now is kept in /run only."
            }
        },
    ))
}

/// Signs the CRLs that could not be signed for want of a passphrase, where this process is given one. Whether they are.
fn by_hand(context: &Context) -> Result<bool, Failure> {
    match context.unlocked(Asked::Once, || Engine::open(&context.paths)?.publish_lists()) {
        Ok(_) if context.json => Ok(true),
        Ok(_) => {
            println!("The CRLs are published now, signed with the passphrase given here.");
            Ok(true)
        }
        Err(failure) if failure.code == Code::Locked => Ok(false),
        Err(failure) => Err(failure),
    }
}

fn read(file: &std::path::Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|source| {
        Failure::invalid(
            format!("{} cannot be read: {source}", file.display()),
            "Name a file with a certificate signing request in PEM.",
        )
    })
}
