//! Who gets in beside identities, and who does not.

use pgfw_tests::lab::{Instance, Site, address};

use super::stage::Stage;

const EXPORTER: &str = r#"
[[login]]
name = "exporter"
method = "scram-sha-256"
databases = ["app"]
networks = ["10.20.0.0/16"]
"#;

#[test]
fn p39_a_password_login_stands_beside_identities() {
    let site = Site::new();
    let stage = Stage::with(&site, "", EXPORTER);
    stage
        .cluster
        .sql("create role exporter login password 'watching'");
    let _daemon = stage.enforce();
    // Its networks are open while it stands in the config, whatever certificates there are.
    let alice = stage.issue("alice", &[]);
    let exporter = stage
        .psql(&site.client, "exporter")
        .set("sslmode", "verify-full")
        .set("sslrootcert", alice.folder.join("root.crt"))
        .set("password", "watching");
    assert_eq!(
        exporter.query("select current_user").expect_success(),
        "exporter\n"
    );
    drop(stage.log_in(&site.client, "alice", &alice));

    let wrong = exporter.set("password", "guessing");
    assert!(stage.refused(&wrong).contains("password authentication failed"));
    let plaintext = wrong.set("password", "watching").set("sslmode", "disable");
    assert!(stage.refused(&plaintext).contains("pg_hba.conf rejects"));
    // A password is no way into a role that takes a certificate, nor another database.
    stage.cluster.sql("alter role alice password 'known'");
    let as_alice = plaintext
        .set("sslmode", "require")
        .set("user", "alice")
        .set("password", "known");
    assert!(stage.refused(&as_alice).contains("valid client certificate"));
    let elsewhere = as_alice
        .set("user", "exporter")
        .set("password", "watching")
        .set("dbname", "postgres");
    assert!(stage.refused(&elsewhere).contains("pg_hba.conf rejects"));
    // From another network that is open: the login stays in its own.
    stage.pgfw.ok(&["allow", address::STRANGER_NETWORK]);
    let stranger = stage
        .psql(&site.stranger, "exporter")
        .set("sslmode", "require")
        .set("password", "watching");
    assert!(stage.refused(&stranger).contains("pg_hba.conf rejects"));
}

#[test]
fn plaintext_another_authority_and_another_name_are_refused() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let (client, with) = (&site.client, |role: &str| {
        stage.with_certificate(&site.client, role, &alice)
    });
    drop(stage.log_in(client, "alice", &alice));

    let plaintext = stage.psql(client, "alice").set("sslmode", "disable");
    assert!(stage.refused(&plaintext).contains("pg_hba.conf rejects"));
    let without = stage.psql(client, "alice").set("sslmode", "require");
    assert!(stage.refused(&without).contains("valid client certificate"));
    let as_bob = stage.refused(&with("bob"));
    assert!(
        as_bob.contains("certificate authentication failed for user \"bob\""),
        "{as_bob}"
    );
    let as_superuser = stage.refused(&with("postgres"));
    assert!(as_superuser.contains("pg_hba.conf rejects"), "{as_superuser}");

    // Somebody else's pgfw issues a certificate for alice.
    let elsewhere = stage.place("impostor");
    let config = stage.place("impostor.toml");
    let text = super::stage::on_host(&stage, Instance::CONFIG);
    let pki = elsewhere.join("pki").display().to_string();
    std::fs::write(&config, format!("{text}\n[pki]\ndirectory = \"{pki}\"\n")).unwrap();
    let impostor = Instance::new(&site.db)
        .env("PGFW_CONFIG", config.to_str().unwrap())
        .env("PGFW_STATE_DIR", elsewhere.join("state").to_str().unwrap())
        .env("PGFW_SOCKET", "/run/impostor.sock")
        .env("PGFW_BPFFS", "/sys/fs/bpf/impostor");
    let forged = elsewhere.join("alice");
    impostor.ok(&["ca", "init"]);
    impostor.ok(&["cert", "issue", "alice", "--bundle", forged.to_str().unwrap()]);
    let presented = with("alice")
        .set("sslcert", forged.join("postgresql.crt"))
        .set("sslkey", forged.join("postgresql.key"));
    assert!(stage.refused(&presented).contains("unknown ca"));
    // And its server is not ours: alice's psql would not send it anything.
    let trusting = with("alice").set("sslrootcert", forged.join("root.crt"));
    assert!(stage.refused(&trusting).contains("certificate verify failed"));
}
