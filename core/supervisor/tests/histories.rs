//! Random histories: whatever happens in whatever order, the invariants hold (the simulated world panics when one is
//! broken) and afterwards everything that should run runs.

mod world;

use multus_ipc::MonoNs;
use multus_ipc::words::StateCode;
use multus_supervisor::temperature::Range;
use multus_supervisor::{Command, Edge, EdgePolicy, Event, ExitStatus, JobResult, Policy, Settings};
use proptest::prelude::*;
use world::{MS, Nature, S, World0};

const SLOTS: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Advance(u64),
    StandStill(u64),
    Hang(usize),
    Die(usize),
    Nature(usize, Nature),
    IgnoreStop(usize, bool),
    Scribble(usize, u64, u64),
    Damage(usize),
    Command(usize, u8),
    Enable(usize, bool),
    Reconfigure(usize),
    Temperature(Option<i32>),
    JobFails(bool),
    Latency(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0..SLOTS;
    prop_oneof![
        6 => (1u64..200 * MS).prop_map(Step::Advance),
        2 => (S..100 * S).prop_map(Step::Advance),
        1 => (1u64..10 * S).prop_map(Step::StandStill),
        3 => slot.clone().prop_map(Step::Hang),
        3 => slot.clone().prop_map(Step::Die),
        2 => (slot.clone(), prop_oneof![
            Just(Nature::Good), Just(Nature::Mute), Just(Nature::Missing), Just(Nature::Short)
        ]).prop_map(|(s, n)| Step::Nature(s, n)),
        1 => (slot.clone(), any::<bool>()).prop_map(|(s, b)| Step::IgnoreStop(s, b)),
        1 => (slot.clone(), any::<u64>(), any::<u64>()).prop_map(|(s, a, b)| Step::Scribble(s, a, b)),
        1 => slot.clone().prop_map(Step::Damage),
        4 => (slot.clone(), 0u8..5).prop_map(|(s, c)| Step::Command(s, c)),
        1 => (slot.clone(), any::<bool>()).prop_map(|(s, b)| Step::Enable(s, b)),
        1 => slot.prop_map(Step::Reconfigure),
        1 => prop::option::of(-10_000i32..100_000).prop_map(Step::Temperature),
        1 => any::<bool>().prop_map(Step::JobFails),
        1 => (1u64..400 * MS).prop_map(Step::Latency),
    ]
}

fn policies() -> [Policy; SLOTS] {
    let base = Policy {
        startup_ns: 2 * S,
        delays: [0, 100 * MS, 500 * MS].into_iter().collect(),
        stop_timeout_ns: 300 * MS,
        ..Policy::with_deadline(50 * MS)
    };
    let edge = |slot, on_restart| [Edge { slot, on_restart }].into_iter().collect();
    [
        base,
        Policy { after: edge(0, EdgePolicy::Wait), safe_command_ns: S, ..base },
        Policy { after: edge(0, EdgePolicy::Restart), after_stop_ns: S, after_start: true, ..base },
        Policy {
            after: edge(2, EdgePolicy::Ignore),
            periodic_ns: S,
            evidence_budget_ns: 0,
            check: Some(multus_supervisor::Check { interval_ns: S, start_period_ns: 0, failures: 2 }),
            ..base
        },
    ]
}

fn apply(w: &mut World0, step: &Step) {
    match *step {
        Step::Advance(ns) => w.advance(ns),
        Step::StandStill(ns) => w.stand_still(ns),
        Step::Hang(s) => w.sim.slots[s].hanging = true,
        Step::Die(s) => w.sim.die(s, ExitStatus::Signal(9, false)),
        Step::Nature(s, nature) => w.sim.slots[s].nature = nature,
        Step::IgnoreStop(s, ignores) => w.sim.slots[s].ignores_stop = ignores,
        Step::Scribble(s, sequence, time) => {
            w.sim.slots[s].raw.sequence = sequence;
            w.sim.slots[s].raw.time = MonoNs(time);
            w.sim.slots[s].hanging = true;
        }
        Step::Damage(s) => w.sim.slots[s].whole = false,
        Step::Command(s, c) => {
            let snooze = Command::Snooze(MonoNs(w.sim.now + 3 * S));
            w.command(s, [Command::Start, Command::Stop, Command::Restart, snooze, Command::Start][usize::from(c)]);
        }
        Step::Enable(s, enabled) => w.configure(s, Policy { enabled, ..policies()[s] }, false),
        Step::Reconfigure(s) => w.configure(s, Policy { startup_ns: 3 * S, ..policies()[s] }, true),
        Step::Temperature(reading) => {
            // This very event may be the one that lets children start.
            w.sim.forbidden = vec![false; SLOTS];
            w.event(Event::Temperature(reading));
        }
        Step::JobFails(fails) => w.sim.job_result = if fails { JobResult::TimedOut } else { JobResult::Good },
        Step::Latency(ns) => w.sim.latency = ns,
    }
    let hot = w.sup.is_too_hot();
    w.sim.forbidden = vec![hot; SLOTS];
}

fn world() -> World0 {
    let range = Range { min: 0, max: 80_000, hysteresis: 5_000 };
    let settings = Settings { temperature: Some(range), simultaneous: 2, ..Settings::default() };
    let mut w = World0::new(&policies(), settings);
    w.event(Event::Temperature(Some(50_000)));
    w
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_and_everything_comes_back(steps in prop::collection::vec(step(), 1..60)) {
        let mut w = world();
        for step in &steps {
            apply(&mut w, step);
        }
        // The world behaves from now on, and somebody asks for every child.
        w.sim.latency = MS / 2;
        w.sim.job_result = JobResult::Good;
        w.sim.forbidden = vec![false; SLOTS];
        w.event(Event::Temperature(Some(50_000)));
        for s in 0..SLOTS {
            w.sim.slots[s].nature = Nature::Good;
            w.configure(s, policies()[s], false);
            w.command(s, Command::Snooze(MonoNs(0)));
            w.command(s, Command::Start);
        }
        w.advance(20 * S);
        for s in 0..SLOTS {
            prop_assert_eq!(w.state(s), StateCode::Running, "slot {}: {:?}", s, w.sup.child(s));
            prop_assert!(!w.sim.slots[s].outputs_safe);
        }
        // A hang is found, whatever was before.
        let faults = w.faults(0).len();
        w.sim.slots[0].hanging = true;
        w.advance(60 * MS);
        prop_assert_eq!(w.faults(0).len(), faults + 1);
        // And everything can be stopped.
        w.event(Event::Shutdown);
        w.advance(30 * S);
        prop_assert!(w.sim.finished);
    }

    #[test]
    fn a_stop_is_final_until_asked_again(steps in prop::collection::vec(step(), 1..40), stopped in 0..SLOTS) {
        let mut w = world();
        for step in &steps {
            apply(&mut w, step);
        }
        w.command(stopped, Command::Stop);
        w.advance(10 * S);
        let spawns = w.sim.slots[stopped].spawns;
        prop_assert!(matches!(w.state(stopped), StateCode::Stopped | StateCode::Disabled), "{}", w.state(stopped));
        w.advance(200 * S);
        prop_assert_eq!(w.sim.slots[stopped].spawns, spawns);
    }

    #[test]
    fn a_beat_in_time_is_never_a_fault(lates in prop::collection::vec((1u64..40 * MS, 0u64..30 * MS), 1..200)) {
        // The child beats at most 49.9 ms apart; the supervisor wakes when it likes.
        let mut w = World0::new(&[Policy::with_deadline(50 * MS)], Settings::default());
        w.advance(20 * MS);
        for (step, late) in lates {
            w.advance(step);
            w.sim.now += late.min(9 * MS);
            let now = MonoNs(w.sim.now);
            w.sup.handle_timeout(now, &mut w.sim);
        }
        prop_assert!(w.faults(0).is_empty());
    }
}

/// `MULTUS_PROPTEST_CASES` histories per property; 400 by default.
fn cases() -> u32 {
    std::env::var("MULTUS_PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}
