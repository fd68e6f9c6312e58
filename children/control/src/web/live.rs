//! Live values for everybody who looks: one snapshot a second, written once however many look, and every event.
//!
//! As server-sent events: `event` (Event JSON, with its number as id); unless it is not wanted `status` (Status JSON) or
//! `unreachable` (why the daemon does not answer, a text); for those who want it `io`, the lines that changed. Nobody looks:
//! nothing is asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use multus_contract::api::event::Event;
use multus_contract::api::io::IoLine;
use tokio::sync::{Notify, broadcast};
use tokio::time::sleep;

use crate::blocking;
use crate::run::Stop;
use crate::service::queue::Next;
use crate::service::{Caller, LineNews, Service};

/// Where live values come from.
#[derive(Debug)]
pub(crate) struct Live {
    events: broadcast::Sender<Bytes>,
    statuses: broadcast::Sender<Bytes>,
    lines: broadcast::Sender<Bytes>,
    latest: Mutex<Option<(Instant, Bytes)>>,
    wanted: Notify,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            events: broadcast::channel(QUEUE).0,
            statuses: broadcast::channel(STATUS_QUEUE).0,
            lines: broadcast::channel(LINES_QUEUE).0,
            latest: Mutex::default(),
            wanted: Notify::new(),
        }
    }
}

impl Live {
    /// Events from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Bytes> {
        self.events.subscribe()
    }

    /// A status every second.
    pub(crate) fn subscribe_status(&self) -> broadcast::Receiver<Bytes> {
        let receiver = self.statuses.subscribe();
        self.wanted.notify_one();
        receiver
    }

    /// Lines as they change.
    pub(crate) fn subscribe_lines(&self) -> broadcast::Receiver<Bytes> {
        self.lines.subscribe()
    }

    /// The last status, if it is fresh.
    pub(crate) fn latest(&self) -> Option<Bytes> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.as_ref().filter(|(at, _)| at.elapsed() < 2 * PERIOD).map(|(_, bytes)| bytes.clone())
    }

    fn send(&self, event: Bytes) {
        // Nobody there is no error.
        let _ = self.events.send(event);
    }

    /// Publishes until the program ends.
    pub(crate) async fn publish(&self, service: &Service, stop: &Stop) {
        tokio::select! {
            () = self.publish_status(service) => {}
            () = self.publish_events(service) => {}
            () = self.publish_lines(service) => {}
            () = stop.requested() => {}
        }
    }

    async fn publish_status(&self, service: &Service) {
        loop {
            if self.statuses.receiver_count() == 0 {
                self.wanted.notified().await;
                continue;
            }
            let asked = service.clone();
            let status = blocking::call(move || {
                let snapshot = asked.status(&Caller::own())?;
                // Texts and numbers can always be written.
                Ok(serde_json::to_string(&snapshot.status).unwrap_or_default())
            });
            let bytes = match status.await {
                Ok(text) => frame(None, "status", &text),
                Err(error) => {
                    frame(None, "unreachable", &serde_json::to_string(&error.to_string()).unwrap_or_default())
                }
            };
            *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), bytes.clone()));
            // Nobody there is no error.
            let _ = self.statuses.send(bytes);
            sleep(PERIOD).await;
        }
    }

    async fn publish_lines(&self, service: &Service) {
        // Without an image there is nothing to tell.
        let Ok(receiver) = service.follow_lines(&Caller::own()) else { return std::future::pending().await };
        let changed = Arc::new(Notify::new());
        let waker = Arc::clone(&changed);
        receiver.on_change(move || waker.notify_one());
        loop {
            changed.notified().await;
            let (mut fresh, mut lines, mut some) = (None, BTreeMap::new(), false);
            loop {
                match receiver.try_next() {
                    Next::Item(news) => {
                        some = true;
                        match &*news {
                            LineNews::Fresh(now) => fresh = Some(*now),
                            LineNews::Line(line) => drop(lines.insert(line.name.clone(), (**line).clone())),
                        }
                    }
                    // What was lost is told by telling all.
                    Next::Gap(_) => {
                        let (now, all) = service.seen_lines();
                        (some, fresh) = (true, Some(now));
                        lines.extend(all.into_iter().map(|line| (line.name.clone(), line)));
                    }
                    Next::Empty => break,
                    Next::Closed => return std::future::pending().await,
                }
            }
            if some && self.lines.receiver_count() > 0 {
                let fresh = fresh.unwrap_or_else(|| service.seen_lines().0);
                // Nobody there is no error.
                let _ = self.lines.send(lines_frame(fresh, &lines.into_values().collect::<Vec<_>>()));
            }
            sleep(LINES_PERIOD).await;
        }
    }

    async fn publish_events(&self, service: &Service) {
        let changed = Arc::new(Notify::new());
        let receiver = loop {
            match service.follow_events(&Caller::own(), None) {
                Ok(receiver) => break receiver,
                // Everybody else's listeners may go.
                Err(_) => sleep(PERIOD).await,
            }
        };
        let waker = Arc::clone(&changed);
        receiver.on_change(move || waker.notify_one());
        loop {
            match receiver.try_next() {
                Next::Item(event) => self.send(event_frame(&event)),
                Next::Gap(lost) => self.send(frame(None, "gap", &lost.to_string())),
                Next::Empty => changed.notified().await,
                Next::Closed => return std::future::pending().await,
            }
        }
    }
}

/// An event as it goes over the line.
pub(crate) fn event_frame(event: &Event) -> Bytes {
    frame(Some(event.seq), "event", &serde_json::to_string(event).unwrap_or_default())
}

/// Lines as they go over the line.
pub(crate) fn lines_frame(fresh: bool, lines: &[IoLine]) -> Bytes {
    frame(None, "io", &serde_json::json!({ "fresh": fresh, "lines": lines }).to_string())
}

/// `data` is JSON on one line.
pub(crate) fn frame(id: Option<u64>, name: &str, data: &str) -> Bytes {
    match id {
        Some(id) => format!("id: {id}\nevent: {name}\ndata: {data}\n\n").into(),
        None => format!("event: {name}\ndata: {data}\n\n").into(),
    }
}

/// From status to status.
const PERIOD: Duration = Duration::from_secs(1);
/// What a slow stream may be behind.
const QUEUE: usize = 256;
/// Of statuses only the newest are worth anything.
const STATUS_QUEUE: usize = 4;
/// Changes that come together are told together.
const LINES_PERIOD: Duration = Duration::from_millis(100);
const LINES_QUEUE: usize = 16;
