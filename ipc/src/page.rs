//! The first two words of every page: what it is, which layout, how long.
//!
//! ```text
//! word 0   magic: eight ASCII letters
//! word 1   bits 0..32 layout version, bits 32..64 length of the page in bytes
//! ```

/// A page's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Eight ASCII letters as a little-endian word.
    pub magic: u64,
    /// Raised when the meaning of an existing word changes; new words in reserved places do not raise it.
    pub version: u32,
}

/// Why a foreign page is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another magic: not this kind of page, or overwritten.
    Magic {
        /// The word that was found.
        found: u64,
    },
    /// A layout version that this program does not know.
    Version {
        /// The version that was found.
        found: u32,
        /// The version that this program knows.
        known: u32,
    },
    /// The length in the header is not the length that was mapped.
    Length {
        /// The length that was found, in bytes.
        found: u64,
        /// The length of the mapping, in bytes.
        mapped: u64,
    },
}

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic { found } => write!(f, "not the expected page (first word {found:#018x})"),
            Self::Version { found, known } => {
                write!(f, "page layout version {found}, this program knows {known}; use programs of one release")
            }
            Self::Length { found, mapped } => write!(f, "the page says it has {found} bytes, {mapped} are mapped"),
        }
    }
}

impl core::error::Error for Refused {}

impl Kind {
    /// A kind of page from its eight letters.
    pub const fn new(letters: &[u8; 8], version: u32) -> Self {
        Self { magic: u64::from_le_bytes(*letters), version }
    }

    /// Word 1 of a page of `words` words.
    pub const fn shape(self, words: usize) -> u64 {
        (self.version as u64) | ((words as u64 * 8) << 32)
    }

    /// Checks words 0 and 1 of a page of `words` words.
    ///
    /// # Errors
    /// The first thing that does not fit; the page must not be used.
    pub const fn validate(self, word0: u64, word1: u64, words: usize) -> Result<(), Refused> {
        if word0 != self.magic {
            return Err(Refused::Magic { found: word0 });
        }
        let version = (word1 & 0xffff_ffff) as u32;
        if version != self.version {
            return Err(Refused::Version { found: version, known: self.version });
        }
        let mapped = words as u64 * 8;
        if word1 >> 32 != mapped {
            return Err(Refused::Length { found: word1 >> 32, mapped });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_page_is_refused_for_the_first_thing_that_does_not_fit() {
        let kind = Kind::new(b"MULTUSHB", 1);
        assert_eq!(kind.validate(kind.magic, kind.shape(64), 64), Ok(()));
        assert_eq!(kind.validate(7, kind.shape(64), 64), Err(Refused::Magic { found: 7 }));
        assert!(matches!(kind.validate(kind.magic, 2, 64), Err(Refused::Version { found: 2, known: 1 })));
        assert!(matches!(kind.validate(kind.magic, kind.shape(32), 64), Err(Refused::Length { .. })));
    }
}
