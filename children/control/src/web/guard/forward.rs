//! The way to the workers: one whole request on one connection to their private socket, and one whole answer back.
//!
//! The answer is taken in before any of it goes to the client, so a slow client never holds a worker.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::super::problem::Problem;
use super::super::request::{HEADERS, Request};
use super::super::worker::{PEER, SECURE, THREADS};

/// The private socket, and who may use it.
#[derive(Debug)]
pub(crate) struct Forward {
    socket: PathBuf,
    /// Requests that a worker has or is about to get.
    workers: Semaphore,
    /// Those, and the ones that wait.
    places: Semaphore,
}

impl Forward {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket, workers: Semaphore::new(THREADS), places: Semaphore::new(THREADS + QUEUE) }
    }

    /// Lets a worker answer. `target` is path and query as they were sent; the body is the request's.
    pub(crate) async fn send(&self, target: &str, request: Request) -> Result<hyper::Response<Bytes>, Problem> {
        let busy = || Problem::later(503, 1, "too many requests at once; try again in a second");
        let _place = self.places.try_acquire().map_err(|_| busy())?;
        let _worker: SemaphorePermit<'_> = match timeout(WAIT, self.workers.acquire()).await {
            Ok(Ok(permit)) => permit,
            _ => return Err(busy()),
        };
        match timeout(PATIENCE, self.exchange(target, request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                log::error!("no answer from the workers: {error}");
                Err(Problem::later(503, 1, "the request could not be handed on; try again"))
            }
            Err(_) => {
                log::error!("no answer from the workers within {} s", PATIENCE.as_secs());
                Err(Problem::new(504, "there was no answer in time; what was asked for may still be done"))
            }
        }
    }

    async fn exchange(&self, target: &str, request: Request) -> Result<hyper::Response<Bytes>, Failure> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut wire = hyper::Request::builder().method(request.method.word()).uri(target).header(CONNECTION, "close");
        for name in HEADERS {
            for value in request.headers(name) {
                wire = wire.header(HeaderName::from_static(name), HeaderValue::from_str(value)?);
            }
        }
        let wire = wire
            .header(PEER, request.peer.to_string())
            .header(SECURE, if request.secure { "1" } else { "0" })
            .body(Full::new(Bytes::from(request.body)))?;
        let answer = sender.send_request(wire).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MOST_BYTES).collect().await?.to_bytes();
        connection.abort();
        Ok(hyper::Response::from_parts(head, body))
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Requests that wait for a worker: small ones, a few kilobytes each.
const QUEUE: usize = 128;
/// How long one waits.
const WAIT: Duration = Duration::from_secs(10);
/// Longer than the longest call of the service.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest answer that is no stream.
const MOST_BYTES: usize = 16 << 20;
