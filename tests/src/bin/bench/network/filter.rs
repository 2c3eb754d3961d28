//! Who filters: pgfw, others, and programs that say the same about every packet.

use std::io::{Seek, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

use pgfw::config::Attach;
use pgfw::datapath::{Choice, Control, Datapath, Mode as AttachedMode};
use pgfw_common::reason::Reason;
use pgfw_common::record::ABI;
use pgfw_tests::lab::{Bpffs, run};

use super::rules::Rules;
use super::xdp::{self, DROP, Mode, PASS};
use super::{INTERFACE, Link};
use crate::kernel;
use crate::machine::peer;
use crate::question;
use crate::source::Family;

/// What can stand before a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nothing,
    DropAll,
    PassAll(Mode),
    /// An XDP program that looks for the socket and drops.
    Question,
    /// The same that also asks whoever listens about SYN cookies.
    Cookies,
    /// An XDP program that passes this source and nothing else.
    Only(Ipv4Addr),
    Pgfw(Mode),
    XdpFilter,
    Iptables,
    Nftables,
    Ingress,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Nothing => "nothing",
            Kind::DropAll => "empty program that drops",
            Kind::PassAll(Mode::Native) => "program that passes all, native",
            Kind::PassAll(Mode::Generic) => "program that passes all, generic",
            Kind::Question => "program that looks for a socket and drops",
            Kind::Cookies => "program that looks for a socket, asks about SYN cookies and drops",
            Kind::Only(_) => "program that knows one address, native",
            Kind::Pgfw(Mode::Native) => "pgfw, native",
            Kind::Pgfw(Mode::Generic) => "pgfw, generic",
            Kind::XdpFilter => "xdp-filter",
            Kind::Iptables => "iptables",
            Kind::Nftables => "nftables",
            Kind::Ingress => "nftables at ingress, no states",
        }
    }
}

/// A filter of one host, ready to be put in place and taken away again.
#[derive(Debug)]
pub(crate) struct Filter<'link> {
    pub(crate) kind: Kind,
    pub(crate) link: &'link Link,
    state: State,
}

#[derive(Debug)]
enum State {
    Nothing,
    Program {
        program: OwnedFd,
        mode: Mode,
        standing: Option<OwnedFd>,
    },
    Pgfw {
        datapath: Box<Datapath>,
        bpffs: Bpffs,
        mode: Mode,
    },
    /// Programs and what each reads.
    Rules(Vec<(PathBuf, &'static [&'static str], String)>),
    XdpFilter,
}

impl<'link> Filter<'link> {
    /// Loads what takes long to load; nothing filters yet.
    pub(crate) fn prepare(kind: Kind, link: &'link Link, rules: &Rules) -> Filter<'link> {
        let program = |instructions: &[u64], mode| State::Program {
            // As pgfw's own: what takes packets of several buffers spares the kernel a copy in generic mode.
            program: kernel::load(instructions, true),
            mode,
            standing: None,
        };
        let state = match kind {
            Kind::Nothing => State::Nothing,
            Kind::DropAll => program(&xdp::always(DROP), Mode::Native),
            Kind::PassAll(mode) => program(&xdp::always(PASS), mode),
            Kind::Question => program(&question::of_sockets(), Mode::Native),
            Kind::Cookies => program(&question::of_cookies(), Mode::Native),
            Kind::Only(source) => program(&xdp::only(source), Mode::Native),
            Kind::Pgfw(mode) => pgfw(rules, mode),
            Kind::XdpFilter => {
                peer("xdp-filter", "xdp-tools");
                State::XdpFilter
            }
            Kind::Iptables => {
                let sets = peer("ipset", "ipset");
                let restored = run(fed(link.host.command(sets).arg("restore"), &rules.ipsets()));
                restored.expect_success();
                State::Rules(vec![
                    (
                        peer("iptables-restore", "iptables"),
                        &[],
                        rules.iptables(Family::V4),
                    ),
                    (
                        peer("ip6tables-restore", "iptables"),
                        &[],
                        rules.iptables(Family::V6),
                    ),
                ])
            }
            Kind::Nftables => nft(rules.nftables()),
            Kind::Ingress => nft(rules.ingress(INTERFACE)),
        };
        let filter = Filter { kind, link, state };
        if kind == Kind::XdpFilter {
            filter.fill_xdp_filter(rules);
        }
        filter
    }

    /// Puts it before the host.
    pub(crate) fn engage(&mut self) {
        let host = &self.link.host;
        match &mut self.state {
            State::Nothing | State::XdpFilter => {}
            State::Program {
                program,
                mode,
                standing,
            } => *standing = Some(xdp::attach(host, program.as_fd(), *mode)),
            State::Pgfw {
                datapath,
                bpffs: _,
                mode,
            } => {
                let mode = match mode {
                    Mode::Native => Attach::Native,
                    Mode::Generic => Attach::Generic,
                };
                let ifindex = host.ifindex(INTERFACE);
                // The pins are among this process's files.
                host.namespace()
                    .within(|| datapath.attach(ifindex, mode))
                    .expect("pgfw attaches");
            }
            State::Rules(files) => {
                for (program, arguments, text) in files {
                    run(fed(host.command(program).args(*arguments), text)).expect_success();
                }
            }
        }
    }

    /// How pgfw runs when it is attached so; it is taken off again.
    pub(crate) fn tried(&mut self, wanted: Attach) -> Option<AttachedMode> {
        let host = self.link.host.namespace();
        let State::Pgfw {
            datapath,
            bpffs: _,
            mode: _,
        } = &mut self.state
        else {
            return None;
        };
        let ifindex = host.ifindex(INTERFACE);
        let attached = host
            .within(|| datapath.attach(ifindex, wanted))
            .expect("pgfw attaches");
        host.within(|| datapath.detach(ifindex)).expect("pgfw detaches");
        attached.mode
    }

    /// Takes it away, so that another may come.
    pub(crate) fn disengage(&mut self) {
        let host = &self.link.host;
        match &mut self.state {
            State::Nothing | State::XdpFilter => {}
            State::Program {
                program: _,
                mode: _,
                standing,
            } => *standing = None,
            State::Pgfw {
                datapath,
                bpffs: _,
                mode: _,
            } => {
                let ifindex = host.ifindex(INTERFACE);
                host.namespace()
                    .within(|| datapath.detach(ifindex))
                    .expect("pgfw detaches");
            }
            // What iptables writes are tables of nftables too.
            State::Rules(_) => {
                run(host.command(peer("nft", "nftables")).args(["flush", "ruleset"])).expect_success();
            }
        }
    }

    /// How many packets pgfw gave this reason, or iptables refused; nothing for everybody else.
    pub(crate) fn counted(&self, reason: Reason) -> Option<u64> {
        // Fragments never get to the rules, and what is open passes.
        if self.kind == Kind::Iptables && matches!(reason, Reason::ServiceClosed | Reason::Udp) {
            return Some(self.refused());
        }
        self.reasoned(reason)
    }

    /// What came to the end of INPUT and was refused for want of a rule, in both families.
    fn refused(&self) -> u64 {
        let of = |program: &str| -> Option<u64> {
            let mut list = self.link.host.command(peer(program, "iptables"));
            let shown = run(list.args(["-L", "INPUT", "-nvx"])).expect_success();
            let (_, count) = shown.lines().next()?.split_once("policy DROP ")?;
            count.split(' ').next()?.parse().ok()
        };
        ["iptables", "ip6tables"]
            .into_iter()
            .map(|program| of(program).expect("iptables counts what its policy does"))
            .sum()
    }

    fn reasoned(&self, reason: Reason) -> Option<u64> {
        let State::Pgfw {
            datapath,
            bpffs: _,
            mode: _,
        } = &self.state
        else {
            return None;
        };
        let counters = datapath.counters().expect("counters");
        let all = counters.interfaces.values();
        Some(all.filter_map(|reasons| reasons.get(&reason)).sum())
    }

    /// The classifier that pgfw puts on the way out.
    pub(crate) fn egress(&self) -> Option<OwnedFd> {
        match &self.state {
            State::Pgfw {
                datapath: _,
                bpffs,
                mode: _,
            } => Some(kernel::pinned(&bpffs.path().join(format!("pgfw/v{ABI}/egress")))),
            State::Nothing | State::Program { .. } | State::Rules(_) | State::XdpFilter => None,
        }
    }

    /// Its maps go when the host does, and filling them takes seconds: it stands from the beginning.
    fn fill_xdp_filter(&self, rules: &Rules) {
        let filter = |arguments: &[&str]| {
            run(self.link.host.command("xdp-filter").args(arguments)).expect_success();
        };
        filter(&[
            "load",
            INTERFACE,
            "-m",
            "native",
            "-p",
            "deny",
            "-f",
            "tcp,udp,ipv4,ipv6",
        ]);
        filter(&["port", "22", "-m", "dst", "-p", "tcp"]);
        for address in rules.xdp_filter() {
            filter(&["ip", &address, "-m", "src"]);
        }
    }
}

fn pgfw(rules: &Rules, mode: Mode) -> State {
    let bpffs = Bpffs::new();
    let mut datapath = Datapath::open(&bpffs.path().join("pgfw")).expect("a datapath");
    datapath.load(1, &rules.pgfw()).expect("a policy");
    let control = Control {
        confirmed: Choice::Generation(1),
        pending: None,
    };
    datapath.set_control(control).expect("a control record");
    State::Pgfw {
        datapath: Box::new(datapath),
        bpffs,
        mode,
    }
}

fn nft(text: String) -> State {
    State::Rules(vec![(peer("nft", "nftables"), &["-f", "-"], text)])
}

/// The command with this on its standard input.
fn fed<'c>(command: &'c mut Command, text: &str) -> &'c mut Command {
    let mut file = tempfile::tempfile().expect("a temporary file can be made");
    file.write_all(text.as_bytes())
        .and_then(|()| file.rewind())
        .expect("a temporary file can be written");
    command.stdin(file)
}
