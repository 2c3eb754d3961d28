//! Somebody else's XDP program is never replaced, and ours is not either.

use pgfw_tests::lab::foreign::{ForeignProgram, NAME, attached};
use pgfw_tests::lab::{EchoServer, Site, address, join, run};

use super::{CONFIG, configured, is_open, is_silent, nothing_is_left, refused};

fn add_eth1(site: &Site) {
    join((&site.router, "second"), (&site.db, "eth1"));
}

fn both_interfaces() -> String {
    CONFIG.replace("[\"eth0\"]", "[\"eth0\", \"eth1\"]")
}

#[test]
fn f33_a_foreign_program_is_named_and_stays() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let foreign = ForeignProgram::attach(&site.db, "eth0");
    let named = format!("the XDP program {} ({NAME})", foreign.id);
    for attach in ["auto", "generic", "native"] {
        pgfw.configure(&CONFIG.replace("[[postgres]]", &format!("attach = \"{attach}\"\n[[postgres]]")));
        let said = pgfw.pgfw(&["run"]);
        refused(
            &said,
            1,
            &["eth0", &named],
            "leave eth0 out of firewall.interfaces",
        );
        assert_eq!(attached(&site.db, "eth0"), Some(foreign.id), "{attach}");
    }
    assert!(is_open(&site.stranger, address::DB, 5432));
    foreign.detach(&site.db, "eth0");
    let _daemon = pgfw.enforce();
    assert!(is_silent(&site.stranger, address::DB, 5432));
}

#[test]
fn f33_a_foreign_program_on_one_interface_leaves_the_others_alone_at_the_first_start() {
    let site = Site::new();
    add_eth1(&site);
    let pgfw = configured(&site, &both_interfaces());
    let foreign = ForeignProgram::attach(&site.db, "eth1");
    let said = pgfw.pgfw(&["run"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(
        said.stderr.contains("eth1 carries the XDP program"),
        "{}",
        said.stderr
    );
    assert_eq!(attached(&site.db, "eth1"), Some(foreign.id));
    assert_eq!(
        attached(&site.db, "eth0"),
        None,
        "all or none before the first confirm"
    );
    foreign.detach(&site.db, "eth1");
    pgfw.ok(&["off"]);
    site.db
        .within(|| std::fs::remove_file("/sys/fs/bpf/somebody").unwrap());
    nothing_is_left(&site.db);
}

#[test]
fn a_first_start_that_cannot_attach_leaves_no_trace_however_often_it_is_tried() {
    let site = Site::new();
    add_eth1(&site);
    let pgfw = configured(&site, &both_interfaces());
    let latest = || {
        let ledger = pgfw::ledger::Ledger::open_read_only("/var/lib/pgfw/ledger.db".as_ref()).unwrap();
        ledger.latest().unwrap()
    };
    // What can be known without touching a device is: nobody's packets meet a program that is taken off again.
    let foreign = ForeignProgram::attach(&site.db, "eth1");
    for _ in 0..2 {
        let said = pgfw.pgfw(&["run"]);
        assert_eq!(said.code, Some(1), "{}", said.stderr);
        assert!(!said.stderr.contains("attached interface"), "{}", said.stderr);
    }
    assert_eq!(site.db.within(latest), None);
    foreign.detach(&site.db, "eth1");
    site.db
        .within(|| std::fs::remove_file("/sys/fs/bpf/somebody").unwrap());

    // What only the driver can say is asked before a policy begins.
    site.db.ip("link delete eth1\nlink add eth1 type bridge");
    let native = both_interfaces().replace("[[postgres]]", "attach = \"native\"\n[[postgres]]");
    pgfw.configure(&native);
    for _ in 0..2 {
        let said = pgfw.pgfw(&["run"]);
        assert_eq!(said.code, Some(1), "{}", said.stderr);
        assert!(
            said.stderr.contains("eth1 (MTU 1500) takes no native"),
            "{}",
            said.stderr
        );
        super::nothing_is_on(&site.db, "eth0");
        super::nothing_is_on(&site.db, "eth1");
    }
    assert_eq!(site.db.within(latest), None);

    // A policy that runs is not touched by a reload that cannot be.
    pgfw.configure(CONFIG);
    let _daemon = pgfw.enforce();
    let foreign = ForeignProgram::attach(&site.db, "eth1");
    pgfw.configure(&both_interfaces());
    let said = pgfw.pgfw(&["reload"]);
    assert!(
        said.stderr.contains("eth1 carries the XDP program"),
        "{}",
        said.stderr
    );
    assert_eq!(site.db.within(latest).map(|g| g.number), Some(1));
    foreign.detach(&site.db, "eth1");
}

#[test]
fn f33_on_a_protected_host_it_is_a_matter_of_that_interface_alone() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    add_eth1(&site);
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    let foreign = ForeignProgram::attach(&site.db, "eth1");
    pgfw.configure(&both_interfaces());
    // Either it is refused, or what could not be covered is said: never replaced, never silent.
    let reload = pgfw.pgfw(&["reload"]);
    let status = pgfw.status();
    let said = format!("{}{}", reload.stderr, status.attention());
    assert!(
        said.contains("eth1") && said.contains(&foreign.id.to_string()),
        "{said}"
    );
    assert_eq!(attached(&site.db, "eth1"), Some(foreign.id));
    assert!(is_silent(&site.stranger, address::DB, 5432));
    daemon.kill();
    let _daemon = pgfw.start();
    assert_eq!(attached(&site.db, "eth1"), Some(foreign.id));
    assert!(is_silent(&site.stranger, address::DB, 5432));
    foreign.detach(&site.db, "eth1");
    pgfw.ok(&["reload"]);
    assert!(attached(&site.db, "eth1").is_some());
    assert_eq!(pgfw.status().attention(), "");
}

#[test]
fn another_tool_cannot_replace_ours_by_accident() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let ours = attached(&site.db, "eth0");
    let mut ip = site.db.command("ip");
    let off = run(ip.args(["link", "set", "dev", "eth0", "xdpgeneric", "off"]));
    assert!(!off.success());
    assert_eq!(attached(&site.db, "eth0"), ours);
}
