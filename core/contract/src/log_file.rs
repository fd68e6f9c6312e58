//! Reading log files: the last lines of a log, and those to come, across rotation.
//!
//! The daemon puts a full `name.log` aside as `name.log.1`, that one as `name.log.2`, and so on. A follower keeps its file
//! open: what is still written there while it is being renamed is not lost, and the files in between are read in order.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The end of a log.
#[derive(Debug)]
pub struct Tail {
    /// Whole lines; the last one may have no end yet.
    pub text: Vec<u8>,
    /// Goes on where the text ends.
    pub follower: Follower,
}

/// The last `lines` lines of the log at `path`, from files put aside, too, if the current one has fewer.
///
/// # Errors
/// The current file cannot be read.
pub fn tail(path: &Path, lines: usize) -> io::Result<Tail> {
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
    Ok(Tail { text, follower: Follower { path: path.to_owned(), open: Some(open) } })
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
pub struct Follower {
    path: PathBuf,
    open: Option<Open>,
}

impl Follower {
    /// From the beginning of the file at `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// What is new, a bounded piece of it; empty if nothing is. Does not wait.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn poll(&mut self) -> io::Result<Vec<u8>> {
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

/// The `number`-th file put aside of the log at `path`, from 1.
pub fn aside(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|data| (data.dev(), data.ino()))
}

const BLOCK: u64 = 64 * 1024;
const PIECE: u64 = 1 << 20;
/// Most files that the configuration lets a log have.
pub const MOST_FILES: u32 = 100;

#[cfg(test)]
mod tests {
    use std::fs;
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
}
