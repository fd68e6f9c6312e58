//! A gRPC server on a port of this machine, with limits that fit small questions.

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Server;
use tonic::transport::server::{Connected as _, TcpConnectInfo};

use crate::connection::Connection;

/// Connections as they come, of which at most [`CONNECTIONS`] are open; one more is closed at once.
pub type Incoming = Pin<Box<dyn Stream<Item = io::Result<Connection<TcpConnectInfo>>> + Send>>;

/// Serves for ever on 127.0.0.1. A port that is taken is tried again and again: the child goes on meanwhile.
///
/// `serve` adds the services to a server and runs it:
/// `|server, incoming| server.add_service(...).serve_with_incoming(incoming)`.
pub async fn for_ever<F, E>(port: u16, serve: impl Fn(Server, Incoming) -> F)
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
                serve(server(KEEP_ALIVE), incoming(listener)).await.map_err(|error| error.to_string())
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

fn incoming(listener: TcpListener) -> Incoming {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    Box::pin(TcpListenerStream::new(listener).filter_map(move |stream| {
        let place = Arc::clone(&places).try_acquire_owned().ok()?;
        Some(stream.map(|stream| {
            let peer = stream.connect_info();
            Connection::new(stream, peer, LONGEST_SILENCE, place)
        }))
    }))
}

/// A server with limits that fit small questions; a peer that does not answer a ping within `keep_alive` is gone.
pub fn server(keep_alive: Duration) -> Server {
    Server::builder()
        .concurrency_limit_per_connection(STREAMS)
        .max_concurrent_streams(u32::try_from(STREAMS).ok())
        .http2_keepalive_interval(Some(keep_alive))
        .http2_keepalive_timeout(Some(keep_alive))
        .http2_max_header_list_size(LARGEST_HEADERS)
        .timeout(LONGEST_CALL)
}

/// Largest message that a service takes, bytes: questions are nearly empty.
pub const LARGEST_MESSAGE: usize = 64 * 1024;
/// Connections at one time.
pub const CONNECTIONS: usize = 64;
const LARGEST_HEADERS: u32 = 16 * 1024;
const STREAMS: usize = 16;
/// From ping to ping, and how long an answer is waited for.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Longer than two pings and their answers.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
const LONGEST_CALL: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn one_connection_too_many_is_closed_and_a_place_is_free_again() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = incoming(listener);
        let (mut clients, mut held) = (Vec::new(), Vec::new());
        for _ in 0..CONNECTIONS {
            clients.push(TcpStream::connect(address).await.unwrap());
            held.push(incoming.next().await.unwrap().unwrap());
        }
        let (one_more, next) = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address));
        let taken = tokio::spawn(async move { incoming.next().await.unwrap().unwrap().connect_info() });
        one_more.readable().await.unwrap();
        assert_eq!(one_more.try_read(&mut [0; 1]).unwrap(), 0, "closed");
        held.pop();
        let next = next.await.unwrap();
        assert_eq!(taken.await.unwrap().remote_addr(), Some(next.local_addr().unwrap()));
    }
}
