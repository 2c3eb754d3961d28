//! A policy in the kernel, asked packet by packet through the same entry that an interface has.

pub mod model;
pub mod scene;

use std::net::IpAddr;

use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use ipnet::IpNet;
use pgfw::clock::{BootTime, Now};
use pgfw::datapath::{Answer, Choice, Control, Counters, Datapath, DatapathError};
use pgfw::policy::coverage::{Compiled, Coverage, CoverageKey, ServiceId, ServicePort, Settings, Until};
use pgfw_common::frames::Frame;
use pgfw_common::host::World;
use pgfw_common::reason::{Action, Reason};
use pgfw_common::record::ABI;

use crate::lab::{Bpffs, Namespace};

pub const SSH: ServiceId = ServiceId(1);
pub const PG: ServiceId = ServiceId(2);
pub const DNS: ServiceId = ServiceId(3);
pub const VRRP: ServiceId = ServiceId(4);

/// Programs and tables of a test's own, in a network namespace of its own.
#[derive(Debug)]
pub struct Bench {
    pub namespace: Namespace,
    pub bpffs: Bpffs,
    pub datapath: Datapath,
    entry: Xdp,
    world: World,
    pub generation: u64,
}

impl Bench {
    /// Enforces `policy` as generation 1.
    pub fn new(policy: &Compiled) -> Bench {
        Bench::like(policy, model::world(policy))
    }

    /// The same, judged beside a world of the caller's.
    pub fn like(policy: &Compiled, world: World) -> Bench {
        let namespace = Namespace::new("bench");
        let bpffs = Bpffs::new();
        let pins = bpffs.path().join("pgfw");
        let mut datapath = Datapath::open(&pins).expect("a datapath");
        datapath.load(1, policy).expect("a policy");
        datapath
            .set_control(Control {
                confirmed: Choice::Generation(1),
                pending: None,
            })
            .expect("a control record");
        let entry =
            Xdp::from_pin(pins.join(format!("v{ABI}/entry")), XdpAttachType::Interface).expect("the entry");
        Bench {
            namespace,
            bpffs,
            datapath,
            entry,
            world,
            generation: 1,
        }
    }

    /// Runs the entry program over a frame.
    pub fn run(&self, frame: &Frame) -> Action {
        self.run_all(std::slice::from_ref(frame))[0]
    }

    /// The same over many, one after the other.
    pub fn run_all(&self, frames: &[Frame]) -> Vec<Action> {
        let entry = &self.entry;
        let run = |frame: &Frame| {
            let options = TestRunOptions {
                data_in: Some(&frame.0),
                ..TestRunOptions::default()
            };
            match entry.test_run(options).map(|result| result.return_value) {
                Ok(1) => Action::Drop,
                Ok(2) => Action::Pass,
                Ok(other) => panic!("XDP action {other}: {}", frame.hex()),
                Err(error) => panic!("{error}: {}", frame.hex()),
            }
        };
        self.namespace.within(|| frames.iter().map(run).collect())
    }

    /// One packet: the program's action, the whole ledger of counters before and after, the probe's answer and the
    /// host-side decision must all say `reason`, and nothing else may move. In audit mode the action is to pass.
    #[track_caller]
    pub fn expect(&self, what: &str, frame: &Frame, reason: Reason, service: Option<ServiceId>) {
        let judged = self.world.judge(&frame.0, model::ARRIVAL);
        assert_eq!(
            (judged.reason, judged.service.map(|row| ServiceId(row.service))),
            (reason, service),
            "the host-side decision about {what}: {}",
            frame.hex()
        );
        let before = self.counters();
        let answer = self.ask(frame).expect("an answer");
        assert_eq!(
            (answer.reason, answer.service),
            (reason, service),
            "the probe about {what}: {}",
            frame.hex()
        );
        assert_eq!(self.counters(), before, "the probe changed a counter: {what}");
        let action = self.run(frame);
        let would = reason.action();
        let acts = if self.world.settings.audit != 0 {
            Action::Pass
        } else {
            would
        };
        assert_eq!(action, acts, "{what}: {}", frame.hex());
        let mut wanted = before;
        *wanted.interfaces.entry(0).or_default().entry(reason).or_default() += 1;
        if let Some(service) = service {
            let port = self.port(service, frame);
            let count = wanted.services.entry(port).or_default();
            match would {
                Action::Pass => count.passed += 1,
                Action::Drop => count.dropped += 1,
            }
        }
        assert_eq!(self.counters(), wanted, "counters after {what}: {}", frame.hex());
    }

    /// What the loaded policy would say, asked through the probe.
    pub fn ask(&self, frame: &Frame) -> Result<Answer, DatapathError> {
        let (datapath, generation) = (&self.datapath, self.generation);
        self.namespace
            .within(|| datapath.check(generation, &frame.0, None))
    }

    pub fn counters(&self) -> Counters {
        self.datapath.counters().expect("counters")
    }

    /// The port of a service that a frame addresses; each of the tests' services has one.
    fn port(&self, service: ServiceId, frame: &Frame) -> ServicePort {
        self.datapath
            .services(self.generation)
            .expect("services")
            .into_iter()
            .find(|(_, id)| *id == service)
            .map(|(port, _)| port)
            .unwrap_or_else(|| panic!("no port for {service:?}: {}", frame.hex()))
    }
}

/// The tests' usual policy: SSH for the world, PostgreSQL for two networks less one host, DNS for one, VRRP for one.
pub fn policy() -> Compiled {
    let mut policy = Compiled {
        settings: Settings::default(),
        ..Compiled::default()
    };
    for (protocol, port, service, name) in [
        (6, 22, SSH, "ssh"),
        (6, 5432, PG, "postgres main"),
        (17, 53, DNS, "dns"),
        (112, 0, VRRP, "vrrp"),
    ] {
        policy.services.insert(ServicePort { protocol, port }, service);
        policy.names.insert(service, name.to_owned());
    }
    for (service, net, answer) in [
        (SSH, "0.0.0.0/0", world()),
        (SSH, "::/0", world()),
        (SSH, "203.0.113.66/32", denied()),
        (PG, "192.168.1.0/24", allowed()),
        (PG, "2001:db8:1::/48", allowed()),
        (PG, "192.168.1.66/32", denied()),
        (DNS, "192.168.1.0/24", allowed()),
        (VRRP, "192.168.1.0/24", allowed()),
    ] {
        policy.coverage.insert(key(service, net), answer);
    }
    policy
}

pub fn key(service: ServiceId, net: &str) -> CoverageKey {
    CoverageKey {
        service,
        net: net
            .parse::<IpNet>()
            .or_else(|_| net.parse::<IpAddr>().map(IpNet::from))
            .expect("a network"),
    }
}

pub fn allowed() -> Coverage {
    Coverage {
        deny: Until::Absent,
        allow: Until::Forever,
        world: false,
    }
}

pub fn world() -> Coverage {
    Coverage {
        world: true,
        ..allowed()
    }
}

pub fn denied() -> Coverage {
    Coverage {
        deny: Until::Forever,
        ..allowed()
    }
}

/// Allowed until so many milliseconds from now (negative: before now).
pub fn allowed_for(milliseconds: i64) -> Coverage {
    Coverage {
        allow: Until::At(from_now(milliseconds)),
        ..allowed()
    }
}

pub fn from_now(milliseconds: i64) -> BootTime {
    BootTime(Now::read().boot.0.saturating_add_signed(milliseconds * 1_000_000))
}
