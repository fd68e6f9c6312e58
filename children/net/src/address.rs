//! Addresses and default routes of an interface, read and changed. The kernel answers at once; changes need CAP_NET_ADMIN.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::{change, dump};

/// An address of an interface, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address itself.
    pub address: IpAddr,
    /// Length of the prefix, bits.
    pub prefix: u8,
    /// Reaches further than this link and this machine.
    pub is_global: bool,
    /// Seconds until it is invalid; `None`: it stays.
    pub valid_s: Option<u32>,
    /// Somebody has set it to stay. What routers advertise is not of this kind, however long it is valid.
    pub is_permanent: bool,
    /// IPv6: whether somebody else has it is still being found out.
    pub is_tentative: bool,
    /// IPv6: somebody else has it.
    pub is_duplicate: bool,
}

/// A way to everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The router.
    pub gateway: IpAddr,
    /// The lower goes first. IPv6 knows no 0 and takes 1024 for it.
    pub metric: u32,
    /// Who made it: `RTPROT_*`, see rtnetlink(7).
    pub protocol: u8,
}

/// `RTPROT_STATIC`: made by somebody who administers the machine.
pub const STATIC: u8 = 4;
/// `RTPROT_DHCP`.
pub const DHCP: u8 = 16;
/// `RTPROT_RA`: from a router advertisement of IPv6; the kernel keeps it up to date.
pub const ROUTER_ADVERTISEMENT: u8 = 9;

/// The addresses of an interface, in the order of the kernel.
///
/// # Errors
/// The kernel cannot be asked.
pub fn addresses(index: u32) -> io::Result<Vec<Address>> {
    let mut found = Vec::new();
    dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| {
        if let RouteNetlinkMessage::NewAddress(message) = message
            && message.header.index == index
        {
            found.extend(understood(&message));
        }
    })?;
    Ok(found)
}

fn understood(message: &AddressMessage) -> Option<Address> {
    let (mut address, mut local, mut valid_s) = (None, None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(found) => address = Some(*found),
            // On a line with two ends this is the own one, and the other is the peer's.
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::Flags(found) => flags = *found,
            AddressAttribute::CacheInfo(info) if info.ifa_valid != u32::MAX => valid_s = Some(info.ifa_valid),
            _ => {}
        }
    }
    Some(Address {
        address: local.or(address)?,
        prefix: message.header.prefix_len,
        is_global: matches!(message.header.scope, AddressScope::Universe | AddressScope::Site),
        valid_s,
        is_permanent: flags.contains(AddressFlags::Permanent),
        is_tentative: flags.contains(AddressFlags::Tentative),
        is_duplicate: flags.contains(AddressFlags::Dadfailed),
    })
}

/// Gives an interface an address; one that it has already is brought up to date.
///
/// # Errors
/// The kernel refuses.
pub fn add_address(index: u32, address: IpAddr, prefix: u8, valid_s: Option<u32>) -> io::Result<()> {
    let mut message = address_message(index, address, prefix);
    if let IpAddr::V4(address) = address
        && prefix <= 30
    {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        message.attributes.push(AddressAttribute::Broadcast((address.to_bits() | !mask).into()));
    }
    if let Some(valid_s) = valid_s {
        let mut info = CacheInfo::default();
        (info.ifa_valid, info.ifa_preferred) = (valid_s, valid_s);
        message.attributes.push(AddressAttribute::CacheInfo(info));
    }
    change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Takes an address from an interface. One that is not there is no error.
///
/// # Errors
/// The kernel refuses.
pub fn delete_address(index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    let done = change(RouteNetlinkMessage::DelAddress(address_message(index, address, prefix)), 0);
    unless_gone(done, nix::libc::EADDRNOTAVAIL)
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.index = index;
    message.header.prefix_len = prefix;
    message.header.flags = AddressHeaderFlags::empty();
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}

/// The default routes through an interface, in the main table.
///
/// # Errors
/// The kernel cannot be asked.
pub fn default_routes(index: u32) -> io::Result<Vec<DefaultRoute>> {
    let all = all_default_routes()?.into_iter();
    Ok(all.filter(|(through, _)| *through == Some(index)).map(|(_, route)| route).collect())
}

/// All default routes in the main table, each with the index of its interface.
pub(crate) fn all_default_routes() -> io::Result<Vec<(Option<u32>, DefaultRoute)>> {
    let mut found = Vec::new();
    dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()), |message| {
        let RouteNetlinkMessage::NewRoute(route) = message else { return };
        let header = &route.header;
        let is_default = header.destination_prefix_length == 0
            && header.table == RouteHeader::RT_TABLE_MAIN
            && header.kind == RouteType::Unicast;
        if !is_default {
            return;
        }
        let (mut index, mut gateway, mut metric) = (None, None, 0);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(IpAddr::V4(*address)),
                RouteAttribute::Gateway(RouteAddress::Inet6(address)) => gateway = Some(IpAddr::V6(*address)),
                RouteAttribute::Oif(number) => index = Some(*number),
                RouteAttribute::Priority(number) => metric = *number,
                _ => {}
            }
        }
        let protocol = header.protocol.into();
        found.extend(gateway.map(|gateway| (index, DefaultRoute { gateway, metric, protocol })));
    })?;
    Ok(found)
}

/// Makes a default route; one that is there already is no error. The router must be on a network of the interface.
///
/// # Errors
/// The kernel refuses.
pub fn add_default_route(index: u32, route: DefaultRoute) -> io::Result<()> {
    match change(RouteNetlinkMessage::NewRoute(route_message(index, route)), NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// Takes a default route away. One that is not there is no error.
///
/// # Errors
/// The kernel refuses.
pub fn delete_default_route(index: u32, route: DefaultRoute) -> io::Result<()> {
    unless_gone(change(RouteNetlinkMessage::DelRoute(route_message(index, route)), 0), nix::libc::ESRCH)
}

fn route_message(index: u32, route: DefaultRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Gateway(match route.gateway {
            IpAddr::V4(address) => RouteAddress::Inet(address),
            IpAddr::V6(address) => RouteAddress::Inet6(address),
        }),
        RouteAttribute::Oif(index),
        RouteAttribute::Priority(route.metric),
    ];
    message
}

/// Switches an interface on.
///
/// # Errors
/// The kernel refuses.
pub fn switch_on(index: u32) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    change(RouteNetlinkMessage::SetLink(message), 0)
}

/// Forgets what was found out about a neighbour, so that it is asked for anew. One that is not known is no error.
///
/// # Errors
/// The kernel refuses.
pub fn forget_neighbour(index: u32, address: IpAddr) -> io::Result<()> {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.attributes = vec![NeighbourAttribute::Destination(match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    })];
    unless_gone(change(RouteNetlinkMessage::DelNeighbour(message), 0), nix::libc::ENOENT)
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn unless_gone(done: io::Result<()>, code: i32) -> io::Result<()> {
    match done {
        Err(error) if error.raw_os_error() == Some(code) || error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(()),
        done => done,
    }
}
