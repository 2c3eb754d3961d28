//! Gives memory back that a large policy took while it was compiled: the daemon lives for months, a compilation for a
//! fraction of a second.

/// Before any thread is begun.
pub(super) fn prepare() {
    // All threads take from one place. Of every other malloc_trim(3) gives back what lies between, not what lies at the
    // end (malloc/malloc.c, `mtrim`): there a whole policy may stay. Nobody here allocates at a rate that minds.
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// After work that may have taken much. Where there is nothing to give this takes some microseconds.
pub(super) fn give_back() {
    // Of its own accord glibc returns only what lies at the end (mallopt(3), M_TRIM_THRESHOLD).
    #[cfg(target_env = "gnu")]
    // SAFETY: touches nothing but what the allocator holds as free.
    unsafe {
        libc::malloc_trim(0);
    }
}
