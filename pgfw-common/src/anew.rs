//! Where the compiler has to forget.

/// The same place, of whose memory the compiler knows nothing any more: what is read from there is read from memory.
///
/// The programs need it for the verifier, which follows every value along every path: a value that it finds in a map
/// is any value, and so all paths that lead here are one from here on. `core::hint::black_box` does that too, by way
/// of the stack; this is a jump to the next instruction, which the verifier takes out (opt_remove_nops). With none at all
/// two source lines would begin at one instruction, and the kernel refuses that (check_btf_line).
#[inline(always)]
pub fn anew<T>(place: &mut T) -> &mut T {
    #[cfg(target_arch = "bpf")]
    {
        let mut pointer: *mut T = place;
        // SAFETY: does nothing; the pointer comes out as it went in, with the only claim to what it points to.
        unsafe {
            core::arch::asm!("goto +0 /* {0} */", inout(reg) pointer, options(nostack, preserves_flags));
            &mut *pointer
        }
    }
    #[cfg(not(target_arch = "bpf"))]
    place
}
