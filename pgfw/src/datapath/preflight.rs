//! What must be there before anything is attached, looked for by name.

use std::io;

use nix::sys::utsname::uname;

use super::error::DatapathError;

// include/uapi/linux/capability.h
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Checks the kernel's version and this process's capabilities.
pub(super) fn check() -> Result<(), DatapathError> {
    let name = uname()
        .map_err(io::Error::from)
        .map_err(DatapathError::call("ask for the kernel's release"))?;
    check_kernel(&name.release().to_string_lossy())?;
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(DatapathError::call("read /proc/self/status"))?;
    check_capabilities(&status)
}

/// The youngest thing needed: a link for the classifier on the way out.
fn check_kernel(release: &str) -> Result<(), DatapathError> {
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (6, 6) {
        return Ok(());
    }
    Err(DatapathError::Kernel {
        release: release.to_owned(),
        feature: "TCX links",
        since: "6.6",
    })
}

/// `status` is the text of `/proc/self/status`.
fn check_capabilities(status: &str) -> Result<(), DatapathError> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |capability: u32| effective >> capability & 1 == 1;
    // CAP_SYS_ADMIN includes what CAP_BPF and CAP_PERFMON were split from it for.
    let missing: Vec<&str> = [
        ("CAP_NET_ADMIN", has(CAP_NET_ADMIN)),
        ("CAP_BPF", has(CAP_BPF) || has(CAP_SYS_ADMIN)),
        ("CAP_PERFMON", has(CAP_PERFMON) || has(CAP_SYS_ADMIN)),
    ]
    .into_iter()
    .filter_map(|(name, held)| (!held).then_some(name))
    .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(DatapathError::Capability {
            names: missing.join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f38_a_missing_capability_is_named() {
        let status = |mask: u64| format!("Name:\tpgfw\nCapEff:\t{mask:016x}\nCapBnd:\t0\n");
        let missing = |mask| match check_capabilities(&status(mask)) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(missing(1 << 12 | 1 << 39 | 1 << 38), "");
        assert_eq!(missing(1 << 12 | 1 << 21), "");
        assert!(missing(1 << 21).starts_with("CAP_NET_ADMIN is missing"));
        assert!(missing(0).starts_with("CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON"));
    }

    #[test]
    fn f38_an_old_kernel_is_named() {
        for (release, good) in [
            ("6.18.44-x", true),
            ("6.6.0", true),
            ("6.5.9-generic", false),
            ("5.10.223", false),
        ] {
            assert_eq!(check_kernel(release).is_ok(), good, "{release}");
        }
        let told = check_kernel("5.10.0-30-amd64").expect_err("too old").to_string();
        assert!(told.contains("5.10.0-30-amd64") && told.contains("TCX"), "{told}");
    }
}
