//! The programs' own counts, through reloads and restarts under a stream of probes: every packet was judged, by the old
//! policy or by the new one.

use std::net::Ipv4Addr;

use pgfw_tests::lab::{Instance, Namespace, PATIENCE, Site, Stream, eventually, ipv4, join, run};

use super::configured;

/// A service to which the first address always gets, the second never, and the third by every other policy.
fn policy(third: bool) -> String {
    let third = if third { ", \"10.3.0.0/16\"" } else { "" };
    format!(
        "[firewall]\ninterfaces = [\"eth*\"]\n[[service]]\nname = \"probe\"\nprotocol = \"udp\"\nports = [\"7777\"]\n\
         allow = [\"10.1.0.0/16\"{third}]\n"
    )
}

const SOURCES: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 1, 0, 1),
    Ipv4Addr::new(10, 2, 0, 1),
    Ipv4Addr::new(10, 3, 0, 1),
];

/// Packets a second, on each interface.
const RATE: u32 = 10_000;

const RELOADS: usize = 100;

/// Probes from the three in turn.
fn probes(from: &Namespace, to: Ipv4Addr) -> Stream {
    let datagram = pgfw_common::frames::udp(40_000, 7777, &[0; 8]);
    Stream::start(from, to, Some(RATE), move |n| {
        ipv4(SOURCES[(n % 3) as usize], to, 17, &datagram)
    })
}

/// What the sender's device could not hand over: the receiver was not there to take it.
fn undelivered(from: &Namespace, device: &str) -> u64 {
    let shown = run(from
        .command("ip")
        .args(["-s", "-j", "link", "show", "dev", device]))
    .expect_success();
    let json: serde_json::Value = serde_json::from_str(&shown).unwrap();
    json[0]["stats64"]["tx"]["dropped"].as_u64().unwrap()
}

/// Packets on an interface that the service let in, that it did not, and all others.
fn counted(pgfw: &Instance<'_>, interface: &str) -> (u64, u64, u64) {
    let status = pgfw.status();
    let all = status.0["interfaces"].as_array().unwrap();
    let one = all.iter().find(|i| i["name"] == interface).unwrap();
    let count = |reason: &str| one["reasons"][reason].as_u64().unwrap_or(0);
    let (service, closed) = (count("service"), count("service-closed"));
    let sum: u64 = one["reasons"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(|n| n.as_u64())
        .sum();
    (service, closed, sum - service - closed)
}

#[test]
fn f34_f35_f44_every_packet_is_judged_by_the_old_policy_or_the_new_one() {
    let site = Site::new();
    join((&site.router, "second"), (&site.db, "eth1"));
    site.router.ip("address add 10.11.0.1/24 dev second");
    site.db.ip("address add 10.11.0.10/24 dev eth1");
    let pgfw = configured(&site, &policy(false));
    let mut daemon = pgfw.enforce();
    let ports = [
        ("eth0", "db", Ipv4Addr::new(10, 10, 0, 10)),
        ("eth1", "second", Ipv4Addr::new(10, 11, 0, 10)),
    ];
    // Neighbours are found before, so that no probe waits for one.
    for (_, _, to) in ports {
        run(site
            .router
            .command("ping")
            .args(["-c", "1", "-W", "1", &to.to_string()]));
    }
    let before: Vec<_> = ports
        .iter()
        .map(|(name, device, _)| (counted(&pgfw, name), undelivered(&site.router, device)))
        .collect();
    let streams: Vec<Stream> = ports.iter().map(|(_, _, to)| probes(&site.router, *to)).collect();

    let mut last = vec![(0, 0); ports.len()];
    for n in 0..RELOADS {
        pgfw.configure(&policy(n % 2 == 0));
        pgfw.ok(&["reload"]);
        match n % 20 {
            // A crash, and an upgrade to a binary of the same ABI.
            9 => {
                daemon.kill();
                daemon = pgfw.start();
            }
            19 => {
                assert!(daemon.stop().success());
                daemon = pgfw.start();
            }
            _ => continue,
        }
        for ((name, _, _), last) in ports.iter().zip(&mut last) {
            let (service, closed, _) = counted(&pgfw, name);
            assert!(
                service >= last.0 && closed >= last.1,
                "counters of {name} went back"
            );
            *last = (service, closed);
        }
    }

    let sent: Vec<u64> = streams.into_iter().map(Stream::stop).collect();
    for (((name, device, _), before), sent) in ports.iter().zip(before).zip(sent) {
        let ((service_before, closed_before, _), lost_before) = before;
        // A packet that passed without a policy would be counted nowhere.
        let (service, closed) = eventually(&format!("{sent} probes are counted on {name}"), PATIENCE, || {
            let (service, closed, _) = counted(&pgfw, name);
            let (service, closed) = (service - service_before, closed - closed_before);
            let lost = undelivered(&site.router, device) - lost_before;
            assert!(service + closed <= sent, "{name}: {service} + {closed} of {sent}");
            (service + closed + lost == sent).then_some((service, closed))
        });
        let lost = undelivered(&site.router, device) - lost_before;
        let third = sent / 3;
        assert!(
            service + lost >= third,
            "{name}: who may always was refused: {service} of {sent}"
        );
        assert!(
            closed + lost >= third,
            "{name}: who never may got in: {closed} of {sent}"
        );
        // Both policies were at work.
        assert!(
            service > third + third / 10 && closed > third + third / 10,
            "{name}: {service}, {closed} of {sent}"
        );
    }
}

/// As the pins of a pgfw of another ABI lie there: whatever they hold, nothing of it is looked into.
#[test]
fn f35_a_changed_abi_takes_over_the_links_and_nothing_slips_through() {
    let site = Site::new();
    let pgfw = configured(&site, &policy(false));
    let daemon = pgfw.enforce();
    let to = Ipv4Addr::new(10, 10, 0, 10);
    let server = site
        .db
        .within(|| std::net::UdpSocket::bind((to, 7777)).expect("a server"));
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || match server.recv_from(&mut [0; 64]).expect("who may gets here").1.ip() {
        std::net::IpAddr::V4(source) => assert_eq!(source, SOURCES[0]),
        std::net::IpAddr::V6(source) => panic!("{source}"),
    };
    let stream = probes(&site.router, to);
    heard();

    assert!(daemon.stop().success());
    let (ours, other) = (format!("v{}", pgfw_common::record::ABI), "v1");
    let pin = |name: &str| std::path::Path::new("/sys/fs/bpf/pgfw").join(name);
    site.db
        .within(|| std::fs::rename(pin(&ours), pin(other)).unwrap());
    let daemon = pgfw.start();
    // Everything that was sent up to here, and what is sent from here on.
    server.set_nonblocking(true).unwrap();
    while let Ok((_, source)) = server.recv_from(&mut [0; 64]) {
        assert_eq!(source.ip(), SOURCES[0]);
    }
    server.set_nonblocking(false).unwrap();
    for _ in 0..1_000 {
        heard();
    }
    stream.stop();
    assert!(!daemon.log().contains("cannot be attached"), "{}", daemon.log());
    assert!(pgfw.status().packets("service-closed") > 0);
    site.db.within(|| {
        assert!(pin(&ours).is_dir());
        assert!(!pin(other).exists(), "what the other left is still there");
    });
}
