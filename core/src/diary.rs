//! The daemon's own log: the same kind of file as the children's, written at once. Threads that must not wait for a disk leave
//! their lines here, and the log thread writes them.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use flexi_logger::writers::LogWriter;
use flexi_logger::{DeferredNow, Record};
use multus_contract::api::time::format_rfc3339;
use multus_ipc::MonoNs;
use multus_ipc::time::unix_ns;

use crate::capture::{Now, RotatingFile};

thread_local! {
    static LEAVES: Cell<bool> = const { Cell::new(false) };
}

/// From now on the calling thread only leaves its lines. For those that others wait for in real time.
pub fn leave_lines() {
    LEAVES.set(true);
}

/// Lines that may lie here until the log thread comes, twice a second at least.
const ROOM: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Diary {
    file: Mutex<RotatingFile>,
    left: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    lost: AtomicU64,
}

impl Diary {
    /// Into this file.
    pub fn new(file: RotatingFile) -> Self {
        Self { file: Mutex::new(file), left: bounded(ROOM), lost: AtomicU64::new(0) }
    }

    fn take(&self, text: Vec<u8>) {
        if !LEAVES.get() {
            return self.put(&text);
        }
        if self.left.0.try_send(text).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was left, then this.
    fn put(&self, text: &[u8]) {
        let now = Now { mono_ns: MonoNs::now().0, unix_ns: unix_ns() };
        // A line is written as a whole or not at all.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        for left in self.left.1.try_iter().take(ROOM) {
            file.write(&left, now);
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let time = format_rfc3339(now.unix_ns);
            file.write(format!("{time} WARN  {lost} lines of real-time threads were lost\n").as_bytes(), now);
        }
        if !text.is_empty() {
            file.write(text, now);
        }
    }
}

impl LogWriter for Diary {
    fn write(&self, now: &mut DeferredNow, record: &Record<'_>) -> io::Result<()> {
        let mut text = Vec::with_capacity(160);
        line(&mut text, now, record)?;
        text.push(b'\n');
        self.take(text);
        Ok(())
    }

    /// Writes what was left.
    fn flush(&self) -> io::Result<()> {
        if !LEAVES.get() {
            self.put(&[]);
        }
        Ok(())
    }
}

/// A line as it stands in the log.
pub fn line(out: &mut dyn io::Write, _: &mut DeferredNow, record: &Record<'_>) -> io::Result<()> {
    write!(out, "{} {:5} {}", format_rfc3339(unix_ns()), record.level(), record.args())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_must_not_wait_leaves_its_lines_in_order_and_is_never_held_up() {
        let dir = tempfile::tempdir().unwrap();
        let diary = Diary::new(RotatingFile::open(dir.path(), "multusd", 1 << 20, 2));
        let read = || std::fs::read_to_string(dir.path().join("multusd.log")).unwrap_or_default();
        diary.take(b"first\n".to_vec());
        // As if a disk did not answer.
        let stuck = diary.file.lock().unwrap();
        std::thread::scope(|scope| {
            let real_time = scope.spawn(|| {
                leave_lines();
                for n in 0..ROOM + 3 {
                    diary.take(format!("left {n}\n").into_bytes());
                }
                diary.flush().unwrap();
            });
            real_time.join().unwrap();
        });
        drop(stuck);
        assert_eq!(read(), "first\n");
        diary.flush().unwrap();
        diary.take(b"last\n".to_vec());
        let lines = read();
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!((lines[1], lines[ROOM], lines.len()), ("left 0", "left 255", ROOM + 3));
        assert!(lines[ROOM + 1].ends_with("WARN  3 lines of real-time threads were lost") && lines[ROOM + 2] == "last");
    }
}
