//! Revoked: the CRL, the filter and the sessions hear of it.

use pgfw::postgres::tls::{self, Credential, Version};
use pgfw::postgres::wire::{Answer, Startup};
use pgfw_tests::lab::{PgCluster, Reach, SessionEnd, Site, address};
use std::net::SocketAddr;

use super::stage::{Leaf, Stage, assert_fails};

#[test]
fn p30_p31_p32_what_was_revoked_is_out_and_the_others_go_on() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    stage.pgfw.ok(&["allow", address::STRANGER_NETWORK]);
    let lost = stage.issue("alice", &[]);
    let kept = stage.issue("alice", &[]);
    let deputy = stage.issue("deputy", &[]);
    let bob = stage.issue("bob", &[]);
    let mut with_lost = stage.log_in(&site.client, "alice", &lost);
    let mut with_kept = stage.log_in(&site.client, "alice", &kept);
    let mut of_the_role = stage.log_in(&site.stranger, "alice", &deputy);
    let mut bobs = stage.log_in(&site.stranger, "bob", &bob);
    let reloads = stage.reloads();

    // One serial of hers: what it holds ends before the command does.
    let told = stage.revoke(lost.serial());
    assert_eq!(told["unfinished"].to_string(), "[]", "{told}");
    match with_lost.query("select 1") {
        Err(SessionEnd::Closed(said)) => assert!(said.contains("terminating connection"), "{said}"),
        other => panic!("{other:?}"),
    }
    for session in [&mut with_kept, &mut of_the_role, &mut bobs] {
        assert_eq!(session.query("select 1").as_deref(), Ok("1"));
    }
    let refused = stage.refused(&stage.with_certificate(&site.client, "alice", &lost));
    assert!(refused.contains("certificate revoked"), "{refused}");
    assert_eq!(stage.reach(&site.client), Reach::Open);
    drop(stage.log_in(&site.client, "alice", &kept));

    // All of hers, by name; again changes nothing.
    for _ in 0..2 {
        let told = stage.revoke("alice");
        assert_eq!(told["certificates"].as_array().unwrap().len(), 2, "{told}");
        assert_eq!(told["notes"].to_string(), "[]", "{told}");
        assert!(with_kept.query("select 1").is_err());
        assert_eq!(stage.reach(&site.client), Reach::Silent);
        for session in [&mut of_the_role, &mut bobs] {
            assert_eq!(session.query("select 1").as_deref(), Ok("1"));
        }
    }
    assert_eq!(stage.reloads(), reloads, "it took a reload");
    assert_eq!(stage.reach(&site.stranger), Reach::Open);

    assert_fails(
        &stage.pgfw.pgfw(&["cert", "revoke", "depty"]),
        1,
        &["depty", "Did you mean `deputy`?"],
    );
}

pub(crate) fn shake(stage: &Stage<'_>, leaf: &Leaf) -> tls::Session {
    let (certificate, key) = (leaf.pem("postgresql.crt"), leaf.pem("postgresql.key"));
    let credential = Credential {
        certificate: &certificate,
        key: &key,
    };
    let to = SocketAddr::new(address::DB, PgCluster::PORT);
    // Under TLS 1.2 the handshake is over for both sides when it is for one.
    let client = &stage.site.client;
    client
        .within(|| tls::connect(to, Some(credential), Version::V1_2))
        .unwrap()
}

pub(crate) const ALICE: Startup<'_> = Startup {
    user: "alice",
    database: "app",
    replication: false,
};

#[test]
fn p30_a_handshake_that_was_finished_before_is_of_no_use_after() {
    let site = Site::new();
    let stage = Stage::with(&site, "min_tls = \"1.2\"\nallow = [\"10.20.0.0/16\"]", "");
    let _daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    assert_eq!(shake(&stage, &alice).start_up(&ALICE).unwrap(), Answer::Ok);

    let mut waiting = shake(&stage, &alice);
    stage.revoke("alice");
    // Its packets still pass: the cluster's allow holds the network open. The socket is gone.
    assert!(waiting.start_up(&ALICE).is_err());
    let error = {
        let (certificate, key) = (alice.pem("postgresql.crt"), alice.pem("postgresql.key"));
        let credential = Credential {
            certificate: &certificate,
            key: &key,
        };
        let to = SocketAddr::new(address::DB, PgCluster::PORT);
        site.client
            .within(|| tls::connect(to, Some(credential), Version::V1_2).unwrap_err())
    };
    assert!(error.to_string().contains("CertificateRevoked"), "{error}");
}

#[test]
fn p32_a_revoked_certificate_leaves_open_what_something_else_opens_and_names_it() {
    let site = Site::new();
    let exporter =
        "[[login]]\nname = \"exporter\"\nmethod = \"scram-sha-256\"\nnetworks = [\"10.20.30.0/24\"]\n";
    let further =
        "[[identity]]\nname = \"carol\"\nroles = [\"bob\"]\nnetworks = [\"10.20.60.0/24\", \"10.0.0.0/7\"]\n";
    let web = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [\"80\"]\nallow = [\"10.0.0.0/8\"]\n";
    let stage = Stage::with(
        &site,
        "allow = [\"10.20.50.0/24\"]",
        &format!("{exporter}{further}{web}"),
    );
    let _daemon = stage.enforce();
    stage.issue("alice", &[]);
    stage.issue("carol", &[]);
    stage.pgfw.ok(&["allow", "10.0.0.0/8", "--for", "1h"]);
    stage.pgfw.ok(&["allow", "10.20.40.0/24"]);
    stage.pgfw.ok(&["deny", "10.20.50.0/24", "--service", "main"]);
    let told = stage.revoke("alice");
    let mut notes: Vec<&str> = told["notes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|n| n.as_str())
        .collect();
    notes.sort_unstable();
    // Each network that lies in hers and is open at the server's port; neither another service nor what is denied.
    assert_eq!(
        notes,
        [
            "10.20.0.0/16 stays open through `pgfw allow 10.0.0.0/8`.",
            "10.20.0.0/16 stays open through the certificate of carol.",
            "10.20.30.0/24 stays open through the login exporter.",
            "10.20.40.0/24 stays open through `pgfw allow 10.20.40.0/24`.",
            "10.20.60.0/24 stays open through the certificate of carol.",
        ]
    );
    assert_eq!(stage.reach(&site.client), Reach::Open);
    stage.pgfw.ok(&["remove", "10.0.0.0/8"]);
    assert_eq!(stage.reach(&site.client), Reach::Open);
    let told = stage.revoke("carol");
    assert!(!told["notes"].to_string().contains("10.20.0.0/16"), "{told}");
    assert_eq!(stage.reach(&site.client), Reach::Silent);
}

/// Another authority that the server trusts issued the same number: the sessions of that one are not meant.
#[test]
fn p31_a_session_of_the_same_serial_and_another_issuer_goes_on() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    let first = stage.issue("alice", &[]);
    stage.pgfw.ok(&["ca", "rotate", "start", "client"]);
    let second = stage.issue("alice", &[]);
    let forged = same_serial(&stage, &second, first.serial());
    let mut of_the_first = stage.log_in(&site.client, "alice", &first);
    let mut of_the_second = stage.log_in(&site.client, "alice", &second);
    let mut of_the_forged = stage.log_in(&site.client, "alice", &forged);
    stage.revoke(first.serial());
    assert!(of_the_first.query("select 1").is_err());
    assert_eq!(of_the_second.query("select 1").as_deref(), Ok("1"));
    assert_eq!(of_the_forged.query("select 1").as_deref(), Ok("1"));
}

/// A certificate for the key of `leaf` from the authority that issued it, with a number of our choice.
pub(crate) fn same_serial(stage: &Stage<'_>, leaf: &Leaf, serial: &str) -> Leaf {
    signed(stage, leaf, "/CN=alice", serial)
}

/// The same for another subject: what somebody with the authority's key could do beside pgfw.
pub(crate) fn signed(stage: &Stage<'_>, leaf: &Leaf, subject: &str, serial: &str) -> Leaf {
    let generation = leaf.certificate["authority_generation"].as_u64().unwrap();
    let authority = format!("/etc/pgfw/pki/client-ca/g{generation}");
    let folder = stage.place(&format!("signed-{}", super::stage::unique()));
    std::fs::create_dir(&folder).unwrap();
    for file in ["root.crt", "postgresql.key"] {
        std::fs::copy(leaf.folder.join(file), folder.join(file)).unwrap();
    }
    let extensions = stage.file(
        "extensions",
        "extendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\n",
    );
    let (request, key) = (folder.join("request"), folder.join("postgresql.key"));
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let openssl = |arguments: &[&str]| {
        let mut command = site_command(stage, "openssl");
        pgfw_tests::lab::run(command.args(arguments)).expect_success()
    };
    openssl(&[
        "req",
        "-new",
        "-utf8",
        "-multivalue-rdn",
        "-key",
        &text(&key),
        "-subj",
        subject,
        "-out",
        &text(&request),
    ]);
    openssl(&[
        "x509",
        "-req",
        "-days",
        "1",
        "-in",
        &text(&request),
        "-CA",
        &format!("{authority}/ca.crt"),
        "-CAkey",
        &format!("{authority}/ca.key"),
        "-set_serial",
        &format!("0x{serial}"),
        "-extfile",
        &text(&extensions),
        "-out",
        &text(&folder.join("postgresql.crt")),
    ]);
    Leaf {
        folder,
        certificate: serde_json::json!({ "serial": serial }),
    }
}

fn site_command(stage: &Stage<'_>, program: &str) -> std::process::Command {
    stage.site.db.command(program)
}

/// A cluster that is in pgfw.toml and not in the policy that runs yet: `pg apply` goes by the file.
#[test]
fn p30_a_revocation_reaches_what_was_applied_and_not_reloaded_yet() {
    let site = Site::new();
    let stage = Stage::with(&site, "allow = [\"10.20.0.0/16\"]", "");
    // The policy that runs knows one that is gone by now.
    let text = super::stage::on_host(&stage, pgfw_tests::lab::Instance::CONFIG);
    let former = text.replace("name = \"main\"", "name = \"former\"");
    stage
        .pgfw
        .configure(&former.replace(&stage.cluster.name(), "15/former"));
    let _daemon = stage.enforce();
    stage.pgfw.configure(&text);
    let alice = stage.issue("alice", &[]);
    let mut session = stage.log_in(&site.client, "alice", &alice);
    stage.revoke("alice");
    assert!(session.query("select 1").is_err());
    let refused = stage.refused(&stage.with_certificate(&site.client, "alice", &alice));
    assert!(refused.contains("certificate revoked"), "{refused}");
}

/// What the unit leaves the daemon is enough for all it does.
#[test]
fn p30_a_revocation_and_an_apply_with_the_capabilities_of_the_unit() {
    let site = Site::new();
    let stage = Stage::bare(&site, "min_tls = \"1.2\"", "");
    let as_the_unit = |arguments: &[&str]| {
        let outcome = pgfw_tests::lab::run(&mut stage.pgfw.command_as_the_unit(arguments));
        outcome.expect_success()
    };
    as_the_unit(&["ca", "init"]);
    as_the_unit(&["cert", "server"]);
    as_the_unit(&["pg", "apply", "--without-scratch"]);
    let _daemon = stage
        .pgfw
        .start_command(&mut stage.pgfw.command_as_the_unit(&["run"]));
    stage.pgfw.ok(&["confirm"]);
    let alice = stage.issue("alice", &[]);
    let bob = stage.issue("bob", &[]);
    stage.pgfw.ok(&["allow", address::STRANGER_NETWORK]);
    let mut session = stage.log_in(&site.client, "alice", &alice);
    let mut bobs = stage.log_in(&site.stranger, "bob", &bob);
    let mut waiting = shake(&stage, &alice);

    let told = stage.revoke("alice");
    assert_eq!(told["unfinished"].to_string(), "[]", "{told}");
    assert!(session.query("select 1").is_err());
    assert!(waiting.start_up(&ALICE).is_err());
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    assert_eq!(bobs.query("select 1").as_deref(), Ok("1"));

    stage.configure("min_tls = \"1.3\"", "");
    let said = as_the_unit(&["pg", "apply", "--without-scratch"]);
    assert!(said.contains("proven: the server goes by these rules"), "{said}");
    as_the_unit(&["pg", "release"]);
}
