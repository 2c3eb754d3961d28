//! Two namespaces on one cable, the first of them filtered.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use pgfw::config::Attach;
use pgfw::datapath::{Attached, Choice, Control, Datapath, DatapathError};
use pgfw::policy::coverage::Compiled;
use pgfw_tests::lab::{Bpffs, Namespace, PATIENCE, Reach, join, tcp};

use pgfw_tests::bench::{PG, allowed, key, policy};

pub(crate) const HOST: &str = "10.9.0.1";
pub(crate) const GUEST: &str = "10.9.0.2";
/// How long a SYN that nobody answers is waited for.
pub(crate) const SHORT: Duration = Duration::from_millis(300);

/// Two machines on one cable; the first is filtered.
pub(crate) struct Pair {
    pub(crate) host: Namespace,
    pub(crate) guest: Namespace,
    pub(crate) bpffs: Bpffs,
}

impl Pair {
    pub(crate) fn new() -> Pair {
        let pair = Pair {
            host: Namespace::new("host"),
            guest: Namespace::new("guest"),
            bpffs: Bpffs::new(),
        };
        join((&pair.host, "eth0"), (&pair.guest, "eth0"));
        pair.host.ip(&format!("address add {HOST}/24 dev eth0"));
        pair.guest.ip(&format!("address add {GUEST}/24 dev eth0"));
        pair
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.bpffs.path().join("pgfw")
    }

    pub(crate) fn ifindex(&self) -> u32 {
        self.host.ifindex("eth0")
    }

    pub(crate) fn open(&self) -> Datapath {
        Datapath::open(&self.pins()).expect("a datapath")
    }

    /// Enforces `policy` as `generation`.
    pub(crate) fn enforce(&self, datapath: &mut Datapath, generation: u64, policy: &Compiled) {
        datapath.load(generation, policy).expect("a policy");
        datapath
            .set_control(Control {
                confirmed: Choice::Generation(generation),
                pending: None,
            })
            .expect("a control record");
        self.attach(datapath, Attach::Auto).expect("an attachment");
    }

    pub(crate) fn attach(&self, datapath: &mut Datapath, mode: Attach) -> Result<Attached, DatapathError> {
        let ifindex = self.ifindex();
        self.host.within(|| datapath.attach(ifindex, mode))
    }

    pub(crate) fn listen(&self, port: u16) -> TcpListener {
        self.host
            .within(|| TcpListener::bind((HOST, port)))
            .expect("a listener")
    }

    pub(crate) fn reach(&self, port: u16) -> Reach {
        tcp(&self.guest, HOST.parse().expect("an address"), port, SHORT)
    }

    pub(crate) fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        let to: SocketAddr = format!("{HOST}:{port}").parse().expect("an address");
        self.guest.within(|| TcpStream::connect_timeout(&to, SHORT))
    }
}

/// PostgreSQL for the guest's network only.
pub(crate) fn for_guests() -> Compiled {
    let mut policy = policy();
    policy.coverage.insert(key(PG, GUESTS), allowed());
    policy
}

pub(crate) const GUESTS: &str = "10.9.0.0/24";

/// Sends a byte each way.
pub(crate) fn talk(client: &mut TcpStream, server: &mut TcpStream) -> std::io::Result<()> {
    for stream in [&*client, &*server] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    let mut byte = [0];
    client.write_all(b"?")?;
    server.read_exact(&mut byte)?;
    server.write_all(b"!")?;
    client.read_exact(&mut byte)
}
