//! Frames that are none, or say what nobody should.

use std::io::Write as _;
use std::net::Shutdown;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::masters::ALL_FUNCTIONS;
use crate::world::{Connection, Device};

/// Asks for the product code: an answer that no busy machine keeps multus-io from knowing.
const GOOD: [u8; 4] = [43, 14, 4, 1];

fn works(connection: &mut Connection) {
    assert_eq!(connection.ask(&GOOD), [&[43, 14, 4, 0x82, 0, 0, 1, 1, 13][..], b"multus-modbus"].concat());
}

#[test]
fn lengths_quantities_and_addresses_at_their_edges_have_the_exception_of_the_specification() {
    let device = Device::new(ALL_FUNCTIONS);
    let mut connection = device.connect();
    for (pdu, answer) in [
        // Quantities 0, 65535, and one too many.
        (&[1, 0, 0, 0, 0][..], &[0x81, 3][..]),
        (&[1, 0, 0, 0xff, 0xff], &[0x81, 3]),
        (&[2, 0, 0, 7, 0xd1], &[0x82, 3]),
        (&[3, 0, 0, 0, 0], &[0x83, 3]),
        (&[3, 0, 0, 0, 126], &[0x83, 3]),
        (&[4, 0, 0, 0xff, 0xff], &[0x84, 3]),
        (&[15, 0, 0, 0, 0, 0], &[0x8f, 3]),
        (&[15, 0, 0, 0, 8, 0], &[0x8f, 3]),
        (&[15, 0, 0, 0xff, 0xff, 1, 0], &[0x8f, 3]),
        (&[16, 0, 100, 0, 0, 0], &[0x90, 3]),
        (&[16, 0, 100, 0xff, 0xff, 2, 0, 0], &[0x90, 3]),
        (&[23, 0, 0, 0, 0, 0, 100, 0, 1, 2, 0, 0], &[0x97, 3]),
        // Addresses at the edges.
        (&[3, 0, 8, 0, 1], &[0x83, 2]),
        (&[3, 0, 0, 0, 9], &[0x83, 2]),
        (&[3, 0xff, 0xff, 0, 1], &[0x83, 2]),
        (&[4, 0xff, 0xff, 0, 125], &[0x84, 2]),
        (&[1, 0xff, 0xff, 7, 0xd0], &[0x81, 2]),
        (&[5, 0xff, 0xff, 0xff, 0], &[0x85, 2]),
        // Truncated, and with too much behind.
        (&[3], &[0x83, 3]),
        (&[3, 0, 0], &[0x83, 3]),
        (&[3, 0, 0, 0, 1, 0], &[0x83, 3]),
        (&[15, 0, 0, 0, 8, 2, 0], &[0x8f, 3]),
        (&[16, 0, 100, 0, 1, 2, 0], &[0x90, 3]),
        // Values, and functions that are not there.
        (&[5, 0, 0, 0, 1], &[0x85, 3]),
        (&[0, 0], &[0x80, 1]),
        (&[7], &[0x87, 1]),
        (&[8, 0, 0, 1, 2], &[0x88, 1]),
        (&[0x83, 0, 0, 0, 1], &[0x83, 1]),
        (&[0xff], &[0xff, 1]),
        (&[43, 13, 0], &[0xab, 1]),
    ] {
        assert_eq!(connection.ask(pdu), answer, "{pdu:x?}");
    }
    connection.ask_until(&[3, 0, 7, 0, 1], &[3, 2, 0, 0]);
    works(&mut connection);
}

#[test]
fn what_is_no_modbus_ends_its_connection_and_no_other() {
    let device = Device::original();
    let mut other = device.connect();
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        // Protocol 1; lengths 0, 1, 255 and 65535.
        &[0, 1, 0, 1, 0, 6, 1, 3, 0, 0, 0, 1],
        &[0, 1, 0, 0, 0, 0, 1, 3, 0, 0, 0, 1],
        &[0, 1, 0, 0, 0, 1, 1, 3, 0, 0, 0, 1],
        &[0, 1, 0, 0, 0, 255, 1, 3, 0, 0, 0, 1],
        &[0, 1, 0, 0, 255, 255, 1, 3, 0, 0, 0, 1],
    ] {
        let mut connection = device.connect();
        connection.send(bytes);
        assert!(connection.is_closed(), "{bytes:x?}");
        works(&mut other);
    }
    // What came before is answered.
    let mut connection = device.connect();
    let frame = connection.frame(1, &GOOD);
    connection.send(&[&frame[..], b"nonsense"].concat());
    assert!(connection.receive().is_some() && connection.is_closed());
    // A frame that is never finished, and a connection that says nothing more.
    let mut half = device.connect();
    half.send(&frame[..9]);
    half.stream.shutdown(Shutdown::Write).expect("open");
    assert!(half.is_closed());
    works(&mut other);
}

#[test]
fn frames_come_in_pieces_and_several_at_once_in_order() {
    let device = Device::original();
    let mut connection = device.connect();
    let frame = connection.frame(1, &GOOD);
    for byte in &frame {
        connection.send(&[*byte]);
    }
    assert_eq!(connection.receive().expect("an answer").2[..2], [43, 14]);
    // More than the server reads at once, with an unfinished one in between all the time.
    let many: Vec<u8> = (0..1000u16)
        .flat_map(|n| {
            let mut frame = frame.clone();
            frame[..2].copy_from_slice(&n.to_be_bytes());
            frame
        })
        .collect();
    let mut sender = connection.stream.try_clone().expect("a socket");
    let sending = std::thread::spawn(move || {
        for piece in many.chunks(61) {
            sender.write_all(piece).expect("the server takes it");
        }
    });
    for n in 0..1000 {
        let (transaction, unit, pdu) = connection.receive().expect("an answer");
        assert_eq!((transaction, unit, pdu.len()), (n, 1, 22));
    }
    sending.join().expect("all is sent");
}

#[test]
fn other_units_are_answered_as_configured() {
    let device = Device::original();
    let mut connection = device.connect();
    for unit in [0, 1, 255] {
        assert_eq!(connection.ask_unit(unit, &GOOD)[0], 43, "unit {unit}");
    }
    for unit in [2, 17, 247, 254] {
        assert_eq!(connection.ask_unit(unit, &GOOD), [0xab, 0x0b], "unit {unit}");
        assert_eq!(connection.ask_unit(unit, &[5, 0, 0, 0, 0]), [0x85, 0x0b], "unit {unit}");
    }
    assert_eq!(device.level(1), Some(true), "nothing was written");
    let device = Device::with_tcp("unit = 17\n", "foreign_units = \"silence\"\n");
    let mut connection = device.connect();
    let foreign = connection.frame(1, &GOOD);
    connection.send(&foreign);
    assert_eq!(connection.ask_unit(17, &GOOD)[0], 43, "the next answer is that of unit 17");
}

/// Good requests of every function.
const REQUESTS: [&[u8]; 11] = [
    &[1, 0, 0, 0, 8],
    &[2, 0, 0, 0, 8],
    &[3, 0, 100, 0, 1],
    &[4, 0, 0, 0, 8],
    &[5, 0, 0, 0xff, 0],
    &[6, 0, 100, 0, 250],
    &[15, 0, 0, 0, 8, 1, 0x5a],
    &[16, 0, 110, 0, 2, 4, 0x40, 0x20, 0, 0],
    &[22, 0, 100, 0, 0xf0, 0, 5],
    &[23, 0, 100, 0, 1, 0, 100, 0, 1, 2, 0, 100],
    &GOOD,
];

/// Good requests, made into frames, of which some bytes are changed, left out, or put in.
pub(crate) fn nearly_good(frame: fn(&[u8]) -> Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let change = (0..3, prop::sample::Index::arbitrary(), 0u8..);
    let changes = prop::collection::vec(change, 0..4);
    (prop::sample::select(REQUESTS.to_vec()), changes).prop_map(move |(pdu, changes)| {
        let mut frame = frame(pdu);
        for (kind, at, byte) in changes {
            let at = at.index(frame.len());
            match kind {
                0 => frame[at] = byte,
                1 if frame.len() > 1 => drop(frame.remove(at)),
                _ => frame.insert(at, byte),
            }
        }
        frame
    })
}

#[test]
fn nearly_good_frames_are_answered_rightly_or_end_their_connection() {
    let device = Device::new(ALL_FUNCTIONS);
    let watch = std::cell::RefCell::new(device.connect());
    let mut runner = TestRunner::new(Config { cases: 500, failure_persistence: None, ..Config::default() });
    let frame = |pdu: &[u8]| {
        let length = u8::try_from(pdu.len() + 1).expect("short");
        [&[0, 7, 0, 0, 0, length, 1][..], pdu].concat()
    };
    let frames = prop::collection::vec(nearly_good(frame), 1..5);
    runner
        .run(&frames, |frames| {
            let mut connection = device.connect();
            // It may be closed meanwhile.
            let _ = connection.stream.write_all(&frames.concat());
            let _ = connection.stream.shutdown(Shutdown::Write);
            while let Some((_, _, answer)) = connection.receive() {
                let is_refused = answer[0] & 0x80 != 0;
                prop_assert!(!is_refused || (answer.len() == 2 && matches!(answer[1], 1..=4 | 6 | 0x0b)));
            }
            works(&mut watch.borrow_mut());
            Ok(())
        })
        .expect("the server goes on");
    assert_eq!(device.child("modbus").restarts, 0);
}

#[test]
fn whatever_comes_over_a_connection_is_answered_rightly_or_ends_it() {
    let device = Device::new(ALL_FUNCTIONS);
    let watch = std::cell::RefCell::new(device.connect());
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    // PDUs in good frames: each has one answer, to the same function, and nothing else comes.
    let pdu =
        (prop::sample::select(vec![1u8, 2, 3, 4, 5, 6, 15, 16, 22, 23, 43, 99]), prop::collection::vec(0u8.., 0..252));
    let pdus = prop::collection::vec(pdu, 1..8);
    runner
        .run(&pdus, |pdus| {
            let mut connection = device.connect();
            let pdus: Vec<Vec<u8>> =
                pdus.into_iter().map(|(function, rest)| [&[function][..], &rest].concat()).collect();
            let frames: Vec<u8> = pdus.iter().flat_map(|pdu| connection.frame(1, pdu)).collect();
            connection.send(&frames);
            for pdu in &pdus {
                let (_, _, answer) = connection.receive().expect("an answer");
                let is_refused = answer[0] == pdu[0] | 0x80;
                prop_assert!(answer[0] == pdu[0] || is_refused, "{:x?} to {:x?}", answer, pdu);
                if is_refused {
                    prop_assert!(answer.len() == 2 && matches!(answer[1], 1..=4 | 6));
                }
            }
            Ok(())
        })
        .expect("every PDU has its answer");
    // Bytes: whatever happens to that connection, the server goes on.
    let bytes = prop::collection::vec(0u8.., 0..600);
    runner
        .run(&bytes, |bytes| {
            let mut connection = device.connect();
            // It may be closed meanwhile.
            let _ = connection.stream.write_all(&bytes);
            let _ = connection.stream.shutdown(Shutdown::Write);
            while let Some((_, _, answer)) = connection.receive() {
                prop_assert!(answer.len() >= 2);
            }
            works(&mut watch.borrow_mut());
            Ok(())
        })
        .expect("the server goes on");
    assert_eq!(device.child("modbus").restarts, 0);
}
