//! What a lane did lately: its last marks one by one, and its pace over half a minute. Written with every beat, read after
//! a fault.
//!
//! ```text
//! word      what
//! 0..64     the last 64 marks, mark n in word n % 64:
//!             bits 0..5    0 = beat, n = checkpoint n - 1
//!             bits 5..64   CLOCK_MONOTONIC ns
//! 64..320   the pace: one word for each 2^27 ns (134 ms), slot s = ns >> 27 in word 64 + s % 256:
//!             bits 0..24   longest interval that ended in the slot, us
//!             bits 24..44  beats in the slot
//!             bits 44..64  s >> 8: which round this is
//! ```
//! 256 slots are 34 s. A slot that the lane did not beat in keeps what it held a round ago, which its upper bits tell.

use crate::MonoNs;
use crate::sync::{AtomicU64, Ordering};

/// Words in the trace of a lane.
pub const WORDS: usize = RING + SLOTS;
/// Marks kept one by one.
pub const RING: usize = 64;
/// Slots of the pace.
pub const SLOTS: usize = 256;
/// log2 of the length of a slot in ns.
const SLOT_SHIFT: u32 = 27;
/// The length of a slot, ns.
pub const SLOT_NS: u64 = 1 << SLOT_SHIFT;

const CODE_BITS: u32 = 5;
const GAP_BITS: u32 = 24;
const COUNT_BITS: u32 = 20;
const ROUND_SHIFT: u32 = GAP_BITS + COUNT_BITS;
const GAP_MASK: u64 = (1 << GAP_BITS) - 1;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const ROUND_MASK: u64 = u64::MAX >> ROUND_SHIFT;

/// What a lane did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It beat.
    Beat,
    /// It passed this checkpoint, 0 to 15.
    Checkpoint(usize),
}

/// The pace of a lane in one slot of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Beginning of the slot, which is [`SLOT_NS`] long.
    pub begin: MonoNs,
    /// Beats in it, at most 1 048 575.
    pub beats: u32,
    /// The longest interval that ended in it, us, at most 16.7 s.
    pub longest_us: u32,
}

/// Writes the trace of one lane.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a>(&'a [AtomicU64]);

impl<'a> Writer<'a> {
    /// Writes to the [`WORDS`] words of one lane.
    #[inline]
    pub(crate) fn new(words: &'a [AtomicU64]) -> Self {
        Self(words)
    }

    /// Mark number `count`.
    #[inline]
    pub(crate) fn mark(&self, count: u64, now: MonoNs, mark: Mark) {
        let code = match mark {
            Mark::Beat => 0,
            Mark::Checkpoint(index) => (index as u64 + 1) & ((1 << CODE_BITS) - 1),
        };
        self.0[(count % RING as u64) as usize].store(now.0 << CODE_BITS | code, Ordering::Relaxed);
    }

    /// One beat, `gap` ns after the one before.
    #[inline]
    pub(crate) fn pace(&self, now: MonoNs, gap: u64) {
        let slot = now.0 >> SLOT_SHIFT;
        let word = &self.0[RING + (slot % SLOTS as u64) as usize];
        let before = word.load(Ordering::Relaxed);
        let round = (slot / SLOTS as u64) & ROUND_MASK;
        let (count, longest) =
            if before >> ROUND_SHIFT == round { (before >> GAP_BITS & COUNT_MASK, before & GAP_MASK) } else { (0, 0) };
        let count = (count + 1).min(COUNT_MASK);
        let longest = longest.max((gap / 1000).min(GAP_MASK));
        word.store(round << ROUND_SHIFT | count << GAP_BITS | longest, Ordering::Relaxed);
    }
}

/// Reads the trace of one lane, and believes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    words: &'a [AtomicU64],
    marks: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(words: &'a [AtomicU64], marks: u64) -> Self {
        Self { words, marks }
    }

    /// The last marks up to `now`, oldest first.
    pub fn marks(&self, now: MonoNs) -> Vec<(MonoNs, Mark)> {
        let first = self.marks.saturating_sub(RING as u64);
        (first..self.marks)
            .map(|n| {
                let word = self.words[(n % RING as u64) as usize].load(Ordering::Relaxed);
                let mark = match word & ((1 << CODE_BITS) - 1) {
                    0 => Mark::Beat,
                    code => Mark::Checkpoint(code as usize - 1),
                };
                (MonoNs(word >> CODE_BITS), mark)
            })
            .filter(|(at, _)| *at <= now)
            .collect()
    }

    /// The pace in the slots before `now`, oldest first; slots without a beat are left out.
    pub fn pace(&self, now: MonoNs) -> Vec<Pace> {
        let last = now.0 >> SLOT_SHIFT;
        (last.saturating_sub(SLOTS as u64 - 1)..=last)
            .filter_map(|slot| {
                let word = self.words[RING + (slot % SLOTS as u64) as usize].load(Ordering::Relaxed);
                let beats = (word >> GAP_BITS & COUNT_MASK) as u32;
                (word >> ROUND_SHIFT == (slot / SLOTS as u64) & ROUND_MASK && beats > 0).then_some(Pace {
                    begin: MonoNs(slot << SLOT_SHIFT),
                    beats,
                    longest_us: (word & GAP_MASK) as u32,
                })
            })
            .collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_last_marks_and_the_pace_come_back() {
        let words: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let writer = Writer::new(&words);
        let start = 1_000_000 * MS;
        for n in 0..5_000u64 {
            let now = MonoNs(start + n * 10 * MS);
            let mark = if n % 5 == 4 { Mark::Checkpoint(15) } else { Mark::Beat };
            writer.mark(n, now, mark);
            writer.pace(now, if n == 4_000 { 77 * MS } else { 10 * MS });
        }
        let now = MonoNs(start + 4_999 * 10 * MS);
        let reader = Reader::new(&words, 5_000);
        let marks = reader.marks(now);
        assert_eq!(marks.len(), RING);
        assert_eq!(marks[RING - 1], (now, Mark::Checkpoint(15)));
        assert_eq!(marks[RING - 2], (MonoNs(now.0 - 10 * MS), Mark::Beat));
        assert_eq!(reader.marks(MonoNs(now.0 - 1)).len(), RING - 1, "a mark of the future is not believed");

        let pace = reader.pace(now);
        assert_eq!(pace.len(), SLOTS, "more than 30 s without a gap");
        let beats: u32 = pace.iter().map(|p| p.beats).sum();
        assert!((3_300..=3_436).contains(&beats), "{beats}");
        assert_eq!(pace.iter().map(|p| p.longest_us).max(), Some(77_000));
        assert!(pace.windows(2).all(|p| p[1].begin.0 - p[0].begin.0 == SLOT_NS));
        let later = MonoNs(now.0 + 40_000 * MS);
        assert_eq!(reader.pace(later), [], "what lies longer ago is no longer there");
    }
}
