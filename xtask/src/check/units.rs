//! What systemd itself says about the unit files.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

pub(super) fn findings() -> Result<Vec<String>> {
    let units = shell::workspace().join("config/systemd");
    let scratch = std::env::temp_dir().join(format!("pgfw-units-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).context("no temporary folder for the unit files")?;
    let found = verify(&units, &scratch).and_then(|mut found| {
        for (name, most) in MOST_EXPOSED {
            found.extend(exposed(name, most, &units, &scratch)?);
        }
        Ok(found)
    });
    std::fs::remove_dir_all(&scratch)?;
    found
}

/// No worse than this, in tenths: of ten points, what `systemd-analyze security` counts.
const MOST_EXPOSED: [(&str, u32); 2] = [("pgfw.service", 31), ("pgfw-gate.service", 12)];

/// Holds what systemd counts as exposure against the reasons that a unit gives, one a line: `# left: FIELD: reason`. The
/// copies are those that [`verify`] made.
fn exposed(name: &str, most: u32, units: &Path, scratch: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let text = std::fs::read_to_string(units.join(name))?;
    let reasons: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# left: ")?.split_once(": "))
        .map(|(field, _)| field)
        .collect();
    let ask = |format: &[&str]| {
        let mut analyze = Command::new("systemd-analyze");
        analyze
            .args(["security", "--offline=true", "--no-pager"])
            .args(format);
        shell::run_quietly(analyze.arg(scratch.join(name)))
    };
    let table = ask(&["--json=short"])?;
    // Flat objects without braces in their texts; no parser of JSON is worth that.
    let counted: Vec<&str> = table
        .split('{')
        .filter(|row| row.contains("\"set\":false"))
        .filter_map(|row| row.split_once("\"json_field\":\"")?.1.split('"').next())
        .collect();
    if counted.is_empty() {
        found.push(format!("{name}: systemd-analyze security tells nothing"));
    }
    let unexplained = counted.iter().filter(|field| !reasons.contains(field));
    found.extend(unexplained.map(|field| format!("{name}: {field} is open, and no `# left:` says why")));
    let stale = reasons.iter().filter(|field| !counted.contains(field));
    found.extend(stale.map(|field| format!("{name}: {field} is closed; its `# left:` is stale")));
    let overall = ask(&[])?;
    let score = overall.lines().find_map(|line| {
        line.split_once("exposure level for ")?
            .1
            .split_whitespace()
            .nth(1)
    });
    let tenths = score.and_then(|score| score.replace('.', "").parse::<u32>().ok());
    if tenths.is_none_or(|tenths| tenths > most) {
        found.push(format!(
            "{name}: its exposure is {score:?}, more than {most} tenths"
        ));
    }
    Ok(found)
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
