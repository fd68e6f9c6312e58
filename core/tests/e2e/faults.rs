//! What goes wrong with a child is found, told apart, and put right.

use multus_contract::api::event::Event;
use nix::sys::signal::Signal;

use crate::world::{Spec, World, program, python, send, shell};

/// All times of a fault that was found by its deadline are there and in order.
fn assert_in_order(recovered: &Event) {
    let e = recovered;
    let times = [
        ("last beat", e.last_beat_ns),
        ("deadline", e.deadline_ns),
        ("detected", e.detected_ns),
        ("safe", e.safe_ns),
        ("killed", e.killed_ns),
        ("reaped", e.reaped_ns),
        ("spawned", e.spawned_ns),
        ("ready", e.ready_ns),
    ];
    let mut before = 0;
    for (name, time) in times {
        let time = time.unwrap_or_else(|| panic!("no time for {name} in {recovered:?}"));
        assert!(time >= before, "{name} is before what comes before it: {recovered:?}");
        before = time;
    }
}

#[test]
fn a_crash_by_exit_code_is_a_fault_and_the_process_is_back() {
    let world = World::new();
    let marker = world.path("crashed");
    world.child("pump", &shell(&format!("[ -e {0} ] || {{ touch {0}; exit 3; }}; exec sleep 1000", marker.display())));
    world.start();
    let fault = world.event("pump", "fault");
    assert_eq!(fault.fault.as_deref(), Some("crash"), "{fault:?}");
    assert_eq!(fault.detail, "ended by itself with exit code 3");
    let recovered = world.event("pump", "recovered");
    assert_ne!(recovered.pid, fault.pid);
    assert!(recovered.reaped_ns <= recovered.spawned_ns && recovered.spawned_ns <= recovered.ready_ns);
    let status = world.of("pump");
    assert_eq!((status.state.as_str(), status.restarts, status.pid), ("running", 1, recovered.pid));
    let last = status.last_fault.expect("the fault is remembered");
    assert_eq!((last.kind.as_str(), last.count), ("crash", 1));
}

#[test]
fn an_exit_with_code_zero_is_a_crash_too() {
    let world = World::new();
    let marker = world.path("ended");
    world.child("pump", &shell(&format!("[ -e {0} ] || {{ touch {0}; exit 0; }}; exec sleep 1000", marker.display())));
    world.start();
    let fault = world.event("pump", "fault");
    assert_eq!((fault.fault.as_deref(), fault.detail.as_str()), (Some("crash"), "ended by itself with exit code 0"));
    world.event("pump", "recovered");
}

#[test]
fn a_crash_by_signal_names_the_signal_and_the_process_is_back() {
    let world = World::with(&[("pump", shell("exec sleep 1000")), ("fan", shell("exec sleep 1000"))]);
    world.until_state("fan", "running");
    let before = world.until_state("pump", "running");
    let pid = before.pid.expect("it runs").cast_signed();
    for (signal, name) in [(Signal::SIGKILL, "SIGKILL"), (Signal::SIGSEGV, "SIGSEGV")] {
        let since = world.next_seq();
        send(world.pid_of("pump"), signal);
        let fault = world.event_after(since, "pump", "fault");
        assert_eq!(fault.fault.as_deref(), Some("crash"));
        assert!(fault.detail.starts_with(&format!("killed by {name}")), "{fault:?}");
        world.event_after(since, "pump", "recovered");
    }
    let after = world.until_replaced("pump", pid);
    assert_eq!(after.restarts, 2);
    assert_eq!(world.of("fan").last_fault, None, "its neighbour is not concerned");
}

#[test]
fn a_stopped_process_is_found_after_its_deadline_and_the_evidence_says_stopped() {
    let world = World::with(&[("pump", program("beat").deadline("300ms").delays("[\"0s\"]"))]);
    world.until_state("pump", "running");
    let since = world.next_seq();
    let pid = world.pid_of("pump");
    send(pid, Signal::SIGSTOP);
    let fault = world.event_since(since, "a hang", |e| e.kind == "fault" && e.pid == Some(pid.cast_unsigned()));
    assert_eq!(fault.fault.as_deref(), Some("hang"), "{fault:?}");
    assert!(fault.detail.starts_with("no beat for ") && fault.detail.contains(" of 300.000 ms"), "{fault:?}");
    let evidence = world.event_after(fault.seq, "pump", "evidence");
    assert!(evidence.detail.starts_with("stopped by a signal or a debugger"), "{evidence:?}");
    let recovered = world.event_after(fault.seq, "pump", "recovered");
    assert_in_order(&recovered);
    let limit = recovered.deadline_ns.zip(recovered.last_beat_ns).map(|(d, l)| d - l);
    assert_eq!(limit, Some(300_000_000), "the deadline counts from the last beat");
    let detail = world.of("pump").last_fault.expect("remembered").detail;
    assert!(detail.contains("stopped by a signal"), "the status tells it, too: {detail}");
}

/// The child hangs again and again until a look at it brings this.
fn assert_hang_looks_like(behaviour: &str, words: &str) {
    let world = World::with(&[("pump", program(behaviour).deadline("300ms").delays("[\"0s\"]"))]);
    let fault = world.event("pump", "fault");
    assert_eq!(fault.fault.as_deref(), Some("hang"), "{fault:?}");
    world.event_since(0, words, |e| e.kind == "evidence" && e.detail.contains(words));
    assert_in_order(&world.event("pump", "recovered"));
    let reports = world.dirs().state.join("faults/pump");
    world.until("a report of the fault", |_| std::fs::read_dir(&reports).is_ok_and(|mut d| d.next().is_some()));
}

#[test]
fn the_report_of_a_fault_tells_its_story_and_is_kept() {
    let world = World::new();
    let spec = program("wait").once(&world.path("once")).deadline("300ms").delays("[\"0s\"]");
    world.child("pump", &spec);
    world.child("fan", &shell("echo last words; sleep 0.7; kill -ABRT $$"));
    world.start();
    world.event("pump", "recovered");
    let report = || world.ctl(&["fault", "pump"]).out;
    world.until("the whole story", |_| report().contains("ready (outputs released)"));
    let text = report();
    for words in [
        "fault:    hang: no beat for 30",
        "last beat",
        "safe (outputs forced)",
        "killed (with all its processes)",
        "the last 30 s, second by second:",
        "the last 64 marks, ms before the fault:",
        "threads (",
        "ended:    used ",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    // A crash leaves nobody to look at, but a report all the same.
    let crash = || world.ctl(&["fault", "fan"]).out;
    world.until("the report of a crash", |_| crash().contains("out last words"));
    assert!(crash().contains("fault:    crash: killed by SIGABRT"), "{}", crash());
}

#[test]
fn an_endless_loop_is_found_and_the_evidence_says_that_it_runs() {
    assert_hang_looks_like("spin", "runs without end in thread");
}

#[test]
fn an_endless_wait_is_found_and_the_evidence_says_where_it_waits() {
    assert_hang_looks_like("wait", " waits in ");
}

/// A beat as docs/abi.md describes it: the time, then the sequence, each a whole word at a time.
const BEAT_IN_PYTHON: &str = "
import mmap, os, time
page = memoryview(mmap.mmap(int(os.environ['MULTUS_HEARTBEAT_FD']), 77824)).cast('Q')
while True:
    page[129] = time.monotonic_ns()
    page[128] += 1
    time.sleep(0.005)
";

#[test]
fn a_python_script_can_beat_and_its_hang_is_found() {
    let Some(python) = python("a_python_script_can_beat_and_its_hang_is_found") else { return };
    let world = World::with(&[("script", Spec::of(&[&python, "-c", BEAT_IN_PYTHON]).deadline("500ms"))]);
    let pid = world.until_state("script", "running").pid.expect("it runs").cast_signed();
    assert!(world.of("script").last_beat_age_us.is_some());
    let since = world.next_seq();
    send(world.pid_of("script"), Signal::SIGSTOP);
    let fault = world.event_after(since, "script", "fault");
    assert_eq!(fault.fault.as_deref(), Some("hang"), "{fault:?}");
    world.until_replaced("script", pid);
}
