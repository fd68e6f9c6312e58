//! Whether the network is there: what `multus-lanwan-check` and `multus-openvpn-check` share.
//!
//! ```text
//!   netlink (interfaces) --+                                  +--> log, action
//!                          +--> watch --> logic (decides) ----+
//!   probe (ping, tcp, ...) -+                                 +--> serve (gRPC, new and as of the original)
//! ```
//! [`logic`] is pure: answers and times go in, changes of state come out. Everything runs in one thread.
#![forbid(unsafe_code)]

mod action;
mod config;
pub mod logic;
mod probe;
mod run;
mod serve;
mod target;
mod watch;

use std::process::ExitCode;

use multus_child::About;

pub use config::{LanWan, OpenVpn};
pub use target::Target;

/// `main` of multus-lanwan-check.
pub fn lanwan() -> ExitCode {
    run::main(&about("multus-lanwan-check", "Checks whether the LAN and the world can be reached"), LanWan::valid)
}

/// `main` of multus-openvpn-check.
pub fn openvpn() -> ExitCode {
    run::main(&about("multus-openvpn-check", "Checks whether what lies behind a tunnel can be reached"), OpenVpn::valid)
}

fn about(name: &'static str, description: &'static str) -> About {
    About { name, version: env!("CARGO_PKG_VERSION"), description }
}
