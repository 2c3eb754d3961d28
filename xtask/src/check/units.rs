//! What systemd itself says about the unit files.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

pub(super) fn findings() -> Result<Vec<String>> {
    let units = shell::workspace().join("config/systemd");
    let scratch = std::env::temp_dir().join(format!("pgfw-units-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).context("no temporary folder for the unit files")?;
    let found = verify(&units, &scratch);
    std::fs::remove_dir_all(&scratch)?;
    found
}

/// Verifies copies whose program exists here: an uninstalled pgfw would be the only complaint.
fn verify(units: &Path, scratch: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in units.read_dir().context("config/systemd cannot be read")? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "service") {
            continue;
        }
        let copy = scratch.join(path.file_name().expect("a folder's entry has a name"));
        let text = std::fs::read_to_string(&path)?;
        std::fs::write(&copy, text.replace("/usr/local/bin/pgfw", "/bin/true"))?;
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&copy)
            .output()?;
        // Older versions of systemd report an unknown key and exit 0 all the same.
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        found.extend(said.lines().map(|line| format!("{}: {line}", path.display())));
        if !output.status.success() && said.trim().is_empty() {
            found.push(format!(
                "{}: systemd-analyze verify failed ({})",
                path.display(),
                output.status
            ));
        }
    }
    Ok(found)
}
