//! Lines by their names, for children that pass them on to others (Modbus, mirrored I/O): found as soon as multus-io has
//! defined them, checked against what the child wants of them, and brought up in the right order.
//!
//! **The order at start** is safe, retained, live: until a child is ready, multusd forces its outputs to their safe values.
//! Then multus-io gives to each output that `hardware.toml` calls `retained` the value that was asked for last, and to all
//! others their safe value ([`Point::ask_safe`] before [`Context::ready`](crate::Context::ready) gives it to retained ones,
//! too). From the first [`Point::ask`] on an output has what is asked for. Requests die with the process.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use multus_ipc::MonoNs;
use multus_ipc::io::{Definition, LineKind, RequestFault};
use multus_ipc::io_child::{Asked, Io, Line, NotSet, NotSetReason, Output, Reading};

use crate::Context;

/// A line by its name. Cheap to read again and again.
#[derive(Debug)]
pub struct Point {
    name: String,
    io: Io,
    found: OnceLock<Found>,
}

#[derive(Debug)]
enum Found {
    Input(Line),
    Output(Output),
}

/// What a child wants of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Its name.
    pub name: &'a str,
    /// It must be digital (`Some(true)`), analogue (`Some(false)`), or either.
    pub digital: Option<bool>,
    /// It must be an output that this child owns.
    pub owned: bool,
}

/// Why a line is not what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Name of the line.
    pub line: String,
    /// What is wrong.
    pub reason: UnfitReason,
}

/// See [`Unfit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnfitReason {
    /// `hardware.toml` has no such line.
    Missing,
    /// It is analogue.
    NotDigital,
    /// It is digital.
    NotAnalogue,
    /// It is an input.
    NotOutput,
    /// It belongs to another child, or to people; `owner` is empty where nobody may set it, `wanted` is this child.
    Owned {
        /// Who owns it.
        owner: String,
        /// Who should.
        wanted: String,
    },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.reason {
            UnfitReason::Missing => f.write_str("hardware.toml has no line of this name"),
            UnfitReason::NotDigital => f.write_str("is analogue, a digital one is needed"),
            UnfitReason::NotAnalogue => f.write_str("is digital, an analogue one is needed"),
            UnfitReason::NotOutput => f.write_str("is an input, an output is needed"),
            UnfitReason::Owned { owner, wanted } => {
                let owner = if owner.is_empty() { "nobody" } else { owner };
                write!(f, "belongs to {owner}; to set it, write owner = \"{wanted}\" in hardware.toml")
            }
        }
    }
}

impl Point {
    /// The line of this name, whether it is there or not.
    pub fn new(io: &Io, name: &str) -> Self {
        Self { name: name.to_owned(), io: io.clone(), found: OnceLock::new() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it holds now; `None` when the image has no such line.
    pub fn read(&self) -> Option<Reading> {
        self.line().map(Line::read)
    }

    /// Unit, range, safe value and owner; `None` when the image has no such line.
    pub fn definition(&self) -> Option<Definition> {
        self.line()?.definition()
    }

    /// Asks for a value; see [`Output::ask`].
    ///
    /// # Errors
    /// There is no such output, this child does not own it, or it cannot have the value.
    pub fn ask(&self, value: f64) -> Result<Asked, NotSet> {
        self.output()?.ask(value)
    }

    /// Asks for the safe value.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn ask_safe(&self) -> Result<Asked, NotSet> {
        let output = self.output()?;
        let definition = output.definition().ok_or_else(|| self.unknown())?;
        output.ask(definition.safe)
    }

    fn line(&self) -> Option<&Line> {
        match self.found()? {
            Found::Input(line) => Some(line),
            Found::Output(output) => Some(output),
        }
    }

    fn output(&self) -> Result<&Output, NotSet> {
        match self.found() {
            Some(Found::Output(output)) => Ok(output),
            Some(Found::Input(_)) => Err(self.refused(RequestFault::Input)),
            None => Err(self.unknown()),
        }
    }

    fn unknown(&self) -> NotSet {
        self.refused(RequestFault::Unknown)
    }

    fn refused(&self, fault: RequestFault) -> NotSet {
        NotSet { line: self.name.clone(), reason: NotSetReason::Refused(fault) }
    }

    fn found(&self) -> Option<&Found> {
        if let Some(found) = self.found.get() {
            return Some(found);
        }
        let input = || self.io.input(&self.name).map(Found::Input);
        let found = self.io.output(&self.name).map(Found::Output).or_else(input)?;
        Some(self.found.get_or_init(|| found))
    }
}

/// The number of the definitions that hold now; `None`: multus-io has defined no line yet, or there is no image at all.
pub fn layout(io: &Io) -> Option<u64> {
    io.image()?.layout()
}

/// Waits until lines are defined, for a few seconds: multus-io does it when it starts for the first time, and without
/// `after = ["io"]` that may be a moment later. False when none are.
pub fn wait_until_defined(io: &Io, context: &Context) -> bool {
    let end = Instant::now() + PATIENCE;
    while io.is_there() && layout(io).is_none() && Instant::now() < end && !context.stop_requested() {
        io.wait_change(io.changes(), LOOK);
    }
    layout(io).is_some()
}

/// The lines that are not what the child instance `child` wants of them; `None` while no lines are defined.
pub fn unfit<'a>(io: &Io, child: &str, wanted: impl Iterator<Item = Wanted<'a>>) -> Option<Vec<Unfit>> {
    layout(io)?;
    let mut found = Vec::new();
    for Wanted { name, digital, owned } in wanted {
        let definition = io.line(name).and_then(|line| line.definition());
        let reason = match definition {
            None => Some(UnfitReason::Missing),
            Some(Definition { kind, owner, .. }) => fault(kind, &owner.to_string(), child, digital, owned),
        };
        let line = name.to_owned();
        found.extend(reason.map(|reason| Unfit { line, reason }).filter(|unfit| !found.contains(unfit)));
    }
    Some(found)
}

fn fault(kind: LineKind, owner: &str, child: &str, digital: Option<bool>, owned: bool) -> Option<UnfitReason> {
    match digital {
        Some(true) if !kind.is_digital() => return Some(UnfitReason::NotDigital),
        Some(false) if kind.is_digital() => return Some(UnfitReason::NotAnalogue),
        _ => {}
    }
    if owned && !kind.is_output() {
        return Some(UnfitReason::NotOutput);
    }
    (owned && owner != child).then(|| UnfitReason::Owned { owner: owner.into(), wanted: child.into() })
}

/// Whether multus-io scans now: whether what the image says is that of the plant.
pub fn is_fresh(io: &Io) -> bool {
    io.image().is_some_and(|image| image.is_fresh(MonoNs::now()))
}

/// How long lines are waited for at the start.
const PATIENCE: Duration = Duration::from_secs(5);
/// A request to end is looked for so often meanwhile.
const LOOK: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use multus_ipc::io::{self, Live, Writer};
    use multus_ipc::text::{Name, Text};
    use multus_nettest::lines::page;

    use super::*;

    fn line(name: &str, kind: LineKind, owner: &str) -> Definition {
        let (name, owner) = (Text::new(name), Name::new(owner));
        Definition { name, unit: Text::EMPTY, owner, kind, safe: 1.0, lowest: 0.0, highest: 10.0 }
    }

    #[test]
    fn a_point_is_found_as_soon_as_it_is_there_and_what_does_not_fit_is_told() {
        let (image, seen) = page(io::IMAGE_WORDS, io::image_header());
        let (requests, own) = page(io::REQUEST_WORDS, io::request_header());
        let io = Io::new(seen, Some(own), "modbus").expect("pages");
        let (output, input) = (Point::new(&io, "DO1"), Point::new(&io, "DI1"));
        let wanted = |name, digital, owned| Wanted { name, digital, owned };
        assert!(output.read().is_none() && unfit(&io, "modbus", std::iter::empty()).is_none());
        let refused = |result: Result<Asked, NotSet>| result.expect_err("refused").reason;
        assert_eq!(refused(output.ask(1.0)), NotSetReason::Refused(RequestFault::Unknown));
        let writer = Writer::new(image.words()).expect("an image");
        writer.define(&[
            line("DI1", LineKind::DigitalInput, ""),
            line("DO1", LineKind::DigitalOutput, "modbus"),
            line("DO2", LineKind::DigitalOutput, "led"),
            line("AO1", LineKind::AnalogueOutput, "modbus"),
        ]);
        writer.set(0, &Live { value: 1.0, ..Live::default() });
        assert_eq!(input.read().map(|reading| reading.value), Some(1.0));
        assert_eq!(refused(input.ask(1.0)), NotSetReason::Refused(RequestFault::Input));
        assert!(output.ask(0.0).is_ok() && output.ask_safe().is_ok());
        let reader = io::RequestReader::new(requests.words()).expect("a page");
        assert_eq!(reader.look(1).map(|request| (request.sequence, request.value)), Some((2, 1.0)), "the safe value");
        let unfit = unfit(
            &io,
            "modbus",
            [
                wanted("DI1", Some(true), false),
                wanted("DO1", Some(true), true),
                wanted("DO2", Some(true), true),
                wanted("DO2", Some(true), true),
                wanted("DI1", None, true),
                wanted("AO1", Some(true), true),
                wanted("DO1", Some(false), true),
                wanted("DO9", None, false),
            ]
            .into_iter(),
        );
        let told: Vec<String> = unfit.expect("defined").iter().map(ToString::to_string).collect();
        let expected = [
            "line DO2: belongs to led; to set it, write owner = \"modbus\" in hardware.toml",
            "line DI1: is an input, an output is needed",
            "line AO1: is analogue, a digital one is needed",
            "line DO1: is digital, an analogue one is needed",
            "line DO9: hardware.toml has no line of this name",
        ];
        assert_eq!(told, expected);
    }
}
