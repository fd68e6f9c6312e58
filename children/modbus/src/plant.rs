//! The plant as it is: the process image of multus-io, and what is known about the device.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use multus_child::lines::{Point, is_fresh, layout};
use multus_ipc::io::RequestFault;
use multus_ipc::io_child::{self, Io, NotSet, NotSetReason};

use crate::diagnostics::{self, Counters, News};
use crate::map::LineUse;
use crate::pdu::Exception;
use crate::unit::{Plant, Reading};

/// The lines of a map, in its order.
#[derive(Debug)]
pub(crate) struct Image {
    io: Io,
    child: String,
    points: Vec<Point>,
    /// Of each line, what it was asked for.
    requests: Vec<Mutex<Requests>>,
    counters: Arc<Counters>,
    news: Option<Arc<News>>,
    started: Instant,
}

/// What a line was asked for.
#[derive(Debug, Default)]
struct Requests {
    last: Option<Request>,
    /// How many there were.
    count: u64,
    /// That it cannot be made safe was told.
    is_told: bool,
}

/// What a line was asked for last.
#[derive(Debug)]
struct Request {
    value: f64,
    /// What it had before, or was going to have.
    earlier: f64,
    asked: io_child::Asked,
    /// The definitions that it was asked under: under later ones it is nothing any more.
    layout: Option<u64>,
}

/// A value on its way to an output.
#[derive(Debug)]
pub(crate) struct Asked {
    line: usize,
    /// Of the requests of this line.
    number: u64,
    asked: io_child::Asked,
}

impl Asked {
    /// Whether it, or what was asked for after it, is at the output.
    pub(crate) fn is_done(&self) -> bool {
        self.asked.is_done()
    }
}

impl Image {
    /// `child` is the name of this instance, to which outputs belong.
    pub(crate) fn new(
        io: &Io,
        child: &str,
        lines: &[LineUse],
        counters: Arc<Counters>,
        news: Option<Arc<News>>,
    ) -> Self {
        let points = lines.iter().map(|line| Point::new(io, &line.name)).collect();
        let requests = lines.iter().map(|_| Mutex::default()).collect();
        Self { io: io.clone(), child: child.to_owned(), points, requests, counters, news, started: Instant::now() }
    }

    fn requests(&self, line: usize) -> MutexGuard<'_, Requests> {
        // A request is remembered in one step.
        self.requests[line].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a value, and remembers what the output is to have when it does not get there: `earlier`, or else what it has.
    fn request(&self, requests: &mut Requests, line: usize, value: f64, earlier: Option<f64>) -> Result<Asked, NotSet> {
        let layout = layout(&self.io);
        let earlier = earlier.unwrap_or_else(|| match requests.last.as_ref().filter(|last| last.layout == layout) {
            Some(last) if last.asked.is_done() => last.value,
            Some(last) => last.earlier,
            None => self.present(line),
        });
        let asked = self.points[line].ask(value)?;
        requests.count += 1;
        requests.last = Some(Request { value, earlier, asked: asked.clone(), layout });
        Ok(Asked { line, number: requests.count, asked })
    }

    /// What the line has; the safe value, if nobody knows.
    fn present(&self, line: usize) -> f64 {
        let point = &self.points[line];
        let good = point.read().filter(|reading| reading.is_good).map(|reading| reading.value);
        good.or_else(|| Some(point.definition()?.safe)).unwrap_or_default()
    }

    /// A line is not there: for good, or because multus-io has not defined any.
    fn missing(&self) -> Exception {
        if layout(&self.io).is_some() { Exception::IllegalAddress } else { Exception::DeviceFailure }
    }
}

impl Plant for Image {
    type Asked = Asked;

    fn read(&self, line: usize) -> Result<Reading, Exception> {
        let reading = self.points[line].read().ok_or_else(|| self.missing())?;
        if !reading.is_good {
            return Err(Exception::DeviceFailure);
        }
        Ok(Reading { value: reading.value, changes: reading.changes })
    }

    fn under_way(&self, line: usize) -> Option<f64> {
        let requests = self.requests(line);
        let last = requests.last.as_ref().filter(|last| last.layout == layout(&self.io) && !last.asked.is_done())?;
        Some(last.value)
    }

    fn may_have(&self, line: usize, value: f64) -> Result<(), Exception> {
        let point = &self.points[line];
        let definition = point.definition().ok_or_else(|| self.missing())?;
        if !definition.kind.is_output() || definition.owner.to_string() != self.child {
            return Err(Exception::IllegalAddress);
        }
        if !definition.accepts(value) {
            return Err(Exception::IllegalValue);
        }
        match point.read() {
            _ if !is_fresh(&self.io) => Err(Exception::DeviceFailure),
            None => Err(Exception::DeviceFailure),
            Some(reading) if reading.is_forced => Err(Exception::Busy),
            Some(reading) if !reading.is_good => Err(Exception::DeviceFailure),
            Some(_) => Ok(()),
        }
    }

    fn ask(&self, line: usize, value: f64) -> Result<Asked, Exception> {
        self.request(&mut self.requests(line), line, value, None).map_err(|error| {
            log::warn!("{error}");
            Exception::DeviceFailure
        })
    }

    fn withdraw(&self, asked: &[Asked]) {
        for &Asked { line, number, .. } in asked {
            let mut requests = self.requests(line);
            let is_last = requests.count == number;
            // Under other definitions nothing is under way any more.
            let last = requests.last.as_ref().filter(|last| is_last && last.layout == layout(&self.io));
            let Some(earlier) = last.map(|last| last.earlier) else { continue };
            if let Err(error) = self.request(&mut requests, line, earlier, Some(earlier)) {
                log::error!("a value that did not get to its output cannot be taken back: {error}");
            }
        }
    }

    fn make_safe(&self, line: usize) {
        // A line that is not there is told at the start; there is nothing to make safe.
        let Some(safe) = self.points[line].definition().map(|definition| definition.safe) else { return };
        let mut requests = self.requests(line);
        let is_asked = |last: &Request| last.value == safe && last.layout == layout(&self.io);
        if requests.last.as_ref().is_some_and(is_asked) {
            return;
        }
        let result = self.request(&mut requests, line, safe, Some(safe));
        let was_told = std::mem::replace(&mut requests.is_told, result.is_err());
        match result {
            Err(error) if !was_told && error.reason != NotSetReason::Refused(RequestFault::Unknown) => {
                log::error!("the safe value cannot be asked for: {error}");
            }
            _ => {}
        }
    }

    fn diagnostics(&self, watchdog: Option<bool>) -> Vec<Result<u16, Exception>> {
        let Some(news) = &self.news else { return Vec::new() };
        let own = diagnostics::Own {
            uptime_s: self.started.elapsed().as_secs(),
            counted: self.counters.counted(),
            watchdog,
            is_fresh: is_fresh(&self.io),
        };
        news.registers(&own)
    }
}

/// A process image whose outputs move when a test moves them.
#[cfg(test)]
pub(crate) mod bench {
    use std::time::Duration;

    use multus_ipc::MonoNs;
    use multus_ipc::io::{self, BAD, Definition, Live, RequestReader, Writer};
    use multus_ipc::map::Mapping;
    use multus_nettest::lines::{self, page};

    use super::*;
    use crate::config::Config;
    use crate::unit::Unit;
    use crate::watchdog::Watchdog;

    pub(crate) struct Bench {
        image: Mapping,
        requests: Mapping,
        io: Io,
    }

    /// An output of `modbus`.
    pub(crate) fn output(name: &str) -> Definition {
        lines::output(name, "modbus")
    }

    impl Bench {
        /// DO1 to DO8, which are good and off.
        pub(crate) fn new() -> Self {
            let (image, seen) = page(io::IMAGE_WORDS, io::image_header());
            let (requests, own) = page(io::REQUEST_WORDS, io::request_header());
            let io = Io::new(seen, Some(own), "modbus").expect("pages");
            let bench = Self { image, requests, io };
            let names: Vec<String> = (1..=8).map(|n| format!("DO{n}")).collect();
            bench.define(&names.iter().map(|name| output(name)).collect::<Vec<_>>());
            bench
        }

        /// Defines the lines, which are good and have their safe values.
        pub(crate) fn define(&self, lines: &[Definition]) {
            self.writer().define(lines);
            // No test takes so long that this is stale.
            let stale = Duration::from_secs(3600);
            self.writer().begin("sim", true, 1, 1, u64::try_from(stale.as_nanos()).expect("short"));
            self.writer().scanned(MonoNs::now(), 0, 0, false);
            for (line, definition) in lines.iter().enumerate() {
                self.writer().set(line, &Live { value: definition.safe, ..Live::default() });
            }
        }

        fn writer(&self) -> Writer<'_> {
            Writer::new(self.image.words()).expect("an image")
        }

        /// What a line was asked for last.
        pub(crate) fn asked(&self, line: usize) -> Option<f64> {
            RequestReader::new(self.requests.words()).expect("a page").look(line).map(|request| request.value)
        }

        /// Carries out what a line was asked for.
        pub(crate) fn carry_out(&self, line: usize) {
            let request = RequestReader::new(self.requests.words()).expect("a page").look(line).expect("asked");
            self.writer().set(line, &Live { value: request.value, done: request.sequence, ..Live::default() });
        }

        /// The chip of a line fails, or works again.
        pub(crate) fn breaks(&self, line: usize, is_broken: bool) {
            let live = self.writer().reader().live(line).expect("defined");
            let flags = if is_broken { live.flags | BAD } else { live.flags & !BAD };
            self.writer().set(line, &Live { flags, ..live });
        }

        /// A unit that serves these lines.
        pub(crate) fn unit(&self, config: &Config) -> Unit<Image> {
            let valid = config.valid().expect("good");
            let plant = Image::new(&self.io, "modbus", &valid.map.lines, Arc::default(), None);
            let watchdog = config.watchdog.enabled.then(|| Watchdog::new(Duration::from_secs(5), Duration::ZERO));
            Unit::new(valid.map, plant, valid.identity, config.read_only, watchdog)
        }

        pub(crate) fn image(&self, names: &[&str]) -> Image {
            let use_of = |name: &&str| LineUse { name: (*name).into(), digital: true, written: true, guarded: true };
            let lines: Vec<LineUse> = names.iter().map(use_of).collect();
            Image::new(&self.io, "modbus", &lines, Arc::default(), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::bench::{Bench, output};
    use super::*;

    #[test]
    fn an_output_that_is_bad_is_not_asked() {
        let bench = Bench::new();
        let image = bench.image(&["DO1", "DO2", "DO9"]);
        bench.breaks(1, true);
        let may = |line| image.may_have(line, 1.0);
        assert_eq!((may(0), may(1), may(2)), (Ok(()), Err(Exception::DeviceFailure), Err(Exception::IllegalAddress)));
        bench.breaks(1, false);
        assert_eq!((may(1), bench.asked(1)), (Ok(()), None));
    }

    #[test]
    fn what_did_not_get_there_is_taken_back_unless_somebody_has_asked_for_more() {
        let bench = Bench::new();
        let image = bench.image(&["DO1"]);
        let ask = |value| [image.ask(0, value).expect("asked")];
        let first = ask(1.0);
        assert_eq!((image.under_way(0), bench.asked(0)), (Some(1.0), Some(1.0)));
        image.withdraw(&first);
        assert_eq!(bench.asked(0), Some(0.0), "what it had");
        let done = ask(1.0);
        bench.carry_out(0);
        assert!(done[0].is_done() && image.under_way(0).is_none());
        let (second, third) = (ask(0.0), ask(0.0));
        image.withdraw(&second);
        assert_eq!(bench.asked(0), Some(0.0), "the third request has its time");
        image.withdraw(&third);
        assert_eq!(bench.asked(0), Some(1.0), "what the last one that was carried out had");
        // Lines that are defined anew have nothing under way.
        let late = ask(0.0);
        bench.define(&[output("DO0"), output("DO1")]);
        image.withdraw(&late);
        assert_eq!((bench.asked(1), image.under_way(0)), (None, None));
    }

    #[test]
    fn what_is_to_be_safe_is_asked_once_and_again_under_new_definitions() {
        let bench = Bench::new();
        let image = bench.image(&["DO1", "DO9"]);
        let asked = [image.ask(0, 1.0).expect("asked")];
        for line in [0, 0, 1] {
            image.make_safe(line);
        }
        assert_eq!((bench.asked(0), image.requests(0).count), (Some(0.0), 2));
        image.withdraw(&asked);
        assert_eq!((bench.asked(0), image.requests(0).count), (Some(0.0), 2), "safe is the last word");
        bench.define(&[output("DO0"), output("DO1")]);
        image.make_safe(0);
        assert_eq!(bench.asked(1), Some(0.0));
    }
}
