//! The seam between the real atomics and those of the model checker loom.
//!
//! Everything else in this crate takes its atomics from here, so that `scripts/loom` explores the very code that ships.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
