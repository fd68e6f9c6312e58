//! I2C and SPI, as the kernel offers them to programs.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use crate::sys;

/// An I2C bus. One transfer may take as long as the driver lets it, usually up to 1 s for a bus that hangs.
pub trait I2c: Send {
    /// Reads from the chip at `address`, 7 bits.
    ///
    /// # Errors
    /// No bus, or no answer.
    fn read(&mut self, address: u8, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes to the chip at `address`, 7 bits.
    ///
    /// # Errors
    /// No bus, or no answer.
    fn write(&mut self, address: u8, bytes: &[u8]) -> io::Result<()>;
}

/// An SPI bus, mode 0, 8 bits a word.
pub trait Spi: Send {
    /// Sends `bytes` to the chip at this chip enable; what it sends meanwhile comes in their place.
    ///
    /// # Errors
    /// No bus. A missing chip is no error: it reads as all zeros or all ones.
    fn transfer(&mut self, enable: u8, bytes: &mut [u8]) -> io::Result<()>;
}

/// /dev/i2c-N. It is opened when it is first used, and again after an error: it may come later.
#[derive(Debug)]
pub struct I2cDevice {
    path: PathBuf,
    file: Option<File>,
}

impl I2cDevice {
    /// The bus with this number.
    pub fn new(bus: u8) -> Self {
        Self { path: format!("/dev/i2c-{bus}").into(), file: None }
    }

    fn with(&mut self, address: u8, act: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        let mut file = open_again(self.file.take(), &self.path)?;
        sys::i2c_address(&file, address)?;
        act(&mut file)?;
        self.file = Some(file);
        Ok(())
    }
}

impl I2c for I2cDevice {
    fn read(&mut self, address: u8, bytes: &mut [u8]) -> io::Result<()> {
        self.with(address, |file| file.read_exact(bytes))
    }

    fn write(&mut self, address: u8, bytes: &[u8]) -> io::Result<()> {
        self.with(address, |file| file.write_all(bytes))
    }
}

/// /dev/spidevN.x, opened as [`I2cDevice`] is.
#[derive(Debug)]
pub struct SpiDevice {
    bus: u8,
    speed_hz: u32,
    files: [Option<File>; 2],
}

impl SpiDevice {
    /// The bus with this number.
    pub fn new(bus: u8, speed_hz: u32) -> Self {
        Self { bus, speed_hz, files: [None, None] }
    }
}

impl Spi for SpiDevice {
    fn transfer(&mut self, enable: u8, bytes: &mut [u8]) -> io::Result<()> {
        let path = format!("/dev/spidev{}.{enable}", self.bus).into();
        let slot = self.files.get_mut(usize::from(enable)).ok_or(io::ErrorKind::InvalidInput)?;
        let file = open_again(slot.take(), &path)?;
        sys::spi_transfer(&file, self.speed_hz, bytes)?;
        *slot = Some(file);
        Ok(())
    }
}

fn open_again(file: Option<File>, path: &PathBuf) -> io::Result<File> {
    if let Some(file) = file {
        return Ok(file);
    }
    OpenOptions::new().read(true).write(true).open(path).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("{}: {error}; is the bus enabled, and may this user open it?", path.display()),
        )
    })
}
