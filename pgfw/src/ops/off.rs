//! `pgfw off`: the host as it was before pgfw, whatever state things are in.

use serde::{Deserialize, Serialize};

use super::Engine;
use crate::api::Off;
use crate::datapath::Datapath;
use crate::failure::Failure;
use crate::paths::Paths;

/// What was taken out of the kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Removed {
    pub interfaces: Vec<String>,
    pub lines: Vec<String>,
}

impl Engine {
    /// [`off`], by the daemon: it forgets what it held.
    ///
    /// # Errors
    /// As for [`off`]; the pins that are meant are not this daemon's.
    pub fn off(&mut self, request: &Off) -> Result<Removed, Failure> {
        let Off { bpffs } = request;
        if bpffs
            .as_ref()
            .is_some_and(|meant| *meant != self.paths.real_bpffs())
        {
            return Err(Failure::refused(
                format!(
                    "this daemon's pins are those under {}",
                    self.paths.bpffs.display()
                ),
                "Name its own --bpffs, or none, or the --socket of the daemon that is meant.",
            ));
        }
        // Off must work when nothing else does.
        let _lock = self.lock().ok();
        self.datapath = None;
        off(&self.paths)
    }
}

/// Detaches everything and leaves no pin. Needs neither the daemon nor a ledger that can be read.
///
/// # Errors
/// A pin that cannot be removed.
pub fn off(paths: &Paths) -> Result<Removed, Failure> {
    let names = crate::host::interfaces::all()?;
    let removed = Datapath::off(&paths.bpffs)?;
    let name = |index: &u32| {
        let known = names.iter().find(|i| i.index == *index);
        known.map_or_else(|| format!("interface {index} (gone)"), |i| i.name.clone())
    };
    let interfaces: Vec<String> = removed.interfaces.iter().map(name).collect();
    let mut lines = Vec::new();
    match (interfaces.is_empty(), removed.pins) {
        (true, 0) => lines.push("Nothing was attached.".into()),
        (true, _) => lines.push("Nothing was attached; what was left pinned is gone.".into()),
        (false, _) => {
            lines.push(format!(
                "Detached from {}; every packet passes now.",
                interfaces.join(", ")
            ));
        }
    }
    lines.push(
        "The ledger and PostgreSQL's files are as they were; `systemctl restart pgfw` enforces again.".into(),
    );
    Ok(Removed { interfaces, lines })
}
