//! Devices in network namespaces of their own: long lines that lose packets, lines that are cut, either side killed meanwhile.
//!
//! ```text
//!   device 0 10.77.0.1 --- veth --- bridge of the hub --- veth --- 10.77.0.n device n
//!   or, for two:  device 0 wan0 10.77.0.1 --- line.py (delay, loss) --- 10.77.0.2 wan0 device 1
//!   or, for more:  device n wan0 10.77.0.n --- line.py --- wan<n> of the hub, which forwards
//! ```

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use multus_proto::v1::ListPeersRequest;
use multus_proto::v1::mirror_service_client::MirrorServiceClient;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::world::{Device, Plan, beside, block_on, receiver, sender, skip};

const PORT: u16 = 9091;

/// Namespaces that end with the test.
struct Net {
    temp: TempDir,
    prefix: String,
    count: usize,
    lines: Vec<Child>,
}

impl Net {
    /// `None`: this machine cannot do it; why was told.
    fn new(test: &str, count: usize) -> Option<Self> {
        if let Some(reason) = missing() {
            skip(test, &reason);
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("mdi{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let temp = tempfile::Builder::new().prefix("multus-mirror-net-").tempdir().expect("a temporary directory");
        let net = Self { temp, prefix, count, lines: Vec::new() };
        for namespace in 0..=count {
            ip(&format!("netns add {}", net.ns(namespace)));
            ip(&format!("-n {} link set lo up", net.ns(namespace)));
        }
        Some(net)
    }

    /// All devices at one switch, which is in the last namespace.
    fn switched(test: &str, count: usize) -> Option<Self> {
        let net = Self::new(test, count)?;
        let hub = net.ns(count);
        ip(&format!("-n {hub} link add hub type bridge"));
        ip(&format!("-n {hub} link set hub up"));
        for device in 0..count {
            let own = net.ns(device);
            ip(&format!("-n {own} link add eth0 type veth peer name port{device} netns {hub}"));
            ip(&format!("-n {hub} link set port{device} master hub up"));
            ip(&format!("-n {own} address add {}/24 dev eth0", address(device)));
            ip(&format!("-n {own} link set eth0 up"));
        }
        Some(net)
    }

    /// Two devices with a long line between them.
    fn long(test: &str) -> Option<Self> {
        let mut net = Self::new(test, 2)?;
        net.line(0, 1);
        for device in 0..2 {
            ip(&format!("-n {} address add {}/24 dev wan0", net.ns(device), address(device)));
            ip(&format!("-n {} link set wan0 up", net.ns(device)));
        }
        Some(net)
    }

    /// Each device with a long line to the hub.
    fn star(test: &str, count: usize) -> Option<Self> {
        let mut net = Self::new(test, count)?;
        let hub = net.ns(count);
        let forward = ["netns", "exec", &hub, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"];
        assert!(Command::new("ip").args(forward).status().is_ok_and(|status| status.success()));
        for device in 0..count {
            net.line(device, count);
            ip(&format!("-n {hub} link set wan0 name wan{}", device + 1));
            ip(&format!("-n {hub} link set wan{} up", device + 1));
            ip(&format!("-n {hub} route add {}/32 dev wan{}", address(device), device + 1));
            ip(&format!("-n {} address add {}/24 dev wan0", net.ns(device), address(device)));
            ip(&format!("-n {} link set wan0 up", net.ns(device)));
        }
        Some(net)
    }

    /// A line between two namespaces, without delay or loss.
    fn line(&mut self, from: usize, to: usize) {
        self.line_of(from, 0, 0);
        let mut line = Command::new("python3");
        line.arg(beside("../../../netcheck/tests/net/line.py"))
            .args([self.ns(from), self.ns(to)])
            .arg(self.settings(from))
            .stdout(Stdio::piped());
        let mut line = line.spawn().expect("python3 is there");
        let mut said = String::new();
        BufReader::new(line.stdout.take().expect("a pipe")).read_line(&mut said).expect("it speaks");
        self.lines.push(line);
        assert_eq!(said, "ready\n", "the line works");
    }

    /// Delay in milliseconds and loss in percent of the line of a device, each way.
    fn line_of(&self, device: usize, delay_ms: u32, loss_percent: u32) {
        // In one step: the line reads it at any time.
        let new = self.temp.path().join("line.new");
        std::fs::write(&new, format!("{delay_ms} {loss_percent}")).expect("own file");
        std::fs::rename(new, self.settings(device)).expect("own file");
    }

    /// The cable of a device at the switch is pulled, or put in again: neither device sees it.
    fn cable_of(&self, device: usize, is_in: bool) {
        let state = if is_in { "master hub" } else { "nomaster" };
        ip(&format!("-n {} link set port{device} {state}", self.ns(self.count)));
    }

    /// What a device sends is lost from now on; what it is sent is not.
    fn mute(&self, device: usize, is_mute: bool) {
        let nft = |arguments: &[&str]| {
            let namespace = self.ns(device);
            let mut command = Command::new("ip");
            let output =
                command.args(["netns", "exec", &namespace, "nft"]).args(arguments).output().expect("nft is there");
            assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        if is_mute {
            nft(&["add table ip mute"]);
            nft(&["add chain ip mute out { type filter hook output priority 0; }"]);
            nft(&["add rule ip mute out oif eth0 drop"]);
        } else {
            nft(&["delete table ip mute"]);
        }
    }

    /// The device itself sees it.
    fn interface_of(&self, device: usize, state: &str) {
        ip(&format!("-n {} link set eth0 {state}", self.ns(device)));
    }

    fn settings(&self, device: usize) -> PathBuf {
        self.temp.path().join(format!("line{device}"))
    }

    fn ns(&self, number: usize) -> String {
        format!("{}-{number}", self.prefix)
    }

    fn device(&self, number: usize, parameters: String) -> Device {
        Device::new(Plan { namespace: Some(self.ns(number)), ..Plan::new(parameters) })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for mut line in self.lines.drain(..) {
            let _ = line.kill();
            let _ = line.wait();
        }
        for namespace in 0..=self.count {
            let _ = Command::new("ip").args(["netns", "delete", &self.ns(namespace)]).output();
        }
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip is there");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn missing() -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("network namespaces need root".into());
    }
    for (program, argument) in [("ip", "-V"), ("python3", "-V")] {
        if Command::new(program).arg(argument).output().is_err() {
            return Some(format!("{program} is missing"));
        }
    }
    (!Path::new("/dev/net/tun").exists()).then(|| "there is no /dev/net/tun".into())
}

fn address(device: usize) -> String {
    format!("10.77.0.{}", device + 1)
}

fn at(device: usize) -> String {
    format!("{}:{PORT}", address(device))
}

/// Hears device `from` as "device n" and sets all outputs.
fn hears(from: usize, timeout: &str) -> String {
    let more = format!("addresses = [\"{}\"]\ntimeout = \"{timeout}\"", address(from));
    format!("bind = \"0.0.0.0\"\n{}", receiver(PORT, &format!("device {from}"), &more))
}

fn sends(from: usize, to: &[usize]) -> String {
    let receivers: Vec<String> = to.iter().map(|to| at(*to)).collect();
    sender(&format!("device {from}"), PORT, "multus", &receivers)
}

#[test]
fn over_a_long_line_that_loses_packets_the_newest_state_gets_there() {
    let test = "over_a_long_line_that_loses_packets_the_newest_state_gets_there";
    let Some(net) = Net::long(test) else { return };
    let to = net.device(1, hears(0, "10s"));
    let from = net.device(0, sends(0, &[1]));
    from.until_peer(PORT, &at(1), "connected");
    net.line_of(0, 40, 5);
    for turn in 0..40 {
        let sent = from.until_peer(PORT, &at(1), "connected").states;
        from.pull(1 + turn % 8, turn / 8 % 2 == 0);
        from.until("that is on its way", |from| from.until_peer(PORT, &at(1), "connected").states > sent);
    }
    for line in 1..=8 {
        let is_on = line % 2 == 0;
        from.pull(line, is_on);
    }
    to.until("the newest state", |to| (1..=8).all(|line| to.output(line) == Some(line % 2 == 0)));
    let peer = from.until_peer(PORT, &at(1), "connected");
    let round_trip = peer.round_trip_us.expect("acknowledged");
    assert!(round_trip >= 80_000, "{round_trip} us over a line of 80 ms");
}

/// Lines are switched on one after the other and never off: an output that goes off again, but for silence, has an older
/// state. The number of writes tells it, however short it was.
#[test]
fn after_a_partition_the_newest_state_and_never_an_older_one() {
    let test = "after_a_partition_the_newest_state_and_never_an_older_one";
    let Some(net) = Net::switched(test, 2) else { return };
    let to = net.device(1, hears(0, "4s"));
    let from = net.device(0, sends(0, &[1]));
    for line in [1, 2] {
        from.pull(line, true);
        to.until_output(line, true);
    }
    for (turn, line) in (3..=8).enumerate() {
        // Lines that were on, and have been through silence: written off, and on again.
        let before: Vec<u64> = (1..=8).map(|line| to.writes(line)).collect();
        match turn {
            0 | 1 => net.cable_of(0, false),
            2 | 3 => net.interface_of(0, "down"),
            _ => net.interface_of(1, "down"),
        }
        from.pull(line, true);
        to.until("silence", |to| (1..=8).all(|line| to.output(line) == Some(false)));
        // Every other time a side does not live through it.
        match turn {
            1 | 5 => from.signal(Signal::SIGKILL),
            3 => to.kill_mirror(),
            _ => {}
        }
        let healed = Instant::now();
        match turn {
            0 | 1 => net.cable_of(0, true),
            2 | 3 => net.interface_of(0, "up"),
            _ => net.interface_of(1, "up"),
        }
        to.until("the newest state", |to| (1..=line).all(|line| to.output(line) == Some(true)));
        let took = healed.elapsed();
        assert!(took < Duration::from_secs(20), "after {took:?}");
        for (number, before) in (1..).zip(before) {
            // Off by silence and on again, or on for the first time; nothing else.
            let expected = if number < line { 2 } else { u64::from(number == line) };
            // A killed receiver has its outputs forced, which are off already.
            assert_eq!(to.writes(number) - before, expected, "turn {turn}, output {number}");
        }
    }
    let peer = to.until_peer(PORT, "device 0", "connected");
    assert!(peer.sequence > 0, "{peer:#?}");
    from.until_peer(PORT, &at(1), "connected");
}

#[test]
fn a_line_that_carries_one_way_only_is_no_line() {
    let test = "a_line_that_carries_one_way_only_is_no_line";
    if Command::new("nft").arg("-v").output().is_err() {
        return skip(test, "nft is missing");
    }
    let Some(net) = Net::switched(test, 2) else { return };
    let to = net.device(1, hears(0, "1s"));
    let from = net.device(0, sends(0, &[1]));
    for (mute, is_on) in [(0, true), (1, false), (0, false), (1, true)] {
        from.pull(1, is_on);
        from.pull(2, true);
        to.until_output(1, is_on);
        to.until_output(2, true);
        net.mute(mute, true);
        from.pull(1, !is_on);
        to.until_peer(PORT, "device 0", "silent");
        to.until_output(1, false);
        to.until_output(2, false);
        from.until_peer(PORT, &at(1), "connecting");
        net.mute(mute, false);
        to.until_output(1, !is_on);
        to.until_output(2, true);
    }
}

#[test]
fn a_half_open_connection_is_found_within_the_timeout() {
    let Some(net) = Net::switched("a_half_open_connection_is_found_within_the_timeout", 2) else { return };
    let to = net.device(1, hears(0, "8s"));
    let from = net.device(0, sends(0, &[1]));
    from.until_peer(PORT, &at(1), "connected");
    net.cable_of(1, false);
    let cut = Instant::now();
    let peer = from.until_peer(PORT, &at(1), "connecting");
    let took = cut.elapsed();
    assert!(took <= Duration::from_secs(8), "after {took:?}");
    assert!(peer.lost > 0 && peer.detail == "the receiver does not acknowledge", "{peer:#?}");
    to.until_peer(PORT, "device 0", "silent");
    net.cable_of(1, true);
    from.until_peer(PORT, &at(1), "connected");
    to.until_peer(PORT, "device 0", "connected");
}

/// Parameters of one of five, which sends its first line to all others, which have an output for each.
fn one_of_five(own: usize, timeout: &str) -> String {
    let others = || (0..5).filter(|other| *other != own);
    let mut text = format!("bind = \"0.0.0.0\"\nport = {PORT}\n[sender]\nname = \"device {own}\"\n");
    text += &format!("[[sender.lines]]\nlocal = \"DI1\"\nremote = \"DO{}\"\n", own + 1);
    for other in others() {
        text += &format!("[[sender.receivers]]\naddress = \"{}\"\n", at(other));
    }
    for other in others() {
        text += &format!(
            "[[receiver.senders]]\nname = \"device {other}\"\naddresses = [\"{}\"]\noutputs = [\"DO{}\"]\ntimeout = \"{timeout}\"\n",
            address(other),
            other + 1
        );
    }
    text
}

/// Each of five has the lines of the others at its outputs.
fn everybody_sees(devices: &[Device], lines: [bool; 5]) {
    for (own, device) in devices.iter().enumerate() {
        device.until(&format!("device {own} sees {lines:?}"), |device| {
            (0..5).filter(|other| *other != own).all(|other| device.output(other + 1) == Some(lines[other]))
        });
    }
}

fn all_are_connected(devices: &[Device]) {
    for (own, device) in devices.iter().enumerate() {
        device.until(&format!("device {own} has all its peers"), |device| {
            let peers = device.peers(PORT);
            peers.len() == 8 && peers.iter().all(|peer| peer.state == "connected")
        });
    }
}

#[test]
fn five_devices_hear_each_other() {
    let Some(net) = Net::switched("five_devices_hear_each_other", 5) else { return };
    let devices: Vec<Device> = (0..5).map(|own| net.device(own, one_of_five(own, "2s"))).collect();
    for (device, is_on) in devices.iter().zip([true, false, true, false, true]) {
        device.pull(1, is_on);
    }
    everybody_sees(&devices, [true, false, true, false, true]);
    // Two are cut off, from the others and from each other; one is killed, one changes its line.
    net.cable_of(0, false);
    net.cable_of(1, false);
    devices[1].pull(1, true);
    devices[2].signal(Signal::SIGKILL);
    devices[3].pull(1, true);
    for device in &devices[2..] {
        device.until("it is silent", |device| device.output(1) == Some(false));
    }
    devices[4].until_output(4, true);
    devices[4].until_output(3, true);
    net.cable_of(0, true);
    net.cable_of(1, true);
    everybody_sees(&devices, [true, true, true, true, true]);
    all_are_connected(&devices);
}

#[test]
fn five_devices_hear_each_other_over_lines_that_lose_packets_are_cut_and_carry_late() {
    let test = "five_devices_hear_each_other_over_lines_that_lose_packets_are_cut_and_carry_late";
    let Some(net) = Net::star(test, 5) else { return };
    let devices: Vec<Device> = (0..5).map(|own| net.device(own, one_of_five(own, "4s"))).collect();
    (0..5).for_each(|device| net.line_of(device, 20, 3));
    for (device, is_on) in devices.iter().zip([true, false, true, false, true]) {
        device.pull(1, is_on);
    }
    everybody_sees(&devices, [true, false, true, false, true]);
    // One is cut off and changes its line; one is killed, one changes its line.
    net.line_of(0, 20, 100);
    devices[0].pull(1, false);
    devices[2].signal(Signal::SIGKILL);
    devices[3].pull(1, true);
    for device in &devices[1..] {
        device.until("it is silent", |device| device.output(1) == Some(false));
    }
    devices[0].until_output(5, false);
    devices[4].until_output(4, true);
    devices[4].until_output(3, true);
    devices[0].pull(1, true);
    net.line_of(0, 20, 3);
    everybody_sees(&devices, [true, false, true, true, true]);
    all_are_connected(&devices);
}

#[test]
fn either_side_may_be_killed_and_the_line_cut_while_it_loses_packets() {
    let test = "either_side_may_be_killed_and_the_line_cut_while_it_loses_packets";
    let Some(net) = Net::long(test) else { return };
    let to = net.device(1, hears(0, "4s"));
    let from = net.device(0, sends(0, &[1]));
    net.line_of(0, 40, 5);
    from.pull(1, true);
    for turn in 0..4 {
        let is_on = turn % 2 == 0;
        from.pull(2, is_on);
        to.until("the newest state", |to| to.output(1) == Some(true) && to.output(2) == Some(is_on));
        net.line_of(0, 40, 100);
        from.pull(2, !is_on);
        if turn < 2 {
            to.until_output(1, false);
        }
        match turn % 2 {
            0 => from.signal(Signal::SIGKILL),
            _ => to.signal(Signal::SIGKILL),
        }
        from.pull(3, is_on);
        net.line_of(0, 40, 5);
        to.until("the newest state", |to| (1..=3).all(|line| to.output(line) == Some([true, !is_on, is_on][line - 1])));
    }
    to.until_peer(PORT, "device 0", "connected");
    from.until_peer(PORT, &at(1), "connected");
}

#[test]
fn a_sender_that_vanishes_without_a_word_is_followed_by_the_next() {
    let Some(net) = Net::switched("a_sender_that_vanishes_without_a_word_is_followed_by_the_next", 2) else { return };
    let to = net.device(1, hears(0, "6s"));
    let from = net.device(0, sends(0, &[1]));
    for is_on in [true, false, true] {
        from.pull(1, is_on);
        to.until_output(1, is_on);
        // Nothing tells the receiver that this process has ended: its connection stays open there, half.
        net.cable_of(0, false);
        from.kill_mirror();
        from.pull(1, !is_on);
        net.cable_of(0, true);
        to.until_output(1, !is_on);
        from.until_peer(PORT, &at(1), "connected");
    }
    assert_eq!(to.child("read-dido").restarts, 0);
}

#[test]
fn two_devices_of_the_original_share_a_receiver() {
    let Some(net) = Net::switched("two_devices_of_the_original_share_a_receiver", 3) else { return };
    let known = |device: usize, outputs: &str| {
        format!(
            "[[receiver.senders]]\nname = \"old {device}\"\nprotocol = \"legacy\"\naddresses = [\"{}\"]\noutputs = [{outputs}]\n",
            address(device)
        )
    };
    let first = known(0, "\"DO1\", \"DO2\", \"DO3\", \"DO4\"");
    let second = known(1, "\"\", \"\", \"\", \"\", \"DO5\", \"DO6\", \"DO7\", \"DO8\"");
    let to = net.device(2, format!("bind = \"0.0.0.0\"\nport = {PORT}\n{first}{second}"));
    let old: Vec<Device> = (0..2).map(|device| net.device(device, sender("old", PORT, "legacy", &[at(2)]))).collect();
    for is_on in [true, false] {
        for line in 1..=8 {
            old[0].pull(line, is_on);
            old[1].pull(line, !is_on);
        }
        to.until("each has its outputs", |to| (1..=8).all(|output| to.output(output) == Some((output <= 4) == is_on)));
    }
}

#[test]
fn peers_are_told_to_programs_of_the_machine_only() {
    let Some(net) = Net::switched("peers_are_told_to_programs_of_the_machine_only", 2) else { return };
    let to = net.device(1, hears(0, "5s"));
    assert_eq!(to.peers(PORT).len(), 1);
    let there = net.ns(0);
    let asked = std::thread::spawn(move || {
        setns(File::open(format!("/run/netns/{there}")).expect("the namespace is there"), CloneFlags::CLONE_NEWNET)
            .expect("root may");
        block_on(async {
            let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", at(1))).expect("an address");
            let mut client = MirrorServiceClient::new(endpoint.connect().await.expect("a sender may come from there"));
            client.list_peers(ListPeersRequest {}).await.map(drop).map_err(|status| status.code())
        })
    });
    assert_eq!(asked.join().expect("no panic"), Err(tonic::Code::PermissionDenied));
}
