//! A new certificate for a server whose rules stay: key and certificate change as one, and a handshake proves it.

use std::fs;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::apply::check;
use super::settings::{CLIENT_CA, CONF, HBA, IDENT, SERVER_CERT, SERVER_KEY};
use super::stage::{Files, Generations};
use super::{PostgresError, Running, Server, TlsMaterial, hba, prove, reload};
use crate::config::{Cluster, Manage};
use crate::fault::{Step, step};
use crate::paths::Paths;

/// What a cluster's files hold for TLS now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub server_cert_pem: String,
    pub client_ca_pem: String,
    /// A renewal was cut off: the rules are those that the server was last seen to go by, the rest is not.
    pub cut_off: bool,
}

/// What became of a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum Renewal {
    /// A handshake showed this serial.
    Served {
        #[serde(skip)]
        serial: String,
    },
    /// The server listens on no TCP address: nobody can be served TLS.
    NoTcp,
    /// The server is down and reads the files at its next start.
    AtNextStart,
    /// `manage = "render"`: the files are written, the server is somebody else's to tell.
    RenderedOnly,
}

/// What stands for a cluster; `None` before its first apply.
pub fn standing(paths: &Paths, cluster: &str) -> Option<Standing> {
    let generations = Generations::at(&paths.postgres(cluster)).ok()?;
    let current = generations.current()?;
    let read = |name| fs::read_to_string(generations.path(current).join(name)).ok();
    Some(Standing {
        server_cert_pem: read(SERVER_CERT)?,
        client_ca_pem: read(CLIENT_CA)?,
        cut_off: generations.proven().is_some_and(|proven| {
            let rules = |generation| fs::read(generations.path(generation).join(HBA)).ok();
            proven != current && rules(proven) == rules(current)
        }),
    })
}

/// Puts `material` in the place of what the server has, its rules as they are. Blocks; the caller holds the cluster's
/// lock, and no other. Also finishes one that was cut off.
///
/// # Errors
/// [`PostgresError`]; the server has its former certificate then, unless it says otherwise.
pub fn renew(cluster: &Cluster, paths: &Paths, material: &TlsMaterial) -> Result<Renewal, PostgresError> {
    let name = || cluster.name.clone();
    if cluster.manage == Manage::None {
        return Err(PostgresError::NotManaged { cluster: name() });
    }
    let server = Server::find(cluster)?;
    check(cluster, material, &server.owner)?;
    let state_dir = std::path::absolute(&paths.state_dir)
        .map_err(PostgresError::file("cannot find", &paths.state_dir))?;
    let generations = Generations::open(&state_dir, &paths.postgres(&cluster.name))?;
    let before = generations
        .current()
        .ok_or_else(|| PostgresError::NotApplied { cluster: name() })?;
    generations.check_unedited(before)?;
    let files = with_material(&generations, before, material)?;
    let running = match cluster.manage {
        Manage::Files => server.running(),
        Manage::Render | Manage::None => None,
    };
    if let Some(running) = &running {
        rules_in_force(cluster, &generations, before, running)?;
    }
    let generation = if generations.holds(before, &files) {
        before
    } else {
        generations.write(&files, &server.owner)?
    };
    step(Step::RenewalWritten);
    generations.check_readable(generation, &files, &server.owner)?;
    generations
        .choose(Some(generation))
        .map_err(PostgresError::file("cannot switch", &generations.current_link()))?;
    step(Step::RenewalSwitched);
    let Some(running) = running else {
        generations.prune(&[Some(generation), generations.proven()]);
        return Ok(match cluster.manage {
            Manage::Files => Renewal::AtNextStart,
            Manage::Render | Manage::None => Renewal::RenderedOnly,
        });
    };
    match told(&server, &running, material) {
        Ok(renewal) => {
            step(Step::RenewalProven);
            generations.mark_proven(generation)?;
            generations.prune(&[Some(generation), Some(before)]);
            Ok(renewal)
        }
        Err(message) => {
            generations.choose(Some(before)).map_err(PostgresError::file(
                "cannot switch back",
                &generations.current_link(),
            ))?;
            reload::reload(&server, &running)?;
            generations.prune(&[Some(before), generations.proven()]);
            Err(if before == generation {
                PostgresError::NotProven {
                    cluster: name(),
                    message,
                }
            } else {
                PostgresError::PutBack {
                    cluster: name(),
                    message,
                }
            })
        }
    }
}

/// An apply that was cut off has left rules that nobody saw in force; a renewal is not what brings them there.
fn rules_in_force(
    cluster: &Cluster,
    generations: &Generations,
    current: u32,
    running: &Running,
) -> Result<(), PostgresError> {
    if generations.proven() == Some(current) {
        return Ok(());
    }
    let text = fs::read_to_string(generations.path(current).join(HBA)).unwrap_or_default();
    let loaded = hba::marker_in(&text).map(|marker| prove::marker_loaded(running, marker));
    match loaded {
        Some(Ok(true)) => Ok(()),
        Some(Ok(false)) | None => Err(PostgresError::NotProven {
            cluster: cluster.name.clone(),
            message: "its rules are not those that were applied last".to_owned(),
        }),
        Some(Err(e)) => Err(PostgresError::Query {
            cluster: cluster.name.clone(),
            message: e.to_string(),
        }),
    }
}

/// The rules of `before`, and this for TLS.
fn with_material(
    generations: &Generations,
    before: u32,
    material: &TlsMaterial,
) -> Result<Files, PostgresError> {
    let TlsMaterial {
        server_cert_pem,
        server_key_pem,
        client_ca_pem,
        canary: _,
        crl_dir: _,
    } = material;
    let mut files = Files::new();
    for name in [HBA, IDENT, CONF] {
        let path = generations.path(before).join(name);
        let content = fs::read(&path).map_err(PostgresError::file("cannot read", &path))?;
        files.push((name, content));
    }
    files.push((SERVER_CERT, server_cert_pem.clone().into_bytes()));
    files.push((SERVER_KEY, server_key_pem.clone().into_bytes()));
    files.push((CLIENT_CA, client_ca_pem.clone().into_bytes()));
    Ok(files)
}

/// Has the server read its files, and waits until a handshake shows the certificate and the authorities asked for.
fn told(server: &Server, running: &Running, material: &TlsMaterial) -> Result<Renewal, String> {
    reload::reload(server, running).map_err(|e| e.to_string())?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match prove::served(running, material) {
            Ok(Some(serial)) => return Ok(Renewal::Served { serial }),
            Ok(None) => return Ok(Renewal::NoTcp),
            Err(message) if Instant::now() > deadline => return Err(message),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// A reload takes the postmaster milliseconds; one that is busy gets this long.
const PATIENCE: Duration = Duration::from_secs(10);
