//! A heartbeat page is an allegation: nonsense in it makes its writer faulty, and nobody else.

use crate::world::{World, program};

/// One child does this to its page, its neighbours beat on.
fn assert_only_the_writer_is_faulty(behaviour: &str, kind: &str, words: &str) {
    let world = World::new();
    // Neighbours on both sides in the table; their deadline is longer than any machine is busy.
    for name in ["a", "c"] {
        world.child(name, &program("beat").deadline("20s"));
    }
    let spec = program(behaviour).once(&world.path("once")).deadline("300ms").delays("[\"0s\"]");
    world.child("b", &spec);
    world.start();
    let neighbours = ["a", "c"].map(|name| world.until_state(name, "running").pid);
    // On a busy machine it may be found starved before.
    let fault = world.event_since(0, kind, |e| e.kind == "fault" && e.fault.as_deref() == Some(kind));
    assert_eq!(fault.child.as_deref(), Some("b"), "{fault:?}");
    assert!(fault.detail.contains(words), "{words:?} in {:?}", fault.detail);
    world.event_after(fault.seq, "b", "recovered");
    assert!(world.events().iter().all(|e| e.kind != "fault" || e.child.as_deref() == Some("b")));
    assert_eq!(["a", "c"].map(|name| world.of(name).pid), neighbours);
    for name in ["a", "c"] {
        let status = world.of(name);
        assert_eq!((status.state.as_str(), status.last_fault), ("running", None));
    }
    world.until_state("b", "running");
}

#[test]
fn random_bytes_in_the_whole_page_make_only_its_writer_faulty() {
    assert_only_the_writer_is_faulty("random", "corrupt-heartbeat", "header");
}

#[test]
fn random_bytes_in_all_lanes_make_only_their_writer_faulty() {
    assert_only_the_writer_is_faulty("random-lanes", "corrupt-heartbeat", "page");
}

#[test]
fn a_page_full_of_ones_makes_only_its_writer_faulty() {
    assert_only_the_writer_is_faulty("max", "corrupt-heartbeat", "header");
}

#[test]
fn a_page_full_of_zeros_makes_only_its_writer_faulty() {
    assert_only_the_writer_is_faulty("zero", "corrupt-heartbeat", "header");
}

#[test]
fn an_overwritten_header_makes_only_its_writer_faulty() {
    assert_only_the_writer_is_faulty("header", "corrupt-heartbeat", "header");
}

#[test]
fn a_counter_that_runs_backwards_makes_only_its_writer_faulty() {
    assert_only_the_writer_is_faulty("backwards", "corrupt-heartbeat", "counter in its heartbeat page ran backwards");
}

#[test]
fn a_time_that_runs_backwards_makes_only_its_writer_faulty() {
    assert_only_the_writer_is_faulty("time-backwards", "corrupt-heartbeat", "time in its heartbeat page ran backwards");
}

#[test]
fn a_time_in_the_future_makes_only_its_writer_faulty() {
    assert_only_the_writer_is_faulty("future", "corrupt-heartbeat", "time in the future");
}

#[test]
fn a_second_thread_that_falls_silent_is_found_although_the_first_beats_on() {
    assert_only_the_writer_is_faulty("lane", "hang", "in lane worker");
}

/// One child breaks a rule of its checkpoints while it beats on.
fn assert_checkpoint_fault(behaviour: &str, kind: &str, words: &str) {
    let world = World::new();
    let supervision = "[[supervision]]\ncheckpoints = [\"read\", \"compute\", \"write\"]\nstart = [\"read\"]\n\
                       next = { read = [\"compute\"], compute = [\"write\"], write = [\"read\"] }\n\
                       deadline = [{ from = \"read\", to = \"write\", min = \"4ms\", max = \"5s\" }]";
    let spec = program(behaviour).once(&world.path("once")).deadline("20s").delays("[\"0s\"]").table(supervision);
    world.child("pump", &spec);
    world.start();
    let fault = world.event("pump", "fault");
    assert_eq!(fault.fault.as_deref(), Some(kind), "{fault:?}");
    assert!(fault.detail.contains(words), "{words:?} in {:?}", fault.detail);
    world.event_after(fault.seq, "pump", "recovered");
    let last = world.of("pump").last_fault.expect("the fault is remembered");
    assert!(last.kind == kind && last.detail.contains(words), "{last:?}");
}

#[test]
fn checkpoints_out_of_order_are_found_although_the_child_beats_on() {
    assert_checkpoint_fault("order", "checkpoint-order", "read -> write is not allowed");
}

#[test]
fn checkpoints_that_come_too_early_are_found() {
    assert_checkpoint_fault("early", "checkpoint-early", "read -> write took 0.");
}

#[test]
fn a_checkpoint_that_does_not_come_is_found_when_its_time_has_run_out() {
    assert_checkpoint_fault("late", "checkpoint-late", "read -> write took 5000.");
}

#[test]
fn beats_without_pause_are_a_runaway() {
    let world = World::new();
    let spec = program("runaway").once(&world.path("once")).deadline("300ms").heartbeat("min_interval = \"100us\"");
    world.child("pump", &spec);
    world.start();
    let fault = world.event_since(0, "a runaway", |e| e.fault.as_deref() == Some("runaway"));
    world.event_after(fault.seq, "pump", "recovered");
}
