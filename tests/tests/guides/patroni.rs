//! docs/guides/patroni.md: three nodes that talk both ways, a load balancer, and everybody else.

use pgfw_tests::lab::{Namespace, PATIENCE};

use super::guide::Guide;
use super::lan::{DB, Lan, NOBODY, configured, gets_in, is_refused, serve, v4};

const NODES: [u8; 2] = [11, 12];
const BALANCER: u8 = 40;
const POSTGRES: u16 = 5432;
const PATRONI: u16 = 8008;
const ETCD: [u16; 2] = [2379, 2380];

#[test]
fn nodes_reach_each_other_and_the_balancer_what_it_asks() {
    let lan = Lan::new();
    let nodes = NODES.map(|number| lan.neighbour("node", number));
    let balancer = lan.neighbour("balancer", BALANCER);
    let nobody = lan.neighbour("nobody", NOBODY);
    let ports = [&[POSTGRES, PATRONI][..], &ETCD].concat();
    let serve_all = |on: &Namespace| ports.iter().map(|port| serve(on, *port)).collect::<Vec<_>>();
    let _own = serve_all(&lan.db);
    let _theirs = nodes.each_ref().map(serve_all);
    // etcd's members hold connections to each other, both ways.
    let mut peers = [
        gets_in(&nodes[0], DB, ETCD[1]),
        gets_in(&lan.db, v4(NODES[0]), ETCD[1]),
    ];

    let config = Guide::read("patroni").block("pgfw.toml on every node");
    let pgfw = configured(&lan.db, &config, None);
    let _daemon = pgfw.enforce();
    assert!(peers.iter_mut().all(|peer| peer.flows()));
    for port in &ports {
        for (node, number) in nodes.iter().zip(NODES) {
            gets_in(node, DB, *port);
            gets_in(&lan.db, v4(number), *port);
        }
        for stranger in [&nobody, &lan.stranger, &lan.client] {
            is_refused(&pgfw, stranger, *port, "service-closed");
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
