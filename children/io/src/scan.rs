//! One scan: inputs -> image -> requests -> forced values -> outputs -> acknowledgement.
//!
//! What an output shall be, the first of these that there is:
//!
//! 1. **forced**: the force page says so: a safe state, or else a person. Always wins.
//! 2. **requested**: its owner has asked for it, in a request page that is there.
//! 3. **retained**: it was asked for before, and the line is retained.
//! 4. its **safe** value.
//!
//! [`Scan::turn`] allocates nothing, takes no lock and reads no file; time is passed in.

use std::sync::Arc;

use multus_contract::config::hardware::{HardwareConfig, LineSource};
use multus_hardware::gpio::{self, Gpio, Pins};
use multus_ipc::histogram::{self, BUCKETS};
use multus_ipc::io::{
    BAD, Definition, FORCED, Forced, LINES, Live, REQUESTED, RETAINED, RequestFault, RequestReader, Writer,
};
use multus_ipc::map::Mapping;
use multus_ipc::text::Name;
use multus_ipc::{MonoNs, force, futex};

use crate::bus::{BusThread, Cell};
use crate::clerk::{Note, Notes, Retained};
use crate::requests::{Arrival, Pages};

/// Everything a scan works with.
#[derive(Debug)]
pub struct Parts {
    /// The image, whose lines are defined already.
    pub image: Writer<'static>,
    /// The layout of the image.
    pub layout: u64,
    /// The force page; by hand there is none.
    pub force: Option<force::Reader<'static>>,
    /// Where request pages come from; by hand from nowhere.
    pub pages: Option<Pages>,
    /// One for each line; those of native lines are not used.
    pub cells: Arc<[Cell]>,
    /// The threads that serve the cells.
    pub buses: Vec<BusThread>,
    /// What outlives a restart.
    pub retained: Arc<Retained>,
    /// For the log.
    pub notes: Notes,
}

/// The scan and all it remembers.
pub struct Scan {
    parts: Parts,
    gpio: Box<dyn Gpio>,
    lines: Vec<Line>,
    /// Native inputs, in the order of the board.
    inputs: Vec<usize>,
    owners: Vec<Owner>,
    inputs_are_bad: bool,
    /// Native inputs that are not open, as bits in the order of the board.
    missing: u64,
    /// The change counter of the force page that was taken over.
    force_seen: Option<u64>,
    force_acknowledged: Option<u64>,
    unknown_forced: u64,
    refused: u64,
    overruns: u64,
    /// How long scans take.
    durations: Spread,
    until_report: u32,
    /// The latest time at which an output was forced that is not acknowledged yet.
    forced_at: MonoNs,
    /// The same, as of the last acknowledgement.
    forced_before: MonoNs,
    /// From then to the acknowledgement.
    force_times: Spread,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

struct Line {
    definition: Definition,
    live: Live,
    place: Place,
    active_low: bool,
    is_retained: bool,
    owner: Option<usize>,
    debounce_ns: u64,
    /// A digital level that is not accepted yet, and since when it is there.
    candidate: Option<(f64, MonoNs)>,
    /// Updates of the cell that were taken over.
    updates: u64,
    forced: Option<f64>,
    request: Option<f64>,
    request_sequence: u64,
    /// The bits of the value that was asked for last. A writer without fences may show its sequence before its value.
    request_bits: u64,
    /// The value that the hardware was told last, and whether it has it.
    told: Option<f64>,
    is_written: bool,
    retry: Option<Retry>,
}

/// How a time spreads: a beat-interval histogram, and the longest.
struct Spread {
    counts: Box<[u64; BUCKETS]>,
    longest_ns: u64,
}

impl Spread {
    fn new() -> Self {
        Self { counts: Box::new([0; BUCKETS]), longest_ns: 0 }
    }

    fn count(&mut self, ns: u64) {
        self.counts[histogram::bucket(ns)] += 1;
        self.longest_ns = self.longest_ns.max(ns);
    }

    /// Median, 99th percentile, longest.
    fn shares(&self) -> [u64; 3] {
        let share = |n| histogram::percentile(|bucket| self.counts[bucket], n, self.longest_ns).unwrap_or(0);
        [share(500), share(990), self.longest_ns]
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Native(usize),
    /// The thread that serves it.
    Bus(usize),
}

#[derive(Clone, Copy)]
struct Retry {
    at: MonoNs,
    pause_ns: u64,
}

struct Owner {
    name: Name,
    page: Option<Mapping>,
    /// Requests in the page that were looked through for lines that are not its own.
    swept: u64,
    /// The sequences of requests that were refused, so that each is told once.
    refused: Box<[u64; LINES]>,
}

impl Scan {
    /// A scan whose native lines are open and have their safe values. `owners` in the order in which pages are numbered.
    pub fn new(config: &HardwareConfig, pins: &Pins, gpio: Box<dyn Gpio>, owners: &[String], parts: Parts) -> Self {
        let debounces = gpio.debounces();
        let place = |line: usize| {
            let input = pins.inputs.iter().position(|pin| pin.line == line);
            let native = input.or_else(|| pins.outputs.iter().position(|pin| pin.line == line));
            let bus = || parts.buses.iter().position(|bus| bus.serves(line)).unwrap_or_default();
            native.map_or_else(|| Place::Bus(bus()), Place::Native)
        };
        let lines = config.lines.iter().enumerate().map(|(i, line)| {
            let definition = line.definition();
            let is_native = matches!(line.source, LineSource::Gpio(_));
            let debounce_ns = if is_native && debounces { 0 } else { multus_ipc::time::duration_ns(line.debounce) };
            let before = parts.image.reader().live(i).unwrap_or_default();
            let live = Live { flags: before.flags & !(FORCED | REQUESTED | RETAINED) | BAD, done: 0, ..before };
            Line {
                definition,
                live,
                place: place(i),
                active_low: line.active_low,
                is_retained: line.retained,
                owner: owners.iter().position(|name| definition.owner == Name::new(name)),
                debounce_ns,
                candidate: None,
                updates: 0,
                forced: None,
                request: None,
                request_sequence: 0,
                request_bits: 0,
                // Cells were given their safe values before their thread began; native lines when they were opened, but
                // whether that went well shows when they are written.
                told: matches!(place(i), Place::Bus(_)).then_some(line.safe),
                is_written: false,
                retry: None,
            }
        });
        let owner = |name: &String| {
            let refused = Box::new([0; LINES]);
            Owner { name: Name::new(name), page: None, swept: 0, refused }
        };
        Self {
            lines: lines.collect(),
            inputs: pins.inputs.iter().map(|pin| pin.line).collect(),
            owners: owners.iter().map(owner).collect(),
            gpio,
            inputs_are_bad: false,
            missing: 0,
            force_seen: None,
            force_acknowledged: None,
            unknown_forced: 0,
            refused: 0,
            overruns: 0,
            durations: Spread::new(),
            until_report: 1,
            forced_at: MonoNs(0),
            forced_before: MonoNs(0),
            force_times: Spread::new(),
            parts,
        }
    }

    /// One scan, begun at `now`; `clock` tells the time while it goes on.
    ///
    /// # Real time
    /// Allocates nothing. System calls: one or more to read native inputs, one for each native output that changes, one
    /// when somebody may wait for a change, one for each bus that has something to write.
    pub fn turn(&mut self, now: MonoNs, clock: impl Fn() -> MonoNs) {
        self.read_inputs(now);
        self.take_pages();
        self.read_requests();
        self.read_force();
        self.write_outputs(now);
        let end = clock();
        self.acknowledge(end);
        self.publish(end);
        self.count(end.0.saturating_sub(now.0));
    }

    /// Scans that were left out.
    pub fn overran(&mut self, scans: u64) {
        self.overruns = self.overruns.saturating_add(scans);
    }

    /// The word that changes when something is to be forced, and the value up to which it was taken over.
    pub fn force_word(&self) -> Option<(&'static multus_ipc::sync::AtomicU64, u64)> {
        Some((self.parts.force?.change_word(), self.force_seen?))
    }

    /// Whether something is to be forced that was not taken over yet.
    pub fn is_force_new(&self) -> bool {
        self.parts.force.is_some_and(|force| Some(force.changes()) != self.force_seen)
    }

    /// The last thing: all outputs get their safe values, whatever anybody wants. `false` while one has not got it.
    pub fn finish(&mut self, now: MonoNs) -> bool {
        for line in self.lines.iter_mut().filter(|line| line.definition.kind.is_output()) {
            line.forced = Some(line.definition.safe);
        }
        self.write_outputs(now);
        self.publish(now);
        self.lines.iter().all(|line| !line.definition.kind.is_output() || line.is_written)
    }

    fn read_inputs(&mut self, now: MonoNs) {
        if !self.inputs.is_empty() {
            match self.gpio.read() {
                Ok(levels) => {
                    let missing = self.gpio.missing_inputs();
                    let changed = std::mem::replace(&mut self.missing, missing) ^ missing;
                    for (i, at) in self.inputs.iter().enumerate() {
                        let (line, is_high) = (&mut self.lines[*at], levels >> i & 1 == 1);
                        let is_missing = missing >> i & 1 == 1;
                        if changed >> i & 1 == 1 {
                            let at = u16::try_from(*at).unwrap_or(u16::MAX);
                            let note = if is_missing { Note::InputMissing(at) } else { Note::InputFound(at) };
                            self.parts.notes.tell(note);
                        }
                        if is_missing {
                            line.live.flags |= BAD;
                            continue;
                        }
                        line.read(gpio::value(is_high, line.active_low), is_high.into(), now, now);
                    }
                    if std::mem::take(&mut self.inputs_are_bad) {
                        self.parts.notes.tell(Note::InputsGood);
                    }
                }
                Err(error) => {
                    for line in &self.inputs {
                        self.lines[*line].live.flags |= BAD;
                    }
                    if !std::mem::replace(&mut self.inputs_are_bad, true) {
                        self.parts.notes.tell(Note::InputsBad(error.raw_os_error().unwrap_or(EIO)));
                    }
                }
            }
        }
        for (line, cell) in self.lines.iter_mut().zip(self.parts.cells.iter()) {
            if matches!(line.place, Place::Native(_)) || line.definition.kind.is_output() {
                continue;
            }
            let found = cell.look();
            // A level that waits for its debounce time is looked at again without a new reading.
            if found.updates == line.updates && line.candidate.is_none() {
                continue;
            }
            line.updates = found.updates;
            match found.error {
                None => line.read(found.value, found.raw, found.good, now),
                Some(_) => line.live.flags |= BAD,
            }
        }
    }

    fn take_pages(&mut self) {
        let Some(pages) = &mut self.parts.pages else { return };
        while let Ok(Arrival { owner: number, page }) = pages.arrivals.pop() {
            let Some(owner) = self.owners.get_mut(number) else { continue };
            // Its requests die with the page. What was done is forgotten as well: the next process counts from 1 again.
            for line in self.lines.iter_mut().filter(|line| line.owner == Some(number)) {
                (line.request, line.request_sequence, line.request_bits) = (None, 0, 0);
                line.live.done = 0;
            }
            (owner.swept, *owner.refused) = (0, [0; LINES]);
            if let Some(old) = std::mem::replace(&mut owner.page, page) {
                // Unmapped here when there is no room: a system call, no more.
                let _ = pages.graveyard.push(old);
            }
        }
    }

    fn read_requests(&mut self) {
        for (number, owner) in self.owners.iter_mut().enumerate() {
            let Some(page) = owner.page.as_ref().and_then(|page| RequestReader::accepted(page.words())) else {
                continue;
            };
            let changes = page.changes();
            for (at, line) in self.lines.iter_mut().enumerate() {
                if line.owner != Some(number) {
                    continue;
                }
                let Some(request) = page.look(at) else { continue };
                let bits = request.value.to_bits();
                if (request.sequence, bits) == (line.request_sequence, line.request_bits) {
                    continue;
                }
                (line.request_sequence, line.request_bits) = (request.sequence, bits);
                match request.validate(Some(&line.definition), self.parts.layout, &owner.name) {
                    Ok(value) => {
                        line.request = Some(value);
                        if line.is_retained {
                            self.parts.retained.set(at, value);
                        }
                    }
                    Err(fault) => refuse(&mut self.refused, &mut self.parts.notes, number, at, fault),
                }
            }
            if changes == owner.swept {
                continue;
            }
            owner.swept = changes;
            // Requests for lines that are not its own are not carried out, but somebody should know.
            for at in 0..LINES {
                let line = self.lines.get(at);
                if line.is_some_and(|line| line.owner == Some(number)) {
                    continue;
                }
                let Some(request) = page.look(at).filter(|request| request.sequence != owner.refused[at]) else {
                    continue;
                };
                owner.refused[at] = request.sequence;
                let fault = request.validate(line.map(|line| &line.definition), self.parts.layout, &owner.name);
                let fault = fault.err().unwrap_or(RequestFault::NotOwner);
                refuse(&mut self.refused, &mut self.parts.notes, number, at, fault);
            }
        }
    }

    fn read_force(&mut self) {
        let Some(force) = self.parts.force else { return };
        let changes = force.changes();
        if self.force_seen == Some(changes) {
            return;
        }
        self.force_seen = Some(changes);
        for line in &mut self.lines {
            line.forced = None;
        }
        for owner in force.owners() {
            let Some(since) = owner.forced_since else { continue };
            for line in self.lines.iter_mut().filter(|line| line.definition.owner == owner.name) {
                line.forced = Some(line.definition.safe);
                self.forced_at = self.forced_at.max(since);
            }
        }
        let mut unknown = 0;
        for entry in force.entries() {
            let line = self.lines.iter_mut().find(|line| line.definition.name == entry.name);
            match line.filter(|line| line.definition.kind.is_output()) {
                None => unknown += 1,
                // A person's entries come last, and a safe state goes before them.
                Some(line) if entry.slot == force::OPERATOR && line.forced.is_some() => {}
                Some(line) if entry.forced_since.is_some() => {
                    self.forced_at = self.forced_at.max(entry.forced_since.unwrap_or_default());
                    // A value that the line cannot have is none; its own safe value is the next best.
                    let fits = line.definition.accepts(entry.value);
                    line.forced = Some(if fits { entry.value } else { line.definition.safe });
                }
                Some(_) => {}
            }
        }
        if unknown != self.unknown_forced && unknown > 0 {
            self.parts.notes.tell(Note::UnknownForced(unknown.try_into().unwrap_or(u16::MAX)));
        }
        self.unknown_forced = unknown;
    }

    fn write_outputs(&mut self, now: MonoNs) {
        let mut has_wishes = false;
        for (at, line) in self.lines.iter_mut().enumerate() {
            if !line.definition.kind.is_output() {
                continue;
            }
            let retained = || self.parts.retained.get(at).filter(|_| line.is_retained);
            let (value, flag) = match (line.forced, line.request, retained()) {
                (Some(value), _, _) => (value, FORCED),
                (None, Some(value), _) => (value, REQUESTED),
                (None, None, Some(value)) => (value, RETAINED),
                (None, None, None) => (line.definition.safe, 0),
            };
            match line.place {
                Place::Native(output) => {
                    let is_new = line.told != Some(value);
                    let may_try = is_new || line.retry.is_none_or(|retry| now >= retry.at);
                    if (is_new || !line.is_written) && may_try {
                        line.told = Some(value);
                        let is_high = gpio::level(value, line.active_low);
                        let result = self.gpio.write(output, is_high).map(|()| is_high.into());
                        let result = result.map_err(|error| error.raw_os_error().unwrap_or(EIO));
                        line.written(at, value, result, now, now, &mut self.parts.notes);
                    }
                }
                Place::Bus(_) => {
                    let cell = &self.parts.cells[at];
                    if line.told != Some(value) {
                        (line.told, line.is_written) = (Some(value), false);
                        cell.want(value);
                        has_wishes = true;
                    }
                    // Only what was found after the wish was carried out belongs to it.
                    let is_done = cell.is_done();
                    let found = cell.look();
                    if found.updates != line.updates {
                        line.updates = found.updates;
                        if found.error.is_some() {
                            // The bus thread tells, and writes again.
                            line.live.flags |= BAD;
                            line.is_written = false;
                        }
                    }
                    if is_done && found.error.is_none() && (!line.is_written || line.live.good != found.good) {
                        line.is_written = true;
                        line.has_value(value, found.raw, found.good, now);
                    }
                }
            }
            line.live.flags = line.live.flags & BAD | flag;
            if line.is_written && flag == REQUESTED {
                line.live.done = line.request_sequence;
            }
        }
        if has_wishes {
            self.parts.buses.iter().for_each(BusThread::wake);
        }
    }

    fn acknowledge(&mut self, now: MonoNs) {
        let Some(changes) = self.force_seen.filter(|changes| self.force_acknowledged != Some(*changes)) else { return };
        let unwritten = || self.lines.iter().filter(|line| line.forced.is_some() && !line.is_written);
        // Of a bus that hangs nothing can be had, whatever becomes of this process.
        let hangs = |line: &Line| match line.place {
            Place::Bus(bus) => self.parts.buses.get(bus).is_some_and(|bus| bus.hangs(now)),
            Place::Native(_) => false,
        };
        let failing = unwritten().filter(|line| line.live.flags & BAD != 0 || hangs(line)).count() as u64;
        let (unwritten, unknown) = (unwritten().count() as u64, self.unknown_forced);
        self.parts.image.forced(&Forced { changes, unwritten, failing, unknown }, now);
        if unwritten == 0 {
            // What was forced before this process began says nothing about it.
            if self.force_acknowledged.is_some() && self.forced_at > self.forced_before {
                self.force_times.count(now.0.saturating_sub(self.forced_at.0));
                self.parts.image.force_times(self.force_times.shares());
            }
            self.forced_before = self.forced_at;
            self.force_acknowledged = Some(changes);
        }
    }

    fn publish(&mut self, now: MonoNs) {
        let image = self.parts.image;
        let mut is_changed = false;
        for (at, line) in self.lines.iter().enumerate() {
            let before = image.reader().live(at).unwrap_or_default();
            let Live { value, flags, done, .. } = line.live;
            is_changed |= value.to_bits() != before.value.to_bits() || flags != before.flags || done != before.done;
            image.set(at, &line.live);
        }
        let degraded = self.lines.iter().any(|line| line.live.flags & BAD != 0);
        image.scanned(now, self.overruns, self.refused, degraded);
        if is_changed {
            image.announce();
            futex::wake_all(image.reader().change_word());
        }
    }

    fn count(&mut self, duration_ns: u64) {
        self.durations.count(duration_ns);
        self.until_report -= 1;
        if self.until_report == 0 {
            self.until_report = SCANS_PER_REPORT;
            self.parts.image.durations(self.durations.shares());
        }
    }
}

impl Line {
    /// A good reading, made at `good`.
    fn read(&mut self, value: f64, raw: u64, good: MonoNs, now: MonoNs) {
        self.live.good = good;
        self.live.raw = raw;
        let is_first = self.live.flags & BAD != 0 && self.live.changes == 0 && self.candidate.is_none();
        if self.debounce_ns > 0 && value.to_bits() != self.live.value.to_bits() && !is_first {
            let since = self.candidate.filter(|(level, _)| *level == value).map_or(now, |(_, since)| since);
            self.candidate = Some((value, since));
            self.live.flags &= !BAD;
            if now.0.saturating_sub(since.0) < self.debounce_ns {
                return;
            }
        }
        self.candidate = None;
        self.has_value(value, raw, good, now);
    }

    fn has_value(&mut self, value: f64, raw: u64, good: MonoNs, now: MonoNs) {
        let live = &mut self.live;
        if value.to_bits() != live.value.to_bits() {
            (live.value, live.changed, live.changes) = (value, now, live.changes.wrapping_add(1));
        }
        (live.raw, live.good) = (raw, good);
        live.flags &= !BAD;
    }

    /// How the writing of a native output ended.
    fn written(
        &mut self,
        at: usize,
        value: f64,
        result: Result<u64, i32>,
        good: MonoNs,
        now: MonoNs,
        notes: &mut Notes,
    ) {
        let at = u16::try_from(at).unwrap_or(u16::MAX);
        match result {
            Ok(raw) => {
                if self.retry.take().is_some() {
                    notes.tell(Note::OutputGood(at));
                }
                self.is_written = true;
                self.has_value(value, raw, good, now);
            }
            Err(number) => {
                if self.retry.is_none() {
                    notes.tell(Note::OutputBad(at, number));
                }
                self.is_written = false;
                self.live.flags |= BAD;
                let pause_ns = self.retry.map_or(FIRST_PAUSE_NS, |retry| (retry.pause_ns * 2).min(LONGEST_PAUSE_NS));
                self.retry = Some(Retry { at: MonoNs(now.0.saturating_add(pause_ns)), pause_ns });
            }
        }
    }
}

fn refuse(refused: &mut u64, notes: &mut Notes, owner: usize, line: usize, fault: RequestFault) {
    *refused = refused.saturating_add(1);
    let number = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    notes.tell(Note::Refused(number(owner), number(line), fault));
}

const FIRST_PAUSE_NS: u64 = 1_000_000;
const LONGEST_PAUSE_NS: u64 = 1_000_000_000;
const SCANS_PER_REPORT: u32 = 1000;
const EIO: i32 = 5;
