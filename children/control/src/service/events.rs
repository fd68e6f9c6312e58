//! What happened: one thread follows the daemon, keeps the last events, and hands every new one to those who listen.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use multus_child::Lane;
use multus_contract::api::command::{Client, ClientError, NextEvent, Request};
use multus_contract::api::event::Event;
use multus_contract::api::status::Status;

use super::queue::{Receiver, Sender, queue};
use super::{Caller, Error, Inner, Result, Service};

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// From this number on; `None`: the latest.
    pub since: Option<u64>,
    /// Only those of this child instance.
    pub child: Option<String>,
    /// At most so many, 1 to 1000; 0: 100. With `since` the first of them, else the last.
    pub limit: usize,
}

/// The last events and those who listen.
#[derive(Debug, Default)]
pub(crate) struct Events {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    kept: VecDeque<Arc<Event>>,
    listeners: Vec<Sender<Arc<Event>>>,
    /// The process of the daemon whose events these are; another one numbers anew.
    daemon_pid: u32,
}

impl Service {
    /// Events that happened, oldest first, as far as they are kept here (the last 4096).
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn events(&self, caller: &Caller, query: &EventQuery) -> Result<Vec<Arc<Event>>> {
        caller.needs(Caller::USER)?;
        let limit = if query.limit == 0 { 100 } else { query.limit.min(1000) };
        let state = self.inner.events.lock();
        let fits = |event: &&Arc<Event>| query.child.is_none() || event.child == query.child;
        Ok(match query.since {
            Some(since) => state.kept.iter().filter(|e| e.seq >= since).filter(fits).take(limit).cloned().collect(),
            None => {
                let mut latest: Vec<_> = state.kept.iter().rev().filter(fits).take(limit).cloned().collect();
                latest.reverse();
                latest
            }
        })
    }

    /// Events as they happen; with `since`, from that number on, as far as they are kept. When the daemon was restarted its
    /// numbers begin anew; a `since` beyond the latest then means all that are kept.
    ///
    /// A reader that is slow loses the oldest and is told how many.
    ///
    /// # Errors
    /// [`Error::Busy`]: too many (256) listen already.
    pub fn follow_events(&self, caller: &Caller, since: Option<u64>) -> Result<Receiver<Arc<Event>>> {
        caller.needs(Caller::USER)?;
        let mut state = self.inner.events.lock();
        state.listeners.retain(Sender::is_heard);
        if state.listeners.len() >= MOST_LISTENERS {
            return Err(Error::Busy(format!("{MOST_LISTENERS} follow the events already")));
        }
        let (sender, receiver) = queue(QUEUE);
        if let Some(since) = since {
            let newest = state.kept.back().map_or(0, |event| event.seq);
            let since = if since > newest.saturating_add(1) { 0 } else { since };
            let mut expected = since;
            for event in state.kept.iter().filter(|event| event.seq >= since) {
                sender.add(Arc::clone(event), event.seq.saturating_sub(expected));
                expected = event.seq + 1;
            }
        }
        state.listeners.push(sender);
        Ok(receiver)
    }
}

#[cfg(test)]
impl Service {
    /// As if the daemon had told of it.
    pub(crate) fn happens(&self, event: Event) {
        self.inner.events.add(event);
    }
}

impl Events {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one in and hands it on.
    fn add(&self, event: Event) {
        let mut state = self.lock();
        let expected = state.kept.back().map(|last| last.seq + 1);
        if expected.is_some_and(|expected| event.seq < expected) {
            // Seen already: the daemon was asked again after a broken connection.
            return;
        }
        let lost = expected.map_or(0, |expected| event.seq - expected);
        let event = Arc::new(event);
        if state.kept.len() >= KEPT {
            state.kept.pop_front();
        }
        state.kept.push_back(Arc::clone(&event));
        state.listeners.retain(|listener| listener.add(Arc::clone(&event), lost));
    }

    /// The number to go on with at this daemon.
    fn next(&self, daemon_pid: u32) -> u64 {
        let mut state = self.lock();
        if state.daemon_pid != daemon_pid {
            state.daemon_pid = daemon_pid;
            state.kept.clear();
        }
        state.kept.back().map_or(0, |last| last.seq + 1)
    }
}

/// Starts the thread that follows the daemon.
pub(crate) fn start(inner: Weak<Inner>, lane: Option<Lane>) -> io::Result<()> {
    std::thread::Builder::new().name("events".into()).spawn(move || {
        let mut told = false;
        let beat = || {
            if let Some(lane) = &lane {
                lane.beat();
            }
        };
        while let Some(strong) = inner.upgrade() {
            beat();
            match connect(&strong) {
                Ok(mut client) => {
                    told = false;
                    drop(strong);
                    follow(&mut client, &inner, &beat);
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        log::warn!("events are not followed: {error}");
                    }
                    drop(strong);
                    std::thread::sleep(RETRY);
                }
            }
        }
    })?;
    Ok(())
}

fn connect(inner: &Inner) -> Result<Client> {
    let mut client = inner.daemon.connect()?;
    let unavailable = |error: ClientError| Error::Unavailable(error.to_string());
    let status: Status = client.request_as(&Request::Status { name: None }).map_err(unavailable)?;
    let next = inner.events.next(status.daemon.pid);
    client.request(&Request::Events { since: Some(next), follow: true }).map_err(unavailable)?;
    Ok(client)
}

/// Until the connection ends, or nobody needs it any more.
fn follow(client: &mut Client, inner: &Weak<Inner>, beat: &dyn Fn()) {
    loop {
        beat();
        let next = client.next_event_within(TURN);
        let Some(inner) = inner.upgrade() else { return };
        match next {
            Ok(NextEvent::Event(event)) => inner.events.add(*event),
            Ok(NextEvent::NotYet) => {}
            Ok(NextEvent::Closed) => {
                log::info!("multusd ended the stream of events");
                inner.daemon.forget();
                return;
            }
            Err(error) => {
                log::warn!("events: {error}");
                inner.daemon.forget();
                return;
            }
        }
    }
}

const KEPT: usize = 4096;
/// Events that wait for one listener.
const QUEUE: usize = 1024;
/// Who may listen at one time.
pub(super) const MOST_LISTENERS: usize = 256;
const TURN: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::super::queue::Next;
    use super::*;
    use multus_contract::dirs::{DirFlags, Dirs};

    fn event(seq: u64, child: &str) -> Event {
        Event { seq, child: Some(child.into()), ..Event::default() }
    }

    fn seqs(found: &[Arc<Event>]) -> Vec<u64> {
        found.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn events_are_found_by_number_and_child_and_gaps_are_counted() {
        let service = Service::new(Dirs::resolve_with(&DirFlags::default(), |_| None), Settings::default());
        let caller = Caller::new("somebody", Caller::USER);
        let events = &service.inner.events;
        assert_eq!(events.next(1), 0);
        for seq in [0, 1, 2, 5, 6] {
            events.add(event(seq, if seq % 2 == 0 { "even" } else { "odd" }));
        }
        events.add(event(5, "again"));
        let find = |since, child: Option<&str>, limit| {
            let query = EventQuery { since, child: child.map(str::to_owned), limit };
            seqs(&service.events(&caller, &query).expect("a user may look"))
        };
        assert_eq!(find(None, None, 2), [5, 6]);
        assert_eq!(find(Some(1), None, 2), [1, 2]);
        assert_eq!(find(None, Some("odd"), 0), [1, 5]);

        let listener = service.follow_events(&caller, Some(2)).expect("there is room");
        events.add(event(7, "odd"));
        let mut seen = Vec::new();
        loop {
            match listener.try_next() {
                Next::Item(event) => seen.push(event.seq.cast_signed()),
                Next::Gap(lost) => seen.push(-lost.cast_signed()),
                Next::Empty | Next::Closed => break,
            }
        }
        assert_eq!(seen, [2, -2, 5, 6, 7]);

        assert_eq!(events.next(1), 8);
        assert_eq!(events.next(2), 0, "another daemon numbers anew");
        let late = service.follow_events(&caller, Some(100)).expect("there is room");
        events.add(event(0, "new"));
        assert!(matches!(late.try_next(), Next::Item(event) if event.seq == 0));
    }
}
