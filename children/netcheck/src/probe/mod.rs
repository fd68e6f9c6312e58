//! One question to one target, and the time until its answer.

mod dns;
mod http;
mod icmp;

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use multus_child::Interval;
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::netlink::{self, Neighbour, Router};
use crate::target::{Host, Question, Target};

/// `Ok(None)`: it answered, but there is no time for it.
pub(crate) type Result = std::result::Result<Option<Duration>, String>;

/// Asks one target through `interface`, or whatever way the routes say. Takes no longer than `patience`.
pub(crate) async fn ask(target: &Target, interface: Option<&str>, patience: Duration) -> Result {
    let asked = async {
        let address = resolve(&target.host).await?;
        match &target.question {
            Question::Ping => icmp::ping(SocketAddr::new(address, 0), interface).await,
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

/// Asks a router: it answers a ping, or at least its address is resolved anew (there are some that answer no ping).
pub(crate) async fn ask_router(router: &Router, patience: Duration) -> Result {
    let address = match router.address {
        IpAddr::V6(address) if address.is_unicast_link_local() => SocketAddrV6::new(address, 0, 0, router.index).into(),
        address => SocketAddr::new(address, 0),
    };
    let interface = (!router.interface.is_empty()).then_some(router.interface.as_str());
    let refused = match timeout(patience, icmp::ping(address, interface)).await {
        Ok(Ok(time)) => return Ok(Some(time)),
        Ok(Err(reason)) => reason,
        Err(_) => format!("no answer within {}", Interval::from(patience)),
    };
    let end = Instant::now() + NEIGHBOUR_PATIENCE;
    loop {
        // Sending the ping made the kernel find out whether the neighbour is still there.
        match netlink::neighbour(router.address, router.index) {
            Ok(Neighbour::Confirmed) => return Ok(None),
            Ok(Neighbour::InQuestion) if Instant::now() < end => tokio::time::sleep(NEIGHBOUR_LOOK).await,
            Ok(Neighbour::InQuestion) => return Err(refused),
            Ok(Neighbour::Absent) => return Err(format!("{refused}, and its address is not resolved")),
            Err(error) => return Err(format!("{refused}; the neighbour table cannot be read: {error}")),
        }
    }
}

/// The resolver of the system may take its time; who asks has a time-out.
async fn resolve(host: &Host) -> std::result::Result<IpAddr, String> {
    match host {
        Host::Address(address) => Ok(*address),
        Host::Name(name) => {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let mut found = found.map_err(|error| format!("{name} cannot be resolved: {error}"))?;
            found.next().map(|found| found.ip()).ok_or_else(|| format!("{name} has no address"))
        }
    }
}

async fn connect(address: SocketAddr, interface: Option<&str>) -> std::result::Result<tokio::net::TcpStream, String> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|error| format!("no socket: {error}"))?;
    socket.bind_device(interface.map(str::as_bytes)).map_err(|error| not_through(interface, &error))?;
    socket.connect(address).await.map_err(|error| format!("no connection: {error}"))
}

/// A socket that sends through `interface` only.
fn socket(
    address: SocketAddr,
    kind: socket2::Type,
    protocol: socket2::Protocol,
    interface: Option<&str>,
) -> std::io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), kind.nonblocking(), Some(protocol))?;
    if interface.is_some() {
        let bound = socket.bind_device(interface.map(str::as_bytes));
        bound.map_err(|error| std::io::Error::new(error.kind(), not_through(interface, &error)))?;
    }
    socket.connect(&address.into())?;
    Ok(socket)
}

fn not_through(interface: Option<&str>, error: &std::io::Error) -> String {
    let interface = interface.unwrap_or_default();
    // ENODEV, see socket(7) and errno(3).
    if error.raw_os_error() == Some(19) {
        format!("there is no interface {interface}")
    } else {
        format!("cannot send through {interface}: {error}")
    }
}

/// A stale entry is first trusted for 5 s (delay_first_probe_time), then asked for three times in 3 s, see arp(7).
const NEIGHBOUR_PATIENCE: Duration = Duration::from_secs(9);
const NEIGHBOUR_LOOK: Duration = Duration::from_millis(500);
