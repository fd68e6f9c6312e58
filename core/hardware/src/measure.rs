//! What the numbers of the chips mean. The formulas are those of the original multusd, so that a device that changes over
//! shows the same values.

use multus_contract::config::hardware::Measure;

/// What an MCP3208 measures, from its 12 bits.
pub fn mcp3208(raw: u16, measures: Measure) -> f64 {
    let raw = f64::from(raw);
    // At the converter itself; a divider before it makes 0 to 10 V of it for the voltage channels.
    let volts = raw * 4.095 / 4095.0;
    match measures {
        Measure::Voltage => raw * 10.0 / 4095.0,
        Measure::Pt100 => 103_800.0 / 1589.0 * volts - 223_777.0 / 7945.0,
        Measure::Current => (330.0 / 1193.0 * volts + 87_751.0 / 11_930_000.0).max(0.0),
        Measure::Raw => raw,
    }
}

/// The 12 bits with which an MCP4922 gives this voltage, 0 to 10 V; beyond that its end. What is no number is 0 V.
pub fn mcp4922(volts: f64) -> u16 {
    let clamped = if volts.is_nan() { 0.0 } else { volts.clamp(0.0, 10.0) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 4095")]
    let raw = (clamped * 4095.0 / 10.0).round() as u16;
    raw
}

/// The temperature of an LM75 in °C: 9 bits, two's complement, half a degree a step, in the upper bits of two bytes.
pub fn lm75(bytes: [u8; 2]) -> f64 {
    f64::from(i16::from_be_bytes(bytes) >> 7) * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 0.0005, "{found} instead of {expected}");
    }

    #[test]
    fn the_converter_measures_what_the_original_shows() {
        for (raw, volts) in [(0, 0.0), (4095, 10.0), (2048, 5.0012), (1, 0.0024)] {
            near(mcp3208(raw, Measure::Voltage), volts);
        }
        for (raw, celsius) in [(0, -28.1658), (431, -0.0111), (1000, 37.1583), (4095, 239.3364)] {
            near(mcp3208(raw, Measure::Pt100), celsius);
        }
        for (raw, ampere) in [(0, 0.0074), (1000, 0.2840), (4095, 1.1401)] {
            near(mcp3208(raw, Measure::Current), ampere);
        }
        near(mcp3208(4095, Measure::Raw), 4095.0);
    }

    #[test]
    fn the_output_is_clamped() {
        for (volts, raw) in [
            (0.0, 0),
            (10.0, 4095),
            (5.0, 2048),
            (-1.0, 0),
            (11.0, 4095),
            (f64::NAN, 0),
            (f64::INFINITY, 4095),
            (0.002, 1),
        ] {
            assert_eq!(mcp4922(volts), raw, "{volts}");
        }
    }

    #[test]
    fn the_sensor_knows_half_degrees_above_and_below_zero() {
        // The table of the data sheet; the seven lower bits mean nothing.
        for (bytes, celsius) in [
            ([0x7d, 0x00], 125.0),
            ([0x19, 0x00], 25.0),
            ([0x00, 0x80], 0.5),
            ([0x00, 0x7f], 0.0),
            ([0xff, 0x80], -0.5),
            ([0xe7, 0x00], -25.0),
            ([0xc9, 0x00], -55.0),
        ] {
            near(lm75(bytes), celsius);
        }
    }
}
