//! multus-io: one process that touches the hardware. In each scan it reads all inputs into the process image, takes what the
//! owners of outputs ask for, lets the force page win, and writes what has changed. A supervised child like any other.
//!
//! | thread | scheduling | module |
//! |---|---|---|
//! | main: the scan | SCHED_FIFO below the core | [`scan`]: allocates nothing, waits for nothing but its next turn |
//! | i2c, spi | SCHED_FIFO below the scan | [`bus`]: transfers may take long; results and orders go through atomics |
//! | requests | ordinary | [`requests`]: takes the request pages of the children from the core |
//! | clerk | ordinary | [`clerk`]: writes the log and the retained values |
//!
//! What it gets from the core, each as the number of a descriptor: `MULTUS_IO_IMAGE_FD` (the image, for writing; without it a
//! private one), `MULTUS_IO_FORCE_FD` (the force page), `MULTUS_IO_REQUESTS_FD` (a socket over which request pages come, see
//! [`multus_ipc::descriptor::Introduction`]). It runs by hand without any of them.
#![forbid(unsafe_code)]

pub mod bus;
pub mod clerk;
pub mod config;
pub mod requests;
pub mod retained;
pub mod scan;

mod child;

use std::process::ExitCode;

/// The whole program.
pub fn main() -> ExitCode {
    multus_child::run::<child::Scanner>()
}
