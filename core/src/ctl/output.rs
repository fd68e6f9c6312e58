//! Writing to stdout, and ending with the right exit code.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use multus_contract::api::command::ClientError;
use multus_contract::api::exit;
use serde::Serialize;

use super::view::text::Line;

/// Why a command is not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be said on stderr.
    Message(String),
    /// Everything is said already.
    Said,
    /// Whoever read our output has left.
    PipeClosed,
}

impl Failure {
    /// Says it, if there is something to say, and gives the exit code.
    pub(crate) fn end(self) -> ExitCode {
        match self {
            Self::Message(message) => complain(&message),
            Self::Said => {}
            // Dies of the signal that a plain C program would have died of: shells expect it and stay quiet.
            Self::PipeClosed => {
                let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGPIPE);
            }
        }
        ExitCode::from(exit::FAILED)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Message(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::PipeClosed,
            _ => Self::Message(format!("cannot write the output: {error}")),
        }
    }
}

/// One line on stderr. If even that cannot be written, nobody is there to be told.
pub(crate) fn complain(message: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "multusctl: {message}");
}

/// Writes to stdout and flushes.
pub(crate) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    write(&mut out)?;
    out.flush()?;
    Ok(())
}

/// Writes lines as the terminal wants them.
pub(crate) fn print_lines(lines: &[Line]) -> Result<(), Failure> {
    let colour = has_colour();
    print(|out| lines.iter().try_for_each(|line| writeln!(out, "{}", line.render(colour))))
}

/// Writes a value as JSON, indented for a person and ending with a line end.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Message(error.to_string()))?;
    print(|out| writeln!(out, "{text}"))
}

/// Whether stdout shows colours: a terminal that can, and nobody said no (see no-color.org).
pub(crate) fn has_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdout().is_terminal() && !refused && !dumb
}

/// The columns of the terminal; a file or a pipe has room for everything that is usual.
pub(crate) fn columns() -> usize {
    let told = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|&columns: &usize| columns > 0);
    crate::sys::tty::size(io::stdout())
        .map(|(columns, _)| usize::from(columns))
        .or_else(told)
        .unwrap_or(WITHOUT_TERMINAL)
}

const WITHOUT_TERMINAL: usize = 120;
