//! The contracts of multusd as types: where files live, what configuration files may say, what status, events and control
//! messages look like.
//!
//! Every program of the project needs these, so this crate starts no loop, owns no thread and knows nothing of the
//! daemon. Files become values in one step ("parse, don't validate"): whoever holds a [`config::ChildConfig`] holds a
//! checked one, and whatever was wrong is a [`config::Diagnostic`] with file, line and key.
//!
//! * [`dirs`]: the four directories and the files in them.
//! * [`config`]: `multusd.toml` and `children/*.toml`.
//! * [`log_file`]: reading log files across rotation.
//! * [`api`]: Status JSON, Event JSON, the messages of `control.sock`, exit codes.

#![forbid(unsafe_code)]

pub mod api;
pub mod config;
pub mod dirs;
pub mod log_file;
