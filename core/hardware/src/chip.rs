//! The chips on the buses: which lines they carry, and how these are read and written.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use multus_contract::config::hardware::{HardwareConfig, LineConfig, LineSource, Measure};

use crate::bus::{I2c, Spi};
use crate::{gpio, measure};

/// One chip with its lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Chip {
    place: Place,
    lines: Vec<Carried>,
    /// How often its inputs are read: as often as the quickest of them.
    pub period: Duration,
}

/// Where a chip is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Pcf8574 { address: u8 },
    Lm75 { address: u8 },
    Mcp3208 { enable: u8 },
    Mcp4922 { enable: u8 },
}

#[derive(Clone, Debug, PartialEq)]
struct Carried {
    /// Index in [`HardwareConfig::lines`].
    line: usize,
    /// Bit or channel.
    at: u8,
    measures: Measure,
    is_output: bool,
    active_low: bool,
    scale: f64,
    offset: f64,
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Pcf8574 { address } => write!(f, "PCF8574 at {address:#04x}"),
            Place::Lm75 { address } => write!(f, "LM75 at {address:#04x}"),
            Place::Mcp3208 { enable } => write!(f, "MCP3208 at chip enable {enable}"),
            Place::Mcp4922 { enable } => write!(f, "MCP4922 at chip enable {enable}"),
        }
    }
}

/// The chips of a configuration, those on I2C and those on SPI.
pub fn chips(config: &HardwareConfig) -> (Vec<Chip>, Vec<Chip>) {
    let mut found: BTreeMap<Place, Chip> = BTreeMap::new();
    for (index, line) in config.lines.iter().enumerate() {
        let Some((place, carried)) = carried(index, line) else { continue };
        let chip = found.entry(place).or_insert_with(|| Chip { place, lines: Vec::new(), period: Duration::MAX });
        chip.period = chip.period.min(line.period);
        chip.lines.push(carried);
    }
    let is_i2c = |chip: &Chip| matches!(chip.place, Place::Pcf8574 { .. } | Place::Lm75 { .. });
    found.into_values().partition(is_i2c)
}

fn carried(index: usize, line: &LineConfig) -> Option<(Place, Carried)> {
    let (place, at, measures) = match line.source {
        LineSource::Gpio(_) => return None,
        LineSource::Pcf8574 { address, bit } => (Place::Pcf8574 { address }, bit, Measure::Raw),
        LineSource::Lm75 { address } => (Place::Lm75 { address }, 0, Measure::Raw),
        LineSource::Mcp3208 { enable, channel, measures } => (Place::Mcp3208 { enable }, channel, measures),
        LineSource::Mcp4922 { enable, channel } => (Place::Mcp4922 { enable }, channel, Measure::Raw),
    };
    let LineConfig { active_low, scale, offset, .. } = *line;
    let is_output = line.kind.is_output();
    Some((place, Carried { line: index, at, measures, is_output, active_low, scale, offset }))
}

/// The bus a chip is on.
pub enum Bus {
    /// For PCF8574 and LM75.
    I2c(Box<dyn I2c>),
    /// For MCP3208 and MCP4922.
    Spi(Box<dyn Spi>),
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Bus {
    /// "i2c" or "spi".
    pub fn name(&self) -> &'static str {
        match self {
            Self::I2c(_) => "i2c",
            Self::Spi(_) => "spi",
        }
    }

    fn i2c(&mut self) -> io::Result<&mut dyn I2c> {
        match self {
            Self::I2c(bus) => Ok(bus.as_mut()),
            Self::Spi(_) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn spi(&mut self) -> io::Result<&mut dyn Spi> {
        match self {
            Self::Spi(bus) => Ok(bus.as_mut()),
            Self::I2c(_) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Chip {
    /// The lines it carries: index in [`HardwareConfig::lines`], and whether it is an output.
    pub fn lines(&self) -> impl Iterator<Item = (usize, bool)> + '_ {
        self.lines.iter().map(|carried| (carried.line, carried.is_output))
    }

    /// Whether there is something to read.
    pub fn has_inputs(&self) -> bool {
        self.lines.iter().any(|carried| !carried.is_output)
    }

    /// Whether there is something to write.
    pub fn has_outputs(&self) -> bool {
        self.lines.iter().any(|carried| carried.is_output)
    }

    /// Reads all inputs: line, the number as the chip has it, value.
    ///
    /// # Errors
    /// The chip did not answer; some lines may have been told before.
    pub fn read(&self, bus: &mut Bus, mut got: impl FnMut(usize, u64, f64)) -> io::Result<()> {
        let inputs = self.lines.iter().filter(|carried| !carried.is_output);
        match self.place {
            Place::Pcf8574 { address } => {
                let mut byte = [0];
                bus.i2c()?.read(address, &mut byte)?;
                for input in inputs {
                    let is_high = byte[0] >> input.at & 1 == 1;
                    got(input.line, is_high.into(), gpio::value(is_high, input.active_low));
                }
            }
            Place::Lm75 { address } => {
                let mut bytes = [0; 2];
                // The register of the temperature is the one it shows without being asked, and after this.
                bus.i2c()?.write(address, &[0])?;
                bus.i2c()?.read(address, &mut bytes)?;
                for input in inputs {
                    let value = measure::lm75(bytes) * input.scale + input.offset;
                    got(input.line, u64::from(u16::from_be_bytes(bytes) >> 7), value);
                }
            }
            Place::Mcp3208 { enable } => {
                for input in inputs {
                    let mut bytes = [0x06 | input.at >> 2, (input.at & 3) << 6, 0];
                    bus.spi()?.transfer(enable, &mut bytes)?;
                    // Before its number the chip sends a zero (data sheet DS21298, figure 6-1); a line that nobody drives reads as ones.
                    if bytes[1] & 0x10 != 0 {
                        return Err(io::Error::from_raw_os_error(libc::ENXIO));
                    }
                    let raw = u16::from_be_bytes([bytes[1] & 0x0f, bytes[2]]);
                    got(input.line, raw.into(), measure::mcp3208(raw, input.measures) * input.scale + input.offset);
                }
            }
            Place::Mcp4922 { .. } => {}
        }
        Ok(())
    }

    /// Writes all outputs with the values that `wanted` says.
    ///
    /// # Errors
    /// The chip did not answer; some outputs may have been written.
    pub fn write(&self, bus: &mut Bus, wanted: impl Fn(usize) -> f64) -> io::Result<()> {
        let outputs = self.lines.iter().filter(|carried| carried.is_output);
        match self.place {
            Place::Pcf8574 { address } => {
                // A pin reads only while it is high, so whatever is no output stays high.
                let byte = outputs.fold(0xff_u8, |byte, output| {
                    let is_high = gpio::level(wanted(output.line), output.active_low);
                    if is_high { byte } else { byte & !(1 << output.at) }
                });
                bus.i2c()?.write(address, &[byte])
            }
            Place::Mcp4922 { enable } => {
                for output in outputs {
                    let raw = measure::mcp4922((wanted(output.line) - output.offset) / output.scale);
                    // Bit 15: which channel; 13: gain 1; 12: not shut down.
                    let word = u16::from(output.at) << 15 | 1 << 13 | 1 << 12 | raw;
                    bus.spi()?.transfer(enable, &mut word.to_be_bytes())?;
                }
                Ok(())
            }
            Place::Lm75 { .. } | Place::Mcp3208 { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use multus_contract::config::hardware;

    use super::*;

    /// Answers every byte with the same one.
    struct Same(u8);

    impl Spi for Same {
        fn transfer(&mut self, _: u8, bytes: &mut [u8]) -> io::Result<()> {
            bytes.fill(self.0);
            Ok(())
        }
    }

    #[test]
    fn a_converter_that_is_not_there_measures_nothing() {
        let text = "[lines]\nAI = { kind = \"analogue-input\", mcp3208 = { channel = 5 } }\n";
        let (config, found) = hardware::parse(text, Path::new("hardware.toml"));
        assert!(found.is_empty(), "{found:?}");
        let (_, spi) = chips(&config);
        let mut measured = Vec::new();
        let mut read = |byte| {
            let mut bus = Bus::Spi(Box::new(Same(byte)));
            spi[0].read(&mut bus, |_, raw, _| measured.push(raw)).map_err(|error| error.raw_os_error())
        };
        assert_eq!(read(0xff), Err(Some(libc::ENXIO)), "a line that nobody drives");
        assert_eq!(read(0xef), Ok(()));
        assert_eq!(measured, [0xfef]);
    }
}
