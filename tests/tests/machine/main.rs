//! What needs a kernel or a device that only a guest has (`cargo xtask vm`).
