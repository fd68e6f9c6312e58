//! What becomes of those who need a child that fails or is restarted.

use multus_contract::api::command::Request;
use nix::sys::signal::Signal;

use crate::world::{World, pids, program, send, shell};

/// One that everybody needs, and one dependant of each kind.
fn family() -> World {
    let world = World::new();
    world.child("base", &shell("exec sleep 1000").delays("[\"0s\"]"));
    for edge in ["restart", "wait", "ignore"] {
        let after = format!("after = [{{ name = \"base\", on_restart = \"{edge}\" }}]");
        world.child(edge, &shell("exec sleep 1000").key(&after));
    }
    world.child(
        "grandchild",
        &shell("exec sleep 1000").key("after = [{ name = \"restart\", on_restart = \"restart\" }]"),
    );
    world.start();
    for name in ["base", "restart", "wait", "ignore", "grandchild"] {
        world.until_state(name, "running");
    }
    world
}

#[test]
fn nobody_starts_before_what_it_needs_is_ready_whatever_their_names_and_whenever_they_come() {
    let world = World::new();
    // Each comes before what it needs, as files are read.
    let trio = |names: [&str; 3]| {
        let beats = || program("beat").deadline("20s");
        world.child(names[0], &beats().key(&format!("after = [\"{}\"]", names[1])));
        world.child(names[1], &beats().key(&format!("after = [\"{}\"]", names[2])));
        world.child(names[2], &beats());
    };
    let came_in_order = |names: [&str; 3]| {
        let seq = |name: &str, kind: &str| world.event(name, kind).seq;
        assert!(seq(names[0], "spawned") > seq(names[1], "ready"), "{names:?}");
        assert!(seq(names[1], "spawned") > seq(names[2], "ready"), "{names:?}");
    };
    trio(["alpha", "beta", "gamma"]);
    world.start();
    came_in_order(["alpha", "beta", "gamma"]);
    trio(["a-new", "b-new", "c-new"]);
    world.tell(&Request::Reload);
    came_in_order(["a-new", "b-new", "c-new"]);
}

#[test]
fn a_need_that_is_replaced_by_another_one_is_waited_for() {
    let world = World::new();
    let beats = || program("beat").deadline("20s");
    world.child("old", &beats().key("enabled = false"));
    world.child("needy", &beats().key("after = [\"old\"]"));
    world.start();
    world.until_state("needy", "blocked");
    std::fs::remove_file(world.dirs().config.join("children/old.toml")).expect("it was written");
    world.child("young", &beats());
    world.child("needy", &beats().key("after = [\"young\"]"));
    world.tell(&Request::Reload);
    assert!(world.event("needy", "spawned").seq > world.event("young", "ready").seq);
}

#[test]
fn a_dependant_is_restarted_or_not_as_its_edge_says() {
    let world = family();
    let mut before = pids(&world.status());
    let pid = |pids: &std::collections::BTreeMap<String, Option<u32>>, name: &str| pids[name].unwrap().cast_signed();
    for crash in [true, false] {
        let base = pid(&before, "base");
        if crash {
            send(base, Signal::SIGKILL);
        } else {
            assert_eq!(world.ctl(&["restart", "base"]).code, Some(0));
        }
        world.until_replaced("base", base);
        world.until_replaced("restart", pid(&before, "restart"));
        world.until_replaced("grandchild", pid(&before, "grandchild"));
        for name in ["wait", "ignore"] {
            assert_eq!(world.of(name).pid, before[name], "{name}");
        }
        before = pids(&world.status());
    }
    for name in ["restart", "wait", "ignore", "grandchild"] {
        assert_eq!(world.of(name).last_fault, None, "{name} did nothing wrong");
    }
}

#[test]
fn a_dependant_that_waits_starts_only_when_what_it_needs_is_there() {
    let world = family();
    assert_eq!(world.ctl(&["stop", "base"]).code, Some(0));
    world.until_state("base", "stopped");
    for name in ["wait", "ignore"] {
        send(world.pid_of(name), Signal::SIGKILL);
    }
    let waiting = world.until_state("wait", "blocked");
    assert_eq!(waiting.blocked_by.as_deref(), Some("base"));
    assert!(waiting.pid.is_none());
    world.event("ignore", "recovered");
    world.until_state("ignore", "running");
    assert_eq!(world.ctl(&["start", "base"]).code, Some(0));
    world.until_state("wait", "running");
}
