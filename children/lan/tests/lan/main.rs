//! multus-lan against a real kernel, a real router, real DHCP clients and servers, in network namespaces that the test makes.

mod world;

use std::fs;

use serde_json::json;
use world::{OLD_RESOLV, PORT, World};

/// A fixed address that the router can be reached from.
const GOOD: &str = "interface = \"eth0\"\nbackend = \"rtnetlink\"\ndhcp = false\naddresses = [\"192.168.77.9/24\"]\n\
    gateway = \"192.168.77.1\"\nname_servers = [\"192.168.77.1\"]\nconfirm_within = \"30s\"\n";
/// One in a network that is not there.
const BAD: &str = "interface = \"eth0\"\nbackend = \"rtnetlink\"\ndhcp = false\naddresses = [\"192.168.99.9/24\"]\n\
    gateway = \"192.168.99.1\"\nname_servers = [\"192.168.99.1\"]\nconfirm_within = \"25s\"\n";
const DHCP: &str = "interface = \"eth0\"\nbackend = \"rtnetlink\"\nconfirm_within = \"25s\"\n";

fn old() -> (Vec<String>, String) {
    (vec!["192.168.77.2/24".into()], "192.168.77.1".into())
}

#[test]
fn a_fixed_address_stands_when_the_router_answers_and_is_taken_away_again() {
    let Some(world) = World::new("a_fixed_address_stands_when_the_router_answers_and_is_taken_away_again") else {
        return;
    };
    world.set_up_old();
    world.configure(GOOD);
    world.start();
    let lan = world.until_state("confirmed");
    assert_eq!(world.set(), (vec!["192.168.77.9/24".into()], "192.168.77.1".into()));
    assert_eq!((&lan["backend"], &lan["has_carrier"]), (&json!("rtnetlink"), &json!(true)), "{lan}");
    assert_eq!(lan["detail"], "confirmed by the router 192.168.77.1");
    assert_eq!((&lan["gateways"], &lan["name_servers"]), (&json!(["192.168.77.1"]), &json!(["192.168.77.1"])), "{lan}");
    assert_eq!(lan["addresses"][0]["address"], "192.168.77.9/24", "{lan}");
    let answer = world.ask("dev", PORT, "gRPCService", "gRPCGetmultusLANStatus");
    assert_eq!(answer, json!({ "ProcessOK": true }));
    assert_eq!(world.ask("dev", PORT, "gRPCService", "gRPCGetLANStatus"), json!({ "error": "UNIMPLEMENTED" }));
    let (is_done, text) = world.order("--status");
    assert!(is_done && text.contains("address       192.168.77.9/24"), "{text}");
    let (is_done, text) = world.order("--confirm");
    assert!(!is_done && text.contains("nothing waits for a confirmation"), "{text}");
    let (is_done, text) = world.order("--undo");
    assert!(!is_done && text.contains("works already"), "{text}");
    assert_eq!(world.stop("lan"), Some(0));
    assert_eq!(world.set().0, ["192.168.77.9/24"], "the network stays");
    // A start with what was confirmed changes nothing and asks nobody.
    world.start();
    world.until_state("confirmed");
    assert_eq!(world.stop("lan"), Some(0));
    assert_eq!(world.log("lan").matches("is set up anew").count(), 1);
    let (is_done, text) = world.order("--undo");
    assert!(is_done, "{text}");
    assert_eq!(world.set(), old());
    assert_eq!(fs::read_to_string(world.etc("resolv.conf")).expect("there"), OLD_RESOLV);
}

#[test]
fn a_wrong_address_is_taken_back_and_not_tried_again() {
    let Some(world) = World::new("a_wrong_address_is_taken_back_and_not_tried_again") else { return };
    world.set_up_old();
    world.configure(BAD);
    world.start();
    let lan = world.until_state("pending");
    assert_eq!(world.set(), (vec!["192.168.99.9/24".into()], "192.168.99.1".into()));
    assert!(lan["seconds_left"].as_u64().is_some_and(|left| left <= 25), "{lan}");
    let lan = world.until_state("rejected");
    assert_eq!(world.set(), old());
    assert_eq!(fs::read_to_string(world.etc("resolv.conf")).expect("there"), OLD_RESOLV);
    assert!(lan["last_error"].as_str().is_some_and(|error| error.contains("the router 192.168.99.1")), "{lan}");
    world.stop("lan");
    world.start();
    world.until_state("rejected");
    assert_eq!(world.log("lan").matches("is set up anew").count(), 1, "not tried again");
    world.configure(GOOD);
    multus_nettest::signal("-HUP", world.pid("lan"));
    world.until_state("confirmed");
    assert_eq!(world.set().0, ["192.168.77.9/24"]);
}

#[test]
fn a_child_that_is_killed_after_applying_takes_back_what_it_began() {
    let Some(world) = World::new("a_child_that_is_killed_after_applying_takes_back_what_it_began") else { return };
    world.set_up_old();
    world.configure(BAD);
    world.start();
    world.until_state("pending");
    world.end("lan");
    assert_eq!(world.set().0, ["192.168.99.9/24"], "killed");
    let began = world.journal()["pending"]["deadline_ms"].clone();
    world.start();
    world.until_state("pending");
    assert_eq!(world.journal()["pending"]["deadline_ms"], began, "the time goes on");
    world.until_state("rejected");
    assert_eq!(world.set(), old());
    // Killed in the middle of it, and started only when its time is long over.
    world.configure(&BAD.replace("192.168.99.9", "192.168.99.10"));
    multus_nettest::signal("-HUP", world.pid("lan"));
    world.until("it begins", || world.journal()["pending"].is_object());
    world.end("lan");
    let mut journal = world.journal();
    journal["pending"]["deadline_ms"] = journal["pending"]["began_ms"].clone();
    fs::write(world.path("state").join("lan-journal.json"), journal.to_string()).expect("own file");
    world.start();
    world.until_state("rejected");
    assert_eq!(world.set(), old());
    // As after a power cut: another boot.
    world.configure(&BAD.replace("192.168.99.9", "192.168.99.11"));
    multus_nettest::signal("-HUP", world.pid("lan"));
    world.until_state("pending");
    world.end("lan");
    let mut journal = world.journal();
    journal["pending"]["boot"] = json!("another");
    journal["pending"]["before"]["rtnetlink"]["boot"] = json!("another");
    fs::write(world.path("state").join("lan-journal.json"), journal.to_string()).expect("own file");
    world.start();
    let lan = world.until_state("rejected");
    assert!(lan["detail"].as_str().is_some_and(|detail| detail.contains("started anew")), "{lan}");
    assert_eq!(
        world.set().0,
        [""; 0],
        "what the plan had brought is gone; what was before, the start of the machine brings"
    );
}

#[test]
fn somebody_confirms_what_no_router_can() {
    let Some(world) = World::new("somebody_confirms_what_no_router_can") else { return };
    world.set_up_old();
    world.configure(
        "interface = \"eth0\"\nbackend = \"rtnetlink\"\ndhcp = false\naddresses = [\"10.1.2.3/16\"]\nprofile = \"none\"\n",
    );
    world.start();
    let lan = world.until_state("pending");
    assert!(lan["detail"].as_str().is_some_and(|detail| detail.contains("multus-lan --confirm")), "{lan}");
    let (is_done, text) = world.order("--confirm");
    assert!(is_done, "{text}");
    world.until_state("confirmed");
    assert_eq!(world.set(), (vec!["10.1.2.3/16".into()], String::new()));
    // The next one by gRPC.
    world.configure(
        "interface = \"eth0\"\nbackend = \"rtnetlink\"\ndhcp = false\naddresses = [\"10.1.2.4/16\", \"10.1.2.5/16\"]\nprofile = \"none\"\n",
    );
    multus_nettest::signal("-HUP", world.pid("lan"));
    world.until_state("pending");
    assert_eq!(world.ask("dev", PORT, "LanService", "ConfirmLan"), json!({}));
    world.until_state("confirmed");
    assert_eq!(world.set().0, ["10.1.2.4/16", "10.1.2.5/16"]);
}

#[test]
fn an_address_that_somebody_has_is_not_taken() {
    let Some(world) = World::new("an_address_that_somebody_has_is_not_taken") else { return };
    world.set_up_old();
    world.ip("rtr", "address add 192.168.77.9/24 dev lan0");
    world.configure(GOOD);
    world.start();
    let lan = world.until_state("rejected");
    let mac = world.run("rtr", "cat", &["/sys/class/net/lan0/address"]);
    let expected = format!("somebody else ({}) has the address 192.168.77.9", mac.trim());
    assert_eq!(lan["last_error"], expected, "{lan}");
    assert_eq!(world.set(), old());
    if !multus_nettest::has_ipv6() {
        return multus_nettest::skip("an_address_that_somebody_has_is_not_taken", "the kernel has no IPv6");
    }
    world.ip("rtr", "address add fd00:77::9/64 dev lan0 nodad");
    world.configure(&GOOD.replace("192.168.77.9/24", "192.168.77.8/24\", \"fd00:77::9/64"));
    multus_nettest::signal("-HUP", world.pid("lan"));
    let refused = "somebody else has the address fd00:77::9";
    let lan = world.until_answer(
        "refused",
        || world.shown(),
        |lan| lan["last_error"] == refused && lan["state"] == "rejected",
    );
    assert_eq!(world.set(), old(), "{lan}");
    let addresses = world.run("dev", "ip", &["-6", "-o", "address", "show", "dev", "eth0"]);
    assert!(!addresses.contains("fd00:77::9"), "{addresses}");
    world.configure(&GOOD.replace("192.168.77.9/24", "192.168.77.8/24\", \"fd00:77::8/64"));
    multus_nettest::signal("-HUP", world.pid("lan"));
    world.until_state("confirmed");
    let addresses = world.run("dev", "ip", &["-6", "-o", "address", "show", "dev", "eth0"]);
    assert!(addresses.contains("fd00:77::8/64"), "{addresses}");
}

#[test]
fn dhcp_gives_an_address_or_the_old_one_stays() {
    let Some(world) = World::with("dhcp_gives_an_address_or_the_old_one_stays", &[("udhcpc", "--help")]) else {
        return;
    };
    dhcp(&world, "udhcpc", ":");
}

#[test]
fn dhclient_gives_an_address_or_the_old_one_stays() {
    let Some(world) = World::with("dhclient_gives_an_address_or_the_old_one_stays", &[("dhclient", "--version")])
    else {
        return;
    };
    // Hidden: it would go first.
    dhcp(
        &world,
        "dhclient",
        "for f in /usr/sbin/udhcpc /sbin/udhcpc; do [ ! -e $f ] || mount --bind /dev/null $f; done",
    );
}

fn dhcp(world: &World, client: &str, before: &str) {
    world.set_up_old();
    world.configure(DHCP);
    // The pool is empty: its only address is kept for somebody else.
    let pool = ["--dhcp-range=192.168.77.50,192.168.77.50,2m", "--dhcp-host=02:00:00:00:00:99,192.168.77.50"];
    world.serve_dhcp(&pool);
    let start = || world.background("lan", world.multus_lan(&[]).env("BEFORE", before));
    start();
    let lan = world.until_state("rejected");
    assert!(lan["last_error"].as_str().is_some_and(|error| error.contains("no DHCP server has answered")), "{lan}");
    assert_eq!(world.set(), old(), "{}", world.log("lan"));
    world.until_log("lan", &format!("{client} asks for an address on eth0"));
    world.end("dnsmasq");
    world.serve_dhcp(&["--dhcp-range=192.168.77.50,192.168.77.59,2m"]);
    world.configure(&format!(
        "{DHCP}profile = \"wan-via-lan\"\ngateway_confirms = true\nname_servers = [\"1.1.1.1\"]\n"
    ));
    multus_nettest::signal("-HUP", world.pid("lan"));
    let lan = world.until_state("confirmed");
    let (addresses, gateway) = world.set();
    assert!(addresses.len() == 1 && addresses[0].starts_with("192.168.77.5"), "{addresses:?}");
    assert_eq!((gateway.as_str(), &lan["lease"]["server"]), ("192.168.77.1", &json!("192.168.77.1")), "{lan}");
    assert!(lan["addresses"][0]["seconds_valid"].as_u64().is_some_and(|left| left <= 120), "{lan}");
    let resolv = fs::read_to_string(world.etc("resolv.conf")).expect("there");
    assert!(resolv.ends_with("nameserver 1.1.1.1\n") && !resolv.contains("9.9.9.9"), "{resolv}");
    // Killed and started again it has the same address, and one client works.
    world.end("lan");
    start();
    let lan = world.until_answer("a lease again", || world.shown(), |lan| lan["lease"].is_object());
    assert_eq!(lan["lease"]["address"], addresses[0], "{lan}");
    let clients = world.run(
        "dev",
        "sh",
        &["-c", "ip netns pids \"$(ip netns identify $$)\" | while read p; do cat /proc/$p/comm; done"],
    );
    let name = if client == "udhcpc" { "udhcpc" } else { "dhclient" };
    assert_eq!(clients.lines().filter(|line| *line == name).count(), 1, "{clients}");
    world.stop("lan");
    let (is_done, text) = world.order("--undo");
    assert!(is_done, "{text}");
    assert_eq!(world.set(), old());
}

#[test]
fn an_interface_that_vanishes_is_set_up_when_it_is_back() {
    let Some(world) = World::new("an_interface_that_vanishes_is_set_up_when_it_is_back") else { return };
    world.ip("dev", "link delete eth0");
    world.configure(GOOD);
    world.start();
    let lan = world.until_state("waiting");
    assert_eq!((&lan["detail"], &lan["is_there"]), (&json!("there is no interface eth0"), &json!(false)), "{lan}");
    world.plug_in();
    world.ip("rtr", "address add 192.168.77.1/24 dev lan0");
    world.until_state("confirmed");
    world.ip("dev", "link delete eth0");
    world.until_state("waiting");
    world.plug_in();
    world.ip("rtr", "address add 192.168.77.1/24 dev lan0");
    world.until_state("confirmed");
    assert_eq!(world.set(), (vec!["192.168.77.9/24".into()], "192.168.77.1".into()));
    world.ip("rtr", "link set lan0 down");
    world.until_answer("no carrier", || world.shown(), |lan| lan["has_carrier"] == false);
}

#[test]
fn packets_of_the_vpn_are_translated() {
    let Some(world) = World::new("packets_of_the_vpn_are_translated") else { return };
    world.run("dev", "sysctl", &["-q", "-w", "net.ipv4.ip_forward=0"]);
    let reaches = |address: &str| {
        let mut ping = world.command_in("vpn", "python3");
        ping.args(["-c", ASK, address]).status().is_ok_and(|status| status.success())
    };
    let nat = "[nat]\nsource = true\ndestination = [{ network = \"10.20.0.0/24\" }]\n";
    world.configure(&format!("{GOOD}{nat}"));
    world.start();
    world.until_state("confirmed");
    assert!(reaches("192.168.77.1"), "source NAT: the router knows no way to the VPN, but it answers the device");
    assert!(reaches("10.20.0.1"), "destination NAT: host 1 of the one network is host 1 of the other");
    assert!(!reaches("10.20.0.77") && !reaches("10.21.0.1"), "nobody is there");
    world.until_log("lan", "this machine forwards packets of IPv4 from now on");
    world.configure(&format!("{GOOD}[nat]\nsource = true\n"));
    multus_nettest::signal("-HUP", world.pid("lan"));
    world.until("10.20.0.0/24 stands for nothing", || !reaches("10.20.0.1"));
    world.until_state("confirmed");
    assert!(reaches("192.168.77.1"));
    world.configure(GOOD);
    multus_nettest::signal("-HUP", world.pid("lan"));
    world.until("the table is gone", || !world.run("dev", "nft", &["list", "tables"]).contains("multus_lan"));
    world.until_log("lan", "does not forward packets of IPv4 any more");
    assert_eq!(world.run("dev", "sysctl", &["-n", "net.ipv4.ip_forward"]), "0\n");
}

/// Sends to a port that is closed: who is there says so.
const ASK: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); s.connect((sys.argv[1], 9)); s.send(b'x')
try: s.recv(1)
except ConnectionRefusedError: sys.exit(0)
except OSError: pass
sys.exit(1)
";

#[test]
fn dhcpcd_sets_up_what_its_block_says() {
    let Some(world) = World::with("dhcpcd_sets_up_what_its_block_says", &[("dhcpcd", "--version")]) else { return };
    world.serve_dhcp(&["--dhcp-range=192.168.77.50,192.168.77.59,2m"]);
    let others = "# somebody's own\nhostname\nnodev\nallowinterfaces eth0\nnoipv6rs\nnohook resolv.conf\n";
    fs::write(world.etc("dhcpcd.conf"), others).expect("own file");
    world.background("dhcpcd", world.in_device("dhcpcd").args(["--nobackground"]));
    world.until("dhcpcd has an address", || {
        world.set().0.first().is_some_and(|address| address.starts_with("192.168.77.5"))
    });
    let (by_dhcp, _) = world.set();
    // Found by itself: it runs.
    let plan = GOOD.replace("backend = \"rtnetlink\"\n", "");
    world.configure(&plan);
    world.start();
    let lan = world.until_state("confirmed");
    assert_eq!(lan["backend"], "dhcpcd", "{lan}");
    assert_eq!(world.set(), (vec!["192.168.77.9/24".into()], "192.168.77.1".into()));
    let block = "# BEGIN multus-lan: changes up to END are lost\ninterface eth0\nstatic ip_address=192.168.77.9/24\n\
        static routers=192.168.77.1\nstatic domain_name_servers=192.168.77.1\n# END multus-lan\n";
    let written = || fs::read_to_string(world.etc("dhcpcd.conf")).expect("there");
    assert_eq!(written(), format!("{others}{block}"));
    // A wrong one is taken back; the former block is there again.
    world.configure(&BAD.replace("backend = \"rtnetlink\"\n", ""));
    multus_nettest::signal("-HUP", world.pid("lan"));
    world.until("the wrong address is set", || world.set().0 == ["192.168.99.9/24"]);
    world.until_state("rejected");
    assert_eq!(written(), format!("{others}{block}"));
    world.until("the old address is back", || world.set() == (vec!["192.168.77.9/24".into()], "192.168.77.1".into()));
    world.stop("lan");
    let (is_done, text) = world.order("--undo");
    assert!(is_done, "{text}");
    assert_eq!(written(), others);
    world.until("DHCP gives the address again", || world.set().0 == by_dhcp);
}

/// A world in which dhcpcd has set the good address.
fn fixed_by_dhcpcd(test: &str) -> Option<World> {
    let world = World::with(test, &[("dhcpcd", "--version")])?;
    start_dhcpcd(&world, "");
    world.configure(&GOOD.replace("backend = \"rtnetlink\"\n", ""));
    world.start();
    world.until_state("confirmed");
    Some(world)
}

#[test]
fn an_address_that_no_server_gave_confirms_nothing() {
    let Some(world) = fixed_by_dhcpcd("an_address_that_no_server_gave_confirms_nothing") else { return };
    // Nobody serves DHCP. At first the old address is still there, and the router answers through it; later dhcpcd takes one of
    // the link.
    world.reconfigure("interface = \"eth0\"\nconfirm_within = \"40s\"\n");
    world.until_state("pending");
    world.until("an address of the link", || world.set().0.iter().any(|address| address.starts_with("169.254.")));
    let lan = world.until_state("rejected");
    assert!(lan["detail"].as_str().is_some_and(|detail| detail.contains("no DHCP server has answered")), "{lan}");
    world.until("the old address is back", || world.set() == (vec!["192.168.77.9/24".into()], "192.168.77.1".into()));
    // One that a server gives does.
    world.serve_dhcp(&["--dhcp-range=192.168.77.50,192.168.77.59,2m"]);
    world.reconfigure("interface = \"eth0\"\nname_servers = [\"192.168.77.1\"]\nconfirm_within = \"40s\"\n");
    world.until_state("confirmed");
    assert!(world.set().0[0].starts_with("192.168.77.5"), "{:?}", world.set());
}

#[test]
fn dhcpcd_is_told_of_what_was_taken_back_before_a_crash() {
    let Some(world) = fixed_by_dhcpcd("dhcpcd_is_told_of_what_was_taken_back_before_a_crash") else { return };
    let former = fs::read_to_string(world.etc("dhcpcd.conf")).expect("there");
    world.reconfigure(&BAD.replace("backend = \"rtnetlink\"\n", ""));
    world.until("the wrong address is set", || world.set().0 == ["192.168.99.9/24"]);
    // As killed when its file was written back and dhcpcd did not know yet.
    world.end("lan");
    fs::write(world.etc("dhcpcd.conf"), &former).expect("own file");
    world.end_trial();
    world.start();
    world.until_state("rejected");
    world.until("the old address is back", || world.set() == (vec!["192.168.77.9/24".into()], "192.168.77.1".into()));
}

#[test]
fn dhcpcd_does_not_mix_what_others_wrote_with_ours() {
    let Some(world) = World::with("dhcpcd_does_not_mix_what_others_wrote_with_ours", &[("dhcpcd", "--version")]) else {
        return;
    };
    start_dhcpcd(&world, "interface eth0\nstatic ip_address=192.168.77.2/24\nstatic routers=192.168.77.1\n");
    world.until("its address", || world.set() == old());
    world.configure("interface = \"eth0\"\n");
    world.start();
    let lan = world.until_state("rejected");
    let expected = "/etc/dhcpcd.conf sets up eth0 already, which dhcpcd would mix with this; remove its lines 7, 8";
    assert_eq!(lan["last_error"], expected, "{lan}");
    assert_eq!(world.set(), old());
}

fn start_dhcpcd(world: &World, more: &str) {
    let text = format!("# somebody's own\nnodev\nallowinterfaces eth0\nnoipv6rs\nnohook resolv.conf\n{more}");
    fs::write(world.etc("dhcpcd.conf"), text).expect("own file");
    world.background("dhcpcd", world.in_device("dhcpcd").args(["--nobackground"]));
    world.until("dhcpcd runs", || world.path("run/dhcpcd/pid").exists() || world.path("run/dhcpcd.pid").exists());
}

#[test]
fn what_may_pass_is_tried_again_and_whoever_reads_files_is_told() {
    let Some(world) = World::new("what_may_pass_is_tried_again_and_whoever_reads_files_is_told") else { return };
    world.set_up_old();
    world.stand_in_for_network_manager();
    fs::write(world.path("fail"), "connection up").expect("own file");
    let fixed = GOOD.replace("rtnetlink", "network-manager");
    world.configure(&fixed);
    world.start();
    let shown = || world.shown();
    let is_tried = |lan: &serde_json::Value| {
        lan["detail"].as_str().is_some_and(|detail| detail.ends_with("Error: not now; it is tried again"))
    };
    world.until_answer("it is tried again", shown, is_tried);
    fs::remove_file(world.path("fail")).expect("own file");
    world.until_state("confirmed");
    assert_eq!(world.set(), (vec!["192.168.77.9/24".into()], "192.168.77.1".into()));
    // Who confirms while it is being applied has seen nothing of it yet.
    fs::write(world.path("wait"), "connection load").expect("own file");
    world.reconfigure(&BAD.replace("rtnetlink", "network-manager").replace("25s", "1h"));
    world.until_state("applying");
    assert_eq!(world.ask("dev", PORT, "LanService", "ConfirmLan"), json!({ "error": "FAILED_PRECONDITION" }));
    fs::remove_file(world.path("wait")).expect("own file");
    world.until_state("pending");
    world.until("the wrong address is set", || world.set().0 == ["192.168.99.9/24"]);
    // As killed when its file was written back and NetworkManager did not know yet; and then it is busy at first.
    world.end("lan");
    let file = world.etc("NetworkManager/system-connections/multus-lan.nmconnection");
    let wrong = fs::read_to_string(&file).expect("there");
    fs::write(&file, wrong.replace("192.168.99", "192.168.77")).expect("own file");
    world.end_trial();
    fs::write(world.path("fail"), "connection reload").expect("own file");
    world.start();
    let is_failing = |lan: &serde_json::Value| lan["state"] == "failing";
    let lan = world.until_answer("it cannot be taken back", shown, is_failing);
    assert!(lan["detail"].as_str().is_some_and(|detail| detail.contains("cannot be taken back")), "{lan}");
    fs::remove_file(world.path("fail")).expect("own file");
    world.until_state("rejected");
    world.until("the old address is back", || world.set() == (vec!["192.168.77.9/24".into()], "192.168.77.1".into()));
    world.stop("lan");
    let (is_done, text) = world.order("--undo");
    assert!(is_done && !file.exists(), "{text}");
    assert_eq!(world.set(), old());
}

/// Another interface with another router.
const OTHER: &str = "interface = \"eth1\"\nbackend = \"rtnetlink\"\ndhcp = false\naddresses = [\"192.168.78.9/24\"]\n\
    gateway = \"192.168.78.1\"\nconfirm_within = \"30s\"\n";

#[test]
fn another_interface_takes_the_place_of_the_former_one() {
    let Some(world) = World::new("another_interface_takes_the_place_of_the_former_one") else { return };
    world.set_up_old();
    world.cable(("dev", "eth1"), ("rtr", "lan1"));
    world.ip("rtr", "link set lan1 up");
    world.ip("dev", "link set eth1 up");
    world.configure(GOOD);
    world.start();
    world.until_state("confirmed");
    // Without a cable it cannot be tried; what stands is seen to meanwhile, also after a start of the machine.
    world.ip("rtr", "link set lan1 down");
    world.reconfigure(OTHER);
    let waits = |lan: &serde_json::Value| lan["detail"] == "eth1 has no carrier; the change is tried when it has";
    world.until_answer("it waits", || world.shown(), waits);
    world.stop("lan");
    world.ip("dev", "address flush dev eth0");
    world.start();
    world.until_answer("it waits again", || world.shown(), waits);
    let (fixed, other) = ((vec!["192.168.77.9/24".into()], "192.168.77.1".into()), vec!["192.168.78.9/24".to_owned()]);
    assert_eq!(world.set(), fixed);
    world.ip("rtr", "link set lan1 up");
    // Nobody answers there yet: back to the former one.
    world.reconfigure(&format!("{OTHER}name_servers = [\"192.168.78.1\"]\n").replace("30s", "25s"));
    world.until_state("pending");
    assert_eq!((world.set_of("eth1"), world.set_of("eth0")), (other.clone(), old().0));
    world.until_state("rejected");
    assert_eq!((world.set_of("eth1"), world.set()), (Vec::new(), fixed.clone()));
    world.ip("rtr", "address add 192.168.78.1/24 dev lan1");
    world.reconfigure(OTHER);
    world.until_state("confirmed");
    assert_eq!((world.set_of("eth1"), world.set_of("eth0")), (other, old().0));
    world.stop("lan");
    let (is_done, text) = world.order("--undo");
    assert!(is_done, "{text}");
    assert_eq!((world.set_of("eth1"), world.set()), (Vec::new(), old()));
    world.background("second", world.multus_lan(&[]).env("MULTUS_INSTANCE", "1").env("MULTUS_NAME", "lan_1"));
    assert_eq!(world.exit_code("second"), Some(1));
    assert!(world.log("second").contains("set instances = 1"), "{}", world.log("second"));
    let (is_done, text) = world.order_as("lan-b", "--undo");
    assert!(!is_done && text.contains("there are those of: lan;"), "{text}");
}

#[test]
fn nothing_of_ipv6_is_left_over() {
    const TEST: &str = "nothing_of_ipv6_is_left_over";
    let Some(world) = World::new(TEST) else { return };
    if !multus_nettest::has_ipv6() {
        return multus_nettest::skip(TEST, "the kernel has no IPv6");
    }
    world.ip("rtr", "address add fd00:77::1/64 dev lan0 nodad");
    let with = |address: &str| {
        GOOD.replace("192.168.77.9/24\"", &format!("192.168.77.9/24\", \"{address}\""))
            + "gateway_v6 = \"fd00:77::1\"\n"
    };
    let v6 = || {
        let addresses = world.run("dev", "ip", &["-6", "-o", "address", "show", "dev", "eth0", "scope", "global"]);
        let address = addresses.split_whitespace().nth(3).unwrap_or_default().to_owned();
        (address, world.run("dev", "ip", &["-6", "route", "show", "default"]).contains("via fd00:77::1"))
    };
    world.configure(&with("fd00:77::9/64"));
    world.start();
    world.until_state("confirmed");
    assert_eq!(v6(), ("fd00:77::9/64".to_owned(), true));
    world.reconfigure(&with("fd00:77::9/48"));
    world.until("another prefix", || v6() == ("fd00:77::9/48".to_owned(), true));
    world.until_state("confirmed");
    world.reconfigure(GOOD);
    world.until("no address of IPv6", || v6() == (String::new(), false));
    world.until_state("confirmed");
}

#[test]
fn what_gets_lost_is_set_again() {
    let Some(world) = World::new("what_gets_lost_is_set_again") else { return };
    world.configure(&format!("{GOOD}[nat]\nsource = true\n"));
    world.start();
    world.until_state("confirmed");
    let fixed = (vec!["192.168.77.9/24".into()], "192.168.77.1".to_owned());
    world.ip("dev", "link set eth0 down");
    world.until("the kernel has no route", || world.set().1.is_empty());
    world.ip("dev", "link set eth0 up");
    world.until("the route is back", || world.set() == fixed);
    world.until_log("lan", "eth0 had lost the default route by 192.168.77.1; it is set again");
    world.ip("dev", "address flush dev eth0");
    world.run("dev", "nft", &["flush", "ruleset"]);
    // Of this there is no news: it is looked for every half minute.
    world.until("the address is back", || world.set() == fixed);
    world.until_log("lan", "eth0 had lost the address 192.168.77.9/24; it is set again");
    world.until_log("lan", "the table ip multus_lan was gone or changed; it is set again");
    assert!(world.run("dev", "nft", &["list", "table", "ip", "multus_lan"]).contains("masquerade"));
    world.until_state("confirmed");
}

#[test]
fn sixteen_addresses_are_looked_for_at_the_same_time() {
    let Some(world) = World::new("sixteen_addresses_are_looked_for_at_the_same_time") else { return };
    let addresses: Vec<String> = (10..26).map(|host| format!("\"192.168.77.{host}/24\"")).collect();
    // One after the other they would take longer than any trial here, 48 s at least.
    world.configure(
        &GOOD
            .replace("\"192.168.77.9/24\"", &addresses.join(", "))
            .replace("confirm_within = \"30s\"", "confirm_within = \"45s\""),
    );
    world.start();
    world.until_state("confirmed");
    assert_eq!(world.set().0.len(), 16);
}

#[test]
fn a_duplicate_is_seen_when_the_cable_comes() {
    let Some(world) = World::new("a_duplicate_is_seen_when_the_cable_comes") else { return };
    world.configure(GOOD);
    world.start();
    world.until_state("confirmed");
    world.stop("lan");
    // As after a start of the machine, without a cable; meanwhile somebody has taken the address.
    world.ip("dev", "address flush dev eth0");
    world.ip("rtr", "link set lan0 down");
    world.ip("rtr", "address add 192.168.77.9/24 dev lan0");
    world.start();
    world.until_answer(
        "it waits",
        || world.shown(),
        |lan| lan["detail"] == "eth0 has no carrier; it is set up when it has",
    );
    world.ip("rtr", "link set lan0 up");
    let lan = world.until_state("failing");
    assert!(lan["detail"].as_str().is_some_and(|detail| detail.ends_with("has the address 192.168.77.9")), "{lan}");
    assert_eq!(world.set().0, [""; 0]);
}

#[test]
fn routes_of_others_stay() {
    let Some(world) = World::new("routes_of_others_stay") else { return };
    world.set_up_old();
    // The kernel forgets routes of an interface whose last address goes, and takes others of a network with its first one.
    world.run("dev", "sysctl", &["-q", "-w", "net.ipv4.conf.all.promote_secondaries=0"]);
    world.run("dev", "sysctl", &["-q", "-w", "net.ipv4.conf.eth0.promote_secondaries=0"]);
    world.ip("dev", "route add 10.99.0.0/16 via 192.168.77.254");
    let is_there = || world.run("dev", "ip", &["route", "show", "10.99.0.0/16"]).contains("192.168.77.254");
    world.configure(GOOD);
    world.start();
    world.until_state("confirmed");
    assert!(is_there(), "another address of the same network");
    world.reconfigure(BAD);
    world.until_state("rejected");
    assert!(is_there(), "another network, and back");
    world.stop("lan");
    let (is_done, text) = world.order("--undo");
    assert!(is_done && is_there(), "{text}");
    assert_eq!(world.set(), old());
    assert_eq!(world.run("dev", "sysctl", &["-n", "net.ipv4.conf.eth0.promote_secondaries"]), "0\n");
}
