//! The workers: tiny_http on a private socket, and threads that answer.
//!
//! Only the guard can reach the socket (its directory is private) and it sends nothing but whole, small, well-formed
//! requests, one on each connection. That is what makes tiny_http safe here: by itself it has no limits and no time-outs.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use multus_child::Error;
use tiny_http::{Header, Server};

use super::Web;
use super::problem::Problem;
use super::request::{Method, Request};
use super::response::Response;
use super::streams::STREAM;

/// The workers' socket. The directory goes with it.
#[derive(Debug)]
pub(crate) struct Workers {
    dir: PathBuf,
}

impl Workers {
    /// Starts them. The private directory is made in `runtime_dir`, or where that is not possible (it belongs to another
    /// user, or its name is too long for a socket) in that for temporary files.
    ///
    /// # Errors
    /// No directory, no socket or no thread can be had.
    pub(crate) fn start(web: &Arc<Web>, runtime_dir: &Path) -> Result<Self, Error> {
        forget_the_dead(runtime_dir);
        let workers = private_dir(runtime_dir).or_else(|_| private_dir(&std::env::temp_dir()))?;
        let listener = UnixListener::bind(workers.socket())?;
        let server = Arc::new(Server::from_listener(listener, None).map_err(|error| format!("workers: {error}"))?);
        for number in 0..THREADS {
            let (server, web) = (Arc::clone(&server), Arc::clone(web));
            std::thread::Builder::new().name(format!("http {number}")).spawn(move || work(&server, &web))?;
        }
        Ok(workers)
    }

    /// Where they take requests.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join(SOCKET)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // What is left there is an empty directory and a dead socket.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What a process that was killed left behind: directories whose socket nobody answers.
fn forget_the_dead(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let gone = || {
            UnixStream::connect(entry.path().join(SOCKET))
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        };
        if is_ours && gone() {
            // If it cannot be removed it costs nothing but its name.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn private_dir(parent: &Path) -> io::Result<Workers> {
    let name = crate::auth::random_name()?;
    let dir = parent.join(format!("{PREFIX}{name}"));
    if dir.as_os_str().len() + 2 > LONGEST_SOCKET {
        return Err(ErrorKind::InvalidFilename.into());
    }
    DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(Workers { dir })
}

fn work(server: &Server, web: &Web) {
    loop {
        match server.recv() {
            Ok(mut wire) => {
                let response = answer(&mut wire, web);
                // The guard may have given up meanwhile.
                let _ = wire.respond(outgoing(response, web));
            }
            Err(error) => {
                // It does not come back by itself: whoever watches this process starts it again.
                log::error!("the workers' socket failed: {error}");
                std::process::exit(1);
            }
        }
    }
}

fn answer(wire: &mut tiny_http::Request, web: &Web) -> Response {
    match incoming(wire) {
        Ok(request) => super::answer::answer(web, &request),
        Err(problem) => problem.response(),
    }
}

fn incoming(wire: &mut tiny_http::Request) -> Result<Request, Problem> {
    let internal = |name: &str| {
        let header = wire.headers().iter().find(|header| header.field.as_str().as_str().eq_ignore_ascii_case(name));
        header.map(|header| header.value.as_str())
    };
    let foreign = || Problem::bad("this did not come from the guard");
    let peer: IpAddr = internal(PEER).and_then(|peer| peer.parse().ok()).ok_or_else(foreign)?;
    let secure = internal(SECURE) == Some("1");
    let method = Method::from_word(wire.method().as_str()).ok_or_else(foreign)?;
    let headers = wire.headers().iter().map(|header| (header.field.as_str().as_str(), header.value.as_str()));
    let mut request = Request::new(method, wire.url(), headers, peer, secure)?;
    let mut body = Vec::new();
    wire.as_reader().take(MOST_BODY).read_to_end(&mut body).map_err(|_| foreign())?;
    request.body = body;
    Ok(request)
}

fn outgoing(response: Response, web: &Web) -> tiny_http::Response<io::Cursor<Vec<u8>>> {
    let mut wire = tiny_http::Response::from_data(response.body).with_status_code(response.status);
    let stream = response.stream.map(|stream| (STREAM, web.streams.put(stream)));
    for (name, value) in response.headers.into_iter().chain(stream) {
        if let Ok(header) = Header::from_bytes(name, value) {
            wire.add_header(header);
        }
    }
    // Never in chunks: the guard takes it in as a whole anyway.
    wire.with_chunked_threshold(usize::MAX)
}

/// Threads that answer. Most wait for the daemon or the disk.
pub(crate) const THREADS: usize = 8;
/// Who sends the request; only the guard can say it.
pub(crate) const PEER: &str = "x-multus-peer";
/// Whether it came over TLS.
pub(crate) const SECURE: &str = "x-multus-secure";
const PREFIX: &str = "web-";
const SOCKET: &str = "s";
/// The guard has counted.
const MOST_BODY: u64 = 1 << 20;
/// `sun_path` in unix(7), with its zero byte.
const LONGEST_SOCKET: usize = 107;
