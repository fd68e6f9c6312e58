//! Frames of Modbus TCP. Pure.
//!
//! ```text
//! byte   what ("MODBUS Messaging on TCP/IP Implementation Guide V1.0b", section 3.1.3)
//! 0..2   transaction, comes back as it is
//! 2..4   protocol: 0
//! 4..6   length of what follows: 2 to 254
//! 6      unit
//! 7..    PDU
//! ```

use crate::pdu;

/// Bytes before the PDU.
pub(crate) const HEADER: usize = 7;
/// The longest frame.
pub(crate) const LONGEST: usize = HEADER + pdu::LONGEST;

/// What the bytes of a connection begin with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<'a> {
    /// A whole frame, this long.
    Frame { frame: Frame<'a>, length: usize },
    /// The beginning of one, or nothing.
    Incomplete,
    /// Something else: where the next frame begins cannot be known.
    Foreign,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) transaction: [u8; 2],
    pub(crate) unit: u8,
    pub(crate) pdu: &'a [u8],
}

/// Looks at what came. Header fields are judged as soon as they are there.
pub(crate) fn next(bytes: &[u8]) -> Next<'_> {
    let word = |at: usize| bytes.get(at..at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    if word(2).is_some_and(|protocol| protocol != 0) {
        return Next::Foreign;
    }
    let Some(length) = word(4).map(usize::from) else { return Next::Incomplete };
    if !(2..=1 + pdu::LONGEST).contains(&length) {
        return Next::Foreign;
    }
    let length = HEADER - 1 + length;
    match bytes.get(..length) {
        Some(whole) => {
            let frame = Frame { transaction: [whole[0], whole[1]], unit: whole[6], pdu: &whole[HEADER..] };
            Next::Frame { frame, length }
        }
        None => Next::Incomplete,
    }
}

/// Writes the answer that `pdu` puts down behind the header.
pub(crate) fn answer(frame: &Frame<'_>, out: &mut Vec<u8>, pdu: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend_from_slice(&frame.transaction);
    out.extend_from_slice(&[0, 0, 0, 0, frame.unit]);
    pdu(out);
    // At most 1 + 253.
    let length = (out.len() - begin - (HEADER - 1)) as u16;
    out[begin + 4..begin + 6].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_one_after_the_other_and_in_pieces() {
        let one = [0x12, 0x34, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1];
        let frame = Frame { transaction: [0x12, 0x34], unit: 1, pdu: &[3, 0, 0, 0, 1] };
        let two = [one, one].concat();
        assert_eq!(next(&two), Next::Frame { frame, length: 12 });
        for length in 0..12 {
            assert_eq!(next(&one[..length]), Next::Incomplete, "{length} bytes");
        }
        let mut out = vec![9];
        answer(&frame, &mut out, |out| out.extend([3, 2, 0, 7]));
        assert_eq!(out, [9, 0x12, 0x34, 0, 0, 0, 5, 1, 3, 2, 0, 7]);
    }

    #[test]
    fn what_is_no_frame_is_seen_as_early_as_it_can_be() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            &[0, 1, 0, 1],
            &[0, 1, 0, 0, 0, 0],
            &[0, 1, 0, 0, 0, 1],
            &[0, 1, 0, 0, 0, 255],
            &[0, 1, 0, 0, 0xff, 0xff],
        ] {
            assert_eq!(next(bytes), Next::Foreign, "{bytes:?}");
        }
        let longest = [&[0, 1, 0, 0, 0, 254][..], &[1; 254]].concat();
        assert!(matches!(next(&longest), Next::Frame { length: LONGEST, .. }));
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_a_frame_or_not(bytes in proptest::collection::vec(0u8.., 0..600)) {
            if let Next::Frame { frame, length } = next(&bytes) {
                assert!(length <= bytes.len() && length == HEADER + frame.pdu.len() && !frame.pdu.is_empty());
            }
        }
    }
}
