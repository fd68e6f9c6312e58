//! Scenarios with a simulated clock: what a fault, a stop, a storm or a hot day leads to, step by step.

mod world;

use multus_ipc::MonoNs;
use multus_ipc::words::{EventKind, FaultKind, StateCode};
use multus_supervisor::temperature::Range;
use multus_supervisor::{Check, Command, Edge, EdgePolicy, Event, ExitStatus, Job, JobResult, Policy, Settings, Told};
use world::{CheckpointPage, MS, Nature, S, World0};

fn policy() -> Policy {
    Policy { stop_timeout_ns: 500 * MS, ..Policy::with_deadline(50 * MS) }
}

fn running(policies: &[Policy]) -> World0 {
    let mut w = World0::new(policies, Settings::default());
    w.advance(200 * MS);
    for slot in 0..policies.len() {
        assert_eq!(w.state(slot), StateCode::Running, "slot {slot}");
    }
    w
}

fn after(slot: u16, on_restart: EdgePolicy) -> Policy {
    Policy { after: [Edge { slot, on_restart }].into_iter().collect(), ..policy() }
}

#[test]
fn a_hang_is_found_at_its_deadline_and_goes_the_whole_way() {
    let mut w = running(&[Policy { safe_command_ns: S, after_stop_ns: S, after_start: true, ..policy() }]);
    w.sim.slots[0].hanging = true;
    w.advance(300 * MS);
    assert_eq!(w.faults(0), [FaultKind::Hang]);
    let child = w.sup.child(0).unwrap();
    let t = child.fault().unwrap().times;
    assert_eq!(t.detected, t.deadline, "found exactly at the deadline");
    assert_eq!(t.deadline, t.last_beat + 50 * MS);
    let order = [t.last_beat, t.deadline, t.detected, t.safe, t.killed, t.reaped, t.spawned, t.ready];
    assert!(order.is_sorted() && !order.contains(&0), "{order:?}");
    assert_eq!(w.sim.jobs, [(0, Job::AfterStart), (0, Job::SafeState), (0, Job::AfterStop), (0, Job::AfterStart)]);
    use EventKind::{Added, Fault, Ready, Recovered, Spawned};
    assert_eq!(w.kinds(0), [Added, Spawned, Ready, Fault, Spawned, Recovered]);
    assert_eq!(w.state(0), StateCode::Running);
}

#[test]
fn a_crash_is_restarted_by_the_list_of_delays_and_forgotten_later() {
    let delays = [0, 100 * MS, S].into_iter().collect();
    let mut w = running(&[Policy { delays, forget_after_ns: 60 * S, degraded_after: 3, ..policy() }]);
    w.sim.slots[0].nature = Nature::Short;
    w.sim.die(0, ExitStatus::Signal(11, true));
    w.advance(10 * S);
    let waits: Vec<u64> =
        w.sim.records.iter().filter(|r| r.kind == EventKind::Backoff).map(|r| r.args[0] / MS).collect();
    assert!((100..=110).contains(&waits[0]), "{waits:?}");
    assert!(waits[1..].iter().all(|ms| (1000..=1100).contains(ms)), "the last delay repeats: {waits:?}");
    assert!(w.sup.child(0).unwrap().is_degraded());
    w.sim.slots[0].nature = Nature::Good;
    w.advance(2 * S);
    assert_eq!(w.state(0), StateCode::Running);
    assert!(w.sup.child(0).unwrap().is_degraded(), "not forgotten yet");
    w.advance(61 * S);
    assert!(!w.sup.child(0).unwrap().is_degraded());
    let before = w.sim.now;
    w.sim.die(0, ExitStatus::Code(3));
    w.advance(100 * MS);
    assert_eq!(w.state(0), StateCode::Running, "the first delay again");
    assert!(w.sup.child(0).unwrap().since().0 < before + 20 * MS);
}

#[test]
fn restarting_never_ends() {
    let mut w = running(&[Policy { delays: [10 * MS].into_iter().collect(), ..policy() }]);
    for nature in [Nature::Short, Nature::Missing] {
        w.sim.slots[0].nature = nature;
        w.sim.die(0, ExitStatus::Code(1));
        let before = w.sim.slots[0].spawns;
        w.advance(60 * S);
        assert!(w.sim.slots[0].spawns > before + 1000, "{nature:?}: {}", w.sim.slots[0].spawns - before);
        w.sim.slots[0].nature = Nature::Good;
        w.advance(S);
        assert_eq!(w.state(0), StateCode::Running);
    }
}

#[test]
fn a_missing_program_is_no_crash_of_the_child() {
    let mut w = World0::new(&[policy()], Settings::default());
    w.sim.slots[0].nature = Nature::Missing;
    w.advance(100 * MS);
    assert!(w.faults(0).iter().all(|f| *f == FaultKind::ExecFailed) && !w.faults(0).is_empty());
    assert!(w.sup.child(0).unwrap().is_safe());
}

#[test]
fn a_start_that_takes_too_long_is_a_fault() {
    let mut w = World0::new(&[Policy { startup_ns: 2 * S, ..policy() }], Settings::default());
    w.sim.slots[0].nature = Nature::Mute;
    w.advance(1999 * MS);
    assert_eq!((w.faults(0), w.state(0)), (vec![], StateCode::Starting));
    w.advance(10 * MS);
    assert_eq!(w.faults(0), [FaultKind::StartupTimeout]);
}

#[test]
fn a_stop_wins_over_a_pending_restart() {
    let mut w = running(&[Policy { delays: [5 * S].into_iter().collect(), ..policy() }]);
    let spawns = w.sim.slots[0].spawns;
    w.sim.die(0, ExitStatus::Code(1));
    w.advance(S);
    assert_eq!(w.state(0), StateCode::Backoff);
    w.command(0, Command::Stop);
    w.advance(60 * S);
    assert_eq!((w.state(0), w.sim.slots[0].spawns), (StateCode::Stopped, spawns));
    w.command(0, Command::Start);
    w.advance(S);
    assert_eq!(w.state(0), StateCode::Running);
}

#[test]
fn a_stop_during_evidence_still_kills_and_then_stays_down() {
    let mut w = running(&[policy()]);
    w.sim.slots[0].hanging = true;
    while w.state(0) == StateCode::Running {
        w.advance(MS);
    }
    w.command(0, Command::Stop);
    w.advance(S);
    assert_eq!((w.state(0), w.sim.kills.as_slice()), (StateCode::Stopped, [0].as_slice()));
}

#[test]
fn who_ignores_the_stop_signal_is_killed_after_its_time() {
    let mut w = running(&[policy()]);
    w.sim.slots[0].ignores_stop = true;
    w.command(0, Command::Stop);
    w.advance(499 * MS);
    assert_eq!((w.state(0), w.sim.kills.len()), (StateCode::Stopping, 0));
    w.advance(10 * MS);
    assert_eq!((w.state(0), w.sim.kills.len()), (StateCode::Stopped, 1));
    assert!(w.faults(0).is_empty(), "a stop is no fault");
}

#[test]
fn a_machine_that_stood_still_calls_nobody_dead() {
    let mut w = running(&[policy(), policy(), policy()]);
    for pause in [100 * MS, 5 * S, 3600 * S] {
        w.stand_still(pause);
        w.advance(200 * MS);
        assert!((0..3).all(|s| w.faults(s).is_empty()), "after {} ms", pause / MS);
    }
    w.sim.slots[1].hanging = true;
    w.stand_still(5 * S);
    w.advance(200 * MS);
    assert_eq!((w.faults(0).len(), w.faults(1).len()), (0, 1), "who really hangs is found all the same");
}

#[test]
fn dependants_wait_restart_or_do_not_care() {
    let policies = [
        policy(),
        after(0, EdgePolicy::Wait),
        after(0, EdgePolicy::Restart),
        after(0, EdgePolicy::Ignore),
        after(2, EdgePolicy::Restart),
    ];
    let mut w = World0::new(&policies, Settings::default());
    w.advance(2 * MS);
    assert_eq!(w.state(1), StateCode::Blocked);
    w.advance(200 * MS);
    assert!((0..5).all(|s| w.state(s) == StateCode::Running));
    let delays = [S].into_iter().collect();
    w.configure(0, Policy { delays, ..policies[0] }, false);
    w.sim.die(0, ExitStatus::Code(1));
    w.sim.die(3, ExitStatus::Code(1));
    w.advance(500 * MS);
    let states: Vec<StateCode> = (0..5).map(|s| w.state(s)).collect();
    use StateCode::{Backoff, Blocked, Running};
    assert_eq!(states, [Backoff, Running, Blocked, Running, Blocked]);
    assert!(w.faults(2).is_empty() && w.faults(4).is_empty());
    w.advance(2 * S);
    assert!((0..5).all(|s| w.state(s) == Running));
}

#[test]
fn a_storm_is_damped_but_nobody_is_forgotten() {
    let settings = Settings { simultaneous: 4, ..Settings::default() };
    let mut w = World0::new(&[policy(); 60], settings);
    w.advance(S);
    for slot in 0..60 {
        w.sim.die(slot, ExitStatus::Signal(9, false));
    }
    let mut most = 0;
    for _ in 0..2000 {
        w.advance(MS / 2);
        most = most.max((0..60).filter(|s| w.state(*s) == StateCode::Starting).count());
    }
    assert!((1..=4).contains(&most), "{most} at once");
    assert!((0..60).all(|s| w.state(s) == StateCode::Running));
}

#[test]
fn slow_starters_hold_up_nobody() {
    let settings = Settings { simultaneous: 2, ..Settings::default() };
    let mut w = World0::new(&[policy(); 6], settings);
    (0..3).for_each(|s| w.sim.slots[s].nature = Nature::Mute);
    w.advance(5 * S);
    assert!((3..6).all(|s| w.state(s) == StateCode::Running));
}

#[test]
fn a_hot_processor_stops_all_and_a_cool_one_starts_them_again() {
    let range = Range { min: 0, max: 80_000, hysteresis: 5_000 };
    let settings = Settings { temperature: Some(range), ..Settings::default() };
    let mut w = World0::new(&[policy(), policy()], settings);
    w.advance(S);
    assert_eq!(w.state(0), StateCode::Blocked, "nothing starts before the first reading");
    w.event(Event::Temperature(Some(79_000)));
    w.advance(S);
    assert_eq!((w.state(0), w.state(1)), (StateCode::Running, StateCode::Running));
    w.sim.forbidden = vec![true; 2];
    w.event(Event::Temperature(None));
    w.advance(S);
    assert_eq!((w.state(0), w.state(1)), (StateCode::Blocked, StateCode::Blocked), "unreadable is too hot");
    w.event(Event::Temperature(Some(76_000)));
    w.advance(S);
    assert!(w.sup.is_too_hot());
    w.sim.forbidden = vec![false; 2];
    w.event(Event::Temperature(Some(75_000)));
    w.advance(S);
    assert_eq!((w.state(0), w.state(1)), (StateCode::Running, StateCode::Running));
    assert!(w.faults(0).is_empty());
}

#[test]
fn a_snoozed_child_is_reported_but_not_killed() {
    let mut w = running(&[policy()]);
    w.command(0, Command::Snooze(MonoNs(w.sim.now + 60 * S)));
    w.sim.slots[0].hanging = true;
    w.advance(10 * S);
    assert_eq!((w.faults(0).len(), w.state(0), w.sim.kills.len()), (1, StateCode::Running, 0));
    assert!(w.sup.child(0).unwrap().is_safe());
    w.sim.slots[0].hanging = false;
    w.advance(S);
    assert!(!w.sup.child(0).unwrap().is_safe(), "beats give the outputs back");
    assert!(w.kinds(0).contains(&EventKind::Resumed));
    w.sim.slots[0].hanging = true;
    w.advance(60 * S);
    assert!(w.kinds(0).contains(&EventKind::SnoozeEnded));
    assert_eq!((w.faults(0).len(), w.sim.kills.len()), (3, 1), "after the snooze a hang is a hang");
}

#[test]
fn who_beats_again_when_the_snooze_ends_is_left_alone() {
    let mut w = running(&[policy()]);
    w.command(0, Command::Snooze(MonoNs(w.sim.now + 5 * S)));
    w.sim.slots[0].hanging = true;
    w.advance(5 * S - 1);
    w.sim.slots[0].hanging = false;
    w.advance(5 * S);
    assert_eq!((w.faults(0).len(), w.sim.kills.len(), w.state(0)), (1, 0, StateCode::Running));
    assert!(!w.sup.child(0).unwrap().is_safe());
}

#[test]
fn a_check_that_fails_often_enough_is_a_fault() {
    let check = Check { interval_ns: S, start_period_ns: 0, failures: 3 };
    let mut w = running(&[Policy { check: Some(check), ..policy() }]);
    w.sim.job_result = JobResult::Code(1);
    w.advance(2500 * MS);
    assert!(w.faults(0).is_empty());
    w.advance(S);
    assert_eq!(w.faults(0), [FaultKind::CheckFailed]);
    w.sim.job_result = JobResult::Good;
    w.advance(10 * S);
    assert_eq!((w.faults(0).len(), w.state(0)), (1, StateCode::Running));
}

#[test]
fn shutdown_goes_in_reverse_order() {
    let mut w = running(&[policy(), after(0, EdgePolicy::Wait), after(1, EdgePolicy::Wait)]);
    (0..3).for_each(|s| w.sim.slots[s].ignores_stop = true);
    w.event(Event::Shutdown);
    w.advance(499 * MS);
    assert_eq!((w.state(2), w.state(1), w.state(0)), (StateCode::Stopping, StateCode::Running, StateCode::Running));
    w.advance(5 * S);
    assert_eq!(w.sim.kills, [2, 1, 0]);
    assert!(w.sim.finished);
}

#[test]
fn disabling_enabling_and_removing() {
    let mut w = running(&[policy()]);
    w.configure(0, Policy { enabled: false, ..policy() }, false);
    w.advance(S);
    assert_eq!(w.state(0), StateCode::Disabled);
    assert!(w.sup.command(0, Command::Start, MonoNs(w.sim.now), &mut w.sim).is_err());
    w.configure(0, policy(), false);
    w.advance(S);
    assert_eq!(w.state(0), StateCode::Running);
    w.command(0, Command::Remove);
    w.advance(S);
    assert!(w.sup.child(0).is_none() && w.sim.slots[0].removed);
    w.configure(0, policy(), false);
    w.sim.slots[0].generation = 0;
    w.advance(S);
    assert_eq!(w.state(0), StateCode::Running);
}

#[test]
fn an_overwritten_header_is_a_fault_of_that_child_only() {
    let mut w = running(&[policy(), policy()]);
    w.sim.slots[0].whole = false;
    w.advance(100 * MS);
    assert_eq!((w.faults(0), w.faults(1)), (vec![FaultKind::CorruptHeartbeat], vec![]));
}

#[test]
fn what_a_program_says_of_itself_is_heard() {
    let mut w = running(&[policy(), Policy { startup_ns: S, ..policy() }]);
    let generation = |w: &World0, slot: usize| w.sup.child(slot).unwrap().generation();
    let told = |slot, generation, told| Event::Told { slot, generation, told };

    // Its own deadline, longer and shorter than the configured one, for this process only.
    w.event(told(0, generation(&w, 0), Told::Deadline(S)));
    w.sim.slots[0].hanging = true;
    w.advance(900 * MS);
    assert!(w.faults(0).is_empty(), "a second was asked for");
    w.advance(200 * MS);
    assert_eq!(w.faults(0), [FaultKind::Hang]);
    w.advance(S);
    assert_eq!(w.sup.child(0).unwrap().beats().unwrap().deadline_ns, 50 * MS);

    // An old process says nothing about the new one.
    w.event(told(0, generation(&w, 0) - 1, Told::Trigger));
    assert_eq!(w.faults(0).len(), 1);
    w.event(told(0, generation(&w, 0), Told::Trigger));
    assert_eq!(w.faults(0)[1..], [FaultKind::Trigger]);

    // More time to start.
    w.sim.slots[1].nature = Nature::Mute;
    w.command(1, Command::Restart);
    w.advance(500 * MS);
    w.event(told(1, generation(&w, 1), Told::Extend(3 * S)));
    w.advance(2 * S);
    assert!(w.faults(1).is_empty());
    w.advance(2 * S);
    assert_eq!(w.faults(1), [FaultKind::StartupTimeout]);
}

#[test]
fn a_main_process_that_is_told_is_shown_and_its_unknown_end_is_a_crash() {
    let mut w = running(&[policy()]);
    let generation = w.sup.child(0).unwrap().generation();
    w.event(Event::Told { slot: 0, generation: generation - 1, told: Told::Main(77) });
    assert_ne!(w.sup.child(0).unwrap().pid(), 77, "of a process before");
    w.event(Event::Told { slot: 0, generation, told: Told::Main(77) });
    assert_eq!((w.sup.child(0).unwrap().pid(), w.state(0)), (77, StateCode::Running));
    w.sim.die(0, ExitStatus::Unknown);
    w.advance(S);
    let fault = w.sup.child(0).unwrap().fault().unwrap();
    assert_eq!((fault.kind, fault.args), (FaultKind::Crash, [2, 0, 0, 0]));
    assert_ne!(w.sup.child(0).unwrap().pid(), 77);
    assert_eq!(w.state(0), StateCode::Running);
}

#[test]
fn a_wrong_control_byte_is_a_fault_once() {
    let mut w = running(&[policy()]);
    let wrong = |w: &World0| {
        let generation = w.sup.child(0).unwrap().generation();
        Event::Told { slot: 0, generation, told: Told::ControlByte { expected: 4, got: 6 } }
    };
    w.event(wrong(&w));
    w.event(wrong(&w));
    assert_eq!(w.faults(0), [FaultKind::ControlByte], "what comes while it is stopped is no second fault");
    let fault = w.sup.child(0).unwrap().fault().unwrap();
    assert_eq!(fault.args, [4, 6, 0, 0]);
    assert!(fault.times.last_beat > 0 && fault.times.deadline == 0 && fault.times.safe >= fault.times.detected);
    w.advance(S);
    assert_eq!(w.state(0), StateCode::Running);
    assert_eq!(w.sim.slots[0].spawns, 2);

    w.command(0, Command::Snooze(MonoNs(w.sim.now + 10 * S)));
    let (kills, faults) = (w.sim.kills.len(), w.faults(0).len());
    w.event(wrong(&w));
    w.advance(S);
    assert_eq!((w.sim.kills.len(), w.faults(0).len()), (kills, faults + 1), "reported, and nobody is killed");
    assert_eq!(w.state(0), StateCode::Running);
}

#[test]
fn who_announced_its_end_is_not_called_silent_for_as_long_as_a_stop_may_take() {
    let mut w = running(&[policy()]);
    let generation = w.sup.child(0).unwrap().generation();
    w.event(Event::Told { slot: 0, generation, told: Told::Stopping });
    w.sim.slots[0].hanging = true;
    w.advance(490 * MS);
    assert!(w.faults(0).is_empty());
    w.advance(20 * MS);
    assert_eq!(w.faults(0), [FaultKind::Hang]);
}

#[test]
fn silence_below_the_deadline_is_told_once_and_kills_nobody() {
    let mut beating = policy();
    beating.beats = Some(multus_supervisor::Beats { deadline_ns: 50 * MS, min_interval_ns: 0, warn_ns: 30 * MS });
    let mut w = running(&[beating]);
    let warnings = |w: &World0| w.kinds(0).iter().filter(|k| **k == EventKind::Warned).count();
    w.sim.slots[0].hanging = true;
    w.advance(35 * MS);
    w.sim.slots[0].hanging = false;
    w.advance(S);
    assert_eq!((warnings(&w), w.faults(0).len(), w.sim.kills.len(), w.sim.evidence), (1, 0, 0, 1));
    assert!(!w.sup.child(0).unwrap().is_safe());
    w.sim.slots[0].hanging = true;
    w.advance(S);
    assert_eq!((warnings(&w), w.faults(0).len()), (2, 1), "told again in the next silence, then it is a hang");
}

#[test]
fn checkpoints_are_supervised_beside_the_beats() {
    use multus_ipc::checkpoint::{Plan, Writer};
    use multus_ipc::text::Text;
    use multus_supervisor::checkpoint::{Checkpoints, Limits};

    let mut plan = Plan::default();
    let main = plan.section("").unwrap();
    let [read, write] = ["read", "write"].map(|name| plan.checkpoint(main, name).unwrap());
    plan.order(read, &[write], true);
    plan.order(write, &[read], false);
    plan.deadline(read, write, MS, 20 * MS).unwrap();
    let deadlines = [Limits { min_ns: MS, max_ns: 20 * MS }].into_iter().collect();
    let policy = Policy { checkpoints: Checkpoints { sections: 1, deadlines }, ..policy() };
    let mut w = running(&[policy]);
    w.sim.slots[0].checkpoints = CheckpointPage::new(&plan);
    let pass = |w: &World0, name: &str| {
        let writer = Writer::new(&w.sim.slots[0].checkpoints.0);
        writer.pass(writer.find(&Text::EMPTY, name).unwrap(), MonoNs(w.sim.now));
    };
    for _ in 0..20 {
        pass(&w, "read");
        w.advance(15 * MS);
        pass(&w, "write");
        w.advance(30 * MS);
    }
    assert_eq!(w.faults(0), []);
    pass(&w, "read");
    let begun = w.sim.now;
    w.advance(100 * MS);
    assert_eq!(w.faults(0), [FaultKind::CheckpointLate]);
    let t = w.sup.child(0).unwrap().fault().unwrap().times;
    assert_eq!((t.deadline, t.detected), (begun + 20 * MS, begun + 20 * MS), "found when its time has run out");
    assert_eq!(w.state(0), StateCode::Running, "it was restarted");

    w.advance(200 * MS);
    pass(&w, "write");
    w.advance(100 * MS);
    assert_eq!(w.faults(0)[1..], [FaultKind::CheckpointOrder]);

    w.advance(3 * S);
    assert_eq!(w.state(0), StateCode::Running);
    pass(&w, "read");
    w.stand_still(5 * S);
    pass(&w, "write");
    w.advance(300 * MS);
    assert_eq!(w.faults(0).len(), 2, "a machine that stood still is no fault of the child");
}

#[test]
fn what_is_done_from_time_to_time_goes_by_the_times_of_the_new_policy() {
    let jobs = |w: &World0, wanted: Job| w.sim.jobs.iter().filter(|(_, job)| *job == wanted).count();
    let mut w = running(&[Policy { periodic_ns: 10 * S, ..policy() }]);
    w.advance(25 * S);
    assert_eq!(jobs(&w, Job::Periodic), 2);
    w.configure(0, policy(), false);
    w.advance(100 * S);
    assert_eq!(jobs(&w, Job::Periodic), 2, "there is none any more");
    let check = Check { interval_ns: 10 * S, start_period_ns: 0, failures: 1 };
    w.configure(0, Policy { check: Some(check), periodic_ns: 50 * S, ..policy() }, false);
    w.advance(55 * S);
    assert_eq!((jobs(&w, Job::Check), jobs(&w, Job::Periodic)), (5, 3), "new ones begin with the process that runs");
    w.configure(0, Policy { check: Some(Check { interval_ns: S, ..check }), ..policy() }, false);
    w.advance(10 * S);
    assert_eq!((jobs(&w, Job::Check), w.sim.slots[0].spawns), (14, 1));
}

#[test]
fn a_snoozed_child_that_is_silent_in_one_lane_costs_nothing_and_delays_nobody() {
    let mut warned = policy();
    warned.beats = Some(multus_supervisor::Beats { deadline_ns: 50 * MS, min_interval_ns: 0, warn_ns: 50 * MS });
    let mut w = running(&[warned, policy()]);
    w.command(0, Command::Snooze(MonoNs(w.sim.now + 100 * S)));
    w.sim.slots[0].hanging = true;
    w.advance(10 * S);
    w.sim.slots[1].hanging = true;
    w.advance(S);
    let fault = w.sup.child(1).and_then(|child| child.fault()).expect("it was found");
    assert_eq!((fault.times.detected, fault.granted_ns), (fault.times.deadline, 0));
}

#[test]
fn a_lane_that_the_page_tells_of_no_longer_is_watched_all_the_same() {
    let mut w = running(&[policy()]);
    let beat = multus_ipc::heartbeat::RawBeat { sequence: 1, time: MonoNs(w.sim.now) };
    w.sim.slots[0].more = vec![beat];
    w.sim.slots[0].told = 1;
    w.advance(20 * MS);
    w.sim.slots[0].told = 0;
    w.advance(S);
    assert_eq!(w.faults(0), [FaultKind::Hang]);
}

#[test]
fn a_need_that_is_taken_away_holds_up_nobody() {
    let mut w = World0::new(&[Policy { enabled: false, ..policy() }, after(0, EdgePolicy::Wait)], Settings::default());
    w.advance(S);
    assert_eq!(w.state(1), StateCode::Blocked);
    w.configure(1, policy(), false);
    w.advance(S);
    assert_eq!(w.state(1), StateCode::Running);
}

#[test]
fn a_reload_neither_takes_back_a_stop_nor_keeps_down_who_was_enabled_again() {
    let mut w = running(&[policy(), policy()]);
    for slot in [0, 1] {
        w.sim.slots[slot].ignores_stop = true;
    }
    w.command(0, Command::Stop);
    w.configure(0, policy(), true);
    w.configure(1, Policy { enabled: false, ..policy() }, false);
    w.configure(1, policy(), true);
    w.advance(10 * S);
    assert_eq!((w.state(0), w.state(1)), (StateCode::Stopped, StateCode::Running));
}
