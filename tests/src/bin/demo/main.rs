//! The main job of pgfw on screen: a database host, a client, a stranger; every step checked.

mod screen;
mod steps;

use pgfw_tests::lab::{Instance, PgCluster, Site, Sshd};

use screen::{caption, command, fail, note};
use steps::Cast;

fn main() {
    let keep = std::env::args().any(|a| a == "--keep");
    if !nix::unistd::geteuid().is_root() {
        fail("the demo makes network namespaces and needs root; run it as: sudo cargo xtask demo");
    }
    let site = Site::new();
    caption(
        "A database host with PostgreSQL and sshd, a client in 10.20.0.0/16, a stranger in 192.168.1.0/24",
    );
    let _sshd = Sshd::start(&site.db, 22);
    let cluster = PgCluster::start_new(&site.db);
    note(&format!(
        "PostgreSQL {} listens on every address of 10.10.0.10; nothing filters yet.",
        cluster.name()
    ));
    let pgfw = Instance::new(&site.db);
    let files = tempfile::tempdir().unwrap_or_else(|e| fail(&format!("no temporary folder: {e}")));

    let mut cast = Cast::new(&site, &pgfw, &cluster, files.path());
    cast.set_up();
    let daemon = cast.enforce();
    cast.alice_logs_in();
    cast.the_wrong_ones_are_refused();
    cast.the_stranger_finds_ssh_only();
    cast.a_network_opens_and_closes();
    cast.alice_is_revoked();
    let daemon = cast.the_daemon_dies_and_comes_back(daemon);
    if keep {
        hold(&site, daemon.pid());
    }
    cast.off(daemon);
    caption("Done: every step came out as it should.");
}

/// Waits until the visitor has seen enough; the lab goes with this process.
fn hold(site: &Site, pid: i32) {
    caption("The lab stays up");
    note(&format!(
        "The daemon is pid {pid}. From another terminal, as root:"
    ));
    let pgfw = pgfw_tests::lab::product();
    for (who, how) in [
        (
            "on the database host",
            format!("{} {} status", site.db.entrance(), pgfw.display()),
        ),
        ("a shell there", format!("{} bash", site.db.entrance())),
        (
            "a shell at the client",
            format!("nsenter --net={} bash", site.client.path()),
        ),
        (
            "a shell at the stranger",
            format!("nsenter --net={} bash", site.stranger.path()),
        ),
    ] {
        note(&format!("{who}:"));
        command(&how);
    }
    note("Press Enter here to take the lab down (without a terminal: end this process).");
    let mut line = String::new();
    if !matches!(std::io::stdin().read_line(&mut line), Ok(1..)) {
        loop {
            std::thread::park();
        }
    }
}
