//! The outside judge: the same packets at two hosts, one behind pgfw, one behind the classic rules of `iptables` and
//! `ip6tables`, and a look at which of them reached the stack. Every difference has its row in `docs/differences.md`.

mod corpus;
mod craft;
mod differences;
mod flow;
mod generate;
mod nflog;
mod side;

use pgfw::config::Attach;
use pgfw::datapath::{Choice, Control, Datapath};
use pgfw::policy::coverage::{Compiled, Coverage, CoverageKey, ServiceId, ServicePort, Until};
use pgfw_tests::lab::Bpffs;

use differences::{Found, class, rows};
use generate::cases;
use side::Machines;

/// What everybody writes, with one more service that both give to the same networks.
const CLASSIC: &str = "*filter
:INPUT DROP
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT
-A INPUT -p tcp --dport 5432 -s 10.20.0.0/16 -m conntrack --ctstate NEW -j ACCEPT
-A INPUT -p udp --dport 9 -s 10.20.0.0/16,10.9.0.254 -j ACCEPT
COMMIT
";

/// The same, and what IPv6 needs to live (RFC 4890, 4.4).
const CLASSIC_V6: &str = "*filter
:INPUT DROP
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p icmpv6 --icmpv6-type 134 -m hl --hl-eq 255 -j ACCEPT
-A INPUT -p icmpv6 --icmpv6-type 135 -m hl --hl-eq 255 -j ACCEPT
-A INPUT -p icmpv6 --icmpv6-type 136 -m hl --hl-eq 255 -j ACCEPT
-A INPUT -p icmpv6 --icmpv6-type 130 -s fe80::/10 -j ACCEPT
-A INPUT -p icmpv6 --icmpv6-type 131 -s fe80::/10 -j ACCEPT
-A INPUT -p icmpv6 --icmpv6-type 132 -s fe80::/10 -j ACCEPT
-A INPUT -p icmpv6 --icmpv6-type 143 -s fe80::/10 -j ACCEPT
-A INPUT -p icmpv6 --icmpv6-type 131 -s ::/128 -j ACCEPT
-A INPUT -p icmpv6 --icmpv6-type 132 -s ::/128 -j ACCEPT
-A INPUT -p icmpv6 --icmpv6-type 143 -s ::/128 -j ACCEPT
-A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT
-A INPUT -p tcp --dport 5432 -s fd00:20::/64 -m conntrack --ctstate NEW -j ACCEPT
-A INPUT -p udp --dport 9 -s fd00:20::/64 -j ACCEPT
COMMIT
";

/// Enough that every class below comes again and again; another seed by `PGFW_JUDGE_SEED`, more by `PGFW_JUDGE_CASES`.
const CASES: u64 = 39_000;
const SEED: u64 = 5432;

#[test]
fn pgfw_and_the_classic_rules_let_the_same_packets_in() {
    let setting =
        |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().expect("a number"));
    let (seed, number) = (
        setting("PGFW_JUDGE_SEED", SEED),
        setting("PGFW_JUDGE_CASES", CASES),
    );
    let cases = cases(seed, number);

    let bpffs = Bpffs::new();
    let mut datapath = Datapath::open(&bpffs.path().join("pgfw")).expect("a datapath");
    let ours = Machines::new("pgfw", ["", ""]);
    let theirs = Machines::new("classic", [CLASSIC, CLASSIC_V6]);
    datapath.load(1, &policy()).expect("a policy");
    datapath
        .set_control(Control {
            confirmed: Choice::Generation(1),
            pending: None,
        })
        .expect("a control record");
    let ifindex = ours.host.ifindex("eth0");
    ours.host
        .within(|| datapath.attach(ifindex, Attach::Auto))
        .expect("an attachment");

    let (pgfw, classic) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| theirs.run(&cases, None));
        let ours = ours.run(&cases, Some(&datapath));
        (ours, theirs.join().expect("the classic side ran"))
    });

    let mut found = Found::default();
    let (mut passed, mut packets) = (0, 0);
    for ((case, pgfw), classic) in cases.iter().zip(&pgfw).zip(&classic) {
        packets += pgfw.frames.len();
        passed += usize::from(!pgfw.reached.is_empty() && !classic.reached.is_empty());
        if let Some(class) = class(pgfw, classic) {
            found.add(class, case, pgfw, classic);
        }
    }
    println!(
        "seed {seed}: {} cases, {packets} packets, {passed} let in by both, {} classes of difference",
        cases.len(),
        found.0.len()
    );
    // A judge that hears nothing agrees with everybody.
    assert!(packets >= 20_000 && passed > cases.len() / 10);

    let rows = rows(include_str!("../../../docs/differences.md"));
    let mut wrong = String::new();
    for (class, (count, examples)) in &found.0 {
        println!("{class} {count}");
        if !rows.contains(class) {
            wrong += &format!("\nno row for {class} ({count} cases):\n{}\n", examples.join("\n"));
        }
    }
    for row in rows.iter().filter(|row| !found.0.contains_key(row)) {
        wrong += &format!("\na row that no longer occurs: {row}\n");
    }
    assert!(wrong.is_empty(), "seed {seed}:\n{wrong}");
}

/// SSH for the world, PostgreSQL for two networks.
fn policy() -> Compiled {
    let mut policy = Compiled::default();
    let (ssh, postgres, marker) = (ServiceId(1), ServiceId(2), ServiceId(3));
    for (protocol, port, service, name) in [
        (6, 22, ssh, "ssh"),
        (6, 5432, postgres, "postgres main"),
        (17, side::MARKER, marker, "marker"),
    ] {
        policy.services.insert(ServicePort { protocol, port }, service);
        policy.names.insert(service, name.to_owned());
    }
    for (service, net, world) in [
        (ssh, "0.0.0.0/0", true),
        (ssh, "::/0", true),
        (postgres, "10.20.0.0/16", false),
        (postgres, "fd00:20::/64", false),
        (marker, "10.20.0.0/16", false),
        (marker, "10.9.0.254/32", false),
        (marker, "fd00:20::/64", false),
    ] {
        let net = net.parse().expect("a network");
        let coverage = Coverage {
            deny: Until::Absent,
            allow: Until::Forever,
            world,
        };
        policy.coverage.insert(CoverageKey { service, net }, coverage);
    }
    policy
}
