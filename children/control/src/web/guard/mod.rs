//! The guard: owns every connection from outside.
//!
//! It accepts, speaks TLS, takes in one whole request within limits of size and time, checks whom it is meant for, hands
//! it to the workers, and sends their answer. What it cannot take it refuses; nothing a client does costs more than one of
//! [`admission`]'s seats and the memory of one small request.
//!
//! | limit | value |
//! |---|---|
//! | head of a request | 16 KiB, 64 headers, 10 s |
//! | body | 1 MiB from somebody who is logged in, 16 KiB from others; 30 s |
//! | large bodies at one time | 16 |
//! | connections | 256, 128 of one address |
//! | requests with the workers | 8, and 128 that wait, 10 s |
//! | client that takes nothing | 30 s |
//! | between two requests | 60 s |

mod admission;
mod body;
mod forward;
mod hosts;
mod pulse;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use multus_child::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::problem::Problem;
use super::request::{HEADERS, Method, Request};
use super::statics;
use super::streams::STREAM;
use super::{Config, Web};
use crate::certificates::Certificates;
use admission::{Admission, Ticket};
use body::Body;
use forward::Forward;
use hosts::Hosts;
pub(crate) use hosts::is_host;
use pulse::{Phase, Watched};

/// Everything that connections share.
#[derive(Debug)]
pub(crate) struct Guard {
    web: Arc<Web>,
    forward: Forward,
    hosts: Hosts,
    tls: Option<Arc<Certificates>>,
    admission: Mutex<Admission>,
    /// Those that wait for a seat.
    waiting: Arc<Semaphore>,
    large_bodies: Semaphore,
}

impl Guard {
    /// For the workers behind this socket.
    ///
    /// # Errors
    /// Certificate or key cannot be used.
    pub(crate) fn new(web: Arc<Web>, config: &Config, socket: std::path::PathBuf) -> Result<Self, Error> {
        let tls = config.tls.files().map(Certificates::load).transpose()?;
        let machine = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self {
            web,
            forward: Forward::new(socket),
            hosts: Hosts::new(&config.hosts, &machine),
            tls,
            admission: Mutex::default(),
            waiting: Arc::new(Semaphore::new(WAITING)),
            large_bodies: Semaphore::new(LARGE_BODIES),
        })
    }

    /// Takes over a renewed certificate, for ever.
    pub(crate) async fn renew(&self) {
        match &self.tls {
            Some(certificates) => Arc::clone(certificates).watch().await,
            None => std::future::pending().await,
        }
    }

    /// Asks the workers something small, as a client would.
    ///
    /// # Errors
    /// They do not answer.
    pub(crate) async fn probe(&self) -> Result<(), Problem> {
        let here = std::net::Ipv4Addr::LOCALHOST.into();
        let request = Request::new(Method::Get, PROBE, std::iter::empty(), here, false)?;
        self.forward.send(PROBE, request).await.map(drop)
    }

    /// Accepts connections for ever.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut told = false;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    told = false;
                    self.take(stream, peer);
                }
                Err(error) => {
                    // A connection that broke off while it waited is nobody's problem; without descriptors, time helps.
                    if !std::mem::replace(&mut told, true) {
                        log::warn!("connections cannot be accepted: {error}");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn take(self: &Arc<Self>, mut stream: TcpStream, peer: SocketAddr) {
        let admitted = self.admission().admit(Instant::now(), peer.ip());
        let guard = Arc::clone(self);
        // When all seats were taken just now, one is free to be given on in a moment: a flood does not keep anybody out.
        let place = if admitted.is_none() { Arc::clone(&self.waiting).try_acquire_owned().ok() } else { None };
        tokio::spawn(async move {
            let mut admitted = admitted;
            for _ in 0..if place.is_some() { TRIES } else { 0 } {
                tokio::time::sleep(AGAIN).await;
                admitted = guard.admission().admit(Instant::now(), peer.ip());
                if admitted.is_some() {
                    break;
                }
            }
            drop(place);
            match admitted {
                Some(ticket) => {
                    guard.connection(stream, peer, &ticket).await;
                    guard.admission().left(ticket.number);
                }
                // The few bytes fit into the buffer of a new connection, so this never waits.
                None if guard.tls.is_none() => drop(stream.write_all(FULL).await),
                None => {}
            }
        });
    }

    fn admission(&self) -> std::sync::MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection from its begin to its end.
    async fn connection(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, ticket: &Ticket) {
        let Ok(local) = stream.local_addr() else { return };
        // Small answers shall not wait for each other.
        let _ = stream.set_nodelay(true);
        let ends = Ends { peer, local };
        let work = async {
            match &self.tls {
                None => self.serve(stream, ends, ticket).await,
                Some(certificates) => match certificates.acceptor().accept(stream).await {
                    Ok(stream) => self.serve(stream, ends, ticket).await,
                    Err(error) => log::debug!("TLS with {peer}: {error}"),
                },
            }
        };
        tokio::pin!(work);
        loop {
            let Some(patience) = ticket.pulse.patience(Instant::now()) else { return };
            tokio::select! {
                () = &mut work => return,
                () = ticket.leave.notified() => return,
                () = tokio::time::sleep(patience.max(SHORTEST_LOOK)) => {}
            }
        }
    }

    async fn serve(self: &Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin, ends: Ends, ticket: &Ticket) {
        let stream = TokioIo::new(Watched::new(stream, Arc::clone(&ticket.pulse)));
        let service =
            service_fn(|request| async move { Ok::<_, Infallible>(self.respond(request, ends, ticket).await) });
        let served = hyper::server::conn::http1::Builder::new()
            // Time-outs are those of the pulse, which tells waiting for a request from waiting for its end.
            .header_read_timeout(None)
            .max_buf_size(MOST_HEAD)
            .max_headers(MOST_HEADERS)
            .serve_connection(stream, service)
            .await;
        if let Err(error) = served {
            log::debug!("connection of {}: {error}", ends.peer);
        }
    }

    async fn respond(&self, request: hyper::Request<Incoming>, ends: Ends, ticket: &Ticket) -> hyper::Response<Body> {
        let pulse = &ticket.pulse;
        pulse.enter(Instant::now(), Phase::Body);
        let html = request
            .headers()
            .get(header::ACCEPT)
            .is_some_and(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/html")));
        let (mut answer, phase) = match self.answer(request, ends, ticket).await {
            Ok(answer) => answer,
            Err(problem) => (self.refusal(&problem, html), Phase::Sending),
        };
        protect(answer.headers_mut(), self.tls.is_some());
        pulse.enter(Instant::now(), phase);
        let pulse = Arc::clone(pulse);
        answer.map(|body| body.watched(pulse))
    }

    fn refusal(&self, problem: &Problem, html: bool) -> hyper::Response<Body> {
        let response = if html { super::pages::problem(problem, None) } else { problem.response() };
        let mut answer = hyper::Response::new(Body::whole(response.body.into()));
        *answer.status_mut() = status(response.status);
        for (name, value) in response.headers {
            put(answer.headers_mut(), name, &value);
        }
        // Whatever else comes on this connection may be the rest of what was refused.
        if matches!(response.status, 400 | 408 | 413) {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        ends: Ends,
        ticket: &Ticket,
    ) -> Result<(hyper::Response<Body>, Phase), Problem> {
        let (head, body) = request.into_parts();
        let method = Method::from_word(head.method.as_str())
            .ok_or_else(|| Problem::method("GET, HEAD, POST, PUT, PATCH, DELETE"))?;
        self.check_host(&head, ends)?;
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let headers = wanted_headers(&head.headers)?;
        let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let mut request = Request::new(method, &target, headers, ends.peer.ip().to_canonical(), self.tls.is_some())?;
        if let Some(found) = statics::answer(&request)? {
            return Ok((outgoing(found), Phase::Sending));
        }
        request.body = self.whole_body(body, &request).await?;
        ticket.pulse.enter(Instant::now(), Phase::Busy);
        let (mut head, body) = self.forward.send(&target, request).await?.into_parts();
        for name in ["connection", "date", "server", "transfer-encoding", "content-length"] {
            head.headers.remove(name);
        }
        let stream = head.headers.remove(STREAM).and_then(|key| self.web.streams.take(key.to_str().ok()?));
        let Some(stream) = stream else {
            return Ok((hyper::Response::from_parts(head, Body::whole(body)), Phase::Sending));
        };
        let phase = if stream.has_end() { Phase::Sending } else { Phase::Stream };
        // Where it breaks off, the connection is over: nothing else was meant to come on it.
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let (length, parts) = stream.run(&self.web);
        Ok((hyper::Response::from_parts(head, Body::parts(parts, length)), phase))
    }

    fn check_host(&self, head: &hyper::http::request::Parts, ends: Ends) -> Result<(), Problem> {
        let mut hosts = head.headers.get_all(header::HOST).iter();
        let host = hosts.next().ok_or_else(|| Problem::bad("the Host header is missing"))?;
        if hosts.next().is_some() {
            return Err(Problem::bad("there is more than one Host header"));
        }
        let host = host.to_str().map_err(|_| Problem::bad("the Host header is not text"))?;
        let is_ours = |authority: &str| self.hosts.is_ours(authority, ends.local.ip());
        // With the absolute form, that is what counts (RFC 9112, 3.2.2); the header must be good all the same.
        let absolute = head.uri.authority().map(hyper::http::uri::Authority::as_str);
        if !is_ours(host) || absolute.is_some_and(|authority| !is_ours(authority)) {
            let detail = "this machine does not answer to that name; if it should, add it to hosts in [web] of config/control.toml";
            return Err(Problem::new(421, detail));
        }
        if !matches!(head.uri.scheme_str(), None | Some("http" | "https")) || head.uri.path().is_empty() {
            return Err(Problem::bad("the target of the request is not a path"));
        }
        Ok(())
    }

    /// Takes in the body. Strangers are given little memory: what they may send is small.
    async fn whole_body(&self, body: Incoming, request: &Request) -> Result<Vec<u8>, Problem> {
        let declared = body.size_hint().exact();
        if declared == Some(0) {
            return Ok(Vec::new());
        }
        let known = self.web.visitor(Instant::now(), request).is_ok_and(|visitor| visitor.caller().is_some());
        let limit = if known { MOST_BODY } else { MOST_BODY_OF_STRANGERS };
        let too_large = || Problem::new(413, format!("at most {limit} bytes are taken"));
        if declared.is_some_and(|declared| declared > limit as u64) {
            return Err(too_large());
        }
        let mut body = body;
        let (mut whole, mut permit) = (Vec::new(), None);
        let taken = tokio::time::timeout(BODY_TIME, async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| Problem::bad("the body broke off, or is not framed as it should"))?;
                let Ok(part) = frame.into_data() else { continue };
                if whole.len() + part.len() > limit {
                    return Err(too_large());
                }
                whole.extend_from_slice(&part);
                if whole.len() > MOST_BODY_OF_STRANGERS && permit.is_none() {
                    let busy = |_| Problem::later(503, 1, "too many large requests at once; try again in a second");
                    permit = Some(self.large_bodies.try_acquire().map_err(busy)?);
                }
            }
            Ok(())
        });
        taken.await.unwrap_or_else(|_| Err(Problem::new(408, "the body did not come in time")))?;
        Ok(whole)
    }
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
struct Ends {
    peer: SocketAddr,
    local: SocketAddr,
}

/// Those that anything behind looks at. Internal ones cannot come from outside: they are not among them.
fn wanted_headers(headers: &HeaderMap) -> Result<Vec<(&'static str, String)>, Problem> {
    let mut wanted = Vec::new();
    for name in HEADERS {
        for value in headers.get_all(name) {
            let value = value.to_str().map_err(|_| Problem::bad(format!("the header {name} is not text")))?;
            wanted.push((name, value.to_owned()));
        }
    }
    for name in ["content-type", "authorization", "x-csrf-token", "origin"] {
        if wanted.iter().filter(|(known, _)| *known == name).count() > 1 {
            return Err(Problem::bad(format!("there is more than one header {name}")));
        }
    }
    Ok(wanted)
}

fn outgoing(response: super::response::Response) -> hyper::Response<Body> {
    let mut answer = hyper::Response::new(Body::whole(Bytes::from(response.body)));
    *answer.status_mut() = status(response.status);
    for (name, value) in response.headers {
        put(answer.headers_mut(), name, &value);
    }
    answer
}

fn status(status: u16) -> hyper::StatusCode {
    hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR)
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
        headers.append(name, value);
    }
}

/// The headers of every answer. Nothing of ours needs a script or a style in the page itself, a frame, or another host.
fn protect(headers: &mut HeaderMap, secure: bool) {
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if secure {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
}

/// `unsafe-inline` nowhere: not even what somebody manages to write into a page can run.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'";
const PROBE: &str = "/api/v1/setup";
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const MOST_HEAD: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;
const MOST_BODY: usize = 1 << 20;
/// A log-in or a first set-up is far smaller.
const MOST_BODY_OF_STRANGERS: usize = 16 * 1024;
/// Connections that wait for a seat: some hundred that come in one moment do not refuse the one after them. With the seats and
/// the sockets to the workers they are still below the usual limit of 1024 descriptors.
const WAITING: usize = 320;
/// How often they look, and from look to look.
const TRIES: u32 = 10;
const AGAIN: Duration = Duration::from_millis(25);
/// Larger bodies than those of strangers, at one time.
const LARGE_BODIES: usize = 16;
/// A little less than the pulse gives, so that the client is told.
const BODY_TIME: Duration = Duration::from_secs(25);
/// Nobody needs to look more often.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);
