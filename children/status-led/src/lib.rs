//! Lamps that show whether the internet and the tunnel are there.
//!
//! The checks are asked by gRPC ([`ask`]); what they say becomes a condition and a pattern of light ([`show`], pure); the
//! outputs are asked for through the process image. Off is the safe state: who fails leaves the lamp dark.
#![forbid(unsafe_code)]

mod ask;
mod config;
mod run;
pub mod show;

pub use config::Config;

/// `main` of multus-status-led.
pub fn main() -> std::process::ExitCode {
    multus_child::run_with_check(&multus_child::about!(), Config::check, run::run)
}
