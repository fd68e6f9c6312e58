//! A question to a name server: the addresses of a name, over UDP.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use multus_net::bound;
use socket2::{Protocol, Type};
use tokio::net::UdpSocket;

/// The time until a good answer with at least one record. Waits for ever.
pub(super) async fn look_up(server: SocketAddr, name: &str, interface: Option<&str>) -> Result<Duration, String> {
    let socket = bound(server, Type::DGRAM, Protocol::UDP, interface).map_err(|error| error.to_string())?;
    let socket = UdpSocket::from_std(socket.into()).map_err(|error| error.to_string())?;
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|error| format!("no random numbers: {error}"))?;
    let begun = Instant::now();
    socket.send(&query(id, name)).await.map_err(|error| error.to_string())?;
    let mut buffer = [0; 1500];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(|error| error.to_string())?;
        if let Some(answered) = judge(id, &buffer[..length]) {
            return answered.map(|()| begun.elapsed()).map_err(|reason| format!("{name}: {reason}"));
        }
    }
}

/// RFC 1035, section 4: one question for type A, class IN, recursion desired.
fn query(id: [u8; 2], name: &str) -> Vec<u8> {
    let mut packet = Vec::with_capacity(18 + name.len());
    packet.extend_from_slice(&id);
    packet.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        // A name in a configuration has labels of at most 63 bytes.
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

/// `None`: not the answer to this question.
fn judge(id: [u8; 2], packet: &[u8]) -> Option<Result<(), &'static str>> {
    let header: &[u8; 12] = packet.first_chunk()?;
    if header[..2] != id || header[2] & 0x80 == 0 {
        return None;
    }
    Some(match header[3] & 0xf {
        0 if header[6..8] == [0, 0] => Err("the server knows no address of it"),
        0 => Ok(()),
        2 => Err("the server failed (SERVFAIL)"),
        3 => Err("there is no such name (NXDOMAIN)"),
        5 => Err("the server refused (REFUSED)"),
        _ => Err("the server answered with an error"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_as_the_standard_has_it() {
        let expected = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03box\x07example\x03org\0\0\x01\0\x01";
        assert_eq!(query([0x12, 0x34], "box.example.org"), expected);
        assert_eq!(query([0x12, 0x34], "box.example.org."), expected);
    }

    #[test]
    fn answers_are_told_from_noise() {
        let answer = |flags: [u8; 2], records: u8| [0x12, 0x34, flags[0], flags[1], 0, 1, 0, records, 0, 0, 0, 0];
        let judge = |packet: &[u8]| super::judge([0x12, 0x34], packet);
        assert_eq!(judge(&answer([0x81, 0x80], 1)), Some(Ok(())));
        assert!(judge(&answer([0x81, 0x80], 0)).is_some_and(|answer| answer.is_err()));
        for code in 1..16 {
            assert!(judge(&answer([0x81, 0x80 | code], 1)).is_some_and(|answer| answer.is_err()), "code {code}");
        }
        assert_eq!(judge(&answer([0x01, 0x00], 1)), None, "a question");
        assert_eq!(super::judge([0, 0], &answer([0x81, 0x80], 1)), None, "another question's");
        for cut in 0..12 {
            assert_eq!(judge(&answer([0x81, 0x80], 1)[..cut]), None, "cut at {cut}");
        }
    }
}
