//! The lines of the plant as a Modbus server: TCP, and RTU over a serial line with the feature `rtu`.
//!
//! ```text
//! frame (tcp, rtu) -> pdu::decode -> unit: map + plant + watchdog -> answer
//! ```
//! [`pdu`], [`frame`], [`map`], [`unit`], [`watchdog`] and [`identity`] are pure; [`plant`] is the process image, [`tcp`] and
//! `rtu` are the transports. The protocol is our own code: the decoder of tokio-modbus 0.17 panics when function 15 names fewer
//! bytes than bits, which one frame does, and refuses whatever else is malformed by closing the connection instead of by the
//! exceptions of the specification; its server has neither limits nor time-outs.
#![forbid(unsafe_code)]

mod config;
mod diagnostics;
mod frame;
mod identity;
mod map;
mod pdu;
mod plant;
#[cfg(feature = "rtu")]
mod rtu;
mod run;
mod tcp;
mod unit;
mod value;
mod watchdog;

pub use config::Config;

/// `main` of multus-modbus.
pub fn main() -> std::process::ExitCode {
    multus_child::run_with_check(&multus_child::about!(), Config::check, run::run)
}
