use super::*;
use std::path::Path;

fn nets(rows: &[(&str, &[&str], &[&str])]) {
    for (net, inside, around) in rows {
        let net: IpNet = net.parse().unwrap();
        let said = |all: Vec<IpAddr>| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(said(ends(&net)), *inside, "inside {net}");
        assert_eq!(said(outside(&net)), *around, "around {net}");
    }
}

#[test]
fn networks_are_tried_at_their_ends_and_just_beyond() {
    nets(&[
        (
            "10.1.0.0/16",
            &["10.1.0.0", "10.1.255.255"],
            &["10.0.255.255", "10.2.0.0"],
        ),
        ("10.1.2.3/32", &["10.1.2.3"], &["10.1.2.2", "10.1.2.4"]),
        (
            "127.0.0.0/8",
            &["127.0.0.0", "127.0.0.1"],
            &["126.255.255.255", "128.0.0.0"],
        ),
        ("0.0.0.0/0", &["255.255.255.254", "128.0.0.0"], &[]),
        (
            "2001:db8::/32",
            &["2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"],
            &["2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"],
        ),
        ("::1/128", &["::1"], &["::2"]),
        (
            "fe80::/10",
            &[],
            &["fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fec0::"],
        ),
    ]);
}

fn asked(sections: &str) -> Vec<String> {
    let text = format!("[[postgres]]\nname = \"main\"\ncluster = \"15/main\"\n{sections}");
    let config = Config::parse(&text, Path::new("pgfw.toml")).unwrap();
    of(&config)
        .iter()
        .map(|q| format!("{q} {}", q.expected))
        .collect()
}

/// The config decides, also about a neighbour that happens to be let in.
#[test]
fn what_has_to_get_in_comes_first_and_neighbours_follow() {
    let all = asked(
        "[[identity]]\nname = \"alice\"\ndatabases = [\"app\"]\nnetworks = [\"10.1.0.0/16\"]\n\
         [[identity]]\nname = \"bob\"\nroles = [\"alice\"]\ndatabases = [\"app\"]\nnetworks = [\"10.2.0.0/16\"]\n",
    );
    assert_eq!(
        all[..2],
        [
            "certificate `alice` as role `alice` in database `app` from 10.1.0.0 has to get in",
            "certificate `alice` as role `alice` in database `app` from 10.1.255.255 has to get in",
        ]
    );
    for wanted in [
        "certificate `bob` as role `alice` in database `app` from 10.1.0.0 must not get in",
        "certificate `bob` as role `alice` in database `app` from 10.2.0.0 has to get in",
        "certificate `alice` as role `alice` in database `app` from 10.2.0.0 must not get in",
        "certificate `alice2` as role `alice` in database `app` from 10.1.0.0 must not get in",
        "nobody's certificate as role `alice` in database `app` from 10.1.0.0 must not get in",
        "certificate `alice` as role `alice` in database `app` from 10.1.0.0 without TLS must not get in",
        "certificate `alice` as role `alice` for physical replication from 10.1.0.0 must not get in",
    ] {
        assert!(all.iter().any(|said| said == wanted), "{wanted}: {all:#?}");
    }
}

#[test]
fn a_password_is_asked_for_without_tls_on_loopback_only() {
    let all = asked(
        "[[login]]\nname = \"batch\"\nmethod = \"scram-sha-256\"\nnetworks = [\"0.0.0.0/0\", \"127.0.0.1/32\"]\n\
         plaintext = \"loopback\"\n",
    );
    for wanted in [
        "nobody's certificate as role `batch` in database `pgfw-unnamed` from 127.0.0.1 without TLS has to be asked for a password",
        "nobody's certificate as role `batch` in database `pgfw-unnamed` from 128.0.0.0 without TLS must not get in",
        "nobody's certificate as role `batch` in database `pgfw-unnamed` from 128.0.0.0 has to be asked for a password",
    ] {
        assert!(all.iter().any(|said| said == wanted), "{wanted}: {all:#?}");
    }
}

#[test]
fn nobody_declared_is_asked_about_too() {
    let all = asked("");
    assert!(
        all.len() >= 8 && all.iter().all(|said| said.ends_with("must not get in")),
        "{all:#?}"
    );
}
