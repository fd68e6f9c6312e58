//! Shared memory in which every bench child notes when it was born and when it failed, and finds its orders.
//!
//! ```text
//! word                  what                                                             writer
//! 0                     lives so far: processes of this slot, one after the other        child
//! 1                     number of the last life that has beaten                          child
//! 2                     number of orders so far                                          harness
//! 3                     what the last order asks for                                     harness
//! 4                     deaths at a young age that are still to be died                  harness, then child
//! 5..8                  reserved
//! 8 + 4 (n mod 64)      life n: birth, end, before its last beat, after its last beat    child
//! 264 + 256 (n mod 2)   times of the last 256 beats of life n, taken just before each    child
//! 776                   end of the slot
//! ```
//! All times are CLOCK_MONOTONIC ns, 0 for none. An order concerns the life that finds it; the next life ignores it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use multus_ipc::MonoNs;
use multus_ipc::map::{self, Mapping};

/// Lives that a slot remembers.
pub const REMEMBERED: u64 = 64;
const LIVES: usize = 0;
const BEATEN: usize = 1;
const ORDERS: usize = 2;
const ORDER: usize = 3;
const YOUNG: usize = 4;
const FIRST_LIFE: usize = 8;
const LIFE_WORDS: usize = 4;
const BEATS: usize = 264;
const BEATS_NOTED: usize = 256;
const SLOT_WORDS: usize = 776;

const _: () = assert!(FIRST_LIFE + LIFE_WORDS * REMEMBERED as usize == BEATS);
const _: () = assert!(BEATS + 2 * BEATS_NOTED == SLOT_WORDS);

/// What a child is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Order {
    /// Stop beating, stay alive.
    Hang = 1,
    /// Send SIGKILL to itself.
    Kill = 2,
    /// End with exit code 3.
    Exit = 3,
}

impl Order {
    fn from_word(word: u64) -> Option<Self> {
        [Self::Hang, Self::Kill, Self::Exit].into_iter().find(|o| *o as u64 == word)
    }
}

/// One process, as it noted itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Life {
    /// The first instruction of its `main`.
    pub birth: u64,
    /// Just before it failed on order.
    pub end: u64,
    /// Just before its last beat, if that was the last on order.
    pub before_beat: u64,
    /// Just after it.
    pub after_beat: u64,
}

/// The whole board.
#[derive(Debug)]
pub struct Board {
    map: Mapping,
    fd: OwnedFd,
}

impl Board {
    /// A new board.
    ///
    /// # Errors
    /// What the system refused.
    pub fn create(slots: usize) -> io::Result<Self> {
        let fd = map::memfd(c"bench-board", slots * SLOT_WORDS)?;
        Ok(Self { map: Mapping::writable(fd.as_fd())?, fd })
    }

    /// The board of another process, by the path that [`Self::path`] told.
    ///
    /// # Errors
    /// What the system refused.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = OwnedFd::from(std::fs::File::options().read(true).write(true).open(path)?);
        Ok(Self { map: Mapping::writable(fd.as_fd())?, fd })
    }

    /// Where processes of the same user find it, for as long as this process lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// Slot `slot`; `None` beyond the end.
    pub fn slot(&self, slot: usize) -> Option<Slot<'_>> {
        self.map.words().get(slot * SLOT_WORDS..)?.get(..SLOT_WORDS).map(|words| Slot { words })
    }
}

/// One child's part.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    words: &'a [AtomicU64],
}

impl Slot<'_> {
    // ---- the child's side -------------------------------------------------------------------------------------------

    /// Begins a life; its number, from 1.
    pub fn born(&self, at: MonoNs) -> u64 {
        let life = self.words[LIVES].load(Ordering::Relaxed) + 1;
        self.write(life, 0, at.0);
        for word in 1..LIFE_WORDS {
            self.write(life, word, 0);
        }
        for beat in self.beats_of(life) {
            beat.store(0, Ordering::Relaxed);
        }
        // Pairs with the Acquire load in `lives`: a counted life has its birth.
        self.words[LIVES].store(life, Ordering::Release);
        life
    }

    /// Notes that this life has beaten.
    pub fn beaten(&self, life: u64) {
        // Pairs with the Acquire load in `last_beaten`.
        self.words[BEATEN].store(life, Ordering::Release);
    }

    /// Number of orders so far.
    pub fn orders(&self) -> u64 {
        // Pairs with the Release store in `give`.
        self.words[ORDERS].load(Ordering::Acquire)
    }

    /// The last order.
    pub fn order(&self) -> Option<Order> {
        Order::from_word(self.words[ORDER].load(Ordering::Relaxed))
    }

    /// Whether this life is to end young; counts it.
    pub fn takes_young_death(&self) -> bool {
        let left = self.words[YOUNG].load(Ordering::Acquire);
        self.words[YOUNG].store(left.saturating_sub(1), Ordering::Release);
        left > 0
    }

    /// Notes the time just before the `number`-th beat of a life.
    pub fn beats(&self, life: u64, number: usize, at: MonoNs) {
        self.beats_of(life)[number % BEATS_NOTED].store(at.0, Ordering::Relaxed);
    }

    /// Notes the last beat of a life.
    pub fn last_beat(&self, life: u64, before: MonoNs, after: MonoNs) {
        self.write(life, 2, before.0);
        self.write(life, 3, after.0);
    }

    /// Notes the end of a life, just before it comes.
    pub fn ends(&self, life: u64, at: MonoNs) {
        self.write(life, 1, at.0);
    }

    // ---- the harness's side -----------------------------------------------------------------------------------------

    /// Lives so far.
    pub fn lives(&self) -> u64 {
        // Pairs with the Release store in `born`.
        self.words[LIVES].load(Ordering::Acquire)
    }

    /// The last life that has beaten.
    pub fn last_beaten(&self) -> u64 {
        // Pairs with the Release store in `beaten`.
        self.words[BEATEN].load(Ordering::Acquire)
    }

    /// Gives an order to the life that is there.
    pub fn give(&self, order: Order) {
        self.words[ORDER].store(order as u64, Ordering::Relaxed);
        let orders = self.words[ORDERS].load(Ordering::Relaxed);
        // Pairs with the Acquire load in `orders`: a counted order can be read.
        self.words[ORDERS].store(orders + 1, Ordering::Release);
    }

    /// The next `deaths` lives end young.
    pub fn die_young(&self, deaths: u64) {
        self.words[YOUNG].store(deaths, Ordering::Release);
    }

    /// Young deaths that are still to come.
    pub fn young_deaths_left(&self) -> u64 {
        self.words[YOUNG].load(Ordering::Acquire)
    }

    /// What life `life` noted; meaningful for the last [`REMEMBERED`].
    pub fn life(&self, life: u64) -> Life {
        let [birth, end, before_beat, after_beat] =
            std::array::from_fn(|word| self.words[place(life) + word].load(Ordering::Relaxed));
        Life { birth, end, before_beat, after_beat }
    }

    /// The life that was there at `time`; 0 for none.
    pub fn life_at(&self, time: u64) -> u64 {
        let newest = self.lives();
        let oldest = newest.saturating_sub(REMEMBERED - 1).max(1);
        (oldest..=newest).rev().find(|life| self.life(*life).birth <= time).unwrap_or(0)
    }

    /// The first beat that a life made after `time`, as far as it is noted. Good for this life and the one before.
    pub fn first_beat_after(&self, life: u64, time: u64) -> Option<u64> {
        self.beats_of(life).iter().map(|word| word.load(Ordering::Relaxed)).filter(|beat| *beat > time).min()
    }

    fn beats_of(&self, life: u64) -> &[AtomicU64] {
        let first = if life.is_multiple_of(2) { BEATS } else { BEATS + BEATS_NOTED };
        &self.words[first..first + BEATS_NOTED]
    }

    fn write(&self, life: u64, word: usize, value: u64) {
        self.words[place(life) + word].store(value, Ordering::Relaxed);
    }
}

fn place(life: u64) -> usize {
    // Below REMEMBERED, so it fits.
    FIRST_LIFE + LIFE_WORDS * (life % REMEMBERED) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_sees_orders_and_is_seen() {
        let harness = Board::create(3).expect("memory");
        let child = Board::open(Path::new(&harness.path())).expect("own descriptor");
        let (ours, theirs) = (harness.slot(2).expect("slot"), child.slot(2).expect("slot"));
        assert!(harness.slot(3).is_none());
        assert_eq!((theirs.orders(), theirs.order()), (0, None));
        assert_eq!(theirs.born(MonoNs(70)), 1);
        theirs.beaten(1);
        ours.give(Order::Kill);
        ours.die_young(1);
        assert_eq!((theirs.orders(), theirs.order()), (1, Some(Order::Kill)));
        theirs.beats(1, 0, MonoNs(75));
        theirs.beats(1, 1, MonoNs(80));
        assert_eq!((ours.first_beat_after(1, 75), ours.first_beat_after(1, 80)), (Some(80), None));
        assert_eq!((ours.life_at(69), ours.life_at(70), ours.life_at(1000)), (0, 1, 1));
        theirs.last_beat(1, MonoNs(80), MonoNs(81));
        theirs.ends(1, MonoNs(90));
        assert_eq!(ours.life(1), Life { birth: 70, end: 90, before_beat: 80, after_beat: 81 });
        assert!(theirs.takes_young_death() && !theirs.takes_young_death());
        for n in 2..=REMEMBERED + 1 {
            assert_eq!(theirs.born(MonoNs(100 + n)), n);
        }
        assert_eq!(ours.life(REMEMBERED + 1), Life { birth: 101 + REMEMBERED, ..Life::default() });
    }
}
