//! A new configuration restarts those whom it concerns, and a bad one nobody.

use std::fs;

use multus_contract::api::command::{ReloadReport, Request};
use nix::sys::signal::Signal;

use crate::world::{World, is_alive, pids, program, shell};

fn three() -> World {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.child(name, &shell("echo as before; exec sleep 1000"));
    }
    world.start();
    for name in ["a", "b", "c"] {
        world.until_state(name, "running");
    }
    world
}

fn reload(world: &World) -> ReloadReport {
    let data = world.ask(&Request::Reload).expect("granted").expect("a report");
    serde_json::from_value(data).expect("a report")
}

#[test]
fn a_reload_restarts_only_what_changed() {
    let world = three();
    let before = pids(&world.status());
    assert_eq!(reload(&world), ReloadReport::default(), "nothing changed");
    assert_eq!(pids(&world.status()), before);

    world.child("b", &shell("echo changed; exec sleep 1000"));
    world.child("d", &shell("exec sleep 1000"));
    fs::remove_file(world.dirs().child_file("c")).unwrap();
    let report = reload(&world);
    assert_eq!(
        (&report.added, &report.changed, &report.removed),
        (&vec!["d".into()], &vec!["b".into()], &vec!["c".into()])
    );
    assert_eq!((report.broken.len(), report.diagnostics.len()), (0, 0), "{report:?}");
    world.until_replaced("b", before["b"].unwrap().cast_signed());
    world.until_logged("b", "changed");
    world.until_state("d", "running");
    world.until("c is gone", |world| world.status().children.iter().all(|c| c.name != "c"));
    assert!(!is_alive(before["c"].unwrap().cast_signed()));
    assert_eq!(world.of("a").pid, before["a"]);
    assert_eq!(world.of("b").last_fault, None, "a restart for a new configuration is no fault");
    world.event_since(0, "the reload", |e| e.kind == "reloaded" && e.detail.contains("2 added or changed, 1 removed"));
}

#[test]
fn what_only_concerns_the_supervision_holds_at_once_without_a_restart() {
    let world = World::with(&[("pump", program("beat").deadline("20s"))]);
    let before = world.until_state("pump", "running");
    let text = program("beat").deadline("20s").key("description = \"new words\"").delays("[\"7s\"]");
    world.child("pump", &text);
    assert_eq!(reload(&world).changed, ["pump"]);
    let after = world.of("pump");
    assert_eq!((after.pid, after.description.as_str()), (before.pid, "new words"));
}

#[test]
fn a_broken_file_keeps_what_runs_and_is_reported() {
    let world = three();
    let before = pids(&world.status());
    world.child_text("b", "command = [\"/bin/sleep\", \"1000\"]\ncomand = 3\n[heartbeat]\ndeadline = \"0.5ms\"\n");
    world.child("a", &shell("echo changed; exec sleep 1000"));
    let ended = world.ctl(&["reload"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for words in ["children/b.toml:2", "comand", "command", "0.5ms"] {
        assert!(ended.err.contains(words), "{words:?} in {ended:?}");
    }
    world.until_replaced("a", before["a"].unwrap().cast_signed());
    assert_eq!((world.of("b").pid, world.of("c").pid), (before["b"], before["c"]));
    assert_eq!(world.of("b").state, "running");
    // It stays supervised by its last good configuration.
    crate::world::send(world.pid_of("b"), Signal::SIGKILL);
    world.event("b", "recovered");
    // A broken file of the daemon's own changes nothing at all.
    world.daemon_config("[realtime]\npriority = 1000\n");
    world.child("c", &shell("echo changed; exec sleep 1000"));
    let report = reload(&world);
    assert!(report.broken.contains(&"multusd.toml".to_owned()), "{report:?}");
    assert_eq!(world.of("c").pid, before["c"]);
    // Put right, it is taken.
    fs::remove_file(world.dirs().daemon_file()).unwrap();
    let b = world.pid_of("b");
    world.child("b", &shell("echo good again; exec sleep 1000"));
    assert_eq!(reload(&world).changed, ["b", "c"]);
    world.until_replaced("b", b);
}

#[test]
fn a_changed_parameter_file_restarts_only_its_child() {
    let world = World::new();
    world.child("a", &shell("cat $MULTUS_CONFIG; exec sleep 1000"));
    world.child("b", &shell("exec sleep 1000"));
    world.child("many", &shell("cat $MULTUS_CONFIG; exec sleep 1000").key("instances = 2"));
    fs::write(world.dirs().parameter_file("a"), "level = 3\n").unwrap();
    world.start();
    world.until_logged("a", "level = 3");
    for name in ["b", "many_0", "many_1"] {
        world.until_state(name, "running");
    }
    let before = pids(&world.status());
    fs::write(world.dirs().parameter_file("a"), "level = 4\n").unwrap();
    fs::write(world.dirs().parameter_file("many_1"), "level = 5\n").unwrap();
    reload(&world);
    world.until_logged("a", "level = 4");
    world.until_logged("many_1", "level = 5");
    world.until_replaced("a", before["a"].unwrap().cast_signed());
    world.until_replaced("many_1", before["many_1"].unwrap().cast_signed());
    assert_eq!((world.of("b").pid, world.of("many_0").pid), (before["b"], before["many_0"]));
}

#[test]
fn sighup_reads_the_configuration_again() {
    let world = three();
    let before = pids(&world.status());
    world.child("b", &shell("echo changed; exec sleep 1000"));
    world.signal(Signal::SIGHUP);
    world.until_replaced("b", before["b"].unwrap().cast_signed());
    assert_eq!((world.of("a").pid, world.of("c").pid), (before["a"], before["c"]));
}

#[test]
fn a_child_that_was_removed_can_come_back_under_its_name() {
    let world = three();
    let file = world.dirs().child_file("b");
    // It takes its time to go, so that the name is back before the old process is gone.
    let slow = shell("trap 'sleep 0.5; exit 0' TERM; echo set; while :; do sleep 0.05; done");
    world.child("b", &slow);
    reload(&world);
    world.until_logged("b", "set");
    let old = world.pid_of("b");
    fs::remove_file(&file).unwrap();
    assert_eq!(reload(&world).removed, ["b"]);
    world.child("b", &shell("echo back; exec sleep 1000"));
    reload(&world);
    world.until_logged("b", "back");
    assert!(!is_alive(old), "never two processes of one name");
    world.until_state("b", "running");
}
