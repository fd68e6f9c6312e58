//! The process image, and the pages with which processes ask for outputs.
//!
//! As in a PLC: one process, multus-io, reads all inputs in each scan into the **image** and writes all outputs. Everybody
//! else reads the image; the owner of an output asks for a value in its own **request page**.
//!
//! ```text
//! image
//! word         what
//! 0            magic "MULTUSIO"
//! 1            layout version (u32), length in bytes (u32)
//! 2            places for lines: 256
//! 3            raised by one after every change of a line; what a reader compares, or waits on
//! 4            layout: even, another one after the lines were defined anew; odd meanwhile
//! 5            lines in use
//! 6            scans so far
//! 7            time of the last scan, CLOCK_MONOTONIC ns; 0 before the first one of this process
//! 8            scan period, ns
//! 9, 10, 11    how long a scan takes: median, 99th percentile, longest; ns
//! 12           scans that were left out
//! 13           force acknowledged: the change counter of the force page that is in force at all outputs
//! 14           when that was so, CLOCK_MONOTONIC ns
//! 15           forced outputs that are not written yet
//! 16           entries of the force page that name no output here
//! 17           requests that were refused
//! 18           flags: 1 simulated, 2 degraded
//! 19           process id of multus-io
//! 20           older than this the image is stale, ns
//! 21           the change counter of the force page that was taken over, whatever became of it
//! 22           of the outputs in word 15: those whose writing failed
//! 24..32       board, UTF-8, 64 bytes
//! 32, 33, 34   from the decision to force outputs to the last of them being written: median, 99th percentile, longest; ns
//! 64 + 32 l    line l:
//!   +0..4        name, 32 bytes; empty = free
//!   +4..6        unit, 16 bytes
//!   +6..12       owner: name of the child instance that may ask for values, 48 bytes
//!   +12          kind: 1 digital input, 2 digital output, 3 analogue input, 4 analogue output
//!   +13          safe value, IEEE 754 double
//!   +14, +15     lowest and highest value
//!   +16          sequence of the record below
//!   +17          value
//!   +18          raw: level or number as the hardware has it
//!   +19          flags: 1 bad, 2 forced, 4 retained, 8 requested
//!   +20          last change, CLOCK_MONOTONIC ns
//!   +21          last good reading or writing, CLOCK_MONOTONIC ns
//!   +22          changes so far
//!   +23          of an output: sequence of the last request of the owner's process that was carried out; 0: none
//!
//! request page
//! 0            magic "MULTUSRQ"
//! 1            layout version (u32), length in bytes (u32)
//! 2            places for lines: 256
//! 3            raised by one after every request
//! 16 + 4 l     request for line l:
//!   +0           sequence: raised by one for each request, last; 0 = none
//!   +1           value, IEEE 754 double
//!   +2           when, CLOCK_MONOTONIC ns
//!   +3           layout of the image that the number of the line belongs to
//! ```
//! Lines are defined once at the start of multus-io, and only if they differ from what is there; values stay when
//! multus-io starts again. What a line holds is a sequence-locked record, its value alone may be read by one load.

use crate::MonoNs;
use crate::page::{Kind, Refused};
use crate::seqlock;
use crate::sync::{AtomicU64, Ordering, fence};
use crate::text::{Name, Text};

/// Identity and version of the image.
pub const IMAGE: Kind = Kind::new(b"MULTUSIO", 1);
/// Identity and version of a request page.
pub const REQUESTS: Kind = Kind::new(b"MULTUSRQ", 1);
/// Places for lines in both.
pub const LINES: usize = 256;
/// Words of the image.
pub const IMAGE_WORDS: usize = FIRST_LINE + LINES * LINE_WORDS;
/// Words of a request page.
pub const REQUEST_WORDS: usize = FIRST_REQUEST + LINES * REQUEST_STRIDE;

/// A flag of a line: no good reading or writing now; the value is the last good one.
pub const BAD: u64 = 1;
/// A flag of a line: it has the value that the force page says.
pub const FORCED: u64 = 2;
/// A flag of a line: it has a value from before multus-io or its owner started.
pub const RETAINED: u64 = 4;
/// A flag of a line: it has the value that its owner asks for.
pub const REQUESTED: u64 = 8;

/// A flag of the image: there is no hardware behind it.
pub const SIMULATED: u64 = 1;
/// A flag of the image: a line is bad.
pub const DEGRADED: u64 = 2;

const PLACES: usize = 2;
const CHANGES: usize = 3;
const LAYOUT: usize = 4;
const IN_USE: usize = 5;
const SCANS: usize = 6;
const SCAN_TIME: usize = 7;
const PERIOD: usize = 8;
const DURATIONS: usize = 9;
const OVERRUNS: usize = 12;
const ACKNOWLEDGED: usize = 13;
const ACKNOWLEDGED_AT: usize = 14;
const UNWRITTEN: usize = 15;
const UNKNOWN: usize = 16;
const REFUSED: usize = 17;
const FLAGS: usize = 18;
const PID: usize = 19;
const STALE: usize = 20;
const SEEN: usize = 21;
const FAILING: usize = 22;
const BOARD: usize = 24;
const FORCE_TIMES: usize = 32;
const FIRST_LINE: usize = 64;
const LINE_WORDS: usize = 32;
const UNIT: usize = 4;
const OWNER: usize = 6;
const KIND: usize = 12;
const SAFE: usize = 13;
const LOWEST: usize = 14;
const HIGHEST: usize = 15;
const RECORD: usize = 16;
const RECORD_WORDS: usize = 7;
const FIRST_REQUEST: usize = 16;
const REQUEST_STRIDE: usize = 4;

const _: () = assert!(IMAGE_WORDS == 8256 && REQUEST_WORDS == 1040);

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LineKind {
    /// Reads 0 or 1.
    DigitalInput = 1,
    /// Is 0 or 1.
    DigitalOutput = 2,
    /// Reads a number.
    AnalogueInput = 3,
    /// Is a number.
    AnalogueOutput = 4,
}

impl LineKind {
    /// From the word of a page; `None` for any other number.
    pub const fn from_word(word: u64) -> Option<Self> {
        match word {
            1 => Some(Self::DigitalInput),
            2 => Some(Self::DigitalOutput),
            3 => Some(Self::AnalogueInput),
            4 => Some(Self::AnalogueOutput),
            _ => None,
        }
    }

    /// Whether values can be asked for.
    pub const fn is_output(self) -> bool {
        matches!(self, Self::DigitalOutput | Self::AnalogueOutput)
    }

    /// Whether it knows 0 and 1 only.
    pub const fn is_digital(self) -> bool {
        matches!(self, Self::DigitalInput | Self::DigitalOutput)
    }
}

/// What does not change while multus-io runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Definition {
    /// Its name; never empty.
    pub name: Text<4>,
    /// Unit of its value, for people.
    pub unit: Text<2>,
    /// The child instance that may ask for values; empty: nobody.
    pub owner: Name,
    /// What it is.
    pub kind: LineKind,
    /// Its safe value; 0 for an input.
    pub safe: f64,
    /// The lowest value that may be asked for.
    pub lowest: f64,
    /// The highest value that may be asked for.
    pub highest: f64,
}

impl Definition {
    /// Whether this output can have the value: 0 or 1 for a digital one, within its range for an analogue one.
    pub fn accepts(&self, value: f64) -> bool {
        let fits = if self.kind.is_digital() {
            value == 0.0 || value == 1.0
        } else {
            (self.lowest..=self.highest).contains(&value)
        };
        self.kind.is_output() && fits
    }
}

/// What a line holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Live {
    /// Its value: 0 or 1, or a number in its unit. Of a bad line: the last good one.
    pub value: f64,
    /// The level or number as the hardware has it.
    pub raw: u64,
    /// [`BAD`], [`FORCED`], [`RETAINED`], [`REQUESTED`].
    pub flags: u64,
    /// When the value changed; zero: never.
    pub changed: MonoNs,
    /// When it was read or written without an error; zero: never.
    pub good: MonoNs,
    /// How often the value changed.
    pub changes: u64,
    /// Of an output: sequence of the last request of the owner's process that was carried out; 0: none.
    pub done: u64,
}

/// What became of the force page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forced {
    /// Its change counter when it was taken over.
    pub changes: u64,
    /// Forced outputs that are not written yet.
    pub unwritten: u64,
    /// Those of them whose writing failed: a chip does not answer, a line cannot be set.
    pub failing: u64,
    /// Entries that name no output here.
    pub unknown: u64,
}

/// The owner of outputs for which `hardware.toml` names none: a person, by `multusctl io set` or on a page.
pub const OPERATOR: &str = "operator";

/// The words of a new image; everything that is not listed here is zero.
pub fn image_header() -> [u64; 3] {
    [IMAGE.magic, IMAGE.shape(IMAGE_WORDS), LINES as u64]
}

/// The words of a new request page; everything that is not listed here is zero.
pub fn request_header() -> [u64; 3] {
    [REQUESTS.magic, REQUESTS.shape(REQUEST_WORDS), LINES as u64]
}

/// The one writer of an image.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    page: &'a [AtomicU64],
}

impl<'a> Writer<'a> {
    /// Takes an image that the core made, or that a writer before this one left.
    ///
    /// # Errors
    /// When it is no image of this layout.
    pub fn new(page: &'a [AtomicU64]) -> Result<Self, Refused> {
        Reader::new(page)?;
        Ok(Self { page })
    }

    /// The same page for reading.
    pub fn reader(&self) -> Reader<'a> {
        Reader { page: self.page }
    }

    /// Defines the lines, at most [`LINES`]; further ones are left out. Lines that are defined so already keep what they
    /// hold; after any difference all begin anew, bad and at their safe values. Returns the layout.
    pub fn define(&self, lines: &[Definition]) -> u64 {
        let lines = &lines[..lines.len().min(LINES)];
        let reader = self.reader();
        let layout = self.page[LAYOUT].load(Ordering::Relaxed);
        let same = layout & 1 == 0
            && layout != 0
            && reader.lines() == lines.len()
            && lines.iter().enumerate().all(|(i, line)| reader.definition(i).as_ref() == Some(line));
        if same {
            return layout;
        }
        let inside = layout | 1;
        self.page[LAYOUT].store(inside, Ordering::Relaxed);
        // Pairs with the Acquire fence in `Reader::definition_of`: whoever sees a word below also sees the odd layout.
        fence(Ordering::Release);
        for word in &self.page[FIRST_LINE..IMAGE_WORDS] {
            word.store(0, Ordering::Relaxed);
        }
        for (i, line) in lines.iter().enumerate() {
            let texts = line.name.words().iter().chain(line.unit.words()).chain(line.owner.words());
            let numbers = [line.kind as u64, line.safe.to_bits(), line.lowest.to_bits(), line.highest.to_bits()];
            for (word, value) in self.line(i).iter().zip(texts.copied().chain(numbers)) {
                word.store(value, Ordering::Relaxed);
            }
            self.set(i, &Live { value: line.safe, flags: BAD, ..Live::default() });
        }
        self.page[IN_USE].store(lines.len() as u64, Ordering::Relaxed);
        // Pairs with the Acquire load in `Reader::layout`.
        self.page[LAYOUT].store(inside.wrapping_add(1), Ordering::Release);
        self.announce();
        inside.wrapping_add(1)
    }

    /// What belongs to this process of multus-io. No scan has been made yet.
    pub fn begin(&self, board: &str, simulated: bool, pid: u32, period_ns: u64, stale_ns: u64) {
        for (word, value) in self.page[BOARD..].iter().zip(Text::<8>::new(board).words()) {
            word.store(*value, Ordering::Relaxed);
        }
        let flags = if simulated { SIMULATED } else { 0 };
        for (word, value) in [(FLAGS, flags), (PID, pid.into()), (PERIOD, period_ns), (STALE, stale_ns), (SCAN_TIME, 0)]
        {
            self.page[word].store(value, Ordering::Relaxed);
        }
    }

    /// Writes what a line holds. Call [`Self::announce`] after the last of a group when a value or flag has changed.
    ///
    /// # Real time
    /// Wait-free: nine stores.
    pub fn set(&self, line: usize, live: &Live) {
        let Live { value, raw, flags, changed, good, changes, done } = *live;
        seqlock::write(&self.line(line)[RECORD..], &[value.to_bits(), raw, flags, changed.0, good.0, changes, done]);
    }

    /// Tells readers that something changed. Who may wait for it is woken by `futex::wake_all` of [`Reader::change_word`].
    pub fn announce(&self) {
        let changes = &self.page[CHANGES];
        // Pairs with the Acquire load in `Reader::changes`.
        changes.store(changes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// A scan is over.
    ///
    /// # Real time
    /// Wait-free: five stores.
    pub fn scanned(&self, now: MonoNs, overruns: u64, refused: u64, degraded: bool) {
        let add = |word: usize, value: u64| self.page[word].store(value, Ordering::Relaxed);
        add(SCANS, self.page[SCANS].load(Ordering::Relaxed).wrapping_add(1));
        add(OVERRUNS, overruns);
        add(REFUSED, refused);
        let flags = self.page[FLAGS].load(Ordering::Relaxed) & !DEGRADED;
        add(FLAGS, if degraded { flags | DEGRADED } else { flags });
        // Pairs with the Acquire load in `Reader::scan_time`.
        self.page[SCAN_TIME].store(now.0, Ordering::Release);
    }

    /// How long scans take, ns: median, 99th percentile, longest.
    pub fn durations(&self, durations: [u64; 3]) {
        for (word, value) in self.page[DURATIONS..].iter().zip(durations) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// From the decision to force outputs to the last of them being written, ns: median, 99th percentile, longest.
    pub fn force_times(&self, times: [u64; 3]) {
        for (word, value) in self.page[FORCE_TIMES..].iter().zip(times) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// What became of the force page. Acknowledges it when nothing is left to write.
    pub fn forced(&self, forced: &Forced, now: MonoNs) {
        let Forced { changes, unwritten, failing, unknown } = *forced;
        for (word, value) in [(UNWRITTEN, unwritten), (FAILING, failing), (UNKNOWN, unknown)] {
            self.page[word].store(value, Ordering::Relaxed);
        }
        if unwritten == 0 {
            self.page[ACKNOWLEDGED_AT].store(now.0, Ordering::Relaxed);
            // Pairs with the Acquire load in `Reader::acknowledged`.
            self.page[ACKNOWLEDGED].store(changes, Ordering::Release);
        }
        // Pairs with the Acquire load in `Reader::forced`.
        self.page[SEEN].store(changes, Ordering::Release);
    }

    fn line(&self, line: usize) -> &'a [AtomicU64] {
        &self.page[FIRST_LINE + LINE_WORDS * line..][..LINE_WORDS]
    }
}

/// A reader of an image.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    page: &'a [AtomicU64],
}

impl<'a> Reader<'a> {
    /// Takes a mapped page.
    ///
    /// # Errors
    /// When it is no image of this layout.
    pub fn new(page: &'a [AtomicU64]) -> Result<Self, Refused> {
        validate(IMAGE, page, IMAGE_WORDS)?;
        Ok(Self { page })
    }

    /// A page that [`Self::new`] accepted before.
    #[cfg(not(loom))]
    pub(crate) fn trusted(page: &'a [AtomicU64]) -> Self {
        Self { page }
    }

    /// Raised after every change.
    pub fn changes(&self) -> u64 {
        self.page[CHANGES].load(Ordering::Acquire)
    }

    /// The word of [`Self::changes`], to wait on.
    pub fn change_word(&self) -> &'a AtomicU64 {
        &self.page[CHANGES]
    }

    /// Which lines have which numbers: while this is the same, numbers and definitions are. `None` while they change, and
    /// before multus-io has started for the first time.
    pub fn layout(&self) -> Option<u64> {
        // Pairs with the Release store in `Writer::define`.
        Some(self.page[LAYOUT].load(Ordering::Acquire)).filter(|layout| layout & 1 == 0 && *layout != 0)
    }

    /// Lines in use, at most [`LINES`] whatever the page says.
    pub fn lines(&self) -> usize {
        usize::try_from(self.page[IN_USE].load(Ordering::Relaxed)).unwrap_or(LINES).min(LINES)
    }

    /// The number of the line with this name, and the layout it belongs to.
    pub fn find(&self, name: &Text<4>) -> Option<(u64, usize)> {
        let layout = self.layout()?;
        let has_name = |line: &usize| {
            let words = self.page[FIRST_LINE + LINE_WORDS * line..].iter().zip(name.words());
            !name.is_empty() && words.into_iter().all(|(word, wanted)| word.load(Ordering::Relaxed) == *wanted)
        };
        let line = (0..self.lines()).find(has_name)?;
        fence(Ordering::Acquire);
        (self.layout() == Some(layout)).then_some((layout, line))
    }

    /// The definition of a line of this layout; `None` when there is none, when it makes no sense, or when the lines were
    /// defined anew.
    pub fn definition_of(&self, layout: u64, line: usize) -> Option<Definition> {
        let definition = self.definition(line);
        // Pairs with the Release fence in `Writer::define`: had any word come from a later definition, the layout would be
        // another one.
        fence(Ordering::Acquire);
        definition.filter(|_| self.page[LAYOUT].load(Ordering::Relaxed) == layout)
    }

    /// What a line holds; `None` when it is written without end, or its writer died inside.
    pub fn live(&self, line: usize) -> Option<Live> {
        let mut data = [0; RECORD_WORDS];
        seqlock::read(&self.line(line)?[RECORD..], &mut data).ok()?;
        let [value, raw, flags, changed, good, changes, done] = data;
        let value = f64::from_bits(value);
        Some(Live { value, raw, flags, changed: MonoNs(changed), good: MonoNs(good), changes, done })
    }

    /// The value of a line alone, by one load; NaN for a line that does not exist.
    pub fn value(&self, line: usize) -> f64 {
        self.line(line).map_or(f64::NAN, |words| f64::from_bits(words[RECORD + 1].load(Ordering::Relaxed)))
    }

    /// Scans so far.
    pub fn scans(&self) -> u64 {
        self.page[SCANS].load(Ordering::Relaxed)
    }

    /// End of the last scan; `None` before the first one of this process of multus-io.
    pub fn scan_time(&self) -> Option<MonoNs> {
        Some(MonoNs(self.page[SCAN_TIME].load(Ordering::Acquire))).filter(|time| time.0 != 0)
    }

    /// Whether the last scan is not too long ago: whether the image is that of the plant, or that of a multus-io that is gone.
    pub fn is_fresh(&self, now: MonoNs) -> bool {
        self.scan_time().is_some_and(|time| now.0.saturating_sub(time.0) <= self.page[STALE].load(Ordering::Relaxed))
    }

    /// The scan period, and how long scans take: median, 99th percentile, longest; ns.
    pub fn durations(&self) -> [u64; 4] {
        [PERIOD, DURATIONS, DURATIONS + 1, DURATIONS + 2].map(|word| self.page[word].load(Ordering::Relaxed))
    }

    /// From the decision to force outputs to the last of them being written, ns: median, 99th percentile, longest.
    pub fn force_times(&self) -> [u64; 3] {
        [0, 1, 2].map(|i| self.page[FORCE_TIMES + i].load(Ordering::Relaxed))
    }

    /// Scans that were left out because one before took too long.
    pub fn overruns(&self) -> u64 {
        self.page[OVERRUNS].load(Ordering::Relaxed)
    }

    /// The change counter of the force page that is in force at all outputs, and since when.
    pub fn acknowledged(&self) -> (u64, MonoNs) {
        // Pairs with the Release store in `Writer::forced`.
        let changes = self.page[ACKNOWLEDGED].load(Ordering::Acquire);
        (changes, MonoNs(self.page[ACKNOWLEDGED_AT].load(Ordering::Relaxed)))
    }

    /// What became of the force page, as of the last scan that had to do with it.
    pub fn forced(&self) -> Forced {
        // Pairs with the Release store in `Writer::forced`.
        let changes = self.page[SEEN].load(Ordering::Acquire);
        let [unwritten, failing, unknown] =
            [UNWRITTEN, FAILING, UNKNOWN].map(|word| self.page[word].load(Ordering::Relaxed));
        Forced { changes, unwritten, failing, unknown }
    }

    /// Requests that were refused.
    pub fn refused(&self) -> u64 {
        self.page[REFUSED].load(Ordering::Relaxed)
    }

    /// [`SIMULATED`], [`DEGRADED`].
    pub fn flags(&self) -> u64 {
        self.page[FLAGS].load(Ordering::Relaxed)
    }

    /// Process id of multus-io; 0 before it started.
    pub fn pid(&self) -> u32 {
        (self.page[PID].load(Ordering::Relaxed) & 0xffff_ffff) as u32
    }

    /// The board, in words.
    pub fn board(&self) -> Text<8> {
        Text::from_words(core::array::from_fn(|i| self.page[BOARD + i].load(Ordering::Relaxed)))
    }

    fn definition(&self, line: usize) -> Option<Definition> {
        let words = self.line(line)?;
        let load = |i: usize| words[i].load(Ordering::Relaxed);
        let name = Text::from_words(core::array::from_fn(load));
        let definition = Definition {
            name,
            unit: Text::from_words(core::array::from_fn(|i| load(UNIT + i))),
            owner: Text::from_words(core::array::from_fn(|i| load(OWNER + i))),
            kind: LineKind::from_word(load(KIND))?,
            safe: f64::from_bits(load(SAFE)),
            lowest: f64::from_bits(load(LOWEST)),
            highest: f64::from_bits(load(HIGHEST)),
        };
        (!name.is_empty()).then_some(definition)
    }

    fn line(&self, line: usize) -> Option<&'a [AtomicU64]> {
        (line < LINES).then(|| &self.page[FIRST_LINE + LINE_WORDS * line..][..LINE_WORDS])
    }
}

/// What a child asks for one line: an allegation, nothing of it is checked yet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RawRequest {
    /// Number of requests for this line so far, modulo 2^64; 0 = none.
    pub sequence: u64,
    /// The value that is wanted.
    pub value: f64,
    /// When it was asked for.
    pub time: MonoNs,
    /// The layout for which the number of the line was found.
    pub layout: u64,
}

/// Why multus-io does not carry out a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFault {
    /// There is no such line.
    Unknown,
    /// The line is an input.
    Input,
    /// The line belongs to another child, or to nobody.
    NotOwner,
    /// No number, neither 0 nor 1, or outside of the range.
    OutOfRange,
    /// The number of the line belongs to other definitions than those that hold now.
    OtherLayout,
}

impl core::fmt::Display for RequestFault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "there is no such line",
            Self::Input => "the line is an input",
            Self::NotOwner => "the line is not owned by this child (owner in hardware.toml)",
            Self::OutOfRange => "the value is out of range",
            Self::OtherLayout => "the lines were defined anew since; ask again",
        })
    }
}

impl core::error::Error for RequestFault {}

impl RawRequest {
    /// The value, when the child `owner` may ask for it.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn validate(&self, line: Option<&Definition>, layout: u64, owner: &Name) -> Result<f64, RequestFault> {
        let line = line.ok_or(RequestFault::Unknown)?;
        if self.layout != layout {
            return Err(RequestFault::OtherLayout);
        }
        if !line.kind.is_output() {
            return Err(RequestFault::Input);
        }
        if line.owner.is_empty() || line.owner != *owner {
            return Err(RequestFault::NotOwner);
        }
        if line.accepts(self.value) { Ok(self.value) } else { Err(RequestFault::OutOfRange) }
    }
}

/// A child's side of its request page. One thread at a time.
#[derive(Clone, Copy, Debug)]
pub struct Requester<'a> {
    page: &'a [AtomicU64],
}

impl<'a> Requester<'a> {
    /// Takes a page that the core made.
    ///
    /// # Errors
    /// When it is no request page of this layout.
    pub fn new(page: &'a [AtomicU64]) -> Result<Self, Refused> {
        validate(REQUESTS, page, REQUEST_WORDS)?;
        Ok(Self { page })
    }

    /// Asks for a value of a line, whose number is that of this layout of the image. Returns the sequence of the request; a
    /// line whose [`Live::done`] is this has had the value.
    ///
    /// # Panics
    /// For a line beyond [`LINES`].
    pub fn ask(&self, layout: u64, line: usize, value: f64, now: MonoNs) -> u64 {
        let [sequence, wanted, time, of] = &self.page[FIRST_REQUEST + REQUEST_STRIDE * line..][..REQUEST_STRIDE] else {
            unreachable!("four words")
        };
        wanted.store(value.to_bits(), Ordering::Relaxed);
        time.store(now.0, Ordering::Relaxed);
        // Pairs with the Acquire load in `RequestReader::look`: with this layout goes this value, or a later one.
        of.store(layout, Ordering::Release);
        // 0 means none, so it is left out.
        let next = sequence.load(Ordering::Relaxed).wrapping_add(1).max(1);
        // Pairs with the first Acquire load in `RequestReader::look`.
        sequence.store(next, Ordering::Release);
        let changes = &self.page[CHANGES];
        changes.store(changes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        next
    }
}

/// multus-io's side of a request page: reads, and believes nothing.
#[derive(Clone, Copy, Debug)]
pub struct RequestReader<'a> {
    page: &'a [AtomicU64],
}

impl<'a> RequestReader<'a> {
    /// Takes a mapped page.
    ///
    /// # Errors
    /// When it is no request page of this layout.
    pub fn new(page: &'a [AtomicU64]) -> Result<Self, Refused> {
        validate(REQUESTS, page, REQUEST_WORDS)?;
        Ok(Self { page })
    }

    /// A page that [`Self::new`] accepted before; its header may have been overwritten since, its length not.
    #[cfg(not(loom))]
    pub fn accepted(page: &'a [AtomicU64]) -> Option<Self> {
        (page.len() == REQUEST_WORDS).then_some(Self { page })
    }

    /// Raised after every request.
    pub fn changes(&self) -> u64 {
        self.page[CHANGES].load(Ordering::Acquire)
    }

    /// The last request for a line; `None` when there is none.
    ///
    /// # Real time
    /// Four loads.
    pub fn look(&self, line: usize) -> Option<RawRequest> {
        let words = self.page.get(FIRST_REQUEST + REQUEST_STRIDE * line..)?.get(..REQUEST_STRIDE)?;
        // Pairs with the Release stores in `Requester::ask`.
        let sequence = words[0].load(Ordering::Acquire);
        if sequence == 0 {
            return None;
        }
        let layout = words[3].load(Ordering::Acquire);
        let value = f64::from_bits(words[1].load(Ordering::Relaxed));
        Some(RawRequest { sequence, value, time: MonoNs(words[2].load(Ordering::Relaxed)), layout })
    }
}

fn validate(kind: Kind, page: &[AtomicU64], words: usize) -> Result<(), Refused> {
    let word = |i: usize| page.get(i).map_or(0, |w| w.load(Ordering::Relaxed));
    kind.validate(word(0), word(1), page.len())?;
    if page.len() != words || word(PLACES) != LINES as u64 {
        return Err(Refused::Length { found: word(PLACES), mapped: page.len() as u64 * 8 });
    }
    Ok(())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn page(words: usize, header: [u64; 3]) -> Vec<AtomicU64> {
        let page: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
        for (word, value) in page.iter().zip(header) {
            word.store(value, Ordering::Relaxed);
        }
        page
    }

    fn line(name: &str, kind: LineKind, owner: &str) -> Definition {
        let (name, unit, owner) = (Text::new(name), Text::new("V"), Text::new(owner));
        Definition { name, unit, owner, kind, safe: 1.0, lowest: 0.0, highest: 10.0 }
    }

    fn two_lines() -> [Definition; 2] {
        [line("DI1", LineKind::DigitalInput, ""), line("AO1", LineKind::AnalogueOutput, "modbus")]
    }

    #[test]
    fn lines_are_found_by_name_and_keep_what_they_hold_when_defined_again() {
        let page = page(IMAGE_WORDS, image_header());
        let (writer, reader) = (Writer::new(&page).unwrap(), Reader::new(&page).unwrap());
        assert_eq!((reader.layout(), reader.find(&Text::new("DI1"))), (None, None));
        let layout = writer.define(&two_lines());
        assert_eq!(reader.find(&Text::new("AO1")), Some((layout, 1)));
        assert_eq!(reader.find(&Text::EMPTY), None);
        assert_eq!(reader.definition_of(layout, 1), Some(two_lines()[1]));
        assert_eq!(reader.live(1).unwrap(), Live { value: 1.0, flags: BAD, ..Live::default() });
        let live = Live { value: 2.5, raw: 7, flags: FORCED, changed: MonoNs(3), good: MonoNs(4), changes: 5, done: 6 };
        writer.set(1, &live);
        assert_eq!((reader.live(1), reader.value(1)), (Some(live), 2.5));
        let before = reader.changes();
        assert_eq!((writer.define(&two_lines()), reader.changes()), (layout, before));
        assert_eq!(reader.live(1), Some(live), "the image outlives its writer");
        let other = writer.define(&two_lines()[..1]);
        assert!(other != layout && reader.changes() != before);
        assert_eq!((reader.definition_of(layout, 0), reader.find(&Text::new("AO1"))), (None, None));
    }

    #[test]
    fn a_writer_that_died_inside_a_definition_is_followed_by_a_whole_one() {
        let page = page(IMAGE_WORDS, image_header());
        let writer = Writer::new(&page).unwrap();
        let before = writer.define(&two_lines());
        page[LAYOUT].store(before + 1, Ordering::Relaxed);
        assert_eq!(writer.reader().layout(), None);
        assert_eq!(writer.define(&two_lines()), before + 2);
    }

    #[test]
    fn an_image_is_stale_without_scans_and_after_a_start() {
        let page = page(IMAGE_WORDS, image_header());
        let (writer, reader) = (Writer::new(&page).unwrap(), Reader::new(&page).unwrap());
        writer.begin("sim", true, 77, 1000, 5000);
        assert!(!reader.is_fresh(MonoNs(1)));
        writer.scanned(MonoNs(100), 0, 0, true);
        assert!(reader.is_fresh(MonoNs(5100)) && !reader.is_fresh(MonoNs(5101)));
        assert_eq!((reader.scans(), reader.flags(), reader.pid()), (1, SIMULATED | DEGRADED, 77));
        assert_eq!(reader.board().to_string(), "sim");
        let forced = Forced { changes: 9, unwritten: 1, failing: 1, unknown: 2 };
        writer.forced(&forced, MonoNs(200));
        assert_eq!((reader.acknowledged(), reader.forced()), ((0, MonoNs(0)), forced), "not all is written");
        writer.forced(&Forced { changes: 9, ..Forced::default() }, MonoNs(300));
        assert_eq!(reader.acknowledged(), (9, MonoNs(300)));
    }

    #[test]
    fn scribbled_pages_are_read_without_harm() {
        let (image, requests) = (page(IMAGE_WORDS, image_header()), page(REQUEST_WORDS, request_header()));
        let mut x = 88_172_645_463_325_252_u64;
        for _ in 0..20 {
            for word in image[3..].iter().chain(&requests[3..]) {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                word.store(x, Ordering::Relaxed);
            }
            let reader = Reader::new(&image).unwrap();
            assert!(reader.lines() <= LINES);
            let _ = (reader.find(&Text::new("DI1")), reader.is_fresh(MonoNs(5)), reader.board().to_string());
            for line in 0..LINES + 1 {
                let _ = (reader.live(line), reader.value(line));
                let definition = reader.definition(line);
                let request = RequestReader::new(&requests).unwrap().look(line);
                if let Some(request) = request {
                    assert!(request.validate(definition.as_ref(), 2, &Text::new("modbus")).is_err());
                }
            }
        }
        image[0].store(0, Ordering::Relaxed);
        assert!(Reader::new(&image).is_err() && Reader::new(&image[..IMAGE_WORDS - 1]).is_err());
        assert!(RequestReader::new(&image).is_err());
    }

    #[test]
    fn a_request_is_believed_only_from_the_owner_and_within_the_range() {
        use RequestFault::{Input, NotOwner, OtherLayout, OutOfRange, Unknown};
        let [input, output] = two_lines();
        let digital = Definition { kind: LineKind::DigitalOutput, ..output };
        let (modbus, other) = (Text::new("modbus"), Text::new("led"));
        let check = |line: Option<&Definition>, value, layout, owner: &Name| {
            RawRequest { sequence: 1, value, time: MonoNs(1), layout }.validate(line, 4, owner)
        };
        assert_eq!(check(Some(&output), 2.5, 4, &modbus), Ok(2.5));
        assert_eq!(check(Some(&digital), 1.0, 4, &modbus), Ok(1.0));
        for (line, value, layout, owner, fault) in [
            (None, 1.0, 4, &modbus, Unknown),
            (Some(&input), 1.0, 4, &modbus, Input),
            (Some(&output), 1.0, 4, &other, NotOwner),
            (Some(&Definition { owner: Name::EMPTY, ..output }), 1.0, 4, &Name::EMPTY, NotOwner),
            (Some(&output), 1.0, 2, &modbus, OtherLayout),
            (Some(&output), 10.1, 4, &modbus, OutOfRange),
            (Some(&output), f64::NAN, 4, &modbus, OutOfRange),
            (Some(&output), f64::INFINITY, 4, &modbus, OutOfRange),
            (Some(&digital), 0.5, 4, &modbus, OutOfRange),
        ] {
            assert_eq!(check(line, value, layout, owner), Err(fault), "{value} of {layout}");
        }
    }

    #[test]
    fn a_new_page_holds_no_request_and_an_old_one_the_last() {
        let page = page(REQUEST_WORDS, request_header());
        let (child, reader) = (Requester::new(&page).unwrap(), RequestReader::new(&page).unwrap());
        assert_eq!(reader.look(LINES - 1), None);
        child.ask(4, LINES - 1, 0.5, MonoNs(1));
        assert_eq!(child.ask(4, LINES - 1, 1.5, MonoNs(2)), 2);
        let expected = RawRequest { sequence: 2, value: 1.5, time: MonoNs(2), layout: 4 };
        assert_eq!((reader.look(LINES - 1), reader.changes()), (Some(expected), 2));
        assert_eq!(reader.look(LINES), None);
    }
}
