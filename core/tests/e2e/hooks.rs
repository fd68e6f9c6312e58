//! Commands of children: checks, hooks, and what is run for safety.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;

use crate::world::{World, is_alive, send, shell};

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// A script that writes its name and what it knows to the file `order`.
fn script(world: &World, name: &str, more: &str) -> String {
    let path = world.path(name);
    let text =
        format!("#!/bin/sh\necho {name} of $MULTUS_NAME as $MULTUS_JOB >> {}\n{more}\n", world.path("order").display());
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn hooks_and_the_safe_state_command_run_in_order() {
    let world = World::new();
    let hooks = format!(
        "[safe_state]\ncommand = [\"{}\"]\n[hooks]\nafter_start = [\"{}\"]\nafter_stop = [\"{}\"]\non_daemon_exit = [\"{}\"]",
        script(&world, "safe", ""),
        script(&world, "started", ""),
        script(&world, "stopped", ""),
        script(&world, "bye", ""),
    );
    world.child("pump", &shell("exec sleep 1000").table(&hooks).delays("[\"0s\"]"));
    world.start();
    let lines = |world: &World| world.lines("order");
    world.until("the first hook has run", |world| lines(world).len() == 1);
    send(world.pid_of("pump"), Signal::SIGKILL);
    world.until("all hooks of a fault have run", |world| lines(world).len() == 4);
    assert_eq!(world.ctl(&["stop", "pump"]).code, Some(0));
    world.until_state("pump", "stopped");
    assert!(world.stop().success());
    assert_eq!(
        lines(&world),
        [
            "started of pump as after-start",
            "safe of pump as safe-state",
            "stopped of pump as after-stop",
            "started of pump as after-start",
            // No fault, so nothing for safety.
            "stopped of pump as after-stop",
            "bye of pump as on-daemon-exit",
        ]
    );
}

#[test]
fn the_periodic_hook_runs_again_and_again_while_its_child_runs() {
    let world = World::new();
    let periodic = script(&world, "tick", "");
    let table = format!("[hooks]\nperiodic = {{ command = [\"{periodic}\"], interval = \"100ms\" }}");
    world.child("pump", &shell("exec sleep 1000").table(&table));
    world.start();
    world.until("it has run three times", |world| world.lines("order").len() >= 3);
    assert!(world.lines("order").iter().all(|line| line == "tick of pump as periodic"));
    world.ctl(&["stop", "pump"]);
    world.until_state("pump", "stopped");
}

#[test]
fn a_hook_that_hangs_is_killed_at_its_time_limit_with_all_it_started_and_the_restart_happens() {
    let world = World::new();
    let (after_stop, safe) = (
        // Without cgroups nobody knows who left the session of a hook; see `launcher::orphans`.
        script(&world, "hangs", if is_root() { "setsid sleep 1003 & sleep 1004" } else { "sleep 1003 & sleep 1004" }),
        script(&world, "deaf", "trap '' TERM INT; while :; do sleep 0.05; done"),
    );
    let table = format!(
        "[hooks]\nafter_stop = [\"{after_stop}\"]\ntimeout = \"200ms\"\n\
         [safe_state]\ncommand = [\"{safe}\"]\ntimeout = \"200ms\""
    );
    world.child("pump", &shell("exec sleep 1000").table(&table));
    world.start();
    let pid = world.until_state("pump", "running").pid.unwrap().cast_signed();
    send(pid, Signal::SIGKILL);
    world.event("pump", "recovered");
    world.until_replaced("pump", pid);
    let failed: Vec<String> = world.all("pump", "command-failed").into_iter().map(|e| e.detail).collect();
    assert_eq!(
        failed,
        ["safe-state command: took too long and was killed", "after_stop hook: took too long and was killed"]
    );
    world.until("one process is left", |world| world.processes_of("pump").len() == 1);
}

#[test]
fn hooks_that_fail_or_are_missing_are_reported_and_hold_up_nothing() {
    let world = World::new();
    let failing = script(&world, "fails", "exit 7");
    let table = format!("[hooks]\nafter_start = [\"/no/such/hook\"]\nafter_stop = [\"{failing}\"]");
    world.child("pump", &shell("exec sleep 1000").table(&table));
    world.start();
    let first = world.event("pump", "command-failed");
    assert!(first.detail.starts_with("after_start hook: could not be executed: "), "{first:?}");
    send(world.pid_of("pump"), Signal::SIGKILL);
    let second = world.event_after(first.seq + 1, "pump", "command-failed");
    assert_eq!(second.detail, "after_stop hook: exit code 7");
    world.event("pump", "recovered");
}

#[test]
fn a_check_that_fails_as_often_as_configured_is_a_fault() {
    let world = World::new();
    let ill = world.path("ill");
    let check = script(&world, "check", &format!("[ ! -e {} ]", ill.display()));
    let table = format!("[check]\ncommand = [\"{check}\"]\ninterval = \"100ms\"\nfailures = 3");
    world.child("pump", &shell(&format!("rm -f {}; echo set; exec sleep 1000", ill.display())).table(&table));
    world.start();
    world.until_logged("pump", "set");
    world.until("it was checked twice", |world| world.lines("order").len() >= 2);
    assert!(world.lines("order").iter().all(|line| line == "check of pump as check"));
    let pid = world.pid_of("pump");
    assert_eq!(world.of("pump").last_fault, None);
    fs::write(&ill, "").unwrap();
    let fault = world.event("pump", "fault");
    assert_eq!(fault.fault.as_deref(), Some("check-failed"));
    assert_eq!(fault.detail, "its check failed 3 times in a row (exit code 1)");
    let failed = world.all("pump", "command-failed");
    assert_eq!(failed.len(), 2, "the third one is the fault: {failed:?}");
    world.until_replaced("pump", pid);
    assert!(!is_alive(pid));
}

#[test]
fn a_check_that_hangs_is_killed_with_its_children_and_counts_as_failed() {
    let world = World::new();
    let hang = world.path("hang");
    let more = format!("[ -e {} ] || exit 0; setsid sleep 1003 & sleep 1004", hang.display());
    let check = script(&world, "check", &more);
    let table = format!("[check]\ncommand = [\"{check}\"]\ninterval = \"100ms\"\ntimeout = \"200ms\"\nfailures = 2");
    world.child("pump", &shell(&format!("rm -f {}; echo set; exec sleep 1000", hang.display())).table(&table));
    world.start();
    world.until_logged("pump", "set");
    fs::write(&hang, "").unwrap();
    let fault = world.event("pump", "fault");
    assert_eq!(fault.detail, "its check failed 2 times in a row (took too long and was killed)");
    world.event("pump", "recovered");
    let left =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.starts_with("sleep\x001003"));
    world.until("nothing of a check is left", |world| !world.processes_of("pump").iter().any(left));
}

#[test]
fn a_check_of_a_stopped_child_does_not_run() {
    let world = World::new();
    let check = script(&world, "check", "");
    let table = format!("[check]\ncommand = [\"{check}\"]\ninterval = \"100ms\"");
    world.child("pump", &shell("exec sleep 1000").table(&table));
    world.child("clock", &shell("sleep 0.1"));
    world.start();
    world.until("it was checked", |world| !world.lines("order").is_empty());
    world.ctl(&["stop", "pump"]);
    world.until_state("pump", "stopped");
    let before = world.lines("order").len();
    // Longer than several intervals, by a neighbour that ends every 100 ms.
    let since = world.all("clock", "fault").len();
    world.ctl(&["start", "clock"]);
    world.until("some time has passed", |world| world.of("clock").restarts as usize > since + 1);
    assert_eq!(world.lines("order").len(), before);
}

#[test]
fn a_long_hook_is_not_disturbed_by_the_checks_that_end_meanwhile() {
    let world = World::new();
    let check = script(&world, "check", "setsid sleep 1003 &");
    let hook = script(&world, "long", "while [ ! -e $0.go ]; do sleep 0.02; done; echo done >> $0.done");
    let table = format!("[check]\ncommand = [\"{check}\"]\ninterval = \"100ms\"\n[hooks]\nafter_start = [\"{hook}\"]");
    world.child("pump", &shell("exec sleep 1000").table(&table));
    world.start();
    let checks = |world: &World| world.lines("order").iter().filter(|l| l.starts_with("check")).count();
    world.until("three checks have ended", |world| checks(world) > 3);
    fs::write(world.path("long.go"), "").unwrap();
    world.until("the hook has come to its end", |world| world.path("long.done").exists());
    assert!(world.events().iter().all(|e| e.kind != "command-failed" && e.kind != "fault"));
    world.ctl(&["stop", "pump"]);
    world.until_state("pump", "stopped");
    world.until("nothing of them is left", |world| world.processes_of("pump").is_empty());
}
