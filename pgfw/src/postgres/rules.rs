//! The rules of a live server, read as it reads them, and what they depend on beside their text.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pgfw_hba::{Disk, Entry, Files, Hba, Ident, Interface, Major, World};

use super::sql::Sql;
use super::{Owner, PostgresError, Server};
use crate::host::names;

/// pg_hba.conf and pg_ident.conf of a cluster, with all that they include.
#[derive(Debug)]
pub struct Rules {
    pub hba: Hba,
    pub ident: Ident,
    pub live: LiveWorld,
    /// `ssl` is on.
    pub ssl: bool,
    /// The server runs.
    pub running: bool,
    /// What makes the answer about a running server less than certain, a sentence each.
    pub notes: Vec<String>,
}

impl Rules {
    /// Reads them as the server's user: what it cannot read, no rule comes from. Works with the server down.
    ///
    /// # Errors
    /// The cluster is not there, or of a major version whose grammar is not known.
    pub fn of(server: &Server) -> Result<Rules, PostgresError> {
        let grammar = grammar(server)?;
        let files = AsOwner {
            owner: &server.owner,
            read: RefCell::default(),
        };
        let hba = Hba::read(&server.hba_file, &files, &grammar);
        let ident = Ident::read(&server.ident_file, &files, &grammar);
        let running = server.running().is_some();
        let mut rules = Rules {
            hba,
            ident,
            live: LiveWorld::here(),
            ssl: server.setting("ssl")? == "on",
            running,
            notes: Vec::new(),
        };
        if running {
            match Sql::connect(server).and_then(|sql| rules.ask(&sql, &files)) {
                Ok(()) => {}
                Err(error) => rules
                    .notes
                    .push(format!("who is a member of which role is not known: {error}")),
            }
        } else {
            rules
                .notes
                .push("the server is down, so who is a member of which role is not known".to_owned());
        }
        Ok(rules)
    }

    fn ask(&mut self, sql: &Sql, files: &AsOwner) -> Result<(), PostgresError> {
        // A name may be no text of the session's encoding: it comes as the bytes that it is.
        let rows = sql.query(
            "with recursive m(member, role) as (select oid, oid from pg_catalog.pg_roles union \
             select m.member, a.roleid from m join pg_catalog.pg_auth_members a on a.member = m.role) \
             select pg_catalog.convert_to(r.rolname::text, 'SQL_ASCII'), pg_catalog.convert_to(g.rolname::text, 'SQL_ASCII') \
             from m join pg_catalog.pg_roles r on r.oid = m.member \
             join pg_catalog.pg_roles g on g.oid = m.role",
            &[],
        )?;
        let pair = |row: &tokio_postgres::Row| -> (Vec<u8>, Vec<u8>) { (row.get(0), row.get(1)) };
        self.live.members = Some(rows.iter().map(pair).collect());
        let loaded = sql.query("select pg_catalog.pg_conf_load_time()", &[])?;
        let loaded: Option<SystemTime> = loaded.first().map(|row| row.get(0));
        let newer = files.read.borrow().iter().find_map(|path| {
            let changed = std::fs::metadata(path).and_then(|m| m.modified()).ok()?;
            loaded
                .is_some_and(|loaded| changed > loaded)
                .then(|| path.display().to_string())
        });
        self.notes.extend(newer.map(|path| {
            format!("{path} was changed after the server loaded its configuration; it goes by the former text until it reloads")
        }));
        Ok(())
    }
}

/// How this server reads its rules.
///
/// # Errors
/// A major version whose grammar is not known.
pub(super) fn grammar(server: &Server) -> Result<pgfw_hba::Server, PostgresError> {
    let major = Major::of(server.major).ok_or_else(|| PostgresError::UnknownGrammar {
        cluster: server.name.clone(),
        major: server.major,
    })?;
    let mut grammar = pgfw_hba::Server::of(major);
    if major >= Major::V18 {
        let libraries = server.setting("oauth_validator_libraries")?;
        let names = libraries
            .split(',')
            .map(|name| name.trim().trim_matches('"').to_owned());
        grammar.oauth_validators = Some(names.filter(|name| !name.is_empty()).collect());
    }
    Ok(grammar)
}

/// What the server would find out for itself.
#[derive(Debug)]
pub struct LiveWorld {
    /// (role, group), each role a member of itself; `None`: nobody to ask.
    members: Option<BTreeSet<(Vec<u8>, Vec<u8>)>>,
    interfaces: Vec<Interface>,
}

impl LiveWorld {
    fn here() -> LiveWorld {
        let own = nix::ifaddrs::getifaddrs()
            .into_iter()
            .flatten()
            .filter_map(|interface| {
                Some(Interface {
                    address: address(interface.address.as_ref()?)?,
                    mask: interface.netmask.as_ref().and_then(address),
                })
            });
        LiveWorld {
            members: None,
            interfaces: own.collect(),
        }
    }

    /// Whether the server told who is a member of what.
    pub(super) fn knows_members(&self) -> bool {
        self.members.is_some()
    }

    /// Whether it is an address of this host, or one that never leaves any.
    pub fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.interfaces.iter().any(|own| own.address == address)
    }
}

fn address(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

impl World for LiveWorld {
    fn is_member(&self, role: &[u8], group: &[u8]) -> Option<bool> {
        let members = self.members.as_ref()?;
        Some(members.contains(&(role.to_owned(), group.to_owned())))
    }

    fn interfaces(&self) -> Option<Vec<Interface>> {
        Some(self.interfaces.clone())
    }

    fn name_of(&self, address: IpAddr) -> Option<Option<String>> {
        Some(names::of(address))
    }

    fn addresses_of(&self, name: &str) -> Option<Vec<IpAddr>> {
        let found = (name, 0).to_socket_addrs();
        Some(found.into_iter().flatten().map(|at| at.ip()).collect())
    }
}

/// The disk as the server's user sees it: its files may lead anywhere, and root would follow.
struct AsOwner<'a> {
    owner: &'a Owner,
    read: RefCell<BTreeSet<PathBuf>>,
}

impl Files for AsOwner<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.read.borrow_mut().insert(path.to_owned());
        self.owner.act(|| Disk.read(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.owner.act(|| Disk.list(path))
    }
}
