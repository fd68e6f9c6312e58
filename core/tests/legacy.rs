//! Programs as they ran under systemd or the original multusd, unchanged: main processes that are named, PID files,
//! services with scripts, requests by file, and starting the machine anew. One world of its own for each test.

#[allow(dead_code, unused_imports, reason = "the same world serves other tests, which use more of it")]
#[path = "world/mod.rs"]
mod world;

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use multus_contract::api::event::Event;
use nix::sys::signal::Signal;
use world::{Spec, World, is_alive, run, send, shell, skip};

fn utf8(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn fault(event: &Event) -> (&str, &str) {
    (event.fault.as_deref().unwrap_or_default(), event.detail.as_str())
}

/// A Python program.
fn python(script: &str, arguments: &[&str]) -> Spec {
    Spec::of(&[&["/usr/bin/env", "python3", "-c", script], arguments].concat())
}

/// A process that belongs to nobody but the test, and must not be touched by anybody else.
struct Bystander(Child);

impl Bystander {
    fn new() -> Self {
        Self(Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn().expect("sleep is there"))
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let untouched = self.0.try_wait().expect("own child").is_none();
        let _ = self.0.kill();
        let _ = self.0.wait();
        assert!(untouched || std::thread::panicking(), "a foreign process was ended");
    }
}

fn script(world: &World, name: &str, text: &str) -> String {
    let path = world.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("own file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("own file");
    utf8(&path).to_owned()
}

fn daemon_log(world: &World) -> String {
    fs::read_to_string(world.dirs().logs.join("multusd.log")).unwrap_or_default()
}

// ---- MAINPID ------------------------------------------------------------------------------------------------------------

/// Goes to the background in a session of its own, as what was written for systemd does, and names what does the work.
const NAMER: &str = r#"
import os, signal, socket, sys, time
def say(text):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    address = os.environ["NOTIFY_SOCKET"]
    s.connect("\0" + address[1:] if address[0] == "@" else address)
    s.send(text.encode())
end, beside = os.pipe()
if os.fork() == 0:
    os.setsid()
    worker = os.fork()
    if worker:
        os.write(beside, str(worker).encode())
        os._exit(0)
    def stop(*_):
        open(sys.argv[1], "a").write("asked\n")
        os._exit(0)
    signal.signal(signal.SIGTERM, stop)
    while True:
        say("WATCHDOG=1")
        time.sleep(0.02)
os.wait()
worker = os.read(end, 20).decode()
say("MAINPID=" + worker + "\nREADY=1\nSTATUS=worker " + worker)
sys.exit(int(sys.argv[2]))
"#;

fn assert_main_processes_are_followed(world: &World, socket: &str) {
    let asked = world.path("asked");
    fs::write(&asked, "").expect("own file");
    fs::set_permissions(&asked, fs::Permissions::from_mode(0o666)).expect("own file");
    let namer = |code: &str| {
        python(NAMER, &[utf8(&asked), code])
            .heartbeat("method = \"notify\"")
            .heartbeat(&format!("notify_socket = \"{socket}\""))
            .deadline("5s")
    };
    world.child("pump", &namer("0").delays("[\"0s\"]"));
    world.child("bad", &namer("3").delays("[\"60s\"]"));
    // Ends well, and has not said who goes on.
    let silent = Spec::of(&["/bin/sh", "-c", "sleep 1000 & exit 0"]).heartbeat("method = \"notify\"");
    world.child("silent", &silent.delays("[\"60s\"]"));
    world.start();
    let working = |world: &World| {
        let pid = world.until_state("pump", "running").pid.unwrap_or(0);
        (world.of("pump").text.as_deref() == Some(&format!("worker {pid}"))).then_some(pid.cast_signed())
    };
    let pid = world.wait("the status names the worker", working);
    assert!(is_alive(pid));
    assert_eq!(fault(&world.event("bad", "fault")), ("crash", "ended by itself with exit code 3"));
    assert_eq!(fault(&world.event("silent", "fault")), ("crash", "ended by itself with exit code 0"));

    send(pid, Signal::SIGKILL);
    let crash = world.event("pump", "fault");
    assert!(
        crash.detail.starts_with("its main process (MAINPID) ended") || crash.detail.contains("SIGKILL"),
        "{crash:?}"
    );
    assert_eq!(crash.pid, Some(pid.cast_unsigned()));
    world.until_replaced("pump", pid);
    let second = world.wait("the status names the worker", working);
    assert_eq!(world.lines("asked").len(), 0);
    assert_eq!(world.ctl(&["stop", "pump"]).code, Some(0));
    world.until_state("pump", "stopped");
    assert!(!is_alive(second));
    assert_eq!(world.lines("asked"), ["asked"], "the main process was asked to stop");
    assert_eq!(world.all("pump", "fault").len(), 1);
}

#[test]
fn a_main_process_that_is_named_is_followed() {
    assert_main_processes_are_followed(&World::new(), "path");
}

#[test]
fn a_main_process_that_is_named_is_followed_without_cgroups_by_an_abstract_socket() {
    assert_main_processes_are_followed(&World::ordinary(), "abstract");
}

#[test]
fn main_processes_of_others_are_refused() {
    let world = World::new();
    let bystander = Bystander::new();
    let mut gone = Command::new("/bin/true").spawn().expect("it is there");
    let dead = gone.id();
    gone.wait().expect("own child");
    let says = "import os,socket,sys,time\n\
                s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\n\
                s.connect(os.environ['NOTIFY_SOCKET'])\n\
                for n in sys.argv[1:]: s.send(b'MAINPID='+n.encode())\n\
                s.send(b'READY=1\\nSTATUS=said')\n\
                time.sleep(1000)";
    let nobody = [&bystander.pid().to_string(), "1", "0", "-1", "", "text", "1000000000000000000000000000000"];
    let others = [dead.to_string(), std::process::id().to_string(), nix::unistd::getppid().to_string()];
    let names: Vec<&str> = nobody.into_iter().chain(others.iter().map(String::as_str)).collect();
    let spec = python(says, &names).heartbeat("method = \"notify\"").heartbeat("deadline = \"none\"");
    world.child("liar", &spec);
    world.start();
    let child = world.until_state("liar", "running");
    world.until("everything was heard", |world| world.of("liar").text.as_deref() == Some("said"));
    let now = world.of("liar");
    assert_eq!((now.pid, world.all("liar", "fault").len()), (child.pid, 0));
    let line = format!("liar: MAINPID names process {}, not its own; refused, 1 times so far", bystander.pid());
    world.until("it is told once, with a count after that", |world| {
        let log = daemon_log(world);
        log.contains(&line) && log.contains("refused, 8 times so far") && log.matches("liar: MAINPID").count() == 4
    });
    assert_eq!(world.ctl(&["stop", "liar"]).code, Some(0));
    world.until_state("liar", "stopped");
    assert!(is_alive(bystander.pid()));
}

#[test]
fn a_shell_script_names_its_main_process_with_systemd_notify() {
    let name = "a_shell_script_names_its_main_process_with_systemd_notify";
    if !Path::new("/usr/bin/systemd-notify").exists() {
        return skip(name, "systemd-notify is not installed");
    }
    let world = World::new();
    let text = "sleep 1000 & systemd-notify --ready --status=\"main $!\" MAINPID=$!; exit 0";
    let script = Spec::of(&["/bin/sh", "-c", text]).heartbeat("method = \"notify\"");
    world.child("pump", &script.heartbeat("deadline = \"none\""));
    world.start();
    world.until_state("pump", "running");
    world.until("the sleeper is the main process", |world| {
        let now = world.of("pump");
        now.text.as_deref() == Some(&format!("main {}", now.pid.unwrap_or(0)))
    });
    assert_eq!(world.all("pump", "fault").len(), 0);
    let pid = world.pid_of("pump");
    send(pid, Signal::SIGTERM);
    assert_eq!(world.event("pump", "fault").fault.as_deref(), Some("crash"));
    world.until_replaced("pump", pid);
}

#[test]
fn the_usual_python_package_speaks_over_both_kinds_of_sockets() {
    let name = "the_usual_python_package_speaks_over_both_kinds_of_sockets";
    let world = World::new();
    let venv = world.path("venv");
    let made = Command::new("python3").args(["-m", "venv", utf8(&venv)]).output();
    if !made.is_ok_and(|made| made.status.success()) {
        return skip(name, "python3 -m venv does not work");
    }
    let pip = run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "sdnotify"]));
    if pip.code != Some(0) {
        return skip(name, "pip cannot install sdnotify");
    }
    let text = "import sdnotify, time\nn = sdnotify.SystemdNotifier(debug=True)\nn.notify('READY=1')\n\
                n.notify('STATUS=ready')\nwhile True:\n    n.notify('WATCHDOG=1')\n    time.sleep(0.05)\n";
    for socket in ["path", "abstract"] {
        let spec = Spec::of(&[utf8(&venv.join("bin/python")), "-c", text])
            .heartbeat("method = \"notify\"")
            .heartbeat(&format!("notify_socket = \"{socket}\""))
            .deadline("2s");
        world.child(socket, &spec);
    }
    world.start();
    for socket in ["path", "abstract"] {
        world.until_state(socket, "running");
        world.until("its status is there", |world| world.of(socket).text.as_deref() == Some("ready"));
        send(world.pid_of(socket), Signal::SIGSTOP);
        assert_eq!(world.event(socket, "fault").fault.as_deref(), Some("hang"));
        world.event(socket, "recovered");
    }
    // Another name of the same kind of socket, while the old one is still open.
    let pid = world.pid_of("abstract");
    let spec = fs::read_to_string(world.dirs().child_file("abstract")).expect("own file");
    world.child_text("abstract", &spec.replace("\"abstract\"", "\"path\""));
    assert_eq!(world.ctl(&["reload"]).code, Some(0));
    world.until_replaced("abstract", pid);
    let pid = world.pid_of("abstract");
    world.child_text("abstract", &spec);
    assert_eq!(world.ctl(&["reload"]).code, Some(0));
    world.until_replaced("abstract", pid);
}

fn free_udp_port() -> u16 {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|s| s.local_addr()).expect("a port is free").port()
}

#[test]
fn openvpn_runs_unchanged_by_sd_notify_and_by_its_pid_file() {
    let name = "openvpn_runs_unchanged_by_sd_notify_and_by_its_pid_file";
    let program = Path::new("/usr/sbin/openvpn");
    if !program.exists() {
        return skip(name, "openvpn is not installed");
    }
    let world = World::new();
    let ports = [free_udp_port(), free_udp_port()];
    let peer = |own: usize| {
        let config = world.path(&format!("peer{own}.conf"));
        let text = format!(
            "dev null\nproto udp\nlocal 127.0.0.1\nlport {}\nremote 127.0.0.1 {}\ncipher none\nauth none\nping 1\n",
            ports[own],
            ports[1 - own]
        );
        fs::write(&config, text).expect("own file");
        config
    };
    let notify = Spec::of(&[utf8(program), "--config", utf8(&peer(0))])
        .heartbeat("method = \"notify\"")
        .heartbeat("deadline = \"none\"");
    world.child("notify", &notify);
    let pid_file = world.path("openvpn.pid");
    let config = peer(1);
    let arguments = [utf8(program), "--daemon", "--writepid", utf8(&pid_file), "--config", utf8(&config)];
    world.child("daemon", &Spec::of(&arguments).key(&format!("pid_file = \"{}\"", utf8(&pid_file))).delays("[\"0s\"]"));
    world.start();
    for name in ["notify", "daemon"] {
        world.until_state(name, "running");
    }
    world.until("they have found each other", |world| {
        world.of("notify").text.as_deref() == Some("Initialization Sequence Completed")
    });
    let pid = world.pid_of("daemon");
    assert_eq!(fs::read_to_string(&pid_file).expect("it is written").trim(), pid.to_string());
    send(pid, Signal::SIGKILL);
    assert_eq!(fault(&world.event("daemon", "fault")), ("crash", "killed by SIGKILL"));
    world.until_replaced("daemon", pid);
    assert_eq!(world.all("notify", "fault").len(), 0);
}

// ---- PID files ------------------------------------------------------------------------------------------------------------

/// Forks twice, as daemons do, and writes its PID file; then it does what the first argument says.
const DAEMON: &str = r#"
import os, signal, sys, time
mode, path = sys.argv[1], sys.argv[2]
if mode == "fail":
    sys.exit(3)
if mode == "stay":
    time.sleep(1000)
if os.fork():
    sys.exit(0)
os.setsid()
if os.fork():
    os._exit(0)
if mode == "slow":
    time.sleep(0.5)
if mode not in ("mute", "lie"):
    open(path, "w").close()
    time.sleep(0.05)
    with open(path, "w") as f:
        f.write("%d\n" % os.getpid())
if mode == "lie":
    with open(path, "w") as f:
        f.write(sys.argv[3])
def stop(number, frame):
    open(path + ".asked", "a").write("%d\n" % number)
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR1, stop)
while True:
    if mode == "touch":
        os.utime(path)
    if mode == "hang" and not os.path.exists(path + ".once"):
        for n in range(20):
            os.utime(path)
            time.sleep(0.05)
        open(path + ".once", "w").close()
        time.sleep(1000)
    if mode == "hang":
        os.utime(path)
    time.sleep(0.05)
"#;

fn pid_file_of(world: &World, name: &str) -> PathBuf {
    world.path("pids").join(format!("{name}.pid"))
}

fn daemonised(world: &World, name: &str, mode: &[&str]) -> Spec {
    let dir = world.path("pids");
    if !dir.exists() {
        fs::create_dir(&dir).expect("own directory");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("own directory");
    }
    let path = pid_file_of(world, name);
    let mut arguments = vec![mode[0], utf8(&path)];
    arguments.extend(&mode[1..]);
    python(DAEMON, &arguments)
        .key(&format!("pid_file = \"{}/{{name}}.pid\"", utf8(&world.path("pids"))))
        .delays("[\"0s\", \"60s\"]")
}

fn assert_daemons_are_followed(world: &World) {
    let bystander = Bystander::new();
    world.child("pump", &daemonised(world, "pump", &["good"]).table("[stop]\nsignal = \"SIGUSR1\""));
    world.child("slow", &daemonised(world, "slow", &["slow"]));
    // Left behind by an earlier run; the number is somebody else's by now.
    fs::write(pid_file_of(world, "slow"), format!("{}\n", bystander.pid())).expect("own file");
    world.start();
    for name in ["pump", "slow"] {
        let pid = world.until_state(name, "running").pid.expect("it runs").cast_signed();
        assert_eq!(fs::read_to_string(pid_file_of(world, name)).expect("it is written"), format!("{pid}\n"), "{name}");
        assert_eq!(world.all(name, "fault").len(), 0, "{name}");
    }
    let pid = world.pid_of("pump");
    send(pid, Signal::SIGSEGV);
    let crash = world.event("pump", "fault");
    assert_eq!(fault(&crash), ("crash", "killed by SIGSEGV"), "as it ended, so it is told");
    assert_eq!(crash.pid, Some(pid.cast_unsigned()));
    let second = world.until_replaced("pump", pid).pid.expect("it runs").cast_signed();
    assert_eq!(world.ctl(&["stop", "pump"]).code, Some(0));
    world.until_state("pump", "stopped");
    assert!(!is_alive(second) && world.processes_of("pump").is_empty());
    let asked = fs::read_to_string(pid_file_of(world, "pump").with_extension("pid.asked")).expect("it was asked");
    assert_eq!(asked, format!("{}\n", Signal::SIGUSR1 as i32), "by the signal that is configured");

    // When multusd itself is killed, what it followed dies.
    let slow = world.pid_of("slow");
    world.signal(Signal::SIGKILL);
    world.wait_end();
    world.until("the daemon is gone", |_| !is_alive(slow));
    assert!(is_alive(bystander.pid()));
    world.start();
    world.until_state("slow", "running");
}

#[test]
fn a_program_that_goes_to_the_background_is_followed_by_its_pid_file() {
    assert_daemons_are_followed(&World::new());
}

#[test]
fn a_program_that_goes_to_the_background_is_followed_without_cgroups() {
    assert_daemons_are_followed(&World::ordinary());
}

#[test]
fn mosquitto_is_followed_by_its_pid_file() {
    let program = Path::new("/usr/sbin/mosquitto");
    if !program.exists() {
        return skip("mosquitto_is_followed_by_its_pid_file", "mosquitto is not installed");
    }
    let world = World::new();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a port is free").port();
    let (config, pid_file) = (world.path("mosquitto.conf"), world.path("mosquitto.pid"));
    let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\npid_file {}\nuser root\n", utf8(&pid_file));
    fs::write(&config, text).expect("own file");
    let spec = Spec::of(&[utf8(program), "-d", "-c", utf8(&config)])
        .key(&format!("pid_file = \"{}\"", utf8(&pid_file)))
        .table(&format!("[check]\ntcp = \"127.0.0.1:{port}\"\ninterval = \"200ms\"\nstart_period = \"1s\""))
        .delays("[\"0s\"]");
    world.child("broker", &spec);
    world.start();
    let pid = world.until_state("broker", "running").pid.expect("it runs").cast_signed();
    assert!(fs::read_to_string(format!("/proc/{pid}/comm")).expect("it lives").starts_with("mosquitto"));
    send(pid, Signal::SIGKILL);
    assert_eq!(fault(&world.event("broker", "fault")), ("crash", "killed by SIGKILL"));
    let second = world.until_replaced("broker", pid).pid.expect("it runs").cast_signed();
    assert_eq!(world.ctl(&["stop", "broker"]).code, Some(0));
    world.until_state("broker", "stopped");
    assert!(!is_alive(second));
    assert_eq!(world.all("broker", "fault").len(), 1);
}

#[test]
fn pid_files_that_lie_are_refused_and_nobody_else_is_touched() {
    let world = World::new();
    let bystander = Bystander::new();
    let foreign = bystander.pid().to_string();
    world.launch();
    world.wait("the daemon answers", |world| world.client().ok());
    let multusd = world.pid().to_string();
    let huge = format!("1{}", "0".repeat(30));
    let long = "1".repeat(100_000);
    let lies: [(&str, &str, &str); 9] = [
        ("text", "hello", "no process id"),
        ("huge", &huge, "no process id"),
        ("long", &long, "no process id"),
        ("minus", "-17", "no process id"),
        ("empty", "", "no PID file"),
        ("init", "1", "names 1,"),
        ("own", &multusd, &format!("names {multusd},")),
        ("foreign", &foreign, &format!("names {foreign},")),
        ("zero", "0\n", "no process id"),
    ];
    for (name, lie, _) in lies {
        // Its work goes on, so there is something that the file could name.
        let working = daemonised(&world, name, &["lie", if lie.len() > 1000 { "x" } else { lie }]);
        world.child(name, &working.heartbeat("startup = \"1500ms\""));
        // Nothing is left that it could: that is told at once.
        let path = pid_file_of(&world, &format!("{name}-2"));
        let text = if lie.len() > 1000 {
            format!("head -c {} /dev/zero | tr '\\\\0' 1 > {}", lie.len(), utf8(&path))
        } else {
            format!("printf %s '{lie}' > {}", utf8(&path))
        };
        let key = format!("pid_file = \"{}/{{name}}.pid\"", utf8(&world.path("pids")));
        let alone = Spec::of(&["/bin/sh", "-c", &text]).key(&key).delays("[\"60s\"]");
        world.child(&format!("{name}-2"), &alone);
    }
    // A link to a file with the number of a process that is its own even.
    let target = pid_file_of(&world, "target");
    let text = format!(
        "sleep 1000 & echo $! > {0}; rm -f {1}; ln -s {0} {1}",
        utf8(&target),
        utf8(&pid_file_of(&world, "link"))
    );
    let key = format!("pid_file = \"{}\"", utf8(&pid_file_of(&world, "link")));
    let linker = Spec::of(&["/bin/sh", "-c", &text]).key(&key).heartbeat("startup = \"1500ms\"").delays("[\"60s\"]");
    world.child("link", &linker);
    assert_eq!(world.ctl(&["reload"]).code, Some(0));
    for (name, lie, word) in lies {
        let event = world.event(name, "fault");
        let expected = if lie.len() > 1000 { "no process id" } else { word };
        assert!(event.detail.contains(expected) && event.fault.as_deref() == Some("exec-failed"), "{name}: {event:?}");
        let event = world.event(&format!("{name}-2"), "fault");
        let kind = event.fault.as_deref();
        // Who leaves nothing at all behind has simply ended.
        let fits = if name == "empty" { kind == Some("crash") } else { event.detail.contains(word) };
        assert!(fits, "{name}-2: {event:?}");
        assert_eq!(world.all(name, "ready").len(), 0, "{name}");
    }
    assert!(world.event("link", "fault").detail.contains("no process id"));
    assert!(world.log("text").contains("holds \"hello\": that is no process id"), "{}", world.log("text"));
    assert!(is_alive(bystander.pid()));
}

#[test]
fn start_commands_that_fail_or_stay_are_told_apart() {
    let world = World::new();
    world.child("fail", &daemonised(&world, "fail", &["fail"]));
    world.child("stay", &daemonised(&world, "stay", &["stay"]).heartbeat("startup = \"1s\""));
    world.child("mute", &daemonised(&world, "mute", &["mute"]).heartbeat("startup = \"1s\""));
    let key = format!("pid_file = \"{}\"", utf8(&pid_file_of(&world, "x")));
    world.child("killed", &Spec::of(&["/bin/sh", "-c", "kill -9 $$"]).key(&key).delays("[\"60s\"]"));
    let key = format!("pid_file = \"{}\"", utf8(&pid_file_of(&world, "y")));
    world.child("none", &Spec::of(&["/no/such/program"]).key(&key).delays("[\"60s\"]"));
    world.start();
    for (name, kind, detail) in [
        ("fail", "crash", "ended by itself with exit code 3"),
        ("killed", "crash", "killed by SIGKILL"),
        ("stay", "exec-failed", "its start command does not end; without pid_file it may stay"),
        ("mute", "exec-failed", "its start command left a process behind, but no PID file (pid_file)"),
        ("none", "exec-failed", "its program cannot be executed (command): No such file or directory (ENOENT)"),
    ] {
        assert_eq!(fault(&world.event(name, "fault")), (kind, detail), "{name}");
        assert_eq!(world.all(name, "ready").len(), 0, "{name} was never ready");
    }
}

#[test]
fn a_control_file_that_is_the_pid_file_is_a_heartbeat() {
    let world = World::new();
    for mode in ["touch", "hang"] {
        let path = pid_file_of(&world, mode);
        let spec = daemonised(&world, mode, &[mode])
            .heartbeat("method = \"file\"")
            .heartbeat(&format!("path = \"{}\"", utf8(&path)))
            .deadline("500ms");
        world.child(mode, &spec);
    }
    world.start();
    let hang = world.event("hang", "fault");
    assert_eq!(hang.fault.as_deref(), Some("hang"), "{hang:?}");
    let evidence = world.event("hang", "evidence");
    assert!(evidence.detail.starts_with("thread python3 waits in "), "of the process that hangs: {evidence:?}");
    world.event("hang", "recovered");
    world.until_state("touch", "running");
    assert_eq!(world.all("touch", "fault").len(), 0);
    assert_eq!(
        fs::read_to_string(pid_file_of(&world, "touch")).expect("it is there").trim(),
        world.pid_of("touch").to_string()
    );
}

#[test]
fn a_stage_needs_little_memory() {
    let world = World::new();
    world.child("pump", &daemonised(&world, "pump", &["good"]));
    world.start();
    let main = world.until_state("pump", "running").pid.expect("it runs");
    let stat = fs::read_to_string(format!("/proc/{main}/stat")).expect("it lives");
    let stage =
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<i32>().ok()).expect("a parent");
    assert_eq!(fs::read_to_string(format!("/proc/{stage}/comm")).expect("it lives").trim(), "multus-stage");
    let rollup = fs::read_to_string(format!("/proc/{stage}/smaps_rollup")).expect("own process");
    let kib = |key: &str| -> u64 {
        let line = rollup.lines().find(|line| line.starts_with(key)).expect("the kernel tells");
        line.split_ascii_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    };
    let own = kib("Private_Dirty") + kib("Anonymous") / 1024;
    assert!(own < 2048, "{own} KiB of its own\n{rollup}");
}

// ---- services with scripts --------------------------------------------------------------------------------------------------

/// Somebody else who runs services: makes and ends a process as a file says. Started by the test, not by multusd.
struct Owner(Child);

impl Owner {
    fn new(world: &World) -> Self {
        let text = "cd \"$1\"; pid=\n\
                    while :; do\n\
                    if [ -e want ] && [ -z \"$pid\" ]; then sleep 1000 & pid=$!; echo $pid > new; mv new pid; fi\n\
                    if [ -n \"$pid\" ] && ! kill -0 $pid 2>/dev/null; then wait $pid; pid=; rm -f pid; \
                    [ -e want ] && rm want; fi\n\
                    if [ ! -e want ] && [ -n \"$pid\" ]; then kill $pid; fi\n\
                    sleep 0.02\ndone";
        let child =
            Command::new("/bin/sh").args(["-c", text, "owner", utf8(&world.path(""))]).stdin(Stdio::null()).spawn();
        Self(child.expect("a shell is there"))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        let _ = self.0.kill();
        let _ = self.0.wait();
        for pid in children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The scripts of that service; each use is a line in the file `order`.
fn service(world: &World) -> String {
    let dir = world.path("");
    let dir = utf8(&dir);
    let start = format!("echo start >> {dir}/order; touch {dir}/want; while [ ! -e {dir}/pid ]; do sleep 0.02; done");
    let stop = format!("echo stop >> {dir}/order; rm -f {dir}/want; while [ -e {dir}/pid ]; do sleep 0.02; done");
    let status = format!("test -e {dir}/pid || exit 3");
    format!(
        "[service]\nstart = [\"{}\"]\nstop = [\"{}\"]\nstatus = [\"{}\"]\ninterval = \"1s\"\n[stop]\ntimeout = \"20s\"",
        script(world, "start", &start),
        script(world, "stop", &stop),
        script(world, "status", &status)
    )
}

#[test]
fn a_service_of_somebody_else_is_started_asked_and_stopped_by_its_scripts() {
    let world = World::new();
    let owner = Owner::new(&world);
    let ill = world.path("ill");
    let check = format!(
        "[check]\ncommand = [\"{}\"]\ninterval = \"100ms\"",
        script(&world, "check", &format!("test ! -e {}", utf8(&ill)))
    );
    let healed = world.path("healed");
    let heal = script(&world, "heal", &format!("rm -f {}; echo >> {}", utf8(&ill), utf8(&healed)));
    let spec = Spec::default()
        .table(&service(&world))
        .table(&check)
        .table(&format!("[hooks]\nafter_start = [\"{heal}\"]"))
        .delays("[\"0s\"]");
    world.child("box", &spec);
    world.start();
    world.until_state("box", "running");
    let served = || world.lines("pid").first().and_then(|line| line.parse::<i32>().ok());
    let first = served().expect("it is served");
    assert_eq!(world.lines("order"), ["start"]);

    // Somebody ends it: its status says so, the stop script tidies up, it starts again.
    send(first, Signal::SIGKILL);
    assert_eq!(fault(&world.event("box", "fault")), ("crash", "ended by itself with exit code 3"));
    world.until_logged("box", "status: exit code 3: the service does not run");
    world.event("box", "recovered");
    let second = served().expect("it is served again");
    assert_ne!(first, second);
    assert_eq!(world.lines("order"), ["start", "stop", "start"]);

    // It runs, but does not do its work: stop and start.
    world.until("the hook of the second start has run", |world| world.lines("healed").len() == 2);
    let next = world.next_seq();
    fs::write(&ill, "").expect("own file");
    assert_eq!(world.event_after(next, "box", "fault").fault.as_deref(), Some("check-failed"));
    world.event_after(next, "box", "recovered");
    let third = served().expect("it is served again");
    assert!(third != second && !is_alive(second));
    assert_eq!(world.lines("order").len(), 5);

    // Stopped in order: by its script, once.
    assert_eq!(world.ctl(&["stop", "box"]).code, Some(0));
    world.until_state("box", "stopped");
    assert!(!is_alive(third));
    assert_eq!(world.lines("order"), ["start", "stop", "start", "stop", "start", "stop"]);
    assert_eq!(world.ctl(&["start", "box"]).code, Some(0));
    world.until_state("box", "running");

    // Without multusd it runs on; the next multusd finds it running.
    let fourth = served().expect("it is served");
    world.signal(Signal::SIGKILL);
    world.wait_end();
    assert!(is_alive(fourth));
    world.start();
    world.until_state("box", "running");
    assert_eq!(served(), Some(fourth));
    assert!(world.stop().success());
    world.until("it is stopped with multusd", |_| !is_alive(fourth));
    drop(owner);
}

#[test]
fn service_scripts_that_fail_or_hang_are_faults_and_leave_nothing_behind() {
    let world = World::new();
    let marked = |name: &str, text: &str| {
        let counted = format!("echo {name} >> {}", utf8(&world.path(&format!("{name}.order"))));
        script(&world, name, &format!("{counted}\n{text}"))
    };
    let table = |start: &str, stop: &str, status: &str, rest: &str| {
        let text = format!(
            "[service]\nstart = [\"{start}\"]\nstop = [\"{stop}\"]\nstatus = [\"{status}\"]\ninterval = \"1s\"\n{rest}"
        );
        Spec::default().table(&text).delays("[\"0s\", \"60s\"]")
    };
    let good = script(&world, "good", "exit 0");
    let fails = marked("fails", "exit 5");
    world.child("refuses", &table(&fails, &marked("refused", ""), &good, ""));
    let hangs = script(&world, "hangs", "sleep 1001 & sleep 1002");
    world.child("mute", &table(&good, &good, &hangs, "timeout = \"300ms\""));
    world.child("slow", &table(&hangs, &marked("slow", ""), &good, "[heartbeat]\nstartup = \"500ms\""));
    world.child("deaf", &table(&good, &hangs, &good, "[stop]\ntimeout = \"500ms\""));
    // What a start script leaves behind here is ours, and goes with the tree.
    let pid = world.path("left");
    let leaves = script(&world, "leaves", &format!("setsid sleep 1003 > /dev/null 2>&1 & echo $! > {}", utf8(&pid)));
    world.child("leaver", &table(&leaves, &good, &good, ""));
    let endless = script(&world, "endless", "exec yes");
    world
        .child("chatty", &table(&good, &good, &endless, "timeout = \"500ms\"\n[log]\nmax_size = \"64KiB\"\nfiles = 2"));
    world.start();
    assert_eq!(fault(&world.event("refuses", "fault")), ("crash", "ended by itself with exit code 5"));
    world.until("it was stopped after each start", |world| {
        let lines = |name: &str| world.lines(&format!("{name}.order")).len();
        lines("fails") == 2 && lines("refused") == 2
    });
    assert_eq!(world.all("refuses", "ready").len(), 0);
    for name in ["mute", "chatty"] {
        assert_eq!(fault(&world.event(name, "fault")), ("crash", "ended by itself with exit code 124"), "{name}");
    }
    world.until_logged("mute", "status: took too long and was killed");
    assert_eq!(world.event("slow", "fault").fault.as_deref(), Some("startup-timeout"));
    world.until("it was stopped all the same", |world| !world.lines("slow.order").is_empty());

    world.until_state("leaver", "running");
    let left: i32 = world.wait("the pid is written", |world| world.lines("left").first()?.parse().ok());
    world.until_state("deaf", "running");
    for name in ["leaver", "deaf"] {
        assert_eq!(world.ctl(&["stop", name]).code, Some(0));
        world.until_state(name, "stopped");
        world.until("nothing is left", |world| world.processes_of(name).is_empty());
    }
    assert!(!is_alive(left));
    let failed = world.event("deaf", "command-failed");
    assert_eq!(failed.detail, "after_stop hook: took too long and was killed", "its stop script had a second try");
}

#[test]
fn a_check_that_prints_without_end_is_ended_and_held_in_bounds() {
    let world = World::new();
    let table = "[check]\ncommand = [\"/usr/bin/yes\"]\ninterval = \"100ms\"\ntimeout = \"700ms\"\n\
                 [log]\nmax_size = \"64KiB\"\nfiles = 2";
    world.child("pump", &shell("exec sleep 1000").table(table).delays("[\"0s\"]"));
    world.child("fan", &shell("while :; do multusctl beat; sleep 0.05; done"));
    world.start();
    let event = world.event("pump", "fault");
    assert_eq!(fault(&event), ("check-failed", "its check failed once in a row (took too long and was killed)"));
    world.event("pump", "recovered");
    world.until("only the child itself is left", |world| {
        let yes = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "yes");
        !world.processes_of("pump").iter().any(yes)
    });
    let logged: u64 = fs::read_dir(&world.dirs().logs)
        .expect("own directory")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("pump"))
        .map(|entry| entry.metadata().map_or(0, |data| data.len()))
        .sum();
    assert!(logged < 256 << 10, "{logged} bytes");
}

// ---- requests by file, and starting the machine anew ------------------------------------------------------------------------

fn request(world: &World, name: &str, age: u64) {
    let path = world.path("tmp").join(name);
    fs::create_dir_all(path.parent().expect("it has one")).expect("own directory");
    let file = fs::File::create(&path).expect("own file");
    file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("own file");
}

#[test]
fn files_ask_for_restarts_reloads_and_reboots() {
    let world = World::new();
    let rebooted = world.path("rebooted");
    let alive = world.path("alive");
    world.daemon_config(&format!(
        "[legacy]\nrequest_dir = \"{}\"\n[reboot]\ncommand = [\"/bin/sh\", \"-c\", \"kill -0 $(cat {}) || echo $? > {}\"]\n",
        utf8(&world.path("tmp")),
        utf8(&alive),
        utf8(&rebooted)
    ));
    world.child("pump", &shell(&format!("echo $$ > {}; exec sleep 1000", utf8(&alive))));
    world.child("fan", &shell("exec sleep 1000").key("instances = 2"));
    world.child("lan", &shell("exec sleep 1000"));
    world.start();
    for name in ["pump", "fan_0", "fan_1", "lan"] {
        world.until_state(name, "running");
    }
    let (pump, fan) = (world.pid_of("pump"), [world.pid_of("fan_0"), world.pid_of("fan_1")]);
    let lan = world.pid_of("lan");
    request(&world, "lan/Reload", 1);
    fs::create_dir_all(world.path("tmp/elsewhere")).expect("own directory");
    request(&world, "pump/Reload", 61);
    request(&world, "fan_1/Reload", 61);
    world.until_replaced("pump", pump);
    world.until_replaced("fan_1", fan[1]);
    assert_eq!(world.pid_of("fan_0"), fan[0]);
    assert!(!world.path("tmp/pump/Reload").exists());
    // A link is nobody's request, wherever it leads.
    let target = world.path("target");
    fs::write(&target, "").expect("own file");
    fs::File::options()
        .write(true)
        .open(&target)
        .and_then(|f| f.set_modified(SystemTime::UNIX_EPOCH))
        .expect("own file");
    fs::create_dir_all(world.path("tmp/fan_0")).expect("own directory");
    symlink(&target, world.path("tmp/fan_0/Reload")).expect("own directory");
    // All instances by the name of the child, and a new child by a reload.
    request(&world, "fan/Reload", 61);
    world.until_replaced("fan_0", fan[0]);
    world.child("new", &shell("exec sleep 1000"));
    request(&world, "system/Reload.Modules", 61);
    world.until_state("new", "running");
    assert_eq!(world.pid_of("lan"), lan, "a young request waits");
    assert!(target.exists() && world.path("tmp/fan_0/Reload").is_symlink());
    assert_eq!(world.events().iter().filter(|e| e.kind == "fault").count(), 0);

    request(&world, "system/Reboot.300", 0);
    let event = world.event_since(0, "a reboot is scheduled", |e| e.kind == "reboot-scheduled");
    assert_eq!(event.detail, "the machine is started anew in 300.0 s");
    assert_eq!(world.ctl(&["reboot", "--cancel"]).code, Some(0));
    world.event_since(event.seq, "and cancelled", |e| e.kind == "reboot-cancelled");
    let pid = world.pid();
    request(&world, "system/Reboot.0", 0);
    assert!(world.wait_end().success());
    assert!(!is_alive(pid));
    assert_eq!(fs::read_to_string(&rebooted).expect("the command ran").trim(), "1", "after all children were stopped");
    let events = fs::read_to_string(world.dirs().events_file()).expect("own file");
    assert!(events.contains("the machine is started anew when all children are stopped"), "{events}");
    assert!(!world.path("tmp/system/Reboot.0").exists());
}

#[test]
fn a_reboot_can_be_scheduled_replaced_and_cancelled() {
    let world = World::new();
    world.daemon_config("[reboot]\ncommand = [\"/bin/sh\", \"-c\", \"exit 9\"]\n");
    world.child("pump", &shell("exec sleep 1000"));
    world.start();
    world.until_state("pump", "running");
    let pid = world.pid_of("pump");
    assert_eq!(world.ctl(&["reboot", "--cancel"]).code, Some(1));
    assert_eq!(world.ctl(&["reboot", "--in", "25h"]).code, Some(1));
    assert_eq!(world.ctl(&["reboot", "--in", "soon"]).code, Some(2));
    assert_eq!(world.ctl(&["reboot", "--in", "5s", "--cancel"]).code, Some(2));
    let ended = world.ctl(&["reboot", "--in", "300s"]);
    assert_eq!((ended.code, ended.out.contains("in 5min")), (Some(0), true), "{ended:?}");
    assert!(world.status().daemon.notes.iter().any(|note| note.contains("started anew in")));
    assert_eq!(world.ctl(&["reboot", "--in", "600s"]).code, Some(0));
    assert_eq!(world.ctl(&["reboot", "--cancel"]).code, Some(0));
    assert_eq!(world.ctl(&["reboot", "--cancel"]).code, Some(1));
    assert!(world.status().daemon.notes.iter().all(|note| !note.contains("started anew")));
    let kinds: Vec<String> =
        world.events().into_iter().map(|e| e.kind).filter(|kind| kind.starts_with("reboot")).collect();
    assert_eq!(kinds, ["reboot-scheduled", "reboot-scheduled", "reboot-cancelled"]);
    assert!(is_alive(pid));
    // A machine that stays although it should not: whoever guards multusd has to start it again.
    assert_eq!(world.ctl(&["reboot"]).code, Some(0));
    let status = world.wait_end();
    assert_eq!(status.code(), Some(1));
    assert!(!is_alive(pid));
    assert!(fs::read_to_string(world.path("multusd.out")).expect("own file").contains("was not started anew"));
}

/// Not a test: the program that the tests have supervised. Alone it does nothing.
#[test]
fn child() {
    world::child::main();
}
