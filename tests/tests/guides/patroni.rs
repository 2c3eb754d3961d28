//! docs/guides/patroni.md: a real Patroni over a real etcd, whose leader moves through the filters of its nodes.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use pgfw_tests::lab::{Child, Host, Instance, Namespace, PATIENCE, PgCluster, Psql, eventually};

use super::guide::Guide;
use super::lan::{DB, Lan, NOBODY, configured, gets_in, is_refused, serve, v4};

const SECOND: u8 = 11;
const WITNESS: u8 = 12;
const BALANCER: u8 = 40;
const POSTGRES: u16 = PgCluster::PORT;
const PATRONI: u16 = 8008;
const ETCD: [u16; 2] = [2379, 2380];
const ALL: [u16; 4] = [POSTGRES, PATRONI, ETCD[0], ETCD[1]];

/// How long a base backup or a change of leaders may take on a loaded machine.
const LONG: Duration = Duration::from_secs(45);

fn config() -> String {
    Guide::read("patroni").block("pgfw.toml on every node")
}

/// One of three members, each of which has to reach the others.
fn etcd(node: &Host, number: u8) -> Child {
    let at = |port: u16| format!("http://10.10.0.{number}:{port}");
    let members = [10, SECOND, WITNESS].map(|n| format!("node{n}=http://10.10.0.{n}:2380"));
    let mut command = node.command("etcd");
    for (key, value) in [
        ("name", format!("node{number}")),
        ("data-dir", "/var/lib/etcd-guide".to_owned()),
        ("listen-client-urls", at(ETCD[0])),
        ("advertise-client-urls", at(ETCD[0])),
        ("listen-peer-urls", at(ETCD[1])),
        ("initial-advertise-peer-urls", at(ETCD[1])),
        ("initial-cluster", members.join(",")),
        ("initial-cluster-state", "new".to_owned()),
    ] {
        command.arg(format!("--{key}={value}"));
    }
    Child::start(command.current_dir("/")).talkative()
}

/// Patroni by the guide's settings. It leaves its server running when it is killed, so both get a process
/// namespace that ends with them.
fn patroni(node: &Host, number: u8) -> Child {
    let settings = Guide::read("patroni").block("/etc/patroni/config.yml");
    let own = ["name: node", "listen: 10.10.0.", "connect_address: 10.10.0."];
    let settings = own.iter().fold(settings, |text, key| {
        text.replace(&format!("{key}10"), &format!("{key}{number}"))
    });
    // Patroni looks around every ten seconds, which a test would spend waiting.
    assert!(settings.contains("loop_wait: 10\n"));
    let settings = settings.replace("loop_wait: 10\n", "loop_wait: 1\n");
    node.write("/etc/patroni/config.yml", &settings);
    let mut command = node.command("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "setpriv"]);
    // Changing the user clears what `--kill-child` arranged.
    command.args([
        "--reuid",
        "postgres",
        "--regid",
        "postgres",
        "--init-groups",
        "--pdeathsig",
        "KILL",
    ]);
    command.args(["patroni", "/etc/patroni/config.yml"]).env_clear();
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8");
    Child::start(command.current_dir("/")).talkative()
}

/// The status of an HTTP request to Patroni.
fn asks(from: &Namespace, to: IpAddr, request: &str) -> Option<String> {
    from.within(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, PATRONI), PATIENCE).ok()?;
        stream.set_read_timeout(Some(LONG)).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.split(' ').nth(1)?.to_owned())
    })
}

/// What the load balancer asks.
fn leads(balancer: &Namespace, node: IpAddr) -> bool {
    asks(balancer, node, "GET /primary HTTP/1.0\r\n\r\n").as_deref() == Some("200")
}

fn sql(node: &Host, text: &str) -> String {
    let psql = Psql::as_user(node, "postgres").set("host", "/run/postgresql");
    psql.set("user", "postgres")
        .set("dbname", "postgres")
        .query(text)
        .stdout
}

#[test]
fn the_leader_moves_through_the_filters_of_its_nodes() {
    let lan = Lan::new();
    let (second, witness) = (lan.host("second", SECOND), lan.host("witness", WITNESS));
    let balancer = lan.neighbour("balancer", BALANCER);
    let machines = [&lan.db, &second, &witness];
    // Closed before anything talks: whatever is missing in the guide is missed here.
    let nodes = machines.map(|node| configured(node, &config(), None));
    let _daemons = nodes.each_ref().map(Instance::enforce);
    let numbered = machines.into_iter().zip([10, SECOND, WITNESS]);
    let _etcd: Vec<_> = numbered.map(|(node, number)| etcd(node, number)).collect();

    let _first = patroni(&lan.db, 10);
    eventually("the first node leads", LONG, || {
        leads(&balancer, DB).then_some(())
    });
    let _second = patroni(&second, SECOND);
    eventually("the second node streams", LONG, || {
        let streaming = "select count(*) from pg_stat_replication where state = 'streaming'";
        (sql(&lan.db, streaming) == "1\n").then_some(())
    });
    assert!(!leads(&balancer, v4(SECOND)));
    // Seen as the guide has it: the rules are Patroni's, the filter's openings are theirs.
    let adopted = nodes[0].ok(&["pg", "adopt", "/var/lib/postgresql/15/main"]);
    for expected in [
        "manage = \"none\"",
        "Patroni writes pg_hba.conf",
        "\"10.10.0.40/32\"",
    ] {
        assert!(adopted.contains(expected), "no {expected} in:\n{adopted}");
    }
    assert!(!adopted.contains("[[login]]"), "{adopted}");
    sql(&lan.db, "create table one as select 42 as answer");

    let body = r#"{"leader":"node10","candidate":"node11"}"#;
    let switchover = format!(
        "POST /switchover HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    eventually("the nodes agree to switch", LONG, || {
        (asks(&second, DB, &switchover).as_deref() == Some("200")).then_some(())
    });
    eventually("the second node leads", LONG, || {
        leads(&balancer, v4(SECOND)).then_some(())
    });
    sql(&second, "create table two as select 43 as answer");
    eventually("the first node follows", LONG, || {
        (sql(&lan.db, "select * from one, two") == "42|43\n").then_some(())
    });
    // Nothing of all that was dropped on its way.
    for node in &nodes {
        let status = node.status();
        for reason in ["new-tcp", "service-closed", "udp"] {
            assert_eq!(status.packets(reason), 0, "{reason}");
        }
    }
}

#[test]
fn nodes_reach_each_other_and_the_balancer_what_it_asks() {
    let lan = Lan::new();
    let nodes = [SECOND, WITNESS].map(|number| lan.neighbour("node", number));
    let balancer = lan.neighbour("balancer", BALANCER);
    let nobody = lan.neighbour("nobody", NOBODY);
    let serve_all = |on: &Namespace| ALL.map(|port| serve(on, port));
    let _own = serve_all(&lan.db);
    let _theirs = nodes.each_ref().map(serve_all);
    // etcd's members hold connections to each other, both ways.
    let mut peers = [
        gets_in(&nodes[0], DB, ETCD[1]),
        gets_in(&lan.db, v4(SECOND), ETCD[1]),
    ];

    let pgfw = configured(&lan.db, &config(), None);
    let _daemon = pgfw.enforce();
    assert!(peers.iter_mut().all(|peer| peer.flows()));
    for port in ALL {
        for (node, number) in nodes.iter().zip([SECOND, WITNESS]) {
            gets_in(node, DB, port);
            gets_in(&lan.db, v4(number), port);
        }
        for stranger in [&nobody, &lan.stranger, &lan.client] {
            is_refused(&pgfw, stranger, port, "service-closed");
        }
    }
    for port in [POSTGRES, PATRONI] {
        gets_in(&balancer, DB, port);
    }
    for port in ETCD {
        is_refused(&pgfw, &balancer, port, "service-closed");
    }
    for beside in [2378, 2381, 8007, 8009] {
        is_refused(&pgfw, &nodes[0], beside, "new-tcp");
    }
    // What the guide warns of: a node that is denied is cut where it began. What this node began goes on.
    pgfw.ok(&["deny", "10.10.0.11/32"]);
    assert!(peers[0].ends_by_itself(PATIENCE));
    assert!(peers[1].flows());
    is_refused(&pgfw, &nodes[0], PATRONI, "service-denied");
    gets_in(&nodes[1], DB, PATRONI);
}
