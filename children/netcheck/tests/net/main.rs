//! The checks against a real network: links cut, packets lost and delayed, servers stopped. The peer is a Python client made
//! from the .proto files, as the programs of the original are.

mod world;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use world::{World, target};

const LANWAN: &str = "multus-lanwan-check";
const OPENVPN: &str = "multus-openvpn-check";

fn unix() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

#[test]
fn a_pulled_cable_is_seen_at_once_and_so_is_its_return() {
    let Some(world) = World::new("a_pulled_cable_is_seen_at_once_and_so_is_its_return") else { return };
    // No round comes by itself: what is seen is seen by the carrier. A machine that is busy may answer late.
    let checks = "interval = \"1h\"\nrecheck = \"1s\"\ntimeout = \"20s\"\n";
    world.check(
        LANWAN,
        &format!(
            "first_check = \"0s\"\n[lan]\n{checks}[wan]\nhosts = [\"203.0.113.1\"]\ninterface = \"eth0\"\n{checks}"
        ),
    );
    let lan = world.until_state(46001, "lan", "up");
    assert_eq!((&lan["interface"], &lan["rounds"]), (&json!("eth0"), &json!("1")), "{lan}");
    assert!(target(&lan, "gateway 192.168.77.1")["latency_us"].is_string(), "{lan}");
    world.until_state(46001, "wan", "up");
    let cut = unix();
    world.ip("rtr", "link set lan0 down");
    let lan = world.until_state(46001, "lan", "down");
    println!("seen at most {:.0} ms after the cable was pulled", (unix() - cut) * 1e3);
    assert_eq!((&lan["detail"], &lan["rounds"]), (&json!("eth0 has no carrier"), &json!("1")), "{lan}");
    world.until_state(46001, "wan", "down");
    world.until_log(LANWAN, "lan is down: eth0 has no carrier");
    world.ip("rtr", "link set lan0 up");
    world.until_state(46001, "lan", "up");
    world.until_state(46001, "wan", "up");
    assert_eq!(world.shown(46001, "lan")["changes"], "2");
}

#[test]
fn every_kind_of_question_is_answered_by_real_servers_and_missed_when_they_stop() {
    const TEST: &str = "every_kind_of_question_is_answered_by_real_servers_and_missed_when_they_stop";
    let Some(world) = World::new(TEST) else { return };
    world.serve_pages();
    let hosts = [
        "203.0.113.1",
        "tcp://203.0.113.1:80",
        "dns://192.168.77.1/box.example",
        "http://203.0.113.1/",
        "http://203.0.113.1/missing",
        "tcp://203.0.113.1:81",
        "10.255.255.1",
    ];
    let config = |rule: &str| {
        format!(
            "first_check = \"0s\"\n[lan]\nenabled = false\n[wan]\nhosts = {hosts:?}\n{rule}\ninterval = \"1s\"\n\
             recheck = \"500ms\"\ntimeout = \"1s\"\n"
        )
    };
    world.check(LANWAN, &config("rule = \"quorum\"\nquorum = 4"));
    let wan = world.until_state(46001, "wan", "up");
    assert_eq!(world.shown(46001, "lan")["state"], "disabled");
    let good: Vec<bool> = hosts.iter().map(|host| target(&wan, host)["good"] == true).collect();
    assert_eq!(good, [true, true, true, true, false, false, false], "{wan}");
    assert_eq!(target(&wan, hosts[4])["detail"], "status 404 Not Found");
    assert_eq!(target(&wan, hosts[5])["detail"], "no connection: Connection refused (os error 111)");
    assert_eq!(target(&wan, hosts[6])["detail"], "no answer within 1s");
    world.end("pages");
    let wan = world.until_state(46001, "wan", "down");
    assert_eq!((&target(&wan, hosts[0])["good"], &target(&wan, hosts[1])["good"]), (&json!(true), &json!(false)));
    world.serve_pages();
    world.until_state(46001, "wan", "up");
    world.end("dns");
    let wan = world.until_state(46001, "wan", "down");
    assert_eq!(target(&wan, hosts[2])["good"], false, "{wan}");
    world.end(LANWAN);
    world.check(LANWAN, &config("rule = \"any\""));
    world.until_state(46001, "wan", "up");
    world.line_is(0, 100);
    let wan = world.until_state(46001, "wan", "down");
    assert_eq!(target(&wan, hosts[0])["detail"], "no answer within 1s", "{wan}");
}

#[test]
fn latency_and_loss_of_a_long_line_are_measured_and_loss_alone_is_ridden_out() {
    const TEST: &str = "latency_and_loss_of_a_long_line_are_measured_and_loss_alone_is_ridden_out";
    let Some(world) = World::new(TEST) else { return };
    world.line_is(60, 0);
    let config = "first_check = \"0s\"\n[lan]\nenabled = false\n[wan]\nhosts = [\"203.0.113.1\"]\ninterval = \"1s\"\n\
                  recheck = \"500ms\"\ntimeout = \"2s\"\ndown_after = 1000\n";
    world.check(LANWAN, config);
    let at_least = |number: u64| {
        move |shown: &serde_json::Value| {
            shown["targets"][0]["remembered"].as_u64().is_some_and(|remembered| remembered >= number)
        }
    };
    let wan = world.until_shown(46001, "wan", "three answers", at_least(3));
    let us = |value: &serde_json::Value| value.as_str().and_then(|text| text.parse::<u64>().ok()).expect("a number");
    let asked = &wan["targets"][0];
    assert!(us(&asked["shortest_us"]) >= 120_000, "twice 60 ms: {asked}");
    assert!(us(&asked["shortest_us"]) <= us(&asked["mean_us"]) && us(&asked["mean_us"]) <= us(&asked["longest_us"]));
    assert!(asked["loss_percent"].as_f64().is_some_and(|loss| loss < 100.0), "{asked}");
    world.line_is(0, 40);
    let wan = world.until_shown(46001, "wan", "some are lost and some are not", |shown| {
        let asked = &shown["targets"][0];
        asked["loss_percent"].as_f64().is_some_and(|loss| loss > 0.0) && us(&asked["shortest_us"]) < 120_000
    });
    assert_eq!((&wan["state"], &wan["changes"]), (&json!("up"), &json!("0")), "{wan}");
    assert!(wan["targets"][0]["loss_percent"].as_f64().is_some_and(|loss| loss < 100.0), "{wan}");
}

#[test]
fn a_program_of_the_original_gets_its_answers() {
    let Some(world) = World::new("a_program_of_the_original_gets_its_answers") else { return };
    let wan = "[wan]\nhosts = [\"203.0.113.1\"]\ninterval = \"1s\"\nrecheck = \"500ms\"\ndown_after = 1\n";
    let lanwan =
        |first| format!("first_check = \"{first}\"\nconfig_version = \"2.3.4\"\n[lan]\ninterval = \"1s\"\n{wan}");
    world.check(LANWAN, &lanwan("1h"));
    let vpn = "first_check = \"0s\"\n[vpn]\nhosts = [\"203.0.113.1\"]\n";
    world.check(OPENVPN, vpn);
    let ask = |port, method| world.ask(port, "gRPCService", method);
    world.until("it listens", || ask(46001, "gRPCGetLANStatus")["error"] != "UNAVAILABLE");
    let nothing_yet = json!({
        "TimestampLastCheck": 0.0, "TimestampLastOK": 0.0, "ConnectionStatus": false, "count": 0, "ValidStatus": false
    });
    for method in ["gRPCGetLANStatus", "gRPCGetWANStatus"] {
        assert_eq!(ask(46001, method), nothing_yet, "{method} before the first check");
    }
    // To the byte: fields 1 and 2 are texts.
    let version = env!("CARGO_PKG_VERSION");
    let text =
        |field: u8, text: &str| [&[field << 3 | 2, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    let bytes = [text(1, version), text(2, "2.3.4")].concat();
    assert_eq!(world.ask_bytes(46001, "gRPCService", "gRPCgetLANWANCheckClientVersions"), bytes);
    for (port, method) in [
        (46001, "gRPCGetOVPNStatus"),
        (46001, "gRPCGetmultusLANStatus"),
        (46002, "gRPCGetLANStatus"),
        (46002, "gRPCGetWANStatus"),
    ] {
        world.until("it listens", || ask(port, method)["error"] != "UNAVAILABLE");
        assert_eq!(ask(port, method)["error"], "UNIMPLEMENTED", "{method} on {port}");
    }
    let versions = json!({ "SoftwareVersion": env!("CARGO_PKG_VERSION"), "ConfigVersion": "2.3.4" });
    assert_eq!(ask(46001, "gRPCgetLANWANCheckClientVersions"), versions);
    world.until("the tunnel is up", || ask(46002, "gRPCGetOVPNStatus")["ConnectionStatus"] == true);

    world.end(LANWAN);
    let begun = unix();
    world.check(LANWAN, &lanwan("0s"));
    world.until("the world is up", || ask(46001, "gRPCGetWANStatus")["ConnectionStatus"] == true);
    let up = ask(46001, "gRPCGetWANStatus");
    let (check, good) = (up["TimestampLastCheck"].as_f64(), up["TimestampLastOK"].as_f64());
    assert!(check == good && check.is_some_and(|time| (begun..=unix()).contains(&time)), "{up}");
    assert!(up["ValidStatus"] == true && up["count"].as_u64().is_some_and(|count| count >= 1), "{up}");
    // To the byte: two times of 8 bytes, that it is there, the count, that it is valid.
    let bytes = world.ask_bytes(46001, "gRPCService", "gRPCGetWANStatus");
    assert_eq!(
        (bytes.len(), bytes[0], bytes[9], &bytes[18..21], &bytes[22..]),
        (24, 0x09, 0x11, &[0x18, 1, 0x20][..], &[0x28, 1][..])
    );
    let time = |at: usize| f64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    assert!(time(1) == time(10) && (begun..=unix()).contains(&time(1)) && bytes[21] >= 1, "{bytes:?}");
    world.ip("rtr", "link set wan0 down");
    world.until("the world is gone", || ask(46001, "gRPCGetWANStatus")["ConnectionStatus"] == false);
    let down = ask(46001, "gRPCGetWANStatus");
    assert_eq!(down["ValidStatus"], true, "{down}");
    assert!(down["TimestampLastOK"].as_f64() < down["TimestampLastCheck"].as_f64(), "{down}");
    assert_eq!(ask(46001, "gRPCGetLANStatus")["ConnectionStatus"], true, "the router is still there");
}

#[test]
fn a_router_that_answers_no_ping_is_known_by_its_address() {
    let Some(world) = World::new("a_router_that_answers_no_ping_is_known_by_its_address") else { return };
    world.run("rtr", "nft", &["add rule ip box in icmp type echo-request drop"]);
    let config = "first_check = \"0s\"\n[lan]\ninterval = \"1s\"\nrecheck = \"500ms\"\ntimeout = \"500ms\"\n[wan]\nenabled = false\n";
    world.check(LANWAN, config);
    let lan = world.until_state(46001, "lan", "up");
    let router = target(&lan, "gateway 192.168.77.1");
    assert!(router["good"] == true && router["latency_us"].is_null(), "{router}");
    world.ip("rtr", "link set lan0 arp off");
    world.ip("dev", "neigh flush all");
    let lan = world.until_state(46001, "lan", "down");
    assert!(lan["detail"].as_str().is_some_and(|detail| detail.contains("its address is not resolved")), "{lan}");
    world.ip("dev", "route del default");
    world.until_shown(46001, "lan", "no route", |lan| lan["detail"] == "gateway: there is no default route");
}

#[test]
fn ipv6_will_do() {
    const TEST: &str = "ipv6_will_do";
    let Some(world) = World::new(TEST) else { return };
    if !world::has_ipv6() {
        return world::skip(TEST, "this kernel has no IPv6");
    }
    world.ip("dev", "route del default");
    world.ip("dev", "-6 route add default via fe80::1 dev eth0");
    let config = "first_check = \"0s\"\n[lan]\nhosts = [\"fd00:77::1\"]\ninterval = \"1s\"\nrecheck = \"500ms\"\n\
                  [wan]\nhosts = [\"dns://[fd00:77::1]/box.example\", \"fd00:77::99\"]\ntimeout = \"1s\"\ninterval = \"1s\"\n";
    world.check(LANWAN, config);
    let lan = world.until_state(46001, "lan", "up");
    for name in ["gateway fe80::1", "fd00:77::1"] {
        assert!(target(&lan, name)["latency_us"].is_string(), "{lan}");
    }
    let dns = "dns://[fd00:77::1]/box.example";
    let wan = world.until_shown(46001, "wan", "the name server answers", |wan| {
        wan["state"] == "up" && target(wan, dns)["good"] == true
    });
    assert_eq!(target(&wan, "fd00:77::99")["good"], false, "{wan}");
}

#[test]
fn an_interface_that_vanishes_or_never_was_is_told() {
    let Some(world) = World::new("an_interface_that_vanishes_or_never_was_is_told") else { return };
    let check = "interval = \"1h\"\nrecheck = \"500ms\"\n";
    world.check(LANWAN, &format!("first_check = \"0s\"\n[lan]\n{check}[wan]\nhosts = [\"203.0.113.1\"]\n{check}"));
    world.check(
        OPENVPN,
        &format!("first_check = \"0s\"\n[vpn]\ninterface = \"tun0\"\nhosts = [\"203.0.113.1\"]\n{check}"),
    );
    let vpn = world.until_state(46002, "vpn", "down");
    assert_eq!(vpn["detail"], "203.0.113.1: there is no interface tun0", "{vpn}");
    world.until_state(46001, "lan", "up");
    world.ip("dev", "link del eth0");
    let lan = world.until_state(46001, "lan", "down");
    assert_eq!(lan["detail"], "eth0 is gone", "{lan}");
    world.ip("dev", "link add tun0 type veth peer name other0");
    world.ip("dev", "link set tun0 up");
    world.ip("dev", "link set other0 up");
    world.until_shown(46002, "vpn", "the tunnel is looked at again", |vpn| vpn["rounds"] != "1");
}

#[test]
fn a_ping_needs_no_rights_where_the_kernel_allows_it() {
    let Some(world) = World::new("a_ping_needs_no_rights_where_the_kernel_allows_it") else { return };
    let config = "first_check = \"0s\"\n[lan]\nenabled = false\n[wan]\nhosts = [\"203.0.113.1\"]\ninterval = \"1s\"\n";
    for (group_range, expected) in [("1 0", "down"), ("0 65534", "up")] {
        world.run("dev", "sysctl", &["-q", "-w", &format!("net.ipv4.ping_group_range={group_range}")]);
        let mut command = world.check_command(LANWAN, config);
        let arguments: Vec<std::ffi::OsString> = command.get_args().map(Into::into).collect();
        let program = world.path("check");
        std::fs::copy(&arguments[4], &program).expect("it was built");
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(world.path(""), everybody).expect("own directory");
        command = world.command_in("dev", "setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]).arg(&program);
        command.args(&arguments[5..]);
        world.background("unprivileged", &mut command);
        let wan = world.until_state(46001, "wan", expected);
        if expected == "down" {
            let told = wan["detail"].as_str().unwrap_or_default();
            assert!(told.contains("may not ping: name its group in net.ipv4.ping_group_range"), "{wan}");
        }
        world.end("unprivileged");
    }
}

#[test]
fn an_action_is_done_so_often_a_day_and_no_more() {
    let Some(world) = World::new("an_action_is_done_so_often_a_day_and_no_more") else { return };
    let did = world.path("did");
    let command = ["sh".to_owned(), "-c".into(), format!("echo $MULTUS_CHECK >> {}", did.display())];
    let config = format!(
        "first_check = \"0s\"\n[lan]\nenabled = false\n[wan]\nhosts = [\"10.255.255.1\"]\ntimeout = \"100ms\"\n\
         [wan.action]\nkind = \"command\"\nafter = \"1s\"\nper_day = 2\ncommand = {command:?}\n"
    );
    world.check(LANWAN, &config);
    world.until_log(LANWAN, "nothing is done about it: it was done 2 times within 24 hours");
    assert_eq!(std::fs::read_to_string(&did).expect("it was done"), "wan\nwan\n");
    world.end(LANWAN);
    std::fs::remove_file(world.path(LANWAN)).expect("own file");
    world.check(LANWAN, &config);
    world.until_log(LANWAN, "nothing is done about it: it was done 2 times within 24 hours");
    assert_eq!(std::fs::read_to_string(&did).expect("it was done"), "wan\nwan\n", "also after a restart");
}

#[test]
fn a_reboot_is_asked_of_the_daemon() {
    let Some(world) = World::new("a_reboot_is_asked_of_the_daemon") else { return };
    std::fs::create_dir_all(world.path("run")).expect("own directory");
    let daemon = UnixListener::bind(world.path("run/control.sock")).expect("own directory");
    world.check(
        LANWAN,
        "first_check = \"0s\"\n[lan]\nenabled = false\n[wan]\nhosts = [\"10.255.255.1\"]\ntimeout = \"100ms\"\n\
         [wan.action]\nkind = \"reboot\"\nafter = \"1s\"\nper_day = 1\n",
    );
    daemon.set_nonblocking(true).expect("own socket");
    let mut asked = None;
    world.until("it connects", || {
        asked = daemon.accept().ok();
        asked.is_some()
    });
    let (mut asked, _) = asked.expect("it connected");
    asked.set_nonblocking(false).expect("own socket");
    let mut line = String::new();
    BufReader::new(&asked).read_line(&mut line).expect("it asks");
    assert_eq!(line, "{\"cmd\":\"reboot\",\"seconds\":10}\n");
    asked.write_all(b"{\"ok\":true}\n").expect("it listens");
    world.until_log(LANWAN, "nothing is done about it: it was done 1 times within 24 hours");
}

#[test]
fn a_changed_configuration_is_taken_without_a_new_process() {
    let Some(world) = World::new("a_changed_configuration_is_taken_without_a_new_process") else { return };
    let config = |host| {
        format!("first_check = \"0s\"\n[lan]\nenabled = false\n[wan]\nhosts = [\"{host}\"]\ntimeout = \"100ms\"\n")
    };
    world.check(LANWAN, &config("10.255.255.1"));
    world.until_state(46001, "wan", "down");
    let reload = |host| world.reload(LANWAN, &config(host));
    reload("300.1.1.1");
    world.until_log(LANWAN, "going on with the previous one");
    world.until_state(46001, "wan", "down");
    reload("203.0.113.1");
    world.until_state(46001, "wan", "up");
}

#[test]
fn a_check_that_is_as_before_goes_on_with_all_it_knows() {
    let Some(world) = World::new("a_check_that_is_as_before_goes_on_with_all_it_knows") else { return };
    let check = "interval = \"1h\"\nrecheck = \"1s\"\ntimeout = \"20s\"\n";
    let config = |first, host| {
        format!("first_check = \"{first}\"\n[lan]\n{check}[wan]\nhosts = [\"{host}\"]\ninterface = \"eth0\"\n{check}")
    };
    world.check(LANWAN, &config("0s", "203.0.113.1"));
    world.until_state(46001, "wan", "up");
    let lan = world.until_state(46001, "lan", "up");
    // The other one is asked at once: this is no start of the machine.
    world.reload(LANWAN, &config("1h", "tcp://203.0.113.1:9"));
    let wan = world.until_state(46001, "wan", "down");
    assert_eq!(wan["targets"][0]["target"], "tcp://203.0.113.1:9", "{wan}");
    assert_eq!(world.shown(46001, "lan"), lan);
    // It is still followed.
    world.ip("rtr", "link set lan0 down");
    world.until_state(46001, "lan", "down");
}

#[test]
fn a_round_that_began_before_the_cable_was_pulled_does_not_count() {
    let Some(world) = World::new("a_round_that_began_before_the_cable_was_pulled_does_not_count") else { return };
    world.serve_pages();
    // One answers at once, the other never: the round goes on until its time-out.
    let config = "first_check = \"0s\"\n[lan]\nenabled = false\n[wan]\ninterval = \"1h\"\ntimeout = \"10s\"\n\
                  hosts = [\"http://203.0.113.1/\", \"10.255.255.1\"]\n";
    world.check(LANWAN, config);
    world.until_log("pages", "\"GET / ");
    world.ip("rtr", "link set lan0 down");
    world.until_log(LANWAN, "wan is down: eth0 has no carrier");
    let wan = world.until_shown(46001, "wan", "the next round", |wan| wan["rounds"] == "1");
    assert_eq!(
        (&wan["state"], target(&wan, "http://203.0.113.1/")["good"].as_bool()),
        (&json!("down"), Some(false)),
        "{wan}"
    );
    assert!(!world.log(LANWAN).contains("wan is up"), "{}", world.log(LANWAN));
    world.ip("rtr", "link set lan0 up");
    world.until_state(46001, "wan", "up");
}

#[test]
fn the_way_to_the_world_may_become_another_one() {
    let Some(world) = World::new("the_way_to_the_world_may_become_another_one") else { return };
    world.cable(("dev", "eth1"), ("rtr", "lan1"));
    for (namespace, command) in [
        ("rtr", "address add 192.168.78.1/24 dev lan1"),
        ("rtr", "link set lan1 up"),
        ("dev", "address add 192.168.78.2/24 dev eth1"),
        ("dev", "link set eth1 up"),
        ("dev", "route add default via 192.168.78.1 metric 200"),
    ] {
        world.ip(namespace, command);
    }
    let config = "first_check = \"0s\"\n[lan]\nenabled = false\n[wan]\nhosts = [\"203.0.113.1\"]\ninterval = \"1h\"\n\
                  recheck = \"1s\"\ndown_after = 1000\n";
    world.check(LANWAN, config);
    let wan = world.until_state(46001, "wan", "up");
    assert_eq!(wan["interface"], "eth0", "{wan}");
    world.ip("rtr", "link set lan0 down");
    world.until_log(LANWAN, "wan is down: eth0 has no carrier");
    // As whoever sets up the network does.
    world.ip("dev", "route delete default via 192.168.77.1");
    let wan = world.until_state(46001, "wan", "up");
    assert_eq!(wan["interface"], "eth1", "{wan}");
    world.ip("rtr", "link set lan1 down");
    world.until_log(LANWAN, "wan is down: eth1 has no carrier");
}

#[test]
fn an_action_that_takes_too_long_ends_with_all_that_it_started() {
    let Some(world) = World::new("an_action_that_takes_too_long_ends_with_all_that_it_started") else { return };
    let pid = world.path("pid");
    let command = ["sh".to_owned(), "-c".into(), format!("sleep 1000 & echo $! > {}; wait", pid.display())];
    world.check(
        LANWAN,
        &format!(
            "first_check = \"0s\"\n[lan]\nenabled = false\n[wan]\nhosts = [\"10.255.255.1\"]\ntimeout = \"100ms\"\n\
             [wan.action]\nkind = \"command\"\nafter = \"1s\"\nper_day = 1\ntimeout = \"3s\"\ncommand = {command:?}\n"
        ),
    );
    world.until_log(LANWAN, "took longer than 3s and is killed");
    let pid: i32 = std::fs::read_to_string(&pid).expect("it was begun").trim().parse().expect("a number");
    let is_there = || nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok();
    // Whoever adopts it may not have waited for it yet.
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    world.until("its child is gone", || !is_there() || stat().contains(") Z "));
}
