//! What comes in, and the world that effects go out to.

use multus_ipc::MonoNs;
use multus_ipc::checkpoint;
use multus_ipc::heartbeat::RawBeat;
use multus_ipc::words::EventKind;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By this signal; whether a core file was written.
    Signal(i32, bool),
    /// It is no child of the daemon, so the system does not say how.
    Unknown,
}

/// A command that the launcher runs for a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Job {
    /// `[safe_state] command`, after a fault.
    SafeState = 1,
    /// Hook, after the process is gone.
    AfterStop = 2,
    /// Hook, after ready.
    AfterStart = 3,
    /// Hook, every now and then while running.
    Periodic = 4,
    /// `[check]`.
    Check = 5,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobResult {
    /// Exit code 0.
    Good,
    /// Any other exit code.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
    /// Took too long and was killed.
    TimedOut,
    /// Could not be executed; the error number.
    NotStarted(i32),
}

/// What a program says of itself, beside its beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It does not work: treat it as a hang, now.
    Trigger,
    /// Its deadline from now on, ns.
    Deadline(u64),
    /// Starting or stopping may take until so many ns from now.
    Extend(u64),
    /// It is about to end by itself: its silence is no hang for the time that a stop may take.
    Stopping,
    /// Outputs were forced, and it has not put that into force within so many ns: it is multus-io, and does not do its work.
    Unacknowledged(u64),
    /// This process, which was proved to be one of its own, is its main process.
    Main(u32),
    /// It beat with a byte that does not follow the one before.
    ControlByte {
        /// What would have been right, 1 to 9; 0 when any of them.
        expected: u8,
        /// What it was.
        got: u8,
    },
}

/// What the supervisor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The process that was asked for exists.
    Spawned {
        /// Its slot.
        slot: usize,
        /// The generation that was asked for.
        generation: u32,
        /// Its process id.
        pid: u32,
    },
    /// The system could not make a process.
    SpawnFailed {
        /// Its slot.
        slot: usize,
        /// The generation that was asked for.
        generation: u32,
        /// The error number.
        errno: i32,
    },
    /// The process runs the child's program.
    Executed {
        /// Its slot.
        slot: usize,
        /// Its generation.
        generation: u32,
    },
    /// The process could not become the child's program, and is ending.
    ExecFailed {
        /// Its slot.
        slot: usize,
        /// Its generation.
        generation: u32,
        /// The step that failed, as the launcher numbers them.
        step: u8,
        /// The error number.
        errno: i32,
    },
    /// The process has ended; it is not reaped yet. Comes after `Executed` or `ExecFailed`.
    Exited {
        /// Its slot.
        slot: usize,
        /// Its generation.
        generation: u32,
        /// How.
        status: ExitStatus,
    },
    /// Evidence is there, or will not come.
    EvidenceCollected {
        /// Its slot.
        slot: usize,
        /// Its generation.
        generation: u32,
    },
    /// SIGKILL was sent to the whole tree.
    Killed {
        /// Its slot.
        slot: usize,
        /// Its generation.
        generation: u32,
        /// When.
        at: MonoNs,
    },
    /// The last process of the tree is gone and reaped.
    TreeGone {
        /// Its slot.
        slot: usize,
        /// Its generation.
        generation: u32,
        /// When.
        at: MonoNs,
    },
    /// A job ended.
    JobDone {
        /// Its slot.
        slot: usize,
        /// The generation that it ran for.
        generation: u32,
        /// Which.
        job: Job,
        /// How.
        result: JobResult,
    },
    /// A program said something of itself.
    Told {
        /// Its slot.
        slot: usize,
        /// Its generation.
        generation: u32,
        /// What.
        told: Told,
    },
    /// The temperature was read: thousandths of a degree Celsius, `None` when it could not be read.
    Temperature(Option<i32>),
    /// Stop everything, then finish.
    Shutdown,
}

/// What a person asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run.
    Start,
    /// Stop, and stay stopped.
    Stop,
    /// Stop, then run.
    Restart,
    /// Report faults but kill nobody, until this time.
    Snooze(MonoNs),
    /// Forget the child once it is stopped.
    Remove,
}

/// Why a command was not obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such child.
    Unknown,
    /// It is disabled; enable it first.
    Disabled,
    /// The daemon is shutting down.
    ShuttingDown,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "there is no such child",
            Self::Disabled => "it is disabled; enable it first",
            Self::ShuttingDown => "multusd is shutting down",
        })
    }
}

/// Everything outside: pages to look at, and those who carry out effects. All calls return at once; what they start
/// is answered by an [`Event`].
pub trait World {
    /// Last beat of a lane, and a time that is not before the beat of an honest writer.
    fn look(&self, slot: usize, lane: usize, now: MonoNs) -> (RawBeat, MonoNs);
    /// Lanes in use, 1 to 16.
    fn lanes(&self, slot: usize) -> usize;
    /// Whether a lane has left supervision in good order.
    fn has_left(&self, slot: usize, lane: usize) -> bool;
    /// The deadline that the lane brought along, ns.
    fn lane_deadline_ns(&self, slot: usize, lane: usize) -> Option<u64>;
    /// What the child says of its checkpoints.
    fn checkpoints(&self, slot: usize) -> checkpoint::Reader<'_>;
    /// Whether the child said that it is ready.
    fn is_ready(&self, slot: usize) -> bool;
    /// Whether the page still looks like a heartbeat page.
    fn is_whole(&self, slot: usize) -> bool;

    /// Forces the outputs of a slot to their safe values, now; the time when that was done.
    fn force_safe(&mut self, slot: usize) -> MonoNs;
    /// Gives the outputs back to the child.
    fn release_outputs(&mut self, slot: usize);
    /// Makes a process. Answer: `Spawned` or `SpawnFailed`, then `Executed` or `ExecFailed`.
    fn spawn(&mut self, slot: usize, generation: u32);
    /// Finds out what the processes of a child are doing. Answer: `EvidenceCollected`; none when it had `ended`, then
    /// there only is a report to be made.
    fn collect_evidence(&mut self, slot: usize, generation: u32, ended: bool);
    /// Sends the configured stop signal. No answer but `Exited`.
    fn ask_to_stop(&mut self, slot: usize, generation: u32);
    /// Kills the whole tree and reaps it. Answer: `Killed`, `TreeGone`.
    fn kill_tree(&mut self, slot: usize, generation: u32);
    /// Runs a command for a child. Answer: `JobDone`.
    fn run(&mut self, slot: usize, generation: u32, job: Job);
    /// Ends a job that still runs.
    fn cancel_jobs(&mut self, slot: usize);
    /// Something worth telling; `slot` is `None` when it concerns the daemon.
    fn record(&mut self, child: Option<(usize, &crate::Child)>, kind: EventKind, args: [u64; 4]);
    /// The public view of a slot changed.
    fn changed(&mut self, slot: usize);
    /// The slot is free again.
    fn removed(&mut self, slot: usize);
    /// After [`Event::Shutdown`]: no process is left.
    fn finished(&mut self);
}
