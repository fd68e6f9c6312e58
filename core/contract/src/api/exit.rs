//! The exit codes of every program of the project.

/// Done as asked.
pub const DONE: u8 = 0;
/// Refused or failed; stderr says why.
pub const FAILED: u8 = 1;
/// The command line was not understood.
pub const USAGE: u8 = 2;
