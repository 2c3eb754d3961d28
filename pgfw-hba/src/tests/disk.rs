use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use crate::{Disk, Files, Hba, Ident, Major, Server};

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("pgfw-hba-{name}-{}", std::process::id()));
        let _left = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left = fs::remove_dir_all(&self.0);
    }
}

/// What is wrong with a pg_hba.conf, in time.
fn problems(path: &Path) -> Vec<String> {
    let (done, waits) = mpsc::channel();
    let path = path.to_owned();
    std::thread::spawn(move || {
        let hba = Hba::read(&path, &Disk, &Server::of(Major::V16));
        let all = hba.errors.iter().map(ToString::to_string).collect();
        let _gone = done.send(all);
    });
    waits
        .recv_timeout(Duration::from_secs(20))
        .expect("it waits for ever")
}

/// Whoever can write to a server's folder cannot make a reader wait, or fill its memory.
#[test]
fn what_is_no_file_is_not_waited_for() {
    let folder = Folder::new("pipes");
    let pipe = folder.0.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _socket = UnixListener::bind(folder.0.join("socket")).unwrap();
    for name in ["pipe", "socket", "/dev/zero"] {
        let path = folder.0.join(name);
        for hba in [
            path.clone(),
            folder.write(
                "by_include",
                &format!("local all all peer\ninclude \"{}\"\n", path.display()),
            ),
            folder.write("by_list", &format!("local @{} all peer\n", path.display())),
        ] {
            let problems = problems(&hba);
            assert!(
                problems.len() == 1 && problems[0].contains("a pipe, a socket or a device"),
                "{}: {problems:?}",
                hba.display()
            );
        }
    }
    // By which people say that there are no maps.
    let maps = Ident::read(Path::new("/dev/null"), &Disk, &Server::of(Major::V16));
    assert!(maps.errors.is_empty(), "{:?}", maps.errors);
}

/// hba.c asks for a name's type only once the name is one that counts.
#[test]
fn a_link_that_leads_nowhere_counts_only_among_what_is_included() {
    let folder = Folder::new("links");
    let parts = folder.0.join("parts");
    fs::create_dir(&parts).unwrap();
    fs::write(parts.join("a.conf"), "local all all peer\n").unwrap();
    symlink("somebody@host.1234:5678", parts.join(".#a.conf")).unwrap();
    symlink("nowhere", parts.join("a.conf.bak")).unwrap();
    let hba = folder.write("hba", "include_dir parts\n");
    let read = Hba::read(&hba, &Disk, &Server::of(Major::V16));
    assert!(read.errors.is_empty() && read.lines.len() == 1, "{read:?}");
    symlink("nowhere", parts.join("b.conf")).unwrap();
    let found = problems(&hba);
    assert!(found.len() == 1 && found[0].contains("b.conf"), "{found:?}");
    assert!(Disk.list(&parts).unwrap().iter().all(|entry| !entry.is_directory));
}
