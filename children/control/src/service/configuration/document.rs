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
}

impl Document {
    pub(crate) fn path(&self, dirs: &Dirs) -> PathBuf {
        match self {
            Self::Daemon => dirs.daemon_file(),
            Self::Child(name) => dirs.child_file(name),
            Self::Parameters(name) => dirs.parameter_file(name),
        }
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon => f.write_str("multusd"),
            Self::Child(name) => write!(f, "children/{name}"),
            Self::Parameters(name) => write!(f, "config/{name}"),
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
            _ => Err(Error::field("document", "expected multusd, children/<name> or config/<name>")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_and_never_leaves_the_directory() {
        for text in ["multusd", "children/pump", "config/pump_1"] {
            assert_eq!(text.parse::<Document>().expect("a good name").to_string(), text);
        }
        for text in ["", "users", "children/", "children/../users", "config/a/b", "config/.x", "/etc/passwd"] {
            assert!(text.parse::<Document>().is_err(), "{text}");
        }
    }
}
