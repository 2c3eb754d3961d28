//! A real server with everything that rules can depend on: roles, certificates, host names, interfaces.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use nix::unistd::Pid;
use pgfw::postgres::wire::{self, Answer, Asked, Startup};
use pgfw_hba::{
    Admission, CertName, ClientCert, Decision, Encryption, From, Hba, HbaLine, Ident, Interface, Login,
    Major, Method, Server, World,
};
use pgfw_tests::scratch::managed::{log_in, to};
use pgfw_tests::scratch::pki::{Authority, Leaf};
use pgfw_tests::scratch::{PORT, Scratch, add_address, until, write};

use crate::generate::{Attempt, CERTIFICATES, Files, OWN, Source};

/// What a login comes to, as far as the server's first answer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    LetIn,
    Sasl,
    Md5,
    Cleartext,
    Gss,
    /// By a line.
    Rejected,
    NoLine,
    NoCertificate,
    /// A line's map, or its method, refuses.
    Failed,
}

pub(crate) struct Real {
    scratch: Scratch,
    pub(crate) server: Server,
    leaves: Vec<Leaf>,
}

/// Roles that exist, and whose members they are themselves.
const ROLES: [(&str, &[&str]); 7] = [
    ("alice", &["staff"]),
    ("bob", &["dba"]),
    ("carol", &[]),
    ("staff", &[]),
    // Superusers, and a member through another.
    ("dba", &["staff"]),
    ("a b", &["alice"]),
    ("/x", &["+staff"]),
];

impl Real {
    pub(crate) fn start(major: Major, programs: &Path) -> Real {
        // Names and addresses are this test's own.
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace takes root");
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("mounts of its own");
        let mut scratch = Scratch::of(programs);
        for (name, text) in [("hosts", hosts()), ("nsswitch.conf", "hosts: files\n".to_owned())] {
            let own = scratch.place(name);
            write(&own, &text);
            let over = Path::new("/etc").join(name);
            mount(Some(&own), &over, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .expect("a file over a file");
        }
        for address in OWN.iter().filter(|a| !["127.0.0.1/8", "::1/128"].contains(a)) {
            add_address(address);
        }
        let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        let own = servers.server("db.example.com", &[1]);
        let files = [
            ("server.crt", &own.certificate),
            ("server.key", &own.key),
            ("ca.crt", &clients.certificate),
        ];
        for (name, text) in files {
            let path = scratch.data().join(name);
            write(&path, text);
            let user = pgfw_tests::scratch::postgres();
            std::os::unix::fs::chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("chown");
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
        }
        scratch.configure(
            "ssl = on\nssl_ca_file = 'ca.crt'\npassword_encryption = 'md5'\nmax_connections = 200\n\
             log_min_messages = panic\n",
        );
        fs::create_dir(scratch.data().join("inc")).expect("a folder");
        scratch.run();
        let mut statements = String::from("create role \"+staff\"; create role \"Alice\" superuser;");
        for (role, _) in ROLES {
            let superuser = if role == "dba" { "superuser" } else { "noinherit" };
            statements.push_str(&format!("create role \"{role}\" {superuser};"));
        }
        for (role, groups) in ROLES {
            for group in groups {
                statements.push_str(&format!("grant \"{group}\" to \"{role}\";"));
            }
        }
        scratch.sql(&statements);
        let built = scratch.sql("select setting from pg_config where name = 'CONFIGURE'");
        let with = |name: &str| {
            [format!("--with-{name}'"), format!("-D{name}=enabled")]
                .iter()
                .any(|option| built.contains(option.as_str()))
        };
        let server = Server {
            gss: with("gssapi"),
            pam: with("pam"),
            ldap: with("ldap"),
            ..Server::of(major)
        };
        let leaf = |(n, name): (usize, &&str)| clients.client(name, &[2, n as u8]);
        let real = Real {
            scratch,
            server,
            leaves: CERTIFICATES.iter().enumerate().map(leaf).collect(),
        };
        real.put(&Files::marked(0));
        real.reload(0, "the test's own lines");
        real
    }

    pub(crate) fn hba_file(&self) -> PathBuf {
        self.scratch.data().join("pg_hba.conf")
    }

    pub(crate) fn ident_file(&self) -> PathBuf {
        self.scratch.data().join("pg_ident.conf")
    }

    pub(crate) fn put(&self, files: &Files) {
        let included = self.scratch.data().join("inc");
        fs::remove_dir_all(&included).expect("a folder");
        fs::create_dir(&included).expect("a folder");
        for (name, text) in &files.others {
            let path = self.scratch.data().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            write(&path, text);
        }
        write(&self.hba_file(), &files.hba);
        write(&self.ident_file(), &files.ident);
    }

    /// Compares line by line with what the server's views say of the files.
    pub(crate) fn compare_reading(&self, hba: &Hba, ident: &Ident, shown: &str) {
        let rows = |view: &str| {
            let text = self
                .scratch
                .sql(&format!("select coalesce(json_agg(r), '[]') from {view} r"));
            let rows: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
            rows
        };
        for row in rows("pg_hba_file_rules") {
            let number = row["line_number"].as_u64().expect("a line's number") as usize;
            let here = |at: &pgfw_hba::At| {
                at.number == number
                    && row["file_name"]
                        .as_str()
                        .is_none_or(|file| Path::new(file) == &*at.file)
            };
            let ours: Vec<&HbaLine> = hba.lines.iter().filter(|line| here(&line.at)).collect();
            let wrong = hba.errors.iter().find(|problem| here(&problem.at));
            let without_gss = !self.server.gss && row["type"] == "hostgssenc";
            if hba.doubts.iter().any(|problem| here(&problem.at)) || without_gss {
                continue;
            }
            // A line with an option of a wrong value is a row of NULLs, and no error is shown.
            let refused = !row["error"].is_null() || row["type"].is_null();
            match (refused, wrong, ours.as_slice()) {
                (true, Some(_), []) => {}
                (false, None, [line]) => same(line, &row, shown),
                other => panic!("{row}: {other:?}\n{shown}"),
            }
        }
        for row in rows("pg_ident_file_mappings") {
            let number = row["line_number"].as_u64().expect("a line's number") as usize;
            if ident.doubts.iter().any(|problem| problem.at.number == number) {
                continue;
            }
            let wrong = ident.errors.iter().any(|problem| problem.at.number == number);
            assert_eq!(!row["error"].is_null(), wrong, "{row}\n{shown}");
        }
    }

    /// Has the server look at both files and waits until it did: it takes pg_hba.conf first, and the maps then.
    pub(crate) fn reload(&self, round: u64, shown: &str) {
        let text = fs::read_to_string(self.scratch.data().join("postmaster.pid")).expect("postmaster.pid");
        let pid = text
            .lines()
            .next()
            .and_then(|pid| pid.parse().ok())
            .expect("a process id");
        kill(Pid::from_raw(pid), Signal::SIGHUP).expect("a signal");
        let role = format!("g-{round}");
        until(&format!("the maps of this are loaded:\n{shown}"), || {
            self.local(&to(&role, "gen")).expect("an answer") == Answer::Ok
        });
    }

    pub(crate) fn has_loaded(&self, round: u64) -> bool {
        let database = format!("hba-{round}");
        // No rule of an earlier round tells these two roles apart.
        let asked = self.local(&to("zzz", &database)).expect("an answer");
        let other = self.local(&to("yyy", &database)).expect("an answer");
        asked == Answer::Password(Asked::Cleartext) && matches!(other, Answer::Refused { .. })
    }

    fn local(&self, startup: &Startup) -> io::Result<Answer> {
        let path = self.scratch.sockets().join(format!(".s.PGSQL.{PORT}"));
        wire::start_up(&mut wire::connect_unix(&path)?, startup)
    }

    /// What the server says, and its words.
    pub(crate) fn ask(&self, attempt: &Attempt) -> (Outcome, String) {
        let startup = Startup {
            replication: attempt.replication,
            ..to(&attempt.role, &attempt.database)
        };
        let answer = match attempt.from {
            Source::Local => self.local(&startup),
            Source::Plain(from) => plain(from, &startup),
            Source::Tls(from, certificate) => {
                let leaf = certificate.map(|n| &self.leaves[n]);
                log_in(from.parse().expect("an address"), leaf, &startup)
            }
        };
        let answer = answer.unwrap_or_else(|error| panic!("{attempt:?}: {error}"));
        let said = format!("{answer:?}");
        let outcome = match answer {
            Answer::Ok => Outcome::LetIn,
            Answer::Password(Asked::Sasl) => Outcome::Sasl,
            Answer::Password(Asked::Md5) => Outcome::Md5,
            Answer::Password(Asked::Cleartext) => Outcome::Cleartext,
            Answer::Other(7) => Outcome::Gss,
            Answer::Other(other) => panic!("{attempt:?}: authentication request {other}"),
            Answer::Refused { sqlstate, message } => {
                assert_eq!(sqlstate, "28000", "{attempt:?}: {message}");
                match message.as_str() {
                    m if m.starts_with("pg_hba.conf rejects ") => Outcome::Rejected,
                    m if m.starts_with("no pg_hba.conf entry ") => Outcome::NoLine,
                    m if m.contains("requires a valid client certificate") => Outcome::NoCertificate,
                    m if m.contains("authentication failed for user") => Outcome::Failed,
                    m => panic!("{attempt:?}: {m}"),
                }
            }
        };
        (outcome, said)
    }

    /// What pgfw-hba expects; `None` where it does not decide, or the test cannot tell.
    pub(crate) fn expected(&self, hba: &Hba, ident: &Ident, attempt: &Attempt) -> Option<Outcome> {
        let tcp = |from: &str, encryption| From::Tcp {
            address: from.parse().expect("an address"),
            encryption,
        };
        let (from, certificate) = match attempt.from {
            Source::Local => (From::Local, None),
            Source::Plain(from) => (tcp(from, Encryption::None), None),
            Source::Tls(from, certificate) => (tcp(from, Encryption::Tls), certificate),
        };
        let login = Login {
            from,
            database: attempt.database.as_bytes(),
            role: attempt.role.as_bytes(),
            replication: attempt.replication,
        };
        let line = match hba.decide(&login, &Lab) {
            Decision::Line(line) => line,
            Decision::NoLine => return Some(Outcome::NoLine),
            Decision::Undecided { .. } => return None,
        };
        if line.options.clientcert != ClientCert::None && certificate.is_none() {
            return Some(Outcome::NoCertificate);
        }
        let by_map = |system_user: &str| {
            let map = line.options.map.as_deref();
            match ident.admits(map, system_user.as_bytes(), attempt.role.as_bytes(), &Lab) {
                Admission::ByName(true) | Admission::Line(_) => Some(Outcome::LetIn),
                Admission::ByName(false) | Admission::NoLine | Admission::Broken(_) => Some(Outcome::Failed),
                Admission::Undecided { .. } => None,
            }
        };
        match line.method {
            Method::Trust | Method::Cert if line.options.clientcert == ClientCert::Full => {
                let name = CERTIFICATES[certificate?];
                by_map(&match line.options.clientname {
                    CertName::CommonName => name.to_owned(),
                    CertName::DistinguishedName => format!("CN={}", name.replace('"', "\\\"")),
                })
            }
            Method::Trust => Some(Outcome::LetIn),
            Method::Reject => Some(Outcome::Rejected),
            Method::Peer => by_map("root"),
            Method::Ident => Some(Outcome::Failed),
            Method::Password => Some(Outcome::Cleartext),
            Method::Ldap if line.options.all.iter().any(|(name, _)| name == b"ldapserver") => {
                Some(Outcome::Cleartext)
            }
            Method::Md5 => Some(Outcome::Md5),
            Method::ScramSha256 => Some(Outcome::Sasl),
            Method::Gss => Some(Outcome::Gss),
            Method::Ldap | Method::Cert | Method::Pam | Method::Radius | Method::Oauth => None,
        }
    }
}

/// From an address that is not the server's: one of a subnet of the namespace's.
fn plain(from: &str, startup: &Startup) -> io::Result<Answer> {
    let from: IpAddr = from.parse().expect("an address");
    let there: IpAddr = match from {
        IpAddr::V4(_) => "10.1.2.3".parse().expect("an address"),
        IpAddr::V6(_) => "fd00::7".parse().expect("an address"),
    };
    let family = match from {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(
        socket.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(from, 0)),
    )?;
    connect(
        socket.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(there, PORT)),
    )?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    wire::start_up(&mut stream, startup)
}

const HOSTS: [(&str, &str); 4] = [
    ("127.0.0.1", "localhost"),
    ("10.1.2.3", "ten.example.com"),
    ("fd00::7", "six.example.com"),
    ("10.20.30.40", "twenty"),
];

fn hosts() -> String {
    HOSTS
        .iter()
        .map(|(address, name)| format!("{address} {name}\n"))
        .collect()
}

/// What the server would find out.
struct Lab;

impl World for Lab {
    fn is_member(&self, role: &[u8], group: &[u8]) -> Option<bool> {
        let exists = |name: &[u8]| {
            ROLES.iter().any(|(role, _)| role.as_bytes() == name)
                || [b"+staff".as_slice(), b"Alice", b"postgres"].contains(&name)
        };
        if !exists(role) || !exists(group) {
            return Some(false);
        }
        let direct = |role: &[u8]| {
            ROLES
                .iter()
                .find(|(name, _)| name.as_bytes() == role)
                .map(|(_, of)| *of)
        };
        let mut reached = vec![role];
        let mut at = 0;
        while let Some(role) = reached.get(at).copied() {
            reached.extend(direct(role).unwrap_or_default().iter().map(|of| of.as_bytes()));
            at += 1;
        }
        Some(reached.contains(&group))
    }

    fn interfaces(&self) -> Option<Vec<Interface>> {
        let interface = |text: &&str| {
            let (address, bits) = text.split_once('/').expect("a prefix");
            let address: IpAddr = address.parse().expect("an address");
            let bits: u32 = bits.parse().expect("a length");
            let mask = match address {
                IpAddr::V4(_) => IpAddr::V4((u32::MAX << (32 - bits)).into()),
                IpAddr::V6(_) => IpAddr::V6((u128::MAX << (128 - bits)).into()),
            };
            Interface {
                address,
                mask: Some(mask),
            }
        };
        Some(OWN.iter().map(interface).collect())
    }

    fn name_of(&self, address: IpAddr) -> Option<Option<String>> {
        let found = HOSTS
            .iter()
            .find(|(own, _)| own.parse::<IpAddr>().expect("an address") == address);
        Some(found.map(|(_, name)| (*name).to_owned()))
    }

    fn addresses_of(&self, name: &str) -> Option<Vec<IpAddr>> {
        let found = HOSTS.iter().filter(|(_, own)| *own == name);
        Some(
            found
                .map(|(address, _)| address.parse().expect("an address"))
                .collect(),
        )
    }
}

fn same(line: &HbaLine, row: &serde_json::Value, shown: &str) {
    let texts = |patterns: &[pgfw_hba::Pattern]| -> Vec<String> {
        let texts = patterns
            .iter()
            .map(|p| String::from_utf8_lossy(&p.token.text).into_owned());
        texts.collect()
    };
    assert_eq!(
        row["database"],
        serde_json::json!(texts(&line.databases)),
        "{row}\n{shown}"
    );
    assert_eq!(
        row["user_name"],
        serde_json::json!(texts(&line.roles)),
        "{row}\n{shown}"
    );
    assert_eq!(row["auth_method"], line.method.name(), "{row}\n{shown}");
    let field = |name: &str| row[name].as_str().map(str::to_owned);
    let address = |name: &str| -> Option<IpAddr> {
        let text = field(name)?;
        text.split('%').next()?.parse().ok()
    };
    match &line.address {
        None => assert_eq!(field("address"), None, "{row}\n{shown}"),
        Some(pgfw_hba::Address::All) => {
            assert_eq!(field("address").as_deref(), Some("all"), "{row}\n{shown}")
        }
        Some(pgfw_hba::Address::SameHost) => {
            assert_eq!(field("address").as_deref(), Some("samehost"), "{row}\n{shown}");
        }
        Some(pgfw_hba::Address::SameNet) => {
            assert_eq!(field("address").as_deref(), Some("samenet"), "{row}\n{shown}");
        }
        Some(pgfw_hba::Address::Name(name)) => {
            assert_eq!(
                field("address").map(String::into_bytes).as_ref(),
                Some(name),
                "{row}\n{shown}"
            );
        }
        Some(pgfw_hba::Address::Net { net, mask }) => {
            assert_eq!(address("address"), Some(*net), "{row}\n{shown}");
            assert_eq!(address("netmask"), Some(*mask), "{row}\n{shown}");
        }
    }
}
