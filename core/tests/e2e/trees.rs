//! Nothing that a child started outlives it, and nothing that it starts can take the machine down.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::world::{World, is_alive, needs_root, program, send, shell, skip};

/// Starts what likes to survive: in sessions of their own, twice forked, deaf to hang-ups, deaf to SIGTERM, stopped.
const BROOD: &str = "setsid sleep 1001 & \
    (setsid sh -c 'sleep 1002 & sleep 1003 & wait' &) ; \
    nohup sleep 1004 > /dev/null 2>&1 & \
    (sh -c 'sh -c \"sleep 1005 & wait\" & wait' &) ; \
    sh -c 'trap \"\" TERM HUP INT; while :; do sleep 1006; done' & \
    sh -c 'kill -STOP $$' & \
    exec sleep 1007";
/// Processes of the brood whose command is `sleep`.
const SLEEPERS: usize = 7;

fn brood(world: &World) -> Vec<i32> {
    let stat = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    world.wait("the whole brood is there", |world| {
        let all = world.processes_of("hen");
        let sleepers = all.iter().filter(|pid| stat(pid).contains("(sleep)")).count();
        (sleepers >= SLEEPERS && all.iter().any(|pid| stat(pid).contains(") T "))).then_some(all)
    })
}

fn assert_gone(world: &World, pids: &[i32], why: &str) {
    world.until(&format!("everything is gone after {why}"), |_| pids.iter().all(|pid| !is_alive(*pid)));
}

/// A crash, a restart and a stop: each time everything goes.
fn assert_brood_dies(world: &World) {
    world.child("hen", &shell(BROOD).delays("[\"0s\"]"));
    world.start();
    let first = brood(world);
    send(world.pid_of("hen"), Signal::SIGKILL);
    world.event("hen", "recovered");
    assert!(first.iter().all(|pid| !is_alive(*pid)), "nothing is left when it runs again after a crash");
    let second = brood(world);
    assert_eq!(world.ctl(&["restart", "hen"]).code, Some(0));
    assert_gone(world, &second, "a restart");
    let third = brood(world);
    assert_eq!(world.ctl(&["stop", "hen"]).code, Some(0));
    world.until_state("hen", "stopped");
    assert!(third.iter().all(|pid| !is_alive(*pid)), "nothing is left when it is stopped");
    assert!(world.stop().success());
}

#[test]
fn a_reload_of_a_child_with_a_brood_is_no_fault() {
    let world = World::new();
    world.child("hen", &shell(BROOD));
    world.start();
    let mut old = brood(&world);
    for limit in [100, 200] {
        let pid = world.pid_of("hen");
        // A changed limit makes another cgroup of the same name.
        world.child("hen", &shell(BROOD).table(&format!("[limits]\nprocesses = {limit}")));
        assert_eq!(world.ctl(&["reload"]).code, Some(0));
        world.until_replaced("hen", pid);
        assert!(old.iter().all(|pid| !is_alive(*pid)));
        old = brood(&world);
        assert!(world.events().iter().all(|e| e.kind != "fault"), "limit {limit}");
    }
}

fn has_cgroups(world: &World) -> bool {
    world.status().daemon.notes.iter().all(|note| !note.contains("no writable cgroup"))
}

#[test]
fn everything_a_child_started_dies_with_it() {
    assert_brood_dies(&World::new());
}

#[test]
fn everything_a_child_started_dies_with_it_without_cgroups() {
    assert_brood_dies(&World::ordinary());
}

#[test]
fn a_hanging_child_dies_with_everything_it_started() {
    let world = World::new();
    // The shell starts company for the program, which then hangs.
    let exe = std::env::current_exe().unwrap();
    let script = format!("setsid sleep 1001 & exec {} child --exact --nocapture", exe.display());
    let spec = shell(&script)
        .variable("TEST_CHILD", "wait")
        .once(&world.path("once"))
        .heartbeat("deadline = \"300ms\"")
        .delays("[\"0s\"]");
    world.child_text("hen", &spec.to_string().replace("method = \"none\"", "method = \"shared-memory\""));
    world.start();
    let fault = world.event("hen", "fault");
    assert_eq!(fault.fault.as_deref(), Some("hang"));
    world.event("hen", "recovered");
    let sleeper = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "sleep");
    let sleepers = || world.processes_of("hen").iter().filter(|pid| sleeper(pid)).count();
    world.until("only the company of the new process", |_| sleepers() == 1);
}

#[test]
fn processes_without_any_mark_die_by_their_cgroup() {
    let name = "processes_without_any_mark_die_by_their_cgroup";
    if !needs_root(name) {
        return;
    }
    let world = World::new();
    let pids = world.path("pids");
    let script = format!("env -i setsid sh -c 'echo $$ >> {0}; exec sleep 1001' & exec sleep 1002", pids.display());
    world.child("hen", &shell(&script));
    world.start();
    if !has_cgroups(&world) {
        skip(name, "no writable cgroup");
        return;
    }
    world.until("the process is there", |world| !world.lines("pids").is_empty());
    let pid: i32 = world.lines("pids")[0].parse().unwrap();
    assert!(is_alive(pid));
    send(world.pid_of("hen"), Signal::SIGKILL);
    world.event("hen", "recovered");
    assert!(!is_alive(pid));
    world.event("hen", "leftovers-killed");
}

/// The file with the limit of processes that holds for this process, in either version of cgroups.
fn pids_limit(pid: i32) -> Option<PathBuf> {
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let file = |root: &str, path: &str| Path::new(root).join(path.trim_start_matches('/')).join("pids.max");
    own.lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .filter(|(controllers, _)| controllers.is_empty() || controllers.split(',').any(|c| c == "pids"))
        .flat_map(|(_, path)| {
            ["/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified"].map(|r| file(r, path))
        })
        .find(|file| fs::read_to_string(file).is_ok_and(|text| text.trim() == "30"))
}

#[test]
fn a_fork_bomb_is_contained_and_killed() {
    let name = "a_fork_bomb_is_contained_and_killed";
    if !needs_root(name) {
        return;
    }
    let world = World::new();
    let (go, once) = (world.path("go"), world.path("once"));
    // A bomb that nobody contains would be stopped by its own size at 2^9 processes.
    let script = format!(
        "[ -e {once} ] && exec sleep 1000; touch {once}; while [ ! -e {go} ]; do sleep 0.05; done; \
         b() {{ [ $1 -gt 0 ] || exec sleep 1000; b $(($1 - 1)) & b $(($1 - 1)) & sleep 1000; }}; b 8",
        once = once.display(),
        go = go.display()
    );
    world.child("bomb", &shell(&script).table("[limits]\nprocesses = 30"));
    world.child("fan", &shell("exec sleep 1000"));
    world.start();
    world.until_state("bomb", "running");
    let pid = world.pid_of("bomb");
    if pids_limit(pid).is_none() {
        skip(name, "no cgroup that limits processes");
        return;
    }
    fs::write(go, "").unwrap();
    world.until_logged("bomb", "Cannot fork");
    let all = world.processes_of("bomb");
    assert!(all.len() <= 30, "{} processes", all.len());
    if world.of("bomb").pid == Some(pid.cast_unsigned()) {
        send(pid, Signal::SIGKILL);
    }
    world.event("bomb", "recovered");
    world.until("one process is left", |world| world.processes_of("bomb").len() == 1);
    assert!(!is_alive(pid));
    assert_eq!(world.of("fan").last_fault, None);
}

#[test]
fn a_leak_ends_at_the_memory_limit_of_its_child() {
    let world = World::new();
    // 1 GiB of address space is enough for the program, and little enough for the machine.
    let spec = program("leak").once(&world.path("once")).deadline("20s").table("[limits]\nmemory = \"192MiB\"");
    world.child("pump", &spec);
    world.child("fan", &shell("exec sleep 1000"));
    world.start();
    let fault = world.event("pump", "fault");
    assert_eq!(fault.fault.as_deref(), Some("crash"), "{fault:?}");
    assert!(fault.detail.starts_with("killed by SIG"), "{fault:?}");
    world.event("pump", "recovered");
    assert_eq!(world.of("fan").last_fault, None);
}
