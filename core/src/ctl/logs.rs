//! `multusctl logs NAME`: the last lines of a log, and those to come, across rotation.
//!
//! The daemon puts a full `name.log` aside as `name.log.1`, that one as `name.log.2`, and so on. A follower keeps its file
//! open: what is still written there while it is being renamed is not lost, and the files in between are read in order.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use multus_contract::config::name_fault;
use multus_contract::dirs::log_file;

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
        Ok(Tail { text, open }) => {
            print(|out| out.write_all(&text))?;
            follower.open = Some(open);
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

/// The end of a log.
#[derive(Debug)]
struct Tail {
    text: Vec<u8>,
    /// The current file, read up to its end.
    open: Open,
}

/// The last `lines` lines, from files put aside, too, if the current one has fewer.
fn tail(path: &Path, lines: usize) -> io::Result<Tail> {
    let mut open = Open::at(path)?;
    let mut text = last_lines(&mut open.file, lines)?;
    open.position = open.file.stream_position()?;
    for number in 1..=MOST_FILES {
        let missing = lines.saturating_sub(line_count(&text));
        let Some(Ok(mut older)) = (missing > 0).then(|| File::open(aside(path, number))) else { break };
        let mut earlier = last_lines(&mut older, missing)?;
        earlier.append(&mut text);
        text = earlier;
    }
    Ok(Tail { text, open })
}

/// The last `lines` lines of a file, read backwards in blocks; leaves it at its end.
fn last_lines(file: &mut File, lines: usize) -> io::Result<Vec<u8>> {
    let end = file.seek(SeekFrom::End(0))?;
    let (mut start, mut text) = (end, Vec::new());
    // One more line end than lines: the one in front of the first.
    while start > 0 && line_count(&text) <= lines {
        let size = start.min(BLOCK);
        start -= size;
        file.seek(SeekFrom::Start(start))?;
        let mut block = Vec::new();
        (&*file).take(size).read_to_end(&mut block)?;
        block.append(&mut text);
        text = block;
    }
    file.seek(SeekFrom::Start(end))?;
    let excess = line_count(&text).saturating_sub(lines);
    let skip: usize = text.split_inclusive(|&byte| byte == b'\n').take(excess).map(<[u8]>::len).sum();
    text.drain(..skip);
    Ok(text)
}

/// Lines in `text`; a last one without an end counts.
fn line_count(text: &[u8]) -> usize {
    text.split_inclusive(|&byte| byte == b'\n').count()
}

/// An open log file and how far it was read.
#[derive(Debug)]
struct Open {
    file: File,
    inode: (u64, u64),
    position: u64,
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let data = file.metadata()?;
        if !data.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(Self { inode: (data.dev(), data.ino()), file, position: 0 })
    }

    /// What was written since the last call, a bounded piece of it.
    fn news(&mut self) -> io::Result<Vec<u8>> {
        if self.file.metadata()?.len() < self.position {
            // Somebody emptied it: what is in there now is new.
            self.position = 0;
        }
        self.file.seek(SeekFrom::Start(self.position))?;
        let mut news = Vec::new();
        (&self.file).take(PIECE).read_to_end(&mut news)?;
        self.position += news.len() as u64;
        Ok(news)
    }
}

/// Follows a log from file to file.
#[derive(Debug)]
struct Follower {
    path: PathBuf,
    open: Option<Open>,
}

impl Follower {
    fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// What is new; empty if nothing is. Does not wait.
    fn poll(&mut self) -> io::Result<Vec<u8>> {
        let Some(open) = &mut self.open else {
            self.open = match Open::at(&self.path) {
                Ok(open) => Some(open),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            return self.poll();
        };
        let current = inode(&self.path);
        // Asked before reading: what is written between the two still goes to this file and is read next time.
        let is_current = current == Some(open.inode);
        let news = open.news()?;
        if is_current || current.is_none() || !news.is_empty() {
            return Ok(news);
        }
        // Put aside and read to its end. Its successor is one number below it, and 0 is the current file.
        let own = (1..=MOST_FILES).find(|&number| inode(&aside(&self.path, number)) == Some(open.inode));
        let next = match own {
            Some(number) if number > 1 => aside(&self.path, number - 1),
            _ => self.path.clone(),
        };
        self.open = Open::at(&next).ok();
        self.open.as_mut().map_or(Ok(Vec::new()), Open::news)
    }
}

/// The `number`-th file put aside.
fn aside(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|data| (data.dev(), data.ino()))
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
const BLOCK: u64 = 64 * 1024;
const PIECE: u64 = 1 << 20;
/// Most files that the configuration lets a log have.
const MOST_FILES: u32 = 100;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).expect("the test writes ASCII")
    }

    #[test]
    fn the_last_lines_reach_back_into_older_files() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let path = dir.path().join("a.log");
        fs::write(aside(&path, 2), "1\n2\n").expect("writable");
        fs::write(aside(&path, 1), "3\n4\n").expect("writable");
        fs::write(&path, "5\n6\nhalf").expect("writable");
        for (lines, expected) in [
            (0, ""),
            (1, "half"),
            (2, "6\nhalf"),
            (4, "4\n5\n6\nhalf"),
            (6, "2\n3\n4\n5\n6\nhalf"),
            (99, "1\n2\n3\n4\n5\n6\nhalf"),
        ] {
            assert_eq!(text(tail(&path, lines).expect("readable").text), expected, "{lines}");
        }
        let long: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, long).expect("writable");
        assert_eq!(text(tail(&path, 2).expect("readable").text), "line 49998\nline 49999\n");
    }

    #[test]
    fn following_survives_rotations_between_two_looks() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let path = dir.path().join("a.log");
        let mut follower = Follower::new(path.clone());
        assert_eq!(text(follower.poll().expect("not there yet")), "");
        fs::write(&path, "1\n").expect("writable");
        assert_eq!(text(follower.poll().expect("readable")), "1\n");
        let rotate = || {
            let _ = fs::rename(aside(&path, 1), aside(&path, 2));
            fs::rename(&path, aside(&path, 1)).expect("own files");
        };
        let append = |line: &str| {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(&path).expect("writable");
            file.write_all(line.as_bytes()).expect("writable");
        };
        append("2\n");
        rotate();
        append("3\n");
        rotate();
        append("4\n");
        let mut seen = String::new();
        for _ in 0..8 {
            seen += &text(follower.poll().expect("readable"));
        }
        assert_eq!(seen, "2\n3\n4\n");
        fs::write(&path, "").expect("writable");
        follower.poll().expect("readable");
        append("new\n");
        assert_eq!(text(follower.poll().expect("readable")), "new\n");
    }

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
