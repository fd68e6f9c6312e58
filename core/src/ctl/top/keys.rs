//! From the bytes of a terminal to keys.

/// A key that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Char(char),
    Interrupt,
    Suspend,
    Redraw,
}

/// The keys in what was read at once. Escape alone is the key; with more behind it, the beginning of a sequence.
pub(crate) fn parse(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let key = match first {
            0x1b if matches!(after.first(), Some(b'[' | b'O')) => {
                let (key, used) = sequence(&after[1..]);
                rest = &after[1 + used..];
                key
            }
            0x1b => Some(Key::Escape),
            b'\r' | b'\n' => Some(Key::Enter),
            0x03 => Some(Key::Interrupt),
            0x1a => Some(Key::Suspend),
            0x0c => Some(Key::Redraw),
            0x20..=0x7e => Some(Key::Char(char::from(first))),
            _ => None,
        };
        keys.extend(key);
    }
    keys
}

/// The key of a control sequence, whose first two bytes are taken already, and how many bytes it has beyond them.
fn sequence(bytes: &[u8]) -> (Option<Key>, usize) {
    let Some(end) = bytes.iter().position(|byte| (0x40..=0x7e).contains(byte)) else { return (None, bytes.len()) };
    let key = match (&bytes[..end], bytes[end]) {
        (_, b'A') => Some(Key::Up),
        (_, b'B') => Some(Key::Down),
        (_, b'H') | (b"1" | b"7", b'~') => Some(Key::Home),
        (_, b'F') | (b"4" | b"8", b'~') => Some(Key::End),
        (b"5", b'~') => Some(Key::PageUp),
        (b"6", b'~') => Some(Key::PageDown),
        _ => None,
    };
    (key, end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_sequences_are_told_apart() {
        for (bytes, keys) in [
            (&b"\x1b"[..], vec![Key::Escape]),
            (b"\x1b[A\x1bOB", vec![Key::Up, Key::Down]),
            (b"\x1b[5~j\r", vec![Key::PageUp, Key::Char('j'), Key::Enter]),
            (b"\x1b[1;5Aq", vec![Key::Up, Key::Char('q')]),
            (b"\x03\x1a", vec![Key::Interrupt, Key::Suspend]),
            (b"\x1b[", vec![]),
            (b"\x1b[99999", vec![]),
            (b"\xff\x00", vec![]),
            (b"", vec![]),
        ] {
            assert_eq!(parse(bytes), keys, "{bytes:?}");
        }
    }
}
