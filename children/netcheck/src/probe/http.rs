//! A page: its head must come with a status of 200 to 399; the body is not read.

use std::pin::pin;

use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Waits for ever.
pub(super) async fn get(stream: TcpStream, host: &str, path: &str) -> Result<(), String> {
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("multus-netcheck/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let opened = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = opened.map_err(|error| error.to_string())?;
    let mut answer = pin!(sender.send_request(request));
    let answered = tokio::select! {
        biased;
        answered = &mut answer => answered,
        // With the last byte of the answer the connection may end, too.
        _ = connection => answer.await,
    };
    let status = answered.map_err(|error| error.to_string())?.status();
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("status {status}")) }
}
