//! The system calls that no crate in the tree offers. The only room of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Says which chip the next reads and writes of an I2C device are for.
pub(crate) fn i2c_address(device: &File, address: u8) -> io::Result<()> {
    const I2C_SLAVE: u32 = 0x0703; // linux/i2c-dev.h
    // SAFETY: takes an integer and touches no memory of ours.
    let rc = unsafe { libc::ioctl(device.as_raw_fd(), I2C_SLAVE as _, libc::c_ulong::from(address)) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One transfer of `bytes` in both directions.
pub(crate) fn spi_transfer(device: &File, speed_hz: u32, bytes: &mut [u8]) -> io::Result<()> {
    const SPI_IOC_MESSAGE_1: u32 = 0x4020_6b00; // linux/spi/spidev.h: _IOW('k', 0, one transfer of 32 bytes)
    let buffer = bytes.as_mut_ptr() as u64;
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let transfer =
        SpiTransfer { sent: buffer, received: buffer, length, speed_hz, bits_per_word: 8, ..SpiTransfer::default() };
    // SAFETY: the transfer names a live buffer of exactly this length for both directions, which spidev allows: it copies
    // first and writes back at the end. The kernel keeps neither address.
    let rc = unsafe { libc::ioctl(device.as_raw_fd(), SPI_IOC_MESSAGE_1 as _, &raw const transfer) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `struct spi_ioc_transfer` of linux/spi/spidev.h.
#[derive(Default)]
#[repr(C)]
struct SpiTransfer {
    sent: u64,
    received: u64,
    length: u32,
    speed_hz: u32,
    delay_us: u16,
    bits_per_word: u8,
    cs_change: u8,
    tx_nbits: u8,
    rx_nbits: u8,
    word_delay_us: u8,
    pad: u8,
}

const _: () = assert!(size_of::<SpiTransfer>() == 32);

/// Gives the calling thread SCHED_FIFO at `priority`, 1 to 99; not to threads that it makes.
///
/// # Errors
/// No right to do so.
pub fn be_real_time(priority: u8) -> io::Result<()> {
    set_scheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, priority)
}

/// The same for all threads that this process has now.
///
/// # Errors
/// No right to do so, or no /proc.
pub fn all_be_real_time(priority: u8) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/task")? {
        let Some(thread) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match set_scheduler(thread, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, priority) {
            // It has ended meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            result => result?,
        }
    }
    Ok(())
}

/// Thread 0 is the calling one.
fn set_scheduler(thread: libc::pid_t, policy: i32, priority: u8) -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: priority.into() };
    // SAFETY: the parameter lives through the call.
    let rc = unsafe { libc::sched_setscheduler(thread, policy, &raw const parameter) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
