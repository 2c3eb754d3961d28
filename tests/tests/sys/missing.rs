//! What is missing is found before anything is attached, and named in one sentence.

use std::os::unix::process::CommandExt;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use pgfw_tests::lab::foreign::attached;
use pgfw_tests::lab::{EchoServer, Instance, Outcome, Site, address, run, without_links};

use super::{CONFIG, configured, is_open, refused};

const NONE: Option<&str> = None;

/// `pgfw run` that cannot, on a host where nothing was ever enforced.
#[track_caller]
fn cannot_start(prepare: impl FnOnce(&Site), start: impl FnOnce(&Instance<'_>) -> Outcome) -> Outcome {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    prepare(&site);
    let outcome = start(&pgfw);
    assert_eq!(attached(&site.db, "eth0"), None);
    assert!(is_open(&site.stranger, address::DB, 5432));
    outcome
}

fn as_it_is(_site: &Site) {}

#[test]
fn f38_without_a_bpf_file_system() {
    let unmount = |site: &Site| {
        site.db
            .within(|| umount2("/sys/fs/bpf", MntFlags::MNT_DETACH).unwrap());
    };
    let said = cannot_start(unmount, |pgfw| pgfw.pgfw(&["run"]));
    refused(
        &said,
        1,
        &["/sys/fs/bpf/pgfw", "bpf file system"],
        "mount -t bpf bpf /sys/fs/bpf",
    );
}

#[test]
fn f38_with_a_pin_folder_elsewhere() {
    let said = cannot_start(as_it_is, |pgfw| pgfw.pgfw(&["run", "--bpffs", "/var/lib/pins"]));
    refused(&said, 1, &["/var/lib/pins", "bpf file system"], "--bpffs");
}

#[test]
fn f38_on_a_bpf_file_system_that_is_read_only() {
    let remount = |site: &Site| {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        site.db
            .within(|| mount(NONE, "/sys/fs/bpf", NONE, flags, NONE).unwrap());
    };
    let said = cannot_start(remount, |pgfw| pgfw.pgfw(&["run"]));
    refused(&said, 1, &["/sys/fs/bpf", "read-only"], "remount,rw");
}

#[test]
fn f38_without_root() {
    let said = cannot_start(
        as_it_is,
        |pgfw| run(&mut pgfw.command_as_user("nobody", &["run"])),
    );
    refused(&said, 3, &["`pgfw run` needs root"], "sudo pgfw run");
    for command in [
        &["off"][..],
        &["ca", "init"],
        &["cert", "issue", "alice"],
        &["pg", "apply"],
        &["deny", "10.0.0.0/8"],
    ] {
        let site = Site::new();
        let pgfw = configured(&site, CONFIG);
        let said = run(&mut pgfw.command_as_user("nobody", command));
        refused(&said, 3, &["needs root"], "sudo pgfw");
    }
}

#[test]
fn f38_without_a_capability() {
    for (without, named) in [
        ("-net_admin", &["CAP_NET_ADMIN is missing"][..]),
        ("-bpf,-perfmon,-sys_admin", &["CAP_BPF, CAP_PERFMON"]),
    ] {
        let said = cannot_start(as_it_is, |pgfw| {
            let plain = pgfw.command(&["run"]);
            let mut setpriv = pgfw.host().command("setpriv");
            setpriv.arg(format!("--bounding-set={without}"));
            run(setpriv.arg(plain.get_program()).arg("run"))
        });
        refused(&said, 1, named, "Run as root");
    }
}

#[test]
fn f38_on_a_kernel_without_xdp_links() {
    let said = cannot_start(as_it_is, |pgfw| {
        let mut command = pgfw.command(&["run"]);
        // SAFETY: between fork and exec only system calls are made.
        unsafe { command.pre_exec(without_links) };
        run(&mut command)
    });
    refused(
        &said,
        1,
        &["this kernel", "lacks XDP links", "Linux 5.9"],
        "Boot Linux 5.9 or later",
    );
}
