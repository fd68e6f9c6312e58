//! The chips on a bus, on a thread of their own: a transfer may take a second when a bus hangs, and the scan must not know.
//!
//! What is read and what is to be written goes through one [`Cell`] for each line. A chip that does not answer is told once;
//! its lines are bad and keep the last good value, the other chips go on, and it is tried again, with growing pauses.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use multus_child::Lane;
use multus_hardware::chip::{Bus, Chip};
use multus_hardware::sys;
use multus_ipc::MonoNs;

/// One line on a bus, between the scan and the bus thread.
#[derive(Debug, Default)]
pub struct Cell {
    /// Raised by the bus thread after every change of the next four.
    updates: AtomicU64,
    raw: AtomicU64,
    value: AtomicU64,
    good: AtomicU64,
    /// Error number; 0 = good.
    error: AtomicU64,
    /// By the scan: the value that is wanted, and the number of this wish.
    wanted: AtomicU64,
    wish: AtomicU64,
    /// By the bus thread: the last wish that was carried out.
    done: AtomicU64,
}

/// What a bus thread found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Changes with every reading, good or bad.
    pub updates: u64,
    /// The number as the chip has it.
    pub raw: u64,
    /// The value.
    pub value: f64,
    /// When it was read or written without an error; zero: never.
    pub good: MonoNs,
    /// Error number, when the last transfer failed.
    pub error: Option<i32>,
}

impl Cell {
    /// The scan's look. Four words that may belong to two readings; each is that of one.
    pub fn look(&self) -> Found {
        // Pairs with the Release store in `update`.
        let updates = self.updates.load(Ordering::Acquire);
        Found {
            updates,
            raw: self.raw.load(Ordering::Relaxed),
            value: f64::from_bits(self.value.load(Ordering::Relaxed)),
            good: MonoNs(self.good.load(Ordering::Relaxed)),
            error: i32::try_from(self.error.load(Ordering::Relaxed)).ok().filter(|error| *error != 0),
        }
    }

    /// The scan's wish for an output. Wake the bus thread afterwards.
    pub fn want(&self, value: f64) {
        self.wanted.store(value.to_bits(), Ordering::Relaxed);
        // Pairs with the Acquire load in `open_wish`.
        self.wish.store(self.wish.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Whether the last wish was carried out.
    pub fn is_done(&self) -> bool {
        // Pairs with the Release store in `Serving::write`.
        self.done.load(Ordering::Acquire) == self.wish.load(Ordering::Relaxed)
    }

    fn open_wish(&self) -> Option<u64> {
        let wish = self.wish.load(Ordering::Acquire);
        (wish != self.done.load(Ordering::Relaxed)).then_some(wish)
    }

    fn update(&self, now: MonoNs, result: Result<(u64, f64), i32>) {
        match result {
            Ok((raw, value)) => {
                self.raw.store(raw, Ordering::Relaxed);
                self.value.store(value.to_bits(), Ordering::Relaxed);
                self.good.store(now.0, Ordering::Relaxed);
                self.error.store(0, Ordering::Relaxed);
            }
            Err(number) => self.error.store(number.unsigned_abs().into(), Ordering::Relaxed),
        }
        self.updates.store(self.updates.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}

/// A bus thread. It ends when this is dropped.
#[derive(Debug)]
pub struct BusThread {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    /// Numbers of the lines that it serves.
    lines: Vec<usize>,
    /// When the transfer began that is under way; 0 = none is.
    busy_since: Arc<AtomicU64>,
}

impl BusThread {
    /// Serves the chips from now on; outputs first get what their cells want already. `cells` has one for each line.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start(bus: Bus, chips: Vec<Chip>, cells: Arc<[Cell]>, lane: Lane, priority: u8) -> io::Result<Self> {
        let (stop, busy_since) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_over, busy) = (Arc::clone(&stop), Arc::clone(&busy_since));
        let lines = chips.iter().flat_map(Chip::lines).map(|(line, _)| line).collect();
        let thread = thread::Builder::new().name(bus.name().into()).stack_size(STACK).spawn(move || {
            if priority > 0 {
                // Refused as for the scan, which says so.
                let _ = sys::be_real_time(priority);
            }
            let mut serving: Vec<Serving> = chips.into_iter().map(Serving::new).collect();
            let mut bus = bus;
            let mut timed = |act: &mut dyn FnMut(&mut Bus)| {
                busy.store(MonoNs::now().0, Ordering::Relaxed);
                act(&mut bus);
                busy.store(0, Ordering::Relaxed);
                // A round over chips that all hang would be far too long for one beat.
                lane.beat();
            };
            while !is_over.load(Ordering::Relaxed) {
                for chip in 0..serving.len() {
                    // An output that is wanted waits for one reading at most.
                    for chip in &mut serving {
                        chip.write_due(&cells, &mut timed);
                    }
                    serving[chip].read_due(&cells, &mut timed);
                }
                let now = MonoNs::now();
                lane.beat();
                let next = serving.iter().map(Serving::next).fold(now.after(LONGEST_PAUSE), MonoNs::min);
                thread::park_timeout(next.since(now));
            }
        })?;
        Ok(Self { stop, thread, lines, busy_since })
    }

    /// Whether it serves this line.
    pub fn serves(&self, line: usize) -> bool {
        self.lines.contains(&line)
    }

    /// Whether a transfer takes far too long: a bus that is stuck, or a chip that holds it.
    pub fn hangs(&self, now: MonoNs) -> bool {
        let since = self.busy_since.load(Ordering::Relaxed);
        since != 0 && now.since(MonoNs(since)) >= HANGS
    }

    /// There is a new wish.
    pub fn wake(&self) {
        self.thread.thread().unpark();
    }
}

impl Drop for BusThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake();
        // Not joined: a transfer that hangs must not hold up the end.
    }
}

struct Serving {
    chip: Chip,
    next_read: MonoNs,
    /// When outputs are written again without a wish: a chip that had no power for a moment has forgotten them.
    next_write: MonoNs,
    /// `None` while it answers.
    failing: Option<Failing>,
    /// The sum of all wishes as of the last try: a new one is tried at once.
    tried: u64,
}

/// Does something on the bus that may take long.
type Timed<'a> = dyn FnMut(&mut dyn FnMut(&mut Bus)) + 'a;

#[derive(Clone, Copy)]
struct Failing {
    pause: Duration,
    retry: MonoNs,
}

impl Serving {
    fn new(chip: Chip) -> Self {
        Self { chip, next_read: MonoNs(0), next_write: MonoNs(0), failing: None, tried: 0 }
    }

    /// Writes the outputs if they are wanted, or are to be written again.
    fn write_due(&mut self, cells: &[Cell], timed: &mut Timed<'_>) {
        if !self.chip.has_outputs() {
            return;
        }
        let now = MonoNs::now();
        let outputs = || self.chip.lines().filter(|(_, is_output)| *is_output).map(|(line, _)| &cells[line]);
        let wishes = outputs().fold(0_u64, |sum, cell| sum.wrapping_add(cell.wish.load(Ordering::Relaxed)));
        let may_try = self.failing.is_none_or(|failing| now >= failing.retry);
        let is_wanted = now >= self.next_write || outputs().any(|cell| cell.open_wish().is_some());
        if is_wanted && (may_try || wishes != self.tried) {
            self.tried = wishes;
            self.next_write = now.after(REFRESH);
            timed(&mut |bus| {
                let result = self.write(bus, cells);
                self.judge(result, cells);
            });
        }
    }

    /// Reads the inputs if it is time.
    fn read_due(&mut self, cells: &[Cell], timed: &mut Timed<'_>) {
        let now = MonoNs::now();
        let due = self.failing.map_or(self.next_read, |failing| failing.retry);
        if !self.chip.has_inputs() || now < due {
            return;
        }
        // An absolute rhythm, unless it was lost.
        let next = self.next_read.after(self.chip.period);
        self.next_read = if next > now { next } else { now.after(self.chip.period) };
        timed(&mut |bus| {
            let result = self.chip.read(bus, |line, raw, value| cells[line].update(MonoNs::now(), Ok((raw, value))));
            self.judge(result, cells);
        });
    }

    /// When there is something to do without a wish.
    fn next(&self) -> MonoNs {
        let read = if self.chip.has_inputs() { self.next_read } else { MonoNs::NEVER };
        let write = if self.chip.has_outputs() { self.next_write } else { MonoNs::NEVER };
        self.failing.map_or(read.min(write), |failing| failing.retry)
    }

    fn write(&self, bus: &mut Bus, cells: &[Cell]) -> io::Result<()> {
        let mut wishes = [(0, 0); MOST_OUTPUTS];
        let mut count = 0;
        for (slot, (line, _)) in wishes.iter_mut().zip(self.chip.lines().filter(|(_, is_output)| *is_output)) {
            // Before the values: what is written belongs to this wish or to a later one.
            *slot = (line, cells[line].wish.load(Ordering::Acquire));
            count += 1;
        }
        self.chip.write(bus, |line| f64::from_bits(cells[line].wanted.load(Ordering::Relaxed)))?;
        let now = MonoNs::now();
        for (line, wish) in wishes.iter().take(count) {
            let cell = &cells[*line];
            let value = f64::from_bits(cell.wanted.load(Ordering::Relaxed));
            cell.update(now, Ok((value.to_bits(), value)));
            // Pairs with the Acquire load in `Cell::is_done`.
            cell.done.store(*wish, Ordering::Release);
        }
        Ok(())
    }

    fn judge(&mut self, result: io::Result<()>, cells: &[Cell]) {
        let now = MonoNs::now();
        match result {
            Ok(()) => {
                if self.failing.take().is_some() {
                    log::info!("{} answers again", self.chip);
                }
            }
            Err(error) => {
                for (line, _) in self.chip.lines() {
                    // Whatever an output has now, it is written again when the chip answers. Wishes begin at 1.
                    cells[line].done.store(0, Ordering::Release);
                    cells[line].update(now, Err(error.raw_os_error().unwrap_or(EIO)));
                }
                if self.failing.is_none() {
                    log::error!("{} does not answer: {error}; its lines are bad, it is tried again", self.chip);
                }
                let pause = self.failing.map_or(FIRST_PAUSE, |failing| (failing.pause * 2).min(LONGEST_PAUSE));
                self.failing = Some(Failing { pause, retry: now.after(pause) });
            }
        }
    }
}

/// A transfer of some bytes takes a tenth of this on the slowest bus that is in use; far below the time in which forced outputs
/// are to be in force.
const HANGS: Duration = Duration::from_millis(3);
/// From writing to writing of outputs that do not change.
const REFRESH: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// An expander has eight.
const MOST_OUTPUTS: usize = 8;
const EIO: i32 = 5;
const STACK: usize = 256 << 10;
