//! The end of a certificate is the end of what it opened.

use std::time::{Duration, Instant};

use pgfw_tests::lab::{PATIENCE, Reach, Site, eventually};

use super::stage::Stage;

/// Nobody is there to close it: the end is in the kernel.
#[test]
fn p32_an_expired_certificate_closes_its_networks_with_the_daemon_dead() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let daemon = stage.enforce();
    let alice = stage.issue("alice", &["--ttl", "4s"]);
    let issued = Instant::now();
    daemon.kill();
    assert_eq!(stage.reach(&site.client), Reach::Open);
    let mut session = stage.log_in(&site.client, "alice", &alice);
    assert!(
        issued.elapsed() < Duration::from_secs(4),
        "the machine is too slow for this test"
    );

    eventually("alice's network is closed", PATIENCE, || {
        (stage.reach(&site.client) == Reach::Silent).then_some(())
    });
    assert!(
        issued.elapsed() >= Duration::from_secs(3),
        "closed before its end"
    );
    // on_expiry = "keep": an established connection drains.
    assert_eq!(session.query("select 1").as_deref(), Ok("1"));

    // Opened for another reason, it is the server that refuses the certificate.
    let _daemon = stage.pgfw.start();
    stage.pgfw.ok(&["allow", "10.20.0.0/16"]);
    let said = stage.refused(&stage.with_certificate(&site.client, "alice", &alice));
    assert!(said.contains("certificate expired"), "{said}");

    // Her session outlived the certificate; it does not outlive her revocation.
    let told = stage.revoke("alice");
    assert!(told["notes"].to_string().contains("expired"), "{told}");
    stage.ends(&mut session);
}

/// `on_expiry = "end"`: what the certificate opened ends with it, at the moment it ends.
#[test]
fn p32_on_expiry_end_ends_what_an_expired_certificate_holds_and_nothing_else() {
    let site = Site::new();
    let keys = "min_tls = \"1.2\"\non_expiry = \"end\"\nallow = [\"10.20.0.0/16\"]";
    let stage = Stage::with(&site, keys, "");
    let daemon = stage.enforce();
    let (short, long) = (stage.issue("alice", &["--ttl", "5s"]), stage.issue("alice", &[]));
    let bob = stage.issue("bob", &[]);
    let mut ends = stage.log_in(&site.client, "alice", &short);
    let mut waiting = super::revocation::shake(&stage, &short);
    let mut stays = stage.log_in(&site.client, "alice", &long);
    let mut bobs = stage.log_in(&site.client, "bob", &bob);
    stage.ends(&mut ends);
    eventually("nothing waits any more", PATIENCE, || {
        (!stage.attention().contains("waits since")).then_some(())
    });
    // It shook hands while the certificate was good.
    assert!(waiting.start_up(&super::revocation::ALICE).is_err());
    for session in [&mut stays, &mut bobs] {
        assert_eq!(session.query("select 1").as_deref(), Ok("1"));
    }

    // What expires while no daemon runs ends when one does.
    let short = stage.issue("alice", &["--ttl", "4s"]);
    let mut ends = stage.log_in(&site.client, "alice", &short);
    daemon.kill();
    eventually("it has expired", PATIENCE, || {
        let list = stage.pgfw.ok(&["cert", "list"]);
        (list.matches("expired").count() == 2).then_some(())
    });
    assert_eq!(ends.query("select 1").as_deref(), Ok("1"));
    let _daemon = stage.pgfw.start();
    stage.ends(&mut ends);
    assert_eq!(stays.query("select 1").as_deref(), Ok("1"));
}

/// What else opens the network goes on opening it, and a longer certificate does.
#[test]
fn p32_an_expired_certificate_closes_nothing_that_something_else_opens() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    stage.pgfw.ok(&["allow", "192.168.0.0/16"]);
    stage.configure(
        "",
        "[[identity]]\nname = \"carol\"\nroles = [\"bob\"]\nnetworks = [\"192.168.1.0/24\"]\n",
    );
    stage.pgfw.ok(&["reload"]);
    stage.pgfw.ok(&["pg", "apply"]);
    let long = stage.issue("alice", &["--ttl", "1h"]);
    stage.issue("alice", &["--ttl", "2s"]);
    stage.issue("carol", &["--ttl", "2s"]);
    eventually("both have expired", PATIENCE, || {
        let list = stage.pgfw.ok(&["cert", "list"]);
        (list.matches("expired").count() == 2).then_some(())
    });
    // The longer prefix of the one that ended does not hide the entry around it.
    assert_eq!(stage.reach(&site.stranger), Reach::Open);
    assert_eq!(stage.reach(&site.client), Reach::Open);
    drop(stage.log_in(&site.client, "alice", &long));
    stage.pgfw.ok(&["remove", "192.168.0.0/16"]);
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);
}
