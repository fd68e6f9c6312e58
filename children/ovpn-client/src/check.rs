//! `--check-config`: the configuration, and the text that it names.

use std::path::{Path, PathBuf};

use multus_child::Error;

use crate::config::Config;
use crate::process::checked;

/// Checks a configuration; when the program was called for that alone, also the text that it names, where that is found. (A child
/// that starts has its own way with a bad text.)
///
/// # Errors
/// Everything that is wrong, a line each.
pub(crate) fn check(config: &Config) -> Result<(), Error> {
    config.check()?;
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let Some(flag) = arguments.find(|argument| argument.to_string_lossy().starts_with("--check-config")) else {
        return Ok(());
    };
    let named = flag.to_str().and_then(|flag| flag.strip_prefix("--check-config=")).map(PathBuf::from);
    let named = named.or_else(|| arguments.find(|argument| !argument.to_string_lossy().starts_with('-')));
    let of_daemon = std::env::var_os("MULTUS_CONFIG").map(PathBuf::from);
    let Some(file) = named.or(of_daemon) else { return Ok(()) };
    match texts(&file, config.tunnel.written()).into_iter().find(|text| text.is_file()) {
        Some(text) => checked(&text, text.parent().unwrap_or(Path::new("")), config.allow_scripts).map(drop),
        // A draft lies elsewhere.
        None => Ok(()),
    }
}

/// Where the text of a configuration file may be: as the daemon has it, and as it is by hand.
fn texts(file: &Path, text: &Path) -> [PathBuf; 2] {
    let folder = file.parent().unwrap_or(Path::new(""));
    let files = folder.join("..").join(FILES_FOLDER).join(file.file_stem().unwrap_or_default());
    [files.join(text), folder.join(text)]
}

/// In the configuration directory: one folder of text files for each child instance.
const FILES_FOLDER: &str = "files";
