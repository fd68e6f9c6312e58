//! What a connection is doing and since when: the reason for every time-out.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection is doing.
///
/// ```text
///   Begin ─> Head ─> Body ─> Busy ─┬─> Sending ─> Idle ─> Head ─> ...
///                                  └─> Stream
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// It is new: TLS, or the first byte of a request, is waited for.
    Begin,
    /// A request has begun to come.
    Head,
    /// Its head is there, its body comes.
    Body,
    /// It is being worked on.
    Busy,
    /// The answer goes out.
    Sending,
    /// The answer is sent, the client may ask more.
    Idle,
    /// The answer has no end.
    Stream,
}

/// The phase of a connection and when it began, and since when it cannot write. Read by everybody, changed by the task of the
/// connection; a reader that sees old and new mixed is wrong by one look.
#[derive(Debug)]
pub(crate) struct Pulse {
    base: Instant,
    phase: AtomicU8,
    since_ms: AtomicU64,
    /// Plus one; 0: it can write.
    stuck_ms: AtomicU64,
}

impl Pulse {
    /// A connection that begins.
    pub(crate) fn new(now: Instant) -> Self {
        let zero = || AtomicU64::new(0);
        Self { base: now, phase: AtomicU8::new(Phase::Begin as u8), since_ms: zero(), stuck_ms: zero() }
    }

    /// The next phase begins.
    pub(crate) fn enter(&self, now: Instant, phase: Phase) {
        self.since_ms.store(self.ms(now), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// How long the client is waited for; `None`: it is not.
    pub(crate) fn waits_for_client(&self, now: Instant) -> Option<Duration> {
        let waits = matches!(self.phase(), Phase::Begin | Phase::Head | Phase::Body | Phase::Idle);
        waits.then(|| self.age(now, self.since_ms.load(Ordering::Relaxed)))
    }

    /// How long the connection may go on as it is; `None`: it is over.
    pub(crate) fn patience(&self, now: Instant) -> Option<Duration> {
        let limit = match self.phase() {
            Phase::Begin | Phase::Head => HEAD,
            Phase::Body => BODY,
            Phase::Busy => BUSY,
            Phase::Sending => SENDING,
            Phase::Idle => IDLE,
            Phase::Stream => Duration::MAX,
        };
        let left = limit.checked_sub(self.age(now, self.since_ms.load(Ordering::Relaxed)))?;
        let writes = match self.stuck_ms.load(Ordering::Relaxed).checked_sub(1) {
            None => STUCK,
            Some(since) => STUCK.checked_sub(self.age(now, since))?,
        };
        Some(left.min(writes)).filter(|left| !left.is_zero())
    }

    fn phase(&self) -> Phase {
        let phase = self.phase.load(Ordering::Relaxed);
        [Phase::Begin, Phase::Head, Phase::Body, Phase::Busy, Phase::Sending, Phase::Idle]
            .into_iter()
            .find(|known| *known as u8 == phase)
            .unwrap_or(Phase::Stream)
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.base).as_millis()).unwrap_or(u64::MAX)
    }

    fn age(&self, now: Instant, since_ms: u64) -> Duration {
        Duration::from_millis(self.ms(now).saturating_sub(since_ms))
    }

    fn read_some(&self) {
        if self.phase() == Phase::Idle {
            self.enter(Instant::now(), Phase::Head);
        }
    }

    fn wrote(&self, could: bool) {
        if could {
            self.stuck_ms.store(0, Ordering::Relaxed);
        } else if self.stuck_ms.load(Ordering::Relaxed) == 0 {
            self.stuck_ms.store(self.ms(Instant::now()) + 1, Ordering::Relaxed);
        }
    }
}

/// A stream whose reads and writes are noted in a [`Pulse`].
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    pulse: Arc<Pulse>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.pulse.read_some();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.pulse.wrote(wrote.is_ready());
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // A flush with nothing to do is ready at any time, also while a write is stuck.
        if flushed.is_pending() {
            self.pulse.wrote(false);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.pulse.wrote(wrote.is_ready());
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// For TLS and the head of a request: some round trips over a bad mobile line.
const HEAD: Duration = Duration::from_secs(10);
/// For a body of at most a mebibyte.
const BODY: Duration = Duration::from_secs(30);
/// Longer than anything takes that a request may ask for; the way to the workers has its own, shorter limit.
const BUSY: Duration = Duration::from_secs(90);
/// For an answer with an end, such as a log of some mebibytes over a slow line.
const SENDING: Duration = Duration::from_secs(900);
/// Between two requests.
const IDLE: Duration = Duration::from_secs(60);
/// A client that takes nothing for so long is gone.
const STUCK: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_has_its_time() {
        let start = Instant::now();
        let pulse = Pulse::new(start);
        let s = Duration::from_secs;
        for (phase, limit, waits) in [
            (Phase::Begin, 10, true),
            (Phase::Head, 10, true),
            (Phase::Body, 30, true),
            (Phase::Busy, 90, false),
            (Phase::Sending, 900, false),
            (Phase::Idle, 60, true),
        ] {
            pulse.enter(start + s(5), phase);
            assert_eq!(pulse.phase(), phase);
            let end = start + s(5) + s(limit);
            assert_eq!(pulse.patience(end - s(1)), Some(s(1)), "{phase:?}");
            assert_eq!(pulse.patience(end), None, "{phase:?}");
            assert_eq!(pulse.waits_for_client(end).is_some(), waits, "{phase:?}");
        }
        pulse.enter(start, Phase::Stream);
        assert!(pulse.patience(start + s(100_000)).is_some());
        pulse.stuck_ms.store(1 + 7000, Ordering::Relaxed);
        assert_eq!(pulse.patience(start + s(36)), Some(s(1)));
        assert_eq!(pulse.patience(start + s(37)), None, "nothing was taken for 30 s");
        pulse.wrote(true);
        assert!(pulse.patience(start + s(37)).is_some());
    }
}
