//! What this process must have before anything is attached, looked for by name. What the kernel must have: `kernel.rs`.

use super::error::DatapathError;

// include/uapi/linux/capability.h
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Checks this process's capabilities.
pub(super) fn check() -> Result<(), DatapathError> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(DatapathError::call("read /proc/self/status"))?;
    check_capabilities(&status)
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
}
