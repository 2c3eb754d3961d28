//! `pgfw ca init`, `cert server`, `cert issue`: authorities and leaves, and at once the networks they open.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Engine;
use super::revoke::Reach;
use crate::clock::Now;
use crate::config::{Cluster, Config, Identity};
use crate::failure::{Code, Failure};
use crate::ledger::types::Authority;
use crate::observe::audit::AuthorityChange;
use crate::pki::{
    self, AuthorityInfo, Bundle, BundleTarget, CrlTargets, Issued, P12, Publication, Store, Trust,
};
use crate::postgres;

/// What `pgfw cert issue` is told.
#[derive(Debug, Default)]
pub struct IssueRequest {
    /// An identity of pgfw.toml.
    pub name: String,
    /// Default: the identity's, else `pki.client_ttl`.
    pub ttl: Option<std::time::Duration>,
    /// A certificate signing request (PEM): the key stays with whoever brings it.
    pub csr: Option<String>,
    /// Of the key, where it is made here.
    pub kind: pki::KeyKind,
    pub superuser: bool,
    pub reason: Option<String>,
    /// Also write a folder that is ready for the client.
    pub bundle: Option<PathBuf>,
    /// With a PKCS #12 file in it.
    pub p12: Option<Protected>,
}

/// By what a PKCS #12 file is protected.
#[derive(Debug)]
pub enum Protected {
    /// A password that is made for it.
    Random,
    By(pki::Passphrase),
}

/// What was issued, and what it opens.
#[derive(Debug, Clone, Serialize)]
pub struct IssuedCertificate {
    pub issued: Issued,
    pub bundle: Option<Bundle>,
    pub p12: Option<P12>,
    /// Filled when the tables have followed; `None`: they have not.
    #[serde(flatten)]
    pub opened: Option<super::Opened>,
}

impl Engine {
    /// Makes both authorities and publishes their (empty but for the canary) CRLs for every cluster.
    ///
    /// # Errors
    /// They exist already; a folder that cannot be written.
    pub fn ca_init(&mut self, requester: &str) -> Result<Vec<AuthorityInfo>, Failure> {
        let _lock = self.lock()?;
        let config = Config::read(&self.paths.config)?;
        let store = store(&config);
        let request = pki::InitRequest {
            host: &host(),
            crl_ttl: config.pki.crl_ttl,
            requester,
        };
        let there = |authority| store.generations_there(authority).unwrap_or_default();
        let before = Authority::ALL.map(|authority| (authority, there(authority)));
        let made = pki::init(&store, &mut self.ledger, &request, Now::read().wall());
        // Also of one that was made before the other failed.
        for (authority, before) in before {
            for generation in there(authority).into_iter().filter(|g| !before.contains(g)) {
                self.say_authority(AuthorityChange::Made, authority, generation);
            }
        }
        let made = made?;
        self.publish_crls(&self.reach()?)?;
        Ok(made)
    }

    /// Issues a cluster's server certificate for all of its `server_names`.
    ///
    /// # Errors
    /// No such cluster, no names, no authority.
    pub fn issue_server(&mut self, cluster: Option<&str>, requester: &str) -> Result<Vec<Issued>, Failure> {
        let _lock = self.lock()?;
        let config = Config::read(&self.paths.config)?;
        let wanted: Vec<_> = config
            .postgres
            .iter()
            .filter(|c| cluster.is_none_or(|wanted| c.name == wanted))
            .collect();
        if wanted.is_empty() {
            return Err(no_cluster(&config, cluster.unwrap_or("*"), &self.paths.config));
        }
        if let Some(cluster) = wanted.iter().find(|c| c.server_files.is_some()) {
            return Err(Failure::invalid(
                format!(
                    "cluster `{}` serves the files that server_certificate and server_key name",
                    cluster.name
                ),
                "Take both keys out of pgfw.toml, and pgfw issues its certificate.",
            ));
        }
        // Before the first is issued.
        if let Some(cluster) = wanted.iter().find(|c| c.server_names.is_empty()) {
            return Err(Failure::invalid(
                format!(
                    "cluster `{}` has no server_names in {}",
                    cluster.name,
                    self.paths.config.display()
                ),
                "Name what clients connect to, like server_names = [\"db.example.com\", \"192.168.0.1\"].",
            ));
        }
        let mut all = Vec::new();
        for cluster in wanted {
            let request = pki::ServerRequest {
                cluster: &cluster.name,
                names: &cluster.server_names,
                ttl: config.pki.server_ttl,
                requester,
            };
            let issued = pki::issue_server(&store(&config), &mut self.ledger, &request, Now::read().wall())?;
            self.say_issued(&issued.certificate);
            all.push(issued);
        }
        Ok(all)
    }

    /// Issues an identity's certificate. Its networks open with the next refresh, which is whoever runs this to bring
    /// about: a daemon may know of closings that the ledger could not take, so it refreshes where there is one.
    ///
    /// # Errors
    /// No such identity, no authority; a file that cannot be written.
    pub fn issue_client(
        &mut self,
        request: &IssueRequest,
        requester: &str,
    ) -> Result<IssuedCertificate, Failure> {
        if !request.superuser {
            self.no_superuser(&request.name)?;
        }
        let _lock = self.lock()?;
        let config = Config::read(&self.paths.config)?;
        let identity = known_identity(&config, &request.name, &self.paths.config)?;
        if request.bundle.is_some() {
            bundle_target(&config, identity)?;
        }
        let longest = identity.ttl.unwrap_or(config.pki.client_ttl);
        if let Some(wish) = request.ttl.filter(|wish| *wish > longest) {
            return Err(Failure::invalid(
                format!(
                    "{} is longer than a certificate of `{}` may last, which is {}",
                    humantime::format_duration(wish),
                    identity.name,
                    humantime::format_duration(longest)
                ),
                "Leave --ttl out, or raise ttl of that [[identity]], or pki.client_ttl where it has none.",
            ));
        }
        let store = store(&config);
        let client = pki::ClientRequest {
            name: &identity.name,
            ttl: request.ttl.unwrap_or(longest),
            csr: request.csr.as_deref(),
            kind: request.kind,
            superuser: request.superuser,
            requester,
            reason: request.reason.as_deref(),
        };
        let issued = pki::issue_client(&store, &mut self.ledger, &client, Now::read().wall())?;
        self.say_issued(&issued.certificate);
        Ok(IssuedCertificate {
            issued,
            bundle: None,
            p12: None,
            opened: None,
        })
    }

    /// Refuses a name that a server of this host knows as a superuser's. One that is down or does not answer cannot be
    /// asked; the lock is not held meanwhile.
    fn no_superuser(&self, name: &str) -> Result<(), Failure> {
        let config = Config::read(&self.paths.config)?;
        for cluster in &config.postgres {
            match postgres::is_superuser(cluster, name) {
                Ok(true) => {
                    return Err(pki::PkiError::Superuser {
                        name: name.to_owned(),
                    }
                    .into());
                }
                Ok(false) => {}
                Err(error) => tracing::debug!(cluster = cluster.name, %error, "not asked about superusers"),
            }
        }
        Ok(())
    }

    /// Writes the folder for the client.
    ///
    /// # Errors
    /// A folder that cannot be written; the certificate stands.
    pub fn bundle(&self, issued: &Issued, folder: &Path) -> Result<Bundle, Failure> {
        let config = Config::read(&self.paths.config)?;
        let identity = known_identity(&config, &issued.certificate.name, &self.paths.config)?;
        let target = bundle_target(&config, identity)?;
        Ok(pki::write_bundle(&store(&config), issued, &target, folder)?)
    }

    /// Adds a PKCS #12 file to a bundle.
    ///
    /// # Errors
    /// A key that stayed with the requester, a folder that cannot be written; the certificate stands.
    pub fn pkcs12(&self, issued: &Issued, bundle: &Bundle, protected: &Protected) -> Result<P12, Failure> {
        let password = match protected {
            Protected::Random => None,
            Protected::By(password) => Some(password),
        };
        Ok(pki::write_p12(issued, &bundle.folder, password)?)
    }

    /// Brings the published CRLs to what the ledger says; makes missing ones, renews old ones.
    ///
    /// # Errors
    /// No authority; a list that cannot be written.
    pub(super) fn publish_crls(&mut self, reach: &Reach) -> Result<Publication, Failure> {
        let targets = self.crl_targets(&reach.config, &reach.clusters);
        let publication = pki::refresh(
            &store(&reach.config),
            &mut self.ledger,
            self.unrecorded.revocations(),
            &targets,
            Now::read().wall(),
        )?;
        match publication.failures.first() {
            Some(failure) => Err(failure.clone()),
            None => Ok(publication),
        }
    }

    /// A folder for each of these clusters, and every one that is there already: a cluster that was taken out of the
    /// config reads its lists as before, and would let the revoked in, or nobody once a list had lapsed.
    pub(super) fn crl_targets(&self, config: &Config, clusters: &[Cluster]) -> CrlTargets {
        let mut folders: Vec<PathBuf> = clusters.iter().map(|c| self.crl_folder(&c.name)).collect();
        let parent = self.paths.postgres("");
        let there = std::fs::read_dir(&parent).into_iter().flatten().flatten();
        for folder in there.map(|entry| entry.path().join("crl")) {
            if folder.is_dir() && !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        CrlTargets {
            folders,
            ttl: config.pki.crl_ttl,
        }
    }

    /// Outside of generations: the server reads it at every connection.
    pub(super) fn crl_folder(&self, cluster: &str) -> PathBuf {
        self.paths.postgres(cluster).join("crl")
    }
}

pub(super) fn store(config: &Config) -> Store {
    Store::new(&config.pki.directory).sealed(super::passphrase::seal(config))
}

/// This host's name, for the names of authorities.
pub(super) fn host() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn known_identity<'a>(config: &'a Config, name: &str, file: &Path) -> Result<&'a Identity, Failure> {
    config.identity(name).ok_or_else(|| {
        let names: Vec<String> = config.identities.iter().map(|i| i.name.clone()).collect();
        let remedy = match crate::config::near_miss(name, &names) {
            Some(near) => format!("Did you mean `{near}`?"),
            None => format!("Add [[identity]] with name = \"{name}\", so that it is said what it may do."),
        };
        Failure::new(
            Code::NotFound,
            format!("there is no identity `{name}` in {}", file.display()),
            remedy,
        )
    })
}

pub(super) fn no_cluster(config: &Config, name: &str, file: &Path) -> Failure {
    let names: Vec<&str> = config.postgres.iter().map(|c| c.name.as_str()).collect();
    Failure::new(
        Code::NotFound,
        format!("there is no cluster `{name}` in {}", file.display()),
        if names.is_empty() {
            "Add a [[postgres]] section.".to_owned()
        } else {
            format!("Clusters there: {}.", names.join(", "))
        },
    )
}

/// Where the bundle's service section leads: the first cluster, under its first name.
fn bundle_target(config: &Config, identity: &Identity) -> Result<BundleTarget, Failure> {
    let cluster = config.postgres.first().ok_or_else(|| {
        Failure::invalid(
            "there is no [[postgres]] section to connect to",
            "Add one, with its server_names.",
        )
    })?;
    let host = match cluster.server_names.first() {
        Some(crate::config::ServerName::Dns(name)) => name.clone(),
        Some(crate::config::ServerName::Address(address)) => address.to_string(),
        None => {
            return Err(Failure::invalid(
                format!("cluster `{}` has no server_names to connect to", cluster.name),
                "Name what clients connect to, like server_names = [\"db.example.com\"].",
            ));
        }
    };
    let user = identity
        .roles
        .first()
        .cloned()
        .unwrap_or_else(|| identity.name.clone());
    let database = match &identity.databases {
        Some(databases) => databases.first().cloned().unwrap_or_else(|| user.clone()),
        None => "postgres".to_owned(),
    };
    let trust = match &cluster.server_files {
        None => Trust::Own,
        Some(files) => match pki::read_foreign(files, &cluster.server_names, Now::read().wall())?.root_pem {
            Some(root) => Trust::Root(root),
            None => Trust::System,
        },
    };
    Ok(BundleTarget {
        host,
        port: cluster.port,
        database,
        user,
        trust,
    })
}
