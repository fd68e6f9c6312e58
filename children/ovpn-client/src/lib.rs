//! Runs openvpn in the foreground and watches its tunnel by its management socket.
//!
//! [`text`] checks the configuration before openvpn sees it, [`notice`] understands what openvpn says, [`tunnel`] keeps what is
//! known; all three are pure. `process` runs openvpn, `serve` answers by gRPC, new and as the original. What openvpn cannot
//! recover from by itself ends the child: multusd starts it again.
#![forbid(unsafe_code)]

mod certificate;
mod check;
mod config;
pub mod notice;
mod process;
mod run;
mod serve;
pub mod text;
pub mod tunnel;

pub use config::Config;

/// `main` of multus-ovpn-client.
pub fn main() -> std::process::ExitCode {
    multus_child::run_with_check(&multus_child::about!(), check::check, run::run)
}
