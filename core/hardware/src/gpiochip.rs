//! Native lines through the GPIO character device of the kernel. A line belongs to whoever requested it: nobody else can
//! write it meanwhile. When the last process that has the request ends, the kernel lets go of the lines; what their levels are
//! then is up to the driver. So multusd requests the outputs and keeps them, and multus-io gets the same request.
//!
//! All inputs are one request, and all outputs are one. Where that is refused since somebody else has one of the lines, each
//! line can be requested for itself, so that one does not keep the others from being used.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gpiocdev::chip::Chip;
use gpiocdev::line::{Offset, Value, Values};
use gpiocdev::request::{Builder, Request};
use gpiocdev_uapi::v2::{LineValues, set_line_values};
use multus_contract::config::hardware::Bias;

use crate::gpio::{Gpio, InputPin, OutputPin, Pins, SharedOutputs};
use crate::{Board, Extent, OpenError};

/// What other programs see as the user of the lines.
const CONSUMER: &str = "multus-io";
/// From try to try of inputs that are missing.
const AGAIN: Duration = Duration::from_secs(1);

struct Lines {
    label: String,
    inputs: Inputs,
    outputs: Outputs,
}

enum Inputs {
    None,
    All(Request, Values, Vec<Offset>),
    /// And when those that are missing are tried again.
    Each(Vec<Single<InputPin>>, Instant),
}

enum Outputs {
    None,
    /// The number of each output of the pins.
    Own(Request, Vec<Offset>),
    /// Where each output of the pins is in the request.
    Shared(File, Vec<u8>),
    Each(Vec<Single<OutputPin>>),
}

/// A line that is requested for itself.
struct Single<Pin> {
    pin: Pin,
    /// `None`: somebody else has it, or it is not there.
    request: Option<Request>,
}

/// The chip with this label.
pub(crate) fn find(label: &str) -> Option<PathBuf> {
    let has_label =
        |path: &PathBuf| Chip::from_path(path).and_then(|chip| chip.info()).is_ok_and(|info| info.label == label);
    gpiocdev::chip::chips().ok()?.into_iter().find(has_label)
}

/// The lines; the notes say what is missing of them.
pub(crate) fn open(
    label: &str,
    pins: &Pins,
    shared: Option<SharedOutputs>,
    extent: Extent,
) -> Result<Board, OpenError> {
    let path = find(label);
    if path.is_none() && extent == Extent::All {
        return Err(no_chip(label));
    }
    let mut notes = Vec::new();
    let all = |mut builder: Builder| match &path {
        Some(path) => builder.request().map_err(|error| refused(path, pins, &error)),
        None => Err(no_chip(label)),
    };
    let mut each = |error: OpenError| match extent {
        Extent::All => Err(error),
        Extent::WhatThereIs => {
            if notes.last() != Some(&error.message) {
                notes.push(error.message);
            }
            Ok(())
        }
    };
    // Outputs first: the safe levels do not wait for the rest.
    let outputs = match shared.and_then(|shared| take_over(shared, pins).transpose()) {
        _ if pins.outputs.is_empty() => Outputs::None,
        Some(outputs) => outputs?,
        None => match all(output_request(path.as_deref(), &pins.outputs)) {
            Ok(request) => Outputs::Own(request, pins.outputs.iter().map(|pin| pin.number).collect()),
            Err(error) => {
                each(error)?;
                Outputs::Each(singles(path.as_deref(), &pins.outputs, output_request))
            }
        },
    };
    let inputs = if pins.inputs.is_empty() {
        Inputs::None
    } else {
        match all(input_request(path.as_deref(), &pins.inputs)) {
            Ok(request) => {
                let numbers: Vec<Offset> = pins.inputs.iter().map(|pin| pin.number).collect();
                Inputs::All(request, Values::from_offsets(&numbers), numbers)
            }
            Err(error) => {
                each(error)?;
                Inputs::Each(singles(path.as_deref(), &pins.inputs, input_request), Instant::now() + AGAIN)
            }
        }
    };
    let place = path.map_or_else(|| "missing".to_owned(), |path| path.display().to_string());
    let lines = Lines { label: label.to_owned(), inputs, outputs };
    Ok(Board { gpio: Box::new(lines), name: format!("gpiochip {label} ({place})"), is_simulated: false, notes })
}

fn no_chip(label: &str) -> OpenError {
    OpenError::new(format!("there is no GPIO chip \"{label}\"; `gpiodetect` shows the labels of those there are"))
}

fn input_request(chip: Option<&Path>, pins: &[InputPin]) -> Builder {
    let mut builder = request_on(chip);
    for pin in pins {
        builder.with_line(pin.number).as_input().with_debounce_period(pin.debounce).with_bias(match pin.bias {
            Bias::AsIs => None,
            Bias::None => Some(gpiocdev::line::Bias::Disabled),
            Bias::PullUp => Some(gpiocdev::line::Bias::PullUp),
            Bias::PullDown => Some(gpiocdev::line::Bias::PullDown),
        });
    }
    builder
}

fn output_request(chip: Option<&Path>, pins: &[OutputPin]) -> Builder {
    let mut builder = request_on(chip);
    for pin in pins {
        builder.with_line(pin.number).as_output(value(pin.is_high));
    }
    builder
}

fn request_on(chip: Option<&Path>) -> Builder {
    let mut builder = Request::builder();
    builder.with_consumer(CONSUMER);
    if let Some(chip) = chip {
        builder.on_chip(chip);
    }
    builder
}

/// Each line for itself, as far as it can be had.
fn singles<Pin: Clone>(
    chip: Option<&Path>,
    pins: &[Pin],
    builder: fn(Option<&Path>, &[Pin]) -> Builder,
) -> Vec<Single<Pin>> {
    let request = |pin: &Pin| builder(Some(chip?), std::slice::from_ref(pin)).request().ok();
    pins.iter().map(|pin| Single { pin: pin.clone(), request: request(pin) }).collect()
}

/// Outputs that another process has requested; `None` for a descriptor that is no such request (multusd has none to give).
fn take_over(shared: SharedOutputs, pins: &Pins) -> Result<Option<Outputs>, OpenError> {
    let file = File::from(shared.fd);
    // In place of a request that it does not have, multusd gives /dev/null.
    if file.metadata().map_or(true, |what| what.file_type().is_char_device()) {
        return Ok(None);
    }
    if !shared.numbers.iter().eq(pins.outputs.iter().map(|pin| &pin.number)) {
        return Err(OpenError::new(
            "hardware.toml has other outputs than when multusd read it; let it read the file again (multusctl reload)",
        ));
    }
    let places = places(&shared.numbers);
    for (place, pin) in places.iter().zip(&pins.outputs) {
        // What is broken shows when it is used.
        let _ = set(&file, *place, pin.is_high);
    }
    Ok(Some(Outputs::Shared(file, places)))
}

/// Where each of these lines is in a request for all of them: requests are made with their lines in rising order, whatever the
/// order in which they were named (gpiocdev `request::Builder`).
fn places(numbers: &[u32]) -> Vec<u8> {
    let place = |number: &u32| numbers.iter().filter(|other| *other < number).count();
    // At most 64.
    numbers.iter().map(|number| u8::try_from(place(number)).unwrap_or(u8::MAX)).collect()
}

/// Line `place` of a request.
fn set(file: &File, place: u8, is_high: bool) -> io::Result<()> {
    let mask = 1_u64.checked_shl(place.into()).ok_or(io::ErrorKind::InvalidInput)?;
    let values = LineValues { bits: if is_high { mask } else { 0 }, mask };
    set_line_values(file, &values).map_err(|_| io::Error::last_os_error())
}

fn value(is_high: bool) -> Value {
    if is_high { Value::Active } else { Value::Inactive }
}

/// Who else has a line.
fn taken(chip: &Chip, number: u32) -> Option<String> {
    let info = chip.line_info(number).ok()?;
    // Our own request for the outputs may be there already.
    (info.used && info.consumer != CONSUMER).then(|| match info.consumer.as_str() {
        "" => format!("line {number} is taken by somebody who gives no name"),
        consumer => format!("line {number} is taken by \"{consumer}\""),
    })
}

/// Why the lines cannot be had: who has them, as far as the kernel tells.
fn refused(path: &Path, pins: &Pins, error: &gpiocdev::Error) -> OpenError {
    let numbers = pins.outputs.iter().map(|pin| pin.number).chain(pins.inputs.iter().map(|pin| pin.number));
    let chip = Chip::from_path(path);
    let taken: Vec<String> = numbers.filter_map(|number| taken(chip.as_ref().ok()?, number)).collect();
    if taken.is_empty() {
        // Another multus-io is busy, too.
        let is_busy = errno(error).raw_os_error() == Some(libc::EBUSY);
        return OpenError { message: format!("{}: {error}; may this user open it?", path.display()), is_busy };
    }
    OpenError {
        message: format!("{}: {}; end that program, or change hardware.toml", path.display(), taken.join(", ")),
        is_busy: true,
    }
}

/// The error of the system, or the nearest to it.
fn errno(error: &gpiocdev::Error) -> io::Error {
    match error {
        gpiocdev::Error::Os(number) | gpiocdev::Error::Uapi(_, gpiocdev_uapi::Error::Os(number)) => {
            io::Error::from_raw_os_error(number.0)
        }
        _ => io::Error::from_raw_os_error(libc::EIO),
    }
}

impl Lines {
    /// Tries to get what is missing.
    fn open_missing_inputs(&mut self) {
        let Inputs::Each(singles, again) = &mut self.inputs else { return };
        if singles.iter().all(|single| single.request.is_some()) || Instant::now() < *again {
            return;
        }
        *again = Instant::now() + AGAIN;
        let chip = find(&self.label);
        for single in singles.iter_mut().filter(|single| single.request.is_none()) {
            let mut builder = input_request(chip.as_deref(), std::slice::from_ref(&single.pin));
            single.request = chip.as_ref().and_then(|_| builder.request().ok());
        }
    }
}

impl Gpio for Lines {
    fn read(&mut self) -> io::Result<u64> {
        self.open_missing_inputs();
        let bit = |i: usize, value: Option<Value>| u64::from(value == Some(Value::Active)) << i;
        match &mut self.inputs {
            Inputs::None => Ok(0),
            Inputs::All(request, values, numbers) => {
                request.values(values).map_err(|error| errno(&error))?;
                let bits = numbers.iter().enumerate().map(|(i, number)| bit(i, values.get(*number)));
                Ok(bits.fold(0, |levels, bit| levels | bit))
            }
            Inputs::Each(singles, _) => {
                let mut levels = 0;
                for (i, single) in singles.iter().enumerate() {
                    let Some(request) = &single.request else { continue };
                    levels |= bit(i, Some(request.value(single.pin.number).map_err(|error| errno(&error))?));
                }
                Ok(levels)
            }
        }
    }

    fn missing_inputs(&self) -> u64 {
        let Inputs::Each(singles, _) = &self.inputs else { return 0 };
        singles.iter().enumerate().fold(0, |bits, (i, single)| bits | u64::from(single.request.is_none()) << i)
    }

    fn write(&mut self, output: usize, is_high: bool) -> io::Result<()> {
        let unknown = || io::Error::from(io::ErrorKind::InvalidInput);
        match &mut self.outputs {
            Outputs::None => Err(unknown()),
            Outputs::Own(request, numbers) => {
                let number = numbers.get(output).ok_or_else(unknown)?;
                request.set_value(*number, value(is_high)).map_err(|error| errno(&error))
            }
            Outputs::Shared(file, places) => set(file, *places.get(output).ok_or_else(unknown)?, is_high),
            Outputs::Each(singles) => {
                let Single { pin, request } = singles.get_mut(output).ok_or_else(unknown)?;
                if let Some(request) = request {
                    return request.set_value(pin.number, value(is_high)).map_err(|error| errno(&error));
                }
                let chip = find(&self.label).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
                let pin = OutputPin { is_high, ..pin.clone() };
                *request = Some(output_request(Some(&chip), &[pin]).request().map_err(|error| errno(&error))?);
                Ok(())
            }
        }
    }

    fn share_outputs(&self) -> Option<OwnedFd> {
        match &self.outputs {
            Outputs::Own(request, _) => request.as_fd().try_clone_to_owned().ok(),
            Outputs::Shared(..) | Outputs::Each(_) | Outputs::None => None,
        }
    }

    fn why_missing(&self, output: usize) -> Option<String> {
        let Outputs::Each(singles) = &self.outputs else { return None };
        let single = singles.get(output).filter(|single| single.request.is_none())?;
        match find(&self.label) {
            Some(path) => taken(&Chip::from_path(&path).ok()?, single.pin.number),
            None => Some(no_chip(&self.label).message),
        }
    }

    fn debounces(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_request_lie_in_rising_order_whatever_order_they_were_named_in() {
        assert_eq!(places(&[25, 24, 13, 19]), [3, 2, 0, 1]);
        assert_eq!(places(&[]), [0_u8; 0]);
        let all: Vec<u32> = (0..64).rev().collect();
        assert_eq!(places(&all)[0], 63);
    }
}
