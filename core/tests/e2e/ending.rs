//! The daemon's own end, in order and not.

use std::fs;
use std::time::{Duration, Instant};

use multus_contract::api::command::Request;
use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::world::{World, is_alive, pids, program, run, send, shell};

/// Writes a line to a file when it is started and when it is asked to stop.
fn logger(world: &World, name: &str) -> crate::world::Spec {
    let file = world.path("order");
    shell(&format!(
        "trap 'echo {name} down >> {0}; exit 0' TERM; echo {name} up >> {0}; while :; do sleep 0.02; done",
        file.display()
    ))
}

#[test]
fn sigterm_stops_all_in_reverse_order_and_leaves_no_process() {
    let world = World::new();
    world.child("base", &logger(&world, "base").table("[stop]\ntimeout = \"60s\""));
    world.child("middle", &logger(&world, "middle").key("after = [\"base\"]").table("[stop]\ntimeout = \"60s\""));
    world.child("top", &logger(&world, "top").key("after = [\"middle\"]").table("[stop]\ntimeout = \"60s\""));
    world.child("deaf", &shell("trap '' TERM; while :; do sleep 0.05; done").table("[stop]\ntimeout = \"200ms\""));
    world.start();
    world.until("all are up", |world| world.lines("order").len() == 3);
    world.until_state("top", "running");
    let before = pids(&world.status());
    assert!(world.stop().success());
    assert_eq!(world.lines("order")[3..], ["top down", "middle down", "base down"]);
    assert!(before.values().flatten().all(|pid| !is_alive(pid.cast_signed())));
    assert!(!world.dirs().control_socket().exists());
    let events = fs::read_to_string(world.dirs().events_file()).unwrap();
    assert!(events.lines().last().is_some_and(|line| line.contains("daemon-stopped")), "{events}");
    assert!(!events.contains("\"fault\""), "{events}");
    // A start after that begins from nothing.
    world.start();
    world.until_state("top", "running");
}

#[test]
fn one_that_beats_while_it_is_being_stopped_is_shown_so() {
    // It takes no notice of the signal.
    let stop = "[stop]\nsignal = \"SIGWINCH\"\ntimeout = \"60s\"";
    let world = World::with(&[("pump", program("beat").deadline("20s").table(stop))]);
    world.until_state("pump", "running");
    world.tell(&Request::Stop { name: "pump".into() });
    let begun = Instant::now();
    let last_beat = |world: &World| {
        let child = world.of("pump");
        let age = child.last_beat_age_us.filter(|_| child.state == "stopping").map(Duration::from_micros)?;
        begun.elapsed().checked_sub(age)
    };
    let first = world.wait("a beat", last_beat);
    world.until("later ones", |world| last_beat(world).is_some_and(|last| last > first + Duration::from_millis(100)));
    send(world.pid_of("pump"), Signal::SIGKILL);
    world.until_state("pump", "stopped");
}

#[test]
fn dependants_are_started_after_what_they_need_is_ready() {
    let world = World::new();
    world.child("base", &program("beat").deadline("20s"));
    world.child("middle", &program("beat").deadline("20s").key("after = [\"base\"]"));
    world.child("top", &shell("exec sleep 1000").key("after = [\"middle\"]"));
    world.start();
    world.until_state("top", "running");
    let at = |name: &str, kind: &str| world.event(name, kind).seq;
    assert!(at("base", "ready") < at("middle", "spawned") && at("middle", "ready") < at("top", "spawned"));
    assert!(world.event("top", "blocked").detail.contains("waits for middle"));
}

#[test]
fn sigint_ends_it_as_sigterm_does_even_while_children_are_in_all_kinds_of_trouble() {
    let world = World::with(&[
        ("crashes", shell("exit 1").delays("[\"0s\", \"10ms\"]")),
        ("waits", shell("exit 1").delays("[\"1h\"]")),
        ("starts", program("never-ready").heartbeat("startup = \"1h\"")),
        ("hangs", program("wait").deadline("200ms").delays("[\"0s\"]")),
        ("missing", crate::world::Spec::of(&["/no/such/program"]).heartbeat("method = \"none\"")),
        ("needs", shell("exec sleep 1000").key("after = [\"starts\"]")),
        ("off", shell("exec sleep 1000").key("enabled = false")),
    ]);
    world.until_state("waits", "backoff");
    world.until_state("starts", "starting");
    world.event("hangs", "fault");
    world.signal(Signal::SIGINT);
    assert!(world.wait_end().success());
}

#[test]
fn a_second_daemon_on_the_same_runtime_directory_is_refused() {
    let world = World::with(&[("pump", shell("exec sleep 1000"))]);
    let pid = world.until_state("pump", "running").pid;
    let ended = run(&mut world.multusd());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let own = format!("another multusd (process {})", world.pid());
    assert!(ended.err.contains(&own) && ended.err.contains("--runtime-dir"), "{ended:?}");
    let status = world.of("pump");
    assert_eq!((status.state.as_str(), status.pid), ("running", pid), "the first one is not disturbed");
    assert_eq!(status.last_fault, None);
}

/// A daemon that is killed takes its children along; the next one starts as if nothing had been.
fn assert_children_die_with_the_daemon(world: &World) {
    world.child("pump", &shell("setsid sleep 1001 & exec sleep 1000"));
    world.child("beater", &program("beat").deadline("20s"));
    world.start();
    world.until_state("beater", "running");
    world.until("both of pump's are there", |world| world.processes_of("pump").len() == 2);
    let children = ["pump", "beater"].map(|name| world.pid_of(name));
    let companion: Vec<i32> = world.processes_of("pump").into_iter().filter(|p| *p != children[0]).collect();
    world.signal(Signal::SIGKILL);
    assert!(!world.wait_end().success());
    world.until("the children are dead", |_| children.iter().all(|pid| !is_alive(*pid)));
    world.start();
    let notes = world.status().daemon.notes.join(" ");
    for name in ["pump", "beater"] {
        let status = world.until_state(name, "running");
        assert_eq!((status.restarts, status.last_fault), (0, None));
    }
    if notes.contains("no writable cgroup") {
        // Nobody can know it: whoever left its session before the daemon died is nobody's any more.
        companion.iter().filter(|pid| is_alive(**pid)).for_each(|pid| send(*pid, Signal::SIGKILL));
    } else {
        world.until("what it left behind was killed", |_| companion.iter().all(|pid| !is_alive(*pid)));
    }
    assert_eq!(world.next_seq(), world.events().len() as u64, "the numbers begin anew");
}

#[test]
fn children_die_with_a_daemon_that_is_killed_and_the_next_one_starts_cleanly() {
    assert_children_die_with_the_daemon(&World::new());
}

#[test]
fn children_of_an_ordinary_users_daemon_die_with_it_too() {
    if Uid::effective().is_root() {
        assert_children_die_with_the_daemon(&World::ordinary());
    }
}

#[test]
fn children_come_back_when_the_process_that_makes_them_is_killed() {
    let world = World::with(&[("pump", shell("exec sleep 1000")), ("beater", program("beat").deadline("20s"))]);
    world.until_state("pump", "running");
    world.until_state("beater", "running");
    for _ in 0..3 {
        let beater = world.of("beater").pid;
        let spawner = spawner_of(world.pid());
        send(spawner, Signal::SIGKILL);
        world.until("there is another spawner", |world| spawners_of(world.pid()).iter().any(|pid| *pid != spawner));
        let since = world.next_seq();
        let pump = world.pid_of("pump");
        send(pump, Signal::SIGKILL);
        world.event_after(since, "pump", "fault");
        world.until_replaced("pump", pump);
        assert_eq!(world.of("beater").pid, beater, "who runs is not disturbed");
        world.until_state("beater", "running");
    }
}

#[test]
fn a_spawner_that_stands_still_is_replaced() {
    let world = World::with(&[("idle", shell("exec sleep 1000"))]);
    let pid = world.until_state("idle", "running").pid.expect("it runs").cast_signed();
    let spawner = spawner_of(world.pid());
    send(spawner, Signal::SIGSTOP);
    world.tell(&Request::Restart { name: "idle".into() });
    world.until_replaced("idle", pid);
    assert!(spawner_of(world.pid()) != spawner);
}

fn spawners_of(daemon: i32) -> Vec<i32> {
    let read = |pid: &str, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<i32>() else { continue };
        let parent = read(&name, "status").lines().any(|line| line == format!("PPid:\t{daemon}"));
        if parent && is_alive(pid) && read(&name, "cmdline").contains("--spawner") {
            found.push(pid);
        }
    }
    found
}

fn spawner_of(daemon: i32) -> i32 {
    *spawners_of(daemon).first().expect("a spawner")
}
