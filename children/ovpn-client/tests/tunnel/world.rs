//! A server of openvpn and a device, each in a network namespace of its own, with certificates that the test makes.
//!
//! ```text
//!   server  eth0 10.55.0.1  ------  device  eth0 10.55.0.2
//!           tun0 10.8.0.1   ======          tun0 10.8.0.2
//! ```

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

pub(crate) use multus_nettest::signal;
use multus_nettest::{Fields, Needs, Net};
use serde_json::Value;

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
        let world = Self(Net::new(&Needs {
            test,
            programs: &[("openvpn", "--version"), ("openssl", "version")],
            namespaces: &["srv", "dev"],
            legacy: "ovpn_client.proto",
            fields: Fields::Set,
            tmp: env!("CARGO_TARGET_TMPDIR"),
        })?);
        world.cable(("dev", "eth0"), ("srv", "eth0"));
        for (namespace, address) in [("srv", "10.55.0.1/24"), ("dev", "10.55.0.2/24")] {
            world.ip(namespace, &format!("address add {address} dev eth0"));
            world.ip(namespace, "link set eth0 up");
        }
        for authority in ["ca", "wrong"] {
            world.certificate(authority, None, 3650);
        }
        world.certificate("server", Some("ca"), 100);
        world.certificate("client", Some("ca"), 100);
        Some(world)
    }

    /// `<name>.pem` and `<name>.key`, signed by another one or by itself.
    fn certificate(&self, name: &str, by: Option<&str>, days: u32) {
        let mut command = Command::new("openssl");
        let subject = format!("/CN={name}");
        let (key, pem, days) = (format!("{name}.key"), format!("{name}.pem"), days.to_string());
        command.current_dir(self.path("")).args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]);
        command.args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", &days, "-subj", &subject]);
        command.args(["-keyout", &key, "-out", &pem]);
        if let Some(by) = by {
            command.args(["-CA", &format!("{by}.pem"), "-CAkey", &format!("{by}.key")]);
            let usage = if name == "server" { "serverAuth" } else { "clientAuth" };
            command.args(["-addext", &format!("extendedKeyUsage={usage}"), "-addext", "keyUsage=digitalSignature"]);
        }
        let output = command.output().expect("openssl is there");
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A server that gives up on a silent client after four seconds, and has it do the same.
    pub(crate) fn serve(&self, more: &str) {
        let text = format!(
            "dev tun0\nserver 10.8.0.0 255.255.255.0\ntopology subnet\nproto udp\nport 1194\nca ca.pem\ncert server.pem\n\
             key server.key\ndh none\nkeepalive 1 4\nverb 3\n{more}"
        );
        fs::write(self.path("server.conf"), text).expect("own file");
        let mut command = self.command_in("srv", "openvpn");
        command.arg("--cd").arg(self.path("")).args(["--config", "server.conf"]);
        self.background("server", &mut command);
        self.until_log("server", "Initialization Sequence Completed");
    }

    /// The child with a configuration of openvpn beside the usual.
    pub(crate) fn start(&self, authority: &str, more: &str, parameters: &str) {
        self.write_text(authority, more);
        fs::write(self.path("child.toml"), parameters).expect("own file");
        self.run_child("child", self.command_in("dev", CHILD), "child.toml");
    }

    /// The usual configuration of openvpn, and more; 11 lines are the usual ones.
    pub(crate) fn write_text(&self, authority: &str, more: &str) {
        let text = format!(
            "client\ndev tun0\nproto udp\nremote 10.55.0.1 1194\nnobind\nca {authority}.pem\ncert client.pem\n\
             key client.key\nremote-cert-tls server\nconnect-retry 1 1\nhand-window 10\n{more}"
        );
        fs::write(self.path("client.conf"), text).expect("own file");
        fs::set_permissions(self.path("client.conf"), fs::Permissions::from_mode(0o600)).expect("own file");
    }

    /// Starts the child with what was written.
    pub(crate) fn start_again(&self) {
        self.run_child("child", self.command_in("dev", CHILD), "child.toml");
    }

    /// What `--check-config` says, and whether all is well.
    pub(crate) fn check_config(&self) -> (bool, String) {
        let output = Command::new(CHILD).arg("--check-config").arg(self.path("child.toml")).output().expect("built");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// One more instance beside the one that was started.
    pub(crate) fn start_other(&self, instance: u32) {
        let text = fs::read_to_string(self.path("client.conf")).expect("own file");
        let text = text.replace("dev tun0", &format!("dev tun{instance}"));
        fs::write(self.path("other.conf"), text).expect("own file");
        fs::set_permissions(self.path("other.conf"), fs::Permissions::from_mode(0o600)).expect("own file");
        fs::write(self.path("other.toml"), "tunnel = \"other.conf\"\n").expect("own file");
        let mut command = self.command_in("dev", CHILD);
        command.env("MULTUS_INSTANCE", instance.to_string()).env("MULTUS_NAME", format!("ovpn_{instance}"));
        self.run_child("other", command, "other.toml");
    }

    /// The usual child on a machine whose clock shows this date. False when this cannot be tried here.
    pub(crate) fn start_at(&self, date: &str) -> bool {
        let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let library =
            folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
        let Some(library) = library else {
            multus_nettest::skip(
                &format!("the clock shows {date}"),
                "libfaketime is missing: apt-get install faketime",
            );
            return false;
        };
        self.start("ca", "", "");
        self.end("child");
        fs::remove_file(self.path("child")).expect("own file");
        // Not by the program faketime, which would stand between a signal and the child.
        let mut command = self.command_in("dev", CHILD);
        command.env("LD_PRELOAD", library).env("FAKETIME", format!("@{date}")).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        self.run_child("child", command, "child.toml");
        true
    }

    fn run_child(&self, name: &str, mut command: Command, parameters: &str) {
        command.arg("--config").arg(self.path(parameters));
        command.env("MULTUSD_RUNTIME_DIR", self.path("run")).env("MULTUSD_STATE_DIR", self.path("state"));
        self.background(name, &mut command);
    }

    pub(crate) fn ask(&self, method: &str) -> Value {
        self.ask_of(0, method)
    }

    /// An instance.
    pub(crate) fn ask_of(&self, instance: u16, method: &str) -> Value {
        let service = if method.starts_with("gRPC") { "gRPCmultusOVPNClient" } else { "OpenVpnService" };
        self.0.ask("dev", 6543 + instance, service, method)
    }

    /// Waits until the tunnel fits, and shows it.
    pub(crate) fn until_tunnel(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.until_tunnel_of(0, what, fits)
    }

    pub(crate) fn until_tunnel_of(&self, instance: u16, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.until_answer(what, || self.ask_of(instance, "GetTunnel"), fits)
    }
}

const CHILD: &str = env!("CARGO_BIN_EXE_multus-ovpn-client");

impl Drop for World {
    fn drop(&mut self) {
        // The child ends its openvpn when it is asked to.
        self.end_in_good_order();
    }
}
