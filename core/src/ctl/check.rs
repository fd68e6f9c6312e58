//! `multusctl check`, which is also `multusd --check`.

use std::path::Path;

use multus_contract::config::{Diagnostic, load};
use serde::Serialize;

use super::output::{Failure, print, print_json};

/// Reads all configuration files and reports every mistake on stdout.
///
/// # Errors
/// There was a mistake, or the report cannot be written.
pub(crate) fn run(config_dir: &Path, json: bool) -> Result<(), Failure> {
    let loaded = load(config_dir);
    if json {
        print_json(&Report {
            config_dir: config_dir.display().to_string(),
            clean: loaded.is_clean(),
            children: loaded.config.children.iter().map(|child| child.name.as_str()).collect(),
            broken: loaded.broken.iter().map(String::as_str).collect(),
            diagnostics: &loaded.diagnostics,
        })?;
    } else {
        print(|out| write!(out, "{}", loaded.report(config_dir)))?;
    }
    if loaded.is_clean() { Ok(()) } else { Err(Failure::Said) }
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    config_dir: String,
    /// Nothing but warnings.
    clean: bool,
    /// Those that can be used.
    children: Vec<&'a str>,
    /// Those that cannot.
    broken: Vec<&'a str>,
    diagnostics: &'a [Diagnostic],
}
