//! A watchdog that is a file: `watchdog-sim` in the runtime directory. It resets nothing; it shows whether it was petted, and says
//! at the next start whether it would have bitten.
//!
//! One line: `armed` or `off`, number of pets, CLOCK_MONOTONIC ns of the last one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use multus_contract::dirs::Dirs;
use multus_ipc::MonoNs;
use multus_ipc::time::duration_ns;

use super::dog::{Backend, Opened};
use crate::sys::watchdog::flag;

/// Where it is.
pub fn file_of(dirs: &Dirs) -> PathBuf {
    dirs.runtime.join("watchdog-sim")
}

struct Sim {
    file: File,
    pets: u64,
}

pub(super) fn open(path: &Path, timeout: Duration) -> Result<Opened, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    if fs::symlink_metadata(path).is_ok_and(|data| !data.is_file()) {
        return Err(format!("{}: is no regular file", path.display()));
    }
    let before = fs::read_to_string(path).unwrap_or_default();
    let flags = nix::libc::O_CLOEXEC | nix::libc::O_NOFOLLOW;
    let file = OpenOptions::new().write(true).create(true).truncate(false).custom_flags(flags).open(path);
    let mut sim = Sim { file: file.map_err(failed)?, pets: 0 };
    sim.write("armed", MonoNs::now()).map_err(failed)?;
    Ok(Opened {
        backend: Box::new(sim),
        identity: Some("simulated".to_owned()),
        timeout: Some(timeout),
        boot_status: Some(if has_bitten(&before, timeout, MonoNs::now()) { flag::CARD_RESET } else { 0 }),
        note: Some("SIMULATED: nothing resets this machine".to_owned()),
    })
}

/// Whether a real one would have reset the machine since then.
fn has_bitten(line: &str, timeout: Duration, now: MonoNs) -> bool {
    let mut words = line.split_whitespace();
    let (state, last) = (words.next(), words.nth(1).and_then(|word| word.parse::<u64>().ok()));
    state == Some("armed") && last.is_some_and(|last| now.0 > last.saturating_add(duration_ns(timeout)))
}

impl Sim {
    fn write(&mut self, state: &str, now: MonoNs) -> io::Result<()> {
        // Always the same length, so that a line is whole.
        self.file.write_all_at(format!("{state:5} {:20} {:20}\n", self.pets, now.0).as_bytes(), 0)
    }
}

impl Backend for Sim {
    fn pet(&mut self) -> io::Result<()> {
        self.pets += 1;
        self.write("armed", MonoNs::now())
    }

    fn disarm(&mut self) -> Result<(), String> {
        self.write("off", MonoNs::now()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_pets_and_whether_it_would_have_bitten() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let path = dir.path().join("watchdog-sim");
        let mut opened = open(&path, Duration::from_secs(5)).expect("a new one");
        assert_eq!(opened.boot_status, Some(0));
        opened.backend.pet().expect("works");
        opened.backend.pet().expect("works");
        let line = fs::read_to_string(&path).expect("there");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[0], words[1]), ("armed", "2"));
        let last: u64 = words[2].parse().expect("a number");
        let s = Duration::from_secs;
        assert!(!has_bitten(&line, s(5), MonoNs(last).after(s(5))));
        assert!(has_bitten(&line, s(5), MonoNs(last).after(s(6))));
        opened.backend.disarm().expect("works");
        let line = fs::read_to_string(&path).expect("there");
        assert!(!has_bitten(&line, s(5), MonoNs(last).after(s(60))), "{line}");
        for soup in ["", "armed", "armed x y", "armed 1 -5"] {
            assert!(!has_bitten(soup, s(5), MonoNs::NEVER));
        }
    }
}
