//! A board that is a file: what its inputs read stands there, what its outputs were set to, and which faults it has. Tests and
//! people write it through a [`Panel`].
//!
//! ```text
//! word         bytes     what                                                                     written by
//! 0            0..8      "MULTUSIM"
//! 1            8..16     version: 1
//! 2            16..24    1 = every line is taken; else error number of all native reads and writes panel
//! 3            24..32    error number of all transfers on SPI                                     panel
//! 64 + n       512..     native line n, 0 to 63, from outside: 0 open (the bias decides), 1 low, 2 high   panel
//! 128 + n      1024..    native line n as output: bits 0..2: 0 never set, 1 low, 2 high; 2..64 how often set   board
//! 192 + n      1536..    1 = native line n does not move any more; else error number of its writes        panel
//! 256 + a      2048..    I2C chip a reads bits 0..16, if bit 16; bits 32..64 error number of its transfers, all ones: they do not end   panel
//! 384 + a      3072..    I2C chip a was written: bits 0..8 the last byte, 8..64 how often                 board
//! 512 + c      4096..    SPI converter, channel c, 0 to 7                                         panel
//! 520 + c      4160..    SPI converter for output, channel c, 0 or 1, as [128 + n]: bits 0..16 the number, 16..64 how often   board
//! 576 + n      4608..    1 = another program has native line n                                    panel
//! 1024         8192      end
//! ```
//! The file is read and written a word at a time and never mapped, so that whatever becomes of it harms nobody.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use multus_contract::config::hardware::{Bias, LineConfig, LineSource};
use multus_contract::dirs::Dirs;

use crate::bus::{I2c, Spi};
use crate::gpio::{self, Gpio, Pins};
use crate::measure;
use crate::{Extent, OpenError};

const LETTERS: u64 = u64::from_le_bytes(*b"MULTUSIM");
const GPIO_FAULT: u64 = 2;
const SPI_FAULT: u64 = 3;
const INPUTS: u64 = 64;
const OUTPUTS: u64 = 128;
const OUTPUT_FAULTS: u64 = 192;
const I2C_READ: u64 = 256;
const I2C_WRITTEN: u64 = 384;
const ADC: u64 = 512;
const DAC: u64 = 520;
const TAKEN_LINES: u64 = 576;
const WORDS: u64 = 1024;
const TAKEN: u64 = 1;
const STUCK: u64 = 1;
/// No error number.
const HANG: u64 = 0xffff_ffff;

/// The file of the simulated board of these directories.
pub fn file_of(dirs: &Dirs) -> PathBuf {
    dirs.runtime.join("io-sim")
}

/// The board as somebody sees it who stands before it.
#[derive(Debug)]
pub struct Panel {
    file: File,
}

/// What an I2C chip or line does wrong, as the error number of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It works.
    None,
    /// It is not there.
    Missing,
    /// It does not acknowledge.
    NoAcknowledge,
    /// The transfer takes too long.
    Timeout,
    /// It holds its bus: a transfer does not end as long as this lasts.
    Hang,
}

impl Fault {
    fn number(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Missing => 6,         // ENXIO
            Self::NoAcknowledge => 121, // EREMOTEIO
            Self::Timeout => 110,       // ETIMEDOUT
            Self::Hang => HANG,
        }
    }
}

impl Panel {
    /// Opens the board, and makes it if it is not there.
    ///
    /// # Errors
    /// What the system refuses; `InvalidData` for a file that is something else.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(path)?,
            opened => opened?,
        };
        let panel = Self { file };
        if panel.get(0)? != LETTERS || panel.get(1)? != 1 || panel.file.metadata()?.len() != WORDS * 8 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "is no simulated board of this release; remove it"));
        }
        Ok(panel)
    }

    /// A new board appears as a whole: whoever opens it meanwhile finds nothing, or all of it.
    fn make(path: &Path) -> io::Result<File> {
        let new = path.with_extension(format!("new-{}-{:?}", std::process::id(), std::thread::current().id()));
        let panel = Self { file: OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&new)? };
        panel.file.set_len(WORDS * 8)?;
        panel.put(0, LETTERS)?;
        panel.put(1, 1)?;
        let linked = fs::hard_link(&new, path);
        fs::remove_file(&new)?;
        match linked {
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                OpenOptions::new().read(true).write(true).open(path)
            }
            linked => linked.map(|()| panel.file),
        }
    }

    /// Drives native line `number` from outside; `None` leaves it open.
    ///
    /// # Errors
    /// What the system refuses, here and below.
    pub fn drive(&self, number: u32, is_high: Option<bool>) -> io::Result<()> {
        self.put(INPUTS + place(number), is_high.map_or(0, level_word))
    }

    /// Has an input read this value from now on, or the nearest that its chip can tell.
    ///
    /// # Errors
    /// No input on this board reads such a value; or what the system refuses.
    pub fn show(&self, line: &LineConfig, value: f64) -> Result<(), String> {
        let told = |error: io::Error| error.to_string();
        if line.kind.is_digital() && value != 0.0 && value != 1.0 {
            return Err(format!("{value} is no value of a digital input; expected 0 or 1"));
        }
        let is_high = gpio::level(value, line.active_low);
        let nearest = |count: u16, value_of: &dyn Fn(u16) -> f64| {
            let all = || (0..count).map(|raw| (raw, value_of(raw) * line.scale + line.offset));
            let (low, high) = all().fold((f64::MAX, f64::MIN), |(low, high), (_, v)| (low.min(v), high.max(v)));
            let found = all().min_by(|(_, a), (_, b)| (a - value).abs().total_cmp(&(b - value).abs()));
            match found.filter(|_| (low..=high).contains(&value)) {
                Some((raw, _)) => Ok(raw),
                None => Err(format!("{value} cannot be measured, expected {low:.3} to {high:.3} {}", line.unit)),
            }
        };
        match line.source {
            LineSource::Gpio(number) => self.drive(number, Some(is_high)).map_err(told),
            LineSource::Pcf8574 { address, bit } => {
                let before = answer(self.get(I2C_READ + u64::from(address & 127)).map_err(told)?, 1);
                let mask = 1 << (bit & 7);
                self.answer(address, if is_high { before | mask } else { before & !mask }).map_err(told)
            }
            LineSource::Lm75 { address } => {
                // Half degrees from -55 to 125, from the lowest on.
                let degrees = |raw: u16| (f64::from(raw) - 110.0) / 2.0;
                let half = nearest(361, &degrees)?;
                self.answer(address, half.wrapping_sub(110) << 7).map_err(told)
            }
            LineSource::Mcp3208 { channel, measures, .. } => {
                let raw = nearest(4096, &|raw| measure::mcp3208(raw, measures))?;
                self.measure(channel, raw).map_err(told)
            }
            LineSource::Mcp4922 { .. } => Err(format!("{} is an output", line.name)),
        }
    }

    /// The level that native line `number` was set to, and how often; `None` when it never was.
    ///
    /// # Errors
    /// As [`Self::drive`].
    pub fn output(&self, number: u32) -> io::Result<Option<(bool, u64)>> {
        let word = self.get(OUTPUTS + place(number))?;
        Ok(match word & 3 {
            1 => Some((false, word >> 2)),
            2 => Some((true, word >> 2)),
            _ => None,
        })
    }

    /// From now on writes of native line `number` do nothing, and nobody is told.
    ///
    /// # Errors
    /// As [`Self::drive`].
    pub fn stick(&self, number: u32, is_stuck: bool) -> io::Result<()> {
        self.put(OUTPUT_FAULTS + place(number), if is_stuck { STUCK } else { 0 })
    }

    /// From now on writes of native line `number` fail.
    ///
    /// # Errors
    /// As [`Self::drive`].
    pub fn break_output(&self, number: u32, fault: Fault) -> io::Result<()> {
        self.put(OUTPUT_FAULTS + place(number), fault.number())
    }

    /// From now on all native lines fail.
    ///
    /// # Errors
    /// As [`Self::drive`].
    pub fn break_gpio(&self, fault: Fault) -> io::Result<()> {
        self.put(GPIO_FAULT, fault.number())
    }

    /// As if another program had all native lines: they cannot be opened.
    ///
    /// # Errors
    /// As [`Self::drive`].
    pub fn take_lines(&self, are_taken: bool) -> io::Result<()> {
        self.put(GPIO_FAULT, if are_taken { TAKEN } else { 0 })
    }

    /// As if another program had native line `number`: whoever has not opened it yet cannot.
    ///
    /// # Errors
    /// As [`Self::drive`].
    pub fn take_line(&self, number: u32, is_taken: bool) -> io::Result<()> {
        self.put(TAKEN_LINES + place(number), is_taken.into())
    }

    /// What the I2C chip at `address` answers: one byte (the lower one) or two, the upper one first.
    ///
    /// # Errors
    /// As [`Self::drive`].
    pub fn answer(&self, address: u8, data: u16) -> io::Result<()> {
        self.put(I2C_READ + u64::from(address & 127), 1 << 16 | u64::from(data))
    }

    /// From now on the I2C chip at `address` fails, or works again as it did at first.
    ///
    /// # Errors
    /// As [`Self::drive`].
    pub fn break_chip(&self, address: u8, fault: Fault) -> io::Result<()> {
        self.put(I2C_READ + u64::from(address & 127), fault.number() << 32)
    }

    /// The last byte that the I2C chip at `address` was sent, and how many.
    ///
    /// # Errors
    /// As [`Self::drive`].
    pub fn sent(&self, address: u8) -> io::Result<Option<(u8, u64)>> {
        let word = self.get(I2C_WRITTEN + u64::from(address & 127))?;
        Ok((word != 0).then_some(((word & 0xff) as u8, word >> 8)))
    }

    /// What channel `channel` of the converter measures, 0 to 4095.
    ///
    /// # Errors
    /// As [`Self::drive`].
    pub fn measure(&self, channel: u8, raw: u16) -> io::Result<()> {
        self.put(ADC + u64::from(channel & 7), raw.into())
    }

    /// From now on the SPI bus fails, or works again.
    ///
    /// # Errors
    /// As [`Self::drive`].
    pub fn break_spi(&self, fault: Fault) -> io::Result<()> {
        self.put(SPI_FAULT, fault.number())
    }

    /// The number that channel `channel` of the converter for output was set to, and how often.
    ///
    /// # Errors
    /// As [`Self::drive`].
    pub fn converted(&self, channel: u8) -> io::Result<Option<(u16, u64)>> {
        let word = self.get(DAC + u64::from(channel & 1))?;
        Ok((word != 0).then_some(((word & 0xffff) as u16, word >> 16)))
    }

    fn get(&self, word: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, word * 8)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn put(&self, word: u64, value: u64) -> io::Result<()> {
        self.file.write_all_at(&value.to_le_bytes(), word * 8)
    }

    /// The error that stands in bits `shift` to `shift + 32` of a word.
    fn fail(word: u64, shift: u32) -> io::Result<()> {
        match i32::try_from(word >> shift & 0xffff_ffff) {
            Ok(0) => Ok(()),
            Ok(number) => Err(io::Error::from_raw_os_error(number)),
            Err(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn place(number: u32) -> u64 {
    u64::from(number) % 64
}

/// What a chip answers: what stands in its word; an expander to which nothing is connected reads high, a sensor 0 °C.
fn answer(word: u64, bytes: usize) -> u16 {
    match (word >> 16 & 1, bytes) {
        (1, _) => word as u16,
        (_, 1) => 0xff,
        _ => 0,
    }
}

fn level_word(is_high: bool) -> u64 {
    if is_high { 2 } else { 1 }
}

/// The native lines of the simulated board.
#[derive(Debug)]
pub(crate) struct SimGpio {
    panel: Panel,
    inputs: Vec<(u32, bool)>,
    outputs: Vec<u32>,
    /// Inputs and outputs that are not open yet, as bits.
    missing: [u64; 2],
}

impl SimGpio {
    pub(crate) fn open(panel: Panel, pins: &Pins, extent: Extent) -> Result<Self, OpenError> {
        let failed = |error: io::Error| OpenError::new(format!("the simulated board: {error}"));
        let taken = |what: &str| OpenError {
            message: format!("the simulated board: {what} taken by \"somebody\""),
            is_busy: true,
        };
        if panel.get(GPIO_FAULT).map_err(failed)? == TAKEN && extent == Extent::All {
            return Err(taken("all lines are"));
        }
        let mut lines = Self {
            panel,
            inputs: pins.inputs.iter().map(|pin| (pin.number, pin.bias == Bias::PullUp)).collect(),
            outputs: pins.outputs.iter().map(|pin| pin.number).collect(),
            missing: [0; 2],
        };
        let inputs = pins.inputs.iter().map(|pin| pin.number).enumerate().map(|(i, number)| (0, i, number));
        let outputs = pins.outputs.iter().map(|pin| pin.number).enumerate().map(|(i, number)| (1, i, number));
        for (kind, i, number) in inputs.chain(outputs) {
            if number > 63 {
                return Err(OpenError::new(format!("gpio {number}: the simulated board has 0 to 63")));
            }
            if lines.is_taken(number).map_err(failed)? {
                if extent == Extent::All {
                    return Err(taken(&format!("line {number} is")));
                }
                lines.missing[kind] |= 1 << i;
            }
        }
        for (output, pin) in pins.outputs.iter().enumerate() {
            // What is broken shows when it is used.
            let _ = lines.write(output, pin.is_high);
        }
        Ok(lines)
    }

    fn is_taken(&self, number: u32) -> io::Result<bool> {
        Ok(self.panel.get(TAKEN_LINES + place(number))? != 0)
    }
}

impl Gpio for SimGpio {
    fn read(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 64 * 8];
        Panel::fail(self.panel.get(GPIO_FAULT)?, 0)?;
        self.panel.file.read_exact_at(&mut bytes, INPUTS * 8)?;
        let mut levels = 0;
        for (i, (number, is_pulled_up)) in self.inputs.iter().enumerate() {
            if self.missing[0] >> i & 1 == 1 && !self.is_taken(*number)? {
                self.missing[0] &= !(1 << i);
            }
            let is_high = match bytes[*number as usize * 8] {
                0 => *is_pulled_up,
                level => level == 2,
            };
            levels |= u64::from(is_high) << i;
        }
        Ok(levels)
    }

    fn missing_inputs(&self) -> u64 {
        self.missing[0]
    }

    fn why_missing(&self, output: usize) -> Option<String> {
        let number = self.outputs.get(output).filter(|_| self.missing[1] >> output & 1 == 1)?;
        Some(format!("line {number} is taken by \"somebody\""))
    }

    fn write(&mut self, output: usize, is_high: bool) -> io::Result<()> {
        let number = *self.outputs.get(output).ok_or(io::ErrorKind::InvalidInput)?;
        Panel::fail(self.panel.get(GPIO_FAULT)?, 0)?;
        if self.missing[1] >> output & 1 == 1 {
            if self.is_taken(number)? {
                return Err(io::Error::from_raw_os_error(libc::EBUSY));
            }
            self.missing[1] &= !(1 << output);
        }
        let fault = self.panel.get(OUTPUT_FAULTS + place(number))?;
        if fault == STUCK {
            return Ok(());
        }
        Panel::fail(fault, 0)?;
        let count = self.panel.get(OUTPUTS + place(number))? >> 2;
        self.panel.put(OUTPUTS + place(number), (count + 1) << 2 | level_word(is_high))
    }
}

/// The I2C bus of the simulated board.
#[derive(Debug)]
pub(crate) struct SimI2c(pub(crate) Panel);

impl SimI2c {
    /// The word of a chip that answers.
    fn chip(&self, address: u8) -> io::Result<u64> {
        loop {
            let word = self.0.get(I2C_READ + u64::from(address & 127))?;
            if word >> 32 != HANG {
                return Panel::fail(word, 32).map(|()| word);
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

impl I2c for SimI2c {
    fn read(&mut self, address: u8, bytes: &mut [u8]) -> io::Result<()> {
        let word = self.chip(address)?;
        let answer = answer(word, bytes.len());
        match bytes {
            [byte] => *byte = answer as u8,
            _ => bytes.iter_mut().zip(answer.to_be_bytes()).for_each(|(byte, value)| *byte = value),
        }
        Ok(())
    }

    fn write(&mut self, address: u8, bytes: &[u8]) -> io::Result<()> {
        self.chip(address)?;
        let address = u64::from(address & 127);
        let Some(last) = bytes.last() else { return Ok(()) };
        let count = self.0.get(I2C_WRITTEN + address)? >> 8;
        self.0.put(I2C_WRITTEN + address, (count + 1) << 8 | u64::from(*last))
    }
}

/// The SPI bus of the simulated board: a converter at chip enable 0, one for output at 1.
#[derive(Debug)]
pub(crate) struct SimSpi(pub(crate) Panel);

impl Spi for SimSpi {
    fn transfer(&mut self, _: u8, bytes: &mut [u8]) -> io::Result<()> {
        Panel::fail(self.0.get(SPI_FAULT)?, 0)?;
        match bytes {
            [first, second, third] => {
                let channel = u64::from((*first & 1) << 2 | *second >> 6);
                [*second, *third] = (self.0.get(ADC + channel)? as u16 & 0x0fff).to_be_bytes();
                *first = 0;
            }
            [first, second] => {
                let channel = u64::from(*first >> 7);
                let raw = u16::from_be_bytes([*first & 0x0f, *second]);
                let count = self.0.get(DAC + channel)? >> 16;
                self.0.put(DAC + channel, (count + 1) << 16 | u64::from(raw))?;
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use multus_contract::config::hardware;

    use super::*;

    #[test]
    fn an_input_reads_what_a_person_wants_or_says_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let panel = |name: &str| Panel::open(&folder.path().join(name)).unwrap();
        let text = "[lines]\n\
            DI = { kind = \"digital-input\", gpio = 4, active_low = true }\n\
            X6 = { kind = \"digital-input\", pcf8574 = { address = 0x38, pin = 6 }, active_low = true }\n\
            X0 = { kind = \"digital-input\", pcf8574 = { address = 0x38, pin = 0, reversed = true } }\n\
            ROOF = { kind = \"analogue-input\", lm75 = {} }\n\
            VOLTS = { kind = \"analogue-input\", mcp3208 = { channel = 2 }, scale = 10, unit = \"%\" }\n";
        let (config, found) = hardware::parse(text, Path::new("hardware.toml"));
        assert!(found.is_empty(), "{found:?}");
        let lines = config.lines;
        let line = |name: &str| lines.iter().find(|line| line.name == name).unwrap();
        let board = panel("board");
        board.show(line("DI"), 1.0).unwrap();
        assert_eq!(board.get(INPUTS + 4).unwrap(), 1, "low is on");
        let mut i2c = SimI2c(panel("board"));
        let mut byte = [0];
        board.show(line("X6"), 1.0).unwrap();
        board.show(line("X0"), 0.0).unwrap();
        i2c.read(0x38, &mut byte).unwrap();
        // Pin 0 of a reversed one is bit 7.
        assert_eq!(byte, [0b0011_1111]);
        let mut degrees = [0; 2];
        for (asked, expected) in [(20.1, 20.0), (-55.0, -55.0), (125.0, 125.0), (-0.5, -0.5)] {
            board.show(line("ROOF"), asked).unwrap();
            i2c.read(0x48, &mut degrees).unwrap();
            assert_eq!(measure::lm75(degrees), expected);
        }
        board.show(line("VOLTS"), 50.01).unwrap();
        let mut transfer = [0b110, 2 << 6, 0];
        SimSpi(panel("board")).transfer(0, &mut transfer).unwrap();
        assert_eq!(u16::from_be_bytes([transfer[1], transfer[2]]), 2048, "a little more than half of it");
        for (name, value) in [("DI", 0.5), ("X0", 2.0), ("ROOF", 125.5), ("ROOF", f64::NAN), ("VOLTS", 101.0)] {
            assert!(board.show(line(name), value).is_err(), "{name} {value}");
        }
    }
}
