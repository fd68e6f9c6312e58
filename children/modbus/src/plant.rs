//! The plant as it is: the process image of multus-io, and what is known about the device.

use std::sync::Arc;
use std::time::Instant;

use multus_child::lines::{Point, is_fresh, layout};
use multus_ipc::io::RequestFault;
use multus_ipc::io_child::{Asked, Io, NotSetReason};

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
    counters: Arc<Counters>,
    news: Option<Arc<News>>,
    started: Instant,
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
        Self { io: io.clone(), child: child.to_owned(), points, counters, news, started: Instant::now() }
    }

    /// Asks for the safe values of these lines, as far as they are outputs of this child.
    pub(crate) fn make_safe<'a>(&self, lines: impl Iterator<Item = (usize, &'a LineUse)>) {
        for (line, _) in lines {
            let Some(point) = self.points.get(line) else { continue };
            match point.ask_safe() {
                Ok(_) => {}
                // Told at the start; there is nothing to make safe.
                Err(error) if error.reason == NotSetReason::Refused(RequestFault::Unknown) => {}
                Err(error) => log::error!("the safe value cannot be asked for: {error}"),
            }
        }
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
            Some(_) => Ok(()),
        }
    }

    fn ask(&self, line: usize, value: f64) -> Result<Asked, Exception> {
        self.points[line].ask(value).map_err(|error| {
            log::warn!("{error}");
            Exception::DeviceFailure
        })
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
