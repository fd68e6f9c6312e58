//! The body of an answer on its way to the client.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::sync::mpsc;

use super::super::streams::Part;
use super::pulse::{Phase, Pulse};

/// All at once, or bit by bit.
#[derive(Debug)]
pub(crate) struct Body {
    kind: Kind,
    /// Told when the answer is sent, or given up.
    pulse: Option<Arc<Pulse>>,
}

#[derive(Debug)]
enum Kind {
    Whole(Bytes),
    Parts { parts: mpsc::Receiver<Part>, left: Option<u64> },
}

impl Body {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self { kind: Kind::Whole(bytes), pulse: None }
    }

    /// What comes out of `parts`; `length` bytes, if that is known.
    pub(crate) fn parts(parts: mpsc::Receiver<Part>, length: Option<u64>) -> Self {
        Self { kind: Kind::Parts { parts, left: length }, pulse: None }
    }

    /// With a pulse that is to know when it has ended.
    pub(crate) fn watched(mut self, pulse: Arc<Pulse>) -> Self {
        self.pulse = Some(pulse);
        self
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.kind {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Parts { parts, left } => parts.poll_recv(cx).map(|part| {
                let part = match part? {
                    Ok(part) => part,
                    Err(error) => return Some(Err(error)),
                };
                if let Some(left) = left {
                    *left = left.saturating_sub(part.len() as u64);
                }
                Some(Ok(Frame::data(part)))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.kind, Kind::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Parts { left: Some(left), .. } => SizeHint::with_exact(*left),
            Kind::Parts { left: None, .. } => SizeHint::default(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(pulse) = &self.pulse {
            pulse.enter(Instant::now(), Phase::Idle);
        }
    }
}
