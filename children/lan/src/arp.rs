//! Whether somebody else on the wire has an address: RFC 5227, Address Conflict Detection. Needs CAP_NET_RAW.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, bind};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Address of an interface on its wire.
type Mac = [u8; 6];

/// Asks for all addresses at the same time, 3 to 7 s. `Some`: somebody has this one of them, with this address on the wire.
///
/// # Errors
/// Whether this one is free cannot be found out, and why.
pub(crate) async fn who_has_any(
    interface: &str,
    addresses: &[Ipv4Addr],
) -> Result<Option<(Ipv4Addr, String)>, (Ipv4Addr, io::Error)> {
    let mut asked = JoinSet::new();
    for &address in addresses {
        let interface = interface.to_owned();
        asked.spawn(async move { (address, who_has(&interface, address).await) });
    }
    while let Some(answered) = asked.join_next().await {
        match answered {
            Ok((_, Ok(None))) => {}
            Ok((address, Ok(Some(owner)))) => return Ok(Some((address, owner))),
            Ok((address, Err(error))) => return Err((address, error)),
            Err(error) => return Err((Ipv4Addr::UNSPECIFIED, io::Error::other(error))),
        }
    }
    Ok(None)
}

/// Asks three times whether somebody has `address`, and listens; 3 to 7 s. `Some`: somebody has it, with this address on the
/// wire.
///
/// # Errors
/// It cannot be asked; on a line without ARP nobody can have it, and the answer is `None`.
async fn who_has(interface: &str, address: Ipv4Addr) -> io::Result<Option<String>> {
    let Some((socket, own)) = open(interface)? else { return Ok(None) };
    sleep(random(PROBE_WAIT)?).await;
    for number in 1..=PROBE_NUM {
        socket.send(&packet(own, Ipv4Addr::UNSPECIFIED, address)).await?;
        let pause = if number < PROBE_NUM { PROBE_MIN + random(PROBE_MAX - PROBE_MIN)? } else { ANNOUNCE_WAIT };
        if let Ok(owner) = timeout(pause, listen(&socket, own, address)).await {
            return owner.map(|mac| Some(mac.map(|byte| format!("{byte:02x}")).join(":")));
        }
    }
    Ok(None)
}

/// Tells everybody on the wire who has `address` now, so that they forget who had it before.
///
/// # Errors
/// It cannot be sent.
pub(crate) async fn announce(interface: &str, address: Ipv4Addr) -> io::Result<()> {
    let Some((socket, own)) = open(interface)? else { return Ok(()) };
    socket.send(&packet(own, address, address)).await?;
    sleep(ANNOUNCE_INTERVAL).await;
    socket.send(&packet(own, address, address)).await.map(drop)
}

async fn listen(socket: &UdpSocket, own: Mac, address: Ipv4Addr) -> io::Result<Mac> {
    let mut buffer = [0; 128];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(owner) = conflict(&buffer[..length], own, address) {
            return Ok(owner);
        }
    }
}

/// A socket that sends and hears ARP on one interface; `None`: it has no addresses of Ethernet.
fn open(interface: &str) -> io::Result<Option<(UdpSocket, Mac)>> {
    let mut entries = getifaddrs()?.filter(|entry| entry.interface_name == interface);
    // ARPHRD_ETHER, see netdevice(7); 0 is the address of a loopback.
    let found = entries.find_map(|entry| entry.address.as_ref().and_then(|a| a.as_link_addr().copied()));
    let link: LinkAddr = found.ok_or_else(|| io::Error::other(format!("there is no interface {interface}")))?;
    let Some(own) = link.addr().filter(|mac| link.hatype() == ARPHRD_ETHER && *mac != [0; 6]) else { return Ok(None) };
    let protocol = Protocol::from(i32::from(ETH_P_ARP.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(protocol))?;
    // Its protocol stays that of the socket: the address names none.
    bind(socket.as_raw_fd(), &link)?;
    // The runtime only waits for it, sends and receives, which is the same for all sockets of datagrams.
    Ok(Some((UdpSocket::from_std(socket.into())?, own)))
}

/// A question of RFC 826 in a frame of Ethernet, to everybody: who has `target`? From `sender`, or from nobody (a probe).
fn packet(own: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> [u8; 42] {
    let mut packet = [0; 42];
    packet[..6].fill(0xff);
    packet[6..12].copy_from_slice(&own);
    packet[12..14].copy_from_slice(&ETH_P_ARP.to_be_bytes());
    // Ethernet, IPv4, the lengths of their addresses, a question.
    packet[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    packet[22..28].copy_from_slice(&own);
    packet[28..32].copy_from_slice(&sender.octets());
    packet[38..42].copy_from_slice(&target.octets());
    packet
}

/// Who claims `address`, by a packet of somebody else: it says so, or wants it as well at the same time.
fn conflict(packet: &[u8], own: Mac, address: Ipv4Addr) -> Option<Mac> {
    if packet.len() < 42 || packet[12..20] != [8, 6, 0, 1, 8, 0, 6, 4] {
        return None;
    }
    let from: Mac = packet[22..28].try_into().ok()?;
    let (sender, target) = (&packet[28..32], &packet[38..42]);
    let has_it = sender == address.octets();
    let wants_it = packet[20..22] == [0, 1] && sender == [0; 4] && target == address.octets();
    (from != own && (has_it || wants_it)).then_some(from)
}

fn random(most: Duration) -> io::Result<Duration> {
    let number = getrandom::u32().map_err(|error| io::Error::other(error.to_string()))?;
    Ok(most.mul_f64(f64::from(number) / f64::from(u32::MAX)))
}

/// ARPHRD_ETHER, see if_arp.h.
const ARPHRD_ETHER: u16 = 1;
/// See if_ether.h.
const ETH_P_ARP: u16 = 0x0806;
/// These are of RFC 5227, section 1.1.
const PROBE_WAIT: Duration = Duration::from_secs(1);
const PROBE_NUM: u32 = 3;
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(2);
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 2];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);

    #[test]
    fn only_who_has_or_wants_the_address_is_in_conflict() {
        let other = Ipv4Addr::new(192, 168, 1, 3);
        let probe = packet(OTHER, Ipv4Addr::UNSPECIFIED, ADDRESS);
        let claim = packet(OTHER, ADDRESS, other);
        assert_eq!(conflict(&probe, OWN, ADDRESS), Some(OTHER), "wants it too");
        assert_eq!(conflict(&claim, OWN, ADDRESS), Some(OTHER), "has it");
        assert_eq!(conflict(&packet(OTHER, other, ADDRESS), OWN, ADDRESS), None, "looks for it");
        assert_eq!(conflict(&packet(OWN, Ipv4Addr::UNSPECIFIED, ADDRESS), OWN, ADDRESS), None, "the own question");
        let mut answer = claim;
        answer[21] = 2;
        assert_eq!(conflict(&answer, OWN, ADDRESS), Some(OTHER), "an answer");
        let mut not_arp = claim;
        not_arp[13] = 0;
        assert_eq!(conflict(&not_arp, OWN, ADDRESS), None);
        for length in 0..42 {
            assert_eq!(conflict(&claim[..length], OWN, ADDRESS), None, "cut at {length}");
        }
    }
}
