//! Files that are there as a whole or not at all, also after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

/// The text of a file; `None`: there is none.
///
/// # Errors
/// It cannot be read, or is no text; the path is named.
pub(crate) fn read(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Puts a text in the place of a file, in one step. Rights and owner of the former file stay; a new one gets `mode`.
///
/// # Errors
/// It cannot be written; the former file is as it was.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    try_replace(path, text, mode).map_err(|error| format!("{}: {error}", path.display()))
}

fn try_replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.multus-lan"));
    let former = match fs::symlink_metadata(path) {
        Ok(former) if !former.is_file() => return Err(io::Error::other("is no regular file; it is left alone")),
        former => former.ok(),
    };
    // What a crash has left; never somebody else's file through a link.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = (|| {
        file.write_all(text.as_bytes())?;
        if let Some(former) = &former {
            fchown(&file, Some(former.uid()), Some(former.gid()))?;
        }
        let mode = former.map_or(mode, |former| former.permissions().mode() & 0o7777);
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if let Err(error) = written {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

/// Removes a file; one that is not there is no error.
///
/// # Errors
/// It is there and stays.
pub(crate) fn remove(path: &Path) -> Result<(), String> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed,
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    removed.and_then(|()| File::open(folder)?.sync_all()).map_err(|error| format!("{}: {error}", path.display()))
}

/// As it was: with this text, or not at all.
///
/// # Errors
/// As [`replace`] and [`remove`].
pub(crate) fn restore(path: &Path, text: Option<&str>, mode: u32) -> Result<(), String> {
    match text {
        Some(text) => replace(path, text, mode),
        None => remove(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_keeps_its_rights() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dhcpcd.conf");
        assert_eq!(read(&path), Ok(None));
        replace(&path, "a", 0o640).expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
        assert_eq!((read(&path), mode(&path)), (Ok(Some("a".into())), 0o640));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).expect("own file");
        // A crash before the rename has left this.
        fs::write(folder.path().join(".dhcpcd.conf.multus-lan"), "half").expect("own file");
        replace(&path, "b", 0o640).expect("written");
        assert_eq!((read(&path), mode(&path)), (Ok(Some("b".into())), 0o604));
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1, "nothing is left beside it");
        remove(&path).and_then(|()| remove(&path)).expect("gone is gone");
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("resolv.conf");
        std::os::unix::fs::symlink("stub", &path).expect("own link");
        assert!(replace(&path, "b", 0o644).expect_err("a link").contains("no regular file"));
        assert!(replace(&folder.path().join("none/x"), "b", 0o644).is_err());
        assert_eq!(fs::read_link(&path).expect("still a link"), Path::new("stub"));
    }
}
