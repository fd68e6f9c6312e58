//! What cannot be started is told apart from what crashes, and is tried again.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::world::{Spec, World, needs_root, program, shell};

/// A child that never becomes its program: what the fault says, and that the next try comes.
fn assert_exec_fails(world: &World, spec: &Spec, words: &[&str]) {
    world.child("pump", &spec.clone().heartbeat("method = \"none\"").delays("[\"50ms\"]"));
    world.child("fan", &shell("exec sleep 1000"));
    world.start();
    let fault = world.event("pump", "fault");
    assert_eq!(fault.fault.as_deref(), Some("exec-failed"), "{fault:?}");
    for word in words {
        assert!(fault.detail.contains(word), "{word:?} in {:?}", fault.detail);
    }
    world.event_after(fault.seq + 1, "pump", "fault");
    assert!(world.events().iter().all(|e| e.fault.as_deref() != Some("crash")), "it is no crash");
    assert_eq!(world.until_state("fan", "running").last_fault, None);
}

#[test]
fn a_missing_program_is_reported_as_such_and_started_when_it_is_there() {
    let world = World::new();
    let path = world.path("later");
    assert_exec_fails(&world, &Spec::of(&[path.to_str().unwrap()]), &["cannot be executed", "ENOENT"]);
    let new = world.path("new");
    fs::write(&new, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, path).unwrap();
    world.until_state("pump", "running");
    world.event("pump", "recovered");
}

#[test]
fn a_bare_name_that_is_in_no_directory_is_reported_as_missing() {
    assert_exec_fails(&World::new(), &Spec::of(&["no-such-program-anywhere"]), &["cannot be executed"]);
}

#[test]
fn a_program_without_permission_to_execute_is_reported_as_such() {
    let world = World::new();
    let path = world.path("plain");
    fs::write(&path, "#!/bin/sh\n").unwrap();
    assert_exec_fails(&world, &Spec::of(&[path.to_str().unwrap()]), &["cannot be executed", "EACCES"]);
}

#[test]
fn a_script_whose_interpreter_is_missing_is_told_apart_from_a_missing_script() {
    let world = World::new();
    let path = world.path("script");
    fs::write(&path, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert_exec_fails(&world, &Spec::of(&[path.to_str().unwrap()]), &["interpreter", "ENOENT"]);
}

#[test]
fn a_file_that_is_no_program_is_reported_as_such() {
    let world = World::new();
    let path = world.path("data");
    fs::write(&path, [0x7f, 0, 1, 2, 3, 255]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert_exec_fails(&world, &Spec::of(&[path.to_str().unwrap()]), &["cannot be executed", "ENOEXEC"]);
}

#[test]
fn a_directory_in_place_of_the_program_is_reported_as_such() {
    let world = World::new();
    let path = world.path("folder");
    fs::create_dir(&path).unwrap();
    assert_exec_fails(&world, &Spec::of(&[path.to_str().unwrap()]), &["cannot be executed", "EACCES"]);
}

#[test]
fn an_unknown_user_is_reported_and_nothing_runs_as_somebody_else() {
    let spec = Spec::of(&["/bin/sleep", "1000"]).key("user = \"no-such-user\"");
    assert_exec_fails(&World::new(), &spec, &["user or group"]);
}

#[test]
fn an_ordinary_user_cannot_start_a_child_as_root() {
    let spec = Spec::of(&["/bin/sleep", "1000"]).key("user = \"root\"");
    assert_exec_fails(&World::ordinary(), &spec, &["user or group", "EPERM"]);
}

#[test]
fn a_missing_working_directory_is_reported_as_such() {
    let spec = Spec::of(&["/bin/sleep", "1000"]).key("working_dir = \"/no/such/directory\"");
    assert_exec_fails(&World::new(), &spec, &["working directory", "ENOENT"]);
}

#[test]
fn a_child_that_does_not_get_ready_is_killed_after_its_start_up_time() {
    let world = World::new();
    let spec = program("never-ready").once(&world.path("once")).heartbeat("startup = \"400ms\"").delays("[\"0s\"]");
    world.child("pump", &spec);
    world.start();
    let fault = world.event("pump", "fault");
    assert_eq!(fault.fault.as_deref(), Some("startup-timeout"), "{fault:?}");
    assert!(fault.detail.contains("400.000 ms are allowed"), "{fault:?}");
    // The second process may need longer on a busy machine, but not for ever.
    world.event("pump", "recovered");
    assert!(!crate::world::is_alive(fault.pid.expect("it had a process").cast_signed()));
}

#[test]
fn a_process_is_what_its_file_says() {
    let world = World::new();
    let script = "echo umask $(umask); echo dir $(pwd); echo files $(ulimit -n); echo core $(ulimit -c); \
                  echo level $LEVEL name $MULTUS_NAME instance $MULTUS_INSTANCE config $MULTUS_CONFIG; \
                  grep -E '^(NoNewPrivs|Cpus_allowed_list|Uid|Gid|Groups)' /proc/self/status; \
                  echo nice $(nice); echo session $(cut -d' ' -f6 /proc/$$/stat) $$; \
                  echo fds; ls /proc/$$/fd; echo the end; exec sleep 1000";
    let spec = shell(script)
        .key("umask = \"0027\"")
        .key("working_dir = \"/tmp\"")
        .variable("LEVEL", "5")
        .table("[limits]\nopen_files = 77\ncore = 0\n[schedule]\nnice = 3\ncpus = [0]");
    world.child("pump", &spec);
    world.start();
    world.until_logged("pump", "the end");
    let config = world.dirs().parameter_file("pump");
    let log = world.log("pump");
    for expected in [
        "umask 0027",
        "dir /tmp",
        "files 77",
        "core 0",
        &format!("level 5 name pump instance 0 config {}", config.display()),
        "NoNewPrivs:\\t1",
        "Cpus_allowed_list:\\t0",
        "nice 3",
    ] {
        let expected = expected.replace("\\t", "\t");
        assert!(log.contains(&expected), "{expected:?} in\n{log}");
    }
    let session = log.lines().find_map(|l| l.split_once(" session ")).expect("a session").1;
    let (own, process) = session.split_once(' ').expect("two numbers");
    assert_eq!(own, process, "it leads a session of its own");
    let mut lines = log.lines().filter_map(|l| l.split_once(" out ")).map(|(_, text)| text);
    lines.find(|text| *text == "fds").expect("its descriptors");
    let fds: Vec<&str> = lines.take_while(|text| *text != "the end").collect();
    assert_eq!(fds, ["0", "1", "2"], "it inherits nothing else");
}

#[test]
fn a_child_runs_as_its_user_without_the_groups_of_root() {
    if !needs_root("a_child_runs_as_its_user_without_the_groups_of_root") {
        return;
    }
    let world = World::with(&[("pump", shell("id -u; id -g; id -G; exec sleep 1000").key("user = \"nobody\""))]);
    world.until_state("pump", "running");
    world.until("three lines", |world| world.log("pump").lines().filter(|l| l.contains(" out ")).count() == 3);
    let log = world.log("pump");
    let numbers: Vec<&str> = log.lines().filter_map(|l| l.split_once(" out ")).map(|(_, n)| n).collect();
    assert_eq!(numbers[0], "65534");
    assert_eq!(numbers[1], numbers[2], "no group but its own");
    assert_ne!(numbers[1], "0");
}
