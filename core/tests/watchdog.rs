//! Watchdogs, escalation and the reason of the last reset, with real daemons and a simulated watchdog. Another start of the machine
//! is another boot id in the file that the daemon finds.
//!
//! What a real watchdog does is tried in the laboratory.

#[allow(dead_code, reason = "most of it is for the end-to-end tests")]
mod world;

use std::fs;
use std::path::PathBuf;

use multus_contract::api::command::Request;
use multus_contract::api::reset::LastReset;
use multus_hardware::sim::{Panel, file_of};
use multusd::watchdog;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use world::{World, program, shell, skip};

/// Not a test: the program that is supervised. Alone it does nothing.
#[test]
fn child() {
    world::child::main();
}

const SIM: &str = "[[watchdog]]\ndevice = \"sim\"\ntimeout = \"1s\"\n";

/// State and pets of the simulated watchdog.
fn sim(world: &World) -> (String, u64) {
    let line = fs::read_to_string(watchdog::file_of(world.dirs())).unwrap_or_default();
    let mut words = line.split_whitespace();
    let state = words.next().unwrap_or_default().to_owned();
    (state, words.next().and_then(|pets| pets.parse().ok()).unwrap_or(0))
}

fn until_petted(world: &World) {
    let before = sim(world).1;
    world.until("it is petted again and again", |world| sim(world).1 >= before + 3);
}

/// Waits until no pet has come for as long as the watchdog waits for one.
fn until_bitten(world: &World) {
    let mut last = (sim(world).1, std::time::Instant::now());
    world.until("it is no longer petted", |world| {
        let pets = sim(world).1;
        if pets != last.0 {
            last = (pets, std::time::Instant::now());
        }
        last.1.elapsed().as_secs() >= 2
    });
}

fn watchdog_state(world: &World) -> String {
    world.status().daemon.watchdogs[0].state.clone()
}

fn book(world: &World) -> PathBuf {
    world.dirs().state.join("reset.json")
}

fn read_book(world: &World) -> Value {
    let text = fs::read_to_string(book(world)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

/// As if the machine had been started anew since the daemon last wrote.
fn another_boot(world: &World) {
    let mut value = read_book(world);
    value["boot_id"] = "another".into();
    // The clock of the test machine goes on, so what it counted is no earlier start's.
    value["uptime_s"] = 0.into();
    fs::write(book(world), value.to_string()).expect("own file");
}

fn last_reset(world: &World) -> LastReset {
    world.status().daemon.last_reset.expect("it is always told")
}

fn kill_daemon(world: &World) {
    world.signal(Signal::SIGKILL);
    world.wait_end();
}

fn has_note(world: &World, text: &str) -> bool {
    world.status().daemon.notes.iter().any(|note| note.contains(text))
}

/// Crashes at once, again and again.
fn broken() -> world::Spec {
    shell("exit 1").delays("[\"50ms\"]").key("critical = true").key("recovery = \"1s\"")
}

#[test]
fn a_simulated_watchdog_is_petted_says_loudly_what_it_is_and_is_switched_off_by_an_orderly_end() {
    let world = World::new();
    world.daemon_config(SIM);
    world.child("pump", &program("beat").deadline("20s").key("critical = true"));
    world.start();
    world.until_state("pump", "running");
    until_petted(&world);
    world.until("it is said", |world| has_note(world, "watchdog sim: SIMULATED: nothing resets this machine"));
    world.event_since(0, "an event says it, too", |e| e.kind == "reduced" && e.detail.contains("SIMULATED"));
    assert_eq!(world.status().daemon.watchdogs[0].timeout_s, Some(1));
    assert!(world.stop().success());
    assert_eq!(sim(&world).0, "off");
}

#[test]
fn a_daemon_that_is_stopped_or_killed_pets_no_longer() {
    let world = World::new();
    world.daemon_config(SIM);
    world.start();
    until_petted(&world);
    world.signal(Signal::SIGSTOP);
    until_bitten(&world);
    world.signal(Signal::SIGCONT);
    until_petted(&world);
    kill_daemon(&world);
    until_bitten(&world);
    assert_eq!(sim(&world).0, "armed", "nobody switched it off");
    world.start();
    until_petted(&world);
    let last = last_reset(&world);
    assert!(last.daemon_only && !last.ended_in_order, "{last:?}");
    assert_eq!(last.cause, "first-start", "the machine itself did not restart");
}

#[test]
fn petting_stops_while_the_watch_thread_alone_stands_still_and_that_is_written_down() {
    let test = "petting_stops_while_the_watch_thread_alone_stands_still_and_that_is_written_down";
    let world = World::new();
    world.daemon_config(SIM);
    world.start();
    until_petted(&world);
    let Some(thread) = thread_of(world.pid(), "multus-watch") else { panic!("there is a watch thread") };
    if let Err(errno) = ptrace::seize(thread, ptrace::Options::empty()) {
        skip(test, &format!("threads cannot be held: {errno}"));
        return;
    }
    ptrace::interrupt(thread).expect("seized");
    waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
    until_bitten(&world);
    world.until("the other threads work", |world| watchdog_state(world) == "withheld");
    world.until("it is written down", |world| {
        read_book(world)["ending"]["reason"].as_str().is_some_and(|reason| reason.contains("was not on time"))
    });
    ptrace::detach(thread, None).expect("seized");
    until_petted(&world);
    world.until("it is taken back", |world| read_book(world)["ending"].is_null());
    world.event_since(0, "that it was withheld", |e| e.kind == "watchdog-withheld" && e.detail.contains("not on time"));
    world.event_since(0, "that it is petted", |e| e.kind == "watchdog-petted");
}

/// The thread of a process with this name.
fn thread_of(pid: i32, name: &str) -> Option<Pid> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    threads.flatten().find_map(|entry| {
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        let tid = entry.file_name().to_str()?.parse().ok()?;
        (comm.trim() == name).then_some(Pid::from_raw(tid))
    })
}

#[test]
fn a_critical_child_that_stays_broken_ends_the_petting_is_named_after_the_reset_and_not_more_often_than_allowed() {
    let world = World::new();
    world.daemon_config(&format!("{SIM}[escalation]\nreboots_per_hour = 1\n"));
    world.child("pump", &broken());
    world.child("fan", &shell("exec sleep 1000"));
    world.start();
    world.event_since(0, "it is told", |e| e.kind == "watchdog-withheld" && e.detail.contains("critical child pump"));
    until_bitten(&world);
    let ending = read_book(&world)["ending"].clone();
    assert_eq!((ending["child"].as_str(), ending["action"].as_str()), (Some("pump"), Some("withhold")), "{ending}");
    assert_eq!(world.of("fan").state, "running", "supervision goes on");

    // The machine is reset.
    kill_daemon(&world);
    another_boot(&world);
    world.start();
    let last = last_reset(&world);
    assert_eq!((last.cause.as_str(), last.child.as_deref(), last.boots), ("watchdog", Some("pump"), 2), "{last:?}");
    assert!(last.evidence.iter().any(|e| e.contains("watchdog sim says: it reset the machine")), "{last:?}");
    world.event_since(0, "an event", |e| e.kind == "last-reset" && e.detail.contains("critical child pump"));
    let told = world.ctl(&["last-reset"]);
    assert!(told.code == Some(0) && told.out.starts_with("watchdog: ") && told.out.contains("child pump"), "{told:?}");
    let json: LastReset = serde_json::from_str(&world.ctl(&["last-reset", "--json"]).out).expect("JSON");
    assert_eq!(json.counts["watchdog"], 1);
    let header = world.ctl(&["status"]).out;
    assert!(header.contains("last reset of the machine: watchdog"), "{header}");

    // It is broken still, but this hour's reset is used up.
    world.event_since(0, "the guard", |e| e.kind == "loop-guard");
    world.until("the status says it loudly", |world| has_note(world, "LOOP GUARD"));
    until_petted(&world);
    world.tell(&Request::Stop { name: "pump".into() });
    world.until("the alarm ends with what it was about", |world| !has_note(world, "LOOP GUARD"));
}

#[test]
fn a_person_puts_a_critical_child_in_order_by_stopping_disabling_or_snoozing_it() {
    let world = World::new();
    world.daemon_config(SIM);
    world.child("pump", &broken());
    world.start();
    let name = || "pump".to_owned();
    let (start, stop) = (Request::Start { name: name() }, Request::Stop { name: name() });
    let (enable, disable) = (Request::Enable { name: name() }, Request::Disable { name: name() });
    let snooze = |seconds| Request::Snooze { name: name(), seconds };
    for (off, on) in [(stop, start), (snooze(900), snooze(0)), (disable, enable)] {
        world.until("it is withheld", |world| watchdog_state(world) == "withheld");
        world.tell(&off);
        world.until("it is petted", |world| watchdog_state(world) == "petted");
        until_petted(&world);
        world.until("nothing is announced", |world| read_book(world)["ending"].is_null());
        world.tell(&on);
    }
}

#[test]
fn escalation_restarts_all_children_then_the_machine_and_says_so_afterwards() {
    let world = World::new();
    let marker = world.path("rebooted");
    let config = |command: &str| {
        format!(
            "{SIM}[escalation]\nrestart_all_after = \"2s\"\nreboot_after = \"15s\"\n[reboot]\ncommand = [{command}]\n"
        )
    };
    world.daemon_config(&config(&format!("\"/usr/bin/touch\", \"{}\"", marker.display())));
    // In order for the watchdog: only the escalation acts.
    world.child("pump", &shell("exit 1").delays("[\"50ms\"]").key("critical = true").key("recovery = \"1h\""));
    world.child("fan", &shell("exec sleep 1000"));
    world.child("off", &shell("exec sleep 1000").key("enabled = false"));
    world.start();
    let fan = world.until_state("fan", "running").pid.expect("it runs").cast_signed();
    world.until_replaced("fan", fan);
    let event = world.event_since(0, "the first step", |e| e.kind == "escalated");
    assert!(event.detail.contains("pump has been out of order") && event.detail.contains("all children are restarted"));
    assert_eq!(world.of("off").state, "disabled");
    assert!(world.wait_end().success());
    assert!(marker.exists(), "the machine was started anew");
    assert_eq!(sim(&world).0, "off", "it goes down in order");
    let written = read_book(&world);
    assert_eq!((&written["clean"], written["ending"]["by"].as_str()), (&Value::Bool(true), Some("escalation")));

    another_boot(&world);
    world.child("pump", &shell("exec sleep 1000").key("critical = true"));
    world.start();
    let last = last_reset(&world);
    let who = (last.cause.as_str(), last.by.as_deref(), last.child.as_deref());
    assert_eq!(who, ("requested", Some("escalation"), Some("pump")));
    assert!(!last.is_ordinary() && last.ended_in_order);
    assert!(world.ctl(&["status"]).out.contains("last reset of the machine"));
}

#[test]
fn a_reboot_that_does_not_come_about_leaves_the_machine_to_the_watchdog() {
    let world = World::new();
    world.daemon_config(&format!("{SIM}[reboot]\ncommand = [\"/bin/false\"]\n"));
    world.start();
    until_petted(&world);
    world.tell(&Request::Reboot { seconds: 0 });
    assert_eq!(world.wait_end().code(), Some(1));
    assert_eq!(sim(&world).0, "armed");
    world.start();
    world.until("it is told", |world| has_note(world, "has not come about"));
}

#[test]
fn what_a_person_asked_for_is_told_and_is_nothing_to_worry_about() {
    let world = World::new();
    world.daemon_config("[reboot]\ncommand = [\"/bin/true\"]\n");
    world.start();
    assert_eq!(last_reset(&world).cause, "first-start");
    assert_eq!(world.ctl(&["reboot"]).code, Some(0));
    assert!(world.wait_end().success());
    another_boot(&world);
    world.start();
    let last = last_reset(&world);
    assert_eq!((last.cause.as_str(), last.by.as_deref()), ("requested", Some("person")));
    assert!(last.detail.contains("asked for it (multusctl, process"), "{last:?}");
    assert!(last.is_ordinary() && !world.ctl(&["status"]).out.contains("last reset"));
    world.stop();
    another_boot(&world);
    world.start();
    assert_eq!(last_reset(&world).cause, "shutdown");
    kill_daemon(&world);
    another_boot(&world);
    world.start();
    let last = last_reset(&world);
    assert_eq!(last.cause, "power-loss", "{last:?}");
    let counts: Vec<(&str, u64)> = last.counts.iter().map(|(cause, n)| (cause.as_str(), *n)).collect();
    assert_eq!(counts, [("first-start", 1), ("power-loss", 1), ("requested", 1), ("shutdown", 1)]);
}

#[test]
fn what_is_no_watchdog_is_said_and_supervision_goes_on() {
    let world = World::new();
    let (file, pipe, none) = (world.path("file"), world.path("pipe"), world.path("none"));
    fs::write(&file, "").expect("own file");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("own directory");
    let config: String = [&file, &pipe, &none, &PathBuf::from("/dev/null")]
        .map(|path| format!("[[watchdog]]\ndevice = \"{}\"\ntimeout = \"15s\"\n", path.display()))
        .concat();
    world.daemon_config(&config);
    world.child("pump", &shell("exec sleep 1000").key("critical = true"));
    world.start();
    world.until_state("pump", "running");
    for (path, what) in [
        (file.as_path(), "is no device"),
        (&pipe, "is no device"),
        (&none, "there is no such device"),
        (std::path::Path::new("/dev/null"), "is no watchdog"),
    ] {
        let note = format!("watchdog {} is not there: {what}", path.display());
        world.until(&note, |world| has_note(world, &note));
    }
    assert!(world.status().daemon.watchdogs.iter().all(|w| w.state == "missing"));
    assert!(world.stop().success());
    assert_eq!(fs::read(&file).expect("own file"), b"");
}

#[test]
fn a_watchdog_chip_is_enabled_pulsed_and_switched_off() {
    let world = World::new();
    world.daemon_config("[[watchdog]]\nchip = { enable = 5, pulse = 6 }\n");
    fs::write(world.dirs().config.join("hardware.toml"), "board = \"sim\"\n").expect("own file");
    world.start();
    world.until("there is a board", |world| file_of(world.dirs()).exists());
    let panel = Panel::open(&file_of(world.dirs())).expect("the simulated board");
    let line = |number| panel.output(number).ok().flatten();
    world.until("it is enabled", |_| line(5).is_some_and(|(is_high, _)| is_high));
    let before = line(6).map_or(0, |(_, count)| count);
    world.until("pulses", |_| line(6).is_some_and(|(_, count)| count > before + 20));
    assert!(world.stop().success());
    assert_eq!([line(5), line(6)].map(|l| l.map(|(is_high, _)| is_high)), [Some(false), Some(false)]);
}

#[test]
fn a_damaged_record_is_set_aside_and_one_that_cannot_be_written_is_told() {
    let mut world = World::new();
    fs::create_dir_all(&world.dirs().state).expect("own directory");
    fs::write(book(&world), "{\"format\":1,\u{0}").expect("own file");
    world.start();
    world.until("it is told", |world| has_note(world, "is damaged"));
    assert!(world.dirs().state.join("reset.json.bad").exists());
    world.stop();

    let file = world.path("no-directory");
    fs::write(&file, "").expect("own file");
    world.use_dirs(|dirs| dirs.state = file.join("state"));
    world.daemon_config("[reboot]\ncommand = [\"/bin/true\"]\n");
    world.child("pump", &shell("exec sleep 1000").key("critical = true"));
    world.start();
    world.until_state("pump", "running");
    world.until("it is told", |world| has_note(world, "cannot be written down"));
    world.tell(&Request::Reboot { seconds: 0 });
    assert!(world.wait_end().success(), "and stops nothing");
}
