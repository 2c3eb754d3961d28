//! What an apply would put in the place of what a cluster has: its files, its rules as they are read, and what the server
//! knows about those whom that concerns. Writes nothing.

mod diff;
mod live;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pgfw_hba::{Disk, Files as _, Hba, Ident, Memory};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

pub use diff::Difference;
pub use live::{Live, Role, Secret, Setting, Stream};

use super::candidate::{Texts, texts};
use super::conf::At;
use super::pending;
use super::rules::grammar;
use super::settings::{self, CLIENT_CA, CONF, HBA, IDENT, SERVER_CERT};
use super::stage::Generations;
use super::switch::{Include, Live as Names, has_line, included, is_link_to};
use super::{PostgresError, Rules, Server, beforehand};
use crate::clock::WallTime;
use crate::config::{Cluster, Config, Manage};
use crate::failure::Failure;
use crate::paths::Paths;

/// What is known beside pgfw.toml of what the server is to have.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What it would serve, PEM; `None`: there is nothing yet, and an apply is refused.
    pub server_cert_pem: Option<String>,
    /// Whom it would trust, PEM.
    pub client_ca_pem: Option<String>,
    pub crl_dir: PathBuf,
}

/// Now and then.
#[derive(Debug)]
pub struct Plan {
    pub server: Server,
    /// An apply would find nothing to do.
    pub unchanged: bool,
    pub now: Rules,
    /// The client authorities that it trusts, DER; none where it asks for no certificates.
    pub trusted: Vec<Vec<u8>>,
    pub then: Then,
    pub files: Vec<Difference>,
    /// A sentence each, about what it serves and trusts.
    pub tls: Vec<String>,
    /// Those that change, and those that something else decides.
    pub settings: Vec<Setting>,
    /// `None`: it is down, or does not answer.
    pub live: Option<Live>,
    /// Why an apply would be refused, a sentence or two each.
    pub obstacles: Vec<String>,
    pub notes: Vec<String>,
    /// What nobody could be asked about.
    pub not_seen: Vec<String>,
}

/// The rules after an apply, read as the server would.
#[derive(Debug)]
pub struct Then {
    pub hba: Hba,
    pub ident: Ident,
    /// DER.
    pub trusted: Vec<Vec<u8>>,
}

/// Works it out. Blocks.
///
/// # Errors
/// A cluster that pgfw does not manage, that is not there, or whose files cannot be read; a config that cannot be rendered.
pub fn plan(cluster: &Cluster, config: &Config, paths: &Paths, facts: &Facts) -> Result<Plan, PostgresError> {
    if cluster.manage == Manage::None {
        return Err(PostgresError::NotManaged {
            cluster: cluster.name.clone(),
        });
    }
    let server = Server::find(cluster)?;
    let generations = Generations::at(&paths.postgres(&cluster.name))?;
    let names = Names::of(&server, &generations)?;
    let current = generations.current_link();
    let pem = |text: &Option<String>| text.clone().unwrap_or_default();
    let pems = (pem(&facts.server_cert_pem), pem(&facts.client_ca_pem));
    let texts = texts(
        cluster,
        config,
        &server,
        (&pems.0, &pems.1),
        &facts.crl_dir,
        &current,
    )?;
    let now = Rules::of(&server)?;
    let then = Then::read(&server, &texts, &pems.1)?;
    let mut plan = Plan {
        unchanged: is_in_place(cluster, &generations, &names, &texts, &pems),
        now,
        trusted: Vec::new(),
        then,
        files: Vec::new(),
        tls: Vec::new(),
        settings: Vec::new(),
        live: None,
        obstacles: Vec::new(),
        notes: Vec::new(),
        not_seen: Vec::new(),
        server,
    };
    let own = settings::of_server(cluster, &generations, &facts.crl_dir)?;
    plan.obstacles(cluster, paths, facts, &generations, &names);
    if let Err(error) = beforehand::check(cluster, &plan.server, &names, &own) {
        let Failure { message, remedy, .. } = Failure::from(error);
        plan.obstacles.push(format!("{message}. {remedy}"));
    }
    plan.differences(cluster, &names, &current, &texts)?;
    plan.served_and_trusted(&pems.0)?;
    plan.ask(cluster, config, &At::of(&names), own)?;
    Ok(plan)
}

impl Then {
    fn read(server: &Server, texts: &Texts, client_ca_pem: &str) -> Result<Then, PostgresError> {
        let grammar = grammar(server)?;
        let files = Memory::of([
            (server.hba_file.clone(), texts.hba.as_str()),
            (server.ident_file.clone(), texts.ident.as_str()),
        ]);
        Ok(Then {
            hba: Hba::read(&server.hba_file, &files, &grammar),
            ident: Ident::read(&server.ident_file, &files, &grammar),
            trusted: certificates(client_ca_pem),
        })
    }
}

impl Plan {
    fn obstacles(
        &mut self,
        cluster: &Cluster,
        paths: &Paths,
        facts: &Facts,
        generations: &Generations,
        names: &Names,
    ) {
        let all = &mut self.obstacles;
        if facts.client_ca_pem.is_none() {
            all.push("There are no authorities yet; make them with `pgfw ca init`.".to_owned());
        }
        if facts.server_cert_pem.is_none() {
            all.push(format!(
                "Cluster `{}` has no server certificate; issue it with `pgfw cert server`.",
                cluster.name
            ));
        }
        let edited = generations.current().map(|n| generations.check_unedited(n));
        for error in [Some(names.check_links()), edited]
            .into_iter()
            .flatten()
            .filter_map(Result::err)
        {
            let failure = Failure::from(error);
            all.push(format!("{}. {}", failure.message, failure.remedy));
        }
        let trials = pending::on_trial(paths);
        if let Some(trial) = trials.iter().find(|trial| trial.cluster == cluster.name) {
            all.push(format!(
                "An apply waits for its confirmation until {}; say `pgfw confirm` or `pgfw rollback` first.",
                trial.until.rfc3339()
            ));
        }
    }

    /// In the files that the server reads.
    fn differences(
        &mut self,
        cluster: &Cluster,
        names: &Names,
        current: &Path,
        texts: &Texts,
    ) -> Result<(), PostgresError> {
        let server = &self.server;
        let there = |path: &Path| match server.owner.act(|| Disk.read(path)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(PostgresError::file("cannot read", path)(e)),
        };
        let conf = current.join(CONF);
        for (path, text) in [
            (&server.hba_file, &texts.hba),
            (&server.ident_file, &texts.ident),
            (&conf, &texts.conf),
        ] {
            self.files
                .extend(Difference::of(path, there(path)?.as_deref(), text));
        }
        if cluster.manage == Manage::Render {
            self.notes.push(format!(
                "an apply only writes to {} (manage = \"render\"); this is what the server has beside what it would get",
                current.display()
            ));
            return Ok(());
        }
        if let Include::Line { file, line } = &names.include {
            let own = there(file)?.unwrap_or_default();
            let text = String::from_utf8_lossy(&own);
            if !has_line(&text, line) {
                let with = included(file, &text, line);
                self.files.extend(Difference::of(file, Some(&own), &with));
            }
        }
        let become_links = names
            .links
            .iter()
            .filter(|(name, target)| !is_link_to(name, target));
        for (name, target) in become_links {
            self.notes.push(match fs::symlink_metadata(name) {
                Ok(_) => format!(
                    "{} becomes a link to {}; what it is now is kept beside it",
                    name.display(),
                    target.display()
                ),
                Err(_) => format!("{} is new, a link to {}", name.display(), target.display()),
            });
        }
        Ok(())
    }

    /// What is in `ssl_cert_file` and `ssl_ca_file`, beside what would be.
    fn served_and_trusted(&mut self, server_cert_pem: &str) -> Result<(), PostgresError> {
        if self.now.ssl {
            self.trusted = certificates(&self.server.text_of("ssl_ca_file")?);
        }
        let served = match self.now.ssl {
            true => certificates(&self.server.text_of("ssl_cert_file")?),
            false => Vec::new(),
        };
        let will = certificates(server_cert_pem);
        if let Some(leaf) = will.first().filter(|leaf| served.first() != Some(leaf)) {
            let instead = match served.first() {
                Some(former) => format!(" instead of {}", named(former)),
                None => String::new(),
            };
            self.tls
                .push(format!("the server will serve {}{instead}", named(leaf)));
        }
        let (now, then) = (&self.trusted, &self.then.trusted);
        for authority in then.iter().filter(|a| !now.contains(a)) {
            self.tls.push(format!(
                "certificates of {} will get in, where a rule lets them",
                named(authority)
            ));
        }
        for authority in now.iter().filter(|a| !then.contains(a)) {
            self.tls.push(format!(
                "certificates of {} will be refused, with every method",
                named(authority)
            ));
        }
        Ok(())
    }
}

impl Server {
    /// The text of the file that a setting names, as the server's user reads it; empty where it names none, or one that
    /// cannot be read.
    fn text_of(&self, setting: &'static str) -> Result<String, PostgresError> {
        let value = self.setting(setting)?;
        if value.is_empty() {
            return Ok(String::new());
        }
        let path = self.data.join(value);
        let bytes = self.owner.act(|| Disk.read(&path)).unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// All but the key, which is its certificate's.
fn is_in_place(
    cluster: &Cluster,
    generations: &Generations,
    names: &Names,
    texts: &Texts,
    pems: &(String, String),
) -> bool {
    let files = [
        (HBA, &texts.hba),
        (IDENT, &texts.ident),
        (CONF, &texts.conf),
        (SERVER_CERT, &pems.0),
        (CLIENT_CA, &pems.1),
    ];
    let files = files.map(|(name, text)| (name, text.clone().into_bytes())).into();
    let holds = generations
        .current()
        .is_some_and(|current| generations.holds(current, &files));
    holds && (cluster.manage == Manage::Render || names.in_place())
}

/// Those of a PEM text, DER.
pub fn certificates(pem: &str) -> Vec<Vec<u8>> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes());
    all.filter_map(Result::ok).map(|der| der.to_vec()).collect()
}

/// A certificate in a few words.
fn named(der: &[u8]) -> String {
    match x509_parser::parse_x509_certificate(der) {
        Ok((_, parsed)) => {
            let serial: String = parsed.raw_serial().iter().map(|b| format!("{b:02x}")).collect();
            let until = WallTime(parsed.validity().not_after.timestamp());
            format!(
                "{} (serial {}, until {})",
                parsed.subject(),
                // DER puts a zero before what would read as negative.
                serial.strip_prefix("00").unwrap_or(&serial),
                until.rfc3339()
            )
        }
        Err(_) => "what is no certificate".to_owned(),
    }
}
