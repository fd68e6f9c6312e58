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
    // No round comes by itself: what is seen is seen by the carrier.
    let checks = "interval = \"1h\"\nrecheck = \"1s\"\n";
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
                  recheck = \"500ms\"\ntimeout = \"400ms\"\ndown_after = 1000\n";
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
    assert_eq!(asked["loss_percent"], 0.0, "{asked}");
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
    let pid = nix::unistd::Pid::from_raw(world.pid(LANWAN).cast_signed());
    let reload = |host| {
        std::fs::write(world.path(&format!("{LANWAN}.toml")), config(host)).expect("own file");
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).expect("it runs");
    };
    reload("300.1.1.1");
    world.until_log(LANWAN, "going on with the previous one");
    world.until_state(46001, "wan", "down");
    reload("203.0.113.1");
    world.until_state(46001, "wan", "up");
}
