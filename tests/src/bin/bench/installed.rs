//! A host on which pgfw is installed and runs as a service would, with as much in its ledger as is asked for.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use pgfw::clock::Now;
use pgfw::ledger::Ledger;
use pgfw::ledger::types::{EntryKind, NewEntry};
use pgfw_tests::lab::{Host, Instance, Namespace, join};

/// A host and a neighbour.
pub(crate) struct Machine {
    pub(crate) host: Host,
    _neighbour: Namespace,
}

/// Where the host can be reached.
pub(crate) const ADDRESS: &str = "10.10.0.10";

impl Machine {
    pub(crate) fn new(name: &str) -> Machine {
        let host = Host::new(name);
        let neighbour = Namespace::new("neighbour");
        join((&host, "eth0"), (&neighbour, "eth0"));
        host.ip(&format!("address add {ADDRESS}/24 dev eth0"));
        Machine {
            host,
            _neighbour: neighbour,
        }
    }

    pub(crate) fn pgfw(&self) -> Instance<'_> {
        let pgfw = Instance::new(&self.host);
        pgfw.configure(&config(&[]));
        pgfw
    }

    /// Allows networks as `pgfw allow` would have, one by one, before a daemon runs.
    pub(crate) fn allow(&self, networks: impl IntoIterator<Item = IpNet> + Send) {
        self.host.within(|| {
            let mut ledger = Ledger::open(Path::new("/var/lib/pgfw/ledger.db")).expect("a ledger");
            for net in networks {
                let new = NewEntry {
                    kind: EntryKind::Allow,
                    net,
                    service: None,
                    end: None,
                    comment: None,
                    requester: "bench".into(),
                    generation: None,
                };
                ledger.put_entry(&new, Now::read().wall()).expect("an entry");
            }
        });
    }
}

/// A cluster that is open to one network and to these.
pub(crate) fn config(networks: &[IpNet]) -> String {
    let list: Vec<String> = networks.iter().map(|net| format!("\"{net}\", ")).collect();
    format!(
        "[firewall]\ninterfaces = [\"eth0\"]\n\n[[postgres]]\nname = \"main\"\ncluster = \"15/main\"\n\
         manage = \"none\"\nallow = [{}\"10.20.0.0/16\"]\n",
        list.concat()
    )
}

/// An address in a network that is nobody's otherwise: number so and so of 10.99.0.0/16.
pub(crate) fn newcomer(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    IpAddr::from([10, 99, high, low])
}
