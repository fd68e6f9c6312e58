//! `multusctl logs NAME`: the last lines of a log, and those to come, across rotation.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use multus_contract::config::name_fault;
use multus_contract::dirs::log_file;
use multus_contract::log_file::{Follower, Tail, tail};

use super::Context;
use super::output::{Failure, print};

pub(crate) fn logs(context: &Context, name: &str, lines: usize, follow: bool) -> Result<(), Failure> {
    if let Some(fault) = name_fault(name) {
        return Err(Failure::Message(fault));
    }
    let dir = context.log_dir();
    let path = log_file(&dir, name);
    let mut follower = Follower::new(path.clone());
    match tail(&path, lines) {
        Ok(Tail { text, follower: rest }) => {
            print(|out| out.write_all(&text))?;
            follower = rest;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && follow && others(&dir, name).is_empty() => {}
        Err(error) => return Err(Failure::Message(absent(&dir, name, &path, &error))),
    }
    if !follow {
        return Ok(());
    }
    loop {
        let news = follower.poll().map_err(|error| Failure::Message(format!("{}: {error}", path.display())))?;
        if news.is_empty() {
            std::thread::sleep(POLL);
        } else {
            print(|out| out.write_all(&news))?;
        }
    }
}

/// Why there is nothing to show, and what could be shown instead.
fn absent(dir: &Path, name: &str, path: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::NotFound {
        return format!("{}: {error}", path.display());
    }
    let others = others(dir, name);
    let mut message = format!("no log of {name:?} in {}", dir.display());
    match others.len() {
        0 if !dir.is_dir() => message.push_str(": no such directory; name another one with --log-dir"),
        0 => message.push_str(": it has written nothing yet, or another directory is meant (--log-dir)"),
        _ => message.push_str(&format!("; there are logs of {}", others.join(", "))),
    }
    message
}

/// The logs of the instances of `name`, if there are such.
fn others(dir: &Path, name: &str) -> Vec<String> {
    let is_instance = |file: &str| {
        file.strip_prefix(name).and_then(|rest| rest.strip_prefix('_')).is_some_and(|n| n.parse::<u16>().is_ok())
    };
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let names =
        entries.flatten().filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".log")?.to_owned()));
    let mut names: Vec<_> = names.filter(|file| is_instance(file)).collect();
    names.sort();
    names
}

const POLL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_log_names_those_of_the_instances() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        for name in ["a_0.log", "a_1.log", "ab.log", "a_x.log"] {
            fs::write(dir.path().join(name), "").expect("writable");
        }
        let error = io::ErrorKind::NotFound.into();
        let message = absent(dir.path(), "a", &log_file(dir.path(), "a"), &error);
        assert!(message.ends_with("there are logs of a_0, a_1"), "{message}");
    }
}
