//! The terminal while the live view has it: alternate screen, single keys, no cursor; and given back in every case.
//!
//! It is given back when the value is dropped, when a thread panics (also where a panic aborts) and before the process stops or ends by
//! a signal that can be caught. All that is written goes out in one piece, so that the screen does not flicker.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// The terminal, ours until it is dropped.
#[derive(Debug)]
pub(crate) struct Terminal(());

impl Terminal {
    /// Takes the terminal behind stdin and stdout.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn take() -> io::Result<Self> {
        take_over()?;
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // First, so that the message is seen on the ordinary screen.
            give_back();
            before(panic);
        }));
        Ok(Self(()))
    }

    /// Gives the terminal back, stops this process as Ctrl-Z does, and takes the terminal again when it goes on.
    pub(crate) fn suspend(&self) -> io::Result<()> {
        give_back();
        // SIGSTOP and not SIGTSTP, which has a handler here.
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP)?;
        take_over()
    }

    /// After somebody else stopped this process: the shell may have changed everything.
    pub(crate) fn take_again(&self) -> io::Result<()> {
        give_back();
        take_over()
    }

    /// Replaces what is on the screen. `text` has one line for each row.
    pub(crate) fn show(&self, text: &str) -> io::Result<()> {
        let mut out = String::with_capacity(text.len() + 256);
        out.push_str(BEGIN_FRAME);
        for (row, line) in text.split('\n').enumerate() {
            if row > 0 {
                out.push_str("\r\n");
            }
            out.push_str(line);
            out.push_str(CLEAR_TO_END_OF_LINE);
        }
        out.push_str(CLEAR_BELOW);
        out.push_str(END_FRAME);
        write(&out)
    }

    /// Waits for keys, `patience` at most: what was typed, nothing, or `None` when the terminal is gone.
    pub(crate) fn read(&self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        let stdin = io::stdin();
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(Some(Vec::new())),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        // Not through the buffer of `stdin`: poll knows only what the kernel has.
        let mut bytes = [0; 256];
        match nix::unistd::read(stdin.as_fd(), &mut bytes) {
            Ok(0) => Ok(None),
            Ok(count) => Ok(Some(bytes[..count].to_vec())),
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(Some(Vec::new())),
            // The window was closed.
            Err(Errno::EIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// How the terminal was set before; `None` while it is not ours.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

fn take_over() -> io::Result<()> {
    let before = tcgetattr(io::stdin())?;
    let mut raw = before.clone();
    cfmakeraw(&mut raw);
    tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &raw)?;
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    write(ENTER)
}

fn give_back() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // If the terminal is gone, nobody is left to be served better.
        let _ = write(LEAVE);
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &before);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

// Control sequences of xterm, which every terminal in use follows.
/// Alternate screen, no cursor, no line wrap.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[0m\x1b[?1049l";
/// Synchronized output, where the terminal knows it, and home.
const BEGIN_FRAME: &str = "\x1b[?2026h\x1b[H";
const END_FRAME: &str = "\x1b[?2026l";
const CLEAR_TO_END_OF_LINE: &str = "\x1b[0m\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
