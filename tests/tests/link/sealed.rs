//! Authorities whose keys are under a passphrase, and a daemon that has it or has it not.

use std::fs;

use pgfw_tests::lab::{Daemon, PATIENCE, Reach, Site, Terminal, eventually};

use super::renewal::{aged, served};
use super::stage::{Stage, assert_fails};

const SEALED: &str = "[pki]\nkey_passphrase_credential = \"pgfw-ca\"\n";
pub(crate) const PASSPHRASE: &str = "correct horse battery";
/// Only this test's mount namespace has it.
pub(crate) const FILE: &str = "/run/passphrase";
const CREDENTIALS: &str = "/run/credentials-of-pgfw";
const KEY: &str = "/etc/pgfw/pki/client-ca/g1/ca.key";

pub(crate) fn with_file<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["--passphrase-file", FILE], arguments].concat()
}

/// What a person did at first: keys under a passphrase, and a server that goes by them.
pub(crate) fn sealed<'a>(site: &'a Site, keys: &str, sections: &str) -> Stage<'a> {
    let stage = Stage::bare(site, keys, &format!("{SEALED}{sections}"));
    site.db.write(FILE, &format!("{PASSPHRASE}\n"));
    for command in [&["ca", "init"][..], &["cert", "server"]] {
        stage.pgfw.ok(&with_file(command));
    }
    stage.pgfw.ok(&["pg", "apply"]);
    stage
}

/// The daemon as the unit starts it, with `LoadCredential=`.
fn with_credential(stage: &Stage<'_>) -> Daemon {
    stage.site.db.within(|| fs::create_dir_all(CREDENTIALS).unwrap());
    stage.site.db.write(format!("{CREDENTIALS}/pgfw-ca"), PASSPHRASE);
    let mut command = stage.pgfw.command_as_the_unit(&["run"]);
    stage
        .pgfw
        .start_command(command.env("CREDENTIALS_DIRECTORY", CREDENTIALS))
}

#[test]
fn p24_without_the_passphrase_everything_that_signs_nothing_goes_on_and_what_does_not_renew_is_said() {
    let site = Site::new();
    let kept = "[[identity]]\nname = \"agent\"\ndatabases = [\"app\"]\nkept_for = \"postgres\"\n";
    let stage = Stage::bare(&site, "", &format!("{SEALED}{kept}"));
    let refused = stage.pgfw.pgfw(&["ca", "init"]);
    assert_fails(&refused, 1, &["pgfw-ca", "no passphrase", "--passphrase-file"]);
    assert!(!site.db.within(|| fs::exists("/etc/pgfw/pki").unwrap()));

    let stage = sealed_again(stage);
    stage.cluster.sql("create role agent login");
    let alice = stage.issue("alice", &["--passphrase-file", FILE]);
    stage.issue("agent", &["--passphrase-file", FILE]);
    let daemon = stage.enforce();
    let said = stage.attention();
    for word in [
        "nothing is signed by itself: the key /etc/pgfw/pki/server-ca/g1/ca.key is encrypted",
        "the credential `pgfw-ca` of its unit",
        "the server certificate of cluster main does not renew by itself and holds until 20",
        "`pgfw cert renew main`",
        "the certificate kept for agent does not renew by itself and holds until 20",
        "`pgfw cert issue agent`",
        "each CRL does not renew by itself and holds until 20",
        "`pgfw cert publish-crl`",
    ] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    // Whatever signs nothing.
    stage.configure("", &format!("{SEALED}{kept}[[login]]\nname = \"exporter\"\nmethod = \"scram-sha-256\"\nnetworks = [\"192.168.1.0/24\"]\n"));
    stage.pgfw.ok(&["reload"]);
    assert_eq!(stage.reach(&site.stranger), Reach::Open);
    stage.pgfw.ok(&["pg", "apply"]);
    stage.pgfw.ok(&["allow", "192.168.9.0/24", "--confirm", "60s"]);
    stage.pgfw.ok(&["confirm"]);
    drop(stage.log_in(&site.client, "alice", &alice));
    let refused = stage.pgfw.pgfw(&["cert", "issue", "alice"]);
    assert_fails(&refused, 1, &[KEY, "encrypted", "--passphrase-file"]);
    let said = daemon.log();
    assert_eq!(said.matches("nothing is signed by itself").count(), 1, "{said}");
    assert!(!said.contains(PASSPHRASE), "{said}");
}

/// The rest of [`sealed`], where the stage stands already.
fn sealed_again(stage: Stage<'_>) -> Stage<'_> {
    stage.site.db.write(FILE, &format!("{PASSPHRASE}\n"));
    for command in [&["ca", "init"][..], &["cert", "server"]] {
        stage.pgfw.ok(&with_file(command));
    }
    stage.pgfw.ok(&["pg", "apply"]);
    stage
}

/// Everything closes but the list, which waits for whoever has the passphrase; then that is closed too.
#[test]
fn p24_a_revocation_without_the_passphrase_closes_filter_and_sessions_and_its_list_waits() {
    let site = Site::new();
    let stage = sealed(&site, "", "");
    let [alice, bob] = ["alice", "bob"].map(|name| stage.issue(name, &["--passphrase-file", FILE]));
    let _daemon = stage.enforce();
    stage.pgfw.ok(&["allow", "192.168.1.0/24"]);
    let (mut hers, mut his) = (
        stage.log_in(&site.client, "alice", &alice),
        stage.log_in(&site.stranger, "bob", &bob),
    );
    let told = stage.pgfw.pgfw(&["cert", "revoke", "bob"]);
    assert_fails(&told, 1, &["could not be reached by all"]);
    assert!(
        told.stdout.contains(KEY) && told.stdout.contains("is encrypted"),
        "{}",
        told.stdout
    );
    stage.ends(&mut his);
    assert_eq!(hers.query("select 1").unwrap(), "1");
    eventually("it is shown", PATIENCE, || {
        stage.attention().contains("publishing the CRLs").then_some(())
    });
    // What opens is the filter's: alice's network closes with her certificate.
    let told = stage.pgfw.pgfw(&["cert", "revoke", "alice"]);
    assert_eq!(told.code, Some(1));
    stage.ends(&mut hers);
    assert_eq!(stage.reach(&site.client), Reach::Silent);

    let done = stage.pgfw.ok(&with_file(&["cert", "publish-crl"]));
    assert!(done.contains("hold until 20"), "{done}");
    let refused = stage.refused(&stage.with_certificate(&site.stranger, "bob", &bob));
    assert!(refused.contains("revoked"), "{refused}");
    eventually("nothing waits", PATIENCE, || {
        (!stage.attention().contains("waits since")).then_some(())
    });
    // Whoever gives it with the revocation has all of it done at once.
    let deputy = stage.issue("deputy", &["--passphrase-file", FILE]);
    let whole = stage.pgfw.ok(&with_file(&["cert", "revoke", "deputy"]));
    assert!(whole.contains("are published now"), "{whole}");
    let refused = stage.refused(&stage.with_certificate(&site.stranger, "alice", &deputy));
    assert!(refused.contains("revoked"), "{refused}");
}

#[test]
fn p22_p24_with_its_credential_the_daemon_renews_and_without_a_word() {
    let site = Site::new();
    let stage = aged(&site, 61);
    let old = served(&stage).unwrap();
    stage.configure("", SEALED);
    site.db.write(FILE, PASSPHRASE);
    let sealed = stage.pgfw.ok(&with_file(&["ca", "encrypt"]));
    assert_eq!(sealed.matches("is encrypted").count(), 2, "{sealed}");
    // Not with the passphrase of somebody else.
    site.db.write("/run/wrong", "incorrect horse battery");
    let refused = stage
        .pgfw
        .pgfw(&["--passphrase-file", "/run/wrong", "cert", "server"]);
    assert_fails(&refused, 1, &["server-ca/g1/ca.key", "does not open"]);

    let daemon = with_credential(&stage);
    stage.pgfw.ok(&["confirm"]);
    eventually("another certificate is served", PATIENCE, || {
        served(&stage).is_some_and(|now| now != old).then_some(())
    });
    let said = stage.attention();
    assert!(!said.contains("signed") && !said.contains("key"), "{said}");
    assert!(!daemon.log().contains(PASSPHRASE), "{}", daemon.log());
    daemon.kill();

    // A setting that the keys do not follow is said, with the command that mends it.
    stage.configure("", "");
    assert_fails(
        &stage.pgfw.pgfw(&with_file(&["ca", "encrypt"])),
        2,
        &["pki.key_passphrase_credential", "/etc/pgfw/pgfw.toml"],
    );
    let daemon = stage.pgfw.start();
    let said = eventually("it is shown", PATIENCE, || {
        Some(stage.attention()).filter(|said| said.contains("pgfw ca decrypt"))
    });
    assert!(said.contains(KEY), "{said}");
    stage.pgfw.ok(&with_file(&["ca", "decrypt"]));
    eventually("the daemon sees it by itself", PATIENCE, || {
        stage.pgfw.ok(&["allow", "192.168.9.0/24"]);
        (!stage.attention().contains("ca.key")).then_some(())
    });
    assert!(daemon.log().contains("can be used again"), "{}", daemon.log());
    stage.pgfw.ok(&["cert", "server"]);
}

/// A person types it, twice where it is new, and nobody reads it over a shoulder.
#[test]
fn p24_a_passphrase_is_asked_for_at_the_terminal_without_echo() {
    let site = Site::new();
    let stage = Stage::new(&site);
    stage.configure("", SEALED);
    let types = |command: &[&str], lines: &[(&str, &str)]| {
        let mut terminal = Terminal::start(stage.pgfw.command(command));
        for (prompt, line) in lines {
            terminal.shows(prompt);
            terminal.types(&format!("{line}\n"));
        }
        let ended = terminal.ends();
        let shown = terminal.look().to_owned();
        for (_, line) in lines {
            assert!(!shown.contains(line), "{shown}");
        }
        (ended.code(), shown)
    };
    let (first, again) = ("Passphrase of", "Once more");
    let (code, shown) = types(
        &["ca", "encrypt"],
        &[(first, PASSPHRASE), (again, "correct horse bottery")],
    );
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("not the same"), "{shown}");
    let (code, shown) = types(&["ca", "encrypt"], &[(first, "short"), (again, "short")]);
    assert!(code == Some(1) && shown.contains("fewer than"), "{shown}");
    assert!(site.db.read(KEY).contains("BEGIN PRIVATE KEY"));
    let (code, shown) = types(&["ca", "encrypt"], &[(first, PASSPHRASE), (again, PASSPHRASE)]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(site.db.read(KEY).contains("BEGIN ENCRYPTED PRIVATE KEY"));

    let (code, shown) = types(&["cert", "issue", "alice"], &[(first, PASSPHRASE)]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("Issued /CN=alice"), "{shown}");
    // Ctrl-C leaves the terminal as it was: a shell that comes after it shows what is typed.
    let script = format!(
        "trap : INT; {} cert issue alice; stty -a",
        pgfw_tests::lab::product().display()
    );
    let mut shell = site.db.command("sh");
    shell.args(["-c", &script]);
    let mut terminal = Terminal::start(shell);
    terminal.shows(first);
    terminal.types("\u{3}");
    terminal.ends();
    let shown = terminal.look();
    assert!(shown.contains(" echo ") && !shown.contains("-echo "), "{shown}");
    // What needs none asks for none.
    assert_eq!(types(&["cert", "list"], &[]).0, Some(0));
}
