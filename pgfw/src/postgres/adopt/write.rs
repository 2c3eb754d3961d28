//! What was found as text for pgfw.toml, each line with what there is to say about it; read back before anybody sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ipnet::IpNet;

use super::keys::location_keys;
use super::page::{Page, said};
use super::sections::{OfLine, Section};
use super::text::{shown, string, strings};
use super::{Adopted, AdoptedServer, Draft, Placed};
use crate::config::{Config, Manage, Method};
use crate::failure::Failure;
use crate::policy::access::{self, AccessError};

/// The `[[login]]` sections, each with its name, in the order in which they are written.
#[derive(Default)]
struct Logins<'a> {
    names: Vec<String>,
    places: BTreeMap<Key<'a>, usize>,
}

/// All that makes two sections one.
type Key<'a> = (
    Method,
    &'a [String],
    Option<&'a [String]>,
    bool,
    &'a [IpNet],
    bool,
);

impl<'a> Logins<'a> {
    fn place(&self, section: &'a Section) -> Option<usize> {
        self.places.get(&key(section)).copied()
    }
}

/// Writes all drafts.
///
/// # Errors
/// What was written is not what pgfw reads: nothing is given out then.
pub(super) fn write(drafts: Vec<Draft>, mut problems: Vec<String>) -> Result<Adopted, Failure> {
    let drafts = apart(drafts, &mut problems);
    let names = cluster_names(&drafts);
    let logins = logins(&drafts, &names);
    // Servers whose rules contradict each other: each goes by every login.
    let mut out: BTreeMap<usize, String> = BTreeMap::new();
    loop {
        let text = text(&drafts, &names, &logins, &out, &problems);
        let config = Config::parse(&text, Path::new("pgfw.toml"))?;
        match access::compile(&config) {
            Ok(_) => {
                let servers = servers(&drafts, &names, &logins, &out);
                return Ok(Adopted {
                    text,
                    servers,
                    problems,
                });
            }
            Err(AccessError::TwoMethods {
                first,
                second,
                login,
                place,
            }) => {
                let title = |name: &String| format!("login `{name}`");
                let later = logins
                    .names
                    .iter()
                    .rposition(|name| title(name) == first || title(name) == second);
                let other = if later.is_some_and(|n| title(&logins.names[n]) == first) {
                    &second
                } else {
                    &first
                };
                let why =
                    format!("{other} has another method for {place}, and all logins count for all servers");
                let fits = later.filter(|n| out.insert(*n, why).is_none());
                if fits.is_none() {
                    return Err(AccessError::TwoMethods {
                        first,
                        second,
                        login,
                        place,
                    }
                    .into());
                }
            }
            Err(error @ (AccessError::NoNetworks { login: _ } | AccessError::NoLoopback { login: _ })) => {
                return Err(error.into());
            }
        }
    }
}

/// One port is one server's: of two the one that runs.
fn apart(drafts: Vec<Draft>, problems: &mut Vec<String>) -> Vec<Draft> {
    let mut kept: Vec<Draft> = Vec::new();
    for draft in drafts {
        let Some(place) = kept.iter().position(|other| other.port == draft.port) else {
            kept.push(draft);
            continue;
        };
        let stays_out = match (kept[place].pid, draft.pid) {
            (None, Some(_)) => std::mem::replace(&mut kept[place], draft),
            (Some(_) | None, _) => draft,
        };
        problems.push(format!(
            "{} has port {} like {}, so it is left out; adopt it by itself: pgfw pg adopt {}",
            shown(stays_out.title.as_bytes()),
            stays_out.port,
            shown(kept[place].title.as_bytes()),
            shown(stays_out.title.as_bytes()),
        ));
    }
    kept
}

fn cluster_names(drafts: &[Draft]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for draft in drafts {
        let taken = |name: &String| names.contains(name) || name == "ssh";
        let further = (2..).map(|n| format!("{}-{n}", draft.wish));
        let by_major = format!("{}-{}", draft.wish, draft.major);
        let mut wishes = [draft.wish.clone(), by_major].into_iter().chain(further);
        let name = wishes.find(|name| !taken(name)).unwrap_or_default();
        names.push(name);
    }
    names
}

/// One that stands there already is not written again.
fn logins<'a>(drafts: &'a [Draft], names: &[String]) -> Logins<'a> {
    let mut all = Logins::default();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    // Where to go on counting: servers have thousands of lines.
    let mut last: BTreeMap<String, u32> = BTreeMap::new();
    for (draft, cluster) in drafts.iter().zip(names) {
        for section in sections(draft) {
            if all.place(section).is_some() {
                continue;
            }
            let wish = match section.roles.as_slice() {
                [role] => role.clone(),
                _ => format!("{cluster}-logins"),
            };
            let from = last.entry(wish.clone()).or_insert(1);
            let mut further = (*from..).map(|n| (n, numbered(&wish, n)));
            let (n, name) = further
                .find(|(_, name)| !taken.contains(name))
                .unwrap_or_default();
            *from = n;
            taken.insert(name.clone());
            all.places.insert(key(section), all.names.len());
            all.names.push(name);
        }
    }
    all
}

fn sections(draft: &Draft) -> impl Iterator<Item = &Section> {
    let lines = draft.translation.lines.iter();
    let lines = lines.filter(|_| draft.manage != Manage::None);
    lines.flat_map(|line| &line.what.sections)
}

fn key(section: &Section) -> Key<'_> {
    let Section {
        method,
        roles,
        databases,
        replication,
        networks,
        plaintext,
        not_scram: _,
    } = section;
    (
        *method,
        roles,
        databases.as_deref(),
        *replication,
        networks,
        *plaintext,
    )
}

/// NAME, NAME-2, NAME-3, each at most 63 bytes.
fn numbered(wish: &str, n: u32) -> String {
    let suffix = if n == 1 { String::new() } else { format!("-{n}") };
    let mut end = wish.len().min(pgfw_hba::LONGEST_NAME - suffix.len());
    while !wish.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &wish[..end])
}

fn servers(
    drafts: &[Draft],
    names: &[String],
    logins: &Logins,
    out: &BTreeMap<usize, String>,
) -> Vec<AdoptedServer> {
    let one = |(draft, name): (&Draft, &String)| {
        let written =
            sections(draft).filter(|section| logins.place(section).is_some_and(|n| !out.contains_key(&n)));
        let of_lines = draft.translation.lines.iter().map(|l| (&l.at, &l.what.notes));
        let of_local = draft.translation.local.iter().map(|l| (&l.at, &l.what.notes));
        let of_rules = of_lines.chain(of_local).filter(|_| draft.manage != Manage::None);
        let of_rules = of_rules.flat_map(|(at, notes)| notes.iter().map(move |note| (Some(at), note)));
        let all = draft.notes.iter().map(|note| (None, note)).chain(of_rules);
        let differing = all.filter(|(_, note)| note.differs).map(|(at, note)| match at {
            Some(at) => format!("{}: {}", shown(at.as_bytes()), note.text),
            None => note.text.clone(),
        });
        AdoptedServer {
            name: name.clone(),
            server: draft.title.clone(),
            running: draft.pid.is_some(),
            manage: word(draft.manage),
            logins: written.count(),
            differences: differing.collect(),
        }
    };
    drafts.iter().zip(names).map(one).collect()
}

fn word(manage: Manage) -> &'static str {
    match manage {
        Manage::Files => "files",
        Manage::Render => "render",
        Manage::None => "none",
    }
}

fn text(
    drafts: &[Draft],
    names: &[String],
    logins: &Logins,
    out: &BTreeMap<usize, String>,
    problems: &[String],
) -> String {
    let mut page = Page::default();
    page.comment("Made by `pgfw pg adopt` from the servers' own files. Sections for pgfw.toml: read them before you use them.");
    page.comment(
        "Who gets in today gets in by these. A line with ! says what is otherwise then, once they are applied, or not known.",
    );
    page.comment("A login's networks are open in the filter, and its clients come by TLS, unless plaintext says otherwise.");
    if drafts.iter().filter(|d| d.manage != Manage::None).count() > 1 {
        page.comment(
            "! Each [[login]] counts for every [[postgres]]: who gets in at one server gets in at the others as well, \
             where they have the role and its password.",
        );
    }
    for problem in problems {
        page.comment(&format!("! {problem}"));
    }
    if drafts.is_empty() {
        page.comment("There is no server that could be read.");
    }
    let mut written = vec![false; logins.names.len()];
    for (draft, name) in drafts.iter().zip(names) {
        page.line("");
        cluster(&mut page, draft, name);
        if draft.manage == Manage::None {
            continue;
        }
        for line in &draft.translation.lines {
            page.line("");
            login_line(&mut page, line, logins, out, &mut written);
        }
    }
    page.0
}

fn cluster(page: &mut Page, draft: &Draft, name: &str) {
    let state = match draft.pid {
        Some(pid) => format!("runs (pid {pid})"),
        None => "is down".to_owned(),
    };
    page.comment(&format!(
        "{}: PostgreSQL {}, {state}; data in {}, rules in {}.",
        shown(draft.title.as_bytes()),
        draft.major,
        shown(draft.data.as_os_str().as_encoded_bytes()),
        shown(draft.hba_file.as_os_str().as_encoded_bytes()),
    ));
    page.notes(&draft.notes);
    page.line("[[postgres]]");
    page.key("name", &string(name), "");
    for (key, value) in location_keys(&draft.location) {
        page.key(key, &value, "");
    }
    page.key("port", &draft.port.to_string(), "");
    page.key("manage", &string(word(draft.manage)), "");
    if draft.manage == Manage::None {
        let open = &draft.translation.open;
        page.key(
            "allow",
            &nets(open),
            &world(open, "open in the filter; the server's own rules decide"),
        );
        return;
    }
    page.key("server_names", &strings(&draft.server_names), "");
    if let Some((certificate, key)) = &draft.server_files {
        page.key("server_certificate", &string(certificate), "");
        page.key("server_key", &string(key), "");
    }
    page.key("listen_addresses", &strings(&draft.listen_addresses), "");
    page.key("min_tls", &string(draft.min_tls), "");
    let audit = format!(
        "{{ connections = {}, statements = {} }}",
        draft.connections,
        string(&draft.statements)
    );
    page.key("audit", &audit, "");
    if draft.translation.local.is_empty() {
        page.key("local", "[]", "");
        return;
    }
    page.line("local = [");
    for Placed { at, raw, what } in &draft.translation.local {
        page.wrapped("    # ", &format!("{}: {}", shown(at.as_bytes()), shown(raw)));
        for note in &what.notes {
            page.wrapped("    #   ", &said(note));
        }
        if let Some(text) = &what.text {
            page.line(&format!("    {},", string(text)));
        }
    }
    page.line("]");
}

fn login_line(
    page: &mut Page,
    line: &Placed<OfLine>,
    logins: &Logins,
    out: &BTreeMap<usize, String>,
    written: &mut [bool],
) {
    page.comment(&format!("{}: {}", shown(line.at.as_bytes()), shown(&line.raw)));
    page.notes(&line.what.notes);
    for (place, section) in line.what.sections.iter().enumerate() {
        if place > 0 {
            page.line("");
        }
        let Some(n) = logins.place(section) else {
            continue;
        };
        let name = &logins.names[n];
        if std::mem::replace(&mut written[n], true) {
            page.comment(&format!("  as [[login]] {} above", shown(name.as_bytes())));
            continue;
        }
        let mut own = Page::default();
        login(&mut own, name, section);
        match out.get(&n) {
            None => page.0.push_str(&own.0),
            Some(why) => {
                page.comment(&format!(
                    "  ! left out, and refused then: {}",
                    shown(why.as_bytes())
                ));
                for line in own.0.lines() {
                    page.line(&format!("# {line}"));
                }
            }
        }
    }
}

fn login(page: &mut Page, name: &str, section: &Section) {
    let Section {
        method,
        roles,
        databases,
        replication,
        networks,
        plaintext,
        not_scram,
    } = section;
    page.line("[[login]]");
    page.key("name", &string(name), "");
    match method {
        Method::ScramSha256 => page.key("method", "\"scram-sha-256\"", ""),
        Method::Md5 => {
            let why = match not_scram.as_deref() {
                None => "md5: scram-sha-256 once no password is kept as MD5".to_owned(),
                Some([]) => {
                    "md5: all these passwords are kept for SCRAM, so scram-sha-256 will do".to_owned()
                }
                Some(others) => format!(
                    "md5: not kept for SCRAM are the passwords of {}",
                    others.join(", ")
                ),
            };
            page.key("method", "\"md5\"", &why);
        }
    }
    page.key("roles", &strings(roles), "");
    match databases {
        Some(databases) => page.key("databases", &strings(databases), ""),
        None => page.comment("databases: all"),
    }
    if *replication {
        page.key("replication", "true", "");
    }
    page.key("networks", &nets(networks), &world(networks, ""));
    if *plaintext {
        page.key(
            "plaintext",
            "\"loopback\"",
            "plaintext: without TLS from this host itself",
        );
    }
}

fn nets(nets: &[IpNet]) -> String {
    strings(nets.iter().map(ToString::to_string))
}

fn world(nets: &[IpNet], otherwise: &str) -> String {
    match nets.iter().any(|net| net.prefix_len() == 0) {
        true => "the whole world: the filter lets everybody come this far".to_owned(),
        false => otherwise.to_owned(),
    }
}
