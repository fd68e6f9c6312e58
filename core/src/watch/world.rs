//! The real world behind the supervisor: pages, rings and descriptors. Every call returns at once.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Poll};
use multus_ipc::event_ring::{self, EventRecord};
use multus_ipc::heartbeat::{LANES, RawBeat, Reader};
use multus_ipc::map::Table;
use multus_ipc::status::{self, DaemonRecord};
use multus_ipc::text::{Name, Text};
use multus_ipc::time::unix_ns;
use multus_ipc::words::{EventKind, FaultKind};
use multus_ipc::{MonoNs, checkpoint, force, futex, histogram};
use multus_supervisor::{Child, Event, ExitStatus, Job, State, Supervisor, Told, World};

use super::publish::SlotView;
use super::source::{Source, short};
use super::{MAX_OUTPUTS, Output, Reply};
use crate::adapters::{Attention, Main};
use crate::launcher::plan::Step;
use crate::launcher::{Order, exec_failure};
use crate::sys::{self, Usage};
use crate::wake::Wake;
use crate::{evidence, guard};

/// Where effects go.
#[derive(Debug)]
pub(super) struct Outlets {
    pub(super) orders: rtrb::Producer<Order>,
    pub(super) attention: Arc<Attention>,
    pub(super) wake_adapters: Arc<Wake>,
    pub(super) replies: rtrb::Producer<Reply>,
    pub(super) evidence: Vec<evidence::WatchEnd>,
    pub(super) wake_launcher: Arc<Wake>,
    pub(super) wake_evidence: Arc<Wake>,
    pub(super) wake_log: Arc<Wake>,
    pub(super) wake_control: Arc<Wake>,
    pub(super) guard: rtrb::Producer<(guard::Order, MonoNs)>,
    pub(super) wake_guard: Arc<Wake>,
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
    /// Some process has ended that may have named another one before.
    any_held: bool,
    finished: bool,
}

#[derive(Debug)]
struct Process {
    generation: u32,
    pidfd: OwnedFd,
    report: Option<OwnedFd>,
    /// The poll did not take it (a limit of the system): it is asked at every tick instead.
    unpolled: bool,
    /// It may name another process as its main process.
    names_main: bool,
    /// Which it did.
    main: Option<OwnedFd>,
    held: Held,
}

/// Whether the end of a process waits for what it may have said before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// It has not ended well.
    No,
    /// Until this request for attention was heard, or this time.
    Until(u64, MonoNs),
    /// That is over.
    Over,
}

/// So long at most; the adapters thread answers within microseconds.
const HELD_AT_MOST: Duration = Duration::from_secs(1);

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
            any_held: false,
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
    pub(super) fn adopt(
        &mut self,
        (slot, generation): (usize, u32),
        pidfd: OwnedFd,
        report: OwnedFd,
        names_main: bool,
        poll: &Poll,
    ) {
        let generation = short(generation);
        let registry = poll.registry();
        let exec = Source::Exec { slot, generation }.token();
        let exit = Source::Exit { slot, generation }.token();
        let polled = registry.register(&mut SourceFd(&report.as_raw_fd()), exec, Interest::READABLE).is_ok()
            & registry.register(&mut SourceFd(&pidfd.as_raw_fd()), exit, Interest::READABLE).is_ok();
        let (report, unpolled) = (Some(report), !polled);
        let (main, held) = (None, Held::No);
        self.processes[slot] = Some(Process { generation, pidfd, report, unpolled, names_main, main, held });
    }

    /// Watches another process as the main one of a slot, from now on.
    pub(super) fn adopt_main(&mut self, slot: usize, generation: u32, main: Main, poll: &Poll) -> Option<Event> {
        let process = self.processes[slot].as_mut().filter(|p| p.generation == short(generation))?;
        let exit = Source::Exit { slot, generation: process.generation }.token();
        let polled = poll.registry().register(&mut SourceFd(&main.pidfd.as_raw_fd()), exit, Interest::READABLE);
        process.unpolled |= polled.is_err();
        if let Some(before) = process.main.replace(main.pidfd) {
            let _ = poll.registry().deregister(&mut SourceFd(&before.as_raw_fd()));
        }
        process.held = Held::No;
        self.order(Order::Main { slot, generation, pidfd: main.for_launcher });
        Some(Event::Told { slot, generation, told: Told::Main(main.pid.unsigned_abs()) })
    }

    /// Nothing is left of a process.
    pub(super) fn abandon(&mut self, slot: usize, generation: u32, poll: &Poll) {
        if let Some(process) = self.processes[slot].take_if(|p| p.generation == short(generation)) {
            let _ = poll.registry().deregister(&mut SourceFd(&process.pidfd.as_raw_fd()));
            for other in [process.report, process.main].into_iter().flatten() {
                let _ = poll.registry().deregister(&mut SourceFd(&other.as_raw_fd()));
            }
        }
    }

    /// What became of exec, and the main process that a stage found; `None` when that is not decided yet, or was told
    /// before.
    pub(super) fn exec_report(&mut self, slot: usize, generation: u32, poll: &Poll) -> Option<(Event, Option<Event>)> {
        let process = self.processes[slot].as_mut().filter(|p| p.generation == generation)?;
        let report = process.report.as_ref()?;
        let failure = exec_failure(report);
        if failure.is_none() && !is_closed(report) {
            return None;
        }
        let _ = poll.registry().deregister(&mut SourceFd(&report.as_raw_fd()));
        process.report = None;
        let generation = self.slots[slot].generation;
        let exited = |status| (Event::Exited { slot, generation, status }, None);
        let executed = Event::Executed { slot, generation };
        Some(match failure {
            None | Some((0, ..=0)) => (executed, None),
            Some((0, pid)) => (executed, Some(Event::Told { slot, generation, told: Told::Main(pid.unsigned_abs()) })),
            Some((step, code)) if step == Step::StartEnded as u8 => exited(ExitStatus::Code(code)),
            Some((step, signal)) if step == Step::StartKilled as u8 => exited(ExitStatus::Signal(signal, false)),
            Some((step, errno)) => (Event::ExecFailed { slot, generation, step, errno }, None),
        })
    }

    /// How a process ended; `None` while it lives, or the main process that it named.
    pub(super) fn exit_status(&mut self, slot: usize, generation: u32) -> Option<ExitStatus> {
        let process = self.processes[slot].as_mut().filter(|p| p.generation == generation)?;
        if let Some(main) = process.main.as_ref().filter(|main| sys::has_ended(main.as_fd())) {
            return Some(sys::exit_status(main.as_fd()).ok().flatten().unwrap_or(ExitStatus::Unknown));
        }
        let status = sys::exit_status(process.pidfd.as_fd()).ok().flatten()?;
        if status != ExitStatus::Code(0) || !process.names_main {
            return Some(status);
        }
        // Whoever goes to the background names its main process and ends well: that is no crash.
        match process.held {
            _ if process.main.is_some() => None,
            Held::Over => Some(status),
            Held::Until(..) => None,
            Held::No => {
                process.held = Held::Until(self.out.attention.ask(), MonoNs::now().after(HELD_AT_MOST));
                self.any_held = true;
                self.out.wake_adapters.wake();
                None
            }
        }
    }

    /// What was heard of the attention that was asked for. Before the reports are taken out.
    pub(super) fn heard(&self) -> u64 {
        self.out.attention.heard()
    }

    /// The generation of a process whose end need not wait any longer. After the reports were taken out.
    pub(super) fn no_longer_held(&mut self, heard: u64, now: MonoNs) -> Option<(usize, u32)> {
        if !self.any_held {
            return None;
        }
        for (slot, process) in self.processes.iter_mut().enumerate() {
            let Some(process) = process else { continue };
            if let Held::Until(number, until) = process.held
                && (heard >= number || now >= until)
            {
                process.held = Held::Over;
                return Some((slot, process.generation));
            }
        }
        self.any_held = self.processes.iter().flatten().any(|p| matches!(p.held, Held::Until(..)));
        None
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
            self.force.define_owner(slot, &name, now);
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

    /// Holds an output at a value for a person, or no longer.
    pub(super) fn hold(&mut self, place: usize, output: Option<Output>, now: MonoNs) {
        let entry = self.slots.len() * MAX_OUTPUTS + place;
        match output {
            Some(output) => self.force.define(entry, &output.name, output.value, force::OPERATOR, now),
            None => self.force.clear(entry),
        }
        self.announce_force();
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
        self.force.set_owner_forced(slot, forced, now);
        self.announce_force();
    }

    /// multus-io is woken at once: it writes before anything else is done about a fault.
    ///
    /// # Real time
    /// A store and a system call that does not block.
    fn announce_force(&mut self) {
        self.force.announce();
        futex::wake_all(self.force.change_word());
    }

    /// The change counter of the force page.
    pub(super) fn force_changes(&self) -> u64 {
        self.force.changes()
    }

    /// An order to the guard of the outputs.
    pub(super) fn guard(&mut self, order: guard::Order, now: MonoNs) {
        if self.out.guard.push((order, now)).is_err() {
            self.overflows += 1;
        }
        self.out.wake_guard.wake();
    }

    /// Ends a process at once, whatever else is done about it later.
    ///
    /// # Real time
    /// A system call that does not block.
    pub(super) fn kill_now(&self, slot: usize) {
        let Some(process) = self.processes.get(slot).and_then(Option::as_ref) else { return };
        for pidfd in [Some(&process.pidfd), process.main.as_ref()].into_iter().flatten() {
            let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
        }
    }

    /// An event that names an output.
    pub(super) fn record_output(&mut self, kind: EventKind, name: &Text<4>, value: f64) {
        let (mono, unix, args) = (MonoNs::now().0, unix_ns(), [value.to_bits(), 0, 0, 0]);
        self.events.push(&EventRecord { mono, unix, args, text: name.resized(), ..EventRecord::new(kind) });
        self.recorded = true;
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
        self.record_saying(EventKind::Reduced, 0, Text::new(sentence));
    }

    /// Something of the daemon itself, in a sentence.
    pub(super) fn record_saying(&mut self, kind: EventKind, arg: u64, text: Text<24>) {
        let (mono, unix) = (MonoNs::now().0, unix_ns());
        self.events.push(&EventRecord { mono, unix, text, args: [arg, 0, 0, 0], ..EventRecord::new(kind) });
        self.recorded = true;
    }

    /// What a child tells.
    pub(super) fn record_notice(&mut self, slot: usize, child: Option<&Child>, text: Text<24>, left_out: u64) {
        let (Some(view), Some(child)) = (self.slots.get(slot), child) else { return };
        self.events.push(&EventRecord {
            mono: MonoNs::now().0,
            unix: unix_ns(),
            name: view.name,
            instance: view.instance,
            generation: child.generation(),
            pid: child.pid(),
            args: [left_out, 0, 0, 0],
            text,
            ..EventRecord::new(EventKind::Notice)
        });
        self.recorded = true;
    }

    /// What an event is about: the name of the lane when it is a further one, or two checkpoints.
    fn about(&self, slot: usize, child: &Child, kind: EventKind, args: [u64; 4]) -> Text<8> {
        let page = self.page(slot);
        let number = |arg: u64| usize::try_from(arg).unwrap_or(usize::MAX);
        let lane = || match number(args[2]) {
            lane if (1..LANES).contains(&lane) => page.lane_name(lane).resized(),
            _ => Text::EMPTY,
        };
        match (kind, child.fault().map(|f| f.kind)) {
            (EventKind::Warned, _) => lane(),
            (EventKind::Fault, Some(FaultKind::Hang | FaultKind::Runaway | FaultKind::CorruptHeartbeat)) => lane(),
            (EventKind::Fault, Some(FaultKind::CheckpointOrder)) => {
                let name = |arg: u64| page.checkpoints().name(number(arg.wrapping_sub(1)));
                arrow(&if args[0] == 0 { Text::new("the beginning") } else { name(args[0]) }, &name(args[1]))
            }
            (EventKind::Fault, Some(FaultKind::CheckpointEarly | FaultKind::CheckpointLate)) => {
                let checkpoints = page.checkpoints();
                match checkpoints.ends(number(args[2])) {
                    Some((from, to)) => arrow(&checkpoints.name(from), &checkpoints.name(to)),
                    None => Text::EMPTY,
                }
            }
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

    fn checkpoints(&self, slot: usize) -> checkpoint::Reader<'_> {
        self.page(slot).checkpoints()
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

    fn collect_evidence(&mut self, slot: usize, generation: u32, ended: bool) {
        let view = &self.slots[slot];
        let case = evidence::Case {
            slot,
            generation,
            pid: view.pid,
            name: view.name,
            last_beat: view.fault_last_beat,
            detected: view.evidence_about,
            silent: view.evidence_of_silence,
            ended,
        };
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
        let about = child.map_or(Text::EMPTY, |(slot, child)| self.about(slot, child, kind, args));
        let mut event = EventRecord { mono: MonoNs::now().0, unix: unix_ns(), args, ..EventRecord::new(kind) };
        if let Some((slot, child)) = child {
            let view = &mut self.slots[slot];
            view.take(child);
            if kind == EventKind::Warned {
                view.fault_last_beat = child.main_lane().last().0;
                view.evidence_about = 0;
                view.evidence_of_silence = true;
            }
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
                    view.fault_about = about;
                    view.new_fault(fault, event.unix);
                    // A fault of a snoozed child is marked, for the text.
                    event.args[3] |= u64::from(fault.snoozed) << 63;
                }
                if kind == EventKind::Evidence {
                    event.text = view.evidence;
                }
            }
        }
        if !about.is_empty() {
            event.text = about.resized();
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
        self.force.define_owner(slot, &Name::EMPTY, MonoNs(0));
        self.announce_force();
        self.slots[slot] = SlotView::default();
        self.tell(Reply::Removed { slot });
    }

    fn finished(&mut self) {
        self.order(Order::Finish);
    }
}

fn arrow(from: &Text<4>, to: &Text<4>) -> Text<8> {
    from.resized::<8>().then(&Text::<1>::new(" -> ")).then(to)
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
