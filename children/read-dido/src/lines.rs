//! The thread that waits for changes of the process image: it sleeps until something changes, and hands what is to be sent over
//! at once. Whoever waits for outputs to get there is told, too.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use multus_child::lines::Point;
use multus_ipc::io_child::Io;
use tokio::sync::watch;

use crate::config::Line;
use crate::logic::debounce::Seen;
use crate::logic::mapping::{Levels, Mapping};

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    /// What is to be sent.
    pub(crate) levels: watch::Receiver<Levels>,
    /// Rises with every change of the image.
    pub(crate) changes: watch::Receiver<u64>,
    /// Rises as long as the thread goes on.
    pub(crate) turns: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
}

impl Watch {
    /// Starts it.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(io: &Io, lines: &[Line]) -> io::Result<Self> {
        let (turns, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (changes_out, changes) = watch::channel(0);
        let points: Vec<Point> = lines.iter().map(|line| Point::new(io, &line.local)).collect();
        let mut looker = Looker { points, mapping: Mapping::new(lines), started: Instant::now() };
        let (levels_out, levels) = watch::channel(looker.look());
        let (io, turn, is_over) = (io.clone(), Arc::clone(&turns), Arc::clone(&end));
        std::thread::Builder::new().name("lines".into()).spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                turn.fetch_add(1, Ordering::Relaxed);
                // What changes after this ends the wait below at once.
                let seen = io.changes();
                let levels = looker.look();
                levels_out.send_if_modified(|last| {
                    let is_new = *last != levels;
                    *last = levels;
                    is_new
                });
                changes_out.send_replace(seen);
                io.wait_change(seen, looker.pause());
            }
        })?;
        Ok(Self { levels, changes, turns, end })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It sees it within a turn; nobody needs to wait for that.
        self.end.store(true, Ordering::Relaxed);
    }
}

struct Looker {
    points: Vec<Point>,
    mapping: Mapping,
    started: Instant,
}

impl Looker {
    fn look(&mut self) -> Levels {
        let points = &self.points;
        let seen = |index: usize| match points[index].read() {
            Some(reading) => Seen { on: reading.is_good.then_some(reading.value != 0.0), changes: reading.changes },
            None => Seen { on: None, changes: 0 },
        };
        self.mapping.look(seen, self.started.elapsed())
    }

    fn pause(&self) -> Duration {
        let due = self.mapping.due().map(|due| due.saturating_sub(self.started.elapsed()));
        due.map_or(TURN, |due| due.min(TURN))
    }
}

/// From look to look at most: a multus-io that is gone changes nothing.
const TURN: Duration = Duration::from_millis(100);
