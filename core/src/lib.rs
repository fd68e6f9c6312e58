//! The daemon multusd and the command line multusctl.
//!
//! | thread | priority | does |
//! |---|---|---|
//! | watch | SCHED_FIFO | [`watch`]: looks at heartbeats, decides, forces outputs |
//! | launcher | SCHED_FIFO, one less | [`launcher`]: makes and ends processes, through the spawner process |
//! | adapters | SCHED_FIFO, one less | [`adapters`]: turns notices of foreign programs into beats |
//! | guard | SCHED_FIFO, one less | [`guard`]: writes the safe values of outputs itself when multus-io does not |
//! | files | SCHED_FIFO, one less | [`adapters::file`]: looks whether files were touched; only if somebody beats so |
//! | keeper | SCHED_FIFO, one less | [`watchdog`]: pets the watchdogs as long as the watch thread is on time; only if there are some |
//! | evidence | ordinary | [`evidence`]: finds out what a faulty process was doing |
//! | log | ordinary | [`logroom`]: output of children, events, the daemon's own log |
//! | control | ordinary | [`control`]: control socket, configuration, signals, temperature |
//!
//! Between the watch thread and the others there are only wait-free rings, event descriptors and shared pages.
#![deny(unsafe_code)]

pub mod adapters;
pub mod advise;
pub mod capture;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod describe;
pub mod diary;
pub mod evidence;
pub mod flight;
pub mod guard;
pub mod launcher;
pub mod logroom;
pub mod policy;
pub mod probe;
pub mod realtime;
pub mod reset;
pub mod stage;
pub mod sys;
pub mod wake;
pub mod watch;
pub mod watchdog;
