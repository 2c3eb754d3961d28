//! The thread that follows the servers' logs; see [`crate::ops::ConnectionLog`].

use std::time::{Duration, Instant};

use super::Shared;
use crate::ops::{ConnectionLog, ToWatch};

/// How often it is asked whose logs are to be followed: the policy that runs says so, and is read for it.
const ASK: Duration = Duration::from_secs(10);

/// As long as the process lives.
pub(super) fn follow(shared: Shared) {
    let follow = move || {
        let mut log = ConnectionLog::default();
        let mut known: Option<(Instant, ToWatch)> = None;
        loop {
            if known.as_ref().is_none_or(|(at, _)| at.elapsed() > ASK) {
                let asked = shared.lock().to_watch();
                match asked {
                    Ok(to_watch) => known = Some((Instant::now(), to_watch)),
                    Err(failure) => tracing::debug!("whose log is to be followed is not known: {failure}"),
                }
            }
            let pause = match &known {
                Some((_, to_watch)) => log.look(to_watch, || shared.lock().serials()),
                None => ASK,
            };
            std::thread::sleep(pause);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("logins".into()).spawn(follow) {
        tracing::warn!(%error, "who connects is not in the audit log");
    }
}
