//! Requests by file, as programs and people made them of the original multusd.
//!
//! | file below `request_dir` | asks for |
//! |---|---|
//! | `<name>/Reload`, older than 60 s | a restart of that child, or of one instance of it |
//! | `system/Reload.Modules`, older than 60 s | reading the configuration again |
//! | `system/Reboot.0`, `system/Reboot.300` | starting the machine anew, at once or in 300 s |
//!
//! Only regular files count, in directories that are no symbolic links: whoever may write there may ask for exactly this,
//! and cannot have a file removed elsewhere. What was asked is done when the file could be removed, so it is done once.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// From look to look.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);
/// Restarts and reloads are obeyed when they are so old: whoever asks for several changes has the time to make them.
const AGE: Duration = Duration::from_secs(60);

/// What a file asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Restart this child or instance.
    Restart(String),
    /// Read the configuration again.
    Reload,
    /// Start the machine anew in so many seconds.
    Reboot(u64),
}

/// Takes what is asked for out of the directory; `names` are those of all children and instances. The second list holds
/// what cannot be removed, and so is not obeyed. Blocks for as long as the file system needs.
pub(super) fn take(dir: &Path, names: &[&str], now: SystemTime) -> (Vec<Wish>, Vec<String>) {
    let (mut wishes, mut stuck) = (Vec::new(), Vec::new());
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let Ok(root) = open(dir, flags, Mode::empty()) else { return (wishes, stuck) };
    let mut look = |place: &str, file: &str, age: Duration, wish: &dyn Fn() -> Wish| {
        let Ok(folder) = openat(&root, place, flags | OFlag::O_NOFOLLOW, Mode::empty()) else { return };
        match remove(&folder, file, age, now) {
            Ok(true) => wishes.push(wish()),
            Ok(false) => {}
            Err(errno) => stuck.push(format!("{}/{place}/{file}: {}", dir.display(), errno.desc())),
        }
    };
    for name in names {
        look(name, "Reload", AGE, &|| Wish::Restart((*name).to_owned()));
    }
    look("system", "Reload.Modules", AGE, &|| Wish::Reload);
    for (file, seconds) in [("Reboot.300", 300), ("Reboot.0", 0)] {
        look("system", file, Duration::ZERO, &|| Wish::Reboot(seconds));
    }
    (wishes, stuck)
}

/// Removes a regular file of at least this age; whether there was one.
fn remove(folder: &OwnedFd, file: &str, age: Duration, now: SystemTime) -> Result<bool, Errno> {
    let Ok(data) = fstatat(folder, file, AtFlags::AT_SYMLINK_NOFOLLOW) else { return Ok(false) };
    let is_file = SFlag::from_bits_truncate(data.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG;
    let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(data.st_mtime).unwrap_or(0));
    // One of the future is not obeyed before its time has come: the clock may have been set back.
    if !is_file || now.duration_since(changed).is_ok_and(|is| is < age) || (!age.is_zero() && changed > now) {
        return Ok(false);
    }
    unlinkat(folder, file, UnlinkatFlags::NoRemoveDir)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_old_regular_files_ask_and_each_asks_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let now = SystemTime::now();
        let make = |name: &str, age: u64| {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::File::create(path(name)).unwrap().set_modified(now - Duration::from_secs(age)).unwrap();
        };
        assert_eq!(take(&path("missing"), &["pump"], now), (vec![], vec![]));
        make("pump/Reload", 61);
        make("fan/Reload", 59);
        make("lan/reload", 100);
        make("stranger/Reload", 100);
        make("system/Reload.Modules", 61);
        make("system/Reboot.0", 0);
        make("system/Reboot.300", 5);
        make("system/Reboot.7", 5);
        make("away/Reload", 100);
        fs::create_dir_all(path("dir/Reload")).unwrap();
        std::os::unix::fs::symlink(path("away"), path("link")).unwrap();
        fs::create_dir_all(path("soft")).unwrap();
        std::os::unix::fs::symlink(path("away/Reload"), path("soft/Reload")).unwrap();
        let names = ["dir", "fan", "lan", "link", "pump", "soft"];
        let expected = vec![Wish::Restart("pump".into()), Wish::Reload, Wish::Reboot(300), Wish::Reboot(0)];
        assert_eq!(take(dir.path(), &names, now), (expected, vec![]));
        for name in ["away/Reload", "fan/Reload", "stranger/Reload", "system/Reboot.7", "dir/Reload", "soft/Reload"] {
            assert!(path(name).exists(), "{name}");
        }
        assert_eq!(take(dir.path(), &names, now), (vec![], vec![]), "everything was taken");
        assert_eq!(take(dir.path(), &names, now + Duration::from_secs(2)).0, [Wish::Restart("fan".into())]);
        fs::File::create(path("pump/Reload")).unwrap().set_modified(now + Duration::from_secs(3600)).unwrap();
        assert_eq!(take(dir.path(), &names, now).0, [], "a file of the future waits");
    }
}
