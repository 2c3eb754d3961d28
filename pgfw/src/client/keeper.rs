//! Leases of one profile, from the first to the last.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::Method;

use super::gate::{Gate, is_unreachable};
use super::holder::Holder;
use super::{ClientError, Profile, reach};
use crate::api::{GivenBack, LeaseState, RenewedClient};
use crate::clock::Now;
use crate::failure::{Code, Failure};

/// A lease of one address family.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Lease {
    /// Where the gate is.
    pub gate: SocketAddr,
    #[serde(flatten)]
    pub state: LeaseState,
}

/// What a round brought.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Taken {
    pub leases: Vec<Lease>,
    /// Address families whose gate could not be reached, and why.
    pub missing: Vec<Failure>,
    /// The serial of the certificate that came in the place of the former one.
    pub renewed: Option<String>,
}

/// Takes leases, keeps them, gives them back.
#[derive(Debug)]
pub struct LeaseKeeper {
    profile: Profile,
    holder: Holder,
    gates: Vec<Gate>,
    leases: Vec<(Gate, LeaseState)>,
}

impl LeaseKeeper {
    /// # Errors
    /// A name that leads nowhere, a key that cannot be read.
    pub async fn new(profile: Profile) -> Result<LeaseKeeper, Failure> {
        let holder = Holder::new(&profile)?;
        let place = profile.hostaddr.as_ref().unwrap_or(&profile.host);
        let found = tokio::net::lookup_host((place.as_str(), profile.gate_port)).await;
        let found = found.map_err(|source| ClientError::Resolve {
            host: place.clone(),
            source,
        })?;
        // libpq tries every address, so each family is opened; of several of one family the first will do.
        let mut gates: Vec<Gate> = Vec::new();
        for address in found.map(|address| address.ip()) {
            if gates.iter().all(|gate| gate.at.is_ipv4() != address.is_ipv4()) {
                gates.push(Gate::new(&profile, address));
            }
        }
        if gates.is_empty() {
            return Err(ClientError::NoAddress { host: place.clone() }.into());
        }
        Ok(LeaseKeeper {
            profile,
            holder,
            gates,
            leases: Vec::new(),
        })
    }

    /// Renews the certificate where two thirds of its life are gone, and takes a lease for each family, or the same for
    /// longer.
    ///
    /// # Errors
    /// A certificate that has ended or is refused; no family's gate can be reached. A renewal that fails is no reason to
    /// have no lease: it is said in [`Taken::missing`].
    pub async fn take(&mut self) -> Result<Taken, Failure> {
        let mut taken = Taken::default();
        let mut renewal = Ok(None);
        if self.holder.renew_at()? <= Now::read().wall() {
            renewal = self.renew().await;
        }
        match renewal {
            Ok(renewed) => taken.renewed = renewed,
            Err(failure) => taken.missing.push(failure),
        }
        let tls = self.holder.tls()?;
        let mut leases = Vec::new();
        for gate in &self.gates {
            let asked = gate.ask::<LeaseState>(&self.profile, &tls, (Method::POST, "/lease"), String::new());
            match asked.await {
                Ok(state) => leases.push((gate.clone(), state)),
                Err(failure) if is_unreachable(&failure) => taken.missing.push(failure),
                Err(failure) => return Err(failure),
            }
        }
        if leases.is_empty() {
            let why = taken.missing.into_iter().next_back();
            return Err(why.expect("a gate that gave no lease said why"));
        }
        self.leases = leases;
        taken.leases = self
            .leases
            .iter()
            .map(|(gate, state)| Lease {
                gate: gate.at,
                state: state.clone(),
            })
            .collect();
        Ok(taken)
    }

    /// Whether what was taken is of use from here: one address for every connection, and a server that answers it.
    ///
    /// # Errors
    /// [`ClientError::Addresses`], [`ClientError::OtherWayOut`]: carrier-grade NAT, said as such.
    pub async fn prove(&self) -> Result<(), Failure> {
        let tls = self.holder.tls()?;
        for (gate, state) in &self.leases {
            for _ in 0..LOOKS {
                let then = gate.source(&self.profile, &tls).await?;
                if then != state.address {
                    let first = state.address;
                    return Err(ClientError::Addresses { first, then }.into());
                }
            }
            let server = SocketAddr::new(gate.at.ip(), self.profile.port);
            if state.ports.contains(&self.profile.port) {
                reach::server(state.address, server).await?;
            }
        }
        Ok(())
    }

    /// When to take them again: with a third of the shortest left, and when the certificate is due.
    pub fn again_in(&self) -> Duration {
        let leases = self.leases.iter().map(|(_, state)| state.seconds * 2 / 3);
        let due = self.holder.renew_at().map_or(0, |at| at.0 - Now::read().wall().0);
        let due = u64::try_from(due).unwrap_or(0);
        let next = leases.chain([due]).min().unwrap_or(0);
        Duration::from_secs(next).clamp(SOONEST, LATEST)
    }

    /// Gives back what was taken, unless somebody else on this machine uses the same key. Established connections go on.
    /// The addresses that are closed again.
    pub async fn give_back(mut self) -> Result<Vec<IpAddr>, Failure> {
        if !self.holder.is_last() {
            return Ok(Vec::new());
        }
        let tls = self.holder.tls()?;
        let mut closed = Vec::new();
        for (gate, state) in &self.leases {
            let asked = gate.ask::<GivenBack>(&self.profile, &tls, (Method::DELETE, "/lease"), String::new());
            match asked.await {
                Ok(_) => closed.push(state.address),
                // It has ended by itself.
                Err(failure) if failure.code == Code::NotFound => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(closed)
    }

    async fn renew(&self) -> Result<Option<String>, Failure> {
        let tls = self.holder.tls()?;
        let request = self.holder.request()?;
        let mut last = None;
        for gate in &self.gates {
            let asked =
                gate.ask::<RenewedClient>(&self.profile, &tls, (Method::POST, "/renew"), request.clone());
            match asked.await {
                Ok(next) => {
                    self.holder.replace(&next.certificate)?;
                    return Ok(Some(next.serial));
                }
                Err(failure) => last = Some(failure),
            }
        }
        last.map_or(Ok(None), Err)
    }
}

/// Connections that have to come from one address.
const LOOKS: u32 = 3;
const SOONEST: Duration = Duration::from_secs(10);
const LATEST: Duration = Duration::from_secs(3_600);
