//! `multusctl fault NAME [N]`: the report of a fault, as multusd kept it on disk.

use std::fs;
use std::path::{Path, PathBuf};

use multus_contract::config::name_fault;

use super::Context;
use super::output::{Failure, print};

/// Prints the `number`-th report, counted from the latest (1).
pub(crate) fn fault(context: &Context, name: &str, number: usize) -> Result<(), Failure> {
    if let Some(fault) = name_fault(name) {
        return Err(Failure::Message(fault));
    }
    let dir = context.state_dir().join("faults").join(name);
    let reports = reports(&dir);
    let Some(path) = number.checked_sub(1).and_then(|index| reports.get(index)) else {
        let message = match reports.len() {
            0 => format!("no report of a fault of {name:?} in {}", dir.display()),
            1 => format!("there is one report of {name:?}"),
            kept => format!("there are {kept} reports of {name:?}, 1 is the latest"),
        };
        return Err(Failure::Message(message));
    };
    let text = fs::read(path).map_err(|error| Failure::Message(format!("{}: {error}", path.display())))?;
    print(|out| out.write_all(&text))
}

/// The reports, latest first. Their names are times, so the order of names is that of time.
fn reports(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    found.sort();
    found.reverse();
    found
}
