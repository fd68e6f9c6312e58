//! A number of the plant as registers, and back. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a number stands in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One register, 0 to 65535.
    U16,
    /// One register, -32768 to 32767.
    I16,
    /// Two registers, without sign.
    U32,
    /// Two registers, with sign.
    I32,
    /// Two registers, IEEE 754 single precision.
    F32,
}

/// Which of two registers comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WordOrder {
    /// The one with the higher bits.
    HighFirst,
    /// The one with the lower bits.
    LowFirst,
}

impl Format {
    /// How many registers it takes.
    pub(crate) fn words(self) -> u8 {
        match self {
            Self::U16 | Self::I16 => 1,
            Self::U32 | Self::I32 | Self::F32 => 2,
        }
    }

    /// The registers of a number, the only or first one first; integers are rounded. `None` when it has no place in them.
    pub(crate) fn encode(self, number: f64, order: WordOrder) -> Option<[u16; 2]> {
        let (lowest, highest) = match self {
            Self::U16 => (0.0, f64::from(u16::MAX)),
            Self::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
            Self::U32 => (0.0, f64::from(u32::MAX)),
            Self::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            Self::F32 => {
                let single = number as f32;
                return single.is_finite().then(|| order.split(single.to_bits()));
            }
        };
        let number = number.round();
        if !(lowest..=highest).contains(&number) {
            return None;
        }
        // Two's complement of either size; the range was looked at.
        let bits = (number as i64) as u32;
        Some(if self.words() == 1 { [(bits & 0xffff) as u16, 0] } else { order.split(bits) })
    }

    /// The low bits of a counter, which begins anew when they are used up.
    pub(crate) fn encode_counter(self, count: u64, order: WordOrder) -> [u16; 2] {
        match self {
            Self::U16 | Self::I16 => [(count & 0xffff) as u16, 0],
            Self::U32 | Self::I32 => order.split((count & 0xffff_ffff) as u32),
            Self::F32 => order.split((count as f32).to_bits()),
        }
    }

    /// The number in registers.
    pub(crate) fn decode(self, words: [u16; 2], order: WordOrder) -> f64 {
        match self {
            Self::U16 => f64::from(words[0]),
            Self::I16 => f64::from(words[0].cast_signed()),
            Self::U32 => f64::from(order.join(words)),
            Self::I32 => f64::from(order.join(words).cast_signed()),
            Self::F32 => f64::from(f32::from_bits(order.join(words))),
        }
    }
}

impl WordOrder {
    fn split(self, bits: u32) -> [u16; 2] {
        let (high, low) = ((bits >> 16) as u16, (bits & 0xffff) as u16);
        match self {
            Self::HighFirst => [high, low],
            Self::LowFirst => [low, high],
        }
    }

    fn join(self, words: [u16; 2]) -> u32 {
        let [high, low] = match self {
            Self::HighFirst => words,
            Self::LowFirst => [words[1], words[0]],
        };
        u32::from(high) << 16 | u32::from(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Format::{F32, I16, I32, U16, U32};
    use WordOrder::{HighFirst, LowFirst};

    #[test]
    fn numbers_are_registers_in_the_order_that_is_wanted() {
        for (format, order, number, words) in [
            (U16, HighFirst, 65535.0, [65535, 0]),
            (U16, HighFirst, 2.5, [3, 0]),
            (I16, HighFirst, -1.0, [0xffff, 0]),
            (I16, LowFirst, -32768.0, [0x8000, 0]),
            (U32, HighFirst, 305_419_896.0, [0x1234, 0x5678]),
            (U32, LowFirst, 305_419_896.0, [0x5678, 0x1234]),
            (I32, HighFirst, -2.0, [0xffff, 0xfffe]),
            (F32, HighFirst, 23.5, [0x41bc, 0]),
            (F32, LowFirst, 23.5, [0, 0x41bc]),
        ] {
            assert_eq!(format.encode(number, order), Some(words), "{format:?} {number}");
            let back = format.decode(words, order);
            assert!((back - number).abs() <= 0.5, "{format:?} {number}: {back}");
        }
        assert_eq!(U16.encode_counter(65_537, HighFirst), [1, 0]);
        assert_eq!(U32.encode_counter(0x1_0002_0003, LowFirst), [3, 2]);
    }

    #[test]
    fn what_has_no_place_in_registers_is_no_number_there() {
        for (format, number) in [
            (U16, -1.0),
            (U16, 65536.0),
            (I16, 32768.0),
            (I16, -32769.0),
            (U32, 4_294_967_296.0),
            (I32, f64::NAN),
            (U16, f64::INFINITY),
            (F32, 1e39),
            (F32, f64::NAN),
        ] {
            assert_eq!(format.encode(number, HighFirst), None, "{format:?} {number}");
        }
    }
}
