//! The heartbeat page: written by one process of one child instance, read by the core.
//!
//! ```text
//! word       bytes        what                                                            writer
//! 0          0..8         magic "MULTUSHB"                                                core, before the start
//! 1          8..16        layout version (u32), length in bytes (u32)                     core
//! 2          16..24       generation: the n-th process of this instance                   core
//! 3          24..32       number of lanes in this page (16)                               core
//! 4          32..40       deadline of lane 0, ns (0: none)                                core
//! 5..8                    reserved, 0
//! 8          64..72       1 = ready                                                       child
//! 9          72..80       number of lanes in use, 1..=16 (0 counts as 1)                  child
//! 10..128                 what it says in words, see `voice`                                 child
//! 128 + 16 l              lane l:                                                         the thread that owns it
//!   +0                      sequence: raised by one for each beat, after the time
//!   +1                      time of the last beat, CLOCK_MONOTONIC ns
//!   +2                      longest interval between two beats, ns
//!   +3                      1 = the lane has left supervision
//!   +4                      its own deadline, ns (0: that of word 4)
//!   +5..9                   name, UTF-8, at most 32 bytes
//!   +9                      marks made in its trace, see `trace`
//!   +10..16                 reserved, 0
//! 384 + 232 l             histogram of lane l: counts of intervals, see `histogram`       the thread that owns it
//! 4096..4608              checkpoints, see `checkpoint`
//! 4608 + 320 l            trace of lane l, see `trace`                                    the thread that owns it
//! 9728                    end: 76 KiB
//! ```
//! The watch thread maps the first 36 KiB (words 0..4608); the trace is only read after a fault.
//!
//! A beat is *time (relaxed), then sequence (release)*; a look is *sequence (acquire), then time*. So the time that
//! goes with a sequence is that beat's own or a later one's, never an earlier one's: a beat that was made in time is
//! never missed. A time without a new sequence is half a beat, and does not count.

use crate::MonoNs;
use crate::checkpoint::{self, Checkpoint};
use crate::histogram::{self, BUCKETS};
use crate::page::{Kind, Refused};
use crate::sync::{AtomicU64, Ordering};
use crate::text::Text;
use crate::trace::{self, Mark};
use crate::voice;

/// Identity and version of the layout above.
pub const KIND: Kind = Kind::new(b"MULTUSHB", 1);
/// Lanes in a page.
pub const LANES: usize = 16;
/// Words in a page.
pub const WORDS: usize = TRACES + LANES * trace::WORDS;
/// Words at its beginning that the core looks at while it watches.
pub const WATCHED_WORDS: usize = TRACES;
/// Bytes in a page.
pub const BYTES: usize = WORDS * 8;

const GENERATION: usize = 2;
const LANE_COUNT: usize = 3;
const DEADLINE: usize = 4;
const READY: usize = 8;
const LANES_IN_USE: usize = 9;
const VOICE: usize = 10;
const FIRST_LANE: usize = 128;
const LANE_WORDS: usize = 16;
const SEQUENCE: usize = 0;
const TIME: usize = 1;
const MAX_GAP: usize = 2;
const LEFT: usize = 3;
const LANE_DEADLINE: usize = 4;
const LANE_NAME: usize = 5;
const MARKS: usize = 9;
const HISTOGRAMS: usize = FIRST_LANE + LANES * LANE_WORDS;
/// First word of the checkpoints.
pub const CHECKPOINTS: usize = HISTOGRAMS + LANES * BUCKETS;
/// First word of the traces.
pub const TRACES: usize = CHECKPOINTS + checkpoint::WORDS;

const _: () = assert!(HISTOGRAMS == 384 && CHECKPOINTS == 4096 && TRACES == 4608 && WORDS == 9728);
const _: () = assert!(VOICE + voice::WORDS == FIRST_LANE);
const _: () = assert!((WATCHED_WORDS * 8).is_multiple_of(4096) && BYTES == 76 * 1024);

/// The words of a new page; everything that is not listed here is zero.
pub fn header(generation: u64, deadline_ns: u64) -> [u64; 5] {
    [KIND.magic, KIND.shape(WORDS), generation, LANES as u64, deadline_ns]
}

/// What one look at a lane found: an allegation, nothing of it is checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RawBeat {
    /// Number of beats so far, modulo 2^64.
    pub sequence: u64,
    /// When the last one was made.
    pub time: MonoNs,
}

/// The core's side of a page: reads, and believes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    page: &'a [AtomicU64],
}

impl<'a> Reader<'a> {
    /// Reads from the words of one page: all of them, or the first [`WATCHED_WORDS`].
    ///
    /// # Panics
    /// When there are fewer: an error of ours.
    pub fn new(page: &'a [AtomicU64]) -> Self {
        assert!(page.len() >= WATCHED_WORDS, "a heartbeat page has {WORDS} words");
        Self { page }
    }

    /// Whether the header still is what the core wrote.
    ///
    /// # Errors
    /// What was overwritten.
    pub fn validate(&self) -> Result<(), Refused> {
        KIND.validate(self.page[0].load(Ordering::Relaxed), self.page[1].load(Ordering::Relaxed), WORDS)
    }

    /// Whether the child said that it is ready.
    pub fn is_ready(&self) -> bool {
        // Pairs with the Release store in `PageWriter::ready`.
        self.page[READY].load(Ordering::Acquire) == 1
    }

    /// Lanes in use, 1 to [`LANES`] whatever the child wrote.
    pub fn lanes(&self) -> usize {
        // Pairs with the Release store in `PageWriter::open_lane`: a counted lane has its name.
        usize::try_from(self.page[LANES_IN_USE].load(Ordering::Acquire)).unwrap_or(LANES).clamp(1, LANES)
    }

    /// The last beat of a lane.
    ///
    /// # Real time
    /// Two loads.
    pub fn look(&self, lane: usize) -> RawBeat {
        // Pairs with the Release store in `LaneWriter::beat_at`: the time read next belongs to this beat or a later.
        let sequence = self.lane(lane)[SEQUENCE].load(Ordering::Acquire);
        let time = self.lane(lane)[TIME].load(Ordering::Relaxed);
        RawBeat { sequence, time: MonoNs(time) }
    }

    /// Whether the thread of this lane has left supervision in good order.
    pub fn has_left(&self, lane: usize) -> bool {
        self.lane(lane)[LEFT].load(Ordering::Relaxed) == 1
    }

    /// The lane's own deadline in ns, if it has one.
    pub fn lane_deadline_ns(&self, lane: usize) -> Option<u64> {
        Some(self.lane(lane)[LANE_DEADLINE].load(Ordering::Relaxed)).filter(|ns| *ns != 0)
    }

    /// The lane's name; empty for a lane without one.
    pub fn lane_name(&self, lane: usize) -> Text<4> {
        let mut words = [0; 4];
        for (i, word) in words.iter_mut().enumerate() {
            *word = self.lane(lane)[LANE_NAME + i].load(Ordering::Relaxed);
        }
        Text::from_words(words)
    }

    /// Longest interval between two beats so far, ns, as the child counted it.
    pub fn max_gap_ns(&self, lane: usize) -> u64 {
        self.lane(lane)[MAX_GAP].load(Ordering::Relaxed)
    }

    /// The count of one bucket of the lane's interval histogram, as the child counted it.
    pub fn bucket(&self, lane: usize, bucket: usize) -> u64 {
        self.page[HISTOGRAMS + lane * BUCKETS + bucket].load(Ordering::Relaxed)
    }

    /// The n-th process of its instance, as its page says.
    pub fn generation(&self) -> u64 {
        self.page[GENERATION].load(Ordering::Relaxed)
    }

    /// What it says in words.
    pub fn voice(&self) -> voice::Reader<'a> {
        voice::Reader::new(&self.page[VOICE..FIRST_LANE])
    }

    /// The checkpoints, as the child passed them.
    pub fn checkpoints(&self) -> checkpoint::Reader<'a> {
        checkpoint::Reader::new(&self.page[CHECKPOINTS..TRACES])
    }

    /// The trace of a lane; `None` when only the watched part of the page is here.
    pub fn trace(&self, lane: usize) -> Option<trace::Reader<'a>> {
        let words = self.page.get(TRACES + lane * trace::WORDS..)?.get(..trace::WORDS)?;
        // Pairs with the Release store in `trace::Writer::mark`: what is counted is written.
        Some(trace::Reader::new(words, self.lane(lane)[MARKS].load(Ordering::Acquire)))
    }

    fn lane(&self, lane: usize) -> &'a [AtomicU64] {
        &self.page[FIRST_LANE + lane * LANE_WORDS..][..LANE_WORDS]
    }
}

/// The child's side of a page. One per process; each lane is written by one thread.
#[derive(Clone, Copy, Debug)]
pub struct PageWriter<'a> {
    page: &'a [AtomicU64],
}

impl<'a> PageWriter<'a> {
    /// Takes a page that the core made.
    ///
    /// # Errors
    /// When it is no heartbeat page of this layout.
    pub fn new(page: &'a [AtomicU64]) -> Result<Self, Refused> {
        let word = |i: usize| page.get(i).map_or(0, |w| w.load(Ordering::Relaxed));
        KIND.validate(word(0), word(1), page.len())?;
        if page.len() != WORDS || word(LANE_COUNT) != LANES as u64 {
            return Err(Refused::Length { found: word(LANE_COUNT), mapped: page.len() as u64 * 8 });
        }
        Ok(Self { page })
    }

    /// A page that [`Self::new`] accepted before.
    #[cfg(not(loom))]
    pub(crate) fn trusted(page: &'a [AtomicU64]) -> Self {
        Self { page }
    }

    /// The n-th process of its instance; what the core wrote.
    pub fn generation(&self) -> u64 {
        self.page[GENERATION].load(Ordering::Relaxed)
    }

    /// What the child says in words. The caller sees to it that there is one writer at a time.
    pub fn voice(&self) -> voice::Writer<'a> {
        voice::Writer::new(&self.page[VOICE..FIRST_LANE])
    }

    /// The deadline of lane 0 in ns as configured; 0 for none.
    pub fn deadline_ns(&self) -> u64 {
        self.page[DEADLINE].load(Ordering::Relaxed)
    }

    /// Says that the child is ready.
    pub fn ready(&self) {
        // Pairs with the Acquire load in `Reader::is_ready`.
        self.page[READY].store(1, Ordering::Release);
    }

    /// The writer of a lane. The caller sees to it that each lane has one writer.
    pub fn lane(&self, lane: usize) -> LaneWriter<'a> {
        LaneWriter {
            lane: &self.page[FIRST_LANE + lane * LANE_WORDS..][..LANE_WORDS],
            histogram: &self.page[HISTOGRAMS + lane * BUCKETS..][..BUCKETS],
            trace: &self.page[TRACES + lane * trace::WORDS..][..trace::WORDS],
        }
    }

    /// The checkpoints, for the threads that own the lanes they belong to.
    pub fn checkpoints(&self) -> checkpoint::Writer<'a> {
        checkpoint::Writer::new(&self.page[CHECKPOINTS..TRACES])
    }

    /// The checkpoint `name` of a lane; `None` when the configuration has no such checkpoint there.
    pub fn find_checkpoint(&self, lane: usize, name: &str) -> Option<Checkpoint> {
        self.checkpoints().find(&self.section_name(lane)?, name)
    }

    /// The name under which the checkpoints of a lane are found. That of the main loop is empty; a further lane without a
    /// name has none, so that it is not taken for the main loop.
    fn section_name(&self, lane: usize) -> Option<Text<4>> {
        let name = Reader { page: self.page }.lane_name(lane);
        (lane == 0 || !name.is_empty()).then_some(name)
    }

    /// Takes a lane out of supervision, in good order: its thread ends.
    pub fn leave(&self, lane: usize) {
        if let Some(name) = self.section_name(lane) {
            self.checkpoints().leave(&name);
        }
        self.lane(lane).lane[LEFT].store(1, Ordering::Relaxed);
    }

    /// Names lane `lane` and puts it (and all before it) under supervision from `now` on.
    pub fn open_lane(&self, lane: usize, name: &str, deadline_ns: u64, now: MonoNs) -> LaneWriter<'a> {
        let writer = self.lane(lane);
        for (i, word) in Text::<4>::new(name).words().iter().enumerate() {
            writer.lane[LANE_NAME + i].store(*word, Ordering::Relaxed);
        }
        writer.lane[LANE_DEADLINE].store(deadline_ns, Ordering::Relaxed);
        if lane > 0 {
            writer.beat_at(now);
        }
        // Pairs with the Acquire load in `Reader::lanes`. Lanes are opened in order by whoever holds the page.
        self.page[LANES_IN_USE].store(lane as u64 + 1, Ordering::Release);
        writer
    }
}

/// Writes the beats of one lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneWriter<'a> {
    lane: &'a [AtomicU64],
    histogram: &'a [AtomicU64],
    trace: &'a [AtomicU64],
}

impl LaneWriter<'_> {
    /// One beat, made at `now`.
    ///
    /// # Real time
    /// Wait-free: six loads, eight stores. No allocation, no system call.
    #[inline]
    pub fn beat_at(&self, now: MonoNs) {
        let [seq, time, max_gap, ..] = self.lane else { return };
        let before = time.load(Ordering::Relaxed);
        time.store(now.0, Ordering::Relaxed);
        // Pairs with the Acquire load in `Reader::look`. Only this thread writes, so load + store is no lost update.
        seq.store(seq.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        let gap = if before == 0 { 0 } else { now.0.saturating_sub(before) };
        self.trace(now, Mark::Beat);
        trace::Writer::new(self.trace).pace(now, gap);
        if before != 0 {
            if gap > max_gap.load(Ordering::Relaxed) {
                max_gap.store(gap, Ordering::Relaxed);
            }
            let count = &self.histogram[histogram::bucket(gap)];
            count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Notes that a checkpoint was passed at `now`; [`checkpoint::Writer::pass`] judges it.
    pub fn trace_checkpoint(&self, checkpoint: Checkpoint, now: MonoNs) {
        self.trace(now, Mark::Checkpoint(checkpoint.index()));
    }

    #[inline]
    fn trace(&self, now: MonoNs, mark: Mark) {
        let marks = &self.lane[MARKS];
        let count = marks.load(Ordering::Relaxed);
        trace::Writer::new(self.trace).mark(count, now, mark);
        // Pairs with the Acquire load in `Reader::trace`.
        marks.store(count.wrapping_add(1), Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn page() -> Vec<AtomicU64> {
        let page: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        for (word, value) in page.iter().zip(header(3, 200)) {
            word.store(value, Ordering::Relaxed);
        }
        page
    }

    #[test]
    fn beats_are_seen_with_their_intervals() {
        let page = page();
        let (writer, reader) = (PageWriter::new(&page).unwrap(), Reader::new(&page));
        assert_eq!((writer.generation(), writer.deadline_ns(), reader.is_ready()), (3, 200, false));
        for ms in [10u64, 20, 35] {
            writer.lane(0).beat_at(MonoNs(ms * 1_000_000));
        }
        writer.ready();
        assert!(reader.is_ready());
        assert_eq!(reader.look(0), RawBeat { sequence: 3, time: MonoNs(35_000_000) });
        assert_eq!(reader.max_gap_ns(0), 15_000_000);
        assert_eq!(histogram::percentile(|b| reader.bucket(0, b), 1000, 15_000_000), Some(15_000_000));
        assert_eq!(reader.look(1), RawBeat::default());
    }

    #[test]
    fn lanes_have_names_and_own_deadlines() {
        let page = page();
        let (writer, reader) = (PageWriter::new(&page).unwrap(), Reader::new(&page));
        assert_eq!(reader.lanes(), 1);
        writer.open_lane(1, "poller", 5_000_000, MonoNs(7));
        assert_eq!(reader.lanes(), 2);
        assert_eq!(reader.lane_name(1).to_string(), "poller");
        assert_eq!(reader.lane_deadline_ns(1), Some(5_000_000));
        assert_eq!(reader.look(1).time, MonoNs(7));
        writer.leave(1);
        writer.open_lane(2, "", 0, MonoNs(8));
        assert_eq!(
            (writer.section_name(0), writer.section_name(2)),
            (Some(Text::EMPTY), None),
            "no lane is the main loop"
        );
        assert!(reader.has_left(1) && !reader.has_left(0));
    }

    #[test]
    fn a_scribbled_page_is_read_without_harm() {
        let page = page();
        let mut x = 88172645463325252u64;
        for word in &page {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            word.store(x, Ordering::Relaxed);
        }
        let reader = Reader::new(&page);
        assert!(reader.validate().is_err());
        assert!((1..=LANES).contains(&reader.lanes()));
        for lane in 0..LANES {
            let _ = (reader.look(lane), reader.lane_name(lane).to_string(), reader.max_gap_ns(lane));
            let _ = histogram::percentile(|b| reader.bucket(lane, b), 990, reader.max_gap_ns(lane));
        }
        assert!(PageWriter::new(&page).is_err());
    }
}
