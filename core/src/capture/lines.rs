//! From bytes to lines: where a line ends, and how it looks so that it can neither hide nor do anything in a terminal.

/// The longest piece of a line, in bytes as the child wrote them. A longer line is split; nothing is lost.
pub const MAX_LINE_BYTES: usize = 8 * 1024;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

impl Stream {
    /// The mark after the time stamp. A piece that continues the line before it carries a `+`.
    pub fn mark(self, continued: bool) -> &'static str {
        match (self, continued) {
            (Self::Out, false) => "out",
            (Self::Out, true) => "out+",
            (Self::Err, false) => "err",
            (Self::Err, true) => "err+",
        }
    }
}

/// Cuts a stream of bytes into lines and keeps the part that has no newline yet. Holds at most [`MAX_LINE_BYTES`].
#[derive(Debug, Default)]
pub struct LineSplitter {
    partial: Vec<u8>,
    /// A piece of the present line was handed out already.
    continued: bool,
}

impl LineSplitter {
    /// Hands each finished line, without its line end (`\n` or `\r\n`), to `each(line, continued)`.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8], bool)) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.extend(&bytes[..end], &mut each);
            self.end_line(&mut each);
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes, &mut each);
    }

    /// Hands out what has no newline yet: the child is gone and will not finish its line.
    pub fn flush(&mut self, mut each: impl FnMut(&[u8], bool)) {
        if !self.partial.is_empty() {
            each(&self.partial, self.continued);
        }
        self.partial.clear();
        self.continued = false;
    }

    /// The present line, as far as it is there; `None` when there is none.
    pub fn partial(&self) -> Option<&[u8]> {
        if self.partial.is_empty() { None } else { Some(&self.partial) }
    }

    /// Takes bytes without a newline and hands out full pieces.
    fn extend(&mut self, mut bytes: &[u8], each: &mut impl FnMut(&[u8], bool)) {
        while self.partial.len() + bytes.len() > MAX_LINE_BYTES {
            let (head, tail) = bytes.split_at(MAX_LINE_BYTES - self.partial.len());
            self.partial.extend_from_slice(head);
            bytes = tail;
            let cut = last_character_boundary(&self.partial);
            each(&self.partial[..cut], self.continued);
            self.partial.drain(..cut);
            self.continued = true;
        }
        self.partial.extend_from_slice(bytes);
    }

    fn end_line(&mut self, each: &mut impl FnMut(&[u8], bool)) {
        let line = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        each(line, self.continued);
        self.partial.clear();
        self.continued = false;
    }
}

/// The length of `bytes` without a UTF-8 character that is cut off at the end, so that a split does not spoil it.
/// Bytes that are no UTF-8 are cut where they are.
fn last_character_boundary(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(4) {
        let byte = bytes[bytes.len() - back];
        let length = match byte {
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF7 => 4,
            _ => 1,
        };
        let cut_off = length > back && bytes.len() > back;
        return if cut_off { bytes.len() - back } else { bytes.len() };
    }
    bytes.len()
}

/// Appends a line as readable text: UTF-8 as it is, a control byte or a byte that is no UTF-8 as `\x1b`, and characters that
/// would change the look of a terminal (C1 controls, line separators, changes of direction) as `\u{202e}`. A tab stays.
/// A backslash stays as well: this is for reading, not for getting the bytes back.
pub fn escape_into(out: &mut String, line: &[u8]) {
    use std::fmt::Write as _;
    for chunk in line.utf8_chunks() {
        for character in chunk.valid().chars() {
            // Writing to a String cannot fail.
            let _ = match character {
                '\t' => out.write_char('\t'),
                '\r' => out.write_str("\\r"),
                '\0'..='\x1f' | '\x7f' => write!(out, "\\x{:02x}", u32::from(character)),
                '\u{80}'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
                    write!(out, "{}", character.escape_unicode())
                }
                _ => out.write_char(character),
            };
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> (LineSplitter, Vec<(Vec<u8>, bool)>) {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for piece in pieces {
            splitter.push(piece, |line, continued| lines.push((line.to_vec(), continued)));
        }
        (splitter, lines)
    }

    fn escaped(line: &[u8]) -> String {
        let mut out = String::new();
        escape_into(&mut out, line);
        out
    }

    #[test]
    fn lines_are_found_however_the_bytes_arrive() {
        let text = b"one\n\ntwo\r\nthree";
        let expected: Vec<(Vec<u8>, bool)> = vec![(b"one".into(), false), (b"".into(), false), (b"two".into(), false)];
        for size in 1..=text.len() {
            let pieces: Vec<&[u8]> = text.chunks(size).collect();
            let (mut splitter, mut lines) = split(&pieces);
            assert_eq!(lines, expected, "in pieces of {size}");
            splitter.flush(|line, continued| lines.push((line.to_vec(), continued)));
            assert_eq!(lines.last(), Some(&(b"three".to_vec(), false)));
            splitter.flush(|_, _| panic!("flushed twice"));
        }
    }

    #[test]
    fn a_long_line_is_split_and_every_piece_but_the_first_is_marked() {
        let mut text = vec![b'a'; 2 * MAX_LINE_BYTES + 10];
        text.push(b'\n');
        text.extend_from_slice(b"next\n");
        for size in [1, 1000, MAX_LINE_BYTES, text.len()] {
            let pieces: Vec<&[u8]> = text.chunks(size).collect();
            let (_, lines) = split(&pieces);
            let shape: Vec<(usize, bool)> = lines.iter().map(|(line, continued)| (line.len(), *continued)).collect();
            assert_eq!(shape, [(MAX_LINE_BYTES, false), (MAX_LINE_BYTES, true), (10, true), (4, false)]);
        }
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_not_split() {
        let mut text = vec![b'a'; MAX_LINE_BYTES];
        text.push(b'\n');
        let (_, lines) = split(&[&text]);
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn a_character_on_the_limit_moves_to_the_next_piece() {
        for character in ["ü", "€", "🌀"] {
            for before in 1..character.len() {
                let mut text = vec![b'a'; MAX_LINE_BYTES - before];
                text.extend_from_slice(character.as_bytes());
                text.extend_from_slice(b"end\n");
                let (_, lines) = split(&[&text]);
                assert_eq!(lines[0].0.len(), MAX_LINE_BYTES - before);
                assert_eq!(lines[1], (format!("{character}end").into_bytes(), true));
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_split_without_end_or_loss() {
        let text = vec![0x80; 3 * MAX_LINE_BYTES + 1];
        let (mut splitter, mut lines) = split(&[&text]);
        splitter.flush(|line, continued| lines.push((line.to_vec(), continued)));
        assert_eq!(lines.iter().map(|(line, _)| line.len()).sum::<usize>(), text.len());
    }

    #[test]
    fn binary_bytes_are_made_visible() {
        assert_eq!(escaped(b"a\tb\x1b[31mred\x07\x00\x7f"), "a\tb\\x1b[31mred\\x07\\x00\\x7f");
        assert_eq!(escaped(b"50%\rdone"), "50%\\rdone");
        assert_eq!(escaped(b"\xff\xfe ok \xe2\x82"), "\\xff\\xfe ok \\xe2\\x82");
        assert_eq!(escaped("grün € 🌀 C:\\path".as_bytes()), "grün € 🌀 C:\\path");
        assert_eq!(escaped("\u{9b}31m \u{202e}x\u{2028}".as_bytes()), "\\u{9b}31m \\u{202e}x\\u{2028}");
    }

    #[test]
    fn every_byte_yields_a_single_line() {
        let all: Vec<u8> = (0..=255).collect();
        let text = escaped(&all);
        assert!(!text.contains(['\n', '\r', '\x1b', '\0']));
    }
}
