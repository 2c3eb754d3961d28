//! One corpus of certificates, asked of the gate and of PostgreSQL: both let in the same.

use std::fs;
use std::path::PathBuf;

use pgfw_tests::lab::{PATIENCE, Site, address, eventually};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use super::stage::{Leaf, Stage, unique};

const CLIENT_CA: &str = "/etc/pgfw/pki/client-ca/g1";

/// What a verifier makes of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The handshake goes through, whatever comes of it then.
    Verified,
    /// An alert of TLS.
    Alert,
}
use Verdict::{Alert, Verified};

struct Corpus<'lab> {
    stage: Stage<'lab>,
    authority: Issuer<'static, KeyPair>,
    root: String,
}

impl Corpus<'_> {
    /// A certificate of the client authority's own key, as nothing of pgfw would issue it.
    fn forged(&self, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        self.signed_by(&self.authority, change)
    }

    fn signed_by(&self, issuer: &Issuer<'_, KeyPair>, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = usual("alice");
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        self.hand_over(&certificate.pem(), &key)
    }

    fn hand_over(&self, chain: &str, key: &KeyPair) -> Leaf {
        let folder = self.stage.place(&format!("forged-{}", unique()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("postgresql.crt"), chain).unwrap();
        fs::write(folder.join("root.crt"), &self.root).unwrap();
        let file = folder.join("postgresql.key");
        fs::write(&file, key.serialize_pem()).unwrap();
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let serial = String::new();
        Leaf { folder, serial }
    }

    fn gate(&self, leaf: &Leaf) -> Verdict {
        let site = self.stage.site;
        match self
            .stage
            .try_curl(&site.client, leaf, address::DB, "/lease", &[])
        {
            Ok(_) => Verified,
            Err(outcome) if outcome.stderr.contains("alert") => Alert,
            Err(outcome) => panic!("{outcome:?}"),
        }
    }

    fn server(&self, leaf: &Leaf) -> Verdict {
        let said = self
            .stage
            .psql(&self.stage.site.client, "alice", leaf)
            .query("select 1");
        match said.success() || said.stderr.contains("FATAL") {
            true => Verified,
            false if said.stderr.contains("alert") => Alert,
            false => panic!("{said:?}"),
        }
    }

    /// Both, once the gate has heard of what changed.
    #[track_caller]
    fn agree(&self, what: &str, leaf: &Leaf, expected: Verdict) {
        assert_eq!(self.server(leaf), expected, "PostgreSQL about {what}");
        eventually(
            &format!("the gate says {expected:?} about {what}"),
            PATIENCE,
            || (self.gate(leaf) == expected).then_some(()),
        );
    }

    /// Every list of the first client authority: the gate's and the server's.
    fn lists(&self) -> Vec<PathBuf> {
        let db = &self.stage.site.db;
        let own = PathBuf::from(CLIENT_CA).join("ca.crl");
        let text = db.read(&own);
        let published = "/var/lib/pgfw/postgres/main/crl";
        let copies: Vec<PathBuf> = db.within(|| {
            let all = fs::read_dir(published).unwrap().flatten().map(|e| e.path());
            all.filter(|file| fs::read_to_string(file).unwrap() == text)
                .collect()
        });
        assert_eq!(copies.len(), 1);
        [own].into_iter().chain(copies).collect()
    }

    fn list(&self, this_update: OffsetDateTime, next_update: OffsetDateTime) -> String {
        let list = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: SerialNumber::from(u64::MAX),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.authority).unwrap().pem().unwrap()
    }
}

/// What makes a certificate another one than pgfw issues.
type Change<'a> = &'a dyn Fn(&mut CertificateParams);

/// What pgfw issues, but for what a row changes.
fn usual(name: &str) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = now - Duration::MINUTE;
    params.not_after = now + Duration::DAY;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

fn corpus(site: &Site) -> Corpus<'_> {
    let stage = Stage::new(site);
    let read = |name: &str| site.db.read(format!("{CLIENT_CA}/{name}"));
    let key = KeyPair::from_pem(&read("ca.key")).unwrap();
    let authority = Issuer::from_ca_cert_pem(&read("ca.crt"), key).unwrap();
    let root = site.db.read("/etc/pgfw/pki/server-ca/g1/ca.crt");
    Corpus {
        stage,
        authority,
        root,
    }
}

#[test]
fn p34_gate_and_server_give_one_answer_about_certificates() {
    let site = Site::new();
    let corpus = corpus(&site);
    let (_daemon, _gate) = corpus.stage.open();
    corpus.stage.pgfw.ok(&["allow", "10.20.0.0/16"]);
    let now = OffsetDateTime::now_utc();

    let alice = corpus.stage.issue("alice", &[]);
    corpus.agree("one that pgfw issued", &alice, Verified);
    let gone = corpus.stage.issue("alice", &[]);
    corpus.stage.pgfw.ok(&["cert", "revoke", &gone.serial]);
    corpus.agree("one that is revoked", &gone, Alert);

    let rows: [(&str, Change<'_>, Verdict); 9] = [
        ("a forged one without a flaw", &|_| (), Verified),
        ("an expired one", &|p| p.not_after = now - Duration::SECOND, Alert),
        ("one of tomorrow", &|p| p.not_before = now + Duration::HOUR, Alert),
        (
            "a server's",
            &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            Alert,
        ),
        ("one for every use", &|p| p.extended_key_usages = vec![], Verified),
        (
            "one that may not sign",
            &|p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment],
            Alert,
        ),
        (
            "one that says nothing of signing",
            &|p| p.key_usages = vec![],
            Verified,
        ),
        (
            "a name longer than a server shows",
            &|p| {
                let dn = &mut p.distinguished_name;
                dn.push(DnType::OrganizationName, "o".repeat(64));
                dn.push(DnType::OrganizationalUnitName, "u".repeat(64));
            },
            Verified,
        ),
        (
            "a name that wants to be another",
            &|p| {
                p.distinguished_name
                    .push(DnType::CommonName, "x\"\nidentity=\"alice")
            },
            Verified,
        ),
    ];
    for (what, change, expected) in rows {
        let leaf = corpus.forged(change);
        corpus.agree(what, &leaf, expected);
        // Verified or not, what is in no ledger holds nothing.
        if expected == Verified {
            let post = ["--request", "POST"];
            let answer = corpus.stage.curl(&site.client, &leaf, "/lease", &post);
            assert_eq!(answer.status, 403, "{what}: {answer:?}");
        }
    }

    // Another authority, also one of the same name.
    let theirs = |name: Option<String>| {
        let mut params = usual("their CA");
        if let Some(name) = name {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![];
        Issuer::new(params, KeyPair::generate().unwrap())
    };
    corpus.agree(
        "another authority's",
        &corpus.signed_by(&theirs(None), |_| ()),
        Alert,
    );
    let own = corpus.stage.pgfw.ok(&["--json", "ca", "show"]);
    let own: serde_json::Value = serde_json::from_str(&own).unwrap();
    let name = own.to_string();
    let name = name.split("CN=").find(|part| part.contains("client CA")).unwrap();
    let name = name.split('"').next().unwrap().to_owned();
    let same = corpus.signed_by(&theirs(Some(name)), |_| ());
    corpus.agree("another's of the same name", &same, Alert);

    // An intermediate of the authority, of which no list speaks.
    let mut middle = usual("a middle CA");
    middle.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    middle.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    middle.extended_key_usages = vec![];
    let key = KeyPair::generate().unwrap();
    let between = middle.signed_by(&key, &corpus.authority).unwrap().pem();
    let below = corpus.signed_by(&Issuer::new(middle, key), |_| ());
    let file = below.folder.join("postgresql.crt");
    let chain = fs::read_to_string(&file).unwrap() + &between;
    fs::write(&file, chain).unwrap();
    corpus.agree("one of an intermediate", &below, Alert);
}

#[test]
fn p34_gate_and_server_give_one_answer_about_lists() {
    let site = Site::new();
    let corpus = corpus(&site);
    let (_daemon, _gate) = corpus.stage.open();
    corpus.stage.pgfw.ok(&["allow", "10.20.0.0/16"]);
    let now = OffsetDateTime::now_utc();
    let alice = corpus.stage.issue("alice", &[]);
    corpus.agree("one that pgfw issued", &alice, Verified);

    let files = corpus.lists();
    let replace = |text: &str| files.iter().for_each(|file| site.db.write(file, text));
    let good = site.db.read(&files[0]);
    replace(&corpus.list(now - Duration::DAY, now - Duration::HOUR));
    corpus.agree("a list that has lapsed", &alice, Alert);
    // What the daemon says to a gate that does not look.
    replace(&good);
    corpus.agree("the list that was there", &alice, Verified);
    replace(&corpus.list(now + Duration::HOUR, now + Duration::DAY));
    corpus.agree("a list of tomorrow", &alice, Alert);
    replace(&good);
    corpus.agree("the list that was there", &alice, Verified);
    site.db
        .within(|| files.iter().try_for_each(fs::remove_file))
        .unwrap();
    corpus.agree("no list", &alice, Alert);
    replace(&good);
    corpus.agree("the list that was there", &alice, Verified);
}

#[test]
fn p34_gate_and_server_give_one_answer_about_generations() {
    let site = Site::new();
    let corpus = corpus(&site);
    let (_daemon, _gate) = corpus.stage.open();
    corpus.stage.pgfw.ok(&["allow", "10.20.0.0/16"]);
    let old = corpus.stage.issue("alice", &[]);
    corpus.stage.pgfw.ok(&["ca", "rotate", "start", "client"]);
    let new = corpus.stage.issue("alice", &[]);
    corpus.agree("the old generation, in the overlap", &old, Verified);
    corpus.agree("the new generation, in the overlap", &new, Verified);
    corpus.stage.lease(&site.client, &old);
    corpus.stage.lease(&site.stranger, &new);
    let finish = ["ca", "rotate", "finish", "client", "--force"];
    corpus.stage.pgfw.ok(&finish);
    corpus.agree("the old generation", &old, Alert);
    corpus.agree("the new generation", &new, Verified);
    let left = corpus.stage.leases();
    let nets: Vec<&str> = left.iter().map(|(net, ..)| net.as_str()).collect();
    assert_eq!(nets, ["192.168.1.10/32"]);
}
