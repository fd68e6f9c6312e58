//! Answers that come bit by bit: live values, the lines of a log as they are written, a file. A worker decides that there is
//! one and for whom; the guard sends it, so that it holds no thread. Whoever is logged out meanwhile gets no more.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use multus_contract::api::event::Event;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Interval, MissedTickBehavior, interval, interval_at};

use super::Web;
use super::live::frame;
use super::response::Response;
use crate::auth::Visitor;
use crate::blocking;
use crate::history::{Format, Query};
use crate::service::LogFollower;
use crate::service::queue::{Next, Receiver};

/// What is to come, and for whom.
#[derive(Debug)]
pub(crate) struct Stream {
    visitor: Visitor,
    what: What,
    _place: Place,
}

#[derive(Debug)]
enum What {
    Live { first: Receiver<Arc<Event>>, status: bool, lines: bool },
    Log { lines: Vec<String>, follower: Arc<Mutex<LogFollower>> },
    File { file: File, length: u64 },
    Export { query: Box<Query>, format: Format, _place: Place },
}

/// A piece of a body; an error breaks the connection off, so that the client knows that something is missing.
pub(crate) type Part = io::Result<Bytes>;

/// Streams that a worker made and the guard has not taken yet, and how many there are at all.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    waiting: Mutex<HashMap<u64, (Instant, Stream)>>,
    last: std::sync::atomic::AtomicU64,
    open: Arc<AtomicUsize>,
    exports: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(taken: &Arc<AtomicUsize>, most: usize) -> Result<Self, TooMany> {
        // One too many gives itself back.
        let place = Self(Arc::clone(taken));
        if taken.fetch_add(1, Ordering::Relaxed) < most { Ok(place) } else { Err(TooMany) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// There are [`MOST`] already.
#[derive(Debug)]
pub(crate) struct TooMany;

impl Streams {
    /// Events, beginning with what `first` holds; with `status`, that, too; with `lines`, inputs and outputs.
    pub(crate) fn live(
        &self,
        visitor: &Visitor,
        first: Receiver<Arc<Event>>,
        status: bool,
        lines: bool,
    ) -> Result<Stream, TooMany> {
        self.make(visitor, What::Live { first, status, lines })
    }

    /// These lines, and those to come.
    pub(crate) fn log(&self, visitor: &Visitor, lines: Vec<String>, follower: LogFollower) -> Result<Stream, TooMany> {
        self.make(visitor, What::Log { lines, follower: Arc::new(Mutex::new(follower)) })
    }

    /// So many bytes of a file.
    pub(crate) fn file(&self, visitor: &Visitor, file: File, length: u64) -> Result<Stream, TooMany> {
        self.make(visitor, What::File { file, length })
    }

    /// Events of the database, as text.
    fn export(&self, visitor: &Visitor, query: Query, format: Format) -> Result<Stream, TooMany> {
        let place = Place::take(&self.exports, MOST_EXPORTS)?;
        self.make(visitor, What::Export { query: Box::new(query), format, _place: place })
    }

    /// The same as a file to be kept.
    pub(crate) fn export_file(&self, visitor: &Visitor, query: Query, format: Format) -> Result<Response, TooMany> {
        let name = match format {
            Format::JsonLines => "events.jsonl",
            Format::Csv => "events.csv",
        };
        Ok(Response::stream(self.export(visitor, query, format)?)
            .with("Content-Type", format.content_type())
            .with("Content-Disposition", format!("attachment; filename=\"{name}\"")))
    }

    fn make(&self, visitor: &Visitor, what: What) -> Result<Stream, TooMany> {
        let place = Place::take(&self.open, MOST)?;
        Ok(Stream { visitor: visitor.clone(), what, _place: place })
    }

    /// Puts one down for the guard; the answer is the key.
    pub(crate) fn put(&self, stream: Stream) -> String {
        let key = self.last.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // The guard may have given up.
        waiting.retain(|_, (since, _)| since.elapsed() < LEFT);
        waiting.insert(key, (Instant::now(), stream));
        key.to_string()
    }

    /// Takes one up.
    pub(crate) fn take(&self, key: &str) -> Option<Stream> {
        let key = key.parse().ok()?;
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&key).map(|(_, stream)| stream)
    }
}

impl Stream {
    /// Whether it ends by itself.
    pub(crate) fn has_end(&self) -> bool {
        matches!(self.what, What::File { .. } | What::Export { .. })
    }

    /// Begins to send: the length, if it is known, and the parts.
    pub(crate) fn run(self, web: &Arc<Web>) -> (Option<u64>, mpsc::Receiver<Part>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let web = Arc::clone(web);
        let Self { visitor, what, _place: place } = self;
        let length = match &what {
            What::File { length, .. } => Some(*length),
            What::Live { .. } | What::Log { .. } | What::Export { .. } => None,
        };
        tokio::spawn(async move {
            let _place = place;
            match what {
                What::Live { first, status, lines } => live(&web, &visitor, &sender, first, status, lines).await,
                What::Log { lines, follower } => log(&web, &visitor, &sender, lines, follower).await,
                What::File { file, length } => send_file(&web, &visitor, &sender, file, length).await,
                What::Export { query, format, _place } => export(&web, &visitor, sender, *query, format).await,
            }
        });
        (length, receiver)
    }
}

fn may_look(web: &Web, visitor: &Visitor) -> bool {
    web.auth.still(Instant::now(), visitor).caller().is_some()
}

/// The next frame of a kind, or how many were lost; waits for ever when that kind is not wanted.
async fn next(receiver: &mut Option<broadcast::Receiver<Bytes>>) -> Result<Bytes, u64> {
    let Some(receiver) = receiver else { return std::future::pending().await };
    match receiver.recv().await {
        Ok(frame) => Ok(frame),
        Err(broadcast::error::RecvError::Lagged(lost)) => Err(lost),
        Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
    }
}

/// All that a queue holds, and what is missing in it.
fn frames_of(queue: Receiver<Arc<Event>>) -> Vec<Bytes> {
    let mut frames = Vec::new();
    loop {
        match queue.try_next() {
            Next::Item(event) => frames.push(super::live::event_frame(&event)),
            Next::Gap(lost) => frames.push(frame(None, "gap", &lost.to_string())),
            Next::Empty | Next::Closed => return frames,
        }
    }
}

fn all_lines(web: &Web) -> Bytes {
    let (fresh, lines) = web.service.seen_lines();
    super::live::lines_frame(fresh, &lines)
}

/// Turns that all streams have at the same moments: hundreds that sleep on their own would wake the processor hundreds of times.
fn together(period: Duration) -> Interval {
    static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
    let passed = BEGINNING.elapsed().as_nanos() % period.as_nanos();
    let left = period.saturating_sub(Duration::from_nanos(u64::try_from(passed).unwrap_or(0)));
    interval_at((Instant::now() + left).into(), period)
}

async fn live(
    web: &Web,
    visitor: &Visitor,
    sender: &mpsc::Sender<Part>,
    first: Receiver<Arc<Event>>,
    status: bool,
    lines: bool,
) {
    // First this: what happens from now on comes here, and until now by `first`.
    let mut events = Some(web.live.subscribe());
    let mut statuses = status.then(|| web.live.subscribe_status());
    let mut lines = lines.then(|| web.live.subscribe_lines());
    let first = frames_of(first);
    // What happened just now may come by both ways.
    let mut sent: HashSet<Bytes> = first.iter().cloned().collect();
    let start = std::iter::once(Bytes::from_static(RETRY))
        .chain(web.live.latest().filter(|_| status))
        .chain(lines.is_some().then(|| all_lines(web)));
    for part in start.chain(first) {
        if sender.send(Ok(part)).await.is_err() {
            return;
        }
    }
    // Whether or not there is something to say.
    let mut looks = together(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut told = Instant::now();
    loop {
        let part = tokio::select! {
            event = next(&mut events) => match event {
                Ok(event) if sent.remove(&event) => continue,
                Ok(event) => event,
                Err(lost) => frame(None, "gap", &lost.to_string()),
            },
            // The next one says all that a lost one said.
            status = next(&mut statuses) => match status {
                Ok(status) => status,
                Err(_) => continue,
            },
            part = next(&mut lines) => part.unwrap_or_else(|_| all_lines(web)),
            _ = looks.tick() => {
                if !may_look(web, visitor) {
                    let _ = sender.try_send(Ok(frame(None, "end", "\"logged out\"")));
                    return;
                }
                if told.elapsed() < ALIVE {
                    continue;
                }
                Bytes::from_static(COMMENT)
            }
            () = sender.closed() => return,
        };
        told = Instant::now();
        // A client that is so far behind is better off with a new beginning: it asks for what it has missed.
        if sender.try_send(Ok(part)).is_err() {
            return;
        }
    }
}

async fn log(
    web: &Web,
    visitor: &Visitor,
    sender: &mpsc::Sender<Part>,
    mut lines: Vec<String>,
    follower: Arc<Mutex<LogFollower>>,
) {
    let mut turns = interval(LOG_TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Instant::now();
    if sender.send(Ok(Bytes::from_static(RETRY))).await.is_err() {
        return;
    }
    loop {
        // The first tick is at once.
        tokio::select! {
            _ = turns.tick() => {}
            () = sender.closed() => return,
        }
        if !may_look(web, visitor) {
            let _ = sender.try_send(Ok(frame(None, "end", "\"logged out\"")));
            return;
        }
        if !lines.is_empty() {
            told = Instant::now();
            // Texts can always be written.
            let text = serde_json::to_string(&lines).unwrap_or_default();
            if sender.send(Ok(frame(None, "lines", &text))).await.is_err() {
                return;
            }
        } else if told.elapsed() >= ALIVE {
            told = Instant::now();
            if sender.send(Ok(Bytes::from_static(COMMENT))).await.is_err() {
                return;
            }
        }
        let follower = Arc::clone(&follower);
        let poll = move || follower.lock().unwrap_or_else(PoisonError::into_inner).poll();
        match blocking::turn(poll).await {
            Ok(more) => lines = more,
            Err(error) => {
                let text = serde_json::to_string(&error.to_string()).unwrap_or_default();
                let _ = sender.send(Ok(frame(None, "end", &text))).await;
                return;
            }
        }
    }
}

async fn send_file(web: &Web, visitor: &Visitor, sender: &mpsc::Sender<Part>, mut file: File, length: u64) {
    let mut left = length;
    while left > 0 && may_look(web, visitor) {
        let wanted = left.min(PART);
        let read = tokio::task::spawn_blocking(move || {
            let mut part = Vec::new();
            (&file).take(wanted).read_to_end(&mut part).map(|_| (part, file))
        });
        // A file that became shorter: the connection is broken off, so the client knows.
        let Ok(Ok((part, back))) = read.await else { return };
        if part.is_empty() {
            return;
        }
        left -= part.len() as u64;
        file = back;
        if sender.send(Ok(Bytes::from(part))).await.is_err() {
            return;
        }
    }
}

async fn export(web: &Arc<Web>, visitor: &Visitor, sender: mpsc::Sender<Part>, query: Query, format: Format) {
    let Some(caller) = visitor.caller().cloned() else { return };
    let (own, parts, somebody) = (Arc::clone(web), sender.clone(), visitor.clone());
    let done = blocking::call(move || {
        // A client that takes nothing is hung up on by the guard, and then there is nobody to send to.
        own.service.export_events(&caller, &query, format, &mut |part| {
            may_look(&own, &somebody) && parts.blocking_send(Ok(part.into())).is_ok()
        })
    });
    if let Err(error) = done.await {
        let _ = sender.send(Err(io::Error::other(error.to_string()))).await;
    } else if !may_look(web, visitor) {
        let _ = sender.send(Err(io::Error::other("logged out"))).await;
    }
}

/// Names the stream that the guard is to send; stays inside.
pub(crate) const STREAM: &str = "x-multus-stream";
/// How long an `EventSource` waits before it connects again.
const RETRY: &[u8] = b"retry: 2000\n\n";
/// Shows that the line is there, and finds out if it is not.
const COMMENT: &[u8] = b":\n\n";
const ALIVE: Duration = Duration::from_secs(15);
/// How soon a log-out ends a stream.
const LOOK: Duration = Duration::from_millis(500);
const LOG_TURN: Duration = Duration::from_millis(500);
/// Parts that wait for the client.
const QUEUE: usize = 64;
/// Streams at one time; fewer than there may be connections, so that some are left for requests.
const MOST: usize = 192;
/// Each may hold a thread for blocking calls, as long as the client takes what comes.
const MOST_EXPORTS: usize = 2;
const LEFT: Duration = Duration::from_secs(60);
const PART: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::super::testing::{admin, web};
    use super::*;
    use crate::service::Caller;
    use crate::testing::event;

    /// What a stream sends until there is `end` in it.
    async fn sent(parts: &mut mpsc::Receiver<Part>, end: &str) -> String {
        let mut text = String::new();
        while !text.contains(end) {
            let part = parts.recv().await.expect("it goes on").expect("nothing breaks it off");
            text.push_str(std::str::from_utf8(&part).expect("text"));
        }
        text
    }

    #[tokio::test]
    async fn whoever_comes_back_gets_all_that_is_kept_and_the_number_of_what_is_not() {
        let root = tempfile::tempdir().expect("a directory");
        let web = Arc::new(web(root.path()));
        let visitor = admin(&web);
        let happens = |seq| web.service.happens(event(1, seq, "ready"));
        (10..13).for_each(happens);
        let missed = |last: u64| web.service.follow_events(&Caller::own(), Some(last + 1)).expect("there is room");
        let queue = missed(4);
        // Between the worker and the guard.
        happens(13);
        let stream = web.streams.live(&visitor, queue, false, false).expect("there is room");
        let (_, mut parts) = stream.run(&web);
        let text = sent(&mut parts, "id: 13").await;
        let words: Vec<&str> = text.lines().filter(|line| line.starts_with("id:") || line.contains("gap")).collect();
        assert_eq!(words, ["event: gap", "id: 10", "id: 11", "id: 12", "id: 13"], "{text}");
        assert!(text.contains("data: 5\n"), "{text}");

        // More than a queue holds: the end of it, and how many are missing.
        (14..2014).for_each(happens);
        let stream = web.streams.live(&visitor, missed(13), false, false).expect("there is room");
        let (_, mut parts) = stream.run(&web);
        let text = sent(&mut parts, "id: 2013").await;
        assert_eq!(text.matches("event: event").count() as u64 + 976, 2000, "{}", &text[..200]);
        assert!(text.contains("event: gap\ndata: 976\n"), "{}", &text[..200]);
    }
}
