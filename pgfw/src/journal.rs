//! Where the daemon's lines go: to the journal with their fields (`journalctl PGFW_INTERFACE=eth0`), else to standard error.

use std::io::IsTerminal;

use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, registry};

/// As sd-daemon(3) has them: what goes well is information.
const PRIORITIES: PriorityMappings = PriorityMappings {
    error: Priority::Error,
    warn: Priority::Warning,
    info: Priority::Informational,
    debug: Priority::Debug,
    trace: Priority::Debug,
};

/// Sets it up for this process.
pub(crate) fn open(name: &str) {
    let filter = EnvFilter::try_from_env("PGFW_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Set by the service manager where standard error is the journal's (systemd.exec(5)).
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let journal = under_systemd.then(tracing_journald::layer).and_then(Result::ok);
    let set = match journal {
        Some(journal) => registry()
            .with(filter)
            .with(
                journal
                    .with_syslog_identifier(name.into())
                    .with_field_prefix(Some("PGFW".into()))
                    .with_priority_mappings(PRIORITIES),
            )
            .try_init(),
        None => {
            let lines = fmt::layer()
                .with_writer(std::io::stderr)
                .with_target(false)
                .with_ansi(std::io::stderr().is_terminal());
            if under_systemd {
                // It has time stamps of its own.
                registry().with(filter).with(lines.without_time()).try_init()
            } else {
                registry().with(filter).with(lines).try_init()
            }
        }
    };
    if let Err(error) = set {
        eprintln!("pgfw: no log can be written: {error}");
    }
}
