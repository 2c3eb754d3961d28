use std::collections::HashMap;
use std::path::PathBuf;

use super::service_file::section;
use super::{Given, Profile};

const FILE: &str = "\
# a comment
[other]
host=other.example.com

[prod]
host=db.example.com
port=5433
sslcert=/keys/alice.crt
  user=alice
# again
host=ignored.example.com

[prod]
host=second.example.com
";

#[test]
fn a_section_is_read_as_libpq_reads_it() {
    let prod = section("prod", FILE).unwrap().unwrap();
    assert_eq!(prod["host"], "db.example.com");
    assert_eq!(prod["user"], "alice");
    assert_eq!(section("other", FILE).unwrap().unwrap().len(), 1);
    assert_eq!(section("absent", FILE), Ok(None));
    // A line that is none counts in its own section only.
    let broken = "[a]\nhost=a\n[b]\nnonsense\n";
    assert_eq!(section("a", broken).unwrap().unwrap()["host"], "a");
    assert_eq!(section("b", broken), Err(4));
}

#[test]
fn files_come_from_the_command_line_the_section_the_environment_and_home() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("services");
    std::fs::write(&file, FILE).unwrap();
    let mut variables = HashMap::from([
        ("PGSERVICEFILE", file.to_str().unwrap().to_owned()),
        ("HOME", "/home/alice".to_owned()),
        ("PGSSLKEY", "/environment/alice.key".to_owned()),
        ("PGSSLCERT", "/environment/alice.crt".to_owned()),
        ("PGSYSCONFDIR", "/nonexistent".to_owned()),
    ]);
    let read = |variables: &HashMap<&str, String>, name: &str, given: Given| {
        let variables = variables.clone();
        Profile::read(name, given, &move |key| variables.get(key).cloned())
    };
    let given = Given {
        root: Some("/said/root.crt".into()),
        ..Given::default()
    };
    assert_eq!(
        read(&variables, "prod", given).unwrap(),
        Profile {
            host: "db.example.com".into(),
            hostaddr: None,
            gate_port: 5430,
            port: 5433,
            certificate: PathBuf::from("/keys/alice.crt"),
            key: PathBuf::from("/environment/alice.key"),
            root: PathBuf::from("/said/root.crt"),
        }
    );
    variables.remove("PGSSLKEY");
    let plain = read(&variables, "other", Given::default()).unwrap();
    assert_eq!(plain.key, PathBuf::from("/home/alice/.postgresql/postgresql.key"));
    assert_eq!(plain.port, 5432);
    let absent = read(&variables, "absent", Given::default())
        .unwrap_err()
        .to_string();
    assert!(
        absent.contains("`absent`") && absent.contains("services"),
        "{absent}"
    );
}
