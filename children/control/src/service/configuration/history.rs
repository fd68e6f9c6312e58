//! The versions of a document: `config-history/<document>/<version>.toml` with what is known of it beside in `.json`.
//!
//! The directory is closed to all but the daemon's user. A version exists as soon as its `.json` does, which is
//! written last.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::{Error, Result};

/// What is known of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema, Deserialize)]
#[serde(default)]
pub struct VersionInfo {
    /// Its number, from 1.
    pub version: u64,
    /// Who made it; empty: somebody by hand, or multusctl.
    pub who: String,
    /// When, RFC 3339.
    pub time: String,
    /// Why.
    pub comment: String,
    /// SHA-256 of the text in hexadecimal digits.
    pub etag: String,
    /// Size of the text.
    pub bytes: u64,
    /// Whether this was a file; false: the version is that there is none.
    pub exists: bool,
}

/// The versions of one document.
#[derive(Debug)]
pub(super) struct History {
    dir: PathBuf,
}

impl History {
    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The numbers of the versions that are kept, in order.
    fn numbers(&self) -> Result<Vec<u64>> {
        let names = super::super::faults::names_in(&self.dir)?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// All that are kept, latest first. One that cannot be read is left out.
    pub(super) fn list(&self) -> Result<Vec<VersionInfo>> {
        Ok(self.numbers()?.into_iter().rev().filter_map(|number| self.info(number).ok()).collect())
    }

    pub(super) fn latest(&self) -> Result<Option<VersionInfo>> {
        Ok(self.numbers()?.into_iter().rev().find_map(|number| self.info(number).ok()))
    }

    /// The number that the next version gets; never one that was there, even if its files are damaged.
    fn next(&self) -> Result<u64> {
        Ok(self.numbers()?.last().map_or(1, |last| last + 1))
    }

    pub(super) fn info(&self, version: u64) -> Result<VersionInfo> {
        let path = self.dir.join(format!("{version}.json"));
        let text = read(&path, version)?;
        let info: VersionInfo = serde_json::from_slice(&text)
            .map_err(|error| Error::Internal(format!("{}: damaged: {error}", path.display())))?;
        Ok(VersionInfo { version, ..info })
    }

    pub(super) fn text(&self, version: u64) -> Result<String> {
        let path = self.dir.join(format!("{version}.toml"));
        String::from_utf8(read(&path, version)?).map_err(|_| Error::Internal(format!("{}: damaged", path.display())))
    }

    /// Keeps a text as the next version; the oldest beyond [`KEPT`] go.
    pub(super) fn add(&self, text: &str, info: VersionInfo) -> Result<VersionInfo> {
        let failed = |error: io::Error| Error::io(&self.dir, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(failed)?;
        let version = self.next()?;
        let info = VersionInfo { version, bytes: text.len() as u64, ..info };
        let json = serde_json::to_vec(&info).map_err(|error| Error::Internal(error.to_string()))?;
        write(&self.dir.join(format!("{version}.toml")), text.as_bytes()).map_err(failed)?;
        if let Err(error) = write(&self.dir.join(format!("{version}.json")), &json) {
            self.forget(version);
            return Err(failed(error));
        }
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        let numbers = self.numbers()?;
        numbers[..numbers.len().saturating_sub(KEPT)].iter().for_each(|old| self.forget(*old));
        Ok(info)
    }

    /// Removes a version.
    pub(super) fn forget(&self, version: u64) {
        for ending in ["json", "toml"] {
            // One that stays is overwritten or removed later.
            let _ = fs::remove_file(self.dir.join(format!("{version}.{ending}")));
        }
    }
}

fn read(path: &Path, version: u64) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound(format!("version {version} is not kept")),
        _ => Error::io(path, &error),
    })
}

/// Readable by its owner only, and on disk when this returns. What could not be written whole is removed.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// Versions of a document that are kept.
const KEPT: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_fifty_are_kept_and_numbers_go_on() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let history = History::at(temp.path().join("a/b"));
        assert_eq!(history.latest(), Ok(None));
        for n in 1..=60 {
            let info = VersionInfo { who: format!("user {n}"), ..VersionInfo::default() };
            assert_eq!(history.add(&format!("n = {n}"), info).expect("writable").version, n);
        }
        let list = history.list().expect("readable");
        assert_eq!((list.len(), list[0].version, list[49].version), (50, 60, 11));
        assert_eq!(list[0].who, "user 60");
        assert_eq!(history.text(60).as_deref(), Ok("n = 60"));
        assert_eq!(history.text(10).expect_err("gone").kind(), "not-found");
        fs::write(temp.path().join("a/b/60.json"), "{").expect("writable");
        assert_eq!(history.latest().expect("readable").map(|info| info.version), Some(59));
        assert_eq!(history.add("", VersionInfo::default()).expect("writable").version, 61, "not 60 again");
    }
}
