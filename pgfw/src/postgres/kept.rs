//! What `pgfw pg release --keep` leaves: pgfw's last files in the server's own folder, so that logins go on and nothing
//! of pgfw's is needed for them.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::hba::{self, quote};
use super::settings::{CLIENT_CA, CONF, HBA, IDENT, SERVER_CERT, SERVER_KEY};
use super::stage::{Generations, sibling, sync};
use super::{Owner, PostgresError, Server, TlsMaterial, conf};
use crate::clock::WallTime;

/// The files of the last generation, said so that they stand by themselves.
pub(super) struct Kept {
    pub(super) hba: String,
    pub(super) ident: String,
    pub(super) conf: String,
    /// Another than pgfw's last one: what answers to it was read from these files.
    pub(super) marker: String,
    /// Where certificate, key, authority and lists lie.
    pub(super) directory: PathBuf,
    pub(super) material: TlsMaterial,
    /// Name and content of each CRL.
    lists: Vec<(PathBuf, Vec<u8>)>,
}

/// The first line of a kept file, which tells it from one that somebody else put there.
const REMARK: &str = "# Left by `pgfw pg release --keep`, and yours to change.";

/// Beside postgresql.conf.
const DIRECTORY: &str = "pgfw";
const CRLS: &str = "crl";

impl Kept {
    /// Reads what is in force.
    ///
    /// # Errors
    /// [`PostgresError::NothingToKeep`] where a file of the generation is gone.
    pub(super) fn of(
        server: &Server,
        generations: &Generations,
        crl_dir: &Path,
    ) -> Result<Kept, PostgresError> {
        let current = generations.current_link();
        let gone = |_| PostgresError::NothingToKeep {
            cluster: server.name.clone(),
            path: current.clone(),
        };
        let read = |name: &str| fs::read_to_string(current.join(name)).map_err(gone);
        let (hba, ident, conf) = (read(HBA)?, read(IDENT)?, read(CONF)?);
        let former = hba::marker_in(&hba).ok_or_else(|| gone(io::ErrorKind::InvalidData.into()))?;

        let directory = directory_beside(&server.config_file)?;
        let lists = lists_in(crl_dir).map_err(gone)?;
        let moved = |conf: String, from: &Path, to: &Path| {
            let said = |path: &Path| quote::setting(&path.to_string_lossy());
            conf.replace(&said(from), &said(to))
        };
        let mut conf = moved(conf, crl_dir, &directory.join(CRLS));
        for name in [SERVER_CERT, SERVER_KEY, CLIENT_CA] {
            conf = moved(conf, &current.join(name), &directory.join(name));
        }
        let mut hash = Sha256::new();
        for part in [REMARK, former, &hba, &ident, &conf] {
            hash.update(part);
            hash.update([0]);
        }
        let marker = hba::marker(&hba::short_hex(&hash.finalize()));
        let renamed = |text: &str| remarked(&text.replace(former, &marker));
        Ok(Kept {
            hba: renamed(&hba),
            ident: renamed(&ident),
            conf: remarked(&conf),
            material: TlsMaterial {
                server_cert_pem: read(SERVER_CERT)?,
                server_key_pem: read(SERVER_KEY)?,
                client_ca_pem: read(CLIENT_CA)?,
                canary: None,
                crl_dir: directory.join(CRLS),
            },
            marker,
            directory,
            lists,
        })
    }

    /// Writes certificate, key, authority and lists, and the settings for a postgresql.conf that includes them by a
    /// line. Nothing leads there yet.
    ///
    /// # Errors
    /// I/O; the server's user cannot read it.
    pub(super) fn write(&self, owner: &Owner) -> Result<(), PostgresError> {
        let directory = &self.directory;
        let parent = directory.parent().unwrap_or(Path::new("/"));
        let written = as_fits(owner, parent, |mode| {
            let fresh = sibling(directory, ".pgfw-new");
            for old in [&fresh, directory] {
                match fs::remove_dir_all(old) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    Ok(()) | Err(_) => {}
                }
            }
            let folder = |path: &Path| {
                fs::create_dir(path)?;
                std::os::unix::fs::chown(path, None, Some(owner.gid))?;
                fs::set_permissions(path, Permissions::from_mode(0o750))
            };
            folder(&fresh)?;
            folder(&fresh.join(CRLS))?;
            for (name, content) in [
                (CONF, &self.conf),
                (SERVER_CERT, &self.material.server_cert_pem),
                (SERVER_KEY, &self.material.server_key_pem),
                (CLIENT_CA, &self.material.client_ca_pem),
            ] {
                write_file(&fresh.join(name), content.as_bytes(), owner, mode)?;
            }
            for (name, content) in &self.lists {
                write_file(&fresh.join(CRLS).join(name), content, owner, mode)?;
            }
            sync(&fresh.join(CRLS))?;
            sync(&fresh)?;
            fs::rename(&fresh, directory)?;
            sync(parent)
        });
        written.map_err(PostgresError::file("cannot write", directory))?;
        let names = [SERVER_CERT, SERVER_KEY, CLIENT_CA].map(PathBuf::from);
        let lists = self.lists.iter().map(|(name, _)| Path::new(CRLS).join(name));
        for name in names.into_iter().chain(lists) {
            let path = directory.join(name);
            let read = owner.act(|| fs::File::open(&path)?.read(&mut [0]));
            read.map_err(|source| PostgresError::Unreadable {
                path,
                user: owner.name.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Copies the lists once more where they say something else by now: somebody was revoked meanwhile.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn follow_lists(&self, owner: &Owner, crl_dir: &Path) -> Result<(), PostgresError> {
        let mut standing = self.lists.clone();
        loop {
            let now = lists_in(crl_dir).map_err(PostgresError::file("cannot read", crl_dir))?;
            if now == standing {
                return Ok(());
            }
            for (name, content) in now.iter().filter(|list| !standing.contains(list)) {
                let path = self.directory.join(CRLS).join(name);
                put(&path, content, owner).map_err(PostgresError::file("cannot write", &path))?;
            }
            standing = now;
        }
    }

    /// When the first of the lists lapses, which then refuses every certificate: nobody renews them here.
    pub(super) fn lapses(&self) -> Option<WallTime> {
        let ends = self.lists.iter().filter_map(|(_, content)| {
            let (_, pem) = x509_parser::pem::parse_x509_pem(content).ok()?;
            let (_, list) = CertificateRevocationList::from_der(&pem.contents).ok()?;
            Some(WallTime(list.next_update()?.timestamp()))
        });
        ends.min()
    }
}

/// Name and content of each, by name. One that is being replaced has another name meanwhile, and goes with it.
fn lists_in(crl_dir: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut lists = Vec::new();
    for entry in fs::read_dir(crl_dir)? {
        let path = entry?.path();
        let name = path.file_name().map(PathBuf::from).unwrap_or_default();
        match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            content => lists.push((name, content?)),
        }
    }
    lists.sort();
    Ok(lists)
}

/// Whether a live name holds what an earlier release left there.
pub(super) fn is_kept(name: &Path) -> bool {
    begins_with(name, REMARK)
}

/// Whether a regular file's first line is `remark`.
pub(super) fn begins_with(path: &Path, remark: &str) -> bool {
    let regular = fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
    regular && fs::read(path).is_ok_and(|text| text.split(|b| *b == b'\n').next() == Some(remark.as_bytes()))
}

/// Removes the folder that an earlier release left, which nothing leads to any more.
pub(super) fn remove(server: &Server) {
    if let Ok(directory) = directory_beside(&server.config_file)
        && is_kept(&directory.join(CONF))
    {
        let parent = directory.parent().unwrap_or(Path::new("/")).to_owned();
        // What cannot be removed harms nobody.
        let _stays = as_fits(&server.owner, &parent, |_| fs::remove_dir_all(&directory));
    }
}

/// The line by which a postgresql.conf reads the settings that an earlier release left beside it.
pub(super) fn include_of(config_file: &Path) -> Result<String, PostgresError> {
    Ok(conf::include_line(&directory_beside(config_file)?.join(CONF)))
}

/// Puts a file of the server's user in the place of whatever is at `path`, at once.
///
/// # Errors
/// I/O.
pub(super) fn put(path: &Path, text: &[u8], owner: &Owner) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    as_fits(owner, parent, |mode| {
        let fresh = sibling(path, ".pgfw-new");
        match fs::remove_file(&fresh) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        write_file(&fresh, text, owner, mode)?;
        fs::rename(&fresh, path)?;
        sync(parent)
    })
}

fn directory_beside(config_file: &Path) -> Result<PathBuf, PostgresError> {
    let file = fs::canonicalize(config_file).map_err(PostgresError::file("cannot find", config_file))?;
    Ok(file.parent().unwrap_or(Path::new("/")).join(DIRECTORY))
}

/// The same text under another first line.
fn remarked(text: &str) -> String {
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    format!("{REMARK}\n{rest}")
}

/// In a folder of the server's user everything is done as that user, so that no link it may have put there is
/// followed with root's rights. The mode is the widest that the server takes for a key of that owner
/// (be-secure-common.c: `check_ssl_key_file_permissions`).
fn as_fits<T: Send>(
    owner: &Owner,
    folder: &Path,
    work: impl FnOnce(u32) -> io::Result<T> + Send,
) -> io::Result<T> {
    if fs::metadata(folder)?.uid() == owner.uid {
        owner.act(|| work(0o600))
    } else {
        work(0o640)
    }
}

fn write_file(path: &Path, content: &[u8], owner: &Owner, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    std::os::unix::fs::fchown(&file, None, Some(owner.gid))?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}
