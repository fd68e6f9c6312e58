//! The force page: which outputs must have their safe value now. Written by the watch thread on a fault before
//! anything else happens, read by whoever drives the outputs.
//!
//! ```text
//! word         bytes      what
//! 0            0..8       magic "MULTUSFO"
//! 1            8..16      layout version (u32), length in bytes (u32)
//! 2            16..24     number of entries, E
//! 3            24..32     raised by one after every change; what a reader compares, or waits on
//! 4            32..40     number of slots, S
//! 5..16                   reserved, 0
//! 16 + 8 e     128 + ..   entry e, 64 bytes: one output
//!   +0..4                   name, UTF-8, at most 32 bytes; empty = free
//!   +4                      its value while it is forced, IEEE 754 double (0.0 off, 1.0 on)
//!   +5                      1 = forced
//!   +6                      since when, CLOCK_MONOTONIC ns
//!   +7                      slot of the child that names it in safe_state.outputs; 2^32 - 1: forced by a person
//! 16 + 8 (E + s)          slot s, 64 bytes: all outputs that one child instance owns
//!   +0..6                   name of the instance, UTF-8, at most 48 bytes; empty = free
//!   +6                      1 = forced
//!   +7                      since when, CLOCK_MONOTONIC ns
//! ```
//! What an output has while several of these hold: the value of its own entry; else, while its owner is forced, the safe
//! value of `hardware.toml`; else what a person forces.
//!
//! Names and values change only while an entry is not in use (configuration read again); `forced` is one word, so
//! it is never torn.

use crate::MonoNs;
use crate::page::{Kind, Refused};
use crate::sync::{AtomicU64, Ordering};
use crate::text::{Name, Text};

/// Identity and version of the layout above.
pub const KIND: Kind = Kind::new(b"MULTUSFO", 2);
/// In place of a slot: a person forces the output.
pub const OPERATOR: u32 = u32::MAX;
const HEADER: usize = 16;
const STRIDE: usize = 8;
const ENTRIES: usize = 2;
const CHANGES: usize = 3;
const SLOTS: usize = 4;

/// Words of a page with so many entries and slots.
pub const fn words(entries: usize, slots: usize) -> usize {
    HEADER + STRIDE * (entries + slots)
}

/// One output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// Name of the output.
    pub name: Text<4>,
    /// What it has while it is forced.
    pub value: f64,
    /// Slot of the child whose safe state this is, or [`OPERATOR`].
    pub slot: u32,
    /// Since when it is forced; `None` when it is not.
    pub forced_since: Option<MonoNs>,
}

/// All outputs that one child instance owns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Owner {
    /// Name of the instance.
    pub name: Name,
    /// Since when they are forced; `None` when they are not.
    pub forced_since: Option<MonoNs>,
}

/// The one writer of a force page.
#[derive(Debug)]
pub struct Writer<'a> {
    page: &'a [AtomicU64],
    entries: usize,
}

impl<'a> Writer<'a> {
    /// Lays out an empty page of [`words`]`(entries, slots)` words.
    ///
    /// # Panics
    /// When the page has another length: an error of ours.
    pub fn new(page: &'a [AtomicU64], entries: usize, slots: usize) -> Self {
        assert_eq!(page.len(), words(entries, slots), "a force page is made with words(entries, slots) words");
        let head = [KIND.magic, KIND.shape(page.len()), entries as u64, 0, slots as u64];
        for (word, value) in page.iter().zip(head) {
            word.store(value, Ordering::Relaxed);
        }
        Self { page, entries }
    }

    /// Goes on with a page that [`Self::new`] has laid out.
    ///
    /// # Panics
    /// For any other page.
    pub fn new_again(page: &'a [AtomicU64]) -> Self {
        let entries = Reader::new(page).expect("a page that was laid out").entries;
        Self { page, entries }
    }

    /// Number of entries.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Gives an entry a name, a value and an owner; it is forced at once.
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

    /// Gives a slot to a child instance, whose outputs are forced at once; an empty name frees it.
    pub fn define_owner(&self, slot: usize, name: &Name, now: MonoNs) {
        let s = self.slot(slot);
        s[6].store(0, Ordering::Release);
        for (word, value) in s[..6].iter().zip(name.words()) {
            word.store(*value, Ordering::Relaxed);
        }
        self.set_owner_forced(slot, !name.is_empty(), now);
        self.announce();
    }

    /// Forces or releases one output. Call [`Self::announce`] after the last of a group.
    ///
    /// # Real time
    /// Two stores.
    pub fn set_forced(&self, entry: usize, forced: bool, now: MonoNs) {
        let e = self.entry(entry);
        e[6].store(now.0, Ordering::Relaxed);
        // Pairs with the Acquire load in `Reader::entries`: a forced output has its name, value and time.
        e[5].store(u64::from(forced), Ordering::Release);
    }

    /// Forces or releases all outputs of the instance in a slot. Call [`Self::announce`] after the last of a group.
    ///
    /// # Real time
    /// Two stores.
    pub fn set_owner_forced(&self, slot: usize, forced: bool, now: MonoNs) {
        let s = self.slot(slot);
        s[7].store(now.0, Ordering::Relaxed);
        // Pairs with the Acquire load in `Reader::owners`.
        s[6].store(u64::from(forced), Ordering::Release);
    }

    /// Tells readers that something changed. Those who wait are woken by `futex::wake_all` of [`Self::change_word`].
    pub fn announce(&self) {
        let changes = &self.page[CHANGES];
        // Pairs with the Acquire load in `Reader::changes`.
        changes.store(changes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// The word that [`Self::announce`] raises, to wake those who wait on it (`futex::wake_all`).
    pub fn change_word(&self) -> &'a AtomicU64 {
        &self.page[CHANGES]
    }

    /// What [`Self::announce`] has counted to.
    pub fn changes(&self) -> u64 {
        self.page[CHANGES].load(Ordering::Relaxed)
    }

    fn entry(&self, entry: usize) -> &'a [AtomicU64] {
        assert!(entry < self.entries, "entries end where slots begin");
        &self.page[HEADER + STRIDE * entry..][..STRIDE]
    }

    fn slot(&self, slot: usize) -> &'a [AtomicU64] {
        &self.page[HEADER + STRIDE * (self.entries + slot)..][..STRIDE]
    }
}

/// A reader of a force page.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    page: &'a [AtomicU64],
    entries: usize,
}

impl<'a> Reader<'a> {
    /// Takes a mapped page.
    ///
    /// # Errors
    /// When it is no force page of this layout.
    pub fn new(page: &'a [AtomicU64]) -> Result<Self, Refused> {
        let word = |i: usize| page.get(i).map_or(0, |w| w.load(Ordering::Relaxed));
        KIND.validate(word(0), word(1), page.len())?;
        let room = page.len().saturating_sub(HEADER) as u64 / STRIDE as u64;
        if word(ENTRIES).checked_add(word(SLOTS)) != Some(room) {
            return Err(Refused::Length { found: word(ENTRIES), mapped: page.len() as u64 * 8 });
        }
        Ok(Self { page, entries: usize::try_from(word(ENTRIES)).unwrap_or(0) })
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
        let entries = self.page[HEADER..].chunks_exact(STRIDE).take(self.entries);
        entries.filter_map(|e| {
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

    /// All instances that have a slot.
    pub fn owners(&self) -> impl Iterator<Item = Owner> + 'a {
        let slots = self.page[HEADER..].chunks_exact(STRIDE).skip(self.entries);
        slots.filter_map(|s| {
            // Pairs with the Release store in `Writer::set_owner_forced`.
            let forced = s[6].load(Ordering::Acquire) == 1;
            let name = Text::from_words(core::array::from_fn(|w| s[w].load(Ordering::Relaxed)));
            let owner = Owner { name, forced_since: forced.then(|| MonoNs(s[7].load(Ordering::Relaxed))) };
            Some(owner).filter(|owner| !owner.name.is_empty())
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn empty(entries: usize, slots: usize) -> Vec<AtomicU64> {
        (0..words(entries, slots)).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_defined_output_is_forced_until_it_is_released() {
        let page = empty(3, 1);
        let writer = Writer::new(&page, 3, 1);
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

    #[test]
    fn all_outputs_of_an_owner_are_forced_by_one_word() {
        let page = empty(2, 3);
        let writer = Writer::new(&page, 2, 3);
        let reader = Reader::new(&page).unwrap();
        writer.define(1, &Text::new("DO1"), 1.0, 2, MonoNs(4));
        writer.define_owner(2, &Name::new("modbus"), MonoNs(5));
        let owner = |forced_since| Owner { name: Name::new("modbus"), forced_since };
        assert_eq!(reader.owners().collect::<Vec<_>>(), [owner(Some(MonoNs(5)))]);
        writer.set_owner_forced(2, false, MonoNs(6));
        assert_eq!(reader.owners().collect::<Vec<_>>(), [owner(None)]);
        assert_eq!(reader.entries().count(), 1, "slots are no entries");
        writer.define_owner(2, &Name::EMPTY, MonoNs(7));
        assert_eq!(reader.owners().count(), 0);
    }

    #[test]
    fn a_page_that_says_another_size_is_refused() {
        let page = empty(2, 3);
        Writer::new(&page, 2, 3);
        page[SLOTS].store(u64::MAX, Ordering::Relaxed);
        assert!(Reader::new(&page).is_err());
    }
}
