//! Both conditions: a quiet machine, and one whose processors are all busy at normal priority.

use std::process::{Child, Command, Stdio};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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
    stress: Child,
}

impl Load {
    /// Whether stress-ng is installed.
    pub(crate) fn is_available() -> bool {
        let version = Command::new("stress-ng").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    }

    /// One busy process for each processor.
    pub(crate) fn start() -> Result<Self, Failure> {
        let stress = Command::new("stress-ng")
            .args(["--cpu", &processors().to_string(), "--quiet", "--temp-path", "/tmp"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        sleep(Duration::from_secs(2));
        Ok(Self { stress })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It ends its own workers on SIGTERM.
        let _ = kill(Pid::from_raw(self.stress.id().cast_signed()), Signal::SIGTERM);
        let _ = self.stress.wait();
    }
}

/// Processors of this machine.
pub(crate) fn processors() -> usize {
    available_parallelism().map_or(1, usize::from)
}
