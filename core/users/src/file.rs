//! `users.toml`: who there is.
//!
//! ```toml
//! [users.admin]
//! level = 10
//! password = "$argon2id$v=19$m=19456,t=2,p=1$..."
//! read_only = false     # may be left out
//! ```
//! Mode 0600. It is always replaced as a whole (written beside, synced, renamed), so a power cut leaves the old or the
//! new one; a lock on the directory keeps two writers apart.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::password::Hash;

/// Somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The right level: 0 (everything) to 100 (look); lower is mightier.
    pub level: u32,
    /// May change nothing, whatever the level.
    pub read_only: bool,
    /// The hash of the password.
    pub password: Hash,
}

/// All users by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(BTreeMap<String, User>);

/// Why a name cannot be that of a user; `None`: it can. Letters, digits and `. _ - @`, 1 to 64.
pub fn name_fault(name: &str) -> Option<&'static str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-_@".contains(c);
    match name.len() {
        1..=64 if name.chars().all(fits) => None,
        1..=64 => Some("only letters, digits and . _ - @ are possible"),
        _ => Some("1 to 64 characters are needed"),
    }
}

impl Users {
    /// Where they stand in a configuration directory.
    pub fn file(config_dir: &Path) -> PathBuf {
        config_dir.join("users.toml")
    }

    /// Reads the file; nobody if there is none.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong: then nobody at all may be let in.
    pub fn load(path: &Path) -> Result<Self, UsersError> {
        read(path, Self::parse)
    }

    /// Reads, changes and writes the file, with nobody else in between. The change is not written when it fails.
    ///
    /// # Errors
    /// That of the change, or what kept the file from being read or written.
    pub fn change<T, E: From<UsersError>>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<(Self, T), E> {
        rewrite(path, Self::parse, Self::to_toml, change)
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&User> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &User)> {
        self.0.iter().map(|(name, user)| (name.as_str(), user))
    }

    /// Puts one in, or replaces the one of that name.
    ///
    /// # Errors
    /// The name, the level or the number of users is not possible.
    pub fn set(&mut self, name: &str, user: User) -> Result<(), String> {
        if let Some(fault) = name_fault(name) {
            return Err(format!("name: {fault}"));
        }
        if user.level > WEAKEST {
            return Err(format!("level: 0 to {WEAKEST} are possible"));
        }
        if self.0.len() >= MOST_USERS && !self.0.contains_key(name) {
            return Err(format!("there are {MOST_USERS} users; more are not possible"));
        }
        self.0.insert(name.to_owned(), user);
        Ok(())
    }

    /// Takes one out. False: there was none.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let written: Written = toml_edit::de::from_str(text).map_err(|error| match error.span() {
            // The text of the error quotes the file, and with it a hash.
            Some(span) => format!("line {}: {}", 1 + text[..span.start].matches('\n').count(), error.message()),
            None => error.message().to_owned(),
        })?;
        let mut users = Self::default();
        for (name, user) in written.users {
            let hash = Hash::parse(&user.password).map_err(|why| format!("user {name:?}: password: {why}"))?;
            let user = User { level: user.level, read_only: user.read_only, password: hash };
            users.set(&name, user).map_err(|why| format!("user {name:?}: {why}"))?;
        }
        Ok(users)
    }

    fn to_toml(&self) -> String {
        let users = self.0.iter().map(|(name, user)| {
            let User { level, read_only, password } = user;
            let written = WrittenUser { level: *level, password: password.as_str().to_owned(), read_only: *read_only };
            (name.clone(), written)
        });
        // Numbers, texts and truth values in tables can always be written.
        let text = toml_edit::ser::to_string_pretty(&Written { users: users.collect() }).unwrap_or_default();
        format!("{HEADING}{text}")
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    users: BTreeMap<String, WrittenUser>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUser {
    level: u32,
    password: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
}

/// The owner stays; a new file belongs to the owner of the directory, so that multus-control can read what root wrote.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let like = fs::metadata(path).or_else(|_| fs::metadata(dir))?;
    let beside = dir.join(format!(".users.{}.new", std::process::id()));
    let written = write_synced(&beside, text, &like).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // Nothing more can be done if this fails, too: the file is hidden and has no meaning.
        let _ = fs::remove_file(&beside);
        return written;
    }
    File::open(dir)?.sync_all()
}

fn write_synced(path: &Path, text: &str, like: &fs::Metadata) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // Only root may give files away; everybody else keeps what he writes.
    let _ = fchown(&file, Some(like.uid()), Some(like.gid()));
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// What is wrong with the file of users or tokens. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsersError {
    path: PathBuf,
    why: String,
}

impl UsersError {
    pub(crate) fn new(path: &Path, why: String) -> Self {
        Self { path: path.to_owned(), why }
    }
}

impl fmt::Display for UsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for UsersError {}

const HEADING: &str =
    "# Users of the pages and the API. \"multusctl passwd NAME\" and multus-control change this file.\n\n";
/// Right levels end here.
const WEAKEST: u32 = 100;
const MOST_USERS: usize = 1000;
const MOST_BYTES: u64 = 1 << 20;

/// Reads a file of people or tokens; the empty value if there is none.
///
/// # Errors
/// It is too large, cannot be read, or `parse` refuses it.
pub(crate) fn read<T: Default>(path: &Path, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, UsersError> {
    let fault = |why: String| UsersError::new(path, why);
    match fs::metadata(path) {
        Ok(data) if data.len() > MOST_BYTES => return Err(fault(format!("larger than {MOST_BYTES} bytes"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        _ => {}
    }
    let text = fs::read_to_string(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
    parse(&text).map_err(fault)
}

/// Reads, changes and writes such a file, with nobody else in between. The change is not written when it fails.
///
/// # Errors
/// That of the change, or what kept the file from being read or written.
pub(crate) fn rewrite<T: Default, R, E: From<UsersError>>(
    path: &Path,
    parse: impl Fn(&str) -> Result<T, String>,
    to_toml: impl Fn(&T) -> String,
    change: impl FnOnce(&mut T) -> Result<R, E>,
) -> Result<(T, R), E> {
    let fault = |why: String| UsersError::new(path, why);
    let dir = path.parent().unwrap_or(Path::new("/"));
    let lock = File::open(dir).map_err(|error| fault(format!("its directory cannot be opened: {error}")))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| fault(format!("its directory cannot be locked: {error}")))?;
    let mut all = read(path, parse)?;
    let result = change(&mut all)?;
    replace(path, &to_toml(&all)).map_err(|error| fault(format!("cannot be written: {error}")))?;
    Ok((all, result))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(level: u32) -> User {
        User { level, read_only: level == 100, password: Hash::of("a good long password").expect("random numbers") }
    }

    #[test]
    fn what_is_written_is_read_and_private() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let path = Users::file(temp.path());
        assert!(Users::load(&path).expect("no file is no mistake").is_empty());
        let change = |name: &str, level| {
            Users::change(&path, |users| {
                users.set(name, user(level)).map_err(|why| UsersError { path: path.clone(), why })
            })
        };
        change("admin", 10).expect("writable");
        let (users, ()) = change("Some.One-2@home_", 100).expect("writable");
        assert_eq!(Users::load(&path), Ok(users.clone()));
        assert_eq!(
            users.iter().map(|(name, user)| (name, user.level)).collect::<Vec<_>>(),
            [("Some.One-2@home_", 100), ("admin", 10)]
        );
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o7777, 0o600);

        let before = fs::read_to_string(&path).expect("readable");
        assert!(change("no such name", 10).is_err() && change("x", 101).is_err());
        assert_eq!(fs::read_to_string(&path).expect("readable"), before, "a change that fails changes nothing");
        assert_eq!(fs::read_dir(temp.path()).expect("readable").count(), 1, "nothing else is left");
    }

    #[test]
    fn a_mistake_in_the_file_is_an_error_that_quotes_no_hash() {
        let hash = Hash::of("a good long password").expect("random numbers").as_str().to_owned();
        for (text, words) in [
            ("[users.admin]\nlevel = 10\n".to_owned(), "password"),
            (format!("[users.admin]\nlevel = \"x\"\npassword = \"{hash}\"\n"), "line 2"),
            (format!("[users.admin]\nlevel = 10\npassword = \"{hash}\"\nlevle = 1"), "levle"),
            (format!("[users.admin]\nlevel = 1000\npassword = \"{hash}\"\n"), "0 to 100"),
            (format!("[users.\"a b\"]\nlevel = 10\npassword = \"{hash}\"\n"), "only letters"),
            ("[users.admin]\nlevel = 10\npassword = \"secret\"\n".to_owned(), "PHC"),
            ("users = 3".to_owned(), "line 1"),
            ("[[[".to_owned(), "line 1"),
        ] {
            let error = Users::parse(&text).expect_err(&text);
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("argon2id$") && !error.contains("secret"), "{error}");
        }
    }
}
