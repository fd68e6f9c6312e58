//! Sets up the LAN of a device, and takes back what cuts it off.
//!
//! ```text
//!   config --> keeper --(logic: what is next?)--> journal (state directory), backend, nft
//!                ^                                   |
//!   netlink -----+--- answers of the router, Confirm-+
//! ```
//! [`logic`] is pure: the journal of commit-confirm, addresses, the texts of all files. `backend` knows four ways to set up an
//! interface, `keeper` does what the journal says, `serve` answers by gRPC. Everything runs in one thread.
#![forbid(unsafe_code)]

mod arp;
mod backend;
mod clock;
mod commands;
mod config;
mod dhcp;
mod files;
mod keeper;
pub mod logic;
mod nat;
mod program;
mod run;
mod serve;
mod shown;
mod store;

use std::process::ExitCode;

pub use config::Config;

/// `main` of multus-lan.
pub fn main() -> ExitCode {
    if dhcp::is_hook() {
        return dhcp::hook();
    }
    multus_child::run_with_commands(&multus_child::about!(), Config::check, &commands::ALL, run::run)
}
