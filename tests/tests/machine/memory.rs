//! Kernels on which the memory of tables counts as locked memory (before Linux 5.11).

use std::os::unix::process::CommandExt;

use nix::sys::resource::{Resource, setrlimit};
use pgfw_tests::lab::guest::lacking;
use pgfw_tests::lab::{Site, run};

use super::configured;

#[test]
fn f38_a_limit_on_locked_memory_that_cannot_be_raised_is_named() {
    let site = Site::new();
    let pgfw = configured(&site, "eth0");
    let daemon = pgfw.enforce();
    let verbose = pgfw.ok(&["status", "--verbose"]);
    let counts = verbose.contains("memory of tables: RLIMIT_MEMLOCK, raised");
    assert_ne!(
        counts,
        verbose.contains("memory of tables: control group"),
        "{verbose}"
    );
    drop(daemon);
    pgfw.ok(&["off"]);
    if !counts {
        return lacking("a limit on the memory of tables");
    }
    let plain = pgfw.command(&["run"]);
    let mut limited = pgfw.host().command("setpriv");
    limited
        .arg("--bounding-set=-sys_resource")
        .arg(plain.get_program())
        .arg("run");
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        limited.pre_exec(|| Ok(setrlimit(Resource::RLIMIT_MEMLOCK, 64 * 1024, 64 * 1024)?));
    }
    let said = run(&mut limited);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    for part in ["locked memory", "65536 bytes", "LimitMEMLOCK=infinity"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    assert_eq!(pgfw.host().pins(), [""; 0], "nothing is half made");
}
