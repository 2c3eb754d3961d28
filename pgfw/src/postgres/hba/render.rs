//! pg_hba.conf: one line a cell, between our own lines and the last reject.

use super::{Map, Refused};
use crate::config::{Cluster, Method};
use crate::policy::access::{Admits, Cell, Databases, Source, Transport};

/// The role that a marker's connection asks for; it does not have to exist, since authentication comes first.
pub const PROBE_ROLE: &str = "probe";
/// The map of our own peer line.
pub const OWN_MAP: &str = "pgfw-own";

/// What a pair of files is made from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub cluster: &'a Cluster,
    pub cells: &'a [Cell],
    /// PostgreSQL's major version.
    pub major: u16,
    /// The operating-system user that runs pgfw, as `peer` sees it.
    pub operator: &'a str,
    /// The operating-system user that runs the server.
    pub owner: &'a str,
    /// The server's bootstrap superuser.
    pub superuser: &'a str,
    /// The generation's name in its own files; see [`marker`].
    pub marker: &'a str,
}

/// A pg_hba.conf and the pg_ident.conf that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub hba: String,
    pub ident: String,
}

/// Database and map name of a generation's marker: a peer login as [`PROBE_ROLE`] gets AuthenticationOk there, and any
/// other role a reject, if and only if the server has loaded this very pair of files.
pub fn marker(generation_hash: &str) -> String {
    format!("marker-{generation_hash}")
}

/// The marker that a rendered pg_hba.conf holds.
pub fn marker_in(hba: &str) -> Option<&str> {
    let maps = hba.lines().filter_map(|line| line.rsplit_once(" peer map="));
    maps.map(|(_, map)| map).find(|map| map.starts_with(&marker("")))
}

/// Renders both files.
///
/// # Errors
/// [`Refused`]: a name for which there is no token.
pub fn render(input: &Input) -> Result<Rendered, Refused> {
    let Input {
        cluster,
        cells,
        major,
        operator,
        owner,
        superuser,
        marker,
    } = *input;
    let mut maps = vec![Map::new(OWN_MAP), marker_map(marker, operator)];
    for user in [operator, owner] {
        maps[0].add(user, superuser);
    }

    let mut hba = String::from(HEADER);
    let mut line = |text: String| {
        hba.push_str(&text);
        hba.push('\n');
    };
    line(format!(
        "local all {} peer map={OWN_MAP}",
        super::name(superuser, major)?
    ));
    marker_rules(marker, major)?.into_iter().for_each(&mut line);
    for local in &cluster.local {
        line(local.clone());
    }
    let mut said = None;
    for cell in cells {
        let remark = remark(cell);
        if said != Some(remark) {
            line(remark.to_owned());
            said = Some(remark);
        }
        line(cell_line(cell, major, &mut maps)?);
    }
    for reject in [
        "local all all reject",
        "local replication all reject",
        "host all all all reject",
        "host replication all all reject",
    ] {
        line(reject.to_owned());
    }
    Ok(Rendered {
        hba,
        ident: super::ident::render(&maps, major)?,
    })
}

/// A marker's own lines, to stand before others.
///
/// # Errors
/// [`Refused`]: the operating-system user has a name for which there is no token.
pub fn marker_lines(marker: &str, operator: &str, major: u16) -> Result<Rendered, Refused> {
    Ok(Rendered {
        hba: marker_rules(marker, major)?.join("\n") + "\n",
        ident: super::ident::lines(&[marker_map(marker, operator)], major)?,
    })
}

fn marker_rules(marker: &str, major: u16) -> Result<[String; 2], Refused> {
    let database = super::name(marker, major)?;
    let probe = super::name(PROBE_ROLE, major)?;
    Ok([
        format!("local {database} {probe} peer map={marker}"),
        format!("local {database} all reject"),
    ])
}

fn marker_map(marker: &str, operator: &str) -> Map {
    let mut map = Map::new(marker);
    map.add(operator, PROBE_ROLE);
    map
}

const HEADER: &str = "# Written by pgfw from its configuration, replaced at every apply. Change pgfw.toml instead.\n\
     # The first line that matches decides. A map (pg_ident.conf) lists the identities of its line.\n";

/// What a cell's line cannot see, for whoever reads the file; the same text for each of a kind, and no name in it.
fn remark(cell: &Cell) -> &'static str {
    match (&cell.admits, &cell.databases) {
        (Admits::Certificates(_), Databases::All | Databases::Named(_)) => {
            "# By certificate: `pgfw cert revoke` ends its sessions."
        }
        (Admits::Certificates(_), Databases::Replication) => {
            "# Replication by certificate: `pgfw cert revoke` ends a stream; one whose line goes ends at its next reconnect."
        }
        (Admits::Password { .. }, Databases::All | Databases::Named(_)) => {
            "# By password: a program's own users (a pooler's clients) are not seen here, and no revocation reaches them."
        }
        (Admits::Password { .. }, Databases::Replication) => {
            "# Replication by password: no revocation reaches it; a stream whose line goes ends at its next reconnect."
        }
    }
}

fn cell_line(cell: &Cell, major: u16, maps: &mut Vec<Map>) -> Result<String, Refused> {
    let Cell {
        transport,
        role,
        databases,
        source,
        admits,
    } = cell;
    let kind = match transport {
        Transport::Tls => "hostssl",
        Transport::Plaintext => "hostnossl",
    };
    let databases = match databases {
        Databases::All => "all".to_owned(),
        Databases::Replication => "replication".to_owned(),
        Databases::Named(names) => {
            let names: Result<Vec<String>, Refused> = names.iter().map(|n| super::name(n, major)).collect();
            names?.join(",")
        }
    };
    let source = match source {
        Source::Any => "all".to_owned(),
        Source::Net(net) => net.to_string(),
    };
    let method = match admits {
        Admits::Certificates(identities) => {
            let map = Map::of_cell(identities, role);
            let method = format!("cert map={}", map.name);
            if !maps.contains(&map) {
                maps.push(map);
            }
            method
        }
        Admits::Password {
            method: Method::ScramSha256,
            logins: _,
        } => "scram-sha-256".to_owned(),
        Admits::Password {
            method: Method::Md5,
            logins: _,
        } => "md5".to_owned(),
    };
    Ok(format!(
        "{kind} {databases} {} {source} {method}",
        super::name(role, major)?
    ))
}
