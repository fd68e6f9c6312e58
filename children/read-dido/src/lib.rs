//! Digital lines of one device at the outputs of another: mirrored I/O.
//!
//! ```text
//! process image -> lines (a thread that waits for changes) -> sender (a task for each receiver) -> network
//! network -> receiver::connection -> receiver::service, receiver::legacy -> outputs in the process image
//! ```
//! [`logic`] is pure: inversion and debounce, which state is the newest, silence, waits. The service is described in
//! `proto/multus/v1/mirror.proto`, that of the original in `proto/legacy/read_dido.proto`.
#![forbid(unsafe_code)]

mod config;
mod lines;
mod logic;
mod peers;
mod receiver;
mod run;
mod secret;
mod sender;
mod told;

pub use config::Config;

/// `main` of multus-read-dido.
pub fn main() -> std::process::ExitCode {
    multus_child::run_with_check(&multus_child::about!(), Config::check, run::run)
}
