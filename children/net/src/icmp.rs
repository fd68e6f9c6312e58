//! A ping: an echo request and its reply. Works without rights where `net.ipv4.ping_group_range` names the group of the
//! process; elsewhere it takes CAP_NET_RAW.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::socket::bound;

/// Sends a ping, through `interface` only where one is given; the time until the reply. Waits for ever.
///
/// # Errors
/// It cannot be sent; for people.
pub async fn ping(address: SocketAddr, interface: Option<&str>) -> Result<Duration, String> {
    let socket = open(address, interface)?;
    let mut mark = [0; MARK_LENGTH];
    getrandom::fill(&mut mark).map_err(|error| format!("no random numbers: {error}"))?;
    let request = request(address.is_ipv4(), mark);
    // The runtime only waits for it, sends and receives, which is the same for all sockets of datagrams.
    let socket = UdpSocket::from_std(socket.into()).map_err(|error| error.to_string())?;
    let begun = Instant::now();
    socket.send(&request).await.map_err(|error| error.to_string())?;
    let mut buffer = [0; 1500];
    loop {
        // Others' replies come to a raw socket, too.
        let length = socket.recv(&mut buffer).await.map_err(|error| error.to_string())?;
        if is_reply(address.is_ipv4(), &buffer[..length], mark) {
            return Ok(begun.elapsed());
        }
    }
}

fn open(address: SocketAddr, interface: Option<&str>) -> Result<Socket, String> {
    let protocol = if address.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    match bound(address, Type::DGRAM, protocol, interface) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        opened => return opened.map_err(|error| error.to_string()),
    }
    bound(address, Type::RAW, protocol, interface).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "this process may not ping: name its group in net.ipv4.ping_group_range, or give it CAP_NET_RAW".to_owned()
        }
        _ => error.to_string(),
    })
}

/// Type, code, checksum, identifier, sequence number, the mark: RFC 792 and RFC 4443. The kernel puts in an identifier of its
/// own where the socket is no raw one, and the checksum of ICMPv6.
fn request(is_v4: bool, mark: [u8; MARK_LENGTH]) -> [u8; 8 + MARK_LENGTH] {
    let mut packet = [0; 8 + MARK_LENGTH];
    packet[0] = if is_v4 { 8 } else { 128 };
    packet[4..6].copy_from_slice(&mark[..2]);
    packet[7] = 1;
    packet[8..].copy_from_slice(&mark);
    if is_v4 {
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Whether a packet is the reply to the request with this mark. Raw sockets of IPv4 show the header of IP as well.
fn is_reply(is_v4: bool, packet: &[u8], mark: [u8; MARK_LENGTH]) -> bool {
    let packet = match packet.first() {
        Some(first) if is_v4 && first >> 4 == 4 => packet.get(usize::from(first & 0xf) * 4..).unwrap_or_default(),
        _ => packet,
    };
    let reply = if is_v4 { 0 } else { 129 };
    packet.len() == 8 + MARK_LENGTH && packet[0] == reply && packet[8..] == mark
}

/// The Internet checksum, RFC 1071.
fn checksum(packet: &[u8]) -> u16 {
    let words =
        packet.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Random bytes that tell the replies of this process from those of others.
const MARK_LENGTH: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: [u8; MARK_LENGTH] = *b"0123456789abcdef";

    #[test]
    fn a_packet_with_its_checksum_sums_up_to_zero() {
        let packet = request(true, MARK);
        assert_eq!(checksum(&packet), 0);
        assert_eq!((packet[0], request(false, MARK)[0]), (8, 128));
        assert_eq!(checksum(&[0xff]), !0xff00, "an odd byte stands high");
    }

    #[test]
    fn only_the_reply_with_the_mark_counts() {
        let mut reply = request(true, MARK);
        assert!(!is_reply(true, &reply, MARK), "the request itself, on the loopback");
        reply[0] = 0;
        assert!(is_reply(true, &reply, MARK));
        assert!(!is_reply(true, &reply, *b"fedcba9876543210"));
        let with_header = [&[0x46][..], &[0; 23], &reply].concat();
        assert!(is_reply(true, &with_header, MARK), "a header of 24 bytes");
        for cut in 0..with_header.len() {
            assert!(!is_reply(true, &with_header[..cut], MARK), "cut at {cut}");
        }
        reply[0] = 129;
        assert!(is_reply(false, &reply, MARK) && !is_reply(true, &reply, MARK));
    }
}
