//! Everything that can wake the watch thread, as a poll token and back.
//!
//! ```text
//! bits 0..12 slot    bits 12..29 generation (low 17 bits)    bits 29..31 kind        fits a 32-bit usize
//! ```

use mio::Token;

/// What woke us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A deadline.
    Timer,
    /// A ring has something.
    Wake,
    /// A process went through exec, or failed to.
    Exec { slot: usize, generation: u32 },
    /// A process ended.
    Exit { slot: usize, generation: u32 },
}

const SLOT_BITS: usize = 12;
const GENERATION_BITS: usize = 17;
const KIND_SHIFT: usize = SLOT_BITS + GENERATION_BITS;

/// Slots that fit a token; the configuration allows no more.
pub(super) const MAX_SLOTS: usize = 1 << SLOT_BITS;

/// The part of a generation that a token carries.
pub(super) fn short(generation: u32) -> u32 {
    generation & ((1 << GENERATION_BITS) - 1)
}

impl Source {
    pub(super) fn token(self) -> Token {
        let (kind, slot, generation) = match self {
            Self::Timer => (0, 0, 0),
            Self::Wake => (1, 0, 0),
            Self::Exec { slot, generation } => (2, slot, generation),
            Self::Exit { slot, generation } => (3, slot, generation),
        };
        Token(kind << KIND_SHIFT | (short(generation) as usize) << SLOT_BITS | slot)
    }

    /// The generation comes back [`short`].
    pub(super) fn of(token: Token) -> Self {
        let slot = token.0 & (MAX_SLOTS - 1);
        let generation = short((token.0 >> SLOT_BITS) as u32);
        match token.0 >> KIND_SHIFT {
            0 => Self::Timer,
            1 => Self::Wake,
            2 => Self::Exec { slot, generation },
            _ => Self::Exit { slot, generation },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        for source in [
            Source::Timer,
            Source::Wake,
            Source::Exec { slot: MAX_SLOTS - 1, generation: 70_000 },
            Source::Exit { slot: 7, generation: (1 << 17) - 1 },
        ] {
            assert_eq!(Source::of(source.token()), source);
            assert!(source.token().0 < 1 << 31);
        }
        assert_eq!(short(1 << 17), 0);
    }
}
