//! A program on the database host whose certificate is kept there, and systemd, of which a script stands in: what it is asked,
//! and what is made of its answers.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pgfw_tests::lab::{Daemon, PATIENCE, Site, eventually};

use super::stage::Stage;

const AGENT: &str = "[[identity]]\nname = \"agent\"\ndatabases = [\"app\"]\nkept_for = \"postgres\"\nreload_unit = \"agent.service\"\n";
const SYSTEMCTL: &str = "#!/bin/sh\n\
    if [ -e /run/refuses ]; then echo 'Unit agent.service has failed.' >&2; exit 5; fi\n\
    echo \"$* $(readlink /var/lib/pgfw/clients/agent/current) $CREDENTIALS_DIRECTORY$NOTIFY_SOCKET\" >> /run/asked\n";

fn start(stage: &Stage<'_>) -> Daemon {
    let mut command = stage.pgfw.command_as_the_unit(&["run"]);
    command.env("PATH", "/run/stand-in:/usr/sbin:/usr/bin:/sbin:/bin");
    stage
        .pgfw
        .start_command(command.env("CREDENTIALS_DIRECTORY", "/run/nothing"))
}

fn asked(stage: &Stage<'_>) -> Vec<String> {
    let said = stage.site.db.within(|| fs::read_to_string("/run/asked"));
    said.unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn p24_a_unit_is_told_once_of_each_certificate_that_is_kept_for_it_and_until_it_knows() {
    let site = Site::new();
    let stage = Stage::with(&site, "", AGENT);
    site.db.write("/run/stand-in/systemctl", SYSTEMCTL);
    site.db.within(|| {
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions("/run/stand-in/systemctl", mode).unwrap();
    });
    let mut expected = Vec::new();
    let mut issue = || {
        let leaf = stage.issue("agent", &[]);
        expected.push(format!(
            "--no-ask-password try-reload-or-restart -- agent.service .{} ",
            leaf.serial()
        ));
        expected.clone()
    };
    let told = |expected: &[String]| {
        eventually("the unit is told", PATIENCE, || {
            (asked(&stage).len() >= expected.len()).then_some(())
        });
        let link = |name: &str| fs::read_link(format!("/var/lib/pgfw/clients/agent/{name}")).ok();
        eventually("it is noted", PATIENCE, || {
            site.db
                .within(|| link("told").is_some() && link("told") == link("current"))
                .then_some(())
        });
        assert_eq!(asked(&stage), expected);
    };
    let daemon = start(&stage);
    stage.pgfw.ok(&["confirm"]);
    told(&issue());
    told(&issue());
    assert!(!stage.attention().contains("agent"), "{}", stage.attention());
    // A daemon that starts anew tells nobody what is known.
    daemon.kill();
    let daemon = start(&stage);
    told(&issue());

    // A unit that fails is named with what is to be done, and told by whoever comes next.
    site.db.write("/run/refuses", "");
    let expected = issue();
    let said = eventually("it is shown", PATIENCE, || {
        Some(stage.attention()).filter(|said| said.contains("agent.service"))
    });
    for word in [
        "agent.service does not know that the certificate kept for agent is new",
        "systemctl says: Unit agent.service has failed",
        "`systemctl try-reload-or-restart agent.service`",
    ] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    assert!(daemon.log().contains("not told"), "{}", daemon.log());
    assert_eq!(asked(&stage).len(), 3);
    site.db.within(|| fs::remove_file("/run/refuses").unwrap());
    daemon.kill();
    let daemon = start(&stage);
    told(&expected);
    eventually("nothing is to be done", PATIENCE, || {
        (!stage.attention().contains("agent")).then_some(())
    });

    // So is one that reads the roots at its start alone, before a server serves what the new one signs.
    stage.pgfw.ok(&["ca", "rotate", "start", "server"]);
    told(&[expected.as_slice(), &expected[expected.len() - 1..]].concat());
    drop(daemon);
}
