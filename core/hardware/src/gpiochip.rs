//! Native lines through the GPIO character device of the kernel. It belongs to whoever requested it: nobody else can write a
//! line meanwhile. When the process ends, the kernel lets go of the lines; what their levels are then is up to the driver.

use std::io;
use std::path::PathBuf;

use gpiocdev::chip::Chip;
use gpiocdev::line::{Offset, Value, Values};
use gpiocdev::request::Request;
use multus_contract::config::hardware::Bias;

use crate::OpenError;
use crate::gpio::{Gpio, Pins};

/// What other programs see as the user of the lines.
const CONSUMER: &str = "multus-io";

struct Lines {
    inputs: Option<Request>,
    values: Values,
    read: Vec<Offset>,
    outputs: Option<Request>,
    written: Vec<Offset>,
}

/// The chip with this label.
pub(crate) fn find(label: &str) -> Option<PathBuf> {
    let has_label =
        |path: &PathBuf| Chip::from_path(path).and_then(|chip| chip.info()).is_ok_and(|info| info.label == label);
    gpiocdev::chip::chips().ok()?.into_iter().find(has_label)
}

pub(crate) fn open(label: &str, pins: &Pins) -> Result<(Box<dyn Gpio>, String), OpenError> {
    let Some(path) = find(label) else {
        return Err(OpenError::new(format!(
            "there is no GPIO chip \"{label}\"; `gpiodetect` shows the labels of those there are"
        )));
    };
    let failed = |error: gpiocdev::Error| refused(&path, pins, &error);
    let mut inputs = Request::builder();
    inputs.on_chip(&path).with_consumer(CONSUMER);
    for pin in &pins.inputs {
        inputs.with_line(pin.number).as_input().with_debounce_period(pin.debounce).with_bias(match pin.bias {
            Bias::AsIs => None,
            Bias::None => Some(gpiocdev::line::Bias::Disabled),
            Bias::PullUp => Some(gpiocdev::line::Bias::PullUp),
            Bias::PullDown => Some(gpiocdev::line::Bias::PullDown),
        });
    }
    let mut outputs = Request::builder();
    outputs.on_chip(&path).with_consumer(CONSUMER);
    for pin in &pins.outputs {
        outputs.with_line(pin.number).as_output(if pin.is_high { Value::Active } else { Value::Inactive });
    }
    let read: Vec<Offset> = pins.inputs.iter().map(|pin| pin.number).collect();
    let lines = Lines {
        // Outputs first: the safe levels do not wait for the rest.
        outputs: (!pins.outputs.is_empty()).then(|| outputs.request()).transpose().map_err(failed)?,
        inputs: (!read.is_empty()).then(|| inputs.request()).transpose().map_err(failed)?,
        values: Values::from_offsets(&read),
        read,
        written: pins.outputs.iter().map(|pin| pin.number).collect(),
    };
    Ok((Box::new(lines), format!("gpiochip {label} ({})", path.display())))
}

/// Why the lines cannot be had: who has them, as far as the kernel tells.
fn refused(path: &PathBuf, pins: &Pins, error: &gpiocdev::Error) -> OpenError {
    let numbers = pins.outputs.iter().map(|pin| pin.number).chain(pins.inputs.iter().map(|pin| pin.number));
    let chip = Chip::from_path(path);
    let taken = |number: u32| {
        let info = chip.as_ref().ok()?.line_info(number).ok()?;
        // Our own request for the outputs may be there already.
        (info.used && info.consumer != CONSUMER).then(|| match info.consumer.as_str() {
            "" => format!("line {number} is taken by somebody who gives no name"),
            consumer => format!("line {number} is taken by \"{consumer}\""),
        })
    };
    let taken: Vec<String> = numbers.filter_map(taken).collect();
    if taken.is_empty() {
        // Another multus-io is busy, too.
        let is_busy = error.to_string().contains("busy") || format!("{error:?}").contains("Errno(16)");
        return OpenError { message: format!("{}: {error}; may this user open it?", path.display()), is_busy };
    }
    OpenError {
        message: format!("{}: {}; end that program, or change hardware.toml", path.display(), taken.join(", ")),
        is_busy: true,
    }
}

impl Gpio for Lines {
    fn read(&mut self) -> io::Result<u64> {
        let Some(inputs) = &self.inputs else { return Ok(0) };
        inputs.values(&mut self.values).map_err(|_| io::Error::last_os_error())?;
        let bit = |(i, offset): (usize, &Offset)| u64::from(self.values.get(*offset) == Some(Value::Active)) << i;
        Ok(self.read.iter().enumerate().map(bit).fold(0, |levels, bit| levels | bit))
    }

    fn write(&mut self, output: usize, is_high: bool) -> io::Result<()> {
        let (Some(outputs), Some(offset)) = (&self.outputs, self.written.get(output)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let value = if is_high { Value::Active } else { Value::Inactive };
        outputs.set_value(*offset, value).map_err(|_| io::Error::last_os_error())
    }

    fn debounces(&self) -> bool {
        true
    }
}
