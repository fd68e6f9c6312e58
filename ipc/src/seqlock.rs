//! A record that one writer changes and many readers read whole, without any lock.
//!
//! ```text
//! word 0      sequence: odd while the writer is inside, raised by 2 for each write
//! word 1..    the record
//! ```
//! The data words are atomics too, so a reader that overlaps a write reads mixed words (and throws them away), never
//! undefined ones. A writer that dies inside a write leaves the sequence odd: readers give up after [`ATTEMPTS`] and
//! say so, they never wait for it.

use crate::sync::{AtomicU64, Ordering, fence};

/// How often a reader tries before it reports [`Torn`]. A write takes about 50 ns; even a reader that is preempted
/// each time needs but a few.
#[cfg(not(loom))]
pub const ATTEMPTS: usize = 64;
/// Few under loom, which tries all interleavings of each.
#[cfg(loom)]
pub const ATTEMPTS: usize = 2;

/// No whole record within [`ATTEMPTS`]: the writer is busy, stopped inside a write, or dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn;

/// Writes `data` into `record` (one word longer than `data`). Only the one writer of the page may call this.
///
/// # Real time
/// `data.len() + 2` stores; wait-free.
///
/// # Panics
/// When `record` is shorter than `data.len() + 1`: a layout error of ours.
pub fn write(record: &[AtomicU64], data: &[u64]) {
    let seq = record[0].load(Ordering::Relaxed);
    // An odd value is what a writer before us left when it died inside a write: go on from the next odd one.
    let entered = (seq | 1).wrapping_add(if seq & 1 == 1 { 2 } else { 0 });
    record[0].store(entered, Ordering::Relaxed);
    // Pairs with the Acquire fence in `read`: whoever sees one of the data words below also sees the odd sequence.
    fence(Ordering::Release);
    for (word, value) in record[1..=data.len()].iter().zip(data) {
        word.store(*value, Ordering::Relaxed);
    }
    // Pairs with the first Acquire load in `read`: whoever sees this even sequence sees all data words.
    record[0].store(entered.wrapping_add(1), Ordering::Release);
}

/// Reads a whole record into `data`.
///
/// # Errors
/// [`Torn`] after [`ATTEMPTS`] overlapping writes; `data` then holds rubbish.
///
/// # Panics
/// When `record` is shorter than `data.len() + 1`.
pub fn read(record: &[AtomicU64], data: &mut [u64]) -> Result<(), Torn> {
    for _ in 0..ATTEMPTS {
        // Pairs with the Release store at the end of `write`.
        let before = record[0].load(Ordering::Acquire);
        if before & 1 == 1 {
            spin();
            continue;
        }
        for (word, value) in record[1..=data.len()].iter().zip(data.iter_mut()) {
            *value = word.load(Ordering::Relaxed);
        }
        // Pairs with the Release fence in `write`: had any word above come from a later write, the load below would
        // see that write's odd sequence or a later one.
        fence(Ordering::Acquire);
        if record[0].load(Ordering::Relaxed) == before {
            return Ok(());
        }
    }
    Err(Torn)
}

#[cfg(not(loom))]
fn spin() {
    core::hint::spin_loop();
}

#[cfg(loom)]
fn spin() {
    loom::thread::yield_now();
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn record(words: usize) -> Vec<AtomicU64> {
        (0..words).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let r = record(4);
        write(&r, &[1, 2, 3]);
        let mut data = [0; 3];
        assert_eq!(read(&r, &mut data), Ok(()));
        assert_eq!(data, [1, 2, 3]);
    }

    #[test]
    fn a_writer_that_died_inside_a_write_stalls_no_reader_and_no_successor() {
        let r = record(2);
        r[0].store(7, Ordering::Relaxed);
        assert_eq!(read(&r, &mut [0]), Err(Torn));
        write(&r, &[9]);
        let mut data = [0];
        assert_eq!(read(&r, &mut data), Ok(()));
        assert_eq!((data, r[0].load(Ordering::Relaxed)), ([9], 10));
    }
}
