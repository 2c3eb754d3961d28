//! What has the last word over pgfw's settings, and where a server's rules are: said before anything is changed, and held
//! to what the server says of itself.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::chown;
use std::path::Path;

use pgfw::config::Config;
use pgfw::failure::Failure;
use pgfw::postgres::wire::Answer;
use pgfw::postgres::{Facts, Plan, PostgresError, Server, plan};
use pgfw_tests::scratch::managed::{Managed, log_in, steps, to};
use pgfw_tests::scratch::{Scratch, on_each_major, write};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ALICE: &str = "[[identity]]\nname = \"alice\"\nnetworks = [\"127.0.0.0/8\"]\n";

fn planned(managed: &Managed, config: &Config) -> Plan {
    let facts = Facts {
        server_cert_pem: Some(managed.material.server_cert_pem.clone()),
        client_ca_pem: Some(managed.material.client_ca_pem.clone()),
        crl_dir: managed.material.crl_dir.clone(),
    };
    plan(&config.postgres[0], config, &managed.paths, &facts).unwrap()
}

type Named = (String, String, Option<u32>);

/// What a plan says of settings that somebody else decides.
fn by_plan(managed: &Managed, config: &Config) -> Vec<Named> {
    let settings = planned(managed, config).settings.into_iter();
    let others = settings.filter_map(|setting| setting.overridden);
    let mut all: Vec<Named> = others.map(|o| (o.name, o.by, o.line)).collect();
    all.sort();
    all
}

/// What the server says after an apply.
fn by_server(managed: &Managed, config: &Config) -> Vec<Named> {
    let others = managed.apply(config).unwrap().overridden.into_iter();
    let mut all: Vec<Named> = others.map(|o| (o.name, o.by, o.line)).collect();
    all.sort();
    all
}

fn said(error: PostgresError) -> String {
    let Failure { message, remedy, .. } = error.into();
    format!("{message}. {remedy}")
}

/// Everything in the data directory that an apply may touch.
fn state(managed: &Managed) -> Vec<(String, Vec<u8>)> {
    let names = [
        "postgresql.conf",
        "pg_hba.conf",
        "pg_ident.conf",
        "conf.d/zz-pgfw.conf",
    ];
    let there = names.map(|name| {
        let path = managed.scratch.data().join(name);
        let link = fs::read_link(&path).unwrap_or_default();
        let text = fs::read(&path).unwrap_or_default();
        (format!("{name} {}", link.display()), text)
    });
    there.into()
}

/// Files as they grow: names in any case, without `=`, in folders, in files that are named by what is in a folder, and
/// some that are not there. What counts after pgfw's is found by file and line, before an apply, after it, and with the
/// server down: the same that the server says.
#[test]
fn p16_what_is_read_after_pgfws_settings_is_found_as_the_server_finds_it() {
    on_each_major(|server| {
        let mut managed = Managed::new(server.stopped());
        let data = managed.scratch.data();
        for folder in ["conf.d", "conf.d/sub.conf", "more"] {
            fs::create_dir(data.join(folder)).unwrap();
        }
        let file = |name: &str, text: &str| write(&data.join(name), text);
        file("conf.d/aa.conf", "log_statement = 'none'\n");
        file("conf.d/.hidden.conf", "log_connections = off\n");
        file("conf.d/no-end", "log_connections = off\n");
        file("conf.d/zz-pgfw.conf.d", "log_connections = off\n");
        file(
            "conf.d/zzz.conf",
            "# log_connections = off\ninclude '../more/one.conf'\n\tLOG_Disconnections off # ours is on\n",
        );
        file("more/one.conf", "work_mem = '8MB'\nlog_statement 'm\\157d'\n");
        file(
            "more/two.conf",
            "log_statement = ddl\r\nssl_min_protocol_version='TLSv1.2'\n",
        );
        managed.scratch.configure(
            "log_connections = off\ninclude_dir = 'conf.d'\nInclude_If_Exists 'not-there.conf'\n\
             include = more/two.conf\nssl_crl_file = ''\n",
        );
        managed.scratch.run();
        managed.scratch.sql("alter system set log_statement = 'all'");
        let config = managed.config("min_tls = \"1.3\"\n", ALICE);
        let row = |name: &str, file: &str, line: u32| {
            (name.to_owned(), data.join(file).display().to_string(), Some(line))
        };
        let expected = [
            row("log_disconnections", "conf.d/zzz.conf", 3),
            row("log_statement", "postgresql.auto.conf", 3),
            row("ssl_min_protocol_version", "more/two.conf", 2),
        ];
        assert_eq!(by_plan(&managed, &config), expected, "before");
        // The server also names what is said again as it is.
        let conf = data.join("postgresql.conf");
        let text = fs::read_to_string(&conf).unwrap();
        let line = 1 + text.lines().position(|l| l == "ssl_crl_file = ''").unwrap();
        let mut with_equal = expected.to_vec();
        with_equal.insert(
            2,
            row("ssl_crl_file", "postgresql.conf", u32::try_from(line).unwrap()),
        );
        assert_eq!(by_server(&managed, &config), with_equal);
        assert_eq!(by_plan(&managed, &config), expected, "after");
        managed.scratch.stop();
        assert_eq!(by_plan(&managed, &config), expected, "with the server down");
        managed.scratch.run();
        assert_eq!(managed.scratch.sql("show log_statement"), "all");
        assert_eq!(managed.scratch.sql("show log_connections"), "on");
    });
}

/// Plan and apply refuse in the same words, and nothing is changed.
fn refused(managed: &Managed, config: &Config, words: &[&str]) {
    let before = state(managed);
    let obstacles = planned(managed, config).obstacles;
    let error = said(managed.apply(config).unwrap_err());
    assert_eq!(obstacles, [error.as_str()]);
    for word in words {
        assert!(error.contains(word), "no {word:?} in {error}");
    }
    assert_eq!(state(managed), before);
}

/// What would keep the server from TLS is refused with file and line, by plan and apply, before anything is changed.
#[test]
fn p16_what_would_fail_the_proof_is_named_before_anything_changes() {
    let mut managed = Managed::new(Scratch::stopped());
    let data = managed.scratch.data();
    fs::create_dir(data.join("conf.d")).unwrap();
    managed
        .scratch
        .configure("include_dir = 'conf.d'\n# set by somebody's script\nssl = off\n");
    managed.scratch.run();
    let config = managed.config("", ALICE);
    let before = state(&managed);
    let line = 1 + before[0]
        .1
        .split(|b| *b == b'\n')
        .position(|l| l == b"ssl = off")
        .unwrap();
    let place = format!("{} line {line}", data.join("postgresql.conf").display());
    let refused = |managed: &Managed, words: &[&str]| {
        refused(managed, &config, words);
        assert_eq!(state(managed), before);
        assert!(
            !managed.scratch.log().contains("SIGHUP"),
            "{}",
            managed.scratch.log()
        );
    };
    refused(&managed, &["ssl is 'off'", &place, "move it before"]);
    managed.scratch.stop();
    refused(&managed, &["ssl is 'off'", &place]);

    // In another file that counts later, and by two settings at once.
    let main = fs::read_to_string(data.join("postgresql.conf")).unwrap();
    write(
        &data.join("postgresql.conf"),
        &main.replace("\nssl = off\n", "\n"),
    );
    let before = state(&managed);
    write(
        &data.join("conf.d/zzz.conf"),
        "\nssl_ca_file = ''\nssl_cert_file = 'server.crt'\n",
    );
    let error = said(managed.apply(&config).unwrap_err());
    for word in [
        "ssl_ca_file is ''",
        "conf.d/zzz.conf line 2",
        "ssl_cert_file is 'server.crt'",
        "zzz.conf line 3",
    ] {
        assert!(error.contains(word), "no {word:?} in {error}");
    }
    assert_eq!(state(&managed), before);
    fs::remove_file(data.join("conf.d/zzz.conf")).unwrap();

    // By `alter system`, and on the command line.
    managed.scratch.run();
    managed.scratch.sql("alter system set ssl_crl_dir = '/elsewhere'");
    let error = said(managed.apply(&config).unwrap_err());
    assert!(
        error.contains("postgresql.auto.conf line 3") && error.contains("`alter system reset ssl_crl_dir`"),
        "{error}"
    );
    managed.scratch.sql("alter system reset all");
    managed.scratch.stop();
    managed.scratch.run_with(&["ssl=off"]);
    let error = said(managed.apply(&config).unwrap_err());
    assert!(
        error.contains("ssl is 'off' by the command line") && error.contains("where the server is started"),
        "{error}"
    );
    assert_eq!(state(&managed), before);
    managed.scratch.stop();
    managed.scratch.run();
    let applied = managed.apply(&config).unwrap();
    assert_eq!(
        steps(&applied.steps),
        ["written", "tried", "switched", "reloaded", "rules", "tls"]
    );
}

/// pg_hba.conf and pg_ident.conf that the server's command line names are the ones that an apply replaces, whether it runs
/// or not.
#[test]
fn p16_rules_that_the_command_line_names_are_the_servers() {
    on_each_major(|server| {
        let mut managed = Managed::new(server.stopped());
        let folder = managed.scratch.place("rules by option");
        fs::create_dir(&folder).unwrap();
        let owner = pgfw_tests::scratch::postgres();
        chown(&folder, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).unwrap();
        let (hba, ident) = (folder.join("hba"), folder.join("ident"));
        write(&hba, "local all all peer\n");
        write(&ident, "");
        let options = [
            format!("hba_file={}", hba.display()),
            format!("ident_file={}", ident.display()),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        managed.scratch.run_with(&options);
        managed.scratch.sql("create role alice login");
        let config = managed.config("", ALICE);
        let found = || Server::find(&config.postgres[0]).unwrap();
        assert_eq!(
            (found().hba_file, found().ident_file),
            (hba.clone(), ident.clone())
        );
        let alice = managed.clients.client("alice", &[7]);
        managed.apply(&config).unwrap();
        assert_eq!(
            log_in(HERE, Some(&alice), &to("alice", "postgres")).unwrap(),
            Answer::Ok
        );
        assert!(hba.is_symlink() && ident.is_symlink());
        assert!(!managed.scratch.data().join("pg_hba.conf").is_symlink());
        managed.scratch.stop();
        assert_eq!(found().hba_file, hba);
        // What the next start says, nobody knows.
        let error = said(managed.apply(&config).unwrap_err());
        assert!(error.contains("last started with hba_file="), "{error}");
        // Started without them it is another server, and is seen to be.
        managed.scratch.run();
        assert_eq!(found().hba_file, managed.scratch.data().join("pg_hba.conf"));
        managed.apply(&config).unwrap();
        assert!(managed.scratch.data().join("pg_hba.conf").is_symlink());
    });
}

/// Where it cannot be known which files a server goes by, or pgfw.toml means others, that is said.
#[test]
fn p16_other_files_than_the_servers_are_refused() {
    let mut managed = Managed::new(Scratch::stopped());
    let data = managed.scratch.data();
    let config = managed.config("", ALICE);
    let refused = |managed: &Managed, words: &[&str]| refused(managed, &config, words);
    // Relative: nobody knows to what.
    let text = fs::read_to_string(data.join("postgresql.conf")).unwrap();
    managed.scratch.configure("hba_file = 'pg_hba.conf'\n");
    let line = text.lines().count() + 1;
    refused(
        &managed,
        &[
            "hba_file is 'pg_hba.conf'",
            &format!("postgresql.conf line {line}"),
            "whole path",
        ],
    );
    write(&data.join("postgresql.conf"), &text);
    // Changed since the start.
    managed.scratch.run();
    let other = data.join("other_hba.conf");
    write(&other, "local all all peer\n");
    managed
        .scratch
        .configure(&format!("hba_file = '{}'\n", other.display()));
    refused(
        &managed,
        &[
            "data/pg_hba.conf as its hba_file",
            "other_hba.conf",
            "Restart the server",
        ],
    );
    managed.scratch.stop();
    managed.scratch.run();
    write(&data.join("postgresql.conf"), &text);
    refused(
        &managed,
        &["other_hba.conf as its hba_file", "Restart the server"],
    );
    managed.scratch.stop();
    // Another postgresql.conf.
    let elsewhere = managed.scratch.place("elsewhere.conf");
    write(
        &elsewhere,
        &format!("data_directory = '{}'\n{text}", data.display()),
    );
    managed
        .scratch
        .run_with(&[&format!("config_file={}", elsewhere.display())]);
    refused(
        &managed,
        &["elsewhere.conf as its config_file", "config_file = \""],
    );
    let named = managed.config(&format!("config_file = \"{}\"\n", elsewhere.display()), ALICE);
    managed.apply(&named).unwrap();
    assert!(Path::new(&data.join("pg_hba.conf")).is_symlink());
}
