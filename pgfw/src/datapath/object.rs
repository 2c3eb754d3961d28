//! The compiled programs, and the compiler that made them.

/// The compiler that made the embedded object, as it names itself; `none` where there was none.
pub const COMPILER: &str = env!("PGFW_BPF_COMPILER");

/// The object file that holds the programs, for whoever wants to look at them.
#[must_use]
pub fn object() -> &'static [u8] {
    embedded::<()>()
}

/// The object file that the build script left.
#[cfg(pgfw_bpf_object)]
#[expect(
    clippy::extra_unused_type_parameters,
    reason = "the form below needs it, and callers name it"
)]
fn embedded<T>() -> &'static [u8] {
    aya::include_bytes_aligned!(env!("PGFW_BPF_OBJECT"))
}

/// There is none. This fails to compile only where code is generated, so check, clippy and doc go on.
#[cfg(not(pgfw_bpf_object))]
fn embedded<T>() -> &'static [u8] {
    Missing::<T>::OBJECT
}

#[cfg(not(pgfw_bpf_object))]
struct Missing<T>(std::marker::PhantomData<T>);

#[cfg(not(pgfw_bpf_object))]
impl<T> Missing<T> {
    const OBJECT: &'static [u8] =
        panic!("no compiler for the BPF programs was found: run `cargo xtask setup`, then build again");
}
