//! Configurations: what they say, whether they are right, who changed them when, and what became of a change.
//!
//! Every document has a version number that rises with each change; a change by hand is noticed at the next look and
//! becomes a version of its own. A save names the version it was made from, so nobody overwrites what he has not seen.
//! Versions are kept beside the state of the daemon, readable by its user only, because they hold secrets.
//!
//! What leaves here holds [`MASK`] in place of secrets and of parameters that the caller may not see; a save that sends the
//! mask back keeps the value.

mod apply;
mod comments;
mod document;
mod history;
mod own_schema;
mod program;
mod schema;
mod secrets;
mod store;
#[cfg(test)]
mod tests;
mod text_file;
mod version;

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multus_contract::dirs::Dirs;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

pub use apply::{Pending, PendingState};
pub use document::Document;
pub use history::VersionInfo;
pub use store::Change;

pub(crate) use apply::start;
pub(crate) use text_file::folder_fault;

use super::{Caller, Problem, Result, Service, Settings};
use crate::gate::Gate;

/// Stands for a value that is not shown.
pub const MASK: &str = "********";

/// What can be said of a document without opening it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DocumentInfo {
    /// Such as `children/pump`; see [`Document`].
    pub document: String,
    /// The child it belongs to; `None` for the daemon's own.
    pub child: Option<String>,
    /// Whether there is a file; without one everything has its default.
    pub exists: bool,
}

/// A document.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Text {
    /// Such as `children/pump`.
    pub document: String,
    /// The file, TOML (or what the program takes, for `files/*`); empty if there is none. Hidden values are [`MASK`], and so is a
    /// hidden text.
    pub text: String,
    /// Whether there is a file.
    pub exists: bool,
    /// Its version; 0: there is none yet.
    pub version: u64,
    /// SHA-256 of the file in hexadecimal digits.
    pub etag: String,
    /// Its JSON Schema; `None` if the program has none.
    #[serde(serialize_with = "schema_value")]
    pub schema: Option<Arc<Value>>,
}

fn schema_value<S: serde::Serializer>(
    schema: &Option<Arc<Value>>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    schema.as_deref().serialize(serializer)
}

/// What a save led to.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Saved {
    /// The version that it became; the one there was if nothing changed.
    pub version: u64,
    /// SHA-256 of the file in hexadecimal digits.
    pub etag: String,
    /// Warnings.
    pub problems: Vec<Problem>,
    /// What will become of it; `None` if nothing changed.
    pub pending: Option<Pending>,
}

/// A save.
#[derive(Clone, Copy, Debug)]
pub struct Save<'a> {
    /// The new text.
    pub text: &'a str,
    /// The version it was made from; 0: there was no file.
    pub expected_version: u64,
    /// Why, for the history; may be empty.
    pub comment: &'a str,
}

/// Everything about configurations.
#[derive(Debug)]
pub(crate) struct Configuration {
    dirs: Dirs,
    settings: Settings,
    schemas: schema::Cache,
    findings: store::Findings,
    /// Where those wait who may not let programs run as they like.
    checks: Gate,
    /// Held while files are compared and changed.
    files: Mutex<()>,
    pending: Mutex<BTreeMap<Document, apply::Entry>>,
    pending_changed: Condvar,
}

impl Configuration {
    pub(crate) fn new(dirs: &Dirs, settings: Settings) -> Self {
        Self {
            dirs: dirs.clone(),
            settings,
            schemas: schema::Cache::default(),
            findings: store::Findings::default(),
            checks: Gate::default(),
            files: Mutex::default(),
            pending: Mutex::default(),
            pending_changed: Condvar::new(),
        }
    }

    fn files(&self) -> MutexGuard<'_, ()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// Every document: `multusd`, each `children/<name>`, `config/<instance>` for every child instance and every file, and
    /// `files/<instance>:<parameter>` for every text file that a parameter names. May run the children's programs to ask for
    /// their schemas, each once.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn documents(&self, caller: &Caller) -> Result<Vec<DocumentInfo>> {
        caller.needs(Caller::USER)?;
        self.inner.configuration.documents()
    }

    /// A document with its version and schema. May run the child's program to ask for the schema (5 s at most).
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Internal`].
    pub fn document(&self, caller: &Caller, document: &Document) -> Result<Text> {
        caller.needs(Caller::USER)?;
        self.inner.configuration.text(caller, document)
    }

    /// Everything that is wrong with `text` as a new text of the document; warnings are marked. May run the child's program; for
    /// all who are no administrators one at a time.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Internal`], [`Error::Busy`]. Mistakes in the text are no error.
    pub fn validate(&self, caller: &Caller, document: &Document, text: &str) -> Result<Vec<Problem>> {
        caller.needs(Caller::USER)?;
        self.inner.configuration.validate(caller, document, text, PATIENCE)
    }

    /// Everything that is wrong with the document as it is: found anew when its text or its program changes, else at most twice a
    /// minute, however many look.
    ///
    /// # Errors
    /// As [`Service::validate`].
    pub fn findings(&self, caller: &Caller, document: &Document) -> Result<Vec<Problem>> {
        caller.needs(Caller::USER)?;
        self.inner.configuration.findings(document)
    }

    /// The document's text with some values changed, comments and layout kept: what a form sends. Nothing is saved.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`].
    pub fn edited(&self, caller: &Caller, document: &Document, changes: &[Change]) -> Result<String> {
        caller.needs(Caller::USER)?;
        self.inner.configuration.edited(caller, document, changes)
    }

    /// Saves a new text. The file is replaced in one step: a full disk or a power cut leaves the old one whole. It is
    /// applied after the settle time, see [`Service::pending`].
    ///
    /// # Errors
    /// [`Error::Conflict`] if the version is another by now, [`Error::Invalid`] with everything that is wrong,
    /// [`Error::Forbidden`] if a changed parameter needs more rights, [`Error::NotFound`], [`Error::Internal`].
    pub fn save(&self, caller: &Caller, document: &Document, save: &Save<'_>) -> Result<Saved> {
        caller.needs(Caller::USER)?;
        self.inner.configuration.save(caller, document, save)
    }

    /// The versions that are kept (the last 50), latest first.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Internal`].
    pub fn history(&self, caller: &Caller, document: &Document) -> Result<Vec<VersionInfo>> {
        caller.needs(Caller::USER)?;
        self.inner.configuration.history(document)
    }

    /// A version that is kept, masked like [`Service::document`], so that two can be compared line by line.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Internal`].
    pub fn version(&self, caller: &Caller, document: &Document, version: u64) -> Result<(VersionInfo, String)> {
        caller.needs(Caller::USER)?;
        self.inner.configuration.version(caller, document, version)
    }

    /// Saves an older version once more, as a new one, secrets included.
    ///
    /// # Errors
    /// As [`Service::save`].
    pub fn roll_back(&self, caller: &Caller, document: &Document, version: u64, expected: u64) -> Result<Saved> {
        caller.needs(Caller::USER)?;
        self.inner.configuration.roll_back(caller, document, version, expected)
    }

    /// Saved changes and what became of them: those that wait, those that are being applied, and the last result for each
    /// document.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn pending(&self, caller: &Caller) -> Result<Vec<Pending>> {
        caller.needs(Caller::USER)?;
        Ok(self.inner.configuration.pending())
    }

    /// Applies a change that waits at once.
    ///
    /// # Errors
    /// [`Error::NotFound`]: nothing waits.
    pub fn apply_now(&self, caller: &Caller, document: &Document) -> Result<Pending> {
        caller.needs(Caller::OPERATOR)?;
        self.inner.configuration.apply_now(document)
    }

    /// Takes a change back, whether it waits or was applied: the version before it is saved again, and applied at once if
    /// the change was.
    ///
    /// # Errors
    /// As [`Service::save`]; [`Error::NotFound`]: there is no change to take back.
    pub fn revert(&self, caller: &Caller, document: &Document) -> Result<Pending> {
        caller.needs(Caller::USER)?;
        self.inner.configuration.revert(caller, document)
    }
}

/// How long a check waits for another.
const PATIENCE: Duration = Duration::from_secs(5);
