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
//! 10..128                 reserved, 0
//! 128 + 16 l              lane l:                                                         the thread that owns it
//!   +0                      sequence: raised by one for each beat, after the time
//!   +1                      time of the last beat, CLOCK_MONOTONIC ns
//!   +2                      longest interval between two beats, ns
//!   +3                      1 = the lane has left supervision
//!   +4                      its own deadline, ns (0: that of word 4)
//!   +5..9                   name, UTF-8, at most 32 bytes
//!   +9..16                  reserved, 0
//! 384 + 232 l             histogram of lane l: counts of intervals, see `histogram`       the thread that owns it
//! 4096                    end: 32 KiB
//! ```
//! A beat is *time (relaxed), then sequence (release)*; a look is *sequence (acquire), then time*. So the time that
//! goes with a sequence is that beat's own or a later one's, never an earlier one's: a beat that was made in time is
//! never missed. A time without a new sequence is half a beat, and does not count.

use crate::MonoNs;
use crate::histogram::{self, BUCKETS};
use crate::page::{Kind, Refused};
use crate::sync::{AtomicU64, Ordering};
use crate::text::Text;

/// Identity and version of the layout above.
pub const KIND: Kind = Kind::new(b"MULTUSHB", 1);
/// Lanes in a page.
pub const LANES: usize = 16;
/// Words in a page.
pub const WORDS: usize = HISTOGRAMS + LANES * BUCKETS;
/// Bytes in a page.
pub const BYTES: usize = WORDS * 8;

const GENERATION: usize = 2;
const LANE_COUNT: usize = 3;
const DEADLINE: usize = 4;
const READY: usize = 8;
const LANES_IN_USE: usize = 9;
const FIRST_LANE: usize = 128;
const LANE_WORDS: usize = 16;
const SEQUENCE: usize = 0;
const TIME: usize = 1;
const MAX_GAP: usize = 2;
const LEFT: usize = 3;
const LANE_DEADLINE: usize = 4;
const LANE_NAME: usize = 5;
const HISTOGRAMS: usize = FIRST_LANE + LANES * LANE_WORDS;

const _: () = assert!(HISTOGRAMS == 384 && WORDS == 4096 && BYTES == 32 * 1024);

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
    /// Reads from the words of one page.
    ///
    /// # Panics
    /// When there are not [`WORDS`] words: an error of ours.
    pub fn new(page: &'a [AtomicU64]) -> Self {
        assert_eq!(page.len(), WORDS, "a heartbeat page has {WORDS} words");
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
        }
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
}

impl LaneWriter<'_> {
    /// One beat, made at `now`.
    ///
    /// # Real time
    /// Wait-free: four loads, five stores. No allocation, no system call.
    #[inline]
    pub fn beat_at(&self, now: MonoNs) {
        let [seq, time, max_gap, ..] = self.lane else { return };
        let before = time.load(Ordering::Relaxed);
        time.store(now.0, Ordering::Relaxed);
        // Pairs with the Acquire load in `Reader::look`. Only this thread writes, so load + store is no lost update.
        seq.store(seq.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        if before != 0 {
            let gap = now.0.saturating_sub(before);
            if gap > max_gap.load(Ordering::Relaxed) {
                max_gap.store(gap, Ordering::Relaxed);
            }
            let count = &self.histogram[histogram::bucket(gap)];
            count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Takes the lane out of supervision, in good order: the thread ends.
    pub fn leave(&self) {
        self.lane[LEFT].store(1, Ordering::Relaxed);
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
        writer.lane(1).leave();
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
