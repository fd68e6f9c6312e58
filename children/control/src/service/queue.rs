//! What stands between a source that never waits and a reader that may be slow: a bounded queue that drops the oldest
//! and counts what it dropped.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// The next item.
    Item(T),
    /// So many items came before the next one and are lost: the reader was too slow.
    Gap(u64),
    /// Nothing yet.
    Empty,
    /// There will be no more.
    Closed,
}

type Waker = Box<dyn Fn() + Send + Sync>;

struct State<T> {
    /// Each with how many are lost before it.
    items: VecDeque<(u64, T)>,
    closed: bool,
    waker: Option<Waker>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Every change is complete before anything could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, state: &State<T>) {
        self.changed.notify_all();
        if let Some(waker) = &state.waker {
            waker();
        }
    }
}

/// The end that puts in. Closes the queue when it is dropped.
pub struct Sender<T>(Arc<Shared<T>>);

/// The end that takes out.
pub struct Receiver<T>(Arc<Shared<T>>);

/// A queue that holds `capacity` items at most; at least 1.
pub fn queue<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { items: VecDeque::new(), closed: false, waker: None };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), capacity: capacity.max(1) });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    /// Puts one in; the oldest goes when there is no room. False: the reader is gone. Never waits for the reader.
    pub fn push(&self, item: T) -> bool {
        self.add(item, 0)
    }

    /// Whether somebody may still take out.
    pub(crate) fn is_heard(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// As [`Sender::push`], with so many lost before it.
    pub(crate) fn add(&self, item: T, mut lost_before: u64) -> bool {
        if !self.is_heard() {
            return false;
        }
        let mut state = self.0.lock();
        if state.items.len() >= self.0.capacity
            && let Some((lost, _)) = state.items.pop_front()
        {
            // The loss of the oldest is told with the one after it.
            let next = state.items.front_mut().map_or(&mut lost_before, |(next, _)| next);
            *next = next.saturating_add(lost).saturating_add(1);
        }
        state.items.push_back((lost_before, item));
        self.0.wake(&state);
        true
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        self.0.wake(&state);
    }
}

impl<T> Receiver<T> {
    /// What is next. Does not wait.
    pub fn try_next(&self) -> Next<T> {
        take(&mut self.0.lock())
    }

    /// What is next; [`Next::Empty`] after `patience` without anything.
    pub fn next_within(&self, patience: Duration) -> Next<T> {
        let end = Instant::now() + patience;
        let mut state = self.0.lock();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match take(&mut state) {
                Next::Empty if !left.is_zero() => {
                    state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                next => return next,
            }
        }
    }

    /// Calls `waker` whenever there may be something new, for readers that do not wait in [`Receiver::next_within`]. It
    /// must be quick and must not touch this queue.
    pub fn on_change(&self, waker: impl Fn() + Send + Sync + 'static) {
        let mut state = self.0.lock();
        waker();
        state.waker = Some(Box::new(waker));
    }
}

fn take<T>(state: &mut State<T>) -> Next<T> {
    match state.items.front_mut() {
        Some((lost @ 1.., _)) => return Next::Gap(std::mem::take(lost)),
        None if state.closed => return Next::Closed,
        Some(_) | None => {}
    }
    state.items.pop_front().map_or(Next::Empty, |(_, item)| Next::Item(item))
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("capacity", &self.0.capacity).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("capacity", &self.0.capacity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_slow_reader_loses_the_oldest_and_is_told_how_many() {
        let (sender, receiver) = queue(3);
        for n in 0..10 {
            assert!(sender.push(n));
        }
        assert_eq!(receiver.try_next(), Next::Gap(7));
        assert_eq!(receiver.try_next(), Next::Item(7));
        sender.add(20, 5);
        assert_eq!(receiver.try_next(), Next::Item(8));
        assert_eq!(receiver.try_next(), Next::Item(9));
        assert_eq!(receiver.try_next(), Next::Gap(5), "lost before they came here");
        sender.push(21);
        sender.push(22);
        sender.push(23);
        assert_eq!(receiver.try_next(), Next::Gap(1));
        assert_eq!(receiver.try_next(), Next::Item(21));
        assert_eq!(receiver.try_next(), Next::Item(22));
        assert_eq!(receiver.try_next(), Next::Item(23));
        assert_eq!(receiver.try_next(), Next::Empty);
        drop(sender);
        assert_eq!(receiver.next_within(Duration::from_secs(60)), Next::Closed);
    }

    #[test]
    fn a_reader_is_woken_and_a_sender_learns_that_it_is_gone() {
        let (sender, receiver) = queue(3);
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        receiver.on_change(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let thread = std::thread::spawn(move || {
            sender.push(1);
            sender
        });
        assert_eq!(receiver.next_within(Duration::from_secs(60)), Next::Item(1));
        let sender = thread.join().expect("it only pushes");
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        drop(receiver);
        assert!(!sender.push(2));
    }
}
