//! A log file with a bounded size and a bounded number of predecessors.
//!
//! ```text
//! pump.log -> pump.log.1 -> pump.log.2 -> deleted        files = 3
//! ```
//!
//! It lives in a directory that people delete, fill, protect and tidy up while it is in use. So each write looks first
//! whether the path still leads to the open file, every failure is counted instead of returned, and after a failure
//! nothing is tried for a second. Only regular files are written: the open call cannot wait for the reader of a FIFO, and
//! does not follow a symbolic link.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{Now, SECOND_NS, count_of_lines, daemon_line};

/// How long nothing is tried after a failure.
const RETRY_NS: u64 = SECOND_NS;

/// More predecessors than this make every rotation a long walk through the directory.
const MAX_FILES: u16 = 999;

/// Writes whole lines, rotates by size, counts what it cannot write.
#[derive(Debug)]
pub struct RotatingFile {
    dir: PathBuf,
    live: PathBuf,
    max_size: u64,
    files: u16,
    open: Option<OpenFile>,
    lost: Option<Lost>,
    news: Option<News>,
    pruned: bool,
    /// Whether lines of its own may stand in the file.
    notices: bool,
}

/// A change that the daemon's own log should tell once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Lines are being lost from now on.
    Losing { path: PathBuf, reason: String },
    /// Writing works again.
    Recovered { path: PathBuf, lost_lines: u64, lost_bytes: u64 },
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    device: u64,
    inode: u64,
    size: u64,
}

#[derive(Debug)]
struct Lost {
    lines: u64,
    bytes: u64,
    reason: String,
    retry_at_ns: u64,
}

impl RotatingFile {
    /// The log `<name>.log` in `dir`; both are made at the first write and appended to when they exist.
    ///
    /// `max_size` is in bytes and is exceeded only by a single line that is longer. `files` counts the live file too; it is
    /// brought into 1..=999. A `/` in the name becomes `_`, so that a name cannot lead out of the directory.
    pub fn open(dir: impl Into<PathBuf>, name: &str, max_size: u64, files: u16) -> Self {
        Self::with_file_name(dir.into(), &format!("{}.log", name.replace(['/', '\0'], "_")), max_size, files, true)
    }

    /// As [`open`](Self::open), for a file whose every line is a record: nothing of its own is written into it.
    pub fn open_records(dir: impl Into<PathBuf>, file_name: &str, max_size: u64, files: u16) -> Self {
        Self::with_file_name(dir.into(), file_name, max_size, files, false)
    }

    fn with_file_name(dir: PathBuf, file_name: &str, max_size: u64, files: u16, notices: bool) -> Self {
        let live = dir.join(file_name);
        Self {
            dir,
            live,
            max_size,
            files: files.clamp(1, MAX_FILES),
            open: None,
            lost: None,
            news: None,
            pruned: false,
            notices,
        }
    }

    /// The path of the live file.
    pub fn path(&self) -> &Path {
        &self.live
    }

    /// Writes whole lines, each ended by a newline. Within a second after a failure they are counted as lost at once.
    pub fn write(&mut self, lines: &[u8], now: Now) {
        if self.lost.as_ref().is_some_and(|lost| now.mono_ns < lost.retry_at_ns) {
            self.lose(lines, None, now);
            return;
        }
        if let Err(error) = self.report_lost(now) {
            self.lose(lines, Some(self.reason("write", &error)), now);
            return;
        }
        if let Err((rest, error)) = self.append(lines, now) {
            let reason = self.reason("write", &error);
            self.lose(&lines[lines.len() - rest..], Some(reason), now);
        }
    }

    /// Reports what was lost if writing works again. Call at [`next_wakeup`](Self::next_wakeup).
    pub fn tick(&mut self, now: Now) {
        if self.lost.as_ref().is_some_and(|lost| now.mono_ns >= lost.retry_at_ns) {
            self.write(b"", now);
        }
    }

    /// CLOCK_MONOTONIC time of the next attempt; `None`: writing works.
    pub fn next_wakeup(&self) -> Option<u64> {
        self.lost.as_ref().map(|lost| lost.retry_at_ns)
    }

    /// Begin or end of trouble since the last call.
    pub fn take_news(&mut self) -> Option<News> {
        self.news.take()
    }

    fn reason(&self, verb: &str, error: &io::Error) -> String {
        format!("cannot {verb} {}: {error}", self.live.display())
    }

    fn lose(&mut self, lines: &[u8], reason: Option<String>, now: Now) {
        let retry_at_ns = now.mono_ns.saturating_add(RETRY_NS);
        let lost = self.lost.get_or_insert_with(|| {
            self.news = Some(News::Losing { path: self.live.clone(), reason: reason.clone().unwrap_or_default() });
            Lost { lines: 0, bytes: 0, reason: String::new(), retry_at_ns }
        });
        lost.lines = lost.lines.saturating_add(lines.iter().filter(|&&byte| byte == b'\n').count() as u64);
        lost.bytes = lost.bytes.saturating_add(lines.len() as u64);
        if let Some(reason) = reason {
            lost.reason = reason;
            lost.retry_at_ns = retry_at_ns;
            // A fresh open heals more than a retry on a descriptor that may be broken.
            self.open = None;
        }
    }

    fn report_lost(&mut self, now: Now) -> io::Result<()> {
        let Some(lost) = &self.lost else { return Ok(()) };
        let Lost { lines, bytes, reason, .. } = lost;
        let notice = daemon_line(&format!("{} lost: {reason} ({bytes} bytes)", count_of_lines(*lines)), now);
        let news = News::Recovered { path: self.live.clone(), lost_lines: *lines, lost_bytes: *bytes };
        if *lines > 0 && self.notices {
            self.append(notice.as_bytes(), now).map_err(|(_, error)| error)?;
        } else {
            self.current()?;
        }
        self.lost = None;
        self.news = Some(news);
        Ok(())
    }

    /// The error carries how many bytes at the end of `lines` were not written, counted in whole lines: a line that was
    /// written in part counts as not written.
    fn append(&mut self, lines: &[u8], now: Now) -> Result<(), (usize, io::Error)> {
        let mut rest = lines;
        let mut rotated = false;
        while !rest.is_empty() {
            let max_size = self.max_size;
            let open = self.current().map_err(|error| (rest.len(), error))?;
            let fitting = whole_lines_within(rest, max_size.saturating_sub(open.size));
            if fitting == 0 && open.size > 0 && !rotated {
                // Once for each line: after a failed rotation the file begins with a notice and may still be too full.
                self.rotate(now).map_err(|error| (rest.len(), error))?;
                rotated = true;
                continue;
            }
            rotated = false;
            let length = if fitting == 0 { first_line(rest) } else { fitting };
            let (written, result) = write_as_far_as_possible(&mut open.file, &rest[..length]);
            open.size = open.size.saturating_add(written as u64);
            if let Err(error) = result {
                let complete = rest[..written].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
                return Err((rest.len() - complete, error));
            }
            rest = &rest[length..];
        }
        Ok(())
    }

    /// The open file, opened again if the path no longer leads to it (deleted, moved away by a log rotator, replaced).
    fn current(&mut self) -> io::Result<&mut OpenFile> {
        let still_there = self.open.as_mut().is_some_and(|open| match self.live.symlink_metadata() {
            Ok(found) if (found.dev(), found.ino()) == (open.device, open.inode) => {
                // Somebody may have emptied the file; then it does not need to be rotated.
                open.size = found.size();
                true
            }
            _ => false,
        });
        if !still_there {
            DirBuilder::new().recursive(true).mode(0o755).create(&self.dir)?;
            self.open = Some(open_regular(&self.live)?);
            if !self.pruned {
                self.pruned = true;
                self.prune();
            }
        }
        self.open.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Moves every file one number up. When that is impossible the live file is emptied instead: losing old lines is better
    /// than filling the disk.
    fn rotate(&mut self, now: Now) -> io::Result<()> {
        for number in (1..self.files.saturating_sub(1)).rev() {
            // A missing number is a gap, a number that cannot be moved is overwritten: the bound holds either way.
            let _ = std::fs::rename(self.numbered(number), self.numbered(number + 1));
        }
        let moved = if self.files > 1 { std::fs::rename(&self.live, self.numbered(1)) } else { Ok(()) };
        if self.files > 1 && moved.is_ok() {
            self.open = None;
            return Ok(());
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.file.set_len(0)?;
        open.size = 0;
        if let (true, Err(error)) = (self.notices, moved) {
            let notice = daemon_line(&format!("older lines lost: cannot rotate the log: {error}"), now);
            open.file.write_all(notice.as_bytes())?;
        }
        Ok(())
    }

    fn numbered(&self, number: u16) -> PathBuf {
        let mut path = OsString::from(&self.live);
        path.push(format!(".{number}"));
        path.into()
    }

    /// Deletes numbers beyond the configured count, left from a time when it was higher.
    fn prune(&self) {
        let Some(live_name) = self.live.file_name() else { return };
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            if number_of(live_name, &entry.file_name()).is_some_and(|number| number >= self.files) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// 7 for `pump.log.7`, when the live file is `pump.log`.
fn number_of(live_name: &OsStr, file_name: &OsStr) -> Option<u16> {
    let digits = file_name.to_str()?.strip_prefix(live_name.to_str()?)?.strip_prefix('.')?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

fn open_regular(path: &Path) -> io::Result<OpenFile> {
    // std adds O_CLOEXEC. Reading is needed to look at the last byte.
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut size = found.size();
    if size > 0 && !ends_with_newline(&file, size)? {
        // A line was cut off here by a full disk or a power failure; the next one must not continue it.
        file.write_all(b"\n")?;
        size += 1;
    }
    Ok(OpenFile { file, device: found.dev(), inode: found.ino(), size })
}

fn ends_with_newline(file: &File, size: u64) -> io::Result<bool> {
    let mut last = [0];
    Ok(file.read_at(&mut last, size - 1)? == 0 || last == *b"\n")
}

/// The length of the lines at the beginning of `lines` that fit into `room` bytes.
fn whole_lines_within(lines: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(lines.len());
    if room == lines.len() {
        room
    } else {
        lines[..room].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)
    }
}

fn first_line(lines: &[u8]) -> usize {
    lines.iter().position(|&byte| byte == b'\n').map_or(lines.len(), |end| end + 1)
}

/// How much was written, and why not the rest.
fn write_as_far_as_possible(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::super::testing::{at_s, skip};
    use super::*;

    fn text(path: impl AsRef<Path>) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_existing_file_is_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        RotatingFile::open(dir.path(), "a", 1000, 3).write(b"one\n", at_s(1));
        let mut log = RotatingFile::open(dir.path(), "a", 1000, 3);
        log.write(b"two\n", at_s(1));
        assert_eq!(text(log.path()), "one\ntwo\n");
        assert_eq!(log.take_news(), None);
    }

    #[test]
    fn a_line_cut_off_by_a_power_failure_is_ended_first() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.log"), "cut o").unwrap();
        let mut log = RotatingFile::open(dir.path(), "a", 1000, 3);
        log.write(b"two\n", at_s(1));
        assert_eq!(text(log.path()), "cut o\ntwo\n");
    }

    #[test]
    fn rotation_keeps_the_configured_number_of_files_within_the_size() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RotatingFile::open(dir.path(), "a", 100, 3);
        for i in 0..1000 {
            log.write(format!("line {i:04}\n").as_bytes(), at_s(1));
        }
        assert_eq!(names(dir.path()), ["a.log", "a.log.1", "a.log.2"]);
        let all: String = ["a.log.2", "a.log.1", "a.log"].map(|name| text(dir.path().join(name))).concat();
        let expected: String = (1000 - all.lines().count()..1000).map(|i| format!("line {i:04}\n")).collect();
        assert_eq!(all, expected, "the newest lines, in order, without a gap");
        assert!(all.len() > 200 && all.len() <= 300);
    }

    #[test]
    fn a_large_write_is_spread_over_files_at_line_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RotatingFile::open(dir.path(), "a", 100, 99);
        let lines: String = (0..100).map(|i| format!("line {i:04}\n")).collect();
        log.write(lines.as_bytes(), at_s(1));
        assert_eq!(names(dir.path()).len(), 10);
        assert!(names(dir.path()).iter().all(|name| text(dir.path().join(name)).len() == 100));
    }

    #[test]
    fn a_line_longer_than_a_file_gets_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RotatingFile::open(dir.path(), "a", 10, 4);
        log.write(b"short\n", at_s(1));
        log.write(b"a very long line\nend\n", at_s(1));
        assert_eq!(text(dir.path().join("a.log.2")), "short\n");
        assert_eq!(text(dir.path().join("a.log.1")), "a very long line\n");
        assert_eq!(text(log.path()), "end\n");
    }

    #[test]
    fn a_single_file_is_emptied_instead_of_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RotatingFile::open(dir.path(), "a", 10, 0);
        log.write(b"one\ntwo\nthree\n", at_s(1));
        assert_eq!(names(dir.path()), ["a.log"]);
        assert_eq!(text(log.path()), "three\n");
    }

    #[test]
    fn surplus_files_of_an_older_configuration_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.log.1", "a.log.2", "a.log.7", "a.log.old", "a.log.-9", "b.log.9"] {
            std::fs::write(dir.path().join(name), "x\n").unwrap();
        }
        RotatingFile::open(dir.path(), "a", 10, 3).write(b"x\n", at_s(1));
        assert_eq!(names(dir.path()), ["a.log", "a.log.-9", "a.log.1", "a.log.2", "a.log.old", "b.log.9"]);
    }

    #[test]
    fn when_rotation_is_impossible_the_size_is_bounded_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a.log.1/in the way")).unwrap();
        for max_size in [1, 200] {
            let mut log = RotatingFile::open(dir.path(), "a", max_size, 2);
            for i in 0..1000 {
                log.write(format!("line {i:04}\n").as_bytes(), at_s(1));
            }
            let text = text(log.path());
            assert!(text.len() < 400, "{text}");
            assert!(text.contains("--- older lines lost: cannot rotate the log: "), "{text}");
            assert!(text.ends_with("line 0999\n"), "{text}");
        }
    }

    #[test]
    fn a_deleted_file_and_a_deleted_directory_come_back_without_loss() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("deep/logs");
        let mut log = RotatingFile::open(&logs, "a", 1000, 3);
        log.write(b"one\n", at_s(1));
        std::fs::remove_file(log.path()).unwrap();
        log.write(b"two\n", at_s(1));
        assert_eq!(text(log.path()), "two\n");
        std::fs::remove_dir_all(dir.path().join("deep")).unwrap();
        log.write(b"three\n", at_s(1));
        assert_eq!(text(log.path()), "three\n");
        std::fs::rename(log.path(), logs.join("moved")).unwrap();
        log.write(b"four\n", at_s(1));
        assert_eq!(text(log.path()), "four\n");
        assert_eq!(log.take_news(), None);
    }

    #[test]
    fn a_file_emptied_by_hand_is_not_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RotatingFile::open(dir.path(), "a", 12, 3);
        log.write(b"one\ntwo\n", at_s(1));
        std::fs::write(log.path(), "").unwrap();
        log.write(b"three\nfour\n", at_s(1));
        assert_eq!(names(dir.path()), ["a.log"]);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let fifo = |path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let link = |path: &Path| std::os::unix::fs::symlink("/dev/null", path).unwrap();
        let directory = |path: &Path| std::fs::create_dir(path).unwrap();
        for reason in ["not a regular file", "symbolic link", "directory"] {
            match reason {
                "symbolic link" => link(&path),
                "directory" => directory(&path),
                _ => fifo(&path),
            }
            let mut log = RotatingFile::open(dir.path(), "a", 1000, 3);
            let started = Instant::now();
            log.write(b"one\ntwo\n", at_s(1));
            assert!(started.elapsed() < Duration::from_secs(5), "an open FIFO must not wait for a reader");
            let Some(News::Losing { reason: told, .. }) = log.take_news() else { panic!("not refused: {reason}") };
            assert!(told.contains(reason), "{told}");

            if path.is_dir() {
                std::fs::remove_dir(&path).unwrap()
            } else {
                std::fs::remove_file(&path).unwrap()
            }
            log.write(b"three\n", at_s(1));
            assert!(!path.exists(), "no second attempt within a second");
            assert_eq!(log.next_wakeup(), Some(2 * SECOND_NS));
            log.tick(at_s(2));
            assert_eq!(log.next_wakeup(), None);
            log.write(b"four\n", at_s(2));
            let text = text(&path);
            assert!(text.contains("--- 3 lines lost: cannot write "), "{text}");
            assert!(text.ends_with(" (14 bytes)\nfour\n"), "{text}");
            assert!(matches!(log.take_news(), Some(News::Recovered { lost_lines: 3, lost_bytes: 14, .. })));
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_counted_and_healed() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        std::fs::write(&logs, "a file where the directory should be").unwrap();
        let mut log = RotatingFile::open(&logs, "a", 1000, 3);
        for second in 1..=5 {
            log.write(b"lost\n", at_s(second));
        }
        std::fs::remove_file(&logs).unwrap();
        log.write(b"kept\n", at_s(6));
        let text = text(log.path());
        assert!(text.contains("--- 5 lines lost: "), "{text}");
        assert!(text.ends_with("\nkept\n"), "{text}");
    }

    /// A file system of 64 KiB, unmounted at the end.
    struct SmallDisk(tempfile::TempDir);

    impl SmallDisk {
        fn mount() -> Result<Self, String> {
            if !nix::unistd::geteuid().is_root() {
                return Err("mounting a small tmpfs needs root".to_owned());
            }
            let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
            let output = Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=64k", "multus-test"])
                .arg(dir.path())
                .output()
                .map_err(|error| format!("mount: {error}"))?;
            if output.status.success() {
                Ok(Self(dir))
            } else {
                Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
            }
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0.path()).status();
        }
    }

    #[test]
    fn a_full_disk_is_counted_and_reported_when_there_is_room_again() {
        let disk = match SmallDisk::mount() {
            Ok(disk) => disk,
            Err(reason) => return skip("a_full_disk_is_counted_and_reported_when_there_is_room_again", &reason),
        };
        let ballast = disk.0.path().join("ballast");
        std::fs::write(&ballast, vec![0; 48 * 1024]).unwrap();
        let mut log = RotatingFile::open(disk.0.path(), "a", 1 << 20, 3);
        let line = |i: u64| format!("{i:099}\n");
        for i in 0..1000 {
            log.write(line(i).as_bytes(), at_s(i));
        }
        let Some(News::Losing { reason, .. }) = log.take_news() else { panic!("the disk did not fill up") };
        assert!(reason.contains("No space left"), "{reason}");
        std::fs::remove_file(&ballast).unwrap();
        log.write(line(1000).as_bytes(), at_s(1001));
        let text = text(log.path());
        let notice = text.lines().find(|text| text.contains(" --- ")).unwrap();
        let lost: u64 = notice.split(" --- ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let whole =
            text.lines().filter(|text| text.len() == 99 && text.bytes().all(|byte| byte.is_ascii_digit())).count();
        assert_eq!(whole as u64 + lost, 1001, "every line is either there or counted");
        assert!(text.ends_with(&line(1000)));
    }
}
