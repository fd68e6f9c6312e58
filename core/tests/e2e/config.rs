//! Whatever stands in the configuration directory: all of it is reported at once, and what is good runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;

use crate::world::{World, run, send, shell};

const GOOD: &str = "command = [\"/bin/sleep\", \"1000\"]\n[heartbeat]\nmethod = \"none\"\n";

/// Every way in which a file can be bad, beside two good ones. Returns the names of the bad ones.
fn bad_and_good(world: &World) -> Vec<&'static str> {
    world.child_text("good", GOOD);
    world.child_text("fine", GOOD);
    let beside = |tail: &str| GOOD.replace("[heartbeat]", &format!("{tail}\n[heartbeat]"));
    for (name, text) in [
        ("empty", String::new()),
        ("syntax", "command = [\"/bin/sleep\"\n".to_owned()),
        ("misspelt", beside("enabeld = true")),
        ("wrong-type", beside("enabled = \"yes\"")),
        ("too-fast", format!("{GOOD}deadline = \"0.5ms\"\n")),
        ("no-command", "enabled = true\n".to_owned()),
        ("bad name", GOOD.to_owned()),
        ("circle-a", beside("after = [\"circle-b\"]")),
        ("circle-b", beside("after = [\"circle-a\"]")),
        ("orphan", beside("after = [\"nobody\"]")),
        // Its second instance would be called good_twin_1, as another child is.
        ("good_twin", beside("instances = 2")),
        ("deep", format!("command = {}{}", "[".repeat(3000), "]".repeat(3000))),
    ] {
        world.child_text(name, &text);
    }
    world.child_text("good_twin_1", GOOD);
    fs::write(world.dirs().child_file("binary"), (0..=255u8).cycle().take(5000).collect::<Vec<_>>()).unwrap();
    fs::write(world.dirs().child_file("huge"), vec![b'#'; 3 << 20]).unwrap();
    fs::create_dir(world.dirs().child_file("folder")).unwrap();
    nix::unistd::mkfifo(&world.dirs().child_file("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/no/such/file", world.dirs().child_file("dangling")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", world.dirs().child_file("device")).unwrap();
    vec![
        "empty",
        "syntax",
        "misspelt",
        "wrong-type",
        "too-fast",
        "no-command",
        "bad name",
        "circle-a",
        "circle-b",
        "orphan",
        "good_twin",
        "deep",
        "binary",
        "huge",
        "folder",
        "fifo",
        "dangling",
        "device",
    ]
}

#[test]
fn a_check_reports_all_mistakes_of_all_files_at_once_and_exits_with_1() {
    let world = World::new();
    let bad = bad_and_good(&world);
    let by_ctl = world.ctl(&["check"]);
    let by_daemon = run(world.multusd().arg("--check"));
    for ended in [&by_ctl, &by_daemon] {
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for name in &bad {
            assert!(ended.out.contains(&format!("children/{name}.toml")), "{name} is missing in\n{}", ended.out);
        }
        for words in ["enabeld", "nearest", "0.5ms", "circle-a after circle-b", "\"nobody\""] {
            let hint = words == "nearest" && ended.out.contains("enabled");
            assert!(hint || ended.out.contains(words), "{words:?} is missing in\n{}", ended.out);
        }
        for name in ["good", "fine", "good_twin_1"] {
            assert!(!ended.out.contains(&format!("children/{name}.toml")), "{name} is good:\n{}", ended.out);
        }
    }
    assert_eq!(by_ctl.out, by_daemon.out, "both say the same");
    let json = world.ctl(&["check", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!((json.code, report["clean"].as_bool()), (Some(1), Some(false)));
    assert_eq!(report["broken"].as_array().map(Vec::len), Some(bad.len()), "{report}");
}

#[test]
fn a_check_of_a_good_configuration_exits_with_0() {
    let world = World::new();
    world.child_text("good", GOOD);
    let ended = world.ctl(&["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains("no errors"), "{ended:?}");
    assert_eq!(run(world.multusd().arg("--check")).code, Some(0));
}

#[test]
fn the_good_children_run_whatever_the_other_files_hold() {
    let world = World::new();
    let bad = bad_and_good(&world);
    world.start();
    for name in ["good", "fine", "good_twin_1"] {
        world.until_state(name, "running");
    }
    let status = world.status();
    assert_eq!(status.children.len(), 3, "{:?}", status.children.iter().map(|c| &c.name).collect::<Vec<_>>());
    let log = fs::read_to_string(world.dirs().daemon_log()).unwrap();
    for name in &bad {
        assert!(log.contains(&format!("children/{name}.toml")), "the log names {name}:\n{log}");
    }
    // Nothing changes by reading it again, and by putting one of them right it runs.
    world.signal(Signal::SIGHUP);
    world.child_text("empty", GOOD);
    assert_eq!(world.ctl(&["reload"]).code, Some(1), "the others are still bad");
    world.until_state("empty", "running");
    assert_eq!(world.status().children.len(), 4);
}

#[test]
fn a_file_without_permission_to_read_it_is_reported_by_an_ordinary_user() {
    let world = World::ordinary();
    world.child_text("good", GOOD);
    world.child_text("secret", GOOD);
    fs::set_permissions(world.dirs().child_file("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    let ended = world.ctl(&["check"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.out.contains("children/secret.toml") && ended.out.contains("no permission"), "{ended:?}");
    world.start();
    world.until_state("good", "running");
    assert_eq!(world.status().children.len(), 1);
}

#[test]
fn a_broken_file_of_the_daemons_own_keeps_it_from_starting_with_a_clear_text() {
    let world = World::new();
    world.child_text("good", GOOD);
    for (text, words) in [
        ("[realtime]\npriority = 1000\n", "priority"),
        ("sitee = \"x\"\n", "\"site\""),
        ("site = \"x\n", "multusd.toml:1"),
        ("control_group = \"no-such-group\"\n", "no-such-group"),
        ("[temperature]\nmin_c = 90.0\nmax_c = 80.0\n", "temperature"),
    ] {
        world.daemon_config(text);
        let ended = run(&mut world.multusd());
        assert_eq!(ended.code, Some(1), "{text}: {ended:?}");
        assert!(ended.err.contains(words) && ended.err.contains("multusd.toml"), "{text}: {ended:?}");
        assert!(!ended.err.contains("panicked"), "{ended:?}");
    }
}

#[test]
fn a_runtime_or_configuration_directory_that_cannot_be_used_is_named() {
    let world = World::new();
    for option in ["--runtime-dir", "--config-dir"] {
        let ended = run(world.multusd().arg(option).arg("/proc/no/such/place"));
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains("/proc/no/such/place"), "{ended:?}");
    }
    for usage in [&["--fly"][..], &["extra"], &["--config-dir"]] {
        assert_eq!(run(world.multusd().args(usage)).code, Some(2), "{usage:?}");
    }
}

#[test]
fn without_a_directory_for_logs_or_state_children_run_all_the_same_and_the_status_says_so() {
    let mut world = World::new();
    world.child("pump", &shell("while :; do echo working hard; sleep 0.01; done"));
    world.use_dirs(|dirs| dirs.logs = "/proc/no/such/logs".into());
    world.use_dirs(|dirs| dirs.state = "/proc/no/such/state".into());
    world.start();
    send(world.until_state("pump", "running").pid.unwrap().cast_signed(), Signal::SIGKILL);
    world.event("pump", "recovered");
    let notes = world.status().daemon.notes.join("\n");
    assert!(notes.contains("/proc/no/such/logs") && notes.contains("/proc/no/such/state"), "{notes}");
}

#[test]
fn a_daemon_without_children_runs_and_takes_the_first_one() {
    let world = World::new();
    world.start();
    assert_eq!(world.status().children.len(), 0);
    world.child("pump", &shell("exec sleep 1000"));
    assert_eq!(world.ctl(&["reload"]).code, Some(0));
    world.until_state("pump", "running");
}

#[test]
fn more_instances_than_there_is_room_for_are_refused_and_the_others_run() {
    let world = World::new();
    world.daemon_config("max_children = 2\n");
    for name in ["a", "b"] {
        world.child(name, &shell("exec sleep 1000"));
    }
    world.start();
    world.until_state("a", "running");
    world.until_state("b", "running");
    world.child("c", &shell("exec sleep 1000"));
    let ended = world.ctl(&["reload"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("max_children"), "{ended:?}");
    for name in ["a", "b"] {
        assert_eq!(world.of(name).state, "running");
    }
}
