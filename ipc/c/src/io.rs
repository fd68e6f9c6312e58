//! From C to [`multus_ipc::io_child`]; documented in the header, in the manner of the crate.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io::Write as _;
use std::time::Duration;

use multus_ipc::io_child::{Io, Line, Output};

use crate::{copied, text};

/// `multus_io_t`
#[derive(Debug)]
pub struct MultusIo {
    io: Io,
    lines: Vec<Known>,
    error: Option<CString>,
}

/// A line that was looked up; its number in C is its place in the list.
#[derive(Debug)]
struct Known {
    line: Line,
    output: Option<Output>,
}

/// `multus_reading_t`
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Reading {
    value: f64,
    raw: u64,
    changed_ns: u64,
    good_ns: u64,
    changes: u64,
    is_good: c_int,
    is_forced: c_int,
}

/// `multus_io_t *multus_io_open(void)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_io_open() -> Box<MultusIo> {
    let (io, error) = match Io::try_from_env() {
        Ok(io) => (io, None),
        Err(error) => {
            // Nobody listening on standard error is no reason not to work.
            let _ = writeln!(std::io::stderr(), "multus io: {error}; this process sees no lines");
            (Io::none(), Some(text(&error)))
        }
    };
    Box::new(MultusIo { io, lines: Vec::new(), error })
}

/// `const char *multus_io_error(const multus_io_t *io)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_io_error(io: Option<&MultusIo>) -> *const c_char {
    io.and_then(|io| io.error.as_deref()).map_or(std::ptr::null(), CStr::as_ptr)
}

/// `int multus_io_line(multus_io_t *io, const char *name)`
///
/// # Safety
/// `name` is NULL or a text that ends with a zero byte and does not change during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn multus_io_line(io: Option<&mut MultusIo>, name: *const c_char) -> c_int {
    let Some(io) = io else { return -1 };
    // SAFETY: this function asks of its caller what that one asks.
    let name = unsafe { copied(name) };
    let known = io.lines.iter().position(|known| known.line.name() == name);
    let place = known.or_else(|| {
        io.lines.push(Known { line: io.io.line(&name)?, output: io.io.output(&name) });
        Some(io.lines.len() - 1)
    });
    place.and_then(|place| c_int::try_from(place).ok()).unwrap_or(-1)
}

/// `double multus_io_value(const multus_io_t *io, int line)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_io_value(io: Option<&MultusIo>, line: c_int) -> f64 {
    known(io, line).map_or(f64::NAN, |known| known.line.value())
}

/// `int multus_io_read(const multus_io_t *io, int line, multus_reading_t *reading)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_io_read(io: Option<&MultusIo>, line: c_int, reading: Option<&mut Reading>) -> c_int {
    let Some(known) = known(io, line) else { return -1 };
    let found = known.line.read();
    if let Some(reading) = reading {
        *reading = Reading {
            value: found.value,
            raw: found.raw,
            changed_ns: found.changed.0,
            good_ns: found.good.0,
            changes: found.changes,
            is_good: found.is_good.into(),
            is_forced: found.is_forced.into(),
        };
    }
    found.is_good.into()
}

/// `int multus_io_set(multus_io_t *io, int line, double value)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_io_set(io: Option<&mut MultusIo>, line: c_int, value: f64) -> c_int {
    let Some(io) = io else { return -1 };
    let result = match known(Some(io), line) {
        None => Err("there is no such line".to_owned()),
        Some(Known { output: None, line }) => Err(format!("{} is no output", line.name())),
        Some(Known { output: Some(output), .. }) => output.set(value).map_err(|error| error.to_string()),
    };
    match result {
        Ok(()) => 0,
        Err(message) => {
            io.error = Some(text(&std::io::Error::other(message)));
            -1
        }
    }
}

/// `uint64_t multus_io_changes(const multus_io_t *io)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_io_changes(io: Option<&MultusIo>) -> u64 {
    io.map_or(0, |io| io.io.changes())
}

/// `uint64_t multus_io_wait(const multus_io_t *io, uint64_t seen, uint64_t timeout_ns)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_io_wait(io: Option<&MultusIo>, seen: u64, timeout_ns: u64) -> u64 {
    io.map_or(0, |io| io.io.wait_change(seen, Duration::from_nanos(timeout_ns)))
}

/// `void multus_io_close(multus_io_t *io)`
#[unsafe(no_mangle)]
pub extern "C" fn multus_io_close(io: Option<Box<MultusIo>>) {
    drop(io);
}

fn known(io: Option<&MultusIo>, line: c_int) -> Option<&Known> {
    io?.lines.get(usize::try_from(line).ok()?)
}
