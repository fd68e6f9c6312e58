//! Time that no jump of the wall clock moves.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::logic::journal::Now;

/// The time since the boot, suspended time included, and which boot it was.
///
/// # Errors
/// The kernel does not tell; then nothing may be tried.
pub(crate) fn now() -> Result<Now, String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(|error| format!("/proc/sys/kernel/random/boot_id: {error}"))?;
    let at = clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(|error| format!("CLOCK_BOOTTIME: {error}"))?;
    Ok(Now { boot: boot.trim().to_owned(), at: Duration::from(at) })
}
