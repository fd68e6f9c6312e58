//! What the daemon tells and takes: Status JSON, Event JSON, the messages of `control.sock`, exit codes, written times,
//! and values as people read them.

pub mod advice;
pub mod command;
pub mod event;
pub mod exit;
pub mod human;
pub mod intervals;
pub mod io;
pub mod report;
pub mod reset;
pub mod status;
pub mod time;
