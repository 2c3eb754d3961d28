//! One judged host: what stands before it, the same observer behind it, and the cable it hears the packets from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use std::io::Write;

use pgfw::datapath::Datapath;
use pgfw_common::frames::{Frame, NETWORK};
use pgfw_common::reason::{Action, Reason};
use pgfw_tests::lab::{Namespace, join};

use crate::craft::Ends;
use crate::flow::{Cable, Flow, Servers};
use crate::generate::Case;
use crate::nflog::{Nflog, Seen};

pub(crate) const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
pub(crate) const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1));
pub(crate) const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 254));
/// The link-local address that follows from the interface's own (RFC 4291, appendix A).
pub(crate) const HOST_LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x00ff, 0xfe00, 1));

/// A service of both hosts that the gateway may use: its packet says that all before it are through.
pub(crate) const MARKER: u16 = 9;

/// What conntrack called a packet, in the words of `--ctstate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tracked {
    Invalid = 1,
    New = 2,
    Established = 3,
    Related = 4,
    Untracked = 5,
}

impl Tracked {
    const ALL: [(Tracked, &'static str); 5] = [
        (Tracked::Invalid, "INVALID"),
        (Tracked::New, "NEW"),
        (Tracked::Established, "ESTABLISHED"),
        (Tracked::Related, "RELATED"),
        (Tracked::Untracked, "UNTRACKED"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Tracked::ALL[self as usize - 1].1
    }

    fn from_mark(mark: u32) -> Tracked {
        let known = Tracked::ALL.into_iter().find(|(state, _)| *state as u32 == mark);
        known.unwrap_or_else(|| panic!("no rule sets mark {mark}")).0
    }
}

/// What became of the packets of one case.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) frames: Vec<Frame>,
    /// What came to INPUT, before the classic rules.
    pub(crate) came: Vec<Tracked>,
    /// What is past them: this reached the stack.
    pub(crate) reached: Vec<Tracked>,
    /// What pgfw said about each frame; empty on the classic side.
    pub(crate) reasons: Vec<Reason>,
}

/// Before and after the filter table's INPUT.
const BEFORE: u16 = 5;
const AFTER: u16 = 6;
const WAIT: Duration = Duration::from_secs(5);

/// The two machines of one side.
pub(crate) struct Machines {
    pub(crate) host: Namespace,
    outside: Namespace,
}

impl Machines {
    /// A host whose only neighbour is a cable's end without a stack; `filter` is the filter table of either family.
    pub(crate) fn new(name: &str, filter: [&str; 2]) -> Machines {
        let (host, outside) = (Namespace::new(name), Namespace::new("outside"));
        outside.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        for (key, value) in [
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/conf/all/accept_redirects", "0"),
            ("ipv4/conf/default/accept_redirects", "0"),
            ("ipv6/conf/default/accept_redirects", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv4/icmp_ratelimit", "0"),
            // Thousands of half-open connections and datagrams without an end must not outlive their cases.
            ("ipv4/tcp_max_syn_backlog", "65536"),
            ("core/somaxconn", "65536"),
            ("ipv4/tcp_synack_retries", "0"),
            ("ipv4/ipfrag_time", "1"),
            ("ipv6/ip6frag_time", "1"),
        ] {
            host.sysctl(&format!("net/{key}"), value);
        }
        join((&host, "eth0"), (&outside, "eth0"));
        outside.ip("link set eth0 arp off");
        host.ip("link set eth0 down\n\
             link set eth0 address 02:00:00:00:00:01\n\
             link set eth0 up\n\
             address add 10.9.0.1/24 dev eth0\n\
             address add fd00:9::1/64 dev eth0 nodad\n\
             neighbour replace 10.9.0.254 lladdr 02:00:00:00:00:02 dev eth0 nud permanent\n\
             neighbour replace fd00:9::fe lladdr 02:00:00:00:00:02 dev eth0 nud permanent\n\
             route add default via 10.9.0.254\n\
             route add ::/0 via fd00:9::fe");
        for (program, filter) in ["iptables-restore", "ip6tables-restore"].into_iter().zip(filter) {
            restore(&host, program, &format!("{OBSERVER}{filter}"));
        }
        Machines { host, outside }
    }

    /// Runs all cases, on a thread inside the host. With a datapath, also says what that makes of each frame.
    pub(crate) fn run(&self, cases: &[Case], datapath: Option<&Datapath>) -> Vec<Outcome> {
        let cable = self.outside.within(open_cable);
        let ifindex = self.host.ifindex("eth0");
        self.host.within(|| {
            stay_on_this_cpu();
            let servers = [22, 5432].map(|port| {
                let server = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("a server");
                // SAFETY: listen(2) takes no pointers. Again, with room for more than the usual 128.
                assert_eq!(unsafe { libc::listen(server.as_raw_fd(), 16_384) }, 0);
                server
                    .set_nonblocking(true)
                    .expect("a socket can be told not to wait");
                server
            });
            let mut side = Side {
                cable: Cable(cable),
                servers: Servers(servers.into()),
                _marker: UdpSocket::bind((HOST, MARKER)).expect("a socket"),
                nflog: Nflog::open(&[BEFORE, AFTER]),
                judge: datapath.map(|datapath| (datapath, ifindex)),
                markers: 0,
            };
            cases.iter().map(|case| side.run(case)).collect()
        })
    }
}

/// Marks every packet that comes to INPUT by its state and shows it before and after the filter table.
/// It also makes conntrack put fragments together and see everything on both hosts alike.
const OBSERVER: &str = "*mangle
-A INPUT -m conntrack --ctstate INVALID -j MARK --set-mark 1
-A INPUT -m conntrack --ctstate NEW -j MARK --set-mark 2
-A INPUT -m conntrack --ctstate ESTABLISHED -j MARK --set-mark 3
-A INPUT -m conntrack --ctstate RELATED -j MARK --set-mark 4
-A INPUT -m conntrack --ctstate UNTRACKED -j MARK --set-mark 5
-A INPUT -i eth0 -j NFLOG --nflog-group 5
COMMIT
*security
-A INPUT -i eth0 -j NFLOG --nflog-group 6
COMMIT
";

struct Side<'datapath> {
    cable: Cable,
    servers: Servers,
    _marker: UdpSocket,
    nflog: Nflog,
    judge: Option<(&'datapath Datapath, u32)>,
    markers: u32,
}

impl Side<'_> {
    fn run(&mut self, case: &Case) -> Outcome {
        let flow = Flow::open(case.setting, case.ends, &self.cable, &self.servers);
        self.observe();
        let frames = case.frames(&flow);
        let mut reasons = Vec::new();
        for frame in &frames {
            if let Some((datapath, ifindex)) = self.judge {
                let answer = datapath.check(1, &frame.0, Some(ifindex)).expect("an answer");
                reasons.push(answer.reason);
            }
            self.cable.send(frame);
        }
        let mut outcome = Outcome {
            frames,
            came: Vec::new(),
            reached: Vec::new(),
            reasons,
        };
        for seen in self.observe() {
            let list = match seen.group {
                BEFORE => &mut outcome.came,
                _ => &mut outcome.reached,
            };
            list.push(Tracked::from_mark(seen.mark));
        }
        let all_drop = outcome.reasons.iter().all(|r| r.action() == Action::Drop);
        assert!(
            self.judge.is_none() || !all_drop || outcome.came.is_empty(),
            "{case:?}: pgfw says that all drops, and something passed: {outcome:?}"
        );
        outcome
    }

    /// What was seen until now. Packets on one cable and one processor keep their order.
    fn observe(&mut self) -> Vec<Seen> {
        self.markers += 1;
        let ends = Ends {
            source: GATEWAY,
            target: HOST,
            source_port: MARKER,
            target_port: MARKER,
        };
        let marker = ends.udp(&self.markers.to_be_bytes());
        self.cable.send(&marker);
        let mut all = Vec::new();
        loop {
            let seen = self
                .nflog
                .next(WAIT)
                .unwrap_or_else(|| panic!("marker {} did not come through", self.markers));
            if seen.packet != marker.0[NETWORK..] {
                all.extend((!is_own_broadcast(&seen.packet)).then_some(seen));
            } else if seen.group == AFTER {
                return all;
            }
        }
    }
}

/// Whether a packet is the host's own error to a broadcast address, which it hears itself. A forged one with this
/// source never comes to INPUT: the routing code takes it for a martian.
fn is_own_broadcast(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4 && packet[12..16] == [10, 9, 0, 1]
}

/// A raw socket on the cable, in the calling thread's namespace.
fn open_cable() -> OwnedFd {
    let all = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            i32::from(all),
        )
    };
    assert!(fd >= 0, "no packet socket: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let index = nix::net::if_::if_nametoindex("eth0").expect("the cable");
    // SAFETY: a structure of plain integers.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = all;
    address.sll_ifindex = index as i32;
    // SAFETY: the address lives through the call and is as long as said.
    let bound = unsafe {
        libc::bind(
            fd,
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    socket
}

/// Every processor has its own queue of incoming packets.
fn stay_on_this_cpu() {
    let this = nix::unistd::Pid::from_raw(0);
    let allowed = nix::sched::sched_getaffinity(this).expect("an affinity");
    let cpus: Vec<usize> = (0..nix::sched::CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .collect();
    // The two sides take one each where there are two.
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let cpu = cpus[NEXT.fetch_add(1, Ordering::Relaxed) % cpus.len()];
    let mut one = nix::sched::CpuSet::new();
    one.set(cpu).expect("a processor");
    nix::sched::sched_setaffinity(this, &one).expect("a thread can stay where it is");
}

fn restore(host: &Namespace, program: &str, rules: &str) {
    let mut child = host
        .command(program)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}: run `cargo xtask setup`"));
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    stdin.write_all(rules.as_bytes()).expect("rules can be given");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(
        output.status.success(),
        "{program}: {}\n{rules}",
        String::from_utf8_lossy(&output.stderr)
    );
}
