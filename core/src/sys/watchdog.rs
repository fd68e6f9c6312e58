//! The ioctl calls of watchdog devices: Documentation/watchdog/watchdog-api.rst and linux/watchdog.h of the kernel.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What a driver says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support {
    /// What it can do: flags as below.
    pub options: u32,
    /// Its name, up to 32 bytes.
    pub identity: String,
}

/// Flags of [`Support::options`] and of the boot status.
pub mod flag {
    /// The processor was too hot.
    pub const OVERHEAT: u32 = 0x01;
    /// A fan failed.
    pub const FAN_FAULT: u32 = 0x02;
    /// External relay 1.
    pub const EXTERN1: u32 = 0x04;
    /// External relay 2.
    pub const EXTERN2: u32 = 0x08;
    /// Power was bad.
    pub const POWER_UNDER: u32 = 0x10;
    /// The watchdog reset the machine.
    pub const CARD_RESET: u32 = 0x20;
    /// Power was too high.
    pub const POWER_OVER: u32 = 0x40;
    /// It can be given a timeout.
    pub const SET_TIMEOUT: u32 = 0x80;
    /// It is switched off by closing only after a `V`.
    pub const MAGIC_CLOSE: u32 = 0x100;
    /// It can tell before it resets.
    pub const PRE_TIMEOUT: u32 = 0x200;
}

#[repr(C)]
struct WatchdogInfo {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

const LETTER: u32 = b'W' as u32;

/// WDIOC_GETSUPPORT.
///
/// # Errors
/// `ENOTTY` from what is no watchdog.
pub fn support(fd: BorrowedFd<'_>) -> io::Result<Support> {
    let mut info = WatchdogInfo { options: 0, firmware_version: 0, identity: [0; 32] };
    // SAFETY: the request says that the kernel writes a `watchdog_info`, whose layout `WatchdogInfo` has (two u32, 32 bytes);
    // `info` is valid and writable for the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::_IOR::<WatchdogInfo>(LETTER, 0), &raw mut info) })?;
    let end = info.identity.iter().position(|byte| *byte == 0).unwrap_or(info.identity.len());
    let identity = String::from_utf8_lossy(&info.identity[..end]).trim().to_owned();
    Ok(Support { options: info.options, identity })
}

/// WDIOC_GETBOOTSTATUS: why the machine was last reset.
///
/// # Errors
/// The driver does not know.
pub fn boot_status(fd: BorrowedFd<'_>) -> io::Result<u32> {
    read(fd, 2)
}

/// WDIOC_SETTIMEOUT, seconds.
///
/// # Errors
/// `EINVAL` for one that the driver cannot do, `EOPNOTSUPP` when it has a fixed one.
pub fn set_timeout(fd: BorrowedFd<'_>, seconds: u32) -> io::Result<()> {
    write(fd, 6, seconds)
}

/// WDIOC_GETTIMEOUT, seconds.
///
/// # Errors
/// The driver does not know.
pub fn timeout(fd: BorrowedFd<'_>) -> io::Result<u32> {
    read(fd, 7)
}

/// WDIOC_SETPRETIMEOUT, seconds before the reset; 0 switches it off.
///
/// # Errors
/// As [`set_timeout`].
pub fn set_pretimeout(fd: BorrowedFd<'_>, seconds: u32) -> io::Result<()> {
    write(fd, 8, seconds)
}

/// WDIOC_GETPRETIMEOUT, seconds.
///
/// # Errors
/// The driver does not know.
pub fn pretimeout(fd: BorrowedFd<'_>) -> io::Result<u32> {
    read(fd, 9)
}

fn read(fd: BorrowedFd<'_>, number: u32) -> io::Result<u32> {
    let mut value: libc::c_int = 0;
    // SAFETY: these requests write one int; `value` is valid and writable for the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::_IOR::<libc::c_int>(LETTER, number), &raw mut value) })?;
    Ok(value.cast_unsigned())
}

fn write(fd: BorrowedFd<'_>, number: u32, value: u32) -> io::Result<()> {
    let mut value = value.cast_signed();
    // SAFETY: these requests read one int and write it back; `value` is valid and writable for the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::_IOWR::<libc::c_int>(LETTER, number), &raw mut value) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn requests_have_the_numbers_of_the_kernel() {
        // As a C compiler prints them on x86-64 and ARM, which share asm-generic/ioctl.h.
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm"))]
        for (number, expected) in [
            (libc::_IOR::<WatchdogInfo>(LETTER, 0), 0x8028_5700u32),
            (libc::_IOR::<libc::c_int>(LETTER, 2), 0x8004_5702),
            (libc::_IOWR::<libc::c_int>(LETTER, 6), 0xc004_5706),
            (libc::_IOR::<libc::c_int>(LETTER, 7), 0x8004_5707),
            (libc::_IOWR::<libc::c_int>(LETTER, 8), 0xc004_5708),
            (libc::_IOR::<libc::c_int>(LETTER, 9), 0x8004_5709),
        ] {
            assert_eq!(number, expected as libc::Ioctl);
        }
    }

    #[test]
    fn what_is_no_watchdog_says_so() {
        let null = std::fs::File::options().write(true).open("/dev/null").expect("there is one");
        assert_eq!(support(null.as_fd()).expect_err("no watchdog").raw_os_error(), Some(libc::ENOTTY));
        assert!(timeout(null.as_fd()).is_err() && set_timeout(null.as_fd(), 5).is_err());
    }
}
