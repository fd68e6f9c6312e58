//! What is decided here, without a clock and without a system call: time since any fixed moment is passed in.

pub(crate) mod backoff;
pub(crate) mod debounce;
pub(crate) mod link;
pub(crate) mod mapping;
