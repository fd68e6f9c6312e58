//! Outputs are at their safe values whenever their child is not known to be well.

use multus_contract::api::command::Request;
use multus_contract::api::status::ChildStatus;
use nix::sys::signal::Signal;

use crate::world::{World, program, send, shell};

const OUTPUTS: &str = "[safe_state]\noutputs = { DO1 = \"off\", DO2 = true, AO1 = 4.5 }";

/// Name, safe value and whether it is forced, of each output.
fn outputs(status: &ChildStatus) -> Vec<(String, f64, bool)> {
    status.forced_outputs.iter().map(|o| (o.name.clone(), o.value, o.forced)).collect()
}

fn all(forced: bool) -> Vec<(String, f64, bool)> {
    [("AO1", 4.5), ("DO1", 0.0), ("DO2", 1.0)].map(|(name, value)| (name.to_owned(), value, forced)).to_vec()
}

#[test]
fn outputs_are_forced_until_ready_released_while_running_and_forced_after_a_fault_until_ready_again() {
    let world = World::new();
    world.child("slow", &program("never-ready").heartbeat("startup = \"1h\"").table(OUTPUTS));
    world.start();
    let status = world.until_state("slow", "starting");
    assert_eq!((outputs(&status), status.safe_state), (all(true), true), "before ready");
    world.child("slow", &shell("exec sleep 1000").table(OUTPUTS).delays("[\"1h\"]"));
    world.tell(&Request::Reload);
    let status = world.until_state("slow", "running");
    assert_eq!((outputs(&status), status.safe_state), (all(false), false), "while running");
    send(world.pid_of("slow"), Signal::SIGKILL);
    let status = world.until_state("slow", "backoff");
    assert_eq!((outputs(&status), status.safe_state), (all(true), true), "after a fault");
    world.tell(&Request::Start { name: "slow".into() });
    let status = world.until_state("slow", "running");
    assert_eq!(outputs(&status), all(false), "ready again");
    world.tell(&Request::Stop { name: "slow".into() });
    let status = world.until_state("slow", "stopped");
    assert_eq!(outputs(&status), all(true), "stopped");
    let mut events = world.events();
    events.retain(|e| e.kind == "fault");
    assert!(events.iter().all(|e| e.safe_ns >= e.detected_ns), "{events:?}");
}

#[test]
fn a_disabled_child_and_one_that_waits_hold_their_outputs_safe_from_the_start() {
    let world = World::new();
    world.child(
        "off",
        &shell("exec sleep 1000").key("enabled = false").table("[safe_state]\noutputs = { DO1 = \"on\" }"),
    );
    let waits = shell("exec sleep 1000").key("after = [\"off\"]").table("[safe_state]\noutputs = { DO2 = \"off\" }");
    world.child("waits", &waits);
    world.start();
    world.until_state("waits", "blocked");
    for (name, output, value) in [("off", "DO1", 1.0), ("waits", "DO2", 0.0)] {
        assert_eq!(outputs(&world.of(name)), [(output.to_owned(), value, true)]);
    }
}

#[test]
fn a_reload_can_give_and_take_outputs_of_a_running_child() {
    let world = World::with(&[("pump", shell("exec sleep 1000").table(OUTPUTS))]);
    let pid = world.until_state("pump", "running").pid;
    world.child("pump", &shell("exec sleep 1000").table("[safe_state]\noutputs = { DO9 = \"off\" }"));
    world.tell(&Request::Reload);
    world.until("the other output", |w| outputs(&w.of("pump")) == [("DO9".to_owned(), 0.0, false)]);
    assert_eq!(world.of("pump").pid, pid, "that needs no restart");
}
