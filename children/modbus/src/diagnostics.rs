//! Registers about the device: what this server counts, and what multusd says of itself and its children.
//!
//! ```text
//! register  what
//! 0, 1      seconds since multusd started
//! 2, 3      seconds since this server started (or read its configuration anew)
//! 4         processor temperature, tenths of a degree Celsius, with sign; 8000h: not known
//! 5, 6, 7   child instances; those that run; those that somebody should look at
//! 8, 9      restarts of all children since multusd started
//! 10        connections
//! 11, 12    requests that were answered
//! 13, 14    those of them that were answered by an exception
//! 15        connections that were refused
//! 16        watchdog: 0 none, 1 alive, 2 the master is lost
//! 17        1: multus-io scans
//! 18, 19    0
//! 20 + 4 n  child n of the configuration: state (code of docs/abi.md; FFFFh: there is no such child)
//!   + 1     1 outputs are held safe, 2 keeps failing
//!   + 2, 3  its restarts
//! ```
//! Two registers are a number with the higher word first; counters of one begin anew after 65535. What multusd has not said
//! for [`STALE`] is answered by exception 04.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use multus_contract::api::command::{Client, Request};
use multus_contract::api::status::Status;
use multus_contract::dirs::{DirFlags, Dirs};

use crate::pdu::Exception;

/// What this server counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) exceptions: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// The serial line is to be served and cannot be.
    pub(crate) is_line_gone: AtomicBool,
}

/// Connections, answers, exceptions, refused connections.
pub(crate) type Counted = [u64; 4];

impl Counters {
    pub(crate) fn counted(&self) -> Counted {
        [&self.connections, &self.answered, &self.exceptions, &self.refused].map(|n| n.load(Ordering::Relaxed))
    }
}

/// What this process knows by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    pub(crate) uptime_s: u64,
    pub(crate) counted: Counted,
    /// Whether the master is lost; `None` without a watchdog.
    pub(crate) watchdog: Option<bool>,
    pub(crate) is_fresh: bool,
}

/// What multusd said last.
#[derive(Debug)]
pub(crate) struct News {
    children: Vec<String>,
    last: Mutex<Option<(Instant, Facts)>>,
}

/// What is told of multusd.
#[derive(Clone, Debug, Default, PartialEq)]
struct Facts {
    uptime_s: u64,
    temperature_c: Option<f64>,
    children: u64,
    running: u64,
    failing: u64,
    restarts: u64,
    /// Of the children of the configuration: state, flags, restarts.
    each: Vec<(u16, u16, u64)>,
}

/// How many registers there are, with so many children.
pub(crate) fn registers(children: usize) -> usize {
    FIXED + 4 * children
}

impl News {
    /// Asks multusd again and again, on a thread of its own, as long as somebody has this.
    ///
    /// # Errors
    /// No thread to be had.
    pub(crate) fn follow(children: &[String]) -> std::io::Result<Arc<Self>> {
        let news = Arc::new(Self { children: children.to_vec(), last: Mutex::new(None) });
        let weak = Arc::downgrade(&news);
        std::thread::Builder::new().name("news".into()).spawn(move || ask(&weak))?;
        Ok(news)
    }

    pub(crate) fn registers(&self, own: &Own) -> Vec<Result<u16, Exception>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let facts = last.as_ref().filter(|(at, _)| at.elapsed() < STALE).map(|(_, facts)| facts);
        lay_out(facts, own, self.children.len())
    }
}

fn lay_out(facts: Option<&Facts>, own: &Own, children: usize) -> Vec<Result<u16, Exception>> {
    let [connections, answered, exceptions, refused] = own.counted;
    let said = |what: fn(&Facts) -> u64| facts.map(what).ok_or(Exception::DeviceFailure);
    let mut all = Vec::with_capacity(registers(children));
    let long = |number: Result<u64, Exception>| [number.map(|n| low(n >> 16)), number.map(low)];
    let short = |number: Result<u64, Exception>| [number.map(low)];
    all.extend(long(said(|f| f.uptime_s)));
    all.extend(long(Ok(own.uptime_s)));
    all.push(facts.map(|f| temperature(f.temperature_c)).ok_or(Exception::DeviceFailure));
    all.extend(short(said(|f| f.children)));
    all.extend(short(said(|f| f.running)));
    all.extend(short(said(|f| f.failing)));
    all.extend(long(said(|f| f.restarts)));
    all.extend(short(Ok(connections)));
    all.extend(long(Ok(answered)));
    all.extend(long(Ok(exceptions)));
    all.extend(short(Ok(refused)));
    all.push(Ok(own.watchdog.map_or(0, |is_lost| 1 + u16::from(is_lost))));
    all.push(Ok(u16::from(own.is_fresh)));
    all.resize(FIXED, Ok(0));
    for child in 0..children {
        let (state, flags, restarts) = match facts {
            Some(facts) => {
                facts.each.get(child).map_or((Ok(NO_CHILD), Ok(0), Ok(0)), |&(s, f, r)| (Ok(s), Ok(f), Ok(r)))
            }
            None => (Err(Exception::DeviceFailure), Err(Exception::DeviceFailure), Err(Exception::DeviceFailure)),
        };
        all.extend([state, flags]);
        all.extend(long(restarts));
    }
    all
}

fn low(number: u64) -> u16 {
    (number & 0xffff) as u16
}

fn temperature(celsius: Option<f64>) -> u16 {
    let tenths = celsius.map(|celsius| (celsius * 10.0).round()).filter(|tenths| tenths.abs() < 32_767.0);
    tenths.map_or(UNKNOWN_TEMPERATURE, |tenths| (tenths as i16).cast_unsigned())
}

fn facts(status: &Status, children: &[String]) -> Facts {
    let all = &status.children;
    let count = |is_so: fn(&multus_contract::api::status::ChildStatus) -> bool| {
        all.iter().filter(|child| is_so(child)).count() as u64
    };
    let each = children.iter().map(|name| {
        all.iter().find(|child| child.name == *name).map_or((NO_CHILD, 0, 0), |child| {
            let state = child.state_code().map_or(NO_CHILD, |state| u16::from(state.code()));
            (state, u16::from(child.safe_state) | u16::from(child.degraded) << 1, child.restarts)
        })
    });
    Facts {
        uptime_s: status.daemon.uptime_s,
        temperature_c: status.daemon.temperature_c,
        children: all.len() as u64,
        running: count(|child| child.state == "running"),
        failing: count(multus_contract::api::status::ChildStatus::is_failing),
        restarts: all.iter().map(|child| child.restarts).sum(),
        each: each.collect(),
    }
}

/// Ends when nobody wants to know any more.
fn ask(news: &Weak<News>) {
    let socket = Dirs::resolve(&DirFlags::default()).control_socket();
    let mut client: Option<Client> = None;
    let mut told = false;
    while let Some(news) = news.upgrade() {
        let connected = match client.take() {
            Some(client) => Ok(client),
            None => Client::connect_within(&socket, PATIENCE),
        };
        let status = connected.and_then(|mut connected| {
            let status = connected.request_as::<Status>(&Request::Status { name: None })?;
            client = Some(connected);
            Ok(status)
        });
        match status {
            Ok(status) => {
                told = false;
                let facts = facts(&status, &news.children);
                *news.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), facts));
            }
            Err(error) if !std::mem::replace(&mut told, true) => {
                log::warn!("registers about the device are not known: {error}; tried again");
            }
            Err(_) => {}
        }
        drop(news);
        std::thread::sleep(TURN);
    }
}

/// Registers before those of children.
const FIXED: usize = 20;
/// The state of a child that is not there, or whose state has no number yet.
const NO_CHILD: u16 = 0xffff;
/// -3276.8 degrees.
const UNKNOWN_TEMPERATURE: u16 = 0x8000;
/// From question to question.
const TURN: Duration = Duration::from_secs(1);
/// How long multusd may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is older is not told any more.
pub(crate) const STALE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use multus_contract::api::status::ChildStatus;

    use super::*;

    #[test]
    fn registers_stand_where_the_table_says() {
        let mut status = Status::default();
        status.daemon.uptime_s = 65_537;
        status.daemon.temperature_c = Some(-1.25);
        let child = |name: &str, state: &str, restarts| ChildStatus {
            name: name.into(),
            state: state.into(),
            restarts,
            ..ChildStatus::default()
        };
        status.children = vec![child("io", "running", 1), child("modbus", "backoff", 70_000)];
        let names = ["modbus", "nobody"].map(str::to_owned);
        let own = Own { uptime_s: 3, counted: [2, 65_536, 5, 65_537], watchdog: Some(true), is_fresh: true };
        let facts = facts(&status, &names);
        let all = lay_out(Some(&facts), &own, 2);
        let expected =
            [1, 1, 0, 3, 0xfff3, 2, 1, 1, 1, 4465, 2, 1, 0, 0, 5, 1, 2, 1, 0, 0, 5, 0, 1, 4464, NO_CHILD, 0, 0, 0];
        let backoff = u16::from(multus_ipc::words::StateCode::Backoff.code());
        let expected: Vec<_> =
            expected.into_iter().enumerate().map(|(i, n)| Ok(if i == 20 { backoff } else { n })).collect();
        assert_eq!(all, expected);
        assert_eq!(all.len(), registers(2));
        let unknown = lay_out(None, &own, 2);
        assert_eq!(unknown.len(), registers(2));
        let known: Vec<usize> = (0..unknown.len()).filter(|at| unknown[*at].is_ok()).collect();
        assert_eq!(known, [2, 3, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
        assert_eq!((temperature(None), temperature(Some(48.25))), (0x8000, 483));
    }
}
