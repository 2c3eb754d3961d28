//! The guest's own NICs: two of virtio, on one cable.

use std::time::Duration;

use pgfw::config::Attach;
use pgfw::datapath::{Choice, Control, Datapath, Mode};
use pgfw::policy::coverage::{Compiled, ServiceId, ServicePort, Settings};
use pgfw_tests::lab::guest::{fact, in_guest, lacking};
use pgfw_tests::lab::{Bpffs, EchoServer, Namespace, Reach, Talk, run, tcp};

/// Names of the machine's virtio NICs.
fn nics() -> Vec<String> {
    let Ok(devices) = std::fs::read_dir("/sys/class/net") else {
        return Vec::new();
    };
    let mut names: Vec<String> = devices
        .flatten()
        .filter(|device| {
            std::fs::read_link(device.path().join("device/driver"))
                .is_ok_and(|driver| driver.ends_with("virtio_net"))
        })
        .map(|device| device.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// PostgreSQL is open to nobody, SSH to all.
fn policy() -> Compiled {
    let mut policy = Compiled {
        settings: Settings::default(),
        ..Compiled::default()
    };
    for (port, service) in [(22, ServiceId(1)), (5432, ServiceId(2))] {
        policy.services.insert(ServicePort { protocol: 6, port }, service);
    }
    let everyone = pgfw::policy::coverage::CoverageKey {
        service: ServiceId(1),
        net: "0.0.0.0/0".parse().unwrap(),
    };
    let open = pgfw::policy::coverage::Coverage {
        deny: pgfw::policy::coverage::Until::Absent,
        allow: pgfw::policy::coverage::Until::Forever,
        world: true,
    };
    policy.coverage.insert(everyone, open);
    policy
}

#[test]
fn f31_a_virtio_nic_takes_a_program_and_says_how() {
    let nics = nics();
    let [here, there] = &nics[..] else {
        assert!(in_guest(), "only a guest has two virtio NICs");
        return lacking("two virtio NICs");
    };
    // A NIC goes back to the first namespace when its own ends.
    let (host, peer) = (Namespace::new("host"), Namespace::new("peer"));
    for (nic, namespace, address) in [(here, &host, "10.9.0.1"), (there, &peer, "10.9.0.2")] {
        let mut ip = std::process::Command::new("ip");
        run(ip.args(["link", "set", "dev", nic, "netns", &namespace.path()])).expect_success();
        namespace.ip(&format!("address add {address}/24 dev {nic}\nlink set {nic} up"));
    }
    let bpffs = Bpffs::new();
    let mut datapath = Datapath::open(&bpffs.path().join("pgfw")).unwrap();
    datapath.load(1, &policy()).unwrap();
    datapath
        .set_control(Control {
            confirmed: Choice::Generation(1),
            pending: None,
        })
        .unwrap();
    let ifindex = host.ifindex(here);
    let native = host.within(|| datapath.attach(ifindex, Attach::Native));
    match &native {
        Ok(attached) => {
            assert_eq!(attached.mode, Some(Mode::Native));
            fact("virtio-net, native", "attached");
        }
        Err(refused) => {
            // A program wants a queue for each CPU beside those in use, which this NIC has not (5.10).
            fact("virtio-net, native", &refused.to_string());
            assert!(refused.to_string().contains(here.as_str()), "{refused}");
        }
    }
    if native.is_ok() {
        works(&host, &peer);
        host.within(|| datapath.detach(ifindex)).unwrap();
    }
    let auto = host.within(|| datapath.attach(ifindex, Attach::Auto)).unwrap();
    let mode = auto.mode.expect("a mode");
    fact("virtio-net, auto", &mode.to_string());
    assert_eq!(mode == Mode::Native, native.is_ok());
    works(&host, &peer);
    host.within(|| datapath.detach(ifindex)).unwrap();
}

fn works(host: &Namespace, peer: &Namespace) {
    let _ssh = EchoServer::start(host, "10.9.0.1:22");
    let _postgres = EchoServer::start(host, "10.9.0.1:5432");
    let to = "10.9.0.1".parse().unwrap();
    assert!(Talk::open(peer, to, 22).carries_a_megabyte());
    assert_eq!(tcp(peer, to, 5432, Duration::from_millis(500)), Reach::Silent);
}
