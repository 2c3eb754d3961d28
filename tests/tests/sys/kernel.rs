//! What the operator is told about the kernel, and about a mode that it does not give.

use pgfw_tests::lab::{Site, address, run};

use super::{CONFIG, configured, is_silent, refused};

fn with(attach: &str, interface: &str) -> String {
    CONFIG.replace("[\"eth0\"]", &format!("[\"{interface}\"]\nattach = \"{attach}\""))
}

/// A bridge with the host's addresses above its interface: it has no native mode.
fn bridge(site: &Site) {
    site.db.ip("link add br0 type bridge\n\
         address flush dev eth0\n\
         link set eth0 master br0\n\
         link set br0 up\n\
         address add 10.10.0.10/24 dev br0\n\
         route add default via 10.10.0.1");
}

#[test]
fn f31_native_fails_loudly_where_it_cannot_be_had_and_auto_says_what_it_took() {
    let site = Site::new();
    bridge(&site);
    let pgfw = configured(&site, &with("native", "br0"));
    let said = pgfw.pgfw(&["run"]);
    refused(
        &said,
        1,
        &["br0", "MTU 1500", "no native XDP program"],
        "firewall.attach",
    );
    let shown = run(site.db.command("ip").args(["link"])).expect_success();
    assert!(!shown.contains("xdp"), "{shown}");
    pgfw.configure(&with("auto", "br0"));
    let _daemon = pgfw.enforce();
    assert!(
        pgfw.ok(&["status"]).contains("br0       generic"),
        "{}",
        pgfw.ok(&["status"])
    );
    assert!(is_silent(&site.stranger, address::DB, 5432));
}

#[test]
fn f31_the_mode_that_was_got_is_told_with_its_reason() {
    let site = Site::new();
    let pgfw = configured(&site, &with("auto", "eth0"));
    for (attach, mode, about) in [
        ("auto", "generic", "native mode slows large TCP packets"),
        ("native", "native", "in the driver"),
        ("generic", "generic", "native mode slows"),
    ] {
        pgfw.configure(&with(attach, "eth0"));
        let daemon = pgfw.enforce_again();
        assert_eq!(pgfw.status().0["interfaces"][0]["mode"], mode, "{attach}");
        assert!(
            pgfw.ok(&["status"]).contains(&format!("eth0      {mode}; ")),
            "{attach}"
        );
        let verbose = pgfw.ok(&["status", "--verbose"]);
        assert!(verbose.contains(about), "{attach}: {verbose}");
        let log = daemon.log();
        assert!(
            log.contains("interface=eth0") && log.contains(mode),
            "{attach}: {log}"
        );
    }
}

#[test]
fn f32_status_says_what_the_kernel_can_do() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let verbose = pgfw.ok(&["status", "--verbose"]);
    for about in ["XDP programs", "way out", "pgfw check", "memory of tables"] {
        assert!(verbose.contains(&format!("  kernel    {about}: ")), "{verbose}");
    }
    assert!(verbose.contains("  tables    "), "{verbose}");
    assert!(!pgfw.ok(&["status"]).contains("  kernel "));
}
