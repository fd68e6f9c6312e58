//! What crosses a process boundary in memory.
//!
//! | page | owner and only writer | readers | size |
//! |---|---|---|---|
//! | [`heartbeat`] | one process of one child instance | the core | 76 KiB each |
//! | [`status`] | the core's watch thread | anybody who was given it | 640 B + 512 B a slot |
//! | [`event_ring`] | the core's watch thread | anybody who was given it | 128 B + 512 B an entry |
//! | [`force`] | the core's watch thread | whoever drives outputs | 128 B + 64 B an output |
//! | [`io`]: image | multus-io | anybody who was given it | 65 KiB |
//! | [`io`]: requests | one process of one child instance | multus-io | 8 KiB each |
//!
//! Every page is an array of 64-bit little-endian words, each one an atomic, so that no reader can race with a writer.
//! A page has one writer; whoever reads it treats it as an allegation and validates it. The byte layout is a stable
//! interface, described for writers in any language in `docs/abi.md`.
//!
//! `unsafe` lives in [`map`], [`descriptor`], [`futex`] and [`time`] alone.
#![warn(missing_docs)]
#![deny(unsafe_code)]

#[cfg(not(target_endian = "little"))]
compile_error!("the page layouts are little-endian; no big-endian board is supported");

pub mod checkpoint;
pub mod event_ring;
pub mod force;
pub mod heartbeat;
pub mod histogram;
pub mod io;
pub mod page;
pub mod seqlock;
pub mod status;
pub mod sync;
pub mod text;
pub mod time;
pub mod trace;
pub mod voice;
pub mod words;

#[cfg(not(loom))]
pub mod child;
#[cfg(not(loom))]
pub mod descriptor;
#[cfg(not(loom))]
pub mod futex;
#[cfg(not(loom))]
pub mod io_child;
#[cfg(not(loom))]
pub mod map;

pub use time::MonoNs;
