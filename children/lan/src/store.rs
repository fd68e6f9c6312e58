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
    /// Somebody else works, or what another child has set stands: all of them write the same files. Or the folder cannot be
    /// written.
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        let name = if name == env!("CARGO_PKG_NAME") { USUAL } else { name };
        Self::open_alone_in(&Dirs::resolve(&DirFlags::default()).state, name)
    }

    fn open_alone_in(folder: &Path, name: &str) -> Result<Self, Error> {
        let store = Self::open_in(folder, name)?;
        let stands = |other: &String| {
            let text = files::read(&folder.join(format!("{other}{JOURNAL}"))).ok().flatten();
            let journal = text.and_then(|text| serde_json::from_str::<Journal>(&text).ok());
            journal.is_some_and(|journal| journal.confirmed.is_some() || journal.pending.is_some())
        };
        match journals(folder).iter().find(|other| *other != name && stands(other)) {
            None => Ok(store),
            Some(other) => Err(format!(
                "what the child {other} has set stands, and there is one multus-lan for a machine; while that one is \
                 stopped: MULTUS_NAME={other} multus-lan --undo"
            )
            .into()),
        }
    }

    /// As [`Store::open`], where there is a journal already.
    ///
    /// # Errors
    /// There is none, and those of which children there are.
    pub(crate) fn open_known(name: &str) -> Result<Self, Error> {
        let name = if name == env!("CARGO_PKG_NAME") { USUAL } else { name };
        Self::open_known_in(&Dirs::resolve(&DirFlags::default()).state, name)
    }

    fn open_known_in(folder: &Path, name: &str) -> Result<Self, Error> {
        let known = journals(folder);
        if known.iter().any(|known| known == name) {
            return Self::open_in(folder, name);
        }
        let others = match &known[..] {
            [] => "there is none of another child either, so nothing was set".to_owned(),
            [first, ..] => {
                format!("there are those of: {}; such as MULTUS_NAME={first} multus-lan --undo", known.join(", "))
            }
        };
        Err(format!("{} has no journal of a child {name}; {others}", folder.display()).into())
    }

    fn open_in(folder: &Path, name: &str) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let lock_file = folder.join("multus-lan.lock");
        let lock = File::options().create(true).append(true).open(&lock_file);
        let lock = lock.map_err(|error| format!("{}: {error}", lock_file.display()))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            Errno::EWOULDBLOCK => format!("a multus-lan works already; stop it first: multusctl stop {name}"),
            error => format!("{}: {error}", lock_file.display()),
        })?;
        Ok(Self { file: folder.join(format!("{name}{JOURNAL}")), _lock: lock })
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

/// The children of which there is a journal.
fn journals(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = files.filter_map(|file| file.file_name().to_str()?.strip_suffix(JOURNAL).map(str::to_owned));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

const JOURNAL: &str = "-journal.json";
/// What the documentation calls this child.
const USUAL: &str = "lan";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::logic::journal::{Now, Rejected, Snapshot};
    use crate::logic::plan::Kind;

    #[test]
    fn a_journal_that_is_not_there_is_not_taken_for_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = |name| Store::open_known_in(folder.path(), name).expect_err("not there").to_string();
        assert!(refused("lan").contains("nothing was set"));
        for name in ["lan-b", "lan-a"] {
            Store::open_in(folder.path(), name).and_then(|s| Ok(s.save(&Journal::default())?)).expect("written");
        }
        assert!(refused("lan").contains("there are those of: lan-a, lan-b"), "{}", refused("lan"));
        assert!(Store::open_known_in(folder.path(), "lan-b").is_ok());
    }

    #[test]
    fn one_child_sets_up_a_machine() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Now { boot: "a".into(), at: Duration::from_secs(1) };
        let open = |name| Store::open_alone_in(folder.path(), name);
        let lan = open("lan").expect("writable");
        assert!(open("lan-b").expect_err("the other one works").to_string().contains("works already"));
        let mut journal = Journal::default();
        let found = Snapshot::Networkd { file: None };
        journal.begin(serde_json::from_str(PLAN).expect("good"), Kind::Networkd, found, &now, Duration::from_secs(60));
        lan.save(&journal).expect("written");
        drop(lan);
        let refused = open("lan-b").expect_err("what the other one has set stands").to_string();
        assert!(refused.contains("MULTUS_NAME=lan multus-lan --undo"), "{refused}");
        open("lan").and_then(|lan| Ok(lan.save(&Journal::default())?)).expect("written");
        assert!(open("lan-b").is_ok());
    }

    const PLAN: &str = r#"{"interface": "eth0", "dhcp": true, "addresses": [], "gateway": null, "gateway_v6": null,
        "is_default_way": true, "name_servers": [], "backend": null,
        "nat": {"source": false, "from": "tun0", "destination": []}}"#;

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
