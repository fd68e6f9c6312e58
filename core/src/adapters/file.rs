//! Beats by touching a file: a change of its time stamp is a beat, as with the control file of the original multusd.
//!
//! A thread of its own looks, because a look at a file may block (a disk that hangs, a network file system), and nobody
//! else may wait for that. It starts when the first child beats in this way. When it is stuck, these children are
//! silent, which is found as every silence; nobody else notices.
//!
//! File systems stamp with the kernel's tick (1 to 10 ms): several touches within one tick look like one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use multus_ipc::MonoNs;

use crate::sys;
use crate::wake::Wake;

/// What a look at a file shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Device and inode: another file in its place is a change, too.
    pub file: (u64, u64),
    /// Time of the last change, seconds and nanoseconds.
    pub changed: (i64, i64),
}

/// Tells beats from looks. Pure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touches {
    last: Option<Stamp>,
}

impl Touches {
    /// What is there before the process is no beat of it.
    pub fn since(first: Option<Stamp>) -> Self {
        Self { last: first }
    }

    /// Takes a look (`None`: there is no such file); true when the file was touched since the last one.
    pub fn look(&mut self, now: Option<Stamp>) -> bool {
        let touched = now.is_some() && now != self.last;
        self.last = now;
        touched
    }
}

/// A file was touched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touched {
    pub(super) slot: usize,
    pub(super) generation: u32,
}

enum Order {
    Look { slot: usize, generation: u32, path: PathBuf, often: Duration },
    Leave { slot: usize },
}

/// The thread that looks, as seen from outside.
pub(super) struct Looker {
    orders: Sender<Order>,
    touched: Receiver<Touched>,
}

/// Touches that wait to be taken; those that find no room are found again by the next look.
const WAITING: usize = 1024;

impl Looker {
    /// Starts the thread. It ends when this is dropped.
    pub(super) fn start(wake: Arc<Wake>, priority: Option<u8>) -> io::Result<Self> {
        // Few and small: one order for each start of a child.
        let (orders, orders_in) = unbounded();
        let (touches, touched) = bounded(WAITING);
        let body = move || {
            if let Some(priority) = priority {
                let _ = sys::set_scheduler(libc::SCHED_FIFO, priority, true);
            }
            look_for_ever(&orders_in, &touches, &wake);
        };
        std::thread::Builder::new().name("multus-files".into()).stack_size(crate::daemon::STACK).spawn(body)?;
        Ok(Self { orders, touched })
    }

    /// Looks at this file from now on; every change is a touch of this generation.
    pub(super) fn look(&self, slot: usize, generation: u32, path: &Path, often: Duration) {
        let _ = self.orders.send(Order::Look { slot, generation, path: path.to_path_buf(), often });
    }

    pub(super) fn leave(&self, slot: usize) {
        let _ = self.orders.send(Order::Leave { slot });
    }

    /// The next touch.
    pub(super) fn touched(&self) -> Option<Touched> {
        self.touched.try_recv().ok()
    }
}

struct Watched {
    generation: u32,
    path: PathBuf,
    often: Duration,
    touches: Touches,
    next: MonoNs,
}

/// Without a file there is nothing to do but to wait for orders.
const NOTHING: Duration = Duration::from_secs(3600);

fn look_for_ever(orders: &Receiver<Order>, touches: &Sender<Touched>, wake: &Wake) {
    let mut files: BTreeMap<usize, Watched> = BTreeMap::new();
    loop {
        let now = MonoNs::now();
        let next = files.values().map(|f| f.next.since(now)).min().unwrap_or(NOTHING);
        match orders.recv_timeout(next) {
            Ok(Order::Look { slot, generation, path, often }) => {
                let touches = Touches::since(stamp(&path));
                let next = MonoNs::now().after(often);
                files.insert(slot, Watched { generation, path, often, touches, next });
            }
            Ok(Order::Leave { slot }) => drop(files.remove(&slot)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = MonoNs::now();
        let mut any = false;
        for (slot, file) in files.iter_mut().filter(|(_, f)| f.next <= now) {
            let mut after = file.touches;
            let is_touched = after.look(stamp(&file.path));
            if !is_touched || touches.try_send(Touched { slot: *slot, generation: file.generation }).is_ok() {
                file.touches = after;
            }
            any |= is_touched;
            file.next = now.after(file.often);
        }
        if any {
            wake.wake();
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let data = fs::metadata(path).ok()?;
    Some(Stamp { file: (data.dev(), data.ino()), changed: (data.mtime(), data.mtime_nsec()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_a_touch_and_nothing_else() {
        let at = |inode, s| Some(Stamp { file: (1, inode), changed: (s, 0) });
        let mut touches = Touches::since(None);
        for (look, touched) in [
            (None, false),
            (at(1, 5), true),
            (at(1, 5), false),
            (at(1, 6), true),
            (at(1, 4), true),
            (None, false),
            (at(1, 4), true),
            (at(2, 4), true),
            (at(2, 4), false),
        ] {
            assert_eq!(touches.look(look), touched, "{look:?}");
        }
        assert!(!Touches::since(at(1, 5)).look(at(1, 5)), "what was there before does not count");
    }

    #[test]
    fn the_thread_tells_of_touches_of_the_file_it_was_given_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("beat");
        fs::write(&path, "").unwrap();
        let looker = Looker::start(Arc::new(Wake::new().unwrap()), None).unwrap();
        looker.look(3, 7, &path, Duration::from_millis(1));
        let mut n = 0;
        let touched = loop {
            // Its first look may come late, so it is touched again and again.
            n += 1;
            fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(std::time::UNIX_EPOCH + Duration::from_secs(n))
                .unwrap();
            if let Some(touched) = looker.touched() {
                break touched;
            }
            std::thread::yield_now();
        };
        assert_eq!((touched.slot, touched.generation), (3, 7));
        looker.leave(3);
    }
}
