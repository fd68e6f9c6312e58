//! The event ring: the last events, written by the watch thread, read by anybody who was given the page. A slow
//! reader loses the oldest events and is told how many.
//!
//! ```text
//! word          bytes      what
//! 0             0..8       magic "MULTUSEV"
//! 1             8..16      layout version (u32), length in bytes (u32)
//! 2             16..24     number of entries in the ring
//! 3             24..32     number of events written so far; the next event has this number
//! 4..16                    reserved, 0
//! 16 + 64 e     128 + ..   entry e: a sequence-locked record with 63 data words; event n lies in entry n mod entries
//! ```

use crate::page::{Kind, Refused};
use crate::seqlock;
use crate::status::FaultTimes;
use crate::sync::{AtomicU64, Ordering};
use crate::text::{Name, Text};
use crate::words::{EventKind, FaultKind};

/// Identity and version of the layout above.
pub const KIND: Kind = Kind::new(b"MULTUSEV", 1);
const RECORD: usize = 63;
const HEADER: usize = 16;
const STRIDE: usize = RECORD + 1;
const HEAD: usize = 3;

/// Words of a ring with `entries` entries.
pub const fn words(entries: usize) -> usize {
    HEADER + STRIDE * entries
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// Number of the event since the daemon started; set by the writer.
    pub seq: u64,
    /// CLOCK_MONOTONIC ns.
    pub mono: u64,
    /// Wall time, ns since 1970.
    pub unix: u64,
    /// The instance's name; empty for the daemon itself.
    pub name: Name,
    /// Number of the instance.
    pub instance: u32,
    /// The n-th process of the instance.
    pub generation: u32,
    /// Its process id; 0 without.
    pub pid: u32,
    /// What happened.
    pub kind: EventKind,
    /// The fault that this event is about.
    pub fault: Option<FaultKind>,
    /// Numbers that belong to the kind, see `docs/abi.md`.
    pub args: [u64; 4],
    /// Times of the fault.
    pub times: FaultTimes,
    /// Lateness that was granted before the verdict, ns.
    pub granted_ns: u64,
    /// A sentence, when the event carries one.
    pub text: Text<24>,
}

impl EventRecord {
    /// An event of the daemon itself, without numbers.
    pub const fn new(kind: EventKind) -> Self {
        Self {
            seq: 0,
            mono: 0,
            unix: 0,
            name: Name::EMPTY,
            instance: 0,
            generation: 0,
            pid: 0,
            kind,
            fault: None,
            args: [0; 4],
            times: FaultTimes::NONE,
            granted_ns: 0,
            text: Text::EMPTY,
        }
    }

    /// The data words: 0 number, 1 monotonic, 2 wall time, 3..9 name, 9 instance | generation, 10 pid | kind | fault,
    /// 11..15 arguments, 15..23 times, 23 granted, 24..48 text, the rest reserved.
    pub fn to_words(&self) -> [u64; RECORD] {
        let mut w = [0; RECORD];
        w[0] = self.seq;
        w[1] = self.mono;
        w[2] = self.unix;
        w[3..9].copy_from_slice(self.name.words());
        w[9] = u64::from(self.instance) | u64::from(self.generation) << 32;
        let fault = self.fault.map_or(0, FaultKind::code);
        w[10] = u64::from(self.pid) | u64::from(self.kind.code()) << 32 | u64::from(fault) << 40;
        w[11..15].copy_from_slice(&self.args);
        w[15..23].copy_from_slice(&self.times.to_words());
        w[23] = self.granted_ns;
        w[24..48].copy_from_slice(self.text.words());
        w
    }

    fn from_words(w: &[u64; RECORD]) -> Option<Self> {
        Some(Self {
            seq: w[0],
            mono: w[1],
            unix: w[2],
            name: Name::from_words(part(w, 3)),
            instance: (w[9] & 0xffff_ffff) as u32,
            generation: (w[9] >> 32) as u32,
            pid: (w[10] & 0xffff_ffff) as u32,
            kind: EventKind::from_code((w[10] >> 32 & 0xff) as u8)?,
            fault: FaultKind::from_code((w[10] >> 40 & 0xff) as u8),
            args: part(w, 11),
            times: FaultTimes::from_words(part(w, 15)),
            granted_ns: w[23],
            text: Text::from_words(part(w, 24)),
        })
    }
}

/// The one writer of a ring.
#[derive(Debug)]
pub struct Writer<'a> {
    page: &'a [AtomicU64],
    entries: u64,
    next: u64,
}

impl<'a> Writer<'a> {
    /// Lays out an empty ring.
    ///
    /// # Panics
    /// When the page has not [`words`]`(n)` words for some n ≥ 1: an error of ours.
    pub fn new(page: &'a [AtomicU64]) -> Self {
        let entries = entries_of(page.len()).expect("a ring is made with words(entries) words");
        for (i, value) in [KIND.magic, KIND.shape(page.len()), entries].into_iter().enumerate() {
            page[i].store(value, Ordering::Relaxed);
        }
        Self { page, entries, next: 0 }
    }

    /// Appends an event and gives it its number.
    ///
    /// # Real time
    /// 66 stores; wait-free.
    pub fn push(&mut self, event: &EventRecord) -> u64 {
        let seq = self.next;
        let event = EventRecord { seq, ..*event };
        seqlock::write(entry(self.page, seq, self.entries), &event.to_words());
        self.next = seq + 1;
        // Pairs with the Acquire load in `Reader::written`: a counted event is in its entry.
        self.page[HEAD].store(self.next, Ordering::Release);
        seq
    }

    /// The number of the next event.
    pub fn next_seq(&self) -> u64 {
        self.next
    }
}

/// What a reader finds under a number.
#[allow(clippy::large_enum_variant, reason = "lives on the stack of one call; boxing would allocate")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The event.
    Event(EventRecord),
    /// Overwritten by later ones; `oldest` is a number that is still there.
    Lost {
        /// Where to go on.
        oldest: u64,
    },
    /// Not written yet.
    NotYet,
}

/// A reader of a ring.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    page: &'a [AtomicU64],
    entries: u64,
}

impl<'a> Reader<'a> {
    /// Takes a mapped ring.
    ///
    /// # Errors
    /// When it is no event ring of this layout.
    pub fn new(page: &'a [AtomicU64]) -> Result<Self, Refused> {
        let word = |i: usize| page.get(i).map_or(0, |w| w.load(Ordering::Relaxed));
        KIND.validate(word(0), word(1), page.len())?;
        match entries_of(page.len()) {
            Some(entries) if word(2) == entries => Ok(Self { page, entries }),
            _ => Err(Refused::Length { found: word(2), mapped: page.len() as u64 * 8 }),
        }
    }

    /// Number of events written so far.
    pub fn written(&self) -> u64 {
        // Pairs with the Release store in `Writer::push`.
        self.page[HEAD].load(Ordering::Acquire)
    }

    /// The oldest number that is still there (as of now).
    pub fn oldest(&self) -> u64 {
        self.written().saturating_sub(self.entries)
    }

    /// Event number `seq`.
    pub fn read(&self, seq: u64) -> Found {
        if seq >= self.written() {
            return Found::NotYet;
        }
        let mut w = [0; RECORD];
        let event = match seqlock::read(entry(self.page, seq, self.entries), &mut w) {
            Ok(()) => EventRecord::from_words(&w).filter(|e| e.seq == seq),
            Err(seqlock::Torn) => None,
        };
        // The entry holds another event, is being overwritten, or has a kind of a later release.
        event.map_or(Found::Lost { oldest: (seq + 1).max(self.oldest()) }, Found::Event)
    }
}

fn entry(page: &[AtomicU64], seq: u64, entries: u64) -> &[AtomicU64] {
    let index = usize::try_from(seq % entries).unwrap_or(0);
    &page[HEADER + STRIDE * index..][..STRIDE]
}

fn entries_of(words: usize) -> Option<u64> {
    let entries = words.checked_sub(HEADER)?;
    if entries == 0 || entries % STRIDE != 0 { None } else { u64::try_from(entries / STRIDE).ok() }
}

fn part<const N: usize>(w: &[u64; RECORD], at: usize) -> [u64; N] {
    core::array::from_fn(|i| w[at + i])
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_learns_what_it_lost() {
        let page: Vec<AtomicU64> = (0..words(4)).map(|_| AtomicU64::new(0)).collect();
        let mut writer = Writer::new(&page);
        let reader = Reader::new(&page).unwrap();
        assert_eq!(reader.read(0), Found::NotYet);
        for i in 0..6u64 {
            let event = EventRecord {
                name: Name::new("a"),
                fault: Some(FaultKind::Crash),
                args: [i; 4],
                text: Text::new("text"),
                ..EventRecord::new(EventKind::Fault)
            };
            assert_eq!(writer.push(&event), i);
        }
        assert_eq!(reader.read(0), Found::Lost { oldest: 2 });
        let Found::Event(event) = reader.read(5) else { panic!("event 5 is there") };
        assert_eq!((event.seq, event.args, event.fault), (5, [5; 4], Some(FaultKind::Crash)));
        assert_eq!((event.kind, event.text.to_string().as_str()), (EventKind::Fault, "text"));
        assert_eq!(reader.read(6), Found::NotYet);
    }
}
