//! Log files: the last lines, those to come, and a search.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::path::PathBuf;

use multus_contract::api::time::format_rfc3339;
use multus_contract::log_file::{Follower, MOST_FILES, aside, tail};
use schemars::JsonSchema;
use serde::Serialize;

use super::faults::{checked, names_in};
use super::{Caller, Error, Result, Service};

/// A log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LogFile {
    /// The child instance; `multusd` is the daemon.
    pub name: String,
    /// Size of the current file.
    pub bytes: u64,
    /// When it was last written, RFC 3339.
    pub changed: String,
}

/// The last lines of a log.
#[derive(Debug)]
pub struct LogTail {
    /// Oldest first, without their ends. Bytes that are no UTF-8 are replaced.
    pub lines: Vec<String>,
    /// Goes on where they end.
    pub follower: LogFollower,
}

/// Lines as they are written, across rotation.
#[derive(Debug)]
pub struct LogFollower {
    follower: Follower,
    path: PathBuf,
    /// The begin of a line whose end is not written yet.
    rest: Vec<u8>,
}

/// A line that was searched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Found {
    /// How many files were put aside since: 0 is the current one.
    pub file: u32,
    /// Its number in that file, from 1.
    pub line: u64,
    /// The line.
    pub text: String,
}

impl Service {
    /// Which logs there are, by name.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn logs(&self, caller: &Caller) -> Result<Vec<LogFile>> {
        caller.needs(Caller::USER)?;
        let mut logs = Vec::new();
        for file in names_in(&self.dirs().logs)? {
            let Some(name) = file.strip_suffix(".log") else { continue };
            let Ok(data) = fs::metadata(self.dirs().logs.join(&file)) else { continue };
            let since_1970 = data.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
            let changed = format_rfc3339(since_1970.map_or(0, |time| time.as_nanos() as u64));
            logs.push(LogFile { name: name.to_owned(), bytes: data.len(), changed });
        }
        logs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(logs)
    }

    /// The last `lines` lines of a log, at most 5000 and half a mebibyte; older files are read where the current one is too short.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], [`Error::Internal`].
    pub fn log_tail(&self, caller: &Caller, name: &str, lines: usize) -> Result<LogTail> {
        let path = self.log_path(caller, name)?;
        let tail = tail(&path, lines.min(MOST_LINES)).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::NotFound(format!("there is no log of {name:?}")),
            _ => Error::io(&path, &error),
        })?;
        let mut follower = LogFollower { follower: tail.follower, path, rest: Vec::new() };
        let mut lines = follower.take(&tail.text);
        if !follower.rest.is_empty() && lines.is_empty() {
            // All there is is a line without an end: better shown than not.
            lines.extend(follower.finish());
        }
        let surplus = surplus(lines.iter().map(String::len));
        lines.drain(..surplus);
        Ok(LogTail { lines, follower })
    }

    /// Lines of a log that hold `words`, letters of either case alike; the latest `limit` (at most 1000), oldest first.
    /// Looks through the newest 64 MiB.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], [`Error::Internal`].
    pub fn log_search(&self, caller: &Caller, name: &str, words: &str, limit: usize) -> Result<Vec<Found>> {
        let path = self.log_path(caller, name)?;
        if words.is_empty() || words.len() > 200 {
            return Err(Error::field("words", "1 to 200 bytes are searched for"));
        }
        let wanted = words.to_lowercase();
        let (limit, mut left) = (limit.clamp(1, 1000), MOST_SEARCHED);
        let mut found: Vec<Found> = Vec::new();
        for number in 0..=MOST_FILES {
            let path = if number == 0 { path.clone() } else { aside(&path, number) };
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound && number == 0 => {
                    return Err(Error::NotFound(format!("there is no log of {name:?}")));
                }
                Err(_) => break,
            };
            let mut here = search(file, &wanted, number, &mut left).map_err(|error| Error::io(&path, &error))?;
            here.append(&mut found);
            found = here;
            if found.len() >= limit || left == 0 {
                break;
            }
        }
        found.drain(..found.len().saturating_sub(limit));
        let surplus = surplus(found.iter().map(|found| found.text.len()));
        found.drain(..surplus);
        Ok(found)
    }

    /// Where the log of this name is; there may be none. `multusd` is the daemon's.
    pub(crate) fn log_path(&self, caller: &Caller, name: &str) -> Result<PathBuf> {
        caller.needs(Caller::USER)?;
        if name == "multusd" {
            return Ok(self.dirs().daemon_log());
        }
        Ok(self.dirs().child_log(checked(name)?))
    }
}

impl LogFollower {
    /// Whole lines that were written since the last call, without their ends; a bounded number of bytes. Does not wait:
    /// ask again in some 100 ms.
    ///
    /// # Errors
    /// [`Error::Internal`]: the file cannot be read.
    pub fn poll(&mut self) -> Result<Vec<String>> {
        let news = self.follower.poll().map_err(|error| Error::io(&self.path, &error))?;
        Ok(self.take(&news))
    }

    fn take(&mut self, news: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in news.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.rest.len() > LONGEST_LINE {
                lines.extend(self.finish());
            }
        }
        lines
    }

    fn finish(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.rest);
        Some(shown(&line)).filter(|_| !line.is_empty())
    }
}

/// How many of the first do not fit into an answer.
fn surplus(sizes: impl DoubleEndedIterator<Item = usize> + ExactSizeIterator) -> usize {
    let (count, mut bytes) = (sizes.len(), 0);
    let fit = sizes.rev().take_while(|size| {
        bytes += size;
        bytes <= MOST_BYTES
    });
    count - fit.count()
}

/// Lines of one file that hold `wanted`.
fn search(file: File, wanted: &str, number: u32, left: &mut u64) -> std::io::Result<Vec<Found>> {
    let mut reader = BufReader::new(file.take(*left));
    let mut found = Vec::new();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let read = (&mut reader).take(LONGEST_LINE as u64).read_until(b'\n', &mut bytes)?;
        if read == 0 {
            break;
        }
        *left = left.saturating_sub(read as u64);
        let text = shown(&bytes);
        if text.to_lowercase().contains(wanted) {
            if found.len() >= MOST_LINES {
                found.remove(0);
            }
            found.push(Found { file: number, line, text });
        }
    }
    Ok(found)
}

fn shown(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()
}

const MOST_LINES: usize = 5000;
/// A longer line is cut into pieces.
const LONGEST_LINE: usize = 16 * 1024;
/// Text in one answer; a message of the network interface holds a mebibyte.
const MOST_BYTES: usize = 512 * 1024;
const MOST_SEARCHED: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use multus_contract::dirs::Dirs;

    use super::super::Settings;
    use super::*;

    #[test]
    fn lines_are_shown_followed_and_found() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let at = |name: &str| temp.path().join(name);
        let dirs = Dirs { config: at("etc"), runtime: at("run"), logs: at(""), state: at("state") };
        let service = Service::new(dirs, Settings::default());
        let caller = Caller::new("somebody", Caller::USER);
        fs::write(at("pump.log.1"), "one Pump\ntwo\n").expect("writable");
        fs::write(at("pump.log"), "three\nPUMP four\nhal").expect("writable");

        let mut tail = service.log_tail(&caller, "pump", 4).expect("it is there");
        assert_eq!(tail.lines, ["two", "three", "PUMP four"], "a line without an end waits for it");
        let mut file = File::options().append(true).open(at("pump.log")).expect("writable");
        file.write_all(b"f\xff\nnext\n").expect("writable");
        assert_eq!(tail.follower.poll().expect("readable"), ["half\u{fffd}", "next"]);
        assert!(tail.follower.poll().expect("readable").is_empty());

        let found = service.log_search(&caller, "pump", "pump", 10).expect("it is there");
        let found: Vec<_> = found.iter().map(|f| (f.file, f.line, f.text.as_str())).collect();
        assert_eq!(found, [(1, 1, "one Pump"), (0, 2, "PUMP four")]);
        assert_eq!(service.logs(&caller).expect("readable").len(), 1);
        for (name, kind) in [("lamp", "not-found"), ("../pump", "invalid"), ("", "invalid")] {
            assert_eq!(service.log_tail(&caller, name, 1).expect_err(name).kind(), kind);
        }
    }
}
