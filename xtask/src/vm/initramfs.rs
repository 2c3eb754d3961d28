//! An archive that the kernel unpacks as its first root: cpio, "newc" (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

/// The archive while it grows. Folders that lead to a file are made with it.
#[derive(Debug, Default)]
pub(super) struct Initramfs {
    bytes: Vec<u8>,
    inode: u32,
    folders: BTreeSet<String>,
}

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;

impl Initramfs {
    /// A file with this text or these bytes. `path` begins with a slash.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.lead_to(path);
        self.entry(path, FILE, content);
    }

    /// A file of this machine, as a program or as data.
    pub(super) fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = std::fs::read(from).with_context(|| format!("{} cannot be read", from.display()))?;
        self.lead_to(path);
        self.entry(path, PROGRAM, &content);
        Ok(())
    }

    pub(super) fn folder(&mut self, path: &str) {
        self.lead_to(path);
        if self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER, &[]);
        }
    }

    /// The whole archive.
    pub(super) fn close(mut self) -> Vec<u8> {
        self.entry("/TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn lead_to(&mut self, path: &str) {
        if let Some((parent, _)) = path.rsplit_once('/')
            && !parent.is_empty()
        {
            self.folder(parent);
        }
    }

    /// A header of thirteen numbers in hexadecimal, the name, the content; each padded to four bytes.
    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let name = path.trim_start_matches('/');
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let links = if mode == FOLDER { 2 } else { 1 };
        self.bytes.extend_from_slice(b"070701");
        for number in [
            self.inode,
            mode,
            0, // owner
            0, // group
            links,
            0, // time of change
            length(content.len()),
            0, // device, twice major and minor
            0,
            0,
            0,
            length(name.len() + 1),
            0, // checksum, of another format
        ] {
            self.bytes.extend_from_slice(format!("{number:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_what_the_format_says() {
        let mut archive = Initramfs::default();
        archive.file("/etc/plan", b"hello");
        archive.file("/etc/other", b"");
        let bytes = archive.close();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("070701"));
        assert_eq!(bytes.len() % 4, 0);
        // The folder once, before what lies in it.
        assert_eq!(text.matches("etc\0").count(), 1);
        assert!(text.find("etc\0") < text.find("etc/plan\0"));
        let header = text.find("etc/plan\0").expect("the file") - 110;
        let field = |number: usize| &text[header + 6 + 8 * number..header + 14 + 8 * number];
        assert_eq!(
            (field(1), field(6), field(11)),
            ("000081a4", "00000005", "00000009")
        );
        // 110 bytes of header and 9 of name are padded to 120.
        assert_eq!(&text[header + 120..header + 125], "hello");
        assert!(text.contains("TRAILER!!!\0"));
    }
}
