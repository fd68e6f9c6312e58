//! A device, its router and somebody behind a tunnel, each in a network namespace; the device has folders /etc and /run of its own.
//!
//! ```text
//!   vpn  tun0 10.8.0.2 ------ 10.8.0.1 tun0  device  eth0 ------ lan0 192.168.77.1  router (dnsmasq)
//! ```

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;

use multus_nettest::{Fields, Needs, Net};
use serde_json::Value;

pub(crate) const PORT: u16 = 46003;

pub(crate) struct World(Net);

impl Deref for World {
    type Target = Net;

    fn deref(&self) -> &Net {
        &self.0
    }
}

impl World {
    /// `None`: this machine cannot do it; why was told.
    pub(crate) fn new(test: &str) -> Option<Self> {
        Self::with(test, &[])
    }

    /// As [`World::new`], with further programs.
    pub(crate) fn with(test: &str, programs: &[(&str, &str)]) -> Option<Self> {
        let usual = [("nft", "-v"), ("dnsmasq", "-v"), ("mount", "-V")];
        let world = Self(Net::new(&Needs {
            test,
            programs: &[&usual[..], programs].concat(),
            namespaces: &["dev", "rtr", "vpn"],
            legacy: "checks.proto",
            fields: Fields::All,
            tmp: env!("CARGO_TARGET_TMPDIR"),
        })?);
        for folder in ["run", "state"] {
            fs::create_dir_all(world.path(folder)).expect("own folder");
        }
        multus_nettest::make_etc(&world.path("etc"));
        fs::write(world.etc("resolv.conf"), OLD_RESOLV).expect("own file");
        world.plug_in();
        world.cable(("dev", "tun0"), ("vpn", "tun0"));
        for (namespace, command) in [
            ("rtr", "address add 192.168.77.1/24 dev lan0"),
            ("dev", "address add 10.8.0.1/24 dev tun0"),
            ("dev", "link set tun0 up"),
            ("vpn", "address add 10.8.0.2/24 dev tun0"),
            ("vpn", "link set tun0 up"),
            ("vpn", "route add default via 10.8.0.1"),
        ] {
            world.ip(namespace, command);
        }
        Some(world)
    }

    /// The cable of the LAN, and the interfaces at its ends.
    pub(crate) fn plug_in(&self) {
        self.cable(("dev", "eth0"), ("rtr", "lan0"));
        self.ip("dev", "link set eth0 up");
        self.ip("rtr", "link set lan0 up");
    }

    /// As somebody else has set up the device before.
    pub(crate) fn set_up_old(&self) {
        self.ip("dev", "address add 192.168.77.2/24 dev eth0");
        self.ip("dev", "route add default via 192.168.77.1");
    }

    /// A server of DHCP; `more` are further arguments.
    pub(crate) fn serve_dhcp(&self, more: &[&str]) {
        let mut command = self.dnsmasq("rtr", "lan0");
        self.background("dnsmasq", command.args(["--log-dhcp", "--log-facility=-"]).args(more));
    }

    pub(crate) fn etc(&self, name: &str) -> PathBuf {
        self.path("etc").join(name)
    }

    /// A program in the device, with its own folders.
    pub(crate) fn in_device(&self, program: &str) -> Command {
        let mut command = self.command_in("dev", "sh");
        command.args([
            "-c",
            "mount --bind \"$ETC\" /etc && mount --bind \"$RUN\" /run && eval \"$BEFORE\" && exec \"$@\"",
        ]);
        command.args(["sh", program]);
        command.env("ETC", self.path("etc")).env("RUN", self.path("run")).env("BEFORE", ":");
        command.env("MULTUSD_STATE_DIR", self.path("state")).env("MULTUSD_RUNTIME_DIR", self.path("run"));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.path("bin").display())).env("WORLD", self.path(""));
        command.env("MULTUS_NAME", "lan").env("MULTUS_LOG_LEVEL", "debug");
        command
    }

    /// A program nmcli that does what its profile says, and tells what it was asked for in the file `asked`. It fails for what
    /// contains the text of the file `fail`, and waits while what it was asked for contains that of the file `wait`.
    pub(crate) fn stand_in_for_network_manager(&self) {
        fs::create_dir_all(self.path("bin")).expect("own folder");
        fs::create_dir_all(self.etc("NetworkManager/system-connections")).expect("own folder");
        fs::write(self.path("bin/nmcli"), NMCLI).expect("own file");
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(self.path("bin/nmcli"), everybody).expect("own file");
    }

    /// Another configuration, and the word that it is there.
    pub(crate) fn reconfigure(&self, text: &str) {
        self.configure(text);
        multus_nettest::signal("-HUP", self.pid("lan"));
    }

    /// The configuration from now on.
    pub(crate) fn configure(&self, text: &str) {
        fs::write(self.path("lan.toml"), text).expect("own file");
    }

    pub(crate) fn multus_lan(&self, arguments: &[&str]) -> Command {
        let mut command = self.in_device(env!("CARGO_BIN_EXE_multus-lan"));
        command.arg("--config").arg(self.path("lan.toml")).args(arguments);
        command
    }

    pub(crate) fn start(&self) {
        self.background("lan", &mut self.multus_lan(&[]));
    }

    /// Runs one of its commands to the end: whether it succeeded, and what it said.
    pub(crate) fn order(&self, argument: &str) -> (bool, String) {
        self.order_as("lan", argument)
    }

    /// As [`World::order`], as a child of this name.
    pub(crate) fn order_as(&self, name: &str, argument: &str) -> (bool, String) {
        let output = self.multus_lan(&[argument]).env("MULTUS_NAME", name).output().expect("ip is there");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    pub(crate) fn shown(&self) -> Value {
        self.ask("dev", PORT, "LanService", "GetLan")
    }

    /// Waits until it says this word.
    pub(crate) fn until_state(&self, state: &str) -> Value {
        self.until_answer(&format!("state {state}"), || self.shown(), |shown| shown["state"] == state)
    }

    /// Addresses of IPv4 on eth0, and the way to the world.
    pub(crate) fn set(&self) -> (Vec<String>, String) {
        let route = self.run("dev", "ip", &["-4", "route", "show", "default"]);
        let gateway = route.split_whitespace().nth(2).unwrap_or_default().to_owned();
        (self.set_of("eth0"), gateway)
    }

    /// Addresses of IPv4 on an interface.
    pub(crate) fn set_of(&self, interface: &str) -> Vec<String> {
        let addresses = self.run("dev", "ip", &["-4", "-o", "address", "show", "dev", interface]);
        let word = |line: &str| line.split_whitespace().nth(3).unwrap_or_default().to_owned();
        addresses.lines().map(word).collect()
    }

    /// While the child is not there: the time of the trial is over.
    pub(crate) fn end_trial(&self) {
        let mut journal = self.journal();
        journal["pending"]["deadline_ms"] = journal["pending"]["began_ms"].clone();
        fs::write(self.path("state").join("lan-journal.json"), journal.to_string()).expect("own file");
    }

    pub(crate) fn journal(&self) -> Value {
        let text = fs::read_to_string(self.path("state").join("lan-journal.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end_in_good_order();
    }
}

const NMCLI: &str = r#"#!/bin/sh
echo "$*" >> "$WORLD/asked"
is_asked() { [ -s "$WORLD/$1" ] && echo "$asked" | grep -q "$(cat "$WORLD/$1")"; }
asked="$*"
while is_asked wait; do sleep 0.05; done
if is_asked fail; then echo "Error: not now" >&2; exit 4; fi
case "$*" in
    *"device show eth0") case "$2" in *STATE) echo "100 (connected)" ;; *) echo old ;; esac ;;
    "-g GENERAL.STATE connection show"*) echo activated ;;
    *"up uuid old") ip address flush dev eth0; ip address add 192.168.77.2/24 dev eth0; ip route add default via 192.168.77.1 ;;
    *"up uuid "*)
        profile=/etc/NetworkManager/system-connections/multus-lan.nmconnection
        ip address flush dev eth0
        ip address add "$(sed -n 's/^address1=//p' $profile)" dev eth0
        ip route add default via "$(sed -n 's/^gateway=//p' $profile)" ;;
esac
"#;

pub(crate) const OLD_RESOLV: &str = "# somebody else's\nnameserver 9.9.9.9\n";
