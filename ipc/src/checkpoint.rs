//! Checkpoints: named places that a thread passes, in an order and within times that the configuration lays down. What
//! AUTOSAR calls logical supervision and deadline supervision, beside the alive supervision of beats.
//!
//! ```text
//! word            what                                                             writer
//! 8 c             checkpoint c, 0..16:
//!   +0..4           name, UTF-8, at most 32 bytes                                  core, before the start
//!   +4              1 + its section; 0: there is no such checkpoint                core
//!   +5              which checkpoints may follow, one bit each                     core
//!   +6              bit 0: the order is supervised; bit 1: may be the first        core
//!   +7              reserved, 0
//! 128 + 8 s       section s, 0..16: the checkpoints of one lane
//!   +0..4           name of the lane; empty: that of the main loop                 core
//!   +4              1 + the checkpoint that was passed last; 0: none               the thread of the lane
//!   +5              out of order: bits 0..16 how often, then from (8 bits, 1 +     the thread
//!                   the checkpoint; 0: the beginning) and to (8 bits)
//!   +6, +7          reserved, 0
//! 256 + 8 d       deadline d, 0..16: from one checkpoint to another
//!   +0              from (8 bits), to (8 bits), bit 16: there is such a deadline   core
//!   +1              shortest time allowed, ns                                      core
//!   +2              longest time allowed, ns; 0: any                               core
//!   +3              when it began, if it has not ended: CLOCK_MONOTONIC ns, else 0 the thread
//!   +4              how often it was met or missed                                 the thread
//!   +5              shortest time so far, ns                                       the thread
//!   +6              longest time so far, ns                                        the thread
//!   +7              outside the limits: bits 0..16 how often, bits 16..64 the      the thread
//!                   last such time, us
//! 384..512        reserved, 0
//! ```
//! The thread that passes a checkpoint notes what is wrong; the core finds it at its next look, and finds by itself
//! a deadline that runs out. Every verdict is one word, so that a look needs no lock.

use crate::MonoNs;
use crate::sync::{AtomicU64, Ordering};
use crate::text::Text;

/// Words of all checkpoints of a page.
pub const WORDS: usize = 512;
/// Checkpoints in a page.
pub const MAX_CHECKPOINTS: usize = 16;
/// Sections in a page: one for each lane.
pub const MAX_SECTIONS: usize = 16;
/// Deadlines in a page.
pub const MAX_DEADLINES: usize = 16;

const ENTRY: usize = 8;
const SECTION_OF: usize = 4;
const SUCCESSORS: usize = 5;
const FLAGS: usize = 6;
const SUPERVISED: u64 = 1;
const FIRST: u64 = 2;
const SECTIONS: usize = MAX_CHECKPOINTS * ENTRY;
const LAST: usize = 4;
const DISORDER: usize = 5;
const DEADLINES: usize = SECTIONS + MAX_SECTIONS * ENTRY;
const ENDS: usize = 0;
const MIN: usize = 1;
const MAX: usize = 2;
const BEGUN: usize = 3;
const COUNT: usize = 4;
const SHORTEST: usize = 5;
const LONGEST: usize = 6;
const OUTSIDE: usize = 7;
const PRESENT: u64 = 1 << 16;
const COUNT_MASK: u64 = 0xFFFF;

/// A checkpoint of a page. Only for the lane that it was found for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint(u8);

impl Checkpoint {
    /// Its number, 0 to 15.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What the configuration lays down, as the words that the core puts into a new page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    words: Vec<u64>,
    sections: usize,
    checkpoints: usize,
    deadlines: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self { words: vec![0; DEADLINES + MAX_DEADLINES * ENTRY], sections: 0, checkpoints: 0, deadlines: 0 }
    }
}

impl Plan {
    /// Whether nothing is laid down.
    pub fn is_empty(&self) -> bool {
        self.checkpoints == 0
    }

    /// The words from the beginning of the checkpoints on.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// A section: the checkpoints of the lane of this name, empty for the main loop. `None` when all are taken.
    pub fn section(&mut self, lane: &str) -> Option<usize> {
        let section = self.sections;
        self.sections = next(section, MAX_SECTIONS)?;
        self.put(SECTIONS + section * ENTRY, Text::<4>::new(lane).words());
        Some(section)
    }

    /// A checkpoint in a section. `None` when all are taken.
    pub fn checkpoint(&mut self, section: usize, name: &str) -> Option<usize> {
        let checkpoint = self.checkpoints;
        self.checkpoints = next(checkpoint, MAX_CHECKPOINTS)?;
        self.put(checkpoint * ENTRY, Text::<4>::new(name).words());
        self.words[checkpoint * ENTRY + SECTION_OF] = section as u64 + 1;
        Some(checkpoint)
    }

    /// Which checkpoints may follow this one, and whether it may be the first: from now on the order is supervised.
    pub fn order(&mut self, checkpoint: usize, followers: &[usize], first: bool) {
        let entry = &mut self.words[checkpoint * ENTRY..][..ENTRY];
        entry[SUCCESSORS] = followers.iter().fold(0, |mask, to| mask | 1 << to);
        entry[FLAGS] = SUPERVISED | if first { FIRST } else { 0 };
    }

    /// A deadline from one checkpoint to another, ns; a `max` of 0 is none. `None` when all are taken.
    pub fn deadline(&mut self, from: usize, to: usize, min: u64, max: u64) -> Option<usize> {
        let deadline = self.deadlines;
        self.deadlines = next(deadline, MAX_DEADLINES)?;
        self.put(DEADLINES + deadline * ENTRY, &[from as u64 | (to as u64) << 8 | PRESENT, min, max]);
        Some(deadline)
    }

    fn put(&mut self, at: usize, words: &[u64]) {
        self.words[at..at + words.len()].copy_from_slice(words);
    }
}

fn next(taken: usize, most: usize) -> Option<usize> {
    (taken < most).then_some(taken + 1)
}

/// A pass that the order does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disorder {
    /// After which checkpoint; `None`: as the first.
    pub from: Option<u8>,
    /// Which one was passed.
    pub to: u8,
}

/// The core's side: reads, and believes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [AtomicU64]);

impl<'a> Reader<'a> {
    /// Reads the [`WORDS`] words of a page's checkpoints.
    ///
    /// # Panics
    /// When there are fewer: an error of ours.
    pub fn new(words: &'a [AtomicU64]) -> Self {
        assert!(words.len() >= WORDS, "checkpoints have {WORDS} words");
        Self(words)
    }

    /// The name of a checkpoint; empty when there is none of this number.
    pub fn name(&self, checkpoint: usize) -> Text<4> {
        if checkpoint < MAX_CHECKPOINTS { text(&self.0[checkpoint * ENTRY..]) } else { Text::EMPTY }
    }

    /// The section of a checkpoint; `None` when there is none of this number.
    pub fn section_of(&self, checkpoint: usize) -> Option<usize> {
        let word = self.0.get(checkpoint * ENTRY + SECTION_OF).filter(|_| checkpoint < MAX_CHECKPOINTS)?;
        usize::try_from(word.load(Ordering::Relaxed)).ok()?.checked_sub(1).filter(|s| *s < MAX_SECTIONS)
    }

    /// The lane that a section belongs to; empty for the main loop.
    pub fn lane_name(&self, section: usize) -> Text<4> {
        text(&self.0[SECTIONS + section * ENTRY..])
    }

    /// The word about passes of a section that were out of order: changes with each.
    pub fn disorder(&self, section: usize) -> u64 {
        self.0[SECTIONS + section * ENTRY + DISORDER].load(Ordering::Relaxed)
    }

    /// When a deadline began that has not ended.
    pub fn begun(&self, deadline: usize) -> Option<MonoNs> {
        let ns = self.0[DEADLINES + deadline * ENTRY + BEGUN].load(Ordering::Relaxed);
        (ns != 0).then_some(MonoNs(ns))
    }

    /// The word about a deadline's times outside its limits: changes with each.
    pub fn outside(&self, deadline: usize) -> u64 {
        self.0[DEADLINES + deadline * ENTRY + OUTSIDE].load(Ordering::Relaxed)
    }

    /// From which checkpoint to which a deadline runs; `None` when there is none of this number.
    pub fn ends(&self, deadline: usize) -> Option<(usize, usize)> {
        let word = self.0[DEADLINES + deadline * ENTRY + ENDS].load(Ordering::Relaxed);
        (word & PRESENT != 0).then_some(((word & 0xFF) as usize, (word >> 8 & 0xFF) as usize))
    }

    /// How often a deadline ended, and its shortest and longest time, ns.
    pub fn times(&self, deadline: usize) -> (u64, u64, u64) {
        let word = |offset: usize| self.0[DEADLINES + deadline * ENTRY + offset].load(Ordering::Relaxed);
        (word(COUNT), word(SHORTEST), word(LONGEST))
    }
}

/// What the word of [`Reader::disorder`] says.
pub fn disorder(word: u64) -> Disorder {
    let from = (word >> 16) as u8;
    Disorder { from: from.checked_sub(1), to: (word >> 24) as u8 }
}

/// The last time in the word of [`Reader::outside`], ns.
pub fn outside_ns(word: u64) -> u64 {
    (word >> 16).saturating_mul(1000)
}

fn text(words: &[AtomicU64]) -> Text<4> {
    Text::from_words(core::array::from_fn(|i| words[i].load(Ordering::Relaxed)))
}

/// The child's side. What belongs to a section is written by the thread of its lane alone.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a>(&'a [AtomicU64]);

impl<'a> Writer<'a> {
    /// Writes to the [`WORDS`] words of a page's checkpoints.
    ///
    /// # Panics
    /// When there are fewer: an error of ours.
    pub fn new(words: &'a [AtomicU64]) -> Self {
        assert!(words.len() >= WORDS, "checkpoints have {WORDS} words");
        Self(words)
    }

    /// The checkpoint of this name in the section of the lane of that name.
    pub fn find(&self, lane: &Text<4>, name: &str) -> Option<Checkpoint> {
        let (reader, wanted) = (Reader(self.0), Text::<4>::new(name));
        let of_lane = |c: &usize| reader.section_of(*c).is_some_and(|s| reader.lane_name(s) == *lane);
        let found = (0..MAX_CHECKPOINTS).filter(of_lane).find(|c| reader.name(*c) == wanted)?;
        u8::try_from(found).ok().map(Checkpoint)
    }

    /// The thread passes a checkpoint at `now`.
    ///
    /// # Real time
    /// Wait-free: a look at each of the 16 deadlines. No allocation, no system call.
    pub fn pass(&self, checkpoint: Checkpoint, now: MonoNs) {
        let here = checkpoint.index();
        let Some(section) = Reader(self.0).section_of(here) else { return };
        let section = &self.0[SECTIONS + section * ENTRY..][..ENTRY];
        let last = section[LAST].load(Ordering::Relaxed);
        section[LAST].store(here as u64 + 1, Ordering::Relaxed);
        let allowed = match usize::try_from(last).ok().and_then(|l| l.checked_sub(1)).filter(|l| *l < MAX_CHECKPOINTS) {
            Some(from) => self.0[from * ENTRY + SUCCESSORS].load(Ordering::Relaxed) >> here & 1 == 1,
            None => self.0[here * ENTRY + FLAGS].load(Ordering::Relaxed) & FIRST != 0,
        };
        if !allowed && self.0[here * ENTRY + FLAGS].load(Ordering::Relaxed) & SUPERVISED != 0 {
            bump(&section[DISORDER], (last & 0xFF) << 16 | (here as u64) << 24);
        }
        for deadline in self.0[DEADLINES..][..MAX_DEADLINES * ENTRY].chunks_exact(ENTRY) {
            let ends = deadline[ENDS].load(Ordering::Relaxed);
            if ends & PRESENT == 0 {
                break;
            }
            if (ends >> 8 & 0xFF) as usize == here {
                end(deadline, now);
            }
            // What is under way goes on: who begins again and again without an end is found, too.
            if (ends & 0xFF) as usize == here && deadline[BEGUN].load(Ordering::Relaxed) == 0 {
                deadline[BEGUN].store(now.0, Ordering::Relaxed);
            }
        }
    }

    /// The thread of this lane ends in good order: nothing that it began is waited for any longer, and a later lane of
    /// this name begins anew.
    pub fn leave(&self, lane: &Text<4>) {
        let reader = Reader(self.0);
        for section in (0..MAX_SECTIONS).filter(|s| reader.lane_name(*s) == *lane) {
            self.0[SECTIONS + section * ENTRY + LAST].store(0, Ordering::Relaxed);
        }
        for deadline in 0..MAX_DEADLINES {
            let Some((from, _)) = reader.ends(deadline) else { break };
            if reader.section_of(from).is_some_and(|s| reader.lane_name(s) == *lane) {
                self.0[DEADLINES + deadline * ENTRY + BEGUN].store(0, Ordering::Relaxed);
            }
        }
    }
}

/// A deadline ends at `now`, if it had begun.
fn end(deadline: &[AtomicU64], now: MonoNs) {
    let load = |offset: usize| deadline[offset].load(Ordering::Relaxed);
    let begun = load(BEGUN);
    if begun == 0 {
        return;
    }
    let took = now.0.saturating_sub(begun);
    let (count, min, max) = (load(COUNT), load(MIN), load(MAX));
    if count == 0 || took < load(SHORTEST) {
        deadline[SHORTEST].store(took, Ordering::Relaxed);
    }
    if took > load(LONGEST) {
        deadline[LONGEST].store(took, Ordering::Relaxed);
    }
    deadline[COUNT].store(count.wrapping_add(1), Ordering::Relaxed);
    if took < min || (max > 0 && took > max) {
        // Too short rounds down and too long rounds up, so that the time given still is outside.
        let us = if took < min { took / 1000 } else { took.div_ceil(1000) };
        bump(&deadline[OUTSIDE], us << 16);
    }
    deadline[BEGUN].store(0, Ordering::Relaxed);
}

/// One more of something, with what belongs to it.
fn bump(word: &AtomicU64, what: u64) {
    let count = word.load(Ordering::Relaxed).wrapping_add(1) & COUNT_MASK;
    word.store(what | count.max(1), Ordering::Relaxed);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// read -> compute -> write -> read, compute may repeat; from read to write 2 to 10 ms.
    fn page() -> Vec<AtomicU64> {
        let mut plan = Plan::default();
        let main = plan.section("").unwrap();
        let [read, compute, write] = ["read", "compute", "write"].map(|n| plan.checkpoint(main, n).unwrap());
        plan.order(read, &[compute], true);
        plan.order(compute, &[compute, write], false);
        plan.order(write, &[read], false);
        plan.deadline(read, write, 2 * MS, 10 * MS).unwrap();
        let poller = plan.section("poller").unwrap();
        plan.checkpoint(poller, "read").unwrap();
        let words = plan.words().iter().copied().chain(std::iter::repeat(0));
        words.take(WORDS).map(AtomicU64::new).collect()
    }

    #[test]
    fn a_good_round_leaves_nothing_but_its_times() {
        let page = page();
        let (writer, reader) = (Writer::new(&page), Reader::new(&page));
        let [read, compute, write] = ["read", "compute", "write"].map(|n| writer.find(&Text::EMPTY, n).unwrap());
        let poller = writer.find(&Text::new("poller"), "read").unwrap();
        assert_ne!(poller, read, "the same name in another lane is another checkpoint");
        assert_eq!(writer.find(&Text::new("poller"), "write"), None);
        for round in 1..4 {
            let t = round * 100 * MS;
            writer.pass(read, MonoNs(t));
            assert_eq!(reader.begun(0), Some(MonoNs(t)));
            writer.pass(compute, MonoNs(t + MS));
            writer.pass(compute, MonoNs(t + 2 * MS));
            writer.pass(poller, MonoNs(t));
            writer.pass(write, MonoNs(t + (3 + round) * MS));
        }
        assert_eq!((reader.disorder(0), reader.disorder(1), reader.outside(0), reader.begun(0)), (0, 0, 0, None));
        assert_eq!(reader.times(0), (3, 4 * MS, 6 * MS));
    }

    #[test]
    fn disorder_and_wrong_times_are_noted() {
        let page = page();
        let (writer, reader) = (Writer::new(&page), Reader::new(&page));
        let [read, compute, write] = ["read", "compute", "write"].map(|n| writer.find(&Text::EMPTY, n).unwrap());
        writer.pass(compute, MonoNs(MS));
        assert_eq!(disorder(reader.disorder(0)), Disorder { from: None, to: 1 });
        writer.pass(write, MonoNs(2 * MS));
        assert_eq!(reader.outside(0), 0, "what has not begun does not end");
        let before = reader.disorder(0);
        writer.pass(compute, MonoNs(3 * MS));
        assert_ne!(reader.disorder(0), before);
        assert_eq!(disorder(reader.disorder(0)), Disorder { from: Some(2), to: 1 });

        for (took, told) in [(MS, MS), (10 * MS + 1, 10 * MS + 1000), (5 * MS, 10 * MS + 1000)] {
            writer.pass(read, MonoNs(100 * MS));
            writer.pass(write, MonoNs(100 * MS + took));
            assert_eq!(outside_ns(reader.outside(0)), told);
        }
        assert_eq!(reader.outside(0) & COUNT_MASK, 2);
        writer.pass(read, MonoNs(200 * MS));
        writer.leave(&Text::EMPTY);
        assert_eq!(reader.begun(0), None, "a thread that left is not waited for");
        let before = reader.disorder(0);
        writer.pass(read, MonoNs(300 * MS));
        assert_eq!(reader.disorder(0), before, "a thread that comes after it begins anew");
    }

    #[test]
    fn a_scribbled_page_is_read_and_written_without_harm() {
        let page: Vec<AtomicU64> =
            (0..WORDS as u64).map(|n| AtomicU64::new(n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
        let (writer, reader) = (Writer::new(&page), Reader::new(&page));
        for number in 0..=255 {
            writer.pass(Checkpoint(number % 16), MonoNs(u64::from(number)));
            let _ = (reader.section_of(usize::from(number)), reader.name(usize::from(number)));
        }
        for n in 0..MAX_DEADLINES {
            let _ = (reader.ends(n), reader.begun(n), reader.times(n), disorder(reader.disorder(n)));
        }
    }

    #[test]
    fn a_plan_says_when_it_is_full() {
        let mut plan = Plan::default();
        assert!(plan.is_empty());
        let section = plan.section("").unwrap();
        assert_eq!((0..20).filter_map(|n| plan.checkpoint(section, &n.to_string())).count(), MAX_CHECKPOINTS);
        assert_eq!((0..20).filter_map(|_| plan.deadline(0, 1, 1, 2)).count(), MAX_DEADLINES);
        assert_eq!((1..20).filter_map(|n| plan.section(&n.to_string())).count(), MAX_SECTIONS - 1);
    }
}
