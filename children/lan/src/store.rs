//! The journal on the disk, and the lock that lets one process work with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use multus_child::Error;
use multus_contract::dirs::{DirFlags, Dirs};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::files;
use crate::logic::journal::Journal;

/// The file of the journal, and the lock beside it.
#[derive(Debug)]
pub(crate) struct Store {
    file: PathBuf,
    _lock: Flock<File>,
}

impl Store {
    /// For this process alone, as long as it is there. `name` is that of the child; by hand, when nobody has given it one, that
    /// is the usual one.
    ///
    /// # Errors
    /// Somebody else works with it, or the folder cannot be written.
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        let name = if name == env!("CARGO_PKG_NAME") { USUAL } else { name };
        Self::open_in(&Dirs::resolve(&DirFlags::default()).state, name)
    }

    fn open_in(folder: &Path, name: &str) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let lock_file = folder.join(format!("{name}-journal.lock"));
        let lock = File::options().create(true).append(true).open(&lock_file);
        let lock = lock.map_err(|error| format!("{}: {error}", lock_file.display()))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            Errno::EWOULDBLOCK => format!("another {name} works already; stop it first: multusctl stop {name}"),
            error => format!("{}: {error}", lock_file.display()),
        })?;
        Ok(Self { file: folder.join(format!("{name}-journal.json")), _lock: lock })
    }

    /// The journal; an empty one if there is none. One that cannot be understood is put aside.
    ///
    /// # Errors
    /// It is there and cannot be read: nothing may be changed then.
    pub(crate) fn load(&self) -> Result<Journal, Error> {
        let Some(text) = files::read(&self.file)? else { return Ok(Journal::default()) };
        match serde_json::from_str(&text) {
            Ok(journal) => Ok(journal),
            Err(error) => {
                let aside = self.file.with_extension("bad");
                fs::rename(&self.file, &aside)
                    .map_err(|error| format!("{} cannot be put aside: {error}", self.file.display()))?;
                log::error!(
                    "{} is damaged ({error}) and is now {}; what was confirmed before is not known any more",
                    self.file.display(),
                    aside.display()
                );
                Ok(Journal::default())
            }
        }
    }

    /// Writes it safely: after this it survives a power cut.
    ///
    /// # Errors
    /// It cannot be written; what was written before is still there.
    pub(crate) fn save(&self, journal: &Journal) -> Result<(), String> {
        let text = serde_json::to_string_pretty(journal).map_err(|error| error.to_string())?;
        files::replace(&self.file, &format!("{text}\n"), 0o600)
    }
}

/// What the documentation calls this child.
const USUAL: &str = "lan";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::journal::Rejected;

    #[test]
    fn a_journal_comes_back_and_a_damaged_one_is_put_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open_in(folder.path(), "lan").expect("writable");
        assert!(Store::open_in(folder.path(), "lan").expect_err("locked").to_string().contains("works already"));
        assert_eq!(store.load().expect("none"), Journal::default());
        let rejected = Rejected { mark: "a".into(), reason: "b".into() };
        let journal = Journal { rejected: Some(rejected), ..Journal::default() };
        store.save(&journal).expect("written");
        assert_eq!(store.load().expect("there"), journal);
        for damaged in ["", "{", "[1]", "{\"pending\": 1}"] {
            fs::write(folder.path().join("lan-journal.json"), damaged).expect("own file");
            assert_eq!(store.load().expect("put aside"), Journal::default());
            assert_eq!(fs::read_to_string(folder.path().join("lan-journal.bad")).expect("aside"), damaged);
        }
    }
}
