//! The log of one child instance: both its streams, its rate limit, its file, and its last lines for the evidence.

use std::collections::VecDeque;

use multus_contract::api::time::format_rfc3339;

use super::{
    DAEMON_MARK, LineSplitter, News, Now, RateLimit, RotatingFile, Stream, count_of_lines, daemon_line, escape_into,
};

/// How many lines are kept in memory for the evidence of a fault.
pub const KEPT_LINES: usize = 20;

/// How much of each kept line: 20 lines of a kilobyte are 20 KiB for each child at worst.
pub const KEPT_LINE_BYTES: usize = 1024;

/// Takes what a child writes and brings it into its log file. Never waits, never fails: what cannot be written is counted
/// and reported in the file later.
#[derive(Debug)]
pub struct ChildLog {
    file: RotatingFile,
    limit: RateLimit,
    out: LineSplitter,
    err: LineSplitter,
    kept: KeptLines,
    /// The formatted lines of this turn; kept to use its memory again.
    batch: String,
}

impl ChildLog {
    /// `lines_per_second` 0 means no limit.
    pub fn new(file: RotatingFile, lines_per_second: u32) -> Self {
        Self {
            file,
            limit: RateLimit::new(lines_per_second),
            out: LineSplitter::default(),
            err: LineSplitter::default(),
            kept: KeptLines::default(),
            batch: String::new(),
        }
    }

    /// Bytes from one of the child's pipes.
    pub fn take(&mut self, stream: Stream, bytes: &[u8], now: Now) {
        self.report_dropped(now);
        let Self { limit, out, err, kept, batch, .. } = self;
        let time = format_rfc3339(now.unix_ns);
        let splitter = match stream {
            Stream::Out => out,
            Stream::Err => err,
        };
        splitter.push(bytes, |line, continued| {
            kept.push(line);
            if limit.admit(now.mono_ns) {
                push_line(batch, &time, stream.mark(continued), line);
            }
        });
        self.write_batch(now);
    }

    /// The process is gone: writes unfinished lines and pending counts now. The rate limit does not hold these back.
    pub fn flush(&mut self, now: Now) {
        let Self { limit, out, err, kept, batch, .. } = self;
        let time = format_rfc3339(now.unix_ns);
        let dropped = limit.take_dropped_early();
        if dropped > 0 {
            push_dropped(batch, dropped, limit.lines_per_second(), now);
        }
        for (splitter, stream) in [(out, Stream::Out), (err, Stream::Err)] {
            splitter.flush(|line, continued| {
                kept.push(line);
                push_line(batch, &time, stream.mark(continued), line);
            });
        }
        self.write_batch(now);
    }

    /// A line of the daemon's own about this child (started, killed, why), at its place among the child's lines. Not limited.
    pub fn note(&mut self, text: &str, now: Now) {
        push_line(&mut self.batch, &format_rfc3339(now.unix_ns), DAEMON_MARK, text.as_bytes());
        self.write_batch(now);
    }

    /// Writes counts that are due. Call at [`next_wakeup`](Self::next_wakeup); an extra call is harmless.
    pub fn tick(&mut self, now: Now) {
        self.report_dropped(now);
        self.write_batch(now);
        self.file.tick(now);
    }

    /// CLOCK_MONOTONIC time of the next [`tick`](Self::tick); `None`: nothing is pending.
    pub fn next_wakeup(&self) -> Option<u64> {
        [self.limit.report_at_ns(), self.file.next_wakeup()].into_iter().flatten().min()
    }

    /// The last lines of both streams in the order of arrival, oldest first, dropped ones included, each cut at
    /// [`KEPT_LINE_BYTES`]. Lines that are not finished yet come last.
    pub fn last_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.kept.lines.iter().cloned().collect();
        for splitter in [&self.out, &self.err] {
            if let Some(partial) = splitter.partial() {
                lines.push(kept_form(String::new(), partial));
            }
        }
        let surplus = lines.len().saturating_sub(KEPT_LINES);
        lines.drain(..surplus);
        lines
    }

    /// Forgets the kept lines: the next process starts with a clean slate.
    pub fn forget_lines(&mut self) {
        self.kept = KeptLines::default();
    }

    /// Begin or end of trouble with the file since the last call, to be said once in the daemon's own log.
    pub fn take_news(&mut self) -> Option<News> {
        self.file.take_news()
    }

    fn report_dropped(&mut self, now: Now) {
        let dropped = self.limit.take_dropped(now.mono_ns);
        if dropped > 0 {
            push_dropped(&mut self.batch, dropped, self.limit.lines_per_second(), now);
        }
    }

    fn write_batch(&mut self, now: Now) {
        if !self.batch.is_empty() {
            self.file.write(self.batch.as_bytes(), now);
            self.batch.clear();
            // One noisy turn must not keep its memory for ever.
            self.batch.shrink_to(64 * 1024);
        }
    }
}

fn push_line(batch: &mut String, time: &str, mark: &str, line: &[u8]) {
    batch.push_str(time);
    batch.push(' ');
    batch.push_str(mark);
    batch.push(' ');
    escape_into(batch, line);
    batch.push('\n');
}

fn push_dropped(batch: &mut String, dropped: u64, lines_per_second: u64, now: Now) {
    let text = format!("{} lost: more than {lines_per_second} lines per second", count_of_lines(dropped));
    batch.push_str(&daemon_line(&text, now));
}

/// A ring of lines; a line that falls out gives its memory to the one that comes in.
#[derive(Debug, Default)]
struct KeptLines {
    lines: VecDeque<String>,
}

impl KeptLines {
    fn push(&mut self, line: &[u8]) {
        let memory = if self.lines.len() < KEPT_LINES { None } else { self.lines.pop_front() };
        self.lines.push_back(kept_form(memory.unwrap_or_default(), line));
    }
}

fn kept_form(mut memory: String, line: &[u8]) -> String {
    memory.clear();
    escape_into(&mut memory, &line[..line.len().min(KEPT_LINE_BYTES)]);
    if memory.len() > KEPT_LINE_BYTES || line.len() > KEPT_LINE_BYTES {
        let mut cut = memory.len().min(KEPT_LINE_BYTES);
        while !memory.is_char_boundary(cut) {
            cut -= 1;
        }
        memory.truncate(cut);
        memory.push_str("...");
    }
    memory
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::testing::{at_ns, at_s};
    use super::*;
    use crate::capture::SECOND_NS;

    fn log_in(dir: &Path, lines_per_second: u32) -> ChildLog {
        ChildLog::new(RotatingFile::open(dir, "pump", 1 << 20, 3), lines_per_second)
    }

    fn read(dir: &Path) -> String {
        std::fs::read_to_string(dir.join("pump.log")).unwrap()
    }

    #[test]
    fn a_line_carries_time_mark_and_text() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log_in(dir.path(), 0);
        log.take(Stream::Out, b"hello\n", at_ns(1_500_000));
        log.take(Stream::Err, b"bad \xff\n", at_s(2));
        log.note("killed by SIGKILL", at_s(3));
        assert_eq!(
            read(dir.path()),
            "2026-11-22T20:00:00.001500Z out hello\n\
             2026-11-22T20:00:02.000000Z err bad \\xff\n\
             2026-11-22T20:00:03.000000Z --- killed by SIGKILL\n"
        );
    }

    #[test]
    fn unfinished_lines_of_both_streams_survive_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log_in(dir.path(), 0);
        log.take(Stream::Out, b"work", at_s(1));
        log.take(Stream::Err, b"panicked at ", at_s(1));
        log.take(Stream::Out, b"ing", at_s(1));
        assert_eq!(log.last_lines(), ["working", "panicked at "]);
        log.flush(at_s(2));
        log.flush(at_s(3));
        assert_eq!(
            read(dir.path()),
            "2026-11-22T20:00:02.000000Z out working\n2026-11-22T20:00:02.000000Z err panicked at \n"
        );
    }

    #[test]
    fn a_flood_is_limited_and_reported_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log_in(dir.path(), 10);
        log.take(Stream::Out, "flood\n".repeat(1_000).as_bytes(), at_s(5));
        assert_eq!(read(dir.path()).lines().count(), 10);
        assert_eq!(log.next_wakeup(), Some(6 * SECOND_NS));
        log.tick(at_ns(6 * SECOND_NS - 1));
        assert_eq!(read(dir.path()).lines().count(), 10);
        log.tick(at_s(6));
        assert_eq!(log.next_wakeup(), None);
        let text = read(dir.path());
        assert_eq!(text.lines().count(), 11);
        assert!(text.ends_with("--- 990 lines lost: more than 10 lines per second\n"), "{text}");
    }

    #[test]
    fn a_crash_during_a_flood_reports_the_count_and_keeps_the_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log_in(dir.path(), 10);
        let text: String = (0..100).map(|i| format!("line {i}\n")).collect();
        log.take(Stream::Out, text.as_bytes(), at_s(5));
        log.take(Stream::Out, b"last words", at_s(5));
        log.flush(at_s(5));
        let text = read(dir.path());
        assert!(text.contains("--- 90 lines lost: more than 10 lines per second\n"), "{text}");
        assert!(text.ends_with("out last words\n"), "{text}");
        let lines = log.last_lines();
        assert_eq!(lines.len(), KEPT_LINES);
        assert_eq!(lines.first().map(String::as_str), Some("line 81"));
        assert_eq!(lines.last().map(String::as_str), Some("last words"));
    }

    #[test]
    fn kept_lines_are_bounded_in_number_and_length() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log_in(dir.path(), 0);
        for _ in 0..100 {
            let mut line = vec![0xff; 50_000];
            line.push(b'\n');
            log.take(Stream::Err, &line, at_s(1));
        }
        let lines = log.last_lines();
        assert_eq!(lines.len(), KEPT_LINES);
        assert!(lines.iter().all(|line| line.len() <= KEPT_LINE_BYTES + 3));
        log.forget_lines();
        assert!(log.last_lines().is_empty());
    }
}
