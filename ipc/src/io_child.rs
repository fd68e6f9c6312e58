//! The process image, for Rust programs: reading lines, asking for outputs, waiting for changes.
//!
//! ```
//! use std::time::Duration;
//!
//! let io = multus_ipc::io_child::Io::from_env();
//! if let (Some(button), Some(lamp)) = (io.input("DI1"), io.output("DO1")) {
//!     let mut seen = 0;
//!     loop {
//!         match button.good() {
//!             Some(value) => lamp.set(value)?,
//!             // Nobody knows the input: multus-io does not run, or the line is bad.
//!             None => lamp.set(false)?,
//!         }
//!         seen = io.wait_change(seen, Duration::from_millis(100));
//!     }
//! }
//! # Ok::<(), multus_ipc::io_child::NotSet>(())
//! ```
//! A process asks, multus-io writes: a value that was asked for is at the output with the next scan, unless the output is
//! forced. Requests die with the process. In a process without an image (one that was started by hand) no line exists.

use std::fmt;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::io::{BAD, Definition, FORCED, LineKind, Live, RawRequest, Reader, RequestFault, Requester};
use crate::map::Mapping;
use crate::sync::{AtomicU64, Ordering};
use crate::text::{Name, Text};
use crate::{MonoNs, descriptor, futex};

/// The environment variable with the number of the descriptor of the image.
pub const ENV_IMAGE_FD: &str = "MULTUS_IO_IMAGE_FD";
/// The environment variable with the number of the descriptor of this process's request page; set for owners of outputs.
pub const ENV_REQUEST_FD: &str = "MULTUS_IO_REQUEST_FD";
/// For multus-io: the environment variable with the descriptor of the force page.
pub const ENV_FORCE_FD: &str = "MULTUS_IO_FORCE_FD";
/// For multus-io: the environment variable with the descriptor of the socket over which request pages come.
pub const ENV_REQUESTS_FD: &str = "MULTUS_IO_REQUESTS_FD";
/// For multus-io: the environment variable with the descriptor of the native outputs, which multusd has opened; /dev/null where
/// it has none to give.
pub const ENV_OUTPUTS_FD: &str = "MULTUS_IO_OUTPUTS_FD";
/// For multus-io: the numbers of those outputs, as `hardware.toml` names them, with commas between them.
pub const ENV_OUTPUTS: &str = "MULTUS_IO_OUTPUTS";
/// For multus-io: the highest real-time priority (SCHED_FIFO) that one of its threads may have: below that of the watch.
pub const ENV_MOST_PRIORITY: &str = "MULTUS_IO_MOST_PRIORITY";
/// The environment variable with the name of the child instance.
pub const ENV_NAME: &str = "MULTUS_NAME";

/// The inputs and outputs of the plant, as this process may use them. Cheap to copy; for all threads.
#[derive(Clone, Debug)]
pub struct Io {
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    image: Mapping,
    /// One request at a time, from whatever thread.
    requests: Option<Mutex<Mapping>>,
    name: Name,
}

/// One line of the image.
#[derive(Debug)]
pub struct Line {
    shared: Arc<Shared>,
    name: Text<4>,
    kind: LineKind,
    /// Layout and number of the line as of the last look.
    layout: AtomicU64,
    number: AtomicU64,
}

/// One output.
#[derive(Debug)]
pub struct Output(Line);

/// A value that was asked for, to see later whether it got there.
#[derive(Clone, Debug)]
pub struct Asked {
    shared: Arc<Shared>,
    layout: u64,
    number: usize,
    sequence: u64,
}

/// What a line holds, as of one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// 0 or 1, or a number in the unit of the line. When it is not good: the last good one.
    pub value: f64,
    /// The level or number as the hardware has it.
    pub raw: u64,
    /// Whether the value is that of the plant: read or written without an error, by a multus-io that scans.
    pub is_good: bool,
    /// Whether the output is held: safe, by multusd, or at any value by a person.
    pub is_forced: bool,
    /// When the value changed; zero: never.
    pub changed: MonoNs,
    /// When it was read or written without an error; zero: never.
    pub good: MonoNs,
    /// How often the value changed.
    pub changes: u64,
}

/// Why an output was not asked for a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSet {
    /// Name of the line.
    pub line: String,
    /// What is wrong.
    pub reason: NotSetReason,
}

/// See [`NotSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSetReason {
    /// multusd gave this process no request page: it owns no output.
    NoRequestPage,
    /// multus-io would refuse it.
    Refused(RequestFault),
}

impl fmt::Display for NotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            NotSetReason::NoRequestPage => {
                write!(
                    f,
                    "output {}: this process has no request page; name its child as owner in hardware.toml",
                    self.line
                )
            }
            NotSetReason::Refused(fault) => write!(f, "output {}: {fault}", self.line),
        }
    }
}

impl std::error::Error for NotSet {}

impl Io {
    /// The image that multusd gave to this process, or none: then no line exists. One that is there but cannot be used is
    /// reported on standard error.
    pub fn from_env() -> Self {
        Self::try_from_env().unwrap_or_else(|error| {
            // Not eprintln: a closed standard error must not end the program.
            let _ = writeln!(io::stderr(), "multus io: {error}; this process sees no lines");
            Self::none()
        })
    }

    /// As [`Self::from_env`], for those who want to decide for themselves.
    ///
    /// # Errors
    /// A descriptor is named, but is no page of this release.
    pub fn try_from_env() -> io::Result<Self> {
        let Some(image) = descriptor::from_env(ENV_IMAGE_FD)? else { return Ok(Self::none()) };
        let image = Mapping::read_only(image.as_fd())?;
        let requests = match descriptor::from_env(ENV_REQUEST_FD)? {
            Some(page) => Some(Mapping::writable(page.as_fd())?),
            None => None,
        };
        let name = std::env::var(ENV_NAME).unwrap_or_default();
        Self::new(image, requests, &name)
    }

    /// An image and a request page that were received otherwise, for the child instance `name`.
    ///
    /// # Errors
    /// They are no pages of this release.
    pub fn new(image: Mapping, requests: Option<Mapping>, name: &str) -> io::Result<Self> {
        let refused = |refused| io::Error::new(io::ErrorKind::InvalidData, refused);
        Reader::new(image.words()).map_err(refused)?;
        if let Some(page) = &requests {
            Requester::new(page.words()).map_err(refused)?;
        }
        let shared = Shared { image, requests: requests.map(Mutex::new), name: Name::new(name) };
        Ok(Self { shared: Some(Arc::new(shared)) })
    }

    /// Without an image.
    pub const fn none() -> Self {
        Self { shared: None }
    }

    /// Whether there is an image.
    pub fn is_there(&self) -> bool {
        self.shared.is_some()
    }

    /// Any line; `None` when the image has none of this name.
    pub fn line(&self, name: &str) -> Option<Line> {
        let shared = self.shared.as_ref()?;
        let name = Text::new(name);
        let (layout, number) = shared.image().find(&name)?;
        let kind = shared.image().definition_of(layout, number)?.kind;
        let (layout, number) = (AtomicU64::new(layout), AtomicU64::new(number as u64));
        Some(Line { shared: Arc::clone(shared), name, kind, layout, number })
    }

    /// An input; `None` when the image has none of this name.
    pub fn input(&self, name: &str) -> Option<Line> {
        self.line(name).filter(|line| !line.kind.is_output())
    }

    /// An output; `None` when the image has none of this name. Anybody may read it; only its owner may set it.
    pub fn output(&self, name: &str) -> Option<Output> {
        self.line(name).filter(|line| line.kind.is_output()).map(Output)
    }

    /// The image itself, for all that is not here.
    pub fn image(&self) -> Option<Reader<'_>> {
        self.shared.as_ref().map(|shared| shared.image())
    }

    /// Whether multus-io scans: whether the image is that of the plant now.
    pub fn is_fresh(&self) -> bool {
        self.image().is_some_and(|image| image.is_fresh(MonoNs::now()))
    }

    /// Raised after every change of a line; 0 without an image.
    pub fn changes(&self) -> u64 {
        self.image().map_or(0, |image| image.changes())
    }

    /// Waits until something has changed since [`Self::changes`] was `seen`, at most for `time`; returns what it is then.
    /// No polling: the process sleeps. A multus-io that is gone changes nothing, so the time should not be for ever.
    pub fn wait_change(&self, seen: u64, time: Duration) -> u64 {
        let end = MonoNs::now().after(time);
        let Some(image) = self.image() else {
            std::thread::sleep(time);
            return 0;
        };
        loop {
            let changes = image.changes();
            if changes != seen || MonoNs::now() >= end {
                return changes;
            }
            futex::wait(image.change_word(), seen, Some(end));
        }
    }
}

impl Shared {
    fn image(&self) -> Reader<'_> {
        Reader::trusted(self.image.words())
    }
}

impl Line {
    /// Its name.
    pub fn name(&self) -> String {
        self.name.to_string()
    }

    /// What it is.
    pub fn kind(&self) -> LineKind {
        self.kind
    }

    /// Its unit, range, safe value and owner; `None` when the line is gone.
    pub fn definition(&self) -> Option<Definition> {
        let (layout, number) = self.place()?;
        self.shared.image().definition_of(layout, number)
    }

    /// The last known value, good or not: 0 or 1, or a number. NaN when the line is gone.
    ///
    /// # Real time
    /// Three loads.
    pub fn value(&self) -> f64 {
        self.place().map_or(f64::NAN, |(_, number)| self.shared.image().value(number))
    }

    /// The value, if it is that of the plant; `None` when the line is bad or gone, or multus-io does not scan.
    pub fn good(&self) -> Option<f64> {
        let reading = self.read();
        reading.is_good.then_some(reading.value)
    }

    /// All that is known of the line now.
    pub fn read(&self) -> Reading {
        let image = self.shared.image();
        let live = self.place().and_then(|(_, number)| image.live(number));
        let is_there = live.is_some();
        let Live { value, raw, flags, changed, good, changes, .. } =
            live.unwrap_or(Live { value: f64::NAN, ..Live::default() });
        let is_good = is_there && flags & BAD == 0 && image.is_fresh(MonoNs::now());
        Reading { value, raw, is_good, is_forced: flags & FORCED != 0, changed, good, changes }
    }

    /// Layout and number of the line; looked for anew when the lines were defined anew.
    fn place(&self) -> Option<(u64, usize)> {
        let image = self.shared.image();
        let (layout, number) = (self.layout.load(Ordering::Acquire), self.number.load(Ordering::Relaxed));
        if image.layout() == Some(layout) {
            return Some((layout, usize::try_from(number).ok()?));
        }
        let (layout, number) = image.find(&self.name)?;
        let definition = image.definition_of(layout, number)?;
        if definition.kind != self.kind {
            return None;
        }
        // Two threads may do this at once, for the same layout: with the same result. The layout is stored last, so that
        // whoever finds it finds its number.
        self.number.store(number as u64, Ordering::Relaxed);
        self.layout.store(layout, Ordering::Release);
        Some((layout, number))
    }
}

impl Output {
    /// Asks for a value: `true`, `false` or a number. It is at the output with the next scan, unless the output is forced,
    /// and stays until another one is asked for or the process ends. Returns at once.
    ///
    /// # Errors
    /// The value is out of the range of the output: then nothing was asked for. Or this process does not own the output: then
    /// multus-io refuses it as well, and tells.
    pub fn set(&self, value: impl Into<f64>) -> Result<(), NotSet> {
        self.request(value.into()).map(|_| ())
    }

    /// As [`Self::set`], for those who want to see whether the value gets there and cannot wait as
    /// [`Self::set_and_wait`] does.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn ask(&self, value: impl Into<f64>) -> Result<Asked, NotSet> {
        self.request(value.into())
    }

    /// As [`Self::set`], and waits until the value is at the output, at most for `time`. `false`: not in time. A forced
    /// output does not get there before it is released.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn set_and_wait(&self, value: impl Into<f64>, time: Duration) -> Result<bool, NotSet> {
        let asked = self.request(value.into())?;
        let end = MonoNs::now().after(time);
        let image = self.0.shared.image();
        loop {
            let seen = image.changes();
            if asked.is_done() {
                return Ok(true);
            }
            if MonoNs::now() >= end {
                return Ok(false);
            }
            futex::wait(image.change_word(), seen, Some(end));
        }
    }

    fn request(&self, value: f64) -> Result<Asked, NotSet> {
        let refused = |reason| NotSet { line: self.0.name(), reason };
        let shared = &self.0.shared;
        let Some(requests) = &shared.requests else { return Err(refused(NotSetReason::NoRequestPage)) };
        let fault = |fault| refused(NotSetReason::Refused(fault));
        let (layout, number) = self.0.place().ok_or_else(|| fault(RequestFault::Unknown))?;
        let definition = shared.image().definition_of(layout, number);
        let request = RawRequest { sequence: 1, value, time: MonoNs(0), layout };
        let valid = request.validate(definition.as_ref(), layout, &shared.name);
        if valid.is_err_and(|fault| fault != RequestFault::NotOwner) {
            valid.map_err(fault)?;
        }
        // What the lock guards is whole at any time.
        let page = requests.lock().unwrap_or_else(PoisonError::into_inner);
        let requester = Requester::new(page.words()).map_err(|_| refused(NotSetReason::NoRequestPage))?;
        let sequence = requester.ask(layout, number, value, MonoNs::now());
        // What is not its own is asked for all the same, so that it does not stay between the two.
        valid.map_err(fault)?;
        Ok(Asked { shared: Arc::clone(shared), layout, number, sequence })
    }
}

impl Asked {
    /// Whether the value, or one that was asked for after it, is at the output. `false` while the output is forced or cannot
    /// be written.
    pub fn is_done(&self) -> bool {
        let image = self.shared.image();
        let is_later = |done: u64| done != 0 && done.wrapping_sub(self.sequence) < u64::MAX / 2;
        image.layout() == Some(self.layout)
            && image.live(self.number).is_some_and(|live| is_later(live.done) && live.flags & (BAD | FORCED) == 0)
    }
}

impl std::ops::Deref for Output {
    type Target = Line;

    fn deref(&self) -> &Line {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{IMAGE_WORDS, REQUEST_WORDS, RequestReader, Writer, image_header, request_header};
    use crate::map;

    fn page(words: usize, header: [u64; 3]) -> (Mapping, Mapping, Mapping) {
        let fd = map::memfd(c"test", words).unwrap();
        let page = Mapping::writable(fd.as_fd()).unwrap();
        for (word, value) in page.words().iter().zip(header) {
            word.store(value, Ordering::Relaxed);
        }
        (page, Mapping::read_only(fd.as_fd()).unwrap(), Mapping::writable(fd.as_fd()).unwrap())
    }

    fn line(name: &str, kind: LineKind, owner: &str) -> Definition {
        let (name, unit, owner) = (Text::new(name), Text::EMPTY, Name::new(owner));
        Definition { name, unit, owner, kind, safe: 0.0, lowest: 0.0, highest: 10.0 }
    }

    #[test]
    fn lines_follow_the_image_through_new_definitions() {
        let (image, seen, _) = page(IMAGE_WORDS, image_header());
        let writer = Writer::new(image.words()).unwrap();
        let io = Io::new(seen, None, "led").unwrap();
        assert!(io.line("DI1").is_none());
        let (input, other) = (line("DI1", LineKind::DigitalInput, ""), line("DI0", LineKind::DigitalInput, ""));
        writer.define(&[input]);
        let button = io.input("DI1").unwrap();
        assert!(io.output("DI1").is_none());
        writer.set(0, &Live { value: 1.0, good: MonoNs(5), ..Live::default() });
        assert_eq!((button.value(), button.good()), (1.0, None), "nobody scans");
        writer.begin("sim", false, 1, 1_000_000, u64::MAX);
        writer.scanned(MonoNs::now(), 0, 0, false);
        assert_eq!(button.good(), Some(1.0));
        writer.define(&[other, input]);
        writer.set(1, &Live { value: 1.0, good: MonoNs(5), ..Live::default() });
        assert_eq!((button.good(), io.input("DI0").unwrap().good()), (Some(1.0), None), "found in its new place");
        writer.define(&[other]);
        assert!(button.value().is_nan() && !button.read().is_good);
    }

    #[test]
    fn only_the_owner_asks_and_only_for_what_fits() {
        let (image, seen, _) = page(IMAGE_WORDS, image_header());
        let (requests, _, own) = page(REQUEST_WORDS, request_header());
        let writer = Writer::new(image.words()).unwrap();
        let reader = RequestReader::new(requests.words()).unwrap();
        let layout =
            writer.define(&[line("DO1", LineKind::DigitalOutput, "led"), line("AO1", LineKind::AnalogueOutput, "x")]);
        let io = Io::new(seen, Some(own), "led").unwrap();
        let lamp = io.output("DO1").unwrap();
        assert_eq!(lamp.set(true), Ok(()));
        let request = reader.look(0).unwrap();
        assert_eq!((request.value, request.sequence, request.layout), (1.0, 1, layout));
        let reason = |result: Result<(), NotSet>| result.unwrap_err().reason;
        assert_eq!(reason(lamp.set(0.3)), NotSetReason::Refused(RequestFault::OutOfRange));
        let foreign = io.output("AO1").unwrap();
        assert_eq!(reason(foreign.set(1.0)), NotSetReason::Refused(RequestFault::NotOwner));
        assert!(reader.changes() == 2 && reader.look(1).is_some(), "multus-io is to see it");
        assert_eq!(lamp.set_and_wait(false, Duration::from_millis(2)), Ok(false), "nobody carries it out");
        writer.set(0, &Live { done: 3, ..Live::default() });
        assert_eq!(lamp.set_and_wait(false, Duration::ZERO), Ok(true));
        let (asked, later) = (lamp.ask(true).unwrap(), lamp.ask(false).unwrap());
        assert!(!asked.is_done(), "the third was carried out, this is the fourth");
        writer.set(0, &Live { done: 5, ..Live::default() });
        assert!(asked.is_done() && later.is_done(), "the fifth came after it");
        writer.set(0, &Live { done: 5, flags: FORCED, ..Live::default() });
        assert!(!later.is_done(), "forced");
        let nobody = Io::none();
        assert!(nobody.output("DO1").is_none() && !nobody.is_fresh() && nobody.wait_change(7, Duration::ZERO) == 0);
    }

    #[test]
    fn a_change_ends_the_wait() {
        let (image, seen, _) = page(IMAGE_WORDS, image_header());
        let io = Io::new(seen, None, "led").unwrap();
        let waiting = std::thread::spawn(move || io.wait_change(0, Duration::from_secs(60)));
        let writer = Writer::new(image.words()).unwrap();
        writer.announce();
        futex::wake_all(writer.reader().change_word());
        assert_eq!(waiting.join().unwrap(), 1);
    }
}
