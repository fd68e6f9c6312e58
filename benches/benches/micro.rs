//! How long the smallest steps take: a beat, a look at the status, a decision of the supervisor, the deadline queue.
//! Nothing here waits or sleeps; time is a number that the benchmark counts up.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::os::fd::AsFd;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use multus_ipc::child::Heartbeat;
use multus_ipc::heartbeat::{self, RawBeat};
use multus_ipc::map::{self, Mapping};
use multus_ipc::status::{self, SlotRecord};
use multus_ipc::sync::{AtomicU64, Ordering};
use multus_ipc::text::Name;
use multus_ipc::words::{EventKind, StateCode};
use multus_ipc::{MonoNs, checkpoint, event_ring};
use multus_supervisor::deadlines::Deadlines;
use multus_supervisor::{Child, Event, ExitStatus, Job, Policy, Settings, Supervisor, World};

const MS: u64 = 1_000_000;
const HOUR: u64 = 3_600_000 * MS;
const DEADLINE: u64 = 100 * MS;
/// From beat to beat of a simulated child.
const PERIOD: u64 = 20 * MS;

fn beats(c: &mut Criterion) {
    let fd = map::memfd(c"heartbeat", heartbeat::WORDS).expect("memory for a page");
    let page = Mapping::writable(fd.as_fd()).expect("a page that was just made");
    for (word, value) in page.words().iter().zip(heartbeat::header(1, DEADLINE)) {
        word.store(value, Ordering::Relaxed);
    }
    let reader_page = Mapping::read_only(fd.as_fd()).expect("a page that was just made");
    let heartbeat = Heartbeat::from_fd(fd).expect("a page with its header");
    c.bench_function("beat()", |b| b.iter(|| heartbeat.beat()));
    c.bench_function("clock alone", |b| b.iter(MonoNs::now));
    let reader = heartbeat::Reader::new(reader_page.words());
    c.bench_function("look at a beat", |b| b.iter(|| reader.look(black_box(0))));
}

fn pages(c: &mut Criterion) {
    let page: Vec<AtomicU64> = (0..status::words(4)).map(|_| AtomicU64::new(0)).collect();
    let writer = status::Writer::new(&page, 42);
    let record = SlotRecord { name: Name::new("pump"), pid: 4711, ..SlotRecord::FREE };
    writer.slot(2, &record);
    let reader = status::Reader::new(&page).expect("a page that was just laid out");
    c.bench_function("status slot: read", |b| b.iter(|| reader.slot(black_box(2))));
    c.bench_function("status slot: write", |b| b.iter(|| writer.slot(2, black_box(&record))));

    let page: Vec<AtomicU64> = (0..event_ring::words(64)).map(|_| AtomicU64::new(0)).collect();
    let mut ring = event_ring::Writer::new(&page);
    let event = event_ring::EventRecord::new(EventKind::Fault);
    c.bench_function("event: append", |b| b.iter(|| ring.push(black_box(&event))));
}

fn supervisor(c: &mut Criterion) {
    let mut group = c.benchmark_group("supervisor: a wake-up, one child is due");
    for children in [1, 100, 1000] {
        let mut machine = Machine::running(children, HOUR);
        group.bench_function(BenchmarkId::from_parameter(children), |b| b.iter(|| machine.wake_up()));
    }
    group.finish();
    let mut group = c.benchmark_group("supervisor: a wake-up, all children are due");
    for children in [100, 1000] {
        let mut machine = Machine::running(children, DEADLINE);
        group.bench_function(BenchmarkId::from_parameter(children), |b| b.iter(|| machine.wake_up()));
    }
    group.finish();
    let mut group = c.benchmark_group("supervisor: all steps from crash to running again");
    for children in [1, 100] {
        let mut machine = Machine::running(children, HOUR);
        group.bench_function(BenchmarkId::from_parameter(children), |b| b.iter(|| machine.crash_and_recover()));
    }
    group.finish();
}

fn deadlines(c: &mut Criterion) {
    let mut group = c.benchmark_group("deadlines: set, next, first due");
    for lanes in [1usize, 100, 10_000] {
        let mut deadlines = Deadlines::new(lanes);
        for lane in 0..lanes {
            deadlines.set(lane, MonoNs(75 * MS + lane as u64), MonoNs(100 * MS + lane as u64));
        }
        let mut turn = 0u64;
        group.bench_function(BenchmarkId::from_parameter(lanes), |b| {
            b.iter(|| {
                turn += 1;
                let lane = (turn % lanes as u64) as usize;
                deadlines.set(lane, MonoNs(75 * MS + turn), MonoNs(100 * MS + turn));
                (deadlines.next(), deadlines.first_due(0, MonoNs(black_box(MS))))
            });
        });
    }
    group.finish();
}

/// A supervisor and a world in which everything works at once and every child beats in time.
struct Machine {
    supervisor: Supervisor,
    world: Ideal,
    now: u64,
}

impl Machine {
    /// All children run: the first at [`DEADLINE`], the others at `others_ns`.
    fn running(children: usize, others_ns: u64) -> Self {
        let settings = Settings { simultaneous: u16::MAX, ..Settings::default() };
        let mut machine = Self {
            supervisor: Supervisor::new(children, settings, 1),
            world: Ideal { processes: vec![Process::default(); children] },
            now: 1_000 * MS,
        };
        for slot in 0..children {
            let deadline = if slot == 0 { DEADLINE } else { others_ns };
            let policy = Policy { delays: [0].into_iter().collect(), ..Policy::with_deadline(deadline) };
            machine
                .supervisor
                .configure(slot, policy, false, MonoNs(machine.now), &mut machine.world)
                .expect("the slot is in the table");
        }
        machine.supervisor.handle_timeout(MonoNs(machine.now), &mut machine.world);
        for slot in 0..children {
            machine.executed(slot);
        }
        machine.now += PERIOD;
        machine.supervisor.handle_timeout(MonoNs(machine.now), &mut machine.world);
        let running = |slot| machine.supervisor.child(slot).is_some_and(|c| c.state_code() == StateCode::Running);
        assert!((0..children).all(running), "the benchmark needs all children running");
        machine
    }

    /// Time goes on to the earliest deadline.
    fn wake_up(&mut self) {
        self.now = self.supervisor.next_deadline().0;
        self.supervisor.handle_timeout(MonoNs(self.now), &mut self.world);
    }

    /// The first child dies, is started again and beats.
    fn crash_and_recover(&mut self) {
        let (slot, generation, at) = (0, self.world.processes[0].generation, MonoNs(self.now));
        self.handle(Event::Exited { slot, generation, status: ExitStatus::Code(1) });
        self.handle(Event::Killed { slot, generation, at });
        self.handle(Event::TreeGone { slot, generation, at });
        self.executed(slot);
        self.now += PERIOD;
        self.supervisor.handle_timeout(MonoNs(self.now), &mut self.world);
    }

    fn executed(&mut self, slot: usize) {
        let generation = self.world.processes[slot].generation;
        self.world.processes[slot].born = self.now;
        self.handle(Event::Spawned { slot, generation, pid: 1000 });
        self.handle(Event::Executed { slot, generation });
    }

    fn handle(&mut self, event: Event) {
        self.supervisor.handle(event, MonoNs(self.now), &mut self.world);
    }
}

#[derive(Clone, Debug, Default)]
struct Process {
    generation: u32,
    born: u64,
}

/// Takes every order, reports nothing: the benchmark makes the events.
#[derive(Debug)]
struct Ideal {
    processes: Vec<Process>,
}

/// No checkpoints.
static NONE: [AtomicU64; checkpoint::WORDS] = [const { AtomicU64::new(0) }; checkpoint::WORDS];

impl World for Ideal {
    fn checkpoints(&self, _slot: usize) -> checkpoint::Reader<'_> {
        checkpoint::Reader::new(&NONE)
    }

    /// A beat each [`PERIOD`] since birth, each child at a phase of its own.
    fn look(&self, slot: usize, _lane: usize, now: MonoNs) -> (RawBeat, MonoNs) {
        let phase = slot as u64 * 7_919_993 % PERIOD;
        let sequence = (now.0 + phase) / PERIOD - (self.processes[slot].born + phase) / PERIOD;
        let time = if sequence == 0 { 0 } else { now.0 - (now.0 + phase) % PERIOD };
        (RawBeat { sequence, time: MonoNs(time) }, now)
    }

    fn lanes(&self, _slot: usize) -> usize {
        1
    }

    fn has_left(&self, _slot: usize, _lane: usize) -> bool {
        false
    }

    fn lane_deadline_ns(&self, _slot: usize, _lane: usize) -> Option<u64> {
        None
    }

    fn is_ready(&self, _slot: usize) -> bool {
        false
    }

    fn is_whole(&self, _slot: usize) -> bool {
        true
    }

    fn force_safe(&mut self, _slot: usize) -> MonoNs {
        MonoNs(0)
    }

    fn release_outputs(&mut self, _slot: usize) {}

    fn spawn(&mut self, slot: usize, generation: u32) {
        self.processes[slot].generation = generation;
    }

    fn collect_evidence(&mut self, _slot: usize, _generation: u32, _ended: bool) {}

    fn ask_to_stop(&mut self, _slot: usize, _generation: u32) {}

    fn kill_tree(&mut self, _slot: usize, _generation: u32) {}

    fn run(&mut self, _slot: usize, _generation: u32, _job: Job) {}

    fn cancel_jobs(&mut self, _slot: usize) {}

    fn record(&mut self, child: Option<(usize, &Child)>, kind: EventKind, args: [u64; 4]) {
        black_box((child.is_some(), kind, args));
    }

    fn changed(&mut self, _slot: usize) {}

    fn removed(&mut self, _slot: usize) {}

    fn finished(&mut self) {}
}

criterion_group!(benches, beats, pages, supervisor, deadlines);
criterion_main!(benches);
