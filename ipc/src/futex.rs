//! Waiting for a word of a page to change, without polling: the kernel's futex. One of the rooms of this crate with
//! `unsafe`.
//!
//! The kernel compares the lower half of the word, which changes whenever the word is raised by one. It works on mappings
//! that are read-only, so every reader of a page can wait; whoever raises the word wakes them.
#![allow(unsafe_code)]

use crate::MonoNs;
use crate::sync::AtomicU64;

/// Waits until the word is no longer `seen`, or until `deadline` (`None`: for ever). May return early for no reason, so
/// compare and wait again. Returns at once when the word differs already: a change between look and wait is not lost.
///
/// # Real time
/// One system call, no allocation.
pub fn wait(word: &AtomicU64, seen: u64, deadline: Option<MonoNs>) {
    let at = deadline.map(|deadline| libc::timespec {
        tv_sec: libc::time_t::try_from(deadline.0 / 1_000_000_000).unwrap_or(libc::time_t::MAX),
        #[expect(clippy::cast_possible_wrap, reason = "below 1e9, which every C long holds")]
        tv_nsec: (deadline.0 % 1_000_000_000) as libc::c_long,
    });
    let at = at.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the address is that of a live, aligned word; little-endian, so its lower half stands first. The kernel only
    // reads it. `at` is null or points to a timespec that lives beyond the call. Every result but a wake-up, such as a
    // signal, a change or the end of the time, means the same to the caller: look again.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr().cast::<u32>(),
            libc::FUTEX_WAIT_BITSET,
            (seen & 0xffff_ffff) as u32,
            at,
            std::ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        );
    }
}

/// Wakes all who wait for the word, in every process that has the page mapped. Call after the word was raised.
///
/// # Real time
/// One system call that does not block; its cost grows with the number of those who wait.
pub fn wake_all(word: &AtomicU64) {
    // SAFETY: the address is that of a live, aligned word; the kernel uses it as a name only.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr().cast::<u32>(), libc::FUTEX_WAKE, i32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    use super::*;
    use crate::map::{self, Mapping};
    use crate::sync::Ordering;

    #[test]
    fn a_reader_that_cannot_write_is_woken_by_a_change() {
        let fd = map::memfd(c"test", 512).unwrap();
        let page = Mapping::writable(fd.as_fd()).unwrap();
        let reader = std::thread::spawn({
            let page = Mapping::read_only(fd.as_fd()).unwrap();
            move || {
                let word = &page.words()[3];
                while word.load(Ordering::Acquire) == 0 {
                    wait(word, 0, None);
                }
                word.load(Ordering::Acquire)
            }
        });
        // Whether it waits already or not yet: both must end.
        std::thread::yield_now();
        page.words()[3].store(1 << 40 | 1, Ordering::Release);
        wake_all(&page.words()[3]);
        assert_eq!(reader.join().unwrap(), 1 << 40 | 1);
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_at_once_for_another_value() {
        let word = AtomicU64::new(5);
        let start = MonoNs::now();
        wait(&word, 4, None);
        let end = start.after(Duration::from_millis(5));
        while MonoNs::now() < end {
            wait(&word, 5, Some(end));
        }
        wait(&word, 5, Some(MonoNs(0)));
    }
}
