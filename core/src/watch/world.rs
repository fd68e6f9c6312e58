//! The real world behind the supervisor: pages, rings and descriptors. Every call returns at once.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Poll};
use multus_ipc::event_ring::{self, EventRecord};
use multus_ipc::heartbeat::{LANES, RawBeat, Reader};
use multus_ipc::map::Table;
use multus_ipc::status::{self, DaemonRecord};
use multus_ipc::text::{Name, Text};
use multus_ipc::time::unix_ns;
use multus_ipc::words::{EventKind, FaultKind};
use multus_ipc::{MonoNs, force, histogram};
use multus_supervisor::{Child, Event, ExitStatus, Job, State, Supervisor, World};

use super::publish::SlotView;
use super::source::{Source, short};
use super::{MAX_OUTPUTS, Output, Reply};
use crate::evidence;
use crate::launcher::{Order, exec_failure};
use crate::sys::{self, Usage};
use crate::wake::Wake;

/// Where effects go.
#[derive(Debug)]
pub(super) struct Outlets {
    pub(super) orders: rtrb::Producer<Order>,
    pub(super) replies: rtrb::Producer<Reply>,
    pub(super) evidence: Vec<evidence::WatchEnd>,
    pub(super) wake_launcher: Arc<Wake>,
    pub(super) wake_evidence: Arc<Wake>,
    pub(super) wake_log: Arc<Wake>,
    pub(super) wake_control: Arc<Wake>,
}

#[derive(Debug)]
pub(super) struct Real {
    table: Arc<Table>,
    status: status::Writer<'static>,
    events: event_ring::Writer<'static>,
    force: force::Writer<'static>,
    out: Outlets,
    /// Which evidence thread is in use.
    evidence_in_use: usize,
    slots: Vec<SlotView>,
    processes: Vec<Option<Process>>,
    dirty: Vec<bool>,
    any_dirty: bool,
    overflows: u64,
    launcher_has_work: bool,
    evidence_has_work: bool,
    told: bool,
    recorded: bool,
    finished: bool,
}

#[derive(Debug)]
struct Process {
    generation: u32,
    pidfd: OwnedFd,
    report: Option<OwnedFd>,
    /// The poll did not take it (a limit of the system): it is asked at every tick instead.
    unpolled: bool,
}

impl Real {
    pub(super) fn new(
        table: Arc<Table>,
        status: status::Writer<'static>,
        events: event_ring::Writer<'static>,
        force: force::Writer<'static>,
        out: Outlets,
    ) -> Self {
        let slots = table.slots() - 1;
        Self {
            table,
            status,
            events,
            force,
            out,
            evidence_in_use: 0,
            slots: (0..slots).map(|_| SlotView::default()).collect(),
            processes: (0..slots).map(|_| None).collect(),
            dirty: vec![false; slots],
            any_dirty: false,
            overflows: 0,
            launcher_has_work: false,
            evidence_has_work: false,
            told: false,
            recorded: false,
            finished: false,
        }
    }

    /// The page of the daemon's own threads.
    pub(super) fn own_page(&self) -> Reader<'_> {
        Reader::new(self.table.page(self.slots.len()))
    }

    fn page(&self, slot: usize) -> Reader<'_> {
        Reader::new(self.table.page(slot))
    }

    // ---- processes ------------------------------------------------------------------------------------------------

    /// Watches a new process and its way to exec.
    pub(super) fn adopt(&mut self, slot: usize, generation: u32, pidfd: OwnedFd, report: OwnedFd, poll: &Poll) {
        let generation = short(generation);
        let registry = poll.registry();
        let exec = Source::Exec { slot, generation }.token();
        let exit = Source::Exit { slot, generation }.token();
        let polled = registry.register(&mut SourceFd(&report.as_raw_fd()), exec, Interest::READABLE).is_ok()
            & registry.register(&mut SourceFd(&pidfd.as_raw_fd()), exit, Interest::READABLE).is_ok();
        self.processes[slot] = Some(Process { generation, pidfd, report: Some(report), unpolled: !polled });
    }

    /// Nothing is left of a process.
    pub(super) fn abandon(&mut self, slot: usize, generation: u32, poll: &Poll) {
        if let Some(process) = self.processes[slot].take_if(|p| p.generation == short(generation)) {
            let _ = poll.registry().deregister(&mut SourceFd(&process.pidfd.as_raw_fd()));
            if let Some(report) = process.report {
                let _ = poll.registry().deregister(&mut SourceFd(&report.as_raw_fd()));
            }
        }
    }

    /// What became of exec; `None` when that is not decided yet, or was told before.
    pub(super) fn exec_report(&mut self, slot: usize, generation: u32, poll: &Poll) -> Option<Event> {
        let process = self.processes[slot].as_mut().filter(|p| p.generation == generation)?;
        let report = process.report.as_ref()?;
        let failure = exec_failure(report);
        if failure.is_none() && !is_closed(report) {
            return None;
        }
        let _ = poll.registry().deregister(&mut SourceFd(&report.as_raw_fd()));
        process.report = None;
        let generation = self.slots[slot].generation;
        Some(match failure {
            Some((step, errno)) => Event::ExecFailed { slot, generation, step, errno },
            None => Event::Executed { slot, generation },
        })
    }

    /// How a process ended; `None` while it lives.
    pub(super) fn exit_status(&self, slot: usize, generation: u32) -> Option<ExitStatus> {
        let process = self.processes[slot].as_ref().filter(|p| p.generation == generation)?;
        sys::exit_status(process.pidfd.as_fd()).ok().flatten()
    }

    /// The generation of a process that the poll does not watch.
    pub(super) fn unpolled(&self, slot: usize) -> Option<u32> {
        self.processes[slot].as_ref().filter(|p| p.unpolled).map(|p| p.generation)
    }

    /// Keeps what the process used, and tells about processes that outlived it.
    pub(super) fn account(&mut self, slot: usize, child: Option<&Child>, usage: Usage, leftovers: u32) {
        let Some(child) = child else { return };
        let micros = |d: std::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let args = [micros(usage.user), micros(usage.system), usage.max_rss_kib, u64::from(leftovers)];
        if leftovers > 0 {
            self.record(Some((slot, child)), EventKind::LeftoversKilled, [u64::from(leftovers), 0, 0, 0]);
        }
        self.record(Some((slot, child)), EventKind::Reaped, args);
    }

    // ---- outputs --------------------------------------------------------------------------------------------------

    /// Names a slot and its outputs.
    pub(super) fn define(&mut self, slot: usize, name: Name, instance: u32, outputs: &[Output], now: MonoNs) {
        let Some(view) = self.slots.get_mut(slot) else { return };
        if view.name != name {
            *view = SlotView::default();
        }
        view.name = name;
        view.instance = instance;
        view.outputs = outputs.len();
        for place in 0..MAX_OUTPUTS {
            let entry = slot * MAX_OUTPUTS + place;
            match outputs.get(place) {
                Some(output) => self.force.define(entry, &output.name, output.value, slot as u32, now),
                None => self.force.clear(entry),
            }
        }
        self.changed(slot);
    }

    /// Forces or releases the outputs of a slot as its child is.
    pub(super) fn force_as(&mut self, slot: usize, child: Option<&Child>, now: MonoNs) {
        self.set_forced(slot, child.is_none_or(Child::is_safe), now);
    }

    fn set_forced(&mut self, slot: usize, forced: bool, now: MonoNs) {
        let outputs = self.slots[slot].outputs;
        for place in 0..outputs {
            self.force.set_forced(slot * MAX_OUTPUTS + place, forced, now);
        }
        if outputs > 0 {
            self.force.announce();
        }
    }

    // ---- evidence -------------------------------------------------------------------------------------------------

    /// The next piece of evidence.
    pub(super) fn evidence(&mut self) -> Option<evidence::Found> {
        self.out.evidence.get_mut(self.evidence_in_use)?.found.pop().ok()
    }

    /// From now on the next spare collects.
    pub(super) fn next_evidence(&mut self) {
        self.evidence_in_use += 1;
    }

    /// Puts evidence into the status and the record of events.
    pub(super) fn keep_evidence(&mut self, found: &evidence::Found, child: Option<&Child>) {
        let Some(child) = child.filter(|c| c.generation() == found.generation) else { return };
        self.slots[found.slot].evidence = found.text;
        self.changed(found.slot);
        self.record(Some((found.slot, child)), EventKind::Evidence, [found.looks_like as u64, 0, 0, 0]);
    }

    // ---- telling --------------------------------------------------------------------------------------------------

    /// Tells the control thread something.
    pub(super) fn tell(&mut self, reply: Reply) {
        if self.out.replies.push(reply).is_err() {
            self.overflows += 1;
        }
        self.told = true;
    }

    /// Wakes those for whom there is something.
    pub(super) fn wake_others(&mut self) {
        if std::mem::take(&mut self.launcher_has_work) {
            self.out.wake_launcher.wake();
        }
        if std::mem::take(&mut self.evidence_has_work) {
            self.out.wake_evidence.wake();
        }
        let recorded = std::mem::take(&mut self.recorded);
        if recorded {
            self.out.wake_log.wake();
        }
        if recorded | std::mem::take(&mut self.told) {
            self.out.wake_control.wake();
        }
    }

    /// Writes the records of the slots that changed.
    pub(super) fn publish(&mut self, supervisor: &Supervisor) {
        if !std::mem::take(&mut self.any_dirty) {
            return;
        }
        for slot in 0..self.slots.len() {
            if std::mem::take(&mut self.dirty[slot]) {
                self.status.slot(slot, &self.slots[slot].record(supervisor.child(slot)));
            }
        }
    }

    /// Brings the beat statistics of a slot up to date.
    ///
    /// # Real time
    /// Two passes over 232 buckets.
    pub(super) fn statistics(&mut self, slot: usize) {
        if !self.slots[slot].watched {
            return;
        }
        let page = Reader::new(self.table.page(slot));
        let max = page.max_gap_ns(0);
        let bucket = |b| page.bucket(0, b);
        let percentile = |p| histogram::percentile(bucket, p, max).unwrap_or(0);
        self.slots[slot].interval_ns = [percentile(500), percentile(990), max];
        self.changed(slot);
    }

    pub(super) fn publish_daemon(&mut self, record: &mut DaemonRecord) {
        record.next_event = self.events.next_seq();
        record.queue_overflows = self.overflows;
        self.status.daemon(record);
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    pub(super) fn set_finished(&mut self) {
        self.record(None, EventKind::DaemonStopped, [0; 4]);
        self.finished = true;
    }

    /// Something that is wanted is not had. Before the loop is armed.
    pub(super) fn record_reduced(&mut self, sentence: &str) {
        let text = Text::new(sentence);
        let (mono, unix) = (MonoNs::now().0, unix_ns());
        self.events.push(&EventRecord { mono, unix, text, ..EventRecord::new(EventKind::Reduced) });
        self.recorded = true;
    }

    /// The name of the lane that an event is about, when it is a further one.
    fn lane_of(&self, slot: usize, child: &Child, kind: EventKind, args: [u64; 4]) -> Text<4> {
        let about = match kind {
            EventKind::Warned => true,
            EventKind::Fault => child
                .fault()
                .is_some_and(|f| matches!(f.kind, FaultKind::Hang | FaultKind::Runaway | FaultKind::CorruptHeartbeat)),
            _ => false,
        };
        match usize::try_from(args[2]) {
            Ok(lane) if about && (1..LANES).contains(&lane) => self.page(slot).lane_name(lane),
            _ => Text::EMPTY,
        }
    }

    fn order(&mut self, order: Order) {
        // The ring has room for several orders for every slot; a launcher that lets it run full is stuck, which its
        // silence will show. The supervisor repeats what matters.
        if self.out.orders.push(order).is_err() {
            self.overflows += 1;
        }
        self.launcher_has_work = true;
    }
}

impl World for Real {
    fn look(&self, slot: usize, lane: usize, now: MonoNs) -> (RawBeat, MonoNs) {
        let raw = self.page(slot).look(lane);
        // A beat made after `now` was read is no beat of the future.
        let seen = if raw.time > now { MonoNs::now() } else { now };
        (raw, seen)
    }

    fn lanes(&self, slot: usize) -> usize {
        self.page(slot).lanes()
    }

    fn has_left(&self, slot: usize, lane: usize) -> bool {
        self.page(slot).has_left(lane)
    }

    fn lane_deadline_ns(&self, slot: usize, lane: usize) -> Option<u64> {
        self.page(slot).lane_deadline_ns(lane)
    }

    fn is_ready(&self, slot: usize) -> bool {
        self.page(slot).is_ready()
    }

    fn is_whole(&self, slot: usize) -> bool {
        self.page(slot).validate().is_ok()
    }

    fn force_safe(&mut self, slot: usize) -> MonoNs {
        let now = MonoNs::now();
        self.set_forced(slot, true, now);
        MonoNs::now()
    }

    fn release_outputs(&mut self, slot: usize) {
        self.set_forced(slot, false, MonoNs::now());
    }

    fn spawn(&mut self, slot: usize, generation: u32) {
        self.slots[slot].begin(generation);
        self.order(Order::Spawn { slot, generation });
    }

    fn collect_evidence(&mut self, slot: usize, generation: u32) {
        let view = &self.slots[slot];
        let case = evidence::Case { slot, generation, pid: view.pid, name: view.name, last_beat: view.fault_last_beat };
        let end = self.out.evidence.get_mut(self.evidence_in_use);
        if end.is_none_or(|end| end.cases.push(case).is_err()) {
            self.overflows += 1;
        }
        self.evidence_has_work = true;
    }

    fn ask_to_stop(&mut self, slot: usize, generation: u32) {
        self.order(Order::Stop { slot, generation });
    }

    fn kill_tree(&mut self, slot: usize, generation: u32) {
        self.order(Order::Kill { slot, generation });
    }

    fn run(&mut self, slot: usize, generation: u32, job: Job) {
        self.order(Order::Run { slot, generation, job });
    }

    fn cancel_jobs(&mut self, slot: usize) {
        self.order(Order::CancelJobs { slot });
    }

    fn record(&mut self, child: Option<(usize, &Child)>, kind: EventKind, args: [u64; 4]) {
        let lane = child.map_or(Text::EMPTY, |(slot, child)| self.lane_of(slot, child, kind, args));
        let mut event = EventRecord { mono: MonoNs::now().0, unix: unix_ns(), args, ..EventRecord::new(kind) };
        if let Some((slot, child)) = child {
            let view = &mut self.slots[slot];
            view.take(child);
            event.name = view.name;
            event.instance = view.instance;
            event.generation = child.generation();
            event.pid = child.pid();
            // Evidence of a child that runs on was collected for a warning, and is not about an earlier fault.
            let warning = kind == EventKind::Evidence && matches!(child.state(), State::Running { .. });
            if warning {
                event.text = view.evidence;
            }
            if let Some(fault) = child.fault().filter(|_| about_a_fault(kind) && !warning) {
                event.fault = Some(fault.kind);
                event.times = fault.times;
                event.granted_ns = fault.granted_ns;
                if kind == EventKind::Fault {
                    view.fault_lane = lane;
                    view.new_fault(fault, event.unix);
                    // A fault of a snoozed child is marked, for the text.
                    event.args[3] |= u64::from(fault.snoozed) << 63;
                }
                if kind == EventKind::Evidence {
                    event.text = view.evidence;
                }
            }
        }
        if !lane.is_empty() {
            event.text = lane.resized();
        }
        self.events.push(&event);
        self.recorded = true;
    }

    fn changed(&mut self, slot: usize) {
        self.dirty[slot] = true;
        self.any_dirty = true;
    }

    fn removed(&mut self, slot: usize) {
        for place in 0..MAX_OUTPUTS {
            self.force.clear(slot * MAX_OUTPUTS + place);
        }
        self.slots[slot] = SlotView::default();
        self.tell(Reply::Removed { slot });
    }

    fn finished(&mut self) {
        self.order(Order::Finish);
    }
}

fn about_a_fault(kind: EventKind) -> bool {
    matches!(kind, EventKind::Fault | EventKind::Evidence | EventKind::Recovered | EventKind::Degraded)
}

/// Whether the other end of a pipe is closed and nothing is left in it.
fn is_closed(pipe: &OwnedFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok()
        && fds[0].revents().is_some_and(|r| r.contains(PollFlags::POLLHUP) && !r.contains(PollFlags::POLLIN))
}
