//! Files of somebody else's authority: what a server is given of them, and what is refused.

use super::*;
use crate::config::{ServerFiles, ServerName};
use crate::ledger::types::Authority;

fn names() -> [ServerName; 2] {
    [
        ServerName::Dns("db.example.com".into()),
        ServerName::Address("192.0.2.7".parse().unwrap()),
    ]
}

/// A leaf followed by its authority, as a company's would be.
fn files(lab: &mut Lab, place: &str) -> ServerFiles {
    let issued = lab.issue_server(&names()).unwrap();
    let chain = std::fs::read_to_string(&issued.certificate_file).unwrap()
        + &lab.store.roots(Authority::Server).unwrap();
    let files = ServerFiles {
        certificate: lab.path(&format!("{place}.crt")),
        key: lab.path(&format!("{place}.key")),
    };
    std::fs::write(&files.certificate, chain).unwrap();
    std::fs::copy(issued.key_file.unwrap(), &files.key).unwrap();
    files
}

#[test]
fn files_that_fit_are_taken_whole() {
    let mut lab = Lab::new();
    let theirs = files(&mut lab, "theirs");
    for asked in [&names()[..], &names()[..1], &[]] {
        let pair = read_foreign(&theirs, asked, T0).unwrap();
        assert_eq!(
            pair.chain_pem,
            std::fs::read_to_string(&theirs.certificate).unwrap()
        );
        assert_eq!(pair.root_pem, Some(lab.store.roots(Authority::Server).unwrap()));
        assert!(!format!("{pair:?}").contains("BEGIN"));
    }
    // A public authority's root is not among the files.
    let whole = std::fs::read_to_string(&theirs.certificate).unwrap();
    let leaf = &whole[..whole.rfind("-----BEGIN").unwrap()];
    std::fs::write(&theirs.certificate, leaf).unwrap();
    assert_eq!(read_foreign(&theirs, &names(), T0).unwrap().root_pem, None);
}

#[test]
fn files_that_no_client_would_take_are_refused_by_name() {
    let (mut lab, mut other) = (Lab::new(), Lab::new());
    let (theirs, another) = (files(&mut lab, "theirs"), files(&mut lab, "another"));
    let refused = |files: &ServerFiles, names: &[ServerName], now| {
        let error = read_foreign(files, names, now).unwrap_err();
        assert!(matches!(error, PkiError::Foreign { .. }), "{error:?}");
        assert!(!format!("{error:?}{error}").contains("PRIVATE"), "{error:?}");
        error.to_string()
    };
    let more = [ServerName::Dns("db2.example.com".into())];
    assert!(
        refused(&theirs, &more, T0).contains("theirs.crt cannot be served: it is not for `db2.example.com`")
    );
    let address = [ServerName::Address("192.0.2.8".parse().unwrap())];
    assert!(refused(&theirs, &address, T0).contains("`192.0.2.8`"));
    for now in [later(-301), later(90 * DAY)] {
        assert!(refused(&theirs, &names(), now).contains("is valid from"));
    }
    let mixed = ServerFiles {
        key: another.key,
        ..theirs.clone()
    };
    assert!(refused(&mixed, &names(), T0).contains("another.key cannot be served: it is not the key of"));
    // The chain of another authority: clients that know only the root would not come to it.
    let leaf = std::fs::read_to_string(&theirs.certificate).unwrap();
    let leaf = &leaf[..leaf.rfind("-----BEGIN").unwrap()];
    let stranger = files(&mut other, "stranger");
    let strangers = other.store.roots(Authority::Server).unwrap();
    std::fs::write(&theirs.certificate, format!("{leaf}{strangers}")).unwrap();
    assert!(refused(&theirs, &names(), T0).contains("did not sign"));
    for content in [
        "",
        "-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&stranger.certificate, content).unwrap();
        assert!(refused(&stranger, &names(), T0).contains("stranger.crt"));
    }
    std::fs::write(
        &theirs.key,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    assert!(refused(&theirs, &names(), T0).contains("without a passphrase"));
}
