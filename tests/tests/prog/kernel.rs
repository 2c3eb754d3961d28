//! What depends on the kernel: large frames, links, full tables; and what is done where it lacks something.

use pgfw::config::Attach;
use pgfw::datapath::{DatapathError, Mode};
use pgfw_tests::lab::guest::fact;
use pgfw_tests::lab::{Reach, run, without_links};

use crate::pair::{Pair, for_guests, talk};

#[test]
fn f32_a_large_mtu_takes_a_native_program_or_is_named() {
    let pair = Pair::new();
    pair.host.ip("link set eth0 mtu 9000");
    pair.guest.ip("link set eth0 mtu 9000");
    let mut datapath = pair.open();
    pair.enforce(&mut datapath, 1, &for_guests());
    datapath.detach(pair.ifindex()).expect("detached");
    let native = pair.attach(&mut datapath, Attach::Native);
    if datapath.kernel().multi_buffer {
        fact("MTU 9000 on veth, native", "attached");
        assert_eq!(native.expect("an attachment").mode, Some(Mode::Native));
    } else {
        let refused = native.expect_err("a kernel without multi-buffer programs");
        fact("MTU 9000 on veth, native", "refused, with the reason");
        assert!(
            matches!(&refused, DatapathError::LargeMtu { mtu: 9000, .. }),
            "{refused}"
        );
        assert!(
            refused.to_string().contains("eth0 has an MTU of 9000"),
            "{refused}"
        );
        assert!(
            datapath.attached().expect("links").is_empty(),
            "nothing of it stays"
        );
        let attached = pair.attach(&mut datapath, Attach::Auto).expect("an attachment");
        assert_eq!(attached.mode, Some(Mode::Generic));
    }
    // Frames of nine kilobytes are judged by their first bytes, whole ones arrive.
    let listener = pair.listen(5432);
    let mut client = pair.connect(5432).expect("a connection");
    let (mut server, _) = listener.accept().expect("a connection");
    talk(&mut client, &mut server).expect("a byte each way");
    megabyte(&client, &server);
    assert_eq!(pair.reach(5433), Reach::Silent);
}

fn megabyte(mut from: &std::net::TcpStream, mut to: &std::net::TcpStream) {
    use std::io::{Read, Write};
    let sent: Vec<u8> = (0..1_u32 << 20).map(|n| (n % 251) as u8).collect();
    let mut came = vec![0; sent.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&sent).expect("a megabyte goes"));
        to.read_exact(&mut came).expect("a megabyte comes");
    });
    assert!(came == sent);
}

#[test]
fn f36_an_attachment_over_netlink_is_undone_and_reported() {
    let pair = Pair::new();
    let mut datapath = pair.open();
    let ifindex = pair.ifindex();
    let attach = |datapath: &mut pgfw::datapath::Datapath, mode| {
        pair.host.within(|| {
            without_links().expect("a filter");
            datapath.attach(ifindex, mode)
        })
    };
    for mode in [Attach::Generic, Attach::Native, Attach::Auto] {
        let refused = attach(&mut datapath, mode).expect_err("no link");
        assert!(
            matches!(&refused, DatapathError::Attach { interface, .. } | DatapathError::Native { interface, .. }
                if interface == "eth0"),
            "{refused}"
        );
        let links = run(pair.host.command("ip").args(["link", "show", "dev", "eth0"])).expect_success();
        assert!(!links.contains("xdp"), "{mode:?}: {links}");
        let filters = run(pair
            .host
            .command("tc")
            .args(["filter", "show", "dev", "eth0", "egress"]));
        assert_eq!(filters.stdout, "", "{mode:?}");
        assert!(datapath.attached().expect("links").is_empty());
    }
    pair.attach(&mut datapath, Attach::Generic)
        .expect("with links it works");
}
