//! Inputs and outputs with the real multusd and the real multus-io, on a simulated board: whatever breaks, the outputs are
//! safe. The programs of other packages are found beside multusd, where building the workspace puts them.

#[allow(dead_code, unused_imports, reason = "shared with other tests, which use more of it")]
#[path = "world/mod.rs"]
mod world;

use std::path::Path;
use std::process::Command;

use multus_contract::api::command::Request;
use multus_contract::api::io::{IoLine, IoStatus};
use multus_hardware::sim::{self, Fault, Panel};
use nix::sys::signal::Signal;

use world::{Spec, World, program, python, send, shell};

const HARDWARE: &str = r#"
board = "sim"
[lines]
DI1 = { kind = "digital-input", gpio = 4, active_low = true, bias = "pull-up" }
DO1 = { kind = "digital-output", gpio = 25, active_low = true, safe = "off", owner = "pump" }
DO2 = { kind = "digital-output", gpio = 24, safe = "on", owner = "pump" }
DO3 = { kind = "digital-output", gpio = 23, safe = "off" }
XO1 = { kind = "digital-output", pcf8574 = { address = 0x38, pin = 0 }, safe = "off", owner = "pump" }
AO1 = { kind = "analogue-output", mcp4922 = { channel = 0 }, safe = 2.5, owner = "pump" }
"#;

/// A plant: multus-io and one child that wants everything at the other value than the safe one.
struct Plant {
    world: World,
    panel: Panel,
}

impl Plant {
    fn new(more_daemon: &str) -> Self {
        let world = World::new();
        std::fs::write(world.dirs().config.join("hardware.toml"), HARDWARE).expect("own file");
        world.daemon_config(more_daemon);
        std::fs::create_dir_all(&world.dirs().runtime).expect("own directory");
        let panel = Panel::open(&sim::file_of(world.dirs())).expect("own file");
        world.child("io", &scanner());
        world.child("pump", &pump());
        Self { world, panel }
    }

    fn started() -> Self {
        Self::started_with("")
    }

    fn started_with(more_daemon: &str) -> Self {
        let plant = Self::new(more_daemon);
        plant.world.start();
        plant.until_working();
        plant
    }

    fn until_working(&self) {
        self.world.until("the plant works", |_| self.works());
    }

    /// The levels that the pump wants.
    fn works(&self) -> bool {
        self.level(25) == Some(false) && self.level(24) == Some(false) && self.analogue() == Some(3276)
    }

    /// The levels of `hardware.toml`.
    fn is_safe(&self) -> bool {
        self.level(25) == Some(true)
            && self.level(24) == Some(true)
            && self.level(23) == Some(false)
            && self.analogue() == Some(1024)
            && self.expander() == Some(0xfe)
    }

    fn level(&self, number: u32) -> Option<bool> {
        self.panel.output(number).expect("own file").map(|(is_high, _)| is_high)
    }

    fn analogue(&self) -> Option<u16> {
        self.panel.converted(0).expect("own file").map(|(raw, _)| raw)
    }

    fn expander(&self) -> Option<u8> {
        self.panel.sent(0x38).expect("own file").map(|(byte, _)| byte)
    }

    fn io(&self) -> IoStatus {
        let data = self.world.ask(&Request::Io).expect("the daemon answers").expect("with data");
        serde_json::from_value(data).expect("an I/O status")
    }

    fn line(&self, name: &str) -> IoLine {
        self.io().lines.into_iter().find(|line| line.name == name).expect("a line of hardware.toml")
    }

    fn event_of_daemon(&self, since: u64, kind: &str) -> String {
        let what = format!("event {kind}");
        self.world.event_since(since, &what, |event| event.kind == kind && event.child.is_none()).detail
    }
}

fn scanner() -> Spec {
    Spec::of(&["multus-io"]).deadline("1s").table("[restart]\ndelays = [\"0s\"]")
}

/// A child of the tests that sets outputs as its environment says.
fn pump() -> Spec {
    let wants = "DO1=1 DO2=0 XO1=1 AO1=8";
    program("outputs").variable("TEST_OUTPUTS", wants).key("after = [\"io\"]").deadline("1s").delays("[\"1h\"]")
}

#[test]
fn a_child_that_fails_has_its_outputs_forced_and_gets_them_back_when_it_is_ready_again() {
    let plant = Plant::started();
    let pump = plant.world.pid_of("pump");
    assert!(plant.world.of("pump").forced_outputs.iter().all(|output| !output.forced), "it works");
    send(pump, Signal::SIGSTOP);
    plant.world.until_state("pump", "backoff");
    plant.world.until("its outputs are safe", |_| plant.is_safe());
    assert_eq!(plant.line("DO1").source, "forced");
    let forced = plant.world.of("pump").forced_outputs;
    assert!(forced.len() == 4 && forced.iter().all(|output| output.forced), "{forced:?}");
    plant.world.tell(&Request::Start { name: "pump".into() });
    plant.until_working();
    assert!(plant.io().forced_us.max > 0.0, "how long it took was measured");
}

/// The same as [`OWNER_IN_PYTHON`] does, in C.
fn owner_in_c(world: &World) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in the target directory");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--offline", "-p", "multus-c", "--target-dir"]).arg(target).current_dir(root);
    let built = world::run(&mut build);
    assert_eq!(built.code, Some(0), "{built:?}");
    let program = world.path("owner");
    let mut compile = Command::new("cc");
    compile.args([&format!("-I{root}/ipc/include"), &format!("{root}/core/tests/owner.c")]);
    compile.arg(target.join("debug/libmultus.a")).args(["-pthread", "-ldl", "-lm", "-o"]).arg(&program);
    let compiled = world::run(&mut compile);
    assert_eq!(compiled.code, Some(0), "{compiled:?}");
    program.display().to_string()
}

const OWNER_IN_PYTHON: &str = "
from multus import Heartbeat, Io
heartbeat, io = Heartbeat.from_env(), Io.from_env()
button, lamp, seen = io.input('DI1'), io.output('DO2'), 0
heartbeat.ready()
while True:
    lamp.set(bool(button.good()))
    heartbeat.beat()
    seen = io.wait_change(seen, 0.02)
";

#[test]
fn owners_in_c_and_in_python_have_their_outputs_and_leave_them_safe() {
    let Some(python) = python("owners_in_c_and_in_python_have_their_outputs_and_leave_them_safe") else { return };
    let plant = Plant::new("");
    let of_these =
        HARDWARE.replace("safe = \"off\", owner = \"pump\" }\nDO2", "safe = \"off\", owner = \"in-c\" }\nDO2");
    let of_these = of_these.replace("safe = \"on\", owner = \"pump\"", "safe = \"on\", owner = \"in-python\"");
    std::fs::write(plant.world.dirs().config.join("hardware.toml"), of_these).expect("own file");
    let owner = |command: &[&str]| Spec::of(command).key("after = [\"io\"]").deadline("5s").delays("[\"1h\"]");
    plant.world.child("in-c", &owner(&[&owner_in_c(&plant.world)]));
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/../ipc/python");
    plant.world.child("in-python", &owner(&[&python, "-c", OWNER_IN_PYTHON]).variable("PYTHONPATH", package));
    plant.world.start();
    // DI1 and DO1 are on when they are low.
    for is_pressed in [true, false, true] {
        plant.panel.drive(4, Some(!is_pressed)).expect("own file");
        plant
            .world
            .until("the lamps follow", |_| plant.level(25) == Some(!is_pressed) && plant.level(24) == Some(is_pressed));
    }
    plant.panel.drive(4, Some(true)).expect("own file");
    plant.world.until("the lamp in Python is not as it is when it is safe", |_| plant.level(24) == Some(false));
    plant.panel.drive(4, Some(false)).expect("own file");
    plant.world.until("the lamp in C likewise", |_| plant.level(25) == Some(false));
    for name in ["in-c", "in-python"] {
        send(plant.world.pid_of(name), Signal::SIGKILL);
    }
    plant.world.until("safe", |_| plant.level(25) == Some(true) && plant.level(24) == Some(true));
    plant.world.until("forced", |_| ["DO1", "DO2"].iter().all(|name| plant.line(name).source == "forced"));
}

#[test]
fn a_scanner_that_is_killed_leaves_the_outputs_safe_and_its_successor_goes_on() {
    let plant = Plant::new("");
    // It does not come back by itself: what is safe then was made so by multusd.
    plant.world.child("io", &Spec::of(&["multus-io"]).deadline("1s").delays("[\"1h\"]"));
    plant.world.start();
    plant.until_working();
    let since = plant.world.next_seq();
    send(plant.world.pid_of("io"), Signal::SIGKILL);
    plant.world.until("all outputs are safe", |_| plant.is_safe());
    let told = plant.event_of_daemon(since, "outputs-secured");
    assert!(told.contains("multusd has set all to their safe values"), "{told}");
    let io = plant.io();
    assert!(io.driven_by == "multusd" && !io.fresh && io.unsafe_outputs.is_empty(), "{io:?}");
    plant.world.tell(&Request::Start { name: "io".into() });
    plant.until_working();
    assert_eq!(plant.io().driven_by, "multus-io");
}

#[test]
fn a_scanner_that_does_not_obey_is_killed_and_multusd_writes_itself() {
    let plant = Plant::new("[io]\nack = \"20ms\"\n");
    plant.world.child("io", &Spec::of(&["multus-io"]).deadline("1h").delays("[\"1h\"]"));
    plant.world.start();
    plant.until_working();
    // A scanner that stands still is no fault for an hour; but outputs that must be safe do not wait for it.
    send(plant.world.pid_of("io"), Signal::SIGSTOP);
    send(plant.world.pid_of("pump"), Signal::SIGKILL);
    plant.world.until("all outputs are safe", |_| plant.is_safe());
    let fault = plant.world.event("io", "fault");
    assert_eq!(fault.fault.as_deref(), Some("unacknowledged"), "{fault:?}");
    let after = fault.detail.strip_prefix("outputs were forced, and it has not put that into force for ");
    let ms: f64 = after.and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("how long");
    assert!(ms >= 20.0, "{fault:?}");
}

#[test]
fn a_chip_that_does_not_answer_is_told_and_keeps_no_other_line_from_being_safe() {
    let plant = Plant::started();
    plant.panel.break_chip(0x38, Fault::NoAcknowledge).expect("own file");
    plant.world.until("the line is bad", |_| !plant.line("XO1").good);
    assert_told_and_nobody_killed(&plant);
}

#[test]
fn a_bus_that_hangs_is_told_and_kills_nobody() {
    let plant = Plant::started();
    plant.panel.break_chip(0x38, Fault::Hang).expect("own file");
    assert_told_and_nobody_killed(&plant);
}

/// The owner fails while one of its outputs cannot be written, which works again later.
fn assert_told_and_nobody_killed(plant: &Plant) {
    let (io, since) = (plant.world.pid_of("io"), plant.world.next_seq());
    send(plant.world.pid_of("pump"), Signal::SIGKILL);
    let told = plant.event_of_daemon(since, "outputs-unsafe");
    assert!(told.starts_with("1 forced outputs"), "{told}");
    plant.world.until("the others are safe", |_| plant.level(25) == Some(true) && plant.analogue() == Some(1024));
    assert_eq!(plant.world.pid_of("io"), io, "killing it would make no chip answer, and free no bus");
    plant.panel.break_chip(0x38, Fault::None).expect("own file");
    plant.event_of_daemon(since, "outputs-safe");
    assert!(plant.is_safe());
}

#[test]
fn an_output_that_somebody_has_keeps_no_other_from_being_safe() {
    let plant = Plant::new("");
    plant.panel.take_line(24, true).expect("own file");
    let ended = world::run(plant.world.multusd().arg("--safe-state"));
    assert_eq!((ended.code, plant.level(25), plant.level(24)), (Some(1), Some(true), None), "{ended:?}");
    assert!(ended.err.contains("DO2 (gpio 24): line 24 is taken by \"somebody\""), "{ended:?}");
    plant.world.start();
    plant
        .world
        .until("it works as far as it can", |_| plant.level(25) == Some(false) && plant.analogue() == Some(3276));
    assert!(!plant.line("DO2").good && plant.line("DO1").good);
    plant.panel.take_line(24, false).expect("own file");
    plant.until_working();
}

#[test]
fn outputs_are_safe_from_the_start_of_multusd_to_its_end() {
    let plant = Plant::new("");
    plant.panel.drive(4, Some(false)).expect("own file");
    // Nobody drives the lines: multusd does.
    plant.world.child("io", &scanner().key("enabled = false"));
    plant.world.start();
    plant.world.until("safe at the start", |_| plant.is_safe());
    plant.world.tell(&Request::Enable { name: "io".into() });
    plant.until_working();
    assert_eq!(plant.line("DI1").value, 1.0, "low means on");
    assert!(plant.world.stop().success());
    assert!(plant.is_safe());
}

#[test]
fn without_a_daemon_the_safe_state_can_be_made_by_hand() {
    let plant = Plant::started();
    plant.world.signal(Signal::SIGKILL);
    plant.world.wait_end();
    let ended = world::run(plant.world.multusd().arg("--safe-state"));
    assert_eq!((ended.code, plant.is_safe()), (Some(0), true), "{ended:?}");
    assert!(ended.out.starts_with("5 outputs have their safe values (simulated: "), "{ended:?}");
    plant.panel.break_output(24, Fault::Timeout).expect("own file");
    let ended = world::run(plant.world.multusd().arg("--safe-state"));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("not all of 5 outputs have their safe values: DO2 (gpio 24):"), "{ended:?}");
}

#[test]
fn a_hardware_file_that_broke_while_multusd_was_away_leaves_the_lines_as_they_were() {
    let plant = Plant::started();
    plant.world.signal(Signal::SIGKILL);
    plant.world.wait_end();
    let file = plant.world.dirs().config.join("hardware.toml");
    std::fs::write(&file, "[lines.DO1]\nkind = \"outputt\"\n").expect("own file");
    let ended = world::run(plant.world.multusd().arg("--safe-state"));
    assert_eq!((ended.code, plant.is_safe()), (Some(0), true), "{ended:?}");
    for words in
        ["5 outputs have their safe values", "without an error", "hardware.toml:2: lines.DO1.kind: unknown word"]
    {
        assert!(ended.out.contains(words), "{ended:?}");
    }
    plant.world.start();
    plant.until_working();
    assert!(plant.world.stop().success() && plant.is_safe());
    // Without lines that it had before nobody knows what they are.
    std::fs::remove_file(plant.world.dirs().state.join("hardware-in-force.toml")).expect("it was kept");
    let ended = world::run(plant.world.multusd().arg("--safe-state"));
    assert!(ended.code == Some(1) && ended.err.contains("hardware.toml:2: lines.DO1.kind: unknown word"), "{ended:?}");
}

#[test]
fn a_hardware_file_that_nobody_took_over_yet_is_not_what_multus_io_starts_with() {
    let plant = Plant::started();
    let file = plant.world.dirs().config.join("hardware.toml");
    std::fs::write(&file, HARDWARE.replace("gpio = 23", "gpio = 22")).expect("own file");
    let io = plant.world.pid_of("io");
    send(io, Signal::SIGKILL);
    plant.world.until_replaced("io", io);
    plant.until_working();
    assert_eq!(plant.world.ctl(&["io", "set", "DO3", "on"]).code, Some(0));
    plant.world.until("the line that multusd knows", |_| plant.level(23) == Some(true));
    let io = plant.world.pid_of("io");
    plant.world.tell(&Request::Reload);
    plant.world.until_replaced("io", io);
    assert_eq!(plant.world.ctl(&["io", "set", "DO3", "on"]).code, Some(0));
    plant.world.until("the new line", |_| plant.level(22) == Some(true));
}

#[test]
fn people_set_hold_and_release_what_they_may() {
    let plant = Plant::started();
    let ctl = |arguments: &[&str]| plant.world.ctl(arguments);
    assert_eq!(ctl(&["io", "set", "DO3", "on"]).code, Some(0));
    plant.world.until("it is set", |_| plant.level(23) == Some(true));
    assert_eq!(ctl(&["io", "set", "DI1", "on"]).code, Some(0));
    plant.world.until("the input is driven", |_| plant.line("DI1").value == 1.0);
    assert_eq!(ctl(&["io", "force", "DO1", "off"]).code, Some(0));
    plant.world.until("it is held", |_| plant.level(25) == Some(true));
    assert!(plant.world.status().daemon.notes.iter().any(|note| note.contains("DO1 is held at 0 by a person")));
    assert_eq!((plant.line("DO1").held, plant.line("DO2").held), (Some(0.0), None));
    for (arguments, reason) in [
        (["io", "set", "DO1", "off"], "DO1 is owned by pump"),
        (["io", "set", "DO9", "off"], "there is no line \"DO9\""),
        (["io", "force", "DO3", "0.5"], "0.5 is out of range for DO3, expected 0 or 1"),
        (["io", "force", "AO1", "10.5"], "10.5 is out of range for AO1, expected 0 to 10 V"),
        (["io", "force", "DI1", "on"], "DI1 is an input"),
        (["io", "set", "DI1", "7"], "7 is no value of a digital input"),
    ] {
        let ended = ctl(&arguments);
        assert!(ended.code == Some(1) && ended.err.contains(reason), "{arguments:?}: {ended:?}");
    }
    let ended = ctl(&["io", "force", "DO1", "maybe"]);
    assert!(ended.code == Some(2) && ended.err.contains("expected \"on\", \"off\" or a number"), "{ended:?}");
    // A safe state goes before what a person holds.
    assert_eq!(ctl(&["io", "force", "AO1", "9"]).code, Some(0));
    plant.world.until("it is held", |_| plant.analogue() == Some(3686));
    send(plant.world.pid_of("pump"), Signal::SIGKILL);
    plant.world.until("it is safe", |_| plant.analogue() == Some(1024));
    plant.world.tell(&Request::Start { name: "pump".into() });
    plant.world.until("it is held again", |_| plant.analogue() == Some(3686));
    for name in ["DO1", "AO1"] {
        assert_eq!(ctl(&["io", "release", name]).code, Some(0));
    }
    plant.until_working();
    assert!(ctl(&["io", "release", "DO1"]).err.contains("DO1 is not held by a person; none is"));
    let listed = ctl(&["io", "list"]).out;
    assert!(listed.contains("NO HARDWARE") && listed.contains("DO3  digital-output   "), "{listed}");
    let tested = ctl(&["io", "test", "--output", "DO3"]);
    assert!(tested.code == Some(0) && tested.out.contains("DO3 can be held at 1"), "{tested:?}");
}

#[test]
fn a_test_of_the_board_leaves_nothing_held_however_it_ends() {
    let plant = Plant::started();
    assert_eq!(plant.world.ctl(&["io", "force", "DO1", "off"]).code, Some(0));
    let tested = plant.world.ctl(&["io", "test", "--output", "DO1"]);
    assert!(tested.code == Some(1) && tested.out.contains("DO1 is held by a person, so it is not tried"), "{tested:?}");
    assert_eq!(plant.line("DO1").held, Some(0.0));
    // It cannot be held, so the test waits for it.
    plant.panel.break_output(23, Fault::Timeout).expect("own file");
    let mut test = plant.world.command(env!("CARGO_BIN_EXE_multusctl"));
    let mut test = test.args(["io", "test", "--output", "DO3"]).spawn().expect("it was built");
    plant.world.until("it is tried", |_| plant.line("DO3").held.is_some());
    send(test.id().cast_signed(), Signal::SIGINT);
    assert!(!test.wait().expect("it was started").success());
    assert_eq!(plant.line("DO3").held, None);
}

#[test]
fn who_asks_for_outputs_of_others_is_refused_and_that_is_told() {
    let plant = Plant::started();
    let thief = program("outputs").variable("TEST_OUTPUTS", "raw:DO1=0").deadline("1s");
    std::fs::write(
        plant.world.dirs().config.join("hardware.toml"),
        format!("{HARDWARE}DO4 = {{ kind = \"digital-output\", gpio = 22, safe = \"off\", owner = \"thief\" }}\n"),
    )
    .expect("own file");
    plant.world.child("thief", &thief);
    let since = plant.world.next_seq();
    let io = plant.world.pid_of("io");
    plant.world.tell(&Request::Reload);
    plant.world.until_replaced("io", io);
    plant.event_of_daemon(since, "requests-refused");
    plant.until_working();
    assert!(plant.io().refused > 0);
    plant.world.until_logged("io", "thief");
    let words = "a request of thief for the line DO1 is refused: the line is not owned";
    plant.world.event_since(since, "who it was", |event| event.kind == "notice" && event.detail.starts_with(words));
}

#[test]
fn a_hardware_file_that_breaks_leaves_everything_as_it_is_and_one_that_is_mended_is_taken_over() {
    let plant = Plant::started();
    let file = plant.world.dirs().config.join("hardware.toml");
    let write = |text: &str| std::fs::write(&file, text).expect("own file");
    let io = plant.world.pid_of("io");
    write("[lines.DO1]\nkind = \"outputt\"\n");
    plant.world.tell(&Request::Reload);
    let checked = plant.world.ctl(&["check"]);
    assert!(checked.code == Some(1) && checked.out.contains("hardware.toml:2"), "{checked:?}");
    // multus-io reads the file at its start only, and is not started anew for a file that cannot be used.
    assert_eq!(plant.world.pid_of("io"), io);
    write(&HARDWARE.replace("gpio = 23", "gpio = 22"));
    plant.world.tell(&Request::Reload);
    plant.world.until_replaced("io", io);
    assert_eq!(plant.world.ctl(&["io", "set", "DO3", "on"]).code, Some(0));
    plant.world.until("the new line", |_| plant.level(22) == Some(true));
    plant.until_working();
}

#[test]
fn lines_that_come_later_are_there_for_whoever_is_started_then() {
    let plant = Plant::new("");
    let file = plant.world.dirs().config.join("hardware.toml");
    std::fs::remove_file(&file).expect("it was written");
    plant.world.child("reader", &shell("echo \"image: $MULTUS_IO_IMAGE_FD.\"; exec sleep 1000"));
    plant.world.start();
    plant.world.until_logged("reader", "image: .");
    std::fs::write(&file, HARDWARE).expect("own file");
    let reader = plant.world.pid_of("reader");
    plant.world.tell(&Request::Reload);
    plant.until_working();
    assert_eq!(plant.world.pid_of("reader"), reader, "nothing that it has has changed");
    plant.world.tell(&Request::Restart { name: "reader".into() });
    plant.world.until_replaced("reader", reader);
    plant.world.wait("the image", |world| {
        let log = std::fs::read_to_string(world.dirs().child_log("reader")).ok()?;
        log.lines().any(|line| line.contains("image: ") && !line.ends_with("image: .")).then_some(())
    });
}

#[test]
fn lines_that_nobody_drives_are_held_safe_and_that_is_told() {
    let plant = Plant::new("[io]\nchild = \"scanner\"\n");
    plant.world.start();
    plant.world.until("safe", |_| plant.is_safe());
    let checked = plant.world.ctl(&["check"]);
    assert!(checked.out.contains("no child \"scanner\" is configured: nobody drives the lines"), "{checked:?}");
    assert_eq!(plant.io().driven_by, "multusd");
}

/// Not a test: the program that the tests have supervised. Alone it does nothing.
#[test]
fn child() {
    world::child::main();
}

/// The programs of other packages must be there.
#[test]
fn the_workspace_was_built() {
    let beside = Path::new(env!("CARGO_BIN_EXE_multusd")).with_file_name("multus-io");
    assert!(beside.exists(), "{} is missing: cargo build --workspace", beside.display());
}
