//! What the kernel knows of interfaces, routes and neighbours: rtnetlink(7).
//!
//! The kernel answers a question at once, so these calls do not wait; only [`follow`] does, for news.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sys::socket::{
    AddressFamily as SocketFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::address::all_default_routes;

/// An interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Of the kernel, from 1.
    pub index: u32,
    /// Whether somebody has switched it on.
    pub is_up: bool,
    /// Whether it is up and has a carrier: a cable with somebody at its other end, or an open tunnel.
    pub has_carrier: bool,
}

/// All interfaces by name.
pub type Links = BTreeMap<String, Link>;

/// The next router on a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Its own.
    pub address: IpAddr,
    /// Empty with an index of 0: whichever way the routes say.
    pub interface: String,
    /// Of the interface.
    pub index: u32,
}

/// What is known of an address on the local network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// It has answered within the last half minute or so.
    Confirmed,
    /// It has answered once; whether it still does is not known yet.
    InQuestion,
    /// It does not answer, or was never asked.
    Absent,
}

/// All interfaces of this network namespace.
///
/// # Errors
/// The kernel cannot be asked.
pub fn links() -> io::Result<Links> {
    let mut links = Links::new();
    dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
        if let RouteNetlinkMessage::NewLink(link) = message {
            let name = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
            let is_up = link.header.flags.contains(LinkFlags::Up);
            let has_carrier = is_up && link.header.flags.contains(LinkFlags::LowerUp);
            links.extend(name.map(|name| (name, Link { index: link.header.index, is_up, has_carrier })));
        }
    })?;
    Ok(links)
}

/// The router of the default route with the lowest metric, through `interface` if that is given; IPv4 before IPv6.
///
/// # Errors
/// The kernel cannot be asked.
pub fn default_router(interface: Option<&str>) -> io::Result<Option<Router>> {
    let links = links()?;
    let mut routes = all_default_routes()?;
    routes.sort_by_key(|(_, route)| (route.gateway.is_ipv6(), route.metric));
    Ok(routes.into_iter().find_map(|(index, route)| {
        let index = index?;
        let (name, _) = links.iter().find(|(_, link)| link.index == index)?;
        let is_wanted = interface.is_none_or(|interface| interface == name);
        is_wanted.then(|| Router { address: route.gateway, interface: name.clone(), index })
    }))
}

/// What the neighbour table says of an address; `index` 0: on any interface.
///
/// # Errors
/// The kernel cannot be asked.
pub fn neighbour(address: IpAddr, index: u32) -> io::Result<Neighbour> {
    let mut found = Neighbour::Absent;
    let mut question = NeighbourMessage::default();
    question.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    dump(RouteNetlinkMessage::GetNeighbour(question), |message| {
        let RouteNetlinkMessage::NewNeighbour(entry) = message else { return };
        let is_it = entry.attributes.iter().any(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(entry)) => address == IpAddr::V4(*entry),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(entry)) => address == IpAddr::V6(*entry),
            _ => false,
        });
        if is_it && (index == 0 || entry.header.ifindex == index) {
            found = match entry.header.state {
                NeighbourState::Reachable => Neighbour::Confirmed,
                NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => Neighbour::InQuestion,
                // An entry that was made by hand says nothing of who is there.
                _ => Neighbour::Absent,
            };
        }
    })?;
    Ok(found)
}

/// Keeps `sender` up to date with all interfaces. The kernel tells of a lost carrier up to a second late (it collects such
/// news, see link_watch.c), but answers at once when it is asked; so it is asked every `look` as well, if that is given.
///
/// # Errors
/// The kernel cannot be asked.
pub async fn follow(sender: watch::Sender<Links>, look: Option<Duration>) -> io::Result<()> {
    // The runtime only waits for it and receives, which is the same for all sockets of datagrams.
    let socket = UdpSocket::from_std(open(RTMGRP_LINK)?.into())?;
    let mut buffer = vec![0; RECEIVED_BYTES];
    loop {
        // What the news say is not looked at: all interfaces are asked for instead, so nothing can be missed.
        let now = links()?;
        sender.send_if_modified(|known| {
            let is_new = *known != now;
            *known = now;
            is_new
        });
        match look {
            Some(look) => timeout(look, socket.readable()).await.unwrap_or(Ok(()))?,
            None => socket.readable().await?,
        }
        loop {
            match socket.try_recv(&mut buffer) {
                Ok(_) => {}
                // More news than the socket holds.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Asks for a whole table.
pub(crate) fn dump(question: RouteNetlinkMessage, mut each: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
    talk(question, NLM_F_DUMP, |message| match message {
        NetlinkPayload::Done(_) => Some(Ok(())),
        NetlinkPayload::InnerMessage(inner) => {
            each(inner);
            None
        }
        _ => None,
    })
}

/// Has something changed, and waits for the word of the kernel.
pub(crate) fn change(order: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    talk(order, NLM_F_ACK | flags, |_| None)
}

/// Sends, and reads answers until `end` knows one or the kernel says that it is done.
fn talk(
    message: RouteNetlinkMessage,
    flags: u16,
    mut end: impl FnMut(NetlinkPayload<RouteNetlinkMessage>) -> Option<io::Result<()>>,
) -> io::Result<()> {
    let socket = open(0)?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    send(socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
    let mut buffer = vec![0; RECEIVED_BYTES];
    loop {
        // The answer is there when the question has been sent: an empty socket means that it is missing.
        let received = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..received).unwrap_or_default();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            // Messages begin at multiples of 4 bytes, see netlink(7).
            let length = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or_default();
            match message.payload {
                // An error without a code is the word that it was done.
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                other => {
                    if let Some(result) = end(other) {
                        return result;
                    }
                }
            }
        }
    }
}

/// A socket to the kernel that waits for nothing.
fn open(groups: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(SocketFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// News of interfaces, see rtnetlink(7).
const RTMGRP_LINK: u32 = 1;
/// The kernel fills at most 32 KiB of a buffer that is large enough.
const RECEIVED_BYTES: usize = 32 * 1024;
