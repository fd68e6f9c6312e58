//! What a person can ask for with `multusctl`, and how it answers.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use multus_contract::api::command::Request;
use multus_contract::api::status::Status;
use nix::sys::signal::Signal;

use crate::world::{NOBODY, Spec, World, is_alive, needs_root, program, run, send, shell};

#[test]
fn a_script_tells_how_it_is_and_what_happened() {
    let ctl = env!("CARGO_BIN_EXE_multusctl");
    let script = format!(
        "ctl={ctl}; $ctl ready; $ctl say 'three barrels'; $ctl notice 'first one
empty'; $ctl notice second; while :; do $ctl beat; sleep 0.1; done"
    );
    let world = World::with(&[("pump", Spec::of(&["/bin/sh", "-c", &script]).deadline("20s"))]);
    let first = world.event("pump", "notice");
    assert_eq!((first.detail.as_str(), first.pid), ("first one empty", world.of("pump").pid));
    world.until("it is told", |world| world.of("pump").text.as_deref() == Some("three barrels"));
    world.until("the other one, too", |world| {
        world.ctl(&["events", "pump", "--json"]).out.lines().any(|line| line.contains("\"detail\":\"second\""))
    });
    assert!(world.ctl(&["status", "pump"]).out.contains("three barrels"));
}

#[test]
fn start_stop_and_restart_do_what_they_say_and_exit_with_0() {
    let world = World::with(&[("pump", shell("exec sleep 1000")), ("fan", shell("exec sleep 1000"))]);
    world.until_state("fan", "running");
    let first = world.until_state("pump", "running").pid.unwrap().cast_signed();
    let fan = world.of("fan").pid;

    let stop = world.ctl(&["stop", "pump"]);
    assert_eq!((stop.code, stop.err.as_str()), (Some(0), ""), "{stop:?}");
    let stopped = world.until_state("pump", "stopped");
    assert_eq!((stopped.pid, stopped.last_fault), (None, None), "a stop is no fault");
    assert!(!is_alive(first));

    assert_eq!(world.ctl(&["start", "pump"]).code, Some(0));
    let second = world.until_state("pump", "running").pid.unwrap().cast_signed();
    assert_ne!(second, first);
    assert_eq!(world.ctl(&["restart", "pump"]).code, Some(0));
    let third = world.until_replaced("pump", second);
    assert_eq!(third.last_fault, None);
    assert!(!is_alive(second));
    assert_eq!(world.of("fan").pid, fan, "nobody else is touched");
}

#[test]
fn a_start_of_a_child_in_back_off_comes_at_once() {
    let world = World::new();
    let once = world.path("once");
    let script = format!("[ -e {0} ] && exec sleep 1000; touch {0}; exit 1", once.display());
    world.child("pump", &shell(&script).delays("[\"1h\"]"));
    world.start();
    let status = world.until_state("pump", "backoff");
    assert!(status.restart_in_us.is_some_and(|us| us > 3_000_000_000), "{status:?}");
    assert_eq!(world.ctl(&["start", "pump"]).code, Some(0));
    world.until_state("pump", "running");
}

#[test]
fn a_stop_wins_over_a_pending_restart() {
    let world = World::with(&[("pump", shell("exit 1").delays("[\"300ms\"]"))]);
    world.until_state("pump", "backoff");
    assert_eq!(world.ctl(&["stop", "pump"]).code, Some(0));
    let stopped = world.until_state("pump", "stopped");
    let since = world.next_seq();
    // As long as it would have taken to restart it twice, by the beats of a neighbour's life.
    world.child("clock", &shell("sleep 0.7; echo later; exec sleep 1000"));
    world.tell(&Request::Reload);
    world.until_logged("clock", "later");
    assert!(world.events_since(since).iter().all(|e| e.kind != "spawned" || e.child.as_deref() != Some("pump")));
    assert_eq!(world.of("pump").restarts, stopped.restarts);
}

#[test]
fn the_stop_signal_comes_first_and_sigkill_after_the_time_out() {
    let world = World::new();
    let polite = "trap 'echo bye; exit 0' INT; echo set; while :; do sleep 0.05; done";
    let deaf = "trap 'echo no' TERM; echo set; while :; do sleep 0.05; done";
    world.child("polite", &shell(polite).table("[stop]\nsignal = \"SIGINT\"\ntimeout = \"60s\""));
    world.child("deaf", &shell(deaf).table("[stop]\ntimeout = \"300ms\""));
    world.start();
    world.until_logged("polite", "set");
    world.until_logged("deaf", "set");
    let pids = [world.pid_of("polite"), world.pid_of("deaf")];
    let stop = world.ctl(&["stop", "polite", "deaf"]);
    assert_eq!(stop.code, Some(0), "{stop:?}");
    world.until_state("polite", "stopped");
    world.until_state("deaf", "stopped");
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    world.until_logged("polite", "bye");
    world.until_logged("deaf", "no");
    assert!(world.events().iter().all(|e| e.kind != "fault"));
}

#[test]
fn disable_and_enable_change_the_file_and_keep_its_comments() {
    let world = World::new();
    let text = "# The pump of house 3.\n\
                command = [\"/bin/sleep\", \"1000\"] # for now\n\
                enabled   = true   # until winter\n\n\
                [heartbeat]\n# It cannot beat.\nmethod = \"none\"\n";
    world.child_text("pump", text);
    let file = world.dirs().child_file("pump");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    world.start();
    world.until_state("pump", "running");
    let read = || fs::read_to_string(&file).unwrap();

    let disable = world.ctl(&["disable", "pump"]);
    assert_eq!(disable.code, Some(0), "{disable:?}");
    assert_eq!(read(), text.replace("enabled   = true ", "enabled   = false "));
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o640);
    let status = world.until_state("pump", "disabled");
    assert!(!status.enabled && status.pid.is_none());
    let start = world.ctl(&["start", "pump"]);
    assert_eq!(start.code, Some(1));
    assert!(start.err.contains("disabled; enable it first"), "{start:?}");
    assert_eq!(world.ctl(&["disable", "pump"]).code, Some(0), "once more changes nothing");

    assert_eq!(world.ctl(&["enable", "pump"]).code, Some(0));
    assert_eq!(read(), text);
    assert!(world.until_state("pump", "running").enabled);
}

#[test]
fn errors_name_what_is_wrong_and_exit_with_1_and_bad_usage_with_2() {
    let world = World::with(&[("pump", shell("exec sleep 1000"))]);
    for command in ["start", "stop", "restart", "enable", "disable"] {
        let ended = world.ctl(&[command, "pmup"]);
        assert_eq!(ended.code, Some(1), "{command}: {ended:?}");
        assert!(ended.err.contains("no child \"pmup\"") && ended.err.contains("pump"), "{command}: {ended:?}");
    }
    let status = world.ctl(&["status", "pmup"]);
    assert_eq!(status.code, Some(1), "{status:?}");
    for usage in [&["fly"][..], &[], &["stop"], &["snooze", "pump", "soon"], &["status", "--verbose-please"]] {
        let ended = world.ctl(usage);
        assert_eq!(ended.code, Some(2), "{usage:?}: {ended:?}");
        assert!(!ended.err.is_empty(), "{usage:?} says why");
    }
    let mut both = vec!["stop", "pmup", "pump"];
    let ended = world.ctl(&both);
    assert_eq!(ended.code, Some(1), "one of two was refused");
    world.until_state("pump", "stopped");
    both.clear();
    assert!(world.stop().success());
    let ended = world.ctl(&["status"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("is multusd running?"), "{ended:?}");
}

#[test]
fn status_and_events_as_json_agree_with_the_kernel() {
    let world = World::with(&[("pump", shell("exec sleep 1000")), ("beater", program("beat").deadline("20s"))]);
    world.until_state("pump", "running");
    world.until_state("beater", "running");
    send(world.pid_of("pump"), Signal::SIGKILL);
    world.event("pump", "recovered");
    let ended = world.ctl(&["status", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let status: Status = serde_json::from_str(&ended.out).expect("Status JSON");
    assert_eq!(status.daemon.pid.cast_signed(), world.pid());
    for child in &status.children {
        let pid = child.pid.expect("both run");
        let parent = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
        let parent = parent.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().to_owned();
        assert_eq!(parent, world.pid().to_string(), "{} is a child of the daemon", child.name);
    }
    let one = world.ctl(&["status", "pump", "--json"]);
    assert!(one.out.contains("\"pump\"") && !one.out.contains("\"beater\""), "{one:?}");
    let text = world.ctl(&["status"]);
    assert!(text.code == Some(0) && text.out.contains("pump") && text.out.contains("beater"), "{text:?}");

    let events = world.ctl(&["events", "--json"]);
    let lines: Vec<serde_json::Value> =
        events.out.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    let numbers: Vec<u64> = lines.iter().map(|e| e["seq"].as_u64().expect("a number")).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "no gap: {numbers:?}");
    for kind in ["daemon-started", "added", "spawned", "ready", "fault", "recovered"] {
        assert!(lines.iter().any(|e| e["kind"] == kind), "{kind}");
    }
    let kept = fs::read_to_string(world.dirs().events_file()).unwrap();
    assert!(kept.lines().count() >= lines.len(), "all of them are in the file");
    let pump = world.ctl(&["events", "pump"]);
    assert!(pump.out.contains("killed by SIGKILL") && !pump.out.contains("beater"), "{pump:?}");
    let logs = world.ctl(&["logs", "pump"]);
    assert_eq!((logs.code, logs.out.contains("killed by SIGKILL")), (Some(0), true), "{logs:?}");
}

#[test]
fn several_instances_are_supervised_and_commanded_alone_and_together() {
    let world = World::new();
    world.child("pump", &shell("echo I am $MULTUS_NAME number $MULTUS_INSTANCE; exec sleep 1000").key("instances = 3"));
    world.start();
    let names = ["pump_0", "pump_1", "pump_2"];
    let before = names.map(|name| world.until_state(name, "running").pid.unwrap());
    for (number, name) in names.iter().enumerate() {
        world.until_logged(name, &format!("I am {name} number {number}"));
    }
    send(before[1].cast_signed(), Signal::SIGKILL);
    world.event("pump_1", "recovered");
    assert_eq!((world.of("pump_0").pid, world.of("pump_2").pid), (Some(before[0]), Some(before[2])));
    assert_eq!(world.ctl(&["stop", "pump_2"]).code, Some(0));
    world.until_state("pump_2", "stopped");
    world.until_state("pump_0", "running");
    assert_eq!(world.ctl(&["restart", "pump"]).code, Some(0));
    for (name, before) in names.iter().zip(before) {
        world.until_replaced(name, before.cast_signed());
    }
    // Fewer and more of them: those that stay are not touched.
    let pids = names.map(|name| world.of(name).pid);
    world.child("pump", &shell("echo I am $MULTUS_NAME number $MULTUS_INSTANCE; exec sleep 1000").key("instances = 2"));
    assert_eq!(world.ctl(&["reload"]).code, Some(0));
    world.until("two are left", |world| world.status().children.len() == 2);
    world.until("the third is gone", |_| !is_alive(pids[2].unwrap().cast_signed()));
    assert_eq!([world.of("pump_0").pid, world.of("pump_1").pid], [pids[0], pids[1]]);
}

#[test]
fn only_those_who_may_can_command() {
    let name = "only_those_who_may_can_command";
    if !needs_root(name) {
        return;
    }
    let world = World::with(&[("pump", shell("exec sleep 1000"))]);
    let socket = world.dirs().control_socket();
    let mode = || socket.metadata().unwrap().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let ctl = world.copy_of(std::path::Path::new(env!("CARGO_BIN_EXE_multusctl")));
    let as_user = |group: u32| {
        let mut command = Command::new(&ctl);
        command.arg("--runtime-dir").arg(&world.dirs().runtime).args(["stop", "pump"]).uid(NOBODY).gid(group);
        run(&mut command)
    };
    let ended = as_user(NOBODY);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("no permission for "), "{ended:?}");
    // Even with a socket that somebody opened to all, the daemon looks who asks.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let ended = as_user(NOBODY);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("not allowed"), "{ended:?}");
    world.until_state("pump", "running");
    assert!(world.stop().success());

    let group = nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(1)).unwrap().expect("group 1");
    world.daemon_config(&format!("control_group = \"{}\"\n", group.name));
    world.start();
    world.until_state("pump", "running");
    assert_eq!(mode(), 0o660);
    assert_eq!(socket.metadata().unwrap().gid(), 1);
    assert_eq!(as_user(NOBODY).code, Some(1), "no member");
    world.until_state("pump", "running");
    let ended = as_user(1);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    world.until_state("pump", "stopped");
    // The owner of the directory does not matter, only who asks.
    chown(&socket, None, Some(NOBODY)).unwrap();
    assert!(as_user(NOBODY).err.contains("not allowed"));
}
