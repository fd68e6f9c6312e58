//! Two devices on one machine: what gets through, and what becomes of outputs when it does not.

use std::process::Command;
use std::time::{Duration, Instant};

use multus_contract::api::command::Request;
use nix::sys::signal::Signal;

use crate::world::{Device, Plan, free_port, here, receiver, sender, skip};

/// A sender "pump" and its receiver.
fn pair(protocol: &str, more: &str) -> (Device, Device, u16, u16) {
    let (own, other) = (free_port(), free_port());
    let to = Device::new(Plan::new(receiver(other, "pump", &format!("protocol = \"{protocol}\"\n{more}"))));
    let from = Device::new(Plan::new(sender("pump", own, protocol, &[here(other)])));
    (from, to, own, other)
}

fn mirrors(from: &Device, to: &Device) {
    for turn in 0..3 {
        for line in 1..=8 {
            let is_on = (turn + line) % 2 == 0;
            from.pull(line, is_on);
            to.until_output(line, is_on);
        }
    }
}

#[test]
fn every_line_goes_to_its_output_and_is_acknowledged() {
    let (from, to, own, other) = pair("multus", "");
    mirrors(&from, &to);
    let peer = from.until_peer(own, &here(other), "connected");
    assert_eq!((peer.role.as_str(), peer.protocol.as_str()), ("receiver", "multus"));
    assert!(peer.round_trip_us.is_some() && peer.acknowledged > 0 && peer.epoch == 1, "{peer:#?}");
    let applied = |peer: &multus_proto::v1::MirrorPeer| peer.outputs.iter().all(|output| output.outcome == "applied");
    from.until("all outputs have it", |from| from.peers(own).first().is_some_and(applied));
    let peer = from.peers(own).remove(0);
    let names: Vec<&str> = peer.outputs.iter().map(|output| output.output.as_str()).collect();
    assert_eq!(names, ["DO1", "DO2", "DO3", "DO4", "DO5", "DO6", "DO7", "DO8"]);
    let peer = to.until_peer(other, "pump", "connected");
    assert!(peer.role == "sender" && peer.address.starts_with("127.0.0.1:") && peer.last_state.is_some(), "{peer:#?}");
    // A person holds an output: the sender learns that it does not have its value.
    from.pull(1, true);
    to.until_output(1, true);
    to.tell(&Request::IoForce { name: "DO1".into(), value: 0.0 });
    let is_forced =
        |peer: &multus_proto::v1::MirrorPeer| peer.outputs[0].outcome == "forced" && peer.outputs[0].on == Some(false);
    from.until("it is told", |from| from.peers(own).first().is_some_and(is_forced));
    to.tell(&Request::IoRelease { name: "DO1".into() });
    to.until_output(1, true);
}

#[test]
fn the_words_of_the_original_are_spoken_between_two_devices() {
    let (from, to, own, other) = pair("legacy", "addresses = [\"127.0.0.1\"]");
    mirrors(&from, &to);
    let peer = from.until_peer(own, &here(other), "connected");
    assert!(peer.protocol == "legacy" && peer.round_trip_us.is_some() && peer.lost == 0, "{peer:#?}");
    let before = to.until_peer(other, "pump", "connected").states;
    to.until("all lines come again after the interval", |to| {
        to.peers(other).first().is_some_and(|peer| peer.states > before)
    });
}

#[test]
fn lines_are_mapped_inverted_and_debounced() {
    let (own, other) = (free_port(), free_port());
    let to = Device::new(Plan::new(receiver(other, "pump", "")));
    let parameters = format!(
        "port = {own}\n[sender]\nname = \"pump\"\n\
         [[sender.lines]]\nlocal = \"DI1\"\nremote = \"DO3\"\n\
         [[sender.lines]]\nlocal = \"DI1\"\nremote = \"DO4\"\ninverted = true\n\
         [[sender.lines]]\nlocal = \"DI2\"\nremote = \"DO5\"\ndebounce = \"5s\"\n\
         [[sender.receivers]]\naddress = \"{}\"\n",
        here(other)
    );
    let from = Device::new(Plan::new(parameters));
    to.until_output(4, true);
    from.pull(1, true);
    to.until_output(3, true);
    to.until_output(4, false);
    let before = to.writes(5);
    from.pull(2, true);
    from.until("the input is read", |from| from.line("DI2").is_some_and(|line| line.value == 1.0));
    from.pull(2, false);
    from.until("the input is read", |from| from.line("DI2").is_some_and(|line| line.value == 0.0));
    let pulled = Instant::now();
    from.pull(2, true);
    to.until_output(5, true);
    assert!(pulled.elapsed() >= Duration::from_secs(5), "after {:?}", pulled.elapsed());
    assert_eq!(to.writes(5), before + 1, "the short change did not get there");
    assert_eq!(to.output(1), Some(false), "what is not sent is safe");
}

#[test]
fn last_outputs_are_mirrored_as_inputs_are() {
    let (own, other) = (free_port(), free_port());
    let to = Device::new(Plan::new(receiver(other, "pump", "")));
    let parameters = sender("pump", own, "multus", &[here(other)])
        .replace("name =", "source = \"last-outputs\"\nname =")
        .replace("local = \"DI", "local = \"DO");
    let from = Device::new(Plan { owner: Some(String::from("operator")), ..Plan::new(parameters) });
    from.tell(&Request::IoSet { name: "DO2".into(), value: 1.0 });
    to.until_output(2, true);
    from.tell(&Request::IoSet { name: "DO2".into(), value: 0.0 });
    to.until_output(2, false);
}

/// The output is on while the sender is heard for more than six seconds on: longer than its timeout.
fn stays_on(to: &Device, port: u16) {
    let heard = || to.until_peer(port, "pump", "connected").last_state.expect("it was heard").seconds;
    let first = heard();
    to.until("it is heard further on", |to| {
        assert_eq!(to.output(1), Some(true));
        heard() > first + 6
    });
}

#[test]
fn a_silent_sender_loses_its_outputs_until_it_is_heard_again() {
    let (from, to, own, other) = pair("multus", "timeout = \"4s\"");
    from.pull(1, true);
    to.until_output(1, true);
    // It is heard although nothing changes.
    stays_on(&to, other);
    from.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    to.until_output(1, false);
    let took = stopped.elapsed();
    // The last state may be as old as a quarter of it.
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(15), "after {took:?}");
    assert_eq!(to.until_peer(other, "pump", "silent").silences, 1);
    to.until_log("sender pump is silent: not heard for 4s; its outputs are set to their safe values");
    // The deadline of the child is longer than this test stops it.
    from.signal(Signal::SIGCONT);
    to.until_output(1, true);
    from.until_peer(own, &here(other), "connected");
}

#[test]
fn what_a_sender_does_not_know_is_safe() {
    let (from, to, _, _) = pair("multus", "");
    from.pull(1, true);
    to.until_output(1, true);
    from.panel.break_gpio(multus_hardware::sim::Fault::Missing).expect("own file");
    to.until_output(1, false);
    from.panel.break_gpio(multus_hardware::sim::Fault::None).expect("own file");
    to.until_output(1, true);
}

#[test]
fn either_side_may_be_killed_and_the_newest_state_is_there_again() {
    let (from, to, own, other) = pair("multus", "timeout = \"30s\"");
    from.pull(1, true);
    from.pull(3, true);
    to.until_output(3, true);
    for turn in 0..3 {
        let is_on = turn % 2 == 1;
        from.signal(Signal::SIGKILL);
        from.pull(1, is_on);
        to.until_output(1, is_on);
        assert_eq!(to.output(3), Some(true), "it was heard in time");
        from.until_peer(own, &here(other), "connected");
        to.signal(Signal::SIGKILL);
        from.pull(1, !is_on);
        to.until_output(1, !is_on);
        to.until_output(3, true);
    }
    assert_eq!(to.until_peer(other, "pump", "connected").silences, 0);
}

#[test]
fn outputs_begin_safe_then_retained_then_live() {
    let (own, other) = (free_port(), free_port());
    let parameters = receiver(other, "pump", "timeout = \"3s\"");
    let mut to = Device::new(Plan::new(&parameters).outputs(", retained = true"));
    let from = Device::new(Plan::new(sender("pump", own, "multus", &[here(other)])));
    from.pull(1, true);
    from.pull(2, true);
    to.until_output(1, true);
    to.until_output(2, true);
    to.until("it is on the disk", |to| {
        let text = std::fs::read_to_string(to.dirs.state.join("io-retained.toml")).unwrap_or_default();
        text.contains("\"DO1\" = 1.0") && text.contains("\"DO2\" = 1.0")
    });
    drop(from);
    to.switch_off();
    assert_eq!(to.output(1), Some(false), "safe at the end");
    to.switch_on();
    to.until_output(1, true);
    assert_eq!(to.line("DO1").map(|line| line.source), Some("retained".into()));
    // Nobody is heard: what was retained does not stay for ever.
    to.until_output(1, false);
    assert_eq!(to.until_peer(other, "pump", "silent").silences, 1);
    let from = Device::new(Plan::new(sender("pump", own, "multus", &[here(other)])));
    from.pull(2, true);
    to.until_output(2, true);
    assert_eq!((to.output(1), to.line("DO2").map(|line| line.source)), (Some(false), Some("requested".into())));
}

#[test]
fn without_restore_outputs_begin_safe() {
    let (own, other) = (free_port(), free_port());
    let parameters = receiver(other, "pump", "").replace("[[receiver", "[receiver]\nrestore = false\n[[receiver");
    let mut to = Device::new(Plan::new(parameters).outputs(", retained = true"));
    let from = Device::new(Plan::new(sender("pump", own, "multus", &[here(other)])));
    from.pull(1, true);
    to.until_output(1, true);
    drop(from);
    to.switch_off();
    // The second line was never on: what is written to it is written to all.
    let before = [to.writes(1), to.writes(2)];
    to.switch_on();
    to.until("the mirror runs", |to| to.child("read-dido").state == "running");
    to.until("it is released", |to| to.line("DO1").is_some_and(|line| line.source == "requested"));
    assert_eq!(to.output(1), Some(false));
    assert_eq!(to.writes(1) - before[0], to.writes(2) - before[1], "nothing but the safe value was written");
}

#[test]
fn new_parameters_take_effect_and_outputs_stay_where_they_are() {
    let (from, to, own, other) = pair("multus", "");
    from.pull(1, true);
    from.pull(2, true);
    to.until_output(2, true);
    let before = to.writes(1);
    to.reconfigure(&receiver(other, "pump", "timeout = \"10s\""));
    to.until_log("configuration read again");
    from.pull(3, true);
    to.until_output(3, true);
    assert_eq!((to.output(1), to.writes(1)), (Some(true), before));
    // An output that no sender has any more is safe.
    to.reconfigure(&receiver(other, "pump", "").replace("\"DO2\", ", ""));
    to.until_output(2, false);
    to.until_log("sender pump may not set: DO2");
    from.until_log("does not set: DO2");
    let peers = from.peers(own);
    assert!(peers[0].outputs.iter().any(|output| output.output == "DO2" && output.outcome == "refused"), "{peers:#?}");
    from.reconfigure("port = \"x\"\n");
    from.until_log("going on with the previous one");
    from.pull(1, false);
    to.until_output(1, false);
}

#[test]
fn with_parameters_that_cannot_work_the_mirror_goes_on_with_what_it_had() {
    let (from, to, _, other) = pair("multus", "");
    from.pull(1, true);
    to.until_output(1, true);
    let peer = to.until_peer(other, "pump", "connected");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("bound").port();
    for (parameters, reason) in [
        (receiver(other, "pump", "").replace("DO8", "DO9"), "line DO9: hardware.toml has no line of this name"),
        (receiver(other, "pump", "token = \"token\""), "receiver.senders[0].token"),
        (receiver(taken, "pump", ""), "Address already in use"),
        (format!("bind = \"192.0.2.1\"\n{}", receiver(other, "pump", "")), "cannot listen on 192.0.2.1"),
        (
            receiver(other, "pump", "")
                .replace("[[receiver", "[receiver]\ncertificate = \"own.pem\"\nkey = \"own.key\"\n[[receiver"),
            "receiver.certificate",
        ),
        (
            receiver(other, "pump", "")
                + "[sender]\n[[sender.lines]]\nlocal = \"DI1\"\nremote = \"X1\"\n\
             [[sender.receivers]]\naddress = \"127.0.0.1:1\"\ntoken = \"token\"\n",
            "sender.receivers[0].token",
        ),
    ] {
        let told = |device: &Device| device.log().matches("going on with the previous one").count();
        let before = told(&to);
        to.reconfigure(&parameters);
        to.until("it is told", |to| told(to) > before && to.log().contains(reason));
    }
    from.pull(2, true);
    to.until_output(2, true);
    let same = to.until_peer(other, "pump", "connected");
    assert_eq!((same.epoch, same.connects, to.child("read-dido").restarts), (peer.epoch, 1, 0), "the same connection");
    // The same number of another address is had only when the old one is closed.
    to.reconfigure(&format!("bind = \"0.0.0.0\"\n{}", receiver(other, "pump", "")));
    to.until_log(&format!("listening on 0.0.0.0:{other}"));
    from.pull(2, false);
    to.until_output(2, false);
    assert_eq!((to.output(1), to.child("read-dido").restarts), (Some(true), 0));
}

#[test]
fn lines_that_are_defined_anew_have_what_is_sent_again() {
    // Nothing is sent meanwhile: a state comes every quarter of an hour.
    for protocol in ["multus", "legacy"] {
        let (from, to, own, _) = pair(protocol, "addresses = [\"127.0.0.1\"]\ntimeout = \"1h\"");
        from.pull(1, true);
        from.pull(3, true);
        to.until_output(1, true);
        to.until_output(3, true);
        to.define("DI9 = { kind = \"digital-input\", gpio = 12 }\n");
        to.until("the outputs of the new lines", |to| {
            [1, 3].iter().all(|line| {
                to.line(&format!("DO{line}"))
                    .is_some_and(|line| line.good && line.value == 1.0 && line.source == "requested")
            })
        });
        from.pull(1, false);
        to.until_output(1, false);
        assert_eq!(to.output(3), Some(true));
        let settled =
            |peer: &multus_proto::v1::MirrorPeer| peer.outputs.iter().all(|output| output.outcome != "pending");
        from.until("nothing is under way", |from| from.peers(own).first().is_some_and(settled));
        assert_eq!(to.child("read-dido").restarts, 0);
    }
}

#[test]
fn two_devices_under_one_name_do_not_take_turns() {
    let (from, to, own, other) = pair("multus", "timeout = \"4s\"");
    from.pull(1, true);
    to.until_output(1, true);
    let second_port = free_port();
    let second = Device::new(Plan::new(sender("pump", second_port, "multus", &[here(other)])));
    let peer = second.until_peer(second_port, &here(other), "refused");
    assert!(peer.detail.contains("another process sends as \"pump\""), "{peer:#?}");
    to.until_log("one sender has one device, so it is refused");
    stays_on(&to, other);
    assert_eq!(to.until_peer(other, "pump", "connected").connects, 1);
    from.until_peer(own, &here(other), "connected");
    // The first one is gone: the second takes its place.
    drop(from);
    second.until_peer(second_port, &here(other), "connected");
    to.until_output(1, false);
}

#[test]
fn a_receiver_hears_many_and_a_sender_many_receivers() {
    let (own, others) = (free_port(), [free_port(), free_port()]);
    let to: Vec<Device> = others.iter().map(|port| Device::new(Plan::new(receiver(*port, "pump", "")))).collect();
    // A receiver that is never there does not hold up the others.
    let nobody = free_port();
    let from = Device::new(Plan::new(sender("pump", own, "multus", &[here(nobody), here(others[0]), here(others[1])])));
    for is_on in [true, false, true] {
        from.pull(5, is_on);
        to.iter().for_each(|to| to.until_output(5, is_on));
    }
    let peers = from.peers(own);
    let states: Vec<&str> = peers.iter().map(|peer| peer.state.as_str()).collect();
    assert_eq!(states, ["connecting", "connected", "connected"]);
    assert!(peers[0].detail.contains("refused"), "{}", peers[0].detail);
    from.until_log("is not connected");
    let told = from.log().matches("is not connected").count();
    assert_eq!(told, 1, "the same reason is told once:\n{}", from.log());
    // Whoever looks at multusd sees it, too.
    from.until("it says how it is", |from| {
        from.child("read-dido").text.is_some_and(|text| text.contains("connecting"))
    });
}

#[test]
fn lines_that_do_not_fit_are_told_and_nothing_runs() {
    let port = free_port();
    let wrong = receiver(port, "pump", "").replace("DO8", "DO9");
    let device = Device::start(Plan { owner: Some("modbus".into()), ..Plan::new(wrong) });
    device.until_log("line DO1: belongs to modbus; to set it, write owner = \"read-dido\" in hardware.toml");
    device.until_log("line DO9: hardware.toml has no line of this name");
    let parameters = sender("pump", port, "multus", &[]).replace("DI1\"", "DO1\"").replace("DI2\"", "AI1\"");
    let device = Device::start(Plan::new(parameters));
    device.until_log("line DO1: is an output, and source is \"inputs\"");
    device.until_log("line AI1: is analogue, a digital one is needed");
}

#[test]
fn what_a_sender_says_is_in_the_event_database() {
    let test = "what_a_sender_says_is_in_the_event_database";
    let look = "import sqlite3, sys; print(*(row[0] for row in sqlite3.connect(sys.argv[1]).execute(\"select value from io_changes \
                where line = 'DO1' and source = 'requested' order by rowid\")))";
    if Command::new("python3").args(["-c", "import sqlite3"]).status().map_or(true, |status| !status.success()) {
        return skip(test, "python3 with sqlite3 is missing");
    }
    let (from, to, _, _) = pair("multus", "");
    let [web, grpc] = [free_port(), free_port()];
    let parameters = format!("[web]\nlisten = [\"127.0.0.1:{web}\"]\n[grpc]\nlisten = \"127.0.0.1:{grpc}\"\n");
    to.add("control", "multus-control", &parameters);
    to.until("it runs", |to| to.child("control").state == "running");
    let path = to.dirs.state.join("history.sqlite");
    let recorded = || {
        let said = Command::new("python3").args(["-c", look]).arg(&path).output().expect("python3 is there");
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    };
    for (is_on, expected) in [(true, "1"), (false, "1 0")] {
        from.pull(1, is_on);
        to.until_output(1, is_on);
        to.until("it is recorded", |_| recorded().ends_with(expected));
    }
}
