//! Watchdogs of the kernel: /dev/watchdogN.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use super::dog::{Backend, Opened};
use crate::sys::watchdog::{self as calls, flag};

struct Device {
    file: File,
    /// Why closing does not switch it off.
    stays: Option<&'static str>,
}

/// Opens and sets up the device, which begins to count.
pub(super) fn open(path: &Path, timeout: Duration, pretimeout: Option<Duration>) -> Result<Opened, String> {
    let data = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such device; is its kernel module loaded?".to_owned(),
        _ => error.to_string(),
    })?;
    // Opening a pipe could block, and pets written into a file would fill it.
    if !data.file_type().is_char_device() {
        return Err("is no device; expected a watchdog such as /dev/watchdog0, or \"sim\"".to_owned());
    }
    let flags = nix::libc::O_CLOEXEC | nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK;
    let file = OpenOptions::new().write(true).custom_flags(flags).open(path).map_err(|error| refused(&error))?;
    let support = calls::support(file.as_fd()).map_err(|error| match error.raw_os_error() {
        Some(nix::libc::ENOTTY) => "is no watchdog; expected one such as /dev/watchdog0".to_owned(),
        _ => format!("does not say what it is: {error}"),
    })?;
    // Zero says something only where the driver would say otherwise.
    let tells = |bits: &u32| *bits != 0 || support.options & flag::CARD_RESET != 0;
    let boot_status = calls::boot_status(file.as_fd()).ok().filter(tells);
    let (granted, mut notes) = set_timeout(&file, timeout);
    notes.extend(set_pretimeout(&file, support.options, pretimeout));
    let stays = if is_nowayout(data.rdev()) {
        Some("nowayout is set")
    } else if support.options & flag::MAGIC_CLOSE == 0 {
        Some("its driver knows no magic close; whether it is off now is up to it")
    } else {
        None
    };
    if is_nowayout(data.rdev()) {
        notes.push("nowayout is set: it goes on counting when multusd is stopped".to_owned());
    }
    Ok(Opened {
        backend: Box::new(Device { file, stays }),
        identity: Some(support.identity).filter(|name| !name.is_empty()),
        timeout: Some(granted),
        boot_status,
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    })
}

fn refused(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(nix::libc::EBUSY) => {
            "another program has it; end that, or switch off RuntimeWatchdogSec of systemd".to_owned()
        }
        Some(nix::libc::EACCES | nix::libc::EPERM) => "this user may not open it; run multusd as root".to_owned(),
        _ => format!("cannot be opened: {error}"),
    }
}

/// What the driver granted, and what is to be said about it.
fn set_timeout(file: &File, wanted: Duration) -> (Duration, Vec<String>) {
    let seconds = u32::try_from(wanted.as_secs()).unwrap_or(u32::MAX);
    let set = calls::set_timeout(file.as_fd(), seconds);
    let granted = calls::timeout(file.as_fd()).ok().filter(|granted| *granted > 0);
    let note = match (set, granted) {
        (Ok(()), Some(granted)) if granted == seconds => None,
        (Ok(()), Some(granted)) => Some(format!("a timeout of {seconds} s was asked for, {granted} s were granted")),
        (Err(error), Some(granted)) => {
            Some(format!("a timeout of {seconds} s was refused ({error}), its {granted} s are in force"))
        }
        (Ok(()), None) => Some("its timeout cannot be read back".to_owned()),
        (Err(error), None) => {
            Some(format!("a timeout of {seconds} s was refused ({error}), the one in force cannot be read"))
        }
    };
    // The shortest that is usual where nothing is known, so that it is petted often enough.
    let unknown = Duration::from_secs(seconds.min(4).into());
    (granted.map_or(unknown, |granted| Duration::from_secs(granted.into())), note.into_iter().collect())
}

fn set_pretimeout(file: &File, options: u32, wanted: Option<Duration>) -> Option<String> {
    let seconds = u32::try_from(wanted?.as_secs()).unwrap_or(u32::MAX);
    if options & flag::PRE_TIMEOUT == 0 {
        return Some("its driver knows no pretimeout".to_owned());
    }
    if let Err(error) = calls::set_pretimeout(file.as_fd(), seconds) {
        return Some(format!("a pretimeout of {seconds} s was refused: {error}"));
    }
    match calls::pretimeout(file.as_fd()) {
        Ok(granted) if granted != seconds => {
            Some(format!("a pretimeout of {seconds} s was asked for, {granted} s were granted"))
        }
        _ => None,
    }
}

/// Whether the kernel does not let it be switched off. /dev/watchdog is another name of watchdog0.
fn is_nowayout(device: u64) -> bool {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let path = match (major, minor) {
        (10, 130) => "/sys/class/watchdog/watchdog0/nowayout".to_owned(),
        _ => format!("/sys/dev/char/{major}:{minor}/nowayout"),
    };
    fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
}

impl Backend for Device {
    fn pet(&mut self) -> io::Result<()> {
        // Anything but a V.
        self.file.write_all(b"p")
    }

    fn disarm(&mut self) -> Result<(), String> {
        // The magic close: the descriptor is closed right after this.
        self.file
            .write_all(b"V")
            .map_err(|error| format!("cannot be switched off: {error}; it will reset the machine"))?;
        self.stays.map_or(Ok(()), |why| Err(format!("may reset the machine although multusd ended in order: {why}")))
    }
}

/// What a boot status says, a word for each flag.
pub fn boot_words(status: u32) -> Vec<&'static str> {
    [
        (flag::CARD_RESET, "it reset the machine"),
        (flag::OVERHEAT, "the processor was too hot"),
        (flag::FAN_FAULT, "a fan failed"),
        (flag::POWER_UNDER, "power was too low"),
        (flag::POWER_OVER, "power was too high"),
        (flag::EXTERN1, "external relay 1"),
        (flag::EXTERN2, "external relay 2"),
    ]
    .into_iter()
    .filter(|(flag, _)| status & flag != 0)
    .map(|(_, words)| words)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_watchdog_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let (file, pipe) = (dir.path().join("file"), dir.path().join("pipe"));
        fs::write(&file, b"").expect("writable");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("writable");
        let s = Duration::from_secs(15);
        for (path, expected) in [
            (dir.path().join("none").as_path(), "there is no such device"),
            (&file, "is no device"),
            (&pipe, "is no device"),
            (Path::new("/dev/null"), "is no watchdog"),
        ] {
            let error = open(path, s, None).err().expect("no watchdog");
            assert!(error.contains(expected), "{}: {error}", path.display());
        }
        assert_eq!(fs::read(&file).expect("still there"), b"", "nothing was written into it");
    }

    #[test]
    fn a_boot_status_in_words() {
        assert_eq!(boot_words(0), [""; 0]);
        assert_eq!(boot_words(0x21), ["it reset the machine", "the processor was too hot"]);
    }
}
