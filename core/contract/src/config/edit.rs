//! Changing one key of a file that a person wrote: comments, order and layout survive.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Value};

use super::units::quote;

/// Sets `enabled` in the child's file at `path`. Returns whether the file had to change.
///
/// The new text replaces the old one in one step (written beside it, synced, renamed), so a power cut leaves one of the
/// two. Mode and, where allowed, owner are kept; a symbolic link stays one. Blocks until the disk has it.
///
/// # Errors
/// The file cannot be read or written, or is not valid TOML; it is then unchanged.
pub fn set_enabled(path: &Path, enabled: bool) -> Result<bool, EditError> {
    let io_error = |source| EditError::Io { path: path.to_path_buf(), source };
    let path = fs::canonicalize(path).map_err(io_error)?;
    let old = fs::read_to_string(&path).map_err(io_error)?;
    let new = with_enabled(&old, enabled).map_err(|message| EditError::Syntax { path: path.clone(), message })?;
    if new == old {
        return Ok(false);
    }
    replace(&path, &new).map_err(io_error)?;
    Ok(true)
}

/// Replaces the text of the file at `path`, or makes the file, in one step: a full disk or a power cut leaves the old text
/// whole. Mode and, where allowed, owner are kept; a symbolic link stays one; a new file gets the mode `new_mode`. Blocks until
/// the disk has it.
///
/// # Errors
/// The system refuses; the file is then unchanged.
pub fn replace_file(path: &Path, text: &str, new_mode: u32) -> Result<(), EditError> {
    let io_error = |source| EditError::Io { path: path.to_path_buf(), source };
    match fs::canonicalize(path) {
        Ok(path) => replace(&path, text).map_err(io_error),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
            swap_in(path, text, None, new_mode).map_err(io_error)
        }
        Err(error) => Err(io_error(error)),
    }
}

/// Why a file could not be changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum EditError {
    /// The system refused.
    Io { path: PathBuf, source: io::Error },
    /// What stands there cannot be changed without guessing.
    Syntax { path: PathBuf, message: String },
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "{}: cannot be changed: {source}", path.display()),
            Self::Syntax { path, message } => write!(f, "{}: not valid TOML: {}", path.display(), quote(message)),
        }
    }
}

impl std::error::Error for EditError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Syntax { .. } => None,
        }
    }
}

fn with_enabled(text: &str, enabled: bool) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.message().to_owned())?;
    match document.get_mut("enabled") {
        Some(Item::Value(value)) => {
            let decor = value.decor().clone();
            *value = Value::from(enabled);
            *value.decor_mut() = decor;
        }
        _ => {
            document.insert("enabled", toml_edit::value(enabled));
        }
    }
    Ok(document.to_string())
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let old = path.metadata()?;
    swap_in(path, text, Some(&old), old.mode() & 0o7777)
}

/// Writes beside the file, then puts the new one in its place.
fn swap_in(path: &Path, text: &str, like: Option<&fs::Metadata>, mode: u32) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let beside = dir.join(format!(".{}.{}.new", name.to_string_lossy(), std::process::id()));
    let written = write_synced(&beside, text, like, mode).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // Nothing more can be done if this fails, too: the file is hidden and has no meaning.
        let _ = fs::remove_file(&beside);
        return written;
    }
    File::open(dir)?.sync_all()
}

fn write_synced(path: &Path, text: &str, like: Option<&fs::Metadata>, mode: u32) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if let Some(like) = like {
        // Only root may give files away; everybody else keeps the file as the one who changed it.
        let _ = fchown(&file, Some(like.uid()), Some(like.gid()));
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_layout_survive() {
        for (old, new) in [
            (
                "# mine\ncommand = [\"a\"] # why\nenabled   = true  # for now\n\n[stop]\ntimeout = \"1s\"\n",
                "# mine\ncommand = [\"a\"] # why\nenabled   = false  # for now\n\n[stop]\ntimeout = \"1s\"\n",
            ),
            (
                "command = [\"a\"]\n\n# the end\n[stop]\ntimeout = \"1s\"\n",
                "command = [\"a\"]\nenabled = false\n\n# the end\n[stop]\ntimeout = \"1s\"\n",
            ),
            ("enabled = false\n", "enabled = false\n"),
        ] {
            assert_eq!(with_enabled(old, false).as_deref(), Ok(new));
        }
        assert!(with_enabled("= 3", false).is_err());
    }

    #[test]
    fn the_file_is_replaced_with_its_mode_and_through_a_link() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let (file, link) = (dir.path().join("real.toml"), dir.path().join("link.toml"));
        fs::write(&file, "command = [\"a\"]\n").expect("writable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("own file");
        std::os::unix::fs::symlink(&file, &link).expect("links work here");

        assert!(set_enabled(&link, false).expect("writable"));
        assert!(!set_enabled(&link, false).expect("writable"), "nothing left to change");
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&file).expect("readable"), "command = [\"a\"]\nenabled = false\n");
        assert_eq!(file.metadata().expect("exists").mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 2, "nothing is left behind");

        replace_file(&link, "instances = 2\n", 0o600).expect("writable");
        assert_eq!(fs::read_to_string(&file).expect("readable"), "instances = 2\n");
        assert_eq!(file.metadata().expect("exists").mode() & 0o777, 0o640, "the mode of the old one");
        let new = dir.path().join("new.toml");
        replace_file(&new, "x = 1\n", 0o600).expect("writable");
        assert_eq!(new.metadata().expect("exists").mode() & 0o777, 0o600);
        assert!(replace_file(&dir.path().join("no/where.toml"), "", 0o600).is_err());

        let missing = set_enabled(&dir.path().join("none.toml"), true).expect_err("is not there");
        assert!(missing.to_string().contains("none.toml"));
    }
}
