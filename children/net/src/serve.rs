//! A gRPC server on a port of this machine, with limits that fit small questions.

use std::fmt::Display;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// The port of an instance: `port` + `instance`.
///
/// # Errors
/// It is beyond 65535.
pub fn port_of(port: u16, instance: u32) -> Result<u16, String> {
    let port = u32::from(port).saturating_add(instance);
    u16::try_from(port).map_err(|_| format!("port {port} of this instance is beyond 65535"))
}

/// Serves for ever on 127.0.0.1. A port that is taken is tried again and again: the child goes on meanwhile.
///
/// `serve` adds the services to a server and runs it:
/// `|server, incoming| server.add_service(...).serve_with_incoming(incoming)`.
pub async fn for_ever<F, E>(port: u16, serve: impl Fn(Server, TcpListenerStream) -> F)
where
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut told = false;
    loop {
        let served = match TcpListener::bind(address).await {
            Ok(listener) => {
                log::info!("listening on {address}");
                told = false;
                serve(server(), TcpListenerStream::new(listener)).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = served
            && !told
        {
            log::error!("gRPC on {address}: {error}; trying again every {} s", AGAIN.as_secs());
            told = true;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn server() -> Server {
    Server::builder()
        .concurrency_limit_per_connection(STREAMS)
        .max_concurrent_streams(u32::try_from(STREAMS).ok())
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .http2_max_header_list_size(LARGEST_HEADERS)
        .timeout(LONGEST_CALL)
}

/// Largest message that a service takes, bytes: questions are nearly empty.
pub const LARGEST_MESSAGE: usize = 64 * 1024;
const LARGEST_HEADERS: u32 = 16 * 1024;
const STREAMS: usize = 16;
/// A peer that does not answer a ping for this long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const LONGEST_CALL: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(5);
