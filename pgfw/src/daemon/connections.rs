//! The thread that follows the servers' logs; see [`crate::ops::ConnectionLog`].

use std::time::Duration;

use super::Shared;
use crate::ops::ConnectionLog;

/// When the policy that runs cannot be read.
const PAUSE: Duration = Duration::from_secs(5);

/// As long as the process lives.
pub(super) fn follow(shared: Shared) {
    let follow = move || {
        let mut log = ConnectionLog::default();
        loop {
            let to_watch = shared.lock().to_watch();
            let pause = match to_watch {
                Ok(to_watch) => log.look(&to_watch, || shared.lock().serials()),
                Err(failure) => {
                    tracing::debug!("no server's log is followed: {failure}");
                    PAUSE
                }
            };
            std::thread::sleep(pause);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("logins".into()).spawn(follow) {
        tracing::warn!(%error, "who connects is not in the audit log");
    }
}
