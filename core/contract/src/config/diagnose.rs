//! What is wrong with a configuration, said so that its writer can mend it: file, line, key, what was found, what was
//! expected, and the word that was probably meant.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::units::quote;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Works as written, but is probably not meant.
    Warning,
    /// The file is right, this machine is not (yet): a program is missing. A check fails; the daemon keeps the child and
    /// keeps trying.
    Unmet,
    /// The file cannot be used as it is. A check fails; the daemon leaves this child out, or does not start if it is in
    /// `multusd.toml`.
    Error,
}

/// One finding in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// The child it concerns; `None` for the daemon's own configuration.
    pub child: Option<String>,
    /// The file, relative to the configuration directory where it lies in there.
    pub file: PathBuf,
    /// Line, from 1; 0 if it concerns the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 if it concerns the file as a whole.
    pub column: usize,
    /// The key with its tables, such as `heartbeat.deadline`; empty if it concerns no key.
    pub key: String,
    /// What was found and what was expected.
    pub message: String,
    /// The known word that is nearest to an unknown one.
    pub nearest: Option<String>,
}

impl Diagnostic {
    /// A finding about a file as a whole.
    pub fn of_file(severity: Severity, child: Option<&str>, file: &Path, message: impl Into<String>) -> Self {
        Self {
            severity,
            child: child.map(str::to_owned),
            file: file.to_path_buf(),
            line: 0,
            column: 0,
            key: String::new(),
            message: message.into(),
            nearest: None,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", one_line(&self.file.to_string_lossy()))?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.severity == Severity::Warning {
            write!(f, ": warning")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", one_line(&self.key))?;
        }
        write!(f, ": {}", one_line(&self.message))?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean {}?", quote(nearest)),
            None => Ok(()),
        }
    }
}

/// The word of `known` that `word` was probably meant to be, if one is near enough.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    if length > LONGEST_WORD {
        return None;
    }
    let allowed = 1 + length / 4;
    let lowered = word.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|candidate| (steps(&lowered, &candidate.to_lowercase().replace('-', "_")), candidate))
        .filter(|&(steps, candidate)| steps <= allowed && steps < candidate.chars().count())
        .min_by_key(|&(steps, _)| steps)
        .map(|(_, candidate)| candidate)
}

/// How far a word is from a known one; a word that only lacks or adds an ending is near.
fn steps(word: &str, known: &str) -> usize {
    let shorter = word.len().min(known.len());
    if shorter >= 3 && (word.starts_with(known) || known.starts_with(word)) { 1 } else { distance(word, known) }
}

/// Steps from `a` to `b`: a letter put in, left out, changed, or swapped with its neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &cb) in b.iter().enumerate() {
            let changed = last[j] + usize::from(ca != cb);
            let mut best = changed.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && ca == b[j - 1] && a[i - 1] == cb {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// Text with control characters made visible, so that a finding stays one line.
fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// Longer words are not compared: the work grows with the product of both lengths.
const LONGEST_WORD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_only_when_it_is_near() {
        let known = ["deadline", "startup", "method", "min_interval"];
        for (word, expected) in [
            ("dedline", Some("deadline")),
            ("daedline", Some("deadline")),
            ("Deadline", Some("deadline")),
            ("min-interval", Some("min_interval")),
            ("start_up", Some("startup")),
            ("deadline_ms", Some("deadline")),
            ("start", Some("startup")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }

    #[test]
    fn a_finding_is_one_line() {
        let mut finding = Diagnostic {
            severity: Severity::Error,
            child: Some("modbus".into()),
            file: "children/modbus.toml".into(),
            line: 7,
            column: 1,
            key: "heartbeat.dedline".into(),
            message: "unknown key".into(),
            nearest: Some("deadline".into()),
        };
        assert_eq!(
            finding.to_string(),
            "children/modbus.toml:7: heartbeat.dedline: unknown key; did you mean \"deadline\"?"
        );
        finding.key = "a\nb".into();
        assert!(!finding.to_string().contains('\n'));
    }
}
