//! Work on a running child: it is watched, but nobody is killed.

use multus_contract::api::command::Request;
use nix::sys::signal::Signal;

use crate::world::{World, is_alive, program, send};

fn snooze(world: &World, seconds: u64) {
    world.tell(&Request::Snooze { name: "pump".into(), seconds });
}

#[test]
fn a_snoozed_child_that_is_stopped_is_reported_once_and_not_killed_and_goes_on() {
    let world =
        World::with(&[("pump", program("beat").deadline("300ms").table("[safe_state]\noutputs = { DO1 = \"off\" }"))]);
    let before = world.until_state("pump", "running");
    let pid = before.pid.unwrap().cast_signed();
    let ended = world.ctl(&["snooze", "pump", "15m"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(world.of("pump").snoozed_until.is_some());
    let since = world.next_seq();
    send(pid, Signal::SIGSTOP);
    let fault = world.event_after(since, "pump", "fault");
    assert_eq!(fault.fault.as_deref(), Some("hang"));
    assert!(fault.detail.contains("it is snoozed, nobody is killed"), "{fault:?}");
    let status = world.of("pump");
    assert_eq!((status.state.as_str(), status.pid), ("running", before.pid));
    assert!(status.safe_state && status.forced_outputs[0].forced, "outputs are safe all the same");
    // Some deadlines later there is no second report.
    let age = |world: &World| world.of("pump").last_beat_age_us.unwrap_or(0);
    world.until("several deadlines have passed", |world| age(world) > 1_500_000);
    send(pid, Signal::SIGCONT);
    world.event_after(since, "pump", "resumed");
    let status = world.of("pump");
    assert_eq!((status.pid, status.safe_state, status.forced_outputs[0].forced), (before.pid, false, false));
    assert_eq!(world.all("pump", "fault").iter().filter(|e| e.seq >= since).count(), 1);

    // The end of it: from now on a silence is what it was before.
    let ended = world.ctl(&["snooze", "pump", "off"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    world.event("pump", "snooze-ended");
    assert_eq!(world.of("pump").snoozed_until, None);
    send(world.pid_of("pump"), Signal::SIGSTOP);
    world.until_replaced("pump", pid);
    assert!(!is_alive(pid));
}

#[test]
fn a_snooze_ends_by_itself_and_who_still_hangs_is_killed_then() {
    let world = World::with(&[("pump", program("beat").deadline("300ms"))]);
    let pid = world.until_state("pump", "running").pid.unwrap().cast_signed();
    snooze(&world, 2);
    send(pid, Signal::SIGSTOP);
    world.event("pump", "fault");
    let ended = world.event("pump", "snooze-ended");
    world.event_after(ended.seq, "pump", "fault");
    world.until_replaced("pump", pid);
}

#[test]
fn outputs_of_a_snoozed_child_can_be_kept() {
    let table = "[safe_state]\noutputs = { DO1 = \"off\" }\nwhile_snoozed = \"keep\"";
    let world = World::with(&[("pump", program("beat").deadline("300ms").table(table))]);
    let pid = world.until_state("pump", "running").pid.unwrap().cast_signed();
    snooze(&world, 900);
    send(pid, Signal::SIGSTOP);
    world.event("pump", "fault");
    assert!(!world.of("pump").forced_outputs[0].forced);
    send(pid, Signal::SIGCONT);
    world.event("pump", "resumed");
}

#[test]
fn a_snoozed_child_that_crashes_is_restarted() {
    let world = World::with(&[("pump", program("beat").deadline("20s"))]);
    let pid = world.until_state("pump", "running").pid.unwrap().cast_signed();
    snooze(&world, 900);
    send(pid, Signal::SIGKILL);
    world.until_replaced("pump", pid);
}
