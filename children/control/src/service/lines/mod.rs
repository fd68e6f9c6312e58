//! Inputs and outputs: what every line holds, who asks for what, and what people may do with them.
//!
//! Values are read from the process image, which costs the daemon nothing: one thread ([`watch`]) sleeps until the image
//! changes, however many look. What the image does not say (who has the outputs, which of them a person holds) is asked
//! of the daemon, at most once in [`FRESH`] and only while somebody looks.

mod ledger;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use multus_contract::api::command::Request;
use multus_contract::api::io::{IoLine, IoStatus};
use multus_contract::api::time::Clock;
use multus_ipc::MonoNs;
use multus_ipc::io::OPERATOR;
use multus_ipc::io_child::Io;
use multus_ipc::time::unix_ns;

use super::queue::{Receiver, Sender, queue};
use super::{Caller, Error, Inner, Result, Service};

pub(crate) use watch::start;

/// What can be done with a line. Values are 0 or 1, or numbers in the unit of the line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LineOrder {
    /// Ask for a value of an output that no child owns; drive an input of a simulated board.
    Set(f64),
    /// Hold an output at a value, whatever its owner asks for. A safe state goes before it.
    Force(f64),
    /// Hold it no longer.
    Release,
}

impl LineOrder {
    /// Who may give it: operators what outputs without a child are there for; administrators what overrules a child.
    pub const fn level(self) -> u32 {
        match self {
            Self::Set(_) => Caller::OPERATOR,
            Self::Force(_) | Self::Release => Caller::ADMIN,
        }
    }

    fn value(self) -> Option<f64> {
        match self {
            Self::Set(value) | Self::Force(value) => Some(value),
            Self::Release => None,
        }
    }
}

/// What is new.
#[derive(Clone, Debug, PartialEq)]
pub enum LineNews {
    /// Whether multus-io scans: whether values are those of the plant now.
    Fresh(bool),
    /// What a line holds from now on.
    Line(Box<IoLine>),
}

/// The image, the last look at it, and those who listen.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    image: OnceLock<Io>,
    told: Mutex<Option<(Instant, Result<Arc<IoStatus>>)>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    fresh: bool,
    lines: Vec<IoLine>,
    listeners: Vec<Sender<Arc<LineNews>>>,
}

impl Service {
    /// All lines.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: there is no image here, and the daemon cannot be reached.
    pub fn lines(&self, caller: &Caller) -> Result<IoStatus> {
        caller.needs(Caller::USER)?;
        self.inner.io_status()
    }

    /// One line.
    ///
    /// # Errors
    /// [`Error::NotFound`]; as [`Service::lines`].
    pub fn line(&self, caller: &Caller, name: &str) -> Result<IoLine> {
        let found = self.lines(caller)?.lines.into_iter().find(|line| line.name == name);
        found.ok_or_else(|| Error::NotFound(format!("there is no line {name:?}")))
    }

    /// Does something with a line, and waits a moment until it can be seen.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for a value that the line cannot have; [`Error::Refused`] when the daemon
    /// says no: a child owns the output, nobody holds it, an input is not simulated; [`Error::Unavailable`].
    pub fn line_order(&self, caller: &Caller, name: &str, order: LineOrder) -> Result<()> {
        caller.needs(order.level())?;
        let line = self.line(caller, name)?;
        if let Some(value) = order.value() {
            check_value(&line, value)?;
        }
        let owned = name.to_owned();
        self.inner.daemon.tell(&match order {
            LineOrder::Set(value) => Request::IoSet { name: owned, value },
            LineOrder::Force(value) => Request::IoForce { name: owned, value },
            LineOrder::Release => Request::IoRelease { name: owned },
        })?;
        // Like an order to a child; what overrules one is worth more.
        let level = if order.level() == Caller::OPERATOR { log::Level::Info } else { log::Level::Warn };
        log::log!(level, "{}: {order:?} {name}", caller.name);
        self.inner.io.await_line(name, order);
        self.inner.io.forget_told();
        Ok(())
    }

    /// What is new, beginning with all there is. A reader that is slow loses the oldest and is told how many.
    ///
    /// # Errors
    /// [`Error::Refused`] without an image; [`Error::Busy`]: too many (256) listen already.
    pub fn follow_lines(&self, caller: &Caller) -> Result<Receiver<Arc<LineNews>>> {
        caller.needs(Caller::USER)?;
        let io = &self.inner.io;
        if io.image.get().is_none() {
            return Err(Error::Refused(NO_IMAGE.into()));
        }
        let mut state = io.lock();
        state.listeners.retain(Sender::is_heard);
        if state.listeners.len() >= MOST_LISTENERS {
            return Err(Error::Busy(format!("{MOST_LISTENERS} follow the lines already")));
        }
        let (sender, receiver) = queue(QUEUE);
        sender.push(Arc::new(LineNews::Fresh(state.fresh)));
        for line in &state.lines {
            sender.push(Arc::new(LineNews::Line(Box::new(line.clone()))));
        }
        state.listeners.push(sender);
        Ok(receiver)
    }

    /// Begins to watch the image that multusd gave to this process, if it did; see [`start`].
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn watch_lines(&self, image: Io, lane: Option<multus_child::Lane>) -> std::io::Result<()> {
        // A second one would be a mistake of this program; the first stays.
        if image.is_there() && self.inner.io.image.set(image.clone()).is_ok() {
            start(Arc::downgrade(&self.inner), image, lane)?;
        }
        Ok(())
    }

    /// Whether there is an image to read.
    pub(crate) fn has_image(&self) -> bool {
        self.inner.io.image.get().is_some()
    }

    /// As of the last look of the thread that watches: whether multus-io scans, and all lines.
    pub(crate) fn seen_lines(&self) -> (bool, Vec<IoLine>) {
        let state = self.inner.io.lock();
        (state.fresh, state.lines.clone())
    }
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the image says now.
    fn of_image(&self) -> Option<IoStatus> {
        self.image.get()?.image().map(|image| IoStatus::of(&image, now()))
    }

    /// After an order: what was known before it is old.
    fn forget_told(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits until an order can be seen in the image; not for long, because a safe state may go before it.
    fn await_line(&self, name: &str, order: LineOrder) {
        let Some(image) = self.image.get() else { return };
        let end = Instant::now() + VISIBLE;
        loop {
            let seen = image.changes();
            let done = self.of_image().is_none_or(|status| {
                status.lines.iter().filter(|line| line.name == name).all(|line| match order {
                    LineOrder::Set(value) => line.value == value,
                    LineOrder::Force(value) => line.value == value && line.source == "forced",
                    LineOrder::Release => line.source != "forced",
                })
            });
            let left = end.saturating_duration_since(Instant::now());
            if done || left.is_zero() {
                return;
            }
            image.wait_change(seen, left);
        }
    }

    /// Takes in a look at the image and tells what is new.
    fn looked(&self, fresh: bool, lines: Vec<IoLine>) {
        let mut state = self.lock();
        let mut news = Vec::new();
        if state.fresh != fresh {
            news.push(LineNews::Fresh(fresh));
        }
        let old = std::mem::take(&mut state.lines);
        // Lines keep their order unless they are defined anew.
        let before = |at: usize, name: &str| {
            old.get(at).filter(|line| line.name == name).or_else(|| old.iter().find(|line| line.name == name))
        };
        for (at, line) in lines.iter().enumerate() {
            if before(at, &line.name).is_none_or(|old| is_news(old, line)) {
                news.push(LineNews::Line(Box::new(line.clone())));
            }
        }
        (state.fresh, state.lines) = (fresh, lines);
        for news in news.into_iter().map(Arc::new) {
            state.listeners.retain(|listener| listener.push(Arc::clone(&news)));
        }
    }
}

impl Inner {
    pub(crate) fn io_status(&self) -> Result<IoStatus> {
        let told = self.io_told();
        match (self.io.of_image(), told) {
            // While multusd itself drives the outputs, the image is that of the last scan.
            (_, Ok(told)) if told.driven_by != "multus-io" => Ok((*told).clone()),
            (Some(image), Ok(told)) => Ok(merged(image, &told)),
            (None, Ok(told)) => Ok((*told).clone()),
            (Some(image), Err(_)) => Ok(image),
            (None, Err(error)) => Err(error),
        }
    }

    /// What the daemon says of the lines, not older than [`FRESH`].
    fn io_told(&self) -> Result<Arc<IoStatus>> {
        let mut told = self.io.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, answer)) = &*told
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = self.daemon.ask::<IoStatus>(&Request::Io).map(Arc::new);
        *told = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// What the image says, and what only the daemon knows.
fn merged(image: IoStatus, told: &IoStatus) -> IoStatus {
    let mut status =
        IoStatus { driven_by: told.driven_by.clone(), unsafe_outputs: told.unsafe_outputs.clone(), ..image };
    for line in &mut status.lines {
        line.held = told.lines.iter().find(|other| other.name == line.name).and_then(|other| other.held);
    }
    status
}

/// Whether somebody who has seen `old` wants to see `new`: that it was read again is no news.
fn is_news(old: &IoLine, new: &IoLine) -> bool {
    let seen = |line: &IoLine| (line.value.to_bits(), line.good, line.changes);
    seen(old) != seen(new) || old.source != new.source || old.kind != new.kind || old.owner != new.owner
}

/// What multusd would say, with the name of the field.
fn check_value(line: &IoLine, value: f64) -> Result<()> {
    let (fits, expected) = match line.range {
        Some([lowest, highest]) => {
            ((lowest..=highest).contains(&value), format!("{lowest} to {highest} {}", line.unit).trim_end().to_owned())
        }
        None => (value == 0.0 || value == 1.0 || !line.kind.starts_with("digital"), "0 or 1".to_owned()),
    };
    if fits {
        return Ok(());
    }
    Err(Error::field("value", format!("{value} is out of range for {}, expected {expected}", line.name)))
}

/// Whether people may ask for values of this output as its owner.
pub(crate) fn is_operators(line: &IoLine) -> bool {
    line.owner == OPERATOR
}

fn now() -> Clock {
    Clock { mono: MonoNs::now().0, unix: unix_ns() }
}

const NO_IMAGE: &str = "multus-control has no process image: hardware.toml was not there when multusd started it";
/// What the daemon said is asked for again when it is older.
const FRESH: Duration = Duration::from_millis(250);
/// multus-io needs a scan, the daemon a turn.
const VISIBLE: Duration = Duration::from_millis(250);
/// News that wait for one listener: all lines twice.
const QUEUE: usize = 512;
/// Who may listen at one time.
const MOST_LISTENERS: usize = 256;
