//! Devices that stand on others: bridges and bonds on their ports, VLANs and macvlans on their parent.

use std::fs;
use std::io;

/// A device above an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upper {
    pub name: String,
    pub index: u32,
    /// It takes all that the interface receives: a bridge, a bond, a VRF. Others (VLAN, macvlan) take what is theirs.
    pub is_master: bool,
}

/// What stands on `interface`, as sysfs shows it (net/core/dev.c: `netdev_adjacent_sysfs_add`).
///
/// # Errors
/// The interface went away, or sysfs is not mounted.
pub fn of(interface: &str) -> io::Result<Vec<Upper>> {
    let folder = std::path::Path::new("/sys/class/net").join(interface);
    let master = fs::read_link(folder.join("master")).ok();
    let master = master.as_deref().and_then(|path| path.file_name());
    let mut uppers = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let file = entry?.file_name();
        let Some(name) = file.to_str().and_then(|name| name.strip_prefix("upper_")) else {
            continue;
        };
        // One that goes away meanwhile stands on nothing.
        if let Ok(index) = nix::net::if_::if_nametoindex(name) {
            uppers.push(Upper {
                name: name.to_owned(),
                index,
                is_master: master == Some(name.as_ref()),
            });
        }
    }
    uppers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(uppers)
}
