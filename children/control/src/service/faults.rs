//! Reports of faults, as multusd keeps them on disk: one folder for each child instance, one text for each fault.

use std::fs;
use std::path::PathBuf;

use multus_contract::api::time::format_rfc3339;
use multus_contract::config::name_fault;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Caller, Error, Result, Service};

/// One report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FaultReport {
    /// The child instance.
    pub child: String,
    /// Names the report among those of the child.
    pub id: String,
    /// When it was made, RFC 3339.
    pub time: String,
    /// Size of its text.
    pub bytes: u64,
}

/// One report with its text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FaultText {
    /// Which.
    #[serde(flatten)]
    pub report: FaultReport,
    /// What was found out.
    pub text: String,
}

impl Service {
    /// The reports of a child instance, or of all; latest first, at most 1000.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what cannot be a name, [`Error::Internal`].
    pub fn faults(&self, caller: &Caller, child: Option<&str>) -> Result<Vec<FaultReport>> {
        caller.needs(Caller::USER)?;
        let children = match child {
            Some(child) => vec![checked(child)?.to_owned()],
            None => names_in(&self.faults_dir())?,
        };
        let mut found = Vec::new();
        for child in children {
            for file in names_in(&self.faults_dir().join(&child))? {
                let Some((id, time)) = file.strip_suffix(".txt").and_then(|id| Some((id, time_of(id)?))) else {
                    continue;
                };
                // One that was removed meanwhile is no report any more.
                let Ok(data) = fs::metadata(self.faults_dir().join(&child).join(&file)) else { continue };
                found.push(FaultReport { child: child.clone(), id: id.to_owned(), time, bytes: data.len() });
            }
        }
        found.sort_by(|a, b| (&b.time, &b.child).cmp(&(&a.time, &a.child)));
        found.truncate(MOST_REPORTS);
        Ok(found)
    }

    /// One report; without `id` the latest of the child.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], [`Error::Internal`].
    pub fn fault(&self, caller: &Caller, child: &str, id: Option<&str>) -> Result<FaultText> {
        let reports = self.faults(caller, Some(child))?;
        let report = match id {
            None => reports.into_iter().next(),
            Some(id) => reports.into_iter().find(|report| report.id == id),
        };
        let report =
            report.ok_or_else(|| Error::NotFound(format!("there is no such report of a fault of {child:?}")))?;
        let path = self.faults_dir().join(&report.child).join(format!("{}.txt", report.id));
        let mut text = fs::read(&path).map_err(|error| Error::io(&path, &error))?;
        text.truncate(MOST_BYTES);
        Ok(FaultText { report, text: String::from_utf8_lossy(&text).into_owned() })
    }

    fn faults_dir(&self) -> PathBuf {
        self.dirs().state.join("faults")
    }
}

/// The name of a child, safe as the name of a file.
pub(crate) fn checked(name: &str) -> Result<&str> {
    match name_fault(name) {
        None => Ok(name),
        Some(fault) => Err(Error::field("name", fault)),
    }
}

/// The names in a directory; none if there is no such directory.
pub(crate) fn names_in(dir: &std::path::Path) -> Result<Vec<String>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(Error::io(dir, &error)),
    }
}

/// multusd names a report by its time in microseconds since 1970.
fn time_of(id: &str) -> Option<String> {
    id.parse::<u64>().ok()?.checked_mul(1000).map(format_rfc3339)
}

const MOST_REPORTS: usize = 1000;
/// What is longer is cut: a message of the network interface holds a mebibyte.
const MOST_BYTES: usize = 512 * 1024;
