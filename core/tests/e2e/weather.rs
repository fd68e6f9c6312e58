//! Children run only while the temperature allows it, and storms of failures pass.

use std::fs;

use nix::sys::signal::Signal;

use crate::world::{World, pids, send, shell};

fn with_temperature(world: &World) {
    let file = world.path("temperature");
    world.daemon_config(&format!(
        "[temperature]\nenabled = true\nfile = \"{}\"\nmin_c = 0.0\nmax_c = 80.0\nhysteresis_c = 5.0\ninterval = \"100ms\"\n",
        file.display()
    ));
    for name in ["pump", "fan"] {
        world.child(name, &shell("exec sleep 1000"));
    }
}

fn set(world: &World, celsius: f64) {
    // In one step, so that nobody reads half of it.
    let new = world.path("temperature.new");
    fs::write(&new, format!("{}\n", (celsius * 1000.0) as i64)).unwrap();
    fs::rename(new, world.path("temperature")).unwrap();
}

/// Until the daemon has read what was written last.
fn until_read(world: &World, celsius: f64) {
    world.until("the temperature is read", |world| {
        world.status().daemon.temperature_c.is_some_and(|t| (t - celsius).abs() < 0.01)
    });
}

fn until_all(world: &World, state: &str) {
    for name in ["pump", "fan"] {
        world.until_state(name, state);
    }
}

#[test]
fn heat_stops_all_and_they_start_again_when_it_is_cool_enough() {
    let world = World::new();
    with_temperature(&world);
    set(&world, 54.1);
    world.start();
    until_all(&world, "running");
    set(&world, 80.5);
    until_all(&world, "blocked");
    world.until("the status says why", |world| world.status().daemon.too_hot);
    let status = world.status();
    assert!(status.children.iter().all(|c| c.pid.is_none() && c.last_fault.is_none()));
    assert!(status.children.iter().all(|c| c.blocked_by.as_deref() == Some("temperature")));
    world.event_since(0, "too hot", |e| e.kind == "too-hot" && e.detail.contains("80.5"));
    // Inside the range, but not far enough.
    set(&world, 77.0);
    until_read(&world, 77.0);
    assert!(world.status().daemon.too_hot);
    assert!(world.status().children.iter().all(|c| c.state == "blocked"));
    assert_eq!(world.ctl(&["start", "pump"]).code, Some(0));
    assert_eq!(world.of("pump").state, "blocked", "a start does not overrule it");
    set(&world, 74.0);
    until_all(&world, "running");
    world.event_since(0, "cooled down", |e| e.kind == "cooled-down");
    set(&world, -1.0);
    until_all(&world, "blocked");
}

#[test]
fn a_temperature_that_cannot_be_read_counts_as_too_hot() {
    let world = World::new();
    with_temperature(&world);
    world.start();
    until_all(&world, "blocked");
    assert_eq!(world.status().daemon.temperature_c, None);
    for nonsense in ["", "warm\n", "54.1\n", "99999999999999999999\n"] {
        fs::write(world.path("temperature"), nonsense).unwrap();
        assert!(world.status().children.iter().all(|c| c.state == "blocked"), "{nonsense:?}");
    }
    set(&world, 20.0);
    until_all(&world, "running");
    fs::remove_file(world.path("temperature")).unwrap();
    until_all(&world, "blocked");
    // Switched off, nobody asks any more.
    world.daemon_config("");
    assert_eq!(world.ctl(&["reload"]).code, Some(0));
    until_all(&world, "running");
}

#[test]
fn who_keeps_failing_is_degraded_and_still_restarted_and_healthy_after_a_while() {
    let world = World::new();
    let well = world.path("well");
    let script = format!("[ -e {} ] && exec sleep 1000; exit 5", well.display());
    let table = "[restart]\ndelays = [\"0s\", \"20ms\", \"50ms\"]\ndegraded_after = 4\nforget_after = \"1s\"";
    world.child("pump", &shell(&script).table(table));
    world.start();
    let degraded = world.event("pump", "degraded");
    assert!(degraded.detail.contains("4 times in a row"), "{degraded:?}");
    assert!(world.of("pump").degraded);
    world.until("it is restarted on and on", |world| world.of("pump").restarts >= 10);
    let waits: Vec<_> = world.all("pump", "backoff").into_iter().map(|e| e.detail).collect();
    assert!(waits[0].starts_with("waits 2") && waits.last().unwrap().starts_with("waits 5"), "{waits:?}");
    fs::write(well, "").unwrap();
    world.until_state("pump", "running");
    world.event("pump", "healthy");
    assert!(!world.of("pump").degraded);
}

#[test]
fn a_storm_is_damped_and_everybody_comes_back() {
    const CHILDREN: usize = 20;
    const SIMULTANEOUS: usize = 3;
    let world = World::new();
    world.daemon_config(&format!("[starts]\nsimultaneous = {SIMULTANEOUS}\njitter_percent = 100\n"));
    let beater = crate::world::program("beat").deadline("20s").delays("[\"10ms\"]");
    for number in 0..CHILDREN {
        world.child(&format!("c{number:02}"), &beater);
    }
    world.start();
    let running = |world: &World| world.status().children.iter().filter(|c| c.state == "running").count();
    world.until("all run", |world| running(world) == CHILDREN);
    let before = pids(&world.status());
    let since = world.next_seq();
    for pid in before.values().flatten() {
        send(pid.cast_signed(), Signal::SIGKILL);
    }
    world.until("all run again", |world| {
        running(world) == CHILDREN && pids(&world.status()).iter().all(|(name, pid)| *pid != before[name])
    });
    // From process to ready, counted along the events.
    let events = world.events_since(0);
    let mut starting = 0usize;
    for event in &events {
        match event.kind.as_str() {
            "spawned" => starting += 1,
            "ready" | "recovered" => starting -= 1,
            _ => {}
        }
        assert!(starting <= SIMULTANEOUS, "{starting} at once: {event:?}");
    }
    let recovered = events.iter().filter(|e| e.seq >= since && e.kind == "recovered").count();
    assert_eq!(recovered, CHILDREN);
}
