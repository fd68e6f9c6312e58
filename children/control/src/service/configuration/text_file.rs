//! The text file that a parameter names: where it is, and reading and replacing it.
//!
//! A path comes from a configuration, so it is trusted with nothing: it leads into the folder of the child instance or one that
//! root allowed for this child; on the way no symbolic link is followed; the file is a regular one with one name, of bounded
//! size, and not one that root keeps to itself. So nobody who may name a file can see or replace another program's.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use multus_child::TextFile;
use multus_child::parameter::{FILES_FOLDER, SECRET_FILE_MARK};
use multus_contract::config::ChildConfig;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, User, unlinkat};
use serde_json::{Value, json};
use toml_edit::DocumentMut;

use super::super::{Error, Result};
use super::schema::Node;
use super::store::LARGEST;
use super::{Configuration, Document};

/// A file that a parameter names, and who may do what with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// An existing folder, from which on nothing is trusted.
    root: PathBuf,
    /// Below it; names only.
    inside: PathBuf,
    secret: bool,
    display_level: u32,
    edit_level: u32,
    title: String,
    help: String,
    /// Who must be able to read it, when that is not the user of this program.
    reader: Option<String>,
}

/// A file as it is.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) text: Vec<u8>,
    pub(super) changed: SystemTime,
}

impl Configuration {
    /// The file that the parameter `key` of a child instance names.
    ///
    /// # Errors
    /// [`Error::NotFound`]: no such parameter, or it names none; [`Error::Refused`]: it leads where it may not.
    pub(super) fn place(&self, instance: &str, key: &str) -> Result<Place> {
        let none = || Error::NotFound(format!("{instance} has no parameter {key} that is the path of a text file"));
        let child = self.child_of(instance).ok_or_else(none)?;
        let schema = self.schema(&Document::Parameters(instance.to_owned())).ok_or_else(none)?;
        let root = Node::root(Some(&schema));
        let fields = root.text_files();
        let (_, node) = fields.iter().find(|(name, _)| name == key).ok_or_else(none)?;
        let values = self.values(instance)?;
        let path = named(node, key, &values);
        if path.is_empty() {
            return Err(Error::NotFound(format!("the parameter {key} of {instance} names no file yet")));
        }
        let (root, inside) = self.resolved(instance, &child, key, &path)?;
        let mut place = Place {
            secret: false,
            display_level: u32::MAX,
            edit_level: u32::MAX,
            title: node.text("title").unwrap_or_else(|| key.to_owned()),
            help: node.text("description").unwrap_or_default(),
            reader: child.user.clone(),
            root,
            inside,
        };
        // Two parameters may name one file: it is as secret as the stricter of them.
        for (other, node) in &fields {
            let same = self.resolved(instance, &child, other, &named(node, other, &values));
            if same.is_ok_and(|(root, inside)| root.join(inside) == place.path()) {
                place.secret |= node.is_secret() || node.flag(SECRET_FILE_MARK);
                place.display_level = place.display_level.min(node.display_level());
                place.edit_level = place.edit_level.min(node.edit_level());
            }
        }
        Ok(place)
    }

    /// The parameters of an instance that name text files.
    pub(super) fn text_files_of(&self, instance: &str) -> Vec<Document> {
        let Some(schema) = self.schema(&Document::Parameters(instance.to_owned())) else { return Vec::new() };
        let fields = Node::root(Some(&schema)).text_files();
        if fields.is_empty() {
            return Vec::new();
        }
        let values = self.values(instance).unwrap_or_default();
        let named = fields.into_iter().filter(|(key, node)| !named(node, key, &values).is_empty());
        named.map(|(key, _)| Document::Text { instance: instance.to_owned(), key }).collect()
    }

    /// Parameters of an instance. A file that is no TOML names nothing.
    fn values(&self, instance: &str) -> Result<DocumentMut> {
        let current = self.read_file(&Document::Parameters(instance.to_owned()))?;
        Ok(String::from_utf8_lossy(&current.text).parse().unwrap_or_default())
    }

    fn resolved(&self, instance: &str, child: &ChildConfig, key: &str, path: &str) -> Result<(PathBuf, PathBuf)> {
        let refused = |why: String| Error::Refused(format!("the parameter {key} of {instance}: {why}"));
        let file: TextFile = path.parse().map_err(&refused)?;
        let own = Path::new(FILES_FOLDER).join(instance);
        if file.written().is_relative() {
            return Ok((self.dirs.config.clone(), own.join(file.written())));
        }
        if let Ok(inside) = file.written().strip_prefix(self.dirs.config.join(&own)) {
            return Ok((self.dirs.config.clone(), own.join(inside)));
        }
        let allowed = self.settings.text_folders.get(&child.name).into_iter().flatten();
        for folder in allowed.filter(|folder| folder_fault(folder).is_none()) {
            if let Ok(inside) = file.written().strip_prefix(folder)
                && !inside.as_os_str().is_empty()
            {
                return Ok((folder.clone(), inside.to_path_buf()));
            }
        }
        Err(refused(format!(
            "{path} is neither in {} nor in a folder that configuration.text_folders of multus-control names for {}",
            self.dirs.config.join(&own).display(),
            child.name
        )))
    }
}

/// What is wrong with a folder that is to be allowed; `None`: nothing. Where the system and this project keep what nobody may
/// see or change by way of a parameter is never allowed, nor is a folder that holds such a one.
pub(crate) fn folder_fault(folder: &Path) -> Option<&'static str> {
    let plain = folder.components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir));
    if !folder.is_absolute() || !plain {
        return Some("expected an absolute path without . and ..");
    }
    if folder.components().count() < 3 {
        return Some("too wide: expected a folder below a folder, such as /etc/openvpn");
    }
    let is_closed = NEVER.iter().any(|closed| folder.starts_with(closed));
    is_closed.then_some("nothing in there is ever edited as a text")
}

/// Below these are the system's own matters, secrets of root, and no text files at all.
const NEVER: [&str; 17] = [
    "/root",
    "/proc",
    "/sys",
    "/dev",
    "/boot",
    "/bin",
    "/sbin",
    "/lib",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/etc/ssh",
    "/etc/ssl",
    "/etc/pam.d",
    "/etc/sudoers.d",
    "/etc/systemd",
    "/etc/multusd",
];

impl Place {
    pub(super) fn path(&self) -> PathBuf {
        self.root.join(&self.inside)
    }

    /// What the text is, who may see and who may change it, as a schema like that of any other document.
    pub(super) fn schema(&self) -> Value {
        let Self { display_level, edit_level, title, help, secret, .. } = self;
        json!({
            "type": "string", "contentMediaType": "text/plain", "title": title, "description": help,
            "x-display-level": display_level, "x-edit-level": edit_level, "writeOnly": secret,
        })
    }

    /// The file; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Refused`]: it is one that is not touched, with the reason.
    pub(super) fn read(&self) -> Result<Option<Found>> {
        let Some(dir) = self.folder(false)? else { return Ok(None) };
        let Some(file) = self.open(&dir)? else { return Ok(None) };
        let data = self.checked(&file)?;
        let mut text = Vec::new();
        file.take(LARGEST as u64).read_to_end(&mut text).map_err(|error| Error::io(&self.path(), &error))?;
        Ok(Some(Found { text, changed: data.modified().unwrap_or_else(|_| SystemTime::now()) }))
    }

    /// Puts a new text in the place of the old one, in one step.
    ///
    /// # Errors
    /// The system refuses, or what stands there is not touched; it is whole then.
    pub(super) fn replace(&self, text: &str) -> Result<()> {
        let failed = |error: io::Error| Error::io(&self.path(), &error);
        let Some(dir) = self.folder(true)? else { return Err(failed(io::ErrorKind::NotFound.into())) };
        let old = self.open(&dir)?.map(|file| self.checked(&file)).transpose()?;
        let name = self.inside.file_name().unwrap_or_default();
        let beside = format!(".{}.{}.new", name.to_string_lossy(), std::process::id());
        // What a process of the same number left when its power was cut.
        let _ = unlinkat(&dir, beside.as_str(), UnlinkatFlags::NoRemoveDir);
        let written = (|| {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mut file = File::from(openat(&dir, beside.as_str(), flags, Mode::from_bits_truncate(0o600))?);
            self.give(&file, old.as_ref())?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            nix::fcntl::renameat(&dir, beside.as_str(), &dir, name)?;
            nix::unistd::fsync(&dir).map_err(io::Error::from)
        })();
        if written.is_err() {
            // Hidden and without meaning if it stays.
            let _ = unlinkat(&dir, beside.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        written.map_err(failed)
    }

    /// Takes the file away; one that is gone is as good.
    ///
    /// # Errors
    /// As [`Place::replace`].
    pub(super) fn remove(&self) -> Result<()> {
        let Some(dir) = self.folder(false)? else { return Ok(()) };
        let Some(file) = self.open(&dir)? else { return Ok(()) };
        self.checked(&file)?;
        let name = self.inside.file_name().unwrap_or_default();
        unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir).map_err(|error| Error::io(&self.path(), &error.into()))
    }

    /// Owner and mode: as the old file had them; a secret one for its reader only.
    fn give(&self, file: &File, old: Option<&std::fs::Metadata>) -> io::Result<()> {
        let reader = match &self.reader {
            Some(name) => User::from_name(name)?.map(|user| (user.uid.as_raw(), user.gid.as_raw())),
            None => None,
        };
        let owner = match old {
            Some(old) => Some((old.uid(), old.gid())),
            None => reader.filter(|_| self.secret),
        };
        if let Some((user, group)) = owner {
            // Only root may give files away; everybody else keeps the file as the one who changed it.
            let given = fchown(file, Some(user), Some(group));
            if self.secret && old.is_none() {
                given?;
            }
        }
        let mode = match old {
            _ if self.secret => 0o600,
            Some(old) => old.mode() & 0o666,
            None => 0o644,
        };
        file.set_permissions(std::fs::Permissions::from_mode(mode))
    }

    /// Goes down to the folder of the file, name by name.
    fn folder(&self, make: bool) -> Result<Option<OwnedFd>> {
        let folder = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let failed = |path: &Path, error: Errno| match error {
            Errno::ELOOP | Errno::ENOTDIR => {
                Error::Refused(format!("{}: no folder, or a symbolic link, which is not followed", path.display()))
            }
            error => Error::io(path, &error.into()),
        };
        let mut path = self.root.clone();
        let mut here = match nix::fcntl::open(&self.root, folder, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::ENOENT) if !make => return Ok(None),
            Err(error) => return Err(failed(&path, error)),
        };
        for name in self.inside.parent().unwrap_or(Path::new("")).components() {
            path.push(name);
            let down = || openat(&here, name.as_os_str(), folder | OFlag::O_NOFOLLOW, Mode::empty());
            let next = match down() {
                Err(Errno::ENOENT) if make => match mkdirat(&here, name.as_os_str(), Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => down(),
                    Err(error) => Err(error),
                },
                other => other,
            };
            here = match next {
                Ok(next) => next,
                Err(Errno::ENOENT) => return Ok(None),
                Err(error) => return Err(failed(&path, error)),
            };
        }
        Ok(Some(here))
    }

    fn open(&self, dir: &OwnedFd) -> Result<Option<File>> {
        let name = self.inside.file_name().unwrap_or_default();
        // Without waiting: it may turn out to be a pipe.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        match openat(dir, name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ELOOP) => Err(self.refused("a symbolic link, which is not followed")),
            Err(Errno::ENXIO) => Err(self.refused("no regular file")),
            Err(error) => Err(Error::io(&self.path(), &error.into())),
        }
    }

    fn checked(&self, file: &File) -> Result<std::fs::Metadata> {
        let data = file.metadata().map_err(|error| Error::io(&self.path(), &error))?;
        if !data.is_file() {
            return Err(self.refused("no regular file"));
        }
        if data.nlink() != 1 {
            return Err(self.refused("it has a second name (a hard link), under which it may be another's"));
        }
        if data.len() > LARGEST as u64 {
            return Err(self.refused(&format!("larger than {LARGEST} bytes")));
        }
        if !self.secret && data.uid() == 0 && data.mode() & 0o077 == 0 {
            let why = "only root may read it, and the parameter is not marked as a secret one: \
                       make it readable (chmod 644) if it may be seen";
            return Err(self.refused(why));
        }
        Ok(data)
    }

    fn refused(&self, why: &str) -> Error {
        Error::Refused(format!("{}: {why}", self.path().display()))
    }
}

/// The path that a parameter holds, or its default; empty: none.
fn named(node: &Node<'_>, key: &str, values: &DocumentMut) -> String {
    let mut item = Some(values.as_item());
    for part in key.split('.') {
        item = item.and_then(|item| item.get(part));
    }
    match item {
        Some(item) => item.as_str().unwrap_or_default().to_owned(),
        None => node.text("default").unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn place(root: &Path, inside: &str) -> Place {
        Place {
            root: root.to_path_buf(),
            inside: inside.into(),
            secret: false,
            display_level: 100,
            edit_level: 10,
            title: String::new(),
            help: String::new(),
            reader: None,
        }
    }

    fn refusal(place: &Place) -> String {
        let reading = place.read().expect_err("it is not read").to_string();
        let writing = place.replace("new").expect_err("it is not written").to_string();
        assert_eq!(reading, writing);
        reading
    }

    #[test]
    fn a_text_is_replaced_in_one_step_and_keeps_its_mode() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let place = place(temp.path(), "files/vpn/a/client.conf");
        assert!(place.read().expect("no file is no error").is_none());
        place.remove().expect("nothing to remove");
        place.replace("one\n").expect("folders are made");
        assert_eq!(place.path().metadata().expect("there").mode() & 0o777, 0o644);
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o640)).expect("own file");
        place.replace("two\n").expect("writable");
        assert_eq!(place.read().expect("readable").expect("there").text, b"two\n");
        assert_eq!(place.path().metadata().expect("there").mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(place.path().parent().expect("a folder")).expect("readable").count(), 1);
        let secret = Place { secret: true, ..place };
        secret.replace("three\n").expect("writable");
        assert_eq!(secret.path().metadata().expect("there").mode() & 0o777, 0o600);
        secret.remove().expect("removable");
        assert!(secret.read().expect("no error").is_none());
    }

    #[test]
    fn no_link_is_followed_and_nothing_strange_is_touched() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let at = |name: &str| temp.path().join(name);
        fs::create_dir_all(at("files/vpn")).expect("own directory");
        fs::create_dir_all(at("other")).expect("own directory");
        fs::write(at("other/secret"), "secret").expect("own file");
        symlink(at("other/secret"), at("files/vpn/link")).expect("own link");
        symlink(at("other"), at("files/vpn/folder")).expect("own link");
        symlink(at("nothing"), at("files/vpn/dangling")).expect("own link");
        fs::hard_link(at("other/secret"), at("files/vpn/hard")).expect("own link");
        nix::unistd::mkfifo(&at("files/vpn/pipe"), Mode::from_bits_truncate(0o600)).expect("own pipe");
        fs::create_dir(at("files/vpn/dir")).expect("own directory");
        fs::write(at("files/vpn/large"), vec![b'x'; LARGEST + 1]).expect("own file");
        for (name, why) in [
            ("link", "symbolic link"),
            ("dangling", "symbolic link"),
            ("folder/secret", "symbolic link"),
            ("hard", "second name"),
            ("pipe", "no regular file"),
            ("dir", "no regular file"),
            ("large", "larger than"),
            ("large/below", "no folder"),
        ] {
            let place = place(temp.path(), &format!("files/vpn/{name}"));
            let refusal = refusal(&place);
            assert!(refusal.contains(why), "{name}: {refusal}");
        }
        assert_eq!(fs::read(at("other/secret")).expect("readable"), b"secret");
        assert!(!at("nothing").exists());
    }

    #[test]
    fn what_root_keeps_to_itself_is_not_shown() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let place = place(temp.path(), "key");
        fs::write(place.path(), "private").expect("own file");
        if place.path().metadata().expect("there").uid() != 0 {
            return crate::testing::skip("what_root_keeps_to_itself_is_not_shown", "only root has files of root");
        }
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o600)).expect("own file");
        assert!(refusal(&place).contains("only root may read it"));
        // A secret may be replaced; that it is never shown is a matter of its level.
        assert!(Place { secret: true, ..place }.read().is_ok());
    }

    #[test]
    fn only_a_folder_of_its_own_can_be_allowed() {
        for folder in ["/etc/openvpn", "/etc/openvpn/client", "/srv/pump/texts", "/var/lib/pump"] {
            assert_eq!(folder_fault(Path::new(folder)), None, "{folder}");
        }
        for folder in [
            "",
            "/",
            "etc/openvpn",
            "/etc",
            "/home",
            "/etc/../root",
            "/root/x",
            "/etc/ssh",
            "/etc/multusd/config",
            "/proc/self",
            "/etc/systemd/system",
        ] {
            assert!(folder_fault(Path::new(folder)).is_some(), "{folder}");
        }
    }
}
