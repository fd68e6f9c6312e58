//! The force page: which outputs must have their safe value now. Written by the watch thread on a fault before
//! anything else happens, read by whoever drives the outputs.
//!
//! ```text
//! word         bytes      what
//! 0            0..8       magic "MULTUSFO"
//! 1            8..16      layout version (u32), length in bytes (u32)
//! 2            16..24     number of entries
//! 3            24..32     raised by one after every change; what a reader compares, or waits on
//! 4..16                   reserved, 0
//! 16 + 8 e     128 + ..   entry e, 64 bytes:
//!   +0..4                   name, UTF-8, at most 32 bytes; empty = free
//!   +4                      safe value, IEEE 754 double (0.0 off, 1.0 on)
//!   +5                      1 = forced
//!   +6                      since when, CLOCK_MONOTONIC ns
//!   +7                      slot of the owner
//! ```
//! Names and values change only while the entry is not in use (configuration read again); `forced` is one word, so
//! it is never torn.

use crate::MonoNs;
use crate::page::{Kind, Refused};
use crate::sync::{AtomicU64, Ordering};
use crate::text::Text;

/// Identity and version of the layout above.
pub const KIND: Kind = Kind::new(b"MULTUSFO", 1);
const HEADER: usize = 16;
const STRIDE: usize = 8;
const CHANGES: usize = 3;

/// Words of a page with `entries` entries.
pub const fn words(entries: usize) -> usize {
    HEADER + STRIDE * entries
}

/// One output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// Name of the output.
    pub name: Text<4>,
    /// Its safe value.
    pub value: f64,
    /// Slot of the child that owns it.
    pub slot: u32,
    /// Since when it is forced; `None` when it is not.
    pub forced_since: Option<MonoNs>,
}

/// The one writer of a force page.
#[derive(Debug)]
pub struct Writer<'a> {
    page: &'a [AtomicU64],
}

impl<'a> Writer<'a> {
    /// Lays out an empty page.
    ///
    /// # Panics
    /// When the page has not [`words`]`(n)` words for some n: an error of ours.
    pub fn new(page: &'a [AtomicU64]) -> Self {
        let entries = entries_of(page.len()).expect("a force page is made with words(entries) words");
        for (i, value) in [KIND.magic, KIND.shape(page.len()), entries as u64].into_iter().enumerate() {
            page[i].store(value, Ordering::Relaxed);
        }
        Self { page }
    }

    /// Goes on with a page that [`Self::new`] has laid out.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn new_again(page: &'a [AtomicU64]) -> Self {
        assert!(Reader::new(page).is_ok(), "a page that was laid out");
        Self { page }
    }

    /// Number of entries.
    pub fn entries(&self) -> usize {
        entries_of(self.page.len()).unwrap_or(0)
    }

    /// Gives an entry a name, a safe value and an owner; it is forced at once.
    pub fn define(&self, entry: usize, name: &Text<4>, value: f64, slot: u32, now: MonoNs) {
        let e = self.entry(entry);
        e[5].store(0, Ordering::Release);
        for (word, value) in e[..4].iter().zip(name.words()) {
            word.store(*value, Ordering::Relaxed);
        }
        e[4].store(value.to_bits(), Ordering::Relaxed);
        e[7].store(u64::from(slot), Ordering::Relaxed);
        self.set_forced(entry, true, now);
        self.announce();
    }

    /// Frees an entry.
    pub fn clear(&self, entry: usize) {
        for word in self.entry(entry) {
            word.store(0, Ordering::Relaxed);
        }
        self.announce();
    }

    /// Forces or releases one output. Call [`Self::announce`] after the last of a group.
    ///
    /// # Real time
    /// Two stores.
    pub fn set_forced(&self, entry: usize, forced: bool, now: MonoNs) {
        let e = self.entry(entry);
        e[6].store(now.0, Ordering::Relaxed);
        // Pairs with the Acquire load in `Reader::entry`: a forced output has its name, value and time.
        e[5].store(u64::from(forced), Ordering::Release);
    }

    /// Tells readers that something changed.
    pub fn announce(&self) {
        let changes = &self.page[CHANGES];
        // Pairs with the Acquire load in `Reader::changes`.
        changes.store(changes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// The word that [`Self::announce`] raises, to wake those who wait on it (`futex::wake_all`).
    pub fn change_word(&self) -> &'a AtomicU64 {
        &self.page[CHANGES]
    }

    fn entry(&self, entry: usize) -> &'a [AtomicU64] {
        &self.page[HEADER + STRIDE * entry..][..STRIDE]
    }
}

/// A reader of a force page.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    page: &'a [AtomicU64],
}

impl<'a> Reader<'a> {
    /// Takes a mapped page.
    ///
    /// # Errors
    /// When it is no force page of this layout.
    pub fn new(page: &'a [AtomicU64]) -> Result<Self, Refused> {
        let word = |i: usize| page.get(i).map_or(0, |w| w.load(Ordering::Relaxed));
        KIND.validate(word(0), word(1), page.len())?;
        Ok(Self { page })
    }

    /// Raised after every change.
    pub fn changes(&self) -> u64 {
        self.page[CHANGES].load(Ordering::Acquire)
    }

    /// The word of [`Self::changes`], to wait on.
    pub fn change_word(&self) -> &'a AtomicU64 {
        &self.page[CHANGES]
    }

    /// All outputs in use.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + 'a {
        let page = self.page;
        (0..entries_of(page.len()).unwrap_or(0)).filter_map(move |i| {
            let e = &page[HEADER + STRIDE * i..][..STRIDE];
            // Pairs with the Release store in `Writer::set_forced`.
            let forced = e[5].load(Ordering::Acquire) == 1;
            let name = Text::from_words(core::array::from_fn(|w| e[w].load(Ordering::Relaxed)));
            let entry = Entry {
                name,
                value: f64::from_bits(e[4].load(Ordering::Relaxed)),
                slot: (e[7].load(Ordering::Relaxed) & 0xffff_ffff) as u32,
                forced_since: forced.then(|| MonoNs(e[6].load(Ordering::Relaxed))),
            };
            Some(entry).filter(|e| !e.name.is_empty())
        })
    }
}

fn entries_of(words: usize) -> Option<usize> {
    let entries = words.checked_sub(HEADER)?;
    if entries % STRIDE != 0 { None } else { Some(entries / STRIDE) }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_defined_output_is_forced_until_it_is_released() {
        let page: Vec<AtomicU64> = (0..words(3)).map(|_| AtomicU64::new(0)).collect();
        let writer = Writer::new(&page);
        let reader = Reader::new(&page).unwrap();
        assert_eq!(reader.entries().count(), 0);
        writer.define(1, &Text::new("DO1"), 1.0, 7, MonoNs(5));
        let entry = Entry { name: Text::new("DO1"), value: 1.0, slot: 7, forced_since: Some(MonoNs(5)) };
        assert_eq!(reader.entries().collect::<Vec<_>>(), [entry]);
        let before = reader.changes();
        writer.set_forced(1, false, MonoNs(6));
        writer.announce();
        assert_eq!(reader.entries().next().unwrap().forced_since, None);
        assert_ne!(reader.changes(), before);
        writer.clear(1);
        assert_eq!(reader.entries().count(), 0);
    }
}
