//! What the gate shows: certificate, roots and lists as the daemon has them now.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::api::{AskMaterial, Client, GivenMaterial, Material};
use crate::failure::{Code, Failure};
use crate::pki::{ClientVerifier, gate_tls};

/// How often the daemon is asked for something new. A revocation counts at once all the same: the daemon looks itself.
const LOOK: Duration = Duration::from_secs(1);

/// For the daemon's answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// One set of them.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) listen: SocketAddr,
    pub(super) tls: Arc<rustls::ServerConfig>,
    hash: String,
}

impl Front {
    fn new(material: &Material) -> Result<Front, Failure> {
        let Material {
            listen,
            certificate,
            key,
            roots,
            lists,
            hash,
        } = material;
        let verifier = ClientVerifier::new(roots, lists)?;
        Ok(Front {
            listen: *listen,
            tls: Arc::new(gate_tls(certificate, key, verifier)?),
            hash: hash.clone(),
        })
    }
}

/// Goes on for as long as somebody looks. What was shown last stands while the daemon is away.
pub(super) async fn follow(client: Client, front: watch::Sender<Option<Arc<Front>>>) {
    let mut said: Option<Failure> = None;
    while !front.is_closed() {
        let known = front.borrow().as_ref().map(|f| f.hash.clone());
        let asked: Result<GivenMaterial, Failure> =
            client.ask("/v1/gate", &AskMaterial { known }, PATIENCE).await;
        let shown = asked.and_then(|GivenMaterial { material }| match material {
            None => Ok(()),
            Some(material) => Front::new(&material).map(|new| drop(front.send_replace(Some(Arc::new(new))))),
        });
        match shown {
            Ok(()) => said = None,
            Err(failure) => {
                if failure.code == Code::NotFound && front.borrow().is_some() {
                    front.send_replace(None);
                }
                if said.as_ref() != Some(&failure) {
                    tracing::error!("{failure}");
                    said = Some(failure);
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
