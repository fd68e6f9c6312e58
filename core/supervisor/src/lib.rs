//! The decisions of multusd, and nothing else: events and the time go in, effects come out.
//!
//! No clock, no thread, no system call, no allocation after [`Supervisor::new`]; the dependency list proves most of
//! it. Who drives it (the watch thread, or a simulated world in tests) does this for ever:
//!
//! ```text
//! wait until next_deadline() or an event -> now -> handle(event, now) for each -> handle_timeout(now)
//! ```
//! Calling [`Supervisor::handle_timeout`] too early or twice is harmless.
//!
//! # States of a child instance
//! ```text
//!            enable/disable                    prerequisite there, start token free
//!  disabled <-------------> blocked ----------------------------------------------> starting
//!                              ^   ^                                                 |   |
//!   stopped -- start ----------+   |prerequisite gone                   ready        |   | fault, stop
//!      ^                           |               +------------------- <------------+   |
//!      |                        backoff            v                                     v
//!      |                           ^            running -------- fault, stop ------> stopping
//!      |                           | delay                                               |
//!      +---------------------------+---- evidence, kill, reap, commands <---------------+
//! ```
//! # What always holds (and is tested over random histories)
//! 1. An instance never has two processes: a process is asked for only when the last one's whole tree is gone.
//! 2. Outputs are forced safe before a faulty child is killed and before every start; only `ready` releases them.
//! 3. Restarting never ends: a child that is wanted is starting, running, on its way down, or waits for a known time
//!    or for something named in its status.
//! 4. A stop wins over a restart that is pending.
//! 5. Nothing is started while a prerequisite is missing.
//! 6. A beat made in time is never a fault; a beat that stays away always is one.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod checkpoint;
mod child;
pub mod deadlines;
pub mod event;
pub mod policy;
mod supervisor;
pub mod temperature;
pub mod watch;

pub use child::{Block, Child, Fault, Phase, Start, State, Then};
pub use event::{Command, Event, ExitStatus, Job, JobResult, Refusal, Told, World};
pub use policy::{Beats, Check, Edge, EdgePolicy, List, Policy, Settings};
pub use supervisor::Supervisor;
