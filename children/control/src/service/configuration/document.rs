//! The names of documents.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use multus_contract::config::name_fault;
use multus_contract::dirs::Dirs;

use super::super::{Error, Result};

/// A configuration file. Its name, `children/pump` or the like, is never a path of the caller's choice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Document {
    /// `multusd`: the daemon's own.
    Daemon,
    /// `children/<name>`: how a child is run and supervised.
    Child(String),
    /// `config/<instance>`: a child's own parameters.
    Parameters(String),
    /// `files/<instance>:<key>`: the text of the file that a parameter names, such as `files/vpn:tunnel.client`. Where that is
    /// says the configuration, never the caller.
    Text {
        /// Whose parameter.
        instance: String,
        /// The parameter with its tables.
        key: String,
    },
}

impl Document {
    /// The file of a configuration; `None` for a text, whose place is told by its parameter.
    pub(crate) fn path(&self, dirs: &Dirs) -> Option<PathBuf> {
        Some(match self {
            Self::Daemon => dirs.daemon_file(),
            Self::Child(name) => dirs.child_file(name),
            Self::Parameters(name) => dirs.parameter_file(name),
            Self::Text { .. } => return None,
        })
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon => f.write_str("multusd"),
            Self::Child(name) => write!(f, "children/{name}"),
            Self::Parameters(name) => write!(f, "config/{name}"),
            Self::Text { instance, key } => write!(f, "files/{instance}:{key}"),
        }
    }
}

impl FromStr for Document {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let checked = |name: &str| match name_fault(name) {
            None => Ok(name.to_owned()),
            Some(fault) => Err(Error::field("document", fault)),
        };
        match text.split_once('/') {
            None if text == "multusd" => Ok(Self::Daemon),
            Some(("children", name)) => checked(name).map(Self::Child),
            Some(("config", name)) => checked(name).map(Self::Parameters),
            Some(("files", name)) => {
                let (instance, key) = name.split_once(':').unwrap_or((name, ""));
                match key.split('.').all(is_key) && key.len() <= LONGEST_KEY {
                    true => Ok(Self::Text { instance: checked(instance)?, key: key.to_owned() }),
                    false => Err(Error::field("document", "expected files/<instance>:<parameter>")),
                }
            }
            _ => Err(Error::field(
                "document",
                "expected multusd, children/<name>, config/<instance> or files/<instance>:<parameter>",
            )),
        }
    }
}

/// Whether a word can be part of a name of a document; parameters with others in their names have no documents of their own.
fn is_key(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// Also the name of a directory in the history: less than the 255 bytes of a file name, with a name before it.
const LONGEST_KEY: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_and_never_leaves_the_directory() {
        for text in ["multusd", "children/pump", "config/pump_1", "files/vpn.a:tunnel.client-conf"] {
            assert_eq!(text.parse::<Document>().expect("a good name").to_string(), text);
        }
        for text in [
            "",
            "users",
            "children/",
            "children/../users",
            "config/a/b",
            "config/.x",
            "/etc/passwd",
            "files/vpn",
            "files/vpn:",
            "files/:a",
            "files/vpn:..",
            "files/vpn:a/b",
            "files/../x:a",
            "files/vpn:a..b",
            "files/vpn:a b",
            "files/vpn:a:b",
        ] {
            assert!(text.parse::<Document>().is_err(), "{text}");
        }
    }
}
