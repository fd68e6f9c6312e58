//! The heartbeat library for C and C++. `ipc/include/multus.h` declares these functions and documents them; here is
//! only the way from C to [`multus_ipc::child`] and [`multus_ipc::io_child`].
//!
//! A pointer of C is an `Option<&T>`, `Option<&mut T>` or `Option<Box<T>>` here: Rust guarantees that these look like
//! a pointer, NULL being `None`. What the header asks of the caller is what these types mean: a pointer is NULL or came
//! from the opening function and was not closed, and one thread at a time uses it. What is left of `unsafe` is the
//! texts, and the names: all begin with `multus_`, so that they are nobody else's.
//!
//! No function here panics; should one do so because of an error of ours, the process ends by SIGABRT (Rust never
//! unwinds into C), which multusd sees as a crash.
#![warn(missing_docs)]

pub mod io;

use std::ffi::{CStr, CString, c_char, c_int};
use std::io::Write as _;
use std::time::Duration;

use multus_ipc::checkpoint::MAX_CHECKPOINTS;
use multus_ipc::child::{self, Checkpoint, Heartbeat};

/// `multus_t`
#[derive(Debug)]
pub struct Multus {
    heartbeat: Heartbeat,
    checkpoints: Found,
    error: Option<CString>,
}

/// `multus_lane_t`
#[derive(Debug)]
pub struct Lane {
    lane: child::Lane,
    checkpoints: Found,
}

/// The checkpoints that were looked up for one lane. Any other number that C hands over is none of this lane.
#[derive(Debug, Default)]
struct Found([Option<Checkpoint>; MAX_CHECKPOINTS]);

impl Found {
    fn note(&mut self, checkpoint: Option<Checkpoint>) -> c_int {
        let Some(place) = checkpoint.and_then(|c| self.0.get_mut(c.index())) else { return -1 };
        *place = checkpoint;
        checkpoint.and_then(|c| c_int::try_from(c.index()).ok()).unwrap_or(-1)
    }

    #[inline]
    fn get(&self, number: c_int) -> Option<Checkpoint> {
        self.0.get(usize::try_from(number).ok()?).copied().flatten()
    }
}

/// `multus_t *multus_open(void)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_open() -> Box<Multus> {
    let (heartbeat, error) = match Heartbeat::try_from_env() {
        Ok(heartbeat) => (heartbeat, None),
        Err(error) => {
            // Nobody listening on standard error is no reason not to work.
            let _ = writeln!(std::io::stderr(), "multus heartbeat: {error}; this process cannot beat");
            (Heartbeat::inert(), Some(text(&error)))
        }
    };
    Box::new(Multus { heartbeat, checkpoints: Found::default(), error })
}

/// `int multus_is_supervised(const multus_t *multus)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_is_supervised(multus: Option<&Multus>) -> c_int {
    multus.is_some_and(|multus| multus.heartbeat.is_supervised()).into()
}

/// `const char *multus_error(const multus_t *multus)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_error(multus: Option<&Multus>) -> *const c_char {
    multus.and_then(|multus| multus.error.as_deref()).map_or(std::ptr::null(), CStr::as_ptr)
}

/// `uint64_t multus_deadline_ns(const multus_t *multus)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_deadline_ns(multus: Option<&Multus>) -> u64 {
    multus.and_then(|multus| multus.heartbeat.deadline()).map_or(0, multus_ipc::time::duration_ns)
}

/// `void multus_beat(multus_t *multus)`
///
/// # Real time
/// As [`Heartbeat::beat`].
#[unsafe(no_mangle)]
pub extern "C" fn multus_beat(multus: Option<&Multus>) {
    if let Some(multus) = multus {
        multus.heartbeat.beat();
    }
}

/// `void multus_ready(multus_t *multus)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_ready(multus: Option<&Multus>) {
    if let Some(multus) = multus {
        multus.heartbeat.ready();
    }
}

/// `void multus_status(multus_t *multus, const char *text)`
///
/// # Safety
/// As [`multus_lane_open`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn multus_status(multus: Option<&Multus>, text: *const c_char) {
    if let Some(multus) = multus {
        // SAFETY: this function asks of its caller what that one asks.
        multus.heartbeat.voice().status(&unsafe { copied(text) });
    }
}

/// `void multus_notice(multus_t *multus, const char *text)`
///
/// # Safety
/// As [`multus_lane_open`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn multus_notice(multus: Option<&Multus>, text: *const c_char) {
    if let Some(multus) = multus {
        // SAFETY: this function asks of its caller what that one asks.
        multus.heartbeat.voice().notice(&unsafe { copied(text) });
    }
}

/// `int multus_checkpoint(multus_t *multus, const char *name)`
///
/// # Safety
/// As [`multus_lane_open`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn multus_checkpoint(multus: Option<&mut Multus>, name: *const c_char) -> c_int {
    let Some(multus) = multus else { return -1 };
    // SAFETY: this function asks of its caller what that one asks.
    let name = unsafe { copied(name) };
    multus.checkpoints.note(multus.heartbeat.checkpoint(&name))
}

/// `void multus_pass(multus_t *multus, int checkpoint)`
///
/// # Real time
/// As [`Heartbeat::pass`].
#[unsafe(no_mangle)]
pub extern "C" fn multus_pass(multus: Option<&Multus>, checkpoint: c_int) {
    if let Some(multus) = multus {
        multus.heartbeat.pass(multus.checkpoints.get(checkpoint));
    }
}

/// `multus_lane_t *multus_lane_open(multus_t *multus, const char *name, uint64_t deadline_ns)`
///
/// # Safety
/// `name` is NULL or a text that ends with a zero byte and does not change during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn multus_lane_open(
    multus: Option<&mut Multus>,
    name: *const c_char,
    deadline_ns: u64,
) -> Option<Box<Lane>> {
    let multus = multus?;
    // SAFETY: this function asks of its caller what that one asks.
    let name = unsafe { copied(name) };
    let deadline = (deadline_ns != 0).then(|| Duration::from_nanos(deadline_ns));
    match multus.heartbeat.lane(&name, deadline) {
        Ok(lane) => Some(Box::new(Lane { lane, checkpoints: Found::default() })),
        Err(error) => {
            multus.error = Some(text(&error));
            None
        }
    }
}

/// `void multus_lane_beat(multus_lane_t *lane)`
///
/// # Real time
/// As [`Heartbeat::beat`].
#[unsafe(no_mangle)]
pub extern "C" fn multus_lane_beat(lane: Option<&Lane>) {
    if let Some(lane) = lane {
        lane.lane.beat();
    }
}

/// `int multus_lane_checkpoint(multus_lane_t *lane, const char *name)`
///
/// # Safety
/// As [`multus_lane_open`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn multus_lane_checkpoint(lane: Option<&mut Lane>, name: *const c_char) -> c_int {
    let Some(lane) = lane else { return -1 };
    // SAFETY: this function asks of its caller what that one asks.
    let name = unsafe { copied(name) };
    lane.checkpoints.note(lane.lane.checkpoint(&name))
}

/// `void multus_lane_pass(multus_lane_t *lane, int checkpoint)`
///
/// # Real time
/// As [`Heartbeat::pass`].
#[unsafe(no_mangle)]
pub extern "C" fn multus_lane_pass(lane: Option<&Lane>, checkpoint: c_int) {
    if let Some(lane) = lane {
        lane.lane.pass(lane.checkpoints.get(checkpoint));
    }
}

/// `void multus_lane_close(multus_lane_t *lane)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_lane_close(lane: Option<Box<Lane>>) {
    drop(lane);
}

/// `void multus_close(multus_t *multus)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_close(multus: Option<Box<Multus>>) {
    drop(multus);
}

/// `const char *multus_version(void)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version has no zero byte"),
    };
    VERSION.as_ptr()
}

/// A copy of a text of C; empty for NULL.
///
/// # Safety
/// `text` is NULL or a text that ends with a zero byte and does not change during the call.
unsafe fn copied(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not NULL; that it ends with a zero byte and stands still is asked of the caller. The borrow ends within
    // this statement, where the text is copied.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// An error as a text of C; a zero byte inside would end it early and is left out.
fn text(error: &std::io::Error) -> CString {
    let bytes: Vec<u8> = error.to_string().into_bytes().into_iter().filter(|byte| *byte != 0).collect();
    CString::new(bytes).unwrap_or_default()
}
