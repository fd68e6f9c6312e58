//! Reading the configuration directory: which files there are, what is in them, what stands between them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::child::{ChildConfig, Defaults};
use super::source::Positions;
use super::{Config, Diagnostic, Loaded, Severity, crosscheck, daemon, hardware, io_words, read_child};

/// One child that was read, and where its keys stand.
#[derive(Debug)]
pub(crate) struct ReadChild {
    pub(crate) config: ChildConfig,
    pub(crate) positions: Positions,
}

pub(crate) fn load(config_dir: &Path) -> Loaded {
    let mut loaded = Loaded::default();
    if let Err(error) = std::fs::read_dir(config_dir) {
        let words = match error.kind() {
            io::ErrorKind::NotFound => "no such directory; name another one with --config-dir".to_owned(),
            _ => io_words(&error),
        };
        loaded.diagnostics.push(Diagnostic::of_file(Severity::Error, None, config_dir, words));
        return loaded;
    }
    let daemon_positions = load_daemon(config_dir, &mut loaded);
    let mut children = Vec::new();
    for file in child_files(config_dir, &mut loaded.diagnostics) {
        match load_child(&file, &loaded.config.daemon.defaults) {
            (Some(child), mut findings) => {
                loaded.diagnostics.append(&mut findings);
                children.push(child);
            }
            (None, mut findings) => {
                loaded.diagnostics.append(&mut findings);
                loaded.broken.insert(file.name);
            }
        }
    }
    crosscheck::programs(&children, &mut loaded);
    crosscheck::relations(&mut children, &mut loaded);
    loaded.config.children = children.into_iter().map(|child| child.config).collect();
    crosscheck::daemon(&daemon_positions, &mut loaded);
    load_hardware(config_dir, &mut loaded);
    crosscheck::watchdogs(&daemon_positions, &mut loaded);
    loaded
}

/// Owners that do not fit are told, and leave the lines as they are: what nobody may ask for has its safe value.
fn load_hardware(config_dir: &Path, loaded: &mut Loaded) {
    let mut found = hardware::load(config_dir, Some(&loaded.config.children));
    loaded.diagnostics.append(&mut found.diagnostics);
    loaded.hardware_is_broken = !found.is_missing && found.config.is_none();
    loaded.hardware_text = found.text;
    loaded.config.hardware = found.config;
    if let Some(finding) = crosscheck::no_scanner(&loaded.config) {
        loaded.diagnostics.push(finding);
    }
}

fn load_daemon(config_dir: &Path, loaded: &mut Loaded) -> Positions {
    let (path, shown) = (config_dir.join(DAEMON_FILE), Path::new(DAEMON_FILE));
    let text = match read_text(&path) {
        Ok(Some(text)) => text,
        // Without the file, and with an empty one, everything has its default.
        Ok(None) => return Positions::default(),
        Err(words) => {
            loaded.diagnostics.push(Diagnostic::of_file(Severity::Error, None, shown, words));
            return Positions::default();
        }
    };
    let (daemon, mut outcome) = daemon::read(&text, shown);
    loaded.diagnostics.append(&mut outcome.diagnostics);
    loaded.config = Config { daemon, ..Config::default() };
    outcome.positions
}

struct ChildFile {
    name: String,
    path: PathBuf,
    /// Relative to the configuration directory.
    shown: PathBuf,
}

/// Every `children/*.toml`, sorted by name. Hidden files and other endings are none of ours.
fn child_files(config_dir: &Path, diagnostics: &mut Vec<Diagnostic>) -> Vec<ChildFile> {
    let shown_dir = Path::new(CHILDREN_DIR);
    let mut report = |severity, words: String| {
        diagnostics.push(Diagnostic::of_file(severity, None, shown_dir, words));
    };
    let entries = match std::fs::read_dir(config_dir.join(shown_dir)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report(Severity::Warning, "no such directory, so no child is configured".to_owned());
            return Vec::new();
        }
        Err(error) => {
            report(Severity::Error, io_words(&error));
            return Vec::new();
        }
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                report(Severity::Error, io_words(&error));
                continue;
            }
        };
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if hidden || path.extension().is_none_or(|ending| ending != "toml") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        files.push(ChildFile { name, shown: shown_dir.join(entry.file_name()), path });
    }
    if files.is_empty() {
        report(Severity::Warning, "holds no file *.toml, so no child is configured".to_owned());
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

fn load_child(file: &ChildFile, defaults: &Defaults) -> (Option<ReadChild>, Vec<Diagnostic>) {
    let whole = |words: String| vec![Diagnostic::of_file(Severity::Error, Some(&file.name), &file.shown, words)];
    let text = match read_text(&file.path) {
        Ok(Some(text)) if !text.trim().is_empty() => text,
        Ok(Some(_)) => return (None, whole("empty, expected at least command = [...]".to_owned())),
        Ok(None) => return (None, whole("vanished while it was read".to_owned())),
        Err(words) => return (None, whole(words)),
    };
    let (child, outcome) = read_child::read(&file.name, &text, &file.path, &file.shown, defaults);
    (child.map(|config| ReadChild { config, positions: outcome.positions }), outcome.diagnostics)
}

/// The text of a file, `None` if there is no such file, or what is wrong with it.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, String> {
    let data = match path.metadata() {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err("a symbolic link to nothing".to_owned()),
        Err(error) => return Err(io_words(&error)),
    };
    // Opening a pipe or a device could block or never end.
    if !data.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Err(io_words(&error));
    }
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(format!("larger than {} KiB, no configuration file", LARGEST_FILE >> 10));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..valid].iter().filter(|&&byte| byte == b'\n').count() + 1;
            Err(format!("not a text file: byte {valid} in line {line} is not UTF-8"))
        }
    }
}

const DAEMON_FILE: &str = "multusd.toml";
const CHILDREN_DIR: &str = "children";
/// A file beyond this is no configuration; reading it whole could exhaust a small machine.
const LARGEST_FILE: u64 = 1 << 20;
