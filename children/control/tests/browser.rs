//! The pages in a real browser: a real daemon, a real multus-control, Chromium without a window, driven by `browser.py`.
//!
//! Needs `chromium` and Python with the package playwright, which is fetched into the target directory where it is missing.
//! With `MULTUS_ARTEFACTS` set, pictures of all pages are put there: wide and narrow, light and dark.

mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use multus_nettest::{Fields, Needs, Net, make_etc};
use world::{World, build, built, skip};

#[test]
fn people_can_do_everything_in_a_browser() {
    let test = "people_can_do_everything_in_a_browser";
    let Some(browser) = Browser::of_this_machine(test) else { return };
    build("multus-template");
    build("multus-modbus");

    let mut world = World::new();
    let daemon =
        format!("site = \"pump-house 3\"\n[[watchdog]]\ndevice = \"sim\"\ntimeout = \"60s\"\n{}", world.reboot());
    std::fs::write(world.dirs().config.join("multusd.toml"), daemon).expect("own file");
    let panel = world.script("panel", PANEL);
    std::fs::write(world.path("panel.json"), SCHEMA).expect("own file");
    let panel = format!("description = \"Modbus TCP\"\ncommand = [{panel:?}]\n[heartbeat]\nmethod = \"none\"\n");
    world.child("panel", &panel);
    world.parameters("panel", "# how the panel is reached\nport = 5020 # the usual one\nname = \"first\"\n");
    world.plant();
    world.child("modbus", MODBUS);
    world.parameters("modbus", &REGISTERS.replace("PORT", &free_port().to_string()));
    world.child("pump", PUMP);
    world.parameters("pump", "message = \"turning\"\nevery = 20\n");
    world.child("spare", "description = \"not in use\"\nenabled = false\ncommand = [\"/bin/sleep\", \"100000\"]\n[heartbeat]\nmethod = \"none\"\n");
    let settle = "[configuration]\nsettle = \"20s\"\n";
    let told = world.path("told");
    let pager = world.script("pager", &format!("#!/bin/sh\ncat >> {told}\necho >> {told}\n", told = told.display()));
    let broken = world.script("broken", "#!/bin/sh\nexit 3\n");
    let settle = format!(
        "{settle}[notify.targets.pager]\ncommand = [{pager:?}]\n[notify.targets.broken]\ncommand = [{broken:?}]\n"
    );
    world.control(&format!("[web]\nlisten = [\"127.0.0.1:0\"]\n[grpc]\nlisten = \"\"\nsocket = false\n{settle}"));
    world.start();
    let address = world.wait_log("control", "pages and API on ");
    let code = world.wait_log("control", "the code for the first set-up is ");

    browser.goes(Command::new(&browser.python), "everything", &world, &[&address, &code]);
    assert!(world.wait_end().success() && world.was_rebooted(), "the last button was that one");
    // A busy machine may have caused faults, which are told, too.
    let events = std::fs::read_to_string(told).expect("the test notification was sent");
    assert!(events.contains("\"kind\":\"test\""), "{events}");
}

/// On a device in a network namespace, whose router is in another one.
#[test]
fn a_lan_is_set_up_in_a_browser() {
    let test = "a_lan_is_set_up_in_a_browser";
    let Some(browser) = Browser::of_this_machine(test) else { return };
    let Some(net) = Net::new(&Needs {
        test,
        programs: &[("mount", "-V"), ("dnsmasq", "-v"), ("udhcpc", "--help")],
        namespaces: &["dev", "rtr"],
        legacy: "checks.proto",
        fields: Fields::All,
        tmp: env!("CARGO_TARGET_TMPDIR"),
    }) else {
        return;
    };
    net.cable(("dev", "eth0"), ("rtr", "lan0"));
    net.ip("rtr", "address add 192.168.77.1/24 dev lan0");
    net.ip("rtr", "link set lan0 up");
    let pool = "--dhcp-range=192.168.77.50,192.168.77.59,2m";
    net.background("dnsmasq", net.dnsmasq("rtr", "lan0").arg(pool));
    build("multus-lan");

    let mut world = World::new();
    std::fs::write(world.dirs().config.join("multusd.toml"), "site = \"pump-house 3\"\n").expect("own file");
    world.child("lan", "command = [\"multus-lan\"]\n[heartbeat]\ndeadline = \"5s\"\n");
    world.parameters(
        "lan",
        "interface = \"eth0\"\nbackend = \"rtnetlink\"\ndhcp = false\naddresses = [\"192.168.77.9/24\"]\n\
         gateway = \"192.168.77.1\"\nconfirm_within = \"15s\"\n",
    );
    world.control("[web]\nlisten = [\"127.0.0.1:0\"]\n[grpc]\nlisten = \"\"\nsocket = false\n");
    // The device has a folder /etc of its own, and nothing in /run.
    let (etc, run) = (world.path("etc-of-the-device"), world.path("run-of-the-device"));
    make_etc(&etc);
    std::fs::create_dir(&run).expect("own folder");
    let mut daemon = net.command_in("dev", "sh");
    daemon.args(["-c", "mount --bind \"$1\" /etc && mount --bind \"$2\" /run && exec \"$0\""]);
    daemon.args([&built("multusd"), &etc, &run]).envs(world.dirs().variables());
    world.start_by(daemon);
    let address = world.wait_log("control", "pages and API on ");
    let code = world.wait_log("control", "the code for the first set-up is ");

    browser.goes(net.command_in("dev", &browser.python), "lan", &world, &[&address, &code]);
    let addresses = net.run("dev", "ip", &["-4", "-o", "address", "show", "dev", "eth0"]);
    assert!(addresses.contains(" 192.168.77.5") && addresses.lines().count() == 1, "{addresses}");
}

/// Chromium and what drives it.
struct Browser {
    chromium: PathBuf,
    python: PathBuf,
}

impl Browser {
    /// `None`: there is none, and why was told.
    fn of_this_machine(test: &str) -> Option<Self> {
        let chromium = ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(program);
        match chromium.ok_or_else(|| "there is no chromium".to_owned()).and_then(|chromium| Ok((chromium, python()?))) {
            Ok((chromium, python)) => Some(Self { chromium, python }),
            Err(why) => {
                skip(test, &why);
                None
            }
        }
    }

    /// Plays a part of `browser.py`, which must go well; `command` starts Python.
    fn goes(&self, mut command: Command, part: &str, world: &World, words: &[&str]) {
        let artefacts = std::env::var_os("MULTUS_ARTEFACTS").map_or_else(|| world.path("pictures"), PathBuf::from);
        std::fs::create_dir_all(&artefacts).expect("a directory for pictures");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser.py");
        let status = command
            .arg(script)
            .arg(part)
            .args(words)
            .args([&self.chromium, &world.dirs().config, &artefacts, &built("multusctl")])
            .envs(world.dirs().variables())
            .status()
            .expect("Python can be started");
        assert!(status.success(), "what the browser saw is told above");
    }
}

/// A program with a schema of every kind of parameter.
const PANEL: &str = r#"#!/bin/sh
for word in "$@"; do
    case $word in
        --print-schema) exec cat "${0%/*}/panel.json" ;;
        --check-config) exit 0 ;;
    esac
done
grep -q 'name = "crash"' "$MULTUS_CONFIG" && exit 3
exec sleep 100000
"#;

const SCHEMA: &str = r#"{
    "type": "object",
    "additionalProperties": false,
    "properties": {
        "port": { "title": "TCP port", "description": "Where it listens.", "type": "integer", "minimum": 1, "maximum": 65535, "default": 502 },
        "name": { "title": "Name", "description": "For people.", "type": "string", "default": "" },
        "unit": { "title": "Address", "type": "integer", "format": "hex", "minimum": 0, "maximum": 127, "default": 56 },
        "gain": { "title": "Gain", "type": "number", "minimum": 0.1, "maximum": 10, "default": 1, "x-unit": "V/A" },
        "bind": { "title": "Bind address", "type": "string", "format": "ipv4", "default": "0.0.0.0" },
        "read_only": { "title": "Read only", "type": "boolean", "default": false },
        "access": { "title": "Access", "enum": ["read and write", "read only", "nothing"], "default": "read only" },
        "registers": { "title": "Registers", "type": "array", "items": { "type": "integer" }, "default": [0, 10] },
        "hosts": { "title": "Hosts", "type": "array", "items": { "type": "string" } },
        "password": { "title": "Password", "type": "string", "writeOnly": true },
        "script": { "title": "Script", "type": "string", "contentMediaType": "text/plain" },
        "layout": { "title": "Layout", "description": "What stands where.", "type": "string", "format": "multus-text-file", "default": "layout.txt" },
        "login": { "title": "Log-in file", "type": "string", "format": "multus-text-file", "x-secret-file": true },
        "version": { "title": "Version of the panel", "type": "string", "format": "multus-version", "readOnly": true, "default": "1.0.7" },
        "timing": { "title": "Timing", "description": "How patient it is.", "type": "object", "properties": {
            "wait": { "title": "Wait", "type": "string", "format": "multus-interval", "default": "1s", "x-unit": "" },
            "tries": { "title": "Tries", "type": "integer", "minimum": 1, "default": 3, "x-edit-level": 0 }
        } }
    }
}"#;

/// A server for masters, who see the inputs of the plant.
const MODBUS: &str = "description = \"Modbus TCP for the control room\"\ncommand = [\"multus-modbus\"]\nafter = [\"io\"]\n\
                      [heartbeat]\ndeadline = \"5s\"\n[restart]\ndelays = [\"0s\"]\n";
const REGISTERS: &str =
    "[[map]]\ntables = [\"discrete-inputs\"]\nlines = [\"DI1\", \"DI2\"]\n[tcp]\nport = PORT # of the control room\n";

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// The smallest Rust child. Its outputs have safe values.
const PUMP: &str = r#"description = "the pump itself"
command = ["multus-template"]
[heartbeat]
deadline = "400ms"
[restart]
delays = ["2s"]
[safe_state]
outputs = { DO1 = "off", DO2 = "on" }
"#;

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn target() -> &'static Path {
    let profile = Path::new(env!("CARGO_BIN_EXE_multus-control")).parent().expect("a program lies in a directory");
    profile.parent().expect("the profile has a directory of its own")
}

/// A Python that has playwright: looked for, or made, once.
fn python() -> Result<PathBuf, String> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON.get_or_init(make_python).clone()
}

fn make_python() -> Result<PathBuf, String> {
    let has = |python: &Path| {
        let mut import = Command::new(python);
        import.args(["-c", "import playwright.sync_api"]).stdout(Stdio::null()).stderr(Stdio::null());
        import.status().is_ok_and(|status| status.success())
    };
    let system = program("python3").ok_or("there is no python3")?;
    if has(&system) {
        return Ok(system);
    }
    let venv = target().join("browser-venv");
    let own = venv.join("bin/python");
    if has(&own) {
        return Ok(own);
    }
    let done = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if !done(Command::new(&system).args(["-m", "venv"]).arg(&venv)) {
        return Err("Python has no playwright, and makes no virtual environment for it".into());
    }
    if !done(Command::new(&own).args(["-m", "pip", "install", "--quiet", "playwright"])) || !has(&own) {
        return Err("Python has no playwright, and pip cannot fetch it".into());
    }
    Ok(own)
}
