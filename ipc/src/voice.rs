//! What a child says in words: one line that tells how it is, and notices for the record of events. A part of the heartbeat
//! page, written by the child, read a few times a second by the control thread of the core; the watch thread never looks.
//!
//! ```text
//! word       what                                                        of the heartbeat page
//! 0          notices made so far                                         10
//! 1..6       reserved, 0
//! 6..34      how it is: a sequence-locked record with 27 data words:      16
//!              1, text (24 words), reserved
//! 34 + 28 n  notice n mod 3: the same, number of the notice (from 1)      44
//!              in place of the 1
//! ```

use crate::seqlock;
use crate::sync::{AtomicU64, Ordering};
use crate::text::Text;

/// Words of the section.
pub const WORDS: usize = RECORDS + (1 + KEPT) * RECORD;
/// Notices that are kept: whoever makes more between two looks loses the oldest, which is counted.
pub const KEPT: usize = 3;
/// A text: at most 192 bytes; a longer one is cut, and ends in "…".
pub type Words = Text<24>;

const COUNT: usize = 0;
const RECORDS: usize = 6;
const RECORD: usize = 28;
const DATA: usize = RECORD - 1;

/// The child's side. One writer at a time: [`Voice`](crate::child::Voice) sees to it.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a>(&'a [AtomicU64]);

impl<'a> Writer<'a> {
    /// Writes to the words of the section.
    pub(crate) fn new(section: &'a [AtomicU64]) -> Self {
        Self(section)
    }

    /// Tells how the child is. Replaces what was said before; an empty text says nothing.
    pub fn status(&self, text: &str) {
        seqlock::write(record(self.0, 0), &data(1, text));
    }

    /// Something that belongs into the record of events.
    pub fn notice(&self, text: &str) {
        let number = self.0[COUNT].load(Ordering::Relaxed).wrapping_add(1);
        seqlock::write(record(self.0, 1 + place(number)), &data(number, text));
        // Pairs with the Acquire load in `Reader::made`: whoever sees the number finds the record.
        self.0[COUNT].store(number, Ordering::Release);
    }
}

/// The core's side: reads, and believes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [AtomicU64]);

impl<'a> Reader<'a> {
    /// Reads from the words of the section.
    pub(crate) fn new(section: &'a [AtomicU64]) -> Self {
        Self(section)
    }

    /// How the child is, as far as it can be read now.
    pub fn status(&self) -> Option<Words> {
        self.text(0).map(|(_, text)| text)
    }

    /// Notices made so far, as the child counts.
    pub fn made(&self) -> u64 {
        self.0[COUNT].load(Ordering::Acquire)
    }

    /// Notice `number` (from 1), unless a later one took its place.
    pub fn notice(&self, number: u64) -> Option<Words> {
        self.text(1 + place(number)).filter(|(found, _)| *found == number).map(|(_, text)| text)
    }

    fn text(&self, index: usize) -> Option<(u64, Words)> {
        let mut data = [0; DATA];
        seqlock::read(record(self.0, index), &mut data).ok()?;
        let words = core::array::from_fn(|i| data[1 + i]);
        Some((data[0], Text::from_words(words)))
    }
}

fn record(section: &[AtomicU64], index: usize) -> &[AtomicU64] {
    &section[RECORDS + index * RECORD..][..RECORD]
}

fn place(number: u64) -> usize {
    (number % KEPT as u64) as usize
}

fn data(number: u64, text: &str) -> [u64; DATA] {
    let mut data = [0; DATA];
    data[0] = number;
    data[1..25].copy_from_slice(Words::sentence(text).words());
    data
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard_and_the_oldest_notices_make_room() {
        let section: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let (writer, reader) = (Writer::new(&section), Reader::new(&section));
        assert_eq!((reader.made(), reader.status().unwrap().to_string().as_str()), (0, ""));
        writer.status("connecting");
        writer.status("connected, 10.8.0.2");
        assert_eq!(reader.status().unwrap().to_string(), "connected, 10.8.0.2");
        for number in 1..=5 {
            writer.notice(&format!("notice {number}"));
            assert_eq!(reader.made(), number);
            assert_eq!(reader.notice(number).unwrap().to_string(), format!("notice {number}"));
        }
        assert_eq!([1, 2, 3, 6].map(|number| reader.notice(number)), [None, None, Some(Text::new("notice 3")), None]);
        let long = "ä".repeat(200);
        writer.notice(&long);
        assert_eq!(reader.notice(6).unwrap().to_string(), format!("{}…", "ä".repeat(94)));
        // The writer died inside a write.
        section[RECORDS].store(1, Ordering::Relaxed);
        assert_eq!(reader.status(), None);
        writer.status("another one");
        assert_eq!(reader.status().unwrap().to_string(), "another one");
    }
}
