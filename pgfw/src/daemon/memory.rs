//! Gives memory back that a large policy took while it was compiled: the daemon lives for months, a compilation for a
//! fraction of a second.

/// After work that may have taken much. Where there is nothing to give this takes some microseconds.
pub(super) fn give_back() {
    // glibc keeps freed memory in the arena of the thread that took it, and of its own accord returns only what lies at
    // the end of one (mallopt(3), M_TRIM_THRESHOLD).
    #[cfg(target_env = "gnu")]
    // SAFETY: touches nothing but what the allocator holds as free.
    unsafe {
        libc::malloc_trim(0);
    }
}
