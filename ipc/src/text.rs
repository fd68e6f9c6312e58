//! Short texts of a fixed size inside pages: UTF-8, padded with zero bytes, cut at a character boundary.

/// A text of at most `8 * WORDS` bytes, as it lies in a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const WORDS: usize>([u64; WORDS]);

/// A child instance's name: at most 48 bytes.
pub type Name = Text<6>;

impl<const WORDS: usize> Text<WORDS> {
    /// The empty text.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// Takes `text`, cut to `8 * WORDS` bytes at a character boundary.
    pub fn new(text: &str) -> Self {
        Self::ending(text, "")
    }

    /// The same of a sentence: one that is cut ends in "…".
    pub fn sentence(text: &str) -> Self {
        Self::ending(text, if text.len() > 8 * WORDS { "…" } else { "" })
    }

    fn ending(text: &str, end: &str) -> Self {
        let mut kept = text.len().min((8 * WORDS).saturating_sub(end.len()));
        while !text.is_char_boundary(kept) {
            kept -= 1;
        }
        let mut words = [0u64; WORDS];
        for (i, byte) in text[..kept].bytes().chain(end.bytes()).enumerate() {
            words[i / 8] |= u64::from(byte) << (8 * (i % 8));
        }
        Self(words)
    }

    /// The words as they lie in the page.
    pub fn words(&self) -> &[u64; WORDS] {
        &self.0
    }

    /// A text from the words of a page. Anything is accepted; what is no UTF-8 shows as U+FFFD.
    pub fn from_words(words: [u64; WORDS]) -> Self {
        Self(words)
    }

    /// The same text with more room, or cut to less.
    pub fn resized<const OTHER: usize>(&self) -> Text<OTHER> {
        Text(core::array::from_fn(|i| self.0.get(i).copied().unwrap_or(0)))
    }

    /// This text and another one behind it, cut to the room there is. Without allocation.
    #[must_use]
    pub fn then<const OTHER: usize>(mut self, other: &Text<OTHER>) -> Self {
        let byte = |words: &[u64], i: usize| (words[i / 8] >> (8 * (i % 8))) as u8;
        let length = (0..8 * WORDS).find(|i| byte(&self.0, *i) == 0).unwrap_or(8 * WORDS);
        for (from, to) in (0..8 * OTHER).zip(length..8 * WORDS) {
            match byte(&other.0, from) {
                0 => break,
                b => self.0[to / 8] |= u64::from(b) << (8 * (to % 8)),
            }
        }
        self
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }
}

impl<const WORDS: usize> Default for Text<WORDS> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const WORDS: usize> core::fmt::Display for Text<WORDS> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let bytes: Vec<u8> = self.0.iter().flat_map(|w| w.to_le_bytes()).take_while(|b| *b != 0).collect();
        f.pad(&String::from_utf8_lossy(&bytes))
    }
}

impl<const WORDS: usize> core::fmt::Debug for Text<WORDS> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_are_cut_between_characters() {
        assert_eq!(Name::new("modbus").to_string(), "modbus");
        assert_eq!(Text::<1>::new("1234567ä").to_string(), "1234567");
        assert_eq!(Text::<1>::sentence("12345678").to_string(), "12345678");
        assert_eq!(Text::<1>::sentence("1234ä678").to_string(), "1234…");
        assert!(Name::new("").is_empty());
        assert_eq!(
            Text::<2>::new("read").then(&Text::<1>::new(" -> ")).then(&Name::new("write")).to_string(),
            "read -> write"
        );
        assert_eq!(Text::<1>::new("read").then(&Text::<4>::new("compute")).to_string(), "readcomp");
        assert_eq!(Text::<4>::new("poller").resized::<24>().to_string(), "poller");
        assert_eq!(Text::<1>::from_words([0x00ff_ff61]).to_string(), "a\u{fffd}\u{fffd}");
    }
}
