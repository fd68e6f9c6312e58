//! The child with a real openvpn, and a real server of it: connected, lost, found again, refused, hanging.

mod world;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};
use world::{World, signal};

fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |tunnel| tunnel["state"] == state
}

fn pid(tunnel: &Value) -> u32 {
    tunnel["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_else(|| panic!("no process: {tunnel}"))
}

#[test]
fn a_tunnel_is_connected_lost_and_found_again() {
    let Some(world) = World::new("a_tunnel_is_connected_lost_and_found_again") else { return };
    world.serve("");
    world.start("ca", "", "");
    let tunnel = world.until_tunnel("connected", is("connected"));
    assert_eq!((&tunnel["address"], &tunnel["server"]), (&json!("10.8.0.2"), &json!("10.55.0.1:1194")), "{tunnel}");
    let ping = world.command_in("dev", "python3").args(["-c", PING]).status();
    assert!(ping.is_ok_and(|status| status.success()), "the server answers through the tunnel");
    let tunnel = world.until_tunnel("bytes are counted", |tunnel| tunnel["received_bytes"].is_string());
    assert!(tunnel["sent_bytes"].is_string(), "{tunnel}");
    world.until_log("child", "the certificate of this device ends in ");
    assert!(tunnel["certificate_ends"].is_string(), "{tunnel}");
    let killed = std::time::Instant::now();
    world.end("server");
    let tunnel = world.until_tunnel("lost", is("reconnecting"));
    eprintln!("the server was killed, seen after {:.1} s (keepalive 1 4)", killed.elapsed().as_secs_f64());
    assert!(tunnel["address"].is_null() && tunnel["detail"] == "ping-restart", "{tunnel}");
    world.serve("");
    let again = world.until_tunnel("found again", is("connected"));
    assert_eq!((&again["connects"], pid(&again)), (&json!(2), pid(&tunnel)), "the same openvpn: {again}");
    assert_eq!(world.stop("child"), Some(0));
    let gone = Command::new("kill").args(["-0", &pid(&again).to_string()]).output().expect("kill is there");
    assert!(!gone.status.success(), "openvpn has ended with its child");
}

/// Sends to a port that is closed: who is there says so.
const PING: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10); s.connect(('10.8.0.1', 9)); s.send(b'x')
try: s.recv(1)
except ConnectionRefusedError: pass
";

#[test]
fn a_program_of_the_original_asks_and_has_it_restarted() {
    let Some(world) = World::new("a_program_of_the_original_asks_and_has_it_restarted") else { return };
    world.serve("");
    world.start("ca", "", "config_version = \"3.2.1\"\n");
    let first = world.until_tunnel("connected", is("connected"));
    assert_eq!(world.ask("gRPCGetmultusOVPNClientStatus"), json!({ "ProcessOK": true }));
    let versions = json!({ "SoftwareVersion": env!("CARGO_PKG_VERSION"), "ConfigVersion": "3.2.1" });
    assert_eq!(world.ask("gRPCgetmultusOVPNCheckVersions"), versions);
    assert_eq!(world.ask("gRPCRestartmultusOVPNClient"), json!({ "ProcessOK": true }));
    let connected_by_another_than =
        |old: u32| move |tunnel: &Value| tunnel["state"] == "connected" && tunnel["pid"] != old;
    let second = world.until_tunnel("another openvpn", connected_by_another_than(pid(&first)));
    assert_eq!(world.ask("RestartTunnel"), json!({}));
    world.until_tunnel("a third openvpn", connected_by_another_than(pid(&second)));
}

#[test]
fn several_instances_have_a_tunnel_and_a_port_each() {
    let Some(world) = World::new("several_instances_have_a_tunnel_and_a_port_each") else { return };
    world.serve("duplicate-cn\n");
    world.start("ca", "", "");
    let first = world.until_tunnel("the first", is("connected"));
    world.start_other(1);
    let second = world.until_tunnel_of(1, "the second", is("connected"));
    assert_ne!((&first["address"], pid(&first)), (&second["address"], pid(&second)));
    world.end("other");
    world.until("the second is gone", || world.ask_of(1, "GetTunnel")["error"].is_string());
    assert_eq!(pid(&world.until_tunnel("the first is untouched", is("connected"))), pid(&first));
}

#[test]
fn a_clock_that_is_wrong_and_a_certificate_that_ended_are_told() {
    let Some(world) = World::new("a_clock_that_is_wrong_and_a_certificate_that_ended_are_told") else { return };
    world.serve("");
    for (date, expected) in [
        ("2001-01-01 00:00:00", "and the clock says 2001-01-01: is it right?"),
        ("2049-01-01 00:00:00", "the certificate of this device ended on "),
    ] {
        if !world.start_at(date) {
            return;
        }
        world.until_log("child", expected);
        let tunnel = world.until_tunnel("it fails", is("reconnecting"));
        assert_eq!(tunnel["detail"], "tls-error", "{tunnel}");
        assert_eq!(world.stop("child"), Some(0));
    }
}

#[test]
fn an_openvpn_that_hangs_is_a_fault() {
    let Some(world) = World::new("an_openvpn_that_hangs_is_a_fault") else { return };
    world.serve("");
    // Longer than a machine that is busy keeps it from answering.
    world.start("ca", "", "silence = \"10s\"\n");
    let tunnel = world.until_tunnel("connected", is("connected"));
    signal("-STOP", pid(&tunnel));
    assert_eq!(world.exit_code("child"), Some(1));
    world.until_log("child", "openvpn hangs: it has said nothing for 10s");
    let gone = Command::new("kill").args(["-0", &pid(&tunnel).to_string()]).output().expect("kill is there");
    assert!(!gone.status.success(), "it was killed");
}

#[test]
fn an_openvpn_that_ends_is_a_fault() {
    let Some(world) = World::new("an_openvpn_that_ends_is_a_fault") else { return };
    world.serve("");
    world.start("ca", "", "");
    let tunnel = world.until_tunnel("connected", is("connected"));
    signal("-KILL", pid(&tunnel));
    assert_eq!(world.exit_code("child"), Some(1));
    world.until_log("child", "openvpn ended with signal: 9 (SIGKILL)");
}

#[test]
fn a_server_that_refuses_the_password_is_told() {
    let Some(world) = World::new("a_server_that_refuses_the_password_is_told") else { return };
    let refuse = world.path("refuse");
    std::fs::write(&refuse, "#!/bin/sh\nexit 1\n").expect("own file");
    std::fs::set_permissions(&refuse, std::fs::Permissions::from_mode(0o755)).expect("own file");
    world.serve(&format!("script-security 2\nauth-user-pass-verify {} via-file\n", refuse.display()));
    world.start("ca", "<auth-user-pass>\nme\nwrong\n</auth-user-pass>\n", "");
    let tunnel = world.until_tunnel("refused", is("auth-failed"));
    world.until_log("child", "tunnel auth-failed");
    assert!(pid(&tunnel) > 0, "openvpn goes on trying");
}

#[test]
fn a_server_of_another_authority_is_not_connected_to() {
    let Some(world) = World::new("a_server_of_another_authority_is_not_connected_to") else { return };
    world.serve("");
    world.start("wrong", "", "");
    let tunnel = world.until_tunnel("it fails", is("reconnecting"));
    assert_eq!((&tunnel["detail"], &tunnel["address"]), (&json!("tls-error"), &Value::Null), "{tunnel}");
    assert!(!world.log("child").contains("tunnel connected"));
    // One second from try to try, as the configuration has it: no storm.
    let tries = || world.log("child").matches("process restarting").count();
    let (begun, before) = (std::time::Instant::now(), tries());
    world.until("it goes on trying", || tries() >= before + 4);
    assert!(begun.elapsed() >= std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn what_cannot_be_used_is_refused_before_openvpn_sees_it() {
    let Some(world) = World::new("what_cannot_be_used_is_refused_before_openvpn_sees_it") else { return };
    for (more, parameters, expected) in [
        ("up /bin/true\n", "", "client.conf: line 12: up is refused: it has openvpn run a program"),
        ("script-security 2\n", "", "client.conf: line 12: script-security is refused"),
        ("management 127.0.0.1 7505\n", "allow_scripts = true\n", "client.conf: line 12: management is refused"),
        ("tls-auth missing.key\n", "", "client.conf: line 12: tls-auth: missing.key cannot be read"),
        ("no-such-directive\n", "", "openvpn ended at its start with exit status: 1"),
        ("", "program = \"openvpn-missing\"\n", "openvpn-missing is not installed: apt-get install openvpn"),
        ("", "tunnel = \"missing.conf\"\n", "missing.conf: No such file or directory"),
    ] {
        world.start("ca", more, parameters);
        assert_eq!(world.exit_code("child"), Some(1), "{more}{parameters}: {}", world.log("child"));
        assert!(world.log("child").contains(expected), "{expected} is missing in:\n{}", world.log("child"));
        world.end("child");
        std::fs::remove_file(world.path("child")).expect("own file");
    }
}

#[test]
fn what_openvpn_would_load_is_refused_however_it_is_hidden() {
    let Some(world) = World::new("what_openvpn_would_load_is_refused_however_it_is_hidden") else { return };
    let tags = "ignore-unknown-option <foo> </foo> </bar> \u{feff}<foo>\n";
    let long = "x".repeat(255);
    for hidden in [
        "plugin /x.so\n",
        "setenv opt plugin /x.so\n",
        "\\ plugin /x.so\n",
        "<foo> y\nplugin /x.so\n</foo> y\n",
        "\u{feff}<foo>\nplugin /x.so\n</foo> y\n",
        &format!("<ca>\n{long}</ca>\nplugin /x.so\n<foo> y\n"),
        "<ca>\n\u{2003}</ca>\n<bar>\n</ca>\nplugin /x.so\n</bar> y\n",
    ] {
        world.write_text("ca", &format!("{tags}{hidden}"));
        let mut openvpn = world.command_in("dev", "timeout");
        openvpn.args(["30", "openvpn", "--cd"]).arg(world.path("")).args(["--config", "client.conf"]);
        let output = openvpn.output().expect("ip is there");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("PLUGIN_INIT: could not load plugin shared object /x.so"), "{hidden}: {said}");
        std::fs::write(world.path("child.toml"), "").expect("own file");
        world.start_again();
        assert_eq!(world.exit_code("child"), Some(1), "{hidden}: {}", world.log("child"));
        assert!(!world.log("child").contains("PLUGIN_INIT"), "{hidden}: {}", world.log("child"));
        std::fs::remove_file(world.path("child")).expect("own file");
    }
}

#[test]
fn a_mistake_in_the_text_does_not_end_a_tunnel_that_works() {
    let Some(world) = World::new("a_mistake_in_the_text_does_not_end_a_tunnel_that_works") else { return };
    world.serve("");
    world.start("ca", "", "");
    let first = world.until_tunnel("connected", is("connected"));
    assert!(world.check_config().0);
    // Read again: openvpn goes on as it is.
    world.write_text("ca", "up /bin/true\n");
    let (is_good, said) = world.check_config();
    assert!(!is_good && said.contains("line 12: up is refused"), "{said}");
    signal("-HUP", world.pid("child"));
    world.until_log("child", "the configuration has errors, going on with the previous one");
    assert_eq!(pid(&world.until_tunnel("still there", is("connected"))), pid(&first));
    // Started again: by what this child finds, and by what openvpn finds.
    for mistake in ["up /bin/true\n", "no-such-directive\n"] {
        assert_eq!(world.stop("child"), Some(0));
        std::fs::remove_file(world.path("child")).expect("own file");
        world.write_text("ca", mistake);
        world.start_again();
        world.until_tunnel("connected again", is("connected"));
        assert!(world.log("child").contains("going on with the last text that was good"), "{}", world.log("child"));
    }
    // A good one is used at once.
    world.write_text("ca", "ping-restart 77\n");
    signal("-HUP", world.pid("child"));
    let kept = || std::fs::read_to_string(world.path("state/multus-ovpn-client-tunnel.conf")).unwrap_or_default();
    world.until("the new one is kept", || kept().ends_with("ping-restart 77\n"));
    world.until_tunnel("connected with it", is("connected"));
}

#[test]
fn secrets_are_for_their_owner_only() {
    let Some(world) = World::new("secrets_are_for_their_owner_only") else { return };
    let mode = |name: &str| std::fs::metadata(world.path(name)).expect("there").permissions().mode() & 0o777;
    let open = |name: &str| {
        std::fs::set_permissions(world.path(name), std::fs::Permissions::from_mode(0o644)).expect("own file");
    };
    world.serve("");
    let key = std::fs::read_to_string(world.path("client.key")).expect("there");
    std::fs::write(world.path("password"), "me\nsecret\n").expect("own file");
    world.write_text("ca", &format!("<key>\n{key}</key>\nauth-user-pass password\n"));
    std::fs::write(world.path("child.toml"), "").expect("own file");
    for name in ["client.conf", "client.key", "client.pem", "password"] {
        open(name);
    }
    world.start_again();
    world.until_tunnel("connected", is("connected"));
    assert_eq!(["client.conf", "client.key", "client.pem", "password"].map(mode), [0o600, 0o600, 0o644, 0o600]);
    assert_eq!(mode("state/multus-ovpn-client-tunnel.conf"), 0o600);
    let log = world.log("child");
    assert!(log.contains("client.conf holds a secret and could be read by others"), "{log}");
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}
