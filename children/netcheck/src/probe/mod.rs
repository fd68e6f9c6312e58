//! One question to one target, and the time until its answer.

mod dns;
mod http;
mod resolve;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use multus_child::Interval;
use multus_net::{not_through, ping};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::target::{Question, Target};
use resolve::resolve;

/// `Ok(None)`: it answered, but there is no time for it.
pub(crate) type Result = std::result::Result<Option<Duration>, String>;

/// Asks one target through `interface`, or whatever way the routes say. Takes no longer than `patience`.
pub(crate) async fn ask(target: &Target, interface: Option<&str>, patience: Duration) -> Result {
    let asked = async {
        let address = resolve(&target.host).await?;
        match &target.question {
            Question::Ping => ping(SocketAddr::new(address, 0), interface).await,
            Question::Connect { port } => {
                let begun = Instant::now();
                connect(SocketAddr::new(address, *port), interface).await?;
                Ok(begun.elapsed())
            }
            Question::Lookup { name } => dns::look_up(SocketAddr::new(address, 53), name, interface).await,
            Question::Page { port, path } => {
                let begun = Instant::now();
                let stream = connect(SocketAddr::new(address, *port), interface).await?;
                http::get(stream, &target.host.to_string(), path).await?;
                Ok(begun.elapsed())
            }
        }
    };
    match timeout(patience, asked).await {
        Ok(answered) => answered.map(Some),
        Err(_) => Err(format!("no answer within {}", Interval::from(patience))),
    }
}

async fn connect(address: SocketAddr, interface: Option<&str>) -> std::result::Result<tokio::net::TcpStream, String> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|error| format!("no socket: {error}"))?;
    if interface.is_some() {
        // Before Linux 5.7 even to bind to none needs rights.
        socket.bind_device(interface.map(str::as_bytes)).map_err(|error| not_through(interface, &error))?;
    }
    socket.connect(address).await.map_err(|error| format!("no connection: {error}"))
}
