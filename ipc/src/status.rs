//! The status page: what the core knows about itself and each child instance. One writer (the watch thread), any
//! number of readers who map it read-only.
//!
//! ```text
//! word          bytes      what
//! 0             0..8       magic "MULTUSST"
//! 1             8..16      layout version (u32), length in bytes (u32)
//! 2             16..24     number of slots
//! 3             24..32     process id of the daemon
//! 4..16                    reserved, 0
//! 16            128..640   the daemon: a sequence-locked record (see `seqlock`), 63 words of data
//! 80 + 64 s                slot s: a sequence-locked record, 63 words of data; name empty = slot free
//! ```
//! The data words of a record are listed at [`SlotRecord::to_words`] and [`DaemonRecord::to_words`]. Times with
//! `mono` are CLOCK_MONOTONIC ns, with `unix` ns since 1970; 0 is "none".

use crate::page::{Kind, Refused};
use crate::seqlock::{self, Torn};
use crate::sync::{AtomicU64, Ordering};
use crate::text::{Name, Text};
use crate::words::{FaultKind, StateCode};

/// Identity and version of the layout above.
pub const KIND: Kind = Kind::new(b"MULTUSST", 1);
/// Words of one record without its sequence.
pub const RECORD: usize = 63;
const HEADER: usize = 16;
const STRIDE: usize = RECORD + 1;

/// Words of a page with `slots` slots.
pub const fn words(slots: usize) -> usize {
    HEADER + STRIDE * (slots + 1)
}

/// The times of one fault, CLOCK_MONOTONIC ns, as far as they happened (0: not).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FaultTimes {
    /// The last beat before the fault.
    pub last_beat: u64,
    /// When the deadline was.
    pub deadline: u64,
    /// When the fault was seen.
    pub detected: u64,
    /// When the outputs were forced safe in the force page.
    pub safe: u64,
    /// When SIGKILL was sent to the whole tree.
    pub killed: u64,
    /// When the last process of the tree was gone.
    pub reaped: u64,
    /// When the next process was made.
    pub spawned: u64,
    /// When the next process was ready.
    pub ready: u64,
}

impl FaultTimes {
    /// Nothing happened.
    pub const NONE: Self =
        Self { last_beat: 0, deadline: 0, detected: 0, safe: 0, killed: 0, reaped: 0, spawned: 0, ready: 0 };

    /// In the order of the fields.
    pub fn to_words(self) -> [u64; 8] {
        [self.last_beat, self.deadline, self.detected, self.safe, self.killed, self.reaped, self.spawned, self.ready]
    }

    /// The reverse of [`Self::to_words`].
    pub fn from_words(w: [u64; 8]) -> Self {
        let [last_beat, deadline, detected, safe, killed, reaped, spawned, ready] = w;
        Self { last_beat, deadline, detected, safe, killed, reaped, spawned, ready }
    }
}

/// Flags of a slot.
pub mod flag {
    /// The child's outputs are forced to their safe values.
    pub const SAFE_STATE: u64 = 1;
    /// The child keeps failing.
    pub const DEGRADED: u64 = 2;
    /// Faults are reported, nobody is killed.
    pub const SNOOZED: u64 = 4;
    /// `enabled` in the configuration.
    pub const ENABLED: u64 = 8;
}

/// One slot: a child instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRecord {
    /// Name of the instance; empty for a free slot.
    pub name: Name,
    /// Number of the instance.
    pub instance: u32,
    /// The n-th process of this slot.
    pub generation: u32,
    /// Process id; 0 without a process.
    pub pid: u32,
    /// What it is doing.
    pub state: StateCode,
    /// See [`flag`].
    pub flags: u64,
    /// When the state was entered.
    pub since_mono: u64,
    /// Processes made after the first.
    pub restarts: u64,
    /// Deadline of lane 0; 0 when beats are not watched.
    pub deadline_ns: u64,
    /// Last beat of lane 0 as of the last look.
    pub last_beat_mono: u64,
    /// Beats of this process as of the last look.
    pub beats: u64,
    /// Interval between beats: median, 99th percentile, maximum; ns; 0 before the second beat.
    pub interval_ns: [u64; 3],
    /// End of the snooze; 0 without.
    pub snooze_until_mono: u64,
    /// When the next process starts; 0 when none is waited for.
    pub restart_at_mono: u64,
    /// Why it is blocked: 0 not, 1 temperature, 2 + slot: that child.
    pub blocked_by: u64,
    /// Faults so far.
    pub faults: u64,
    /// The last fault.
    pub fault: Option<FaultKind>,
    /// What belongs to that kind, see `docs/abi.md`.
    pub fault_args: [u64; 4],
    /// Wall time of its detection.
    pub fault_unix: u64,
    /// Its times.
    pub fault_times: FaultTimes,
    /// One sentence of evidence; empty before it is there.
    pub evidence: Text<20>,
    /// What the fault is about: the name of the lane (empty for the first, or without a name), or the two checkpoints.
    pub fault_about: Text<8>,
}

impl SlotRecord {
    /// A free slot.
    pub const FREE: Self = Self {
        name: Name::EMPTY,
        instance: 0,
        generation: 0,
        pid: 0,
        state: StateCode::Disabled,
        flags: 0,
        since_mono: 0,
        restarts: 0,
        deadline_ns: 0,
        last_beat_mono: 0,
        beats: 0,
        interval_ns: [0; 3],
        snooze_until_mono: 0,
        restart_at_mono: 0,
        blocked_by: 0,
        faults: 0,
        fault: None,
        fault_args: [0; 4],
        fault_unix: 0,
        fault_times: FaultTimes::NONE,
        evidence: Text::EMPTY,
        fault_about: Text::EMPTY,
    };

    /// The data words: 0..6 name, 6 instance | generation, 7 pid | state, 8 flags, 9 since, 10 restarts, 11 deadline,
    /// 12 last beat, 13 beats, 14..17 interval, 17 snooze, 18 restart at, 19 blocked by, 20 faults, 21 fault kind,
    /// 22..26 its arguments, 26 its wall time, 27..35 its times, 35..55 evidence, 55..63 what it is about (the lane, or two checkpoints).
    pub fn to_words(&self) -> [u64; RECORD] {
        let mut w = [0; RECORD];
        w[..6].copy_from_slice(self.name.words());
        w[6] = u64::from(self.instance) | u64::from(self.generation) << 32;
        w[7] = u64::from(self.pid) | u64::from(self.state.code()) << 32;
        w[8] = self.flags;
        w[9] = self.since_mono;
        w[10] = self.restarts;
        w[11] = self.deadline_ns;
        w[12] = self.last_beat_mono;
        w[13] = self.beats;
        w[14..17].copy_from_slice(&self.interval_ns);
        w[17] = self.snooze_until_mono;
        w[18] = self.restart_at_mono;
        w[19] = self.blocked_by;
        w[20] = self.faults;
        w[21] = self.fault.map_or(0, |f| u64::from(f.code()));
        w[22..26].copy_from_slice(&self.fault_args);
        w[26] = self.fault_unix;
        w[27..35].copy_from_slice(&self.fault_times.to_words());
        w[35..55].copy_from_slice(self.evidence.words());
        w[55..63].copy_from_slice(self.fault_about.words());
        w
    }

    /// The reverse of [`Self::to_words`]; a state that this version does not know shows as `stopped`.
    pub fn from_words(w: &[u64; RECORD]) -> Self {
        Self {
            name: Name::from_words(part(w, 0)),
            instance: low(w[6]),
            generation: high(w[6]),
            pid: low(w[7]),
            state: StateCode::from_code(byte(w[7] >> 32)).unwrap_or(StateCode::Stopped),
            flags: w[8],
            since_mono: w[9],
            restarts: w[10],
            deadline_ns: w[11],
            last_beat_mono: w[12],
            beats: w[13],
            interval_ns: part(w, 14),
            snooze_until_mono: w[17],
            restart_at_mono: w[18],
            blocked_by: w[19],
            faults: w[20],
            fault: FaultKind::from_code(byte(w[21])),
            fault_args: part(w, 22),
            fault_unix: w[26],
            fault_times: FaultTimes::from_words(part(w, 27)),
            evidence: Text::from_words(part(w, 35)),
            fault_about: Text::from_words(part(w, 55)),
        }
    }
}

/// The daemon itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DaemonRecord {
    /// Start of the watch loop.
    pub started_mono: u64,
    /// SCHED_FIFO priority of the watch thread; 0 without real-time rights.
    pub priority: u8,
    /// Whether all memory is locked.
    pub locked: bool,
    /// Whether the temperature stops all children.
    pub too_hot: bool,
    /// Whether the daemon is shutting down.
    pub stopping: bool,
    /// Processor temperature in thousandths of a degree Celsius, offset by 2^31; 0 when not read.
    pub temperature: u64,
    /// Wake-ups of the watch loop.
    pub wakeups: u64,
    /// How late the loop woke for a deadline: median, 99th percentile, maximum; ns.
    pub lateness_ns: [u64; 3],
    /// Page faults of the watch thread since it was armed: 0, unless memory could not be locked.
    pub page_faults: u64,
    /// Events so far; the next has this number.
    pub next_event: u64,
    /// Events that could not be handed to a helper because its queue was full.
    pub queue_overflows: u64,
    /// Bit n: helper thread n is stuck.
    pub stuck_helpers: u64,
    /// Time of this record.
    pub updated_mono: u64,
}

impl DaemonRecord {
    /// The data words: 0 started, 1 priority | locked | too hot | stopping (a byte each), 2 temperature, 3 wake-ups,
    /// 4..7 lateness, 7 page faults, 8 next event, 9 queue overflows, 10 stuck helpers, 11 updated, the rest reserved.
    pub fn to_words(self) -> [u64; RECORD] {
        let mut w = [0; RECORD];
        w[0] = self.started_mono;
        w[1] = u64::from(self.priority)
            | u64::from(self.locked) << 8
            | u64::from(self.too_hot) << 16
            | u64::from(self.stopping) << 24;
        w[2] = self.temperature;
        w[3] = self.wakeups;
        w[4..7].copy_from_slice(&self.lateness_ns);
        w[7] = self.page_faults;
        w[8] = self.next_event;
        w[9] = self.queue_overflows;
        w[10] = self.stuck_helpers;
        w[11] = self.updated_mono;
        w
    }

    /// The reverse of [`Self::to_words`].
    pub fn from_words(w: &[u64; RECORD]) -> Self {
        Self {
            started_mono: w[0],
            priority: byte(w[1]),
            locked: w[1] >> 8 & 1 == 1,
            too_hot: w[1] >> 16 & 1 == 1,
            stopping: w[1] >> 24 & 1 == 1,
            temperature: w[2],
            wakeups: w[3],
            lateness_ns: part(w, 4),
            page_faults: w[7],
            next_event: w[8],
            queue_overflows: w[9],
            stuck_helpers: w[10],
            updated_mono: w[11],
        }
    }
}

/// The one writer of a status page.
#[derive(Debug)]
pub struct Writer<'a> {
    page: &'a [AtomicU64],
}

impl<'a> Writer<'a> {
    /// Lays out an empty page.
    ///
    /// # Panics
    /// When the page has not [`words`]`(n)` words for some n ≥ 0: an error of ours.
    pub fn new(page: &'a [AtomicU64], pid: u32) -> Self {
        let slots = slots_of(page.len()).expect("a status page is made with words(slots) words");
        for (i, value) in [KIND.magic, KIND.shape(page.len()), slots as u64, u64::from(pid)].into_iter().enumerate() {
            page[i].store(value, Ordering::Relaxed);
        }
        Self { page }
    }

    /// # Real time
    /// 65 stores.
    pub fn daemon(&self, record: &DaemonRecord) {
        seqlock::write(&self.page[HEADER..][..STRIDE], &record.to_words());
    }

    /// Writes slot `slot`.
    ///
    /// # Real time
    /// 65 stores.
    pub fn slot(&self, slot: usize, record: &SlotRecord) {
        seqlock::write(&self.page[HEADER + STRIDE * (slot + 1)..][..STRIDE], &record.to_words());
    }
}

/// A reader of a status page, in the daemon or in any process that mapped it.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    page: &'a [AtomicU64],
}

impl<'a> Reader<'a> {
    /// Takes a mapped page.
    ///
    /// # Errors
    /// When it is no status page of this layout.
    pub fn new(page: &'a [AtomicU64]) -> Result<Self, Refused> {
        let word = |i: usize| page.get(i).map_or(0, |w| w.load(Ordering::Relaxed));
        KIND.validate(word(0), word(1), page.len())?;
        match slots_of(page.len()) {
            Some(slots) if word(2) == slots as u64 => Ok(Self { page }),
            _ => Err(Refused::Length { found: word(2), mapped: page.len() as u64 * 8 }),
        }
    }

    /// Number of slots, free ones included.
    pub fn slots(&self) -> usize {
        slots_of(self.page.len()).unwrap_or(0)
    }

    /// Process id of the daemon that writes.
    pub fn pid(&self) -> u32 {
        low(self.page[3].load(Ordering::Relaxed))
    }

    /// The daemon's record.
    ///
    /// # Errors
    /// [`Torn`] when the writer stopped inside a write.
    pub fn daemon(&self) -> Result<DaemonRecord, Torn> {
        let mut w = [0; RECORD];
        seqlock::read(&self.page[HEADER..][..STRIDE], &mut w)?;
        Ok(DaemonRecord::from_words(&w))
    }

    /// Slot `slot`; `None` when it is free or beyond the end.
    ///
    /// # Errors
    /// [`Torn`] when the writer stopped inside a write.
    pub fn slot(&self, slot: usize) -> Result<Option<SlotRecord>, Torn> {
        if slot >= self.slots() {
            return Ok(None);
        }
        let mut w = [0; RECORD];
        seqlock::read(&self.page[HEADER + STRIDE * (slot + 1)..][..STRIDE], &mut w)?;
        Ok(Some(SlotRecord::from_words(&w)).filter(|r| !r.name.is_empty()))
    }
}

fn slots_of(words: usize) -> Option<usize> {
    let records = words.checked_sub(HEADER)?;
    if records % STRIDE != 0 { None } else { (records / STRIDE).checked_sub(1) }
}

fn part<const N: usize>(w: &[u64; RECORD], at: usize) -> [u64; N] {
    core::array::from_fn(|i| w[at + i])
}

fn low(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

fn byte(word: u64) -> u8 {
    (word & 0xff) as u8
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn records_come_back() {
        let page: Vec<AtomicU64> = (0..words(2)).map(|_| AtomicU64::new(0)).collect();
        assert!(Reader::new(&page).is_err());
        let writer = Writer::new(&page, 42);
        let reader = Reader::new(&page).unwrap();
        assert_eq!((reader.slots(), reader.pid(), reader.slot(1), reader.slot(9)), (2, 42, Ok(None), Ok(None)));
        let slot = SlotRecord {
            name: Name::new("modbus_1"),
            instance: 1,
            generation: 7,
            pid: 4711,
            state: StateCode::Backoff,
            flags: flag::SAFE_STATE | flag::ENABLED,
            interval_ns: [1, 2, 3],
            fault: Some(FaultKind::Hang),
            fault_args: [4, 5, 6, 7],
            fault_times: FaultTimes { detected: 9, ..FaultTimes::default() },
            evidence: Text::new("waiting in futex_wait"),
            fault_about: Text::new("poller"),
            ..SlotRecord::FREE
        };
        writer.slot(1, &slot);
        assert_eq!(reader.slot(1), Ok(Some(slot)));
        let daemon = DaemonRecord { priority: 50, locked: true, lateness_ns: [1, 2, 3], ..DaemonRecord::default() };
        writer.daemon(&daemon);
        assert_eq!(reader.daemon(), Ok(daemon));
    }
}
