//! Both conditions: a quiet machine, and one whose processors are all busy at normal priority.

use std::path::PathBuf;
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::process::{self, Program};
use crate::world::Failure;

/// What else the machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Quiet,
    Loaded,
}

impl Condition {
    pub(crate) const ALL: [Self; 2] = [Self::Quiet, Self::Loaded];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Loaded => "loaded",
        }
    }
}

/// stress-ng, until it is dropped.
#[derive(Debug)]
pub(crate) struct Load {
    stress: Pid,
}

impl Load {
    /// Whether stress-ng is installed.
    pub(crate) fn is_available() -> bool {
        program().is_some()
    }

    /// One busy process for each processor.
    pub(crate) fn start() -> Result<Self, Failure> {
        let program = program().ok_or("stress-ng is not installed")?;
        let processors = processors().to_string();
        let stress = Program::new(&program, &["--cpu", &processors, "--quiet", "--temp-path", "/tmp"])?.spawn()?;
        sleep(Duration::from_secs(2));
        Ok(Self { stress })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It ends its own workers on SIGTERM.
        process::end(self.stress, Signal::SIGTERM);
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("stress-ng")).find(|file| file.is_file())
}

/// Processors of this machine.
pub(crate) fn processors() -> usize {
    available_parallelism().map_or(1, usize::from)
}
