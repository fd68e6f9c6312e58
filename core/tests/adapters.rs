//! Programs that know nothing of multusd, with a real daemon and real processes: control port, control file, and checks
//! that need no command. One world of its own for each test, see [`world`].

#[allow(dead_code, unused_imports, reason = "the same world serves other tests, which use more of it")]
#[path = "world/mod.rs"]
mod world;

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use multus_contract::api::event::Event;
use world::{Spec, World, skip};

/// A child as it was written for the original: it connects to its port and sends 1, 2, ... 9, 1, ...; after a while it does
/// what its argument says, but only the first process of them.
const PINGER: &str = r#"
import os, socket, sys, time
mode, marker = sys.argv[1], sys.argv[2]
try:
    os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    first = True
except FileExistsError:
    first = False
def connect():
    s = socket.create_connection(("127.0.0.1", int(os.environ["MULTUS_CONTROL_PORT"])))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s
s, n = connect(), 5
def ping():
    global n
    s.sendall(bytes([n]))
    n = n % 9 + 1
    time.sleep(0.02)
for _ in range(30):
    ping()
if first and mode == "jump":
    n = n % 9 + 1
if first and mode == "silent":
    time.sleep(3600)
if first and mode == "eof":
    s.close()
    time.sleep(3600)
if first and mode == "flood":
    while True:
        s.sendall(bytes([1]) * 65536)
for turn in range(1000000):
    if turn == 30:
        open(marker + ".done", "w").close()
    if mode == "reconnect":
        s = connect()
        n = 3
    if mode == "two":
        old = s
        s = connect()
        time.sleep(0.05)
        try:
            old.sendall(bytes([77]))
        except OSError:
            pass
    ping()
"#;

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn pinger(world: &World, mode: &str, port: u16) -> Spec {
    let marker = world.path(&format!("marker-{mode}-{port}"));
    Spec::of(&["/usr/bin/env", "python3", "-c", PINGER, mode, utf8(&marker)])
        .heartbeat("method = \"control-port\"")
        .heartbeat(&format!("port = {port}"))
        .deadline("1s")
        .delays("[\"0s\"]")
}

fn fault(event: &Event) -> &str {
    event.fault.as_deref().unwrap_or_default()
}

#[test]
fn bytes_on_the_control_port_are_beats_and_their_order_is_checked() {
    let world = World::new();
    for mode in ["good", "reconnect", "jump", "silent", "eof", "flood"] {
        world.child(mode, &pinger(&world, mode, free_port()));
    }
    world.start();
    for (mode, kind) in [("jump", "control-byte"), ("silent", "hang"), ("eof", "hang"), ("flood", "control-byte")] {
        let event = world.event(mode, "fault");
        assert_eq!(fault(&event), kind, "{mode}: {}", event.detail);
        if kind == "control-byte" {
            assert!(event.detail.contains("its control port got the byte"), "{}", event.detail);
        }
        let recovered = world.event(mode, "recovered");
        assert!(recovered.last_beat_ns.is_some() && recovered.ready_ns.is_some(), "{recovered:?}");
    }
    for mode in ["good", "reconnect"] {
        let child = world.until_state(mode, "running");
        assert_eq!((world.all(mode, "fault").len(), child.restarts), (0, 0), "{mode}");
    }
}

#[test]
fn a_newer_connection_replaces_the_older() {
    let world = World::new();
    let port = free_port();
    world.child("two", &pinger(&world, "two", port));
    world.start();
    // It connects again for each ping, and then sends nonsense over the connection before.
    let done = world.path(&format!("marker-two-{port}.done"));
    world.until("it has done so often", |_| done.exists());
    assert_eq!((world.all("two", "fault").len(), world.of("two").state.as_str()), (0, "running"));
}

#[test]
fn a_port_that_somebody_else_has_is_an_error_of_that_child_only() {
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = other.local_addr().expect("it is bound").port();
    let world = World::new();
    world.child("free", &pinger(&world, "good", free_port()));
    world.child("taken", &pinger(&world, "good", port));
    world.start();
    world.until_state("free", "running");
    let log = fs::read_to_string(world.dirs().logs.join("multusd.log")).expect("a log");
    let line = format!("taken: heartbeat.port: port {port} of localhost is in use by another program");
    assert!(log.contains(&line), "{log}");

    let refused = world.ctl(&["reload"]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(format!("{refused:?}").contains("in use by another program"), "{refused:?}");
    let notes = world.status().daemon.notes;
    assert!(notes.iter().any(|note| note.starts_with("taken is not as configured: heartbeat.port")), "{notes:?}");
    drop(other);
    // Nobody has to ask for it again.
    world.until_state("taken", "running");
    assert_eq!((world.of("free").restarts, world.ctl(&["reload"]).code), (0, Some(0)));
}

#[test]
fn a_port_passes_from_one_instance_to_another() {
    let world = World::new();
    let (a, b) = (free_port(), free_port());
    world.child("a", &pinger(&world, "good", a));
    world.child("b", &pinger(&world, "good", b));
    world.start();
    let before = (world.until_state("a", "running").pid, world.until_state("b", "running").pid);
    world.child("a", &pinger(&world, "good", b));
    world.child("b", &pinger(&world, "good", a));
    let ended = world.ctl(&["reload"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for (name, pid) in [("a", before.0), ("b", before.1)] {
        world.until_replaced(name, pid.expect("it ran").cast_signed());
        assert_eq!(world.all(name, "fault").len(), 0, "{name}");
    }
    // Another name, the same port.
    fs::remove_file(world.dirs().child_file("a")).expect("own file");
    world.child("c", &pinger(&world, "good", b));
    let ended = world.ctl(&["reload"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    world.until_state("c", "running");
    // A port that nobody uses any more is closed.
    fs::remove_file(world.dirs().child_file("c")).expect("own file");
    assert_eq!(world.ctl(&["reload"]).code, Some(0));
    world.until("the port is closed", |_| TcpStream::connect((Ipv4Addr::LOCALHOST, b)).is_err());
}

#[test]
fn instances_use_one_port_after_the_other() {
    let world = World::new();
    // Two in a row that are free.
    let port = std::iter::repeat_with(free_port)
        .find(|p| *p < u16::MAX && TcpListener::bind((Ipv4Addr::LOCALHOST, p + 1)).is_ok())
        .expect("there are more");
    world.child("pump", &pinger(&world, "good", port).key("instances = 2"));
    world.start();
    for name in ["pump_0", "pump_1"] {
        world.until_state(name, "running");
    }
}

/// Speaks sd_notify; the first process does what its argument says.
const NOTIFIER: &str = r#"
import os, socket, sys, time
mode, marker = sys.argv[1], sys.argv[2]
try:
    os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    first = True
except FileExistsError:
    first = False
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
assert int(os.environ["WATCHDOG_USEC"]) == 1000000
s.send(b"READY=1\nSTATUS=pumping")
for n in range(1000000):
    if n == 20 and first and mode == "trigger":
        s.send(b"WATCHDOG=trigger")
    if n == 20 and first and mode == "silent":
        time.sleep(3600)
    if mode == "flood":
        for _ in range(2000):
            s.send(b"WATCHDOG=1\n" + b"x" * 1000)
    s.send(b"WATCHDOG=1")
    time.sleep(0.02)
"#;

#[test]
fn notices_of_sd_notify_are_beats_if_they_are_the_childs_own() {
    let world = World::new();
    let notifier = |mode: &str| {
        let marker = world.path(&format!("marker-{mode}"));
        Spec::of(&["/usr/bin/env", "python3", "-c", NOTIFIER, mode, utf8(&marker)])
            .heartbeat("method = \"notify\"")
            .deadline("1s")
            .delays("[\"0s\"]")
    };
    for mode in ["good", "trigger", "silent", "flood"] {
        world.child(mode, &notifier(mode));
    }
    // Says nothing itself, and nobody else may.
    world.child(
        "mute",
        &Spec::of(&["/bin/sleep", "1000"]).heartbeat("method = \"notify\"").heartbeat("startup = \"2s\""),
    );
    world.start();
    let socket = UnixDatagram::unbound().expect("a socket");
    let path = world.dirs().runtime.join("notify/mute");
    world.until("foreign notices are sent", |_| socket.send_to(b"READY=1\nWATCHDOG=1", &path).is_ok());
    for (mode, kind) in [("trigger", "watchdog-trigger"), ("silent", "hang"), ("mute", "startup-timeout")] {
        assert_eq!(fault(&world.event(mode, "fault")), kind, "{mode}");
    }
    for mode in ["good", "flood"] {
        let child = world.until_state(mode, "running");
        assert_eq!((world.all(mode, "fault").len(), child.restarts), (0, 0), "{mode}");
    }
}

#[test]
fn touches_of_a_file_are_beats() {
    let world = World::new();
    let dir = world.path("beats");
    fs::create_dir(&dir).expect("own directory");
    // Left over from before: no beat of the new process.
    fs::write(dir.join("stale.pid"), "1").expect("own file");
    let toucher = |script: &str, path: &str| {
        Spec::of(&["/bin/sh", "-c", script])
            .key(&format!("working_dir = \"{}\"", dir.display()))
            .heartbeat("method = \"file\"")
            .heartbeat(&format!("path = \"{path}\""))
            .deadline("1s")
            .delays("[\"0s\"]")
    };
    let good = "while :; do echo $$ > \"$MULTUS_CONTROL_FILE\"; sleep 0.1; done";
    world.child("good", &toucher(good, "{name}.pid").key("instances = 2"));
    let once = "if mkdir mark 2>/dev/null; then n=5; else n=100000; fi; \
                while [ $n -gt 0 ]; do touch silent.pid; sleep 0.1; n=$((n-1)); done; sleep 1000";
    let silent = dir.join("silent.pid");
    world.child("silent", &toucher(once, utf8(&silent)));
    world.child("stale", &toucher("sleep 1000", "stale.pid").heartbeat("startup = \"500ms\""));
    world.start();

    let hang = world.event("silent", "fault");
    assert_eq!(fault(&hang), "hang", "{}", hang.detail);
    world.event("silent", "recovered");
    assert_eq!(fault(&world.event("stale", "fault")), "startup-timeout");
    for name in ["good_0", "good_1"] {
        world.until_state(name, "running");
        assert!(dir.join(format!("{name}.pid")).is_file());
        assert_eq!(world.all(name, "fault").len(), 0);
    }
}

fn checked(program: &[&str], check: &str) -> Spec {
    let rest = "interval = \"200ms\"\ntimeout = \"5s\"\nfailures = 2\n";
    Spec::of(program).heartbeat("method = \"none\"").table(&format!("[check]\n{check}\n{rest}")).delays("[\"1s\"]")
}

#[test]
fn a_check_by_tcp_tells_a_broker_that_works_from_one_that_does_not() {
    let program = Path::new("/usr/sbin/mosquitto");
    if !program.exists() {
        skip("a_check_by_tcp_tells_a_broker_that_works_from_one_that_does_not", "mosquitto is not installed");
        return;
    }
    let world = World::new();
    let (port, other) = (free_port(), free_port());
    let number = port.to_string();
    let broker = [utf8(program), "-p", &number];
    world.child("broker", &checked(&broker, &format!("tcp = \"127.0.0.1:{port}\"\nstart_period = \"1s\"")));
    world.child("wrong", &checked(&["/bin/sleep", "1000"], &format!("tcp = \"localhost:{other}\"")));
    world.start();
    let event = world.event("wrong", "fault");
    assert_eq!(
        (fault(&event), event.detail.as_str()),
        ("check-failed", "its check failed 2 times in a row (exit code 1)")
    );
    let log = fs::read_to_string(world.dirs().logs.join("wrong.log")).expect("a log");
    assert!(log.contains("check: tcp localhost") && log.contains("refused"), "{log}");
    // By now the broker was asked several times.
    world.event_after(event.seq + 1, "wrong", "fault");
    assert_eq!((world.all("broker", "fault").len(), world.of("broker").state.as_str()), (0, "running"));
}

#[test]
fn a_check_by_http_expects_a_status() {
    let world = World::new();
    let port = free_port();
    let server = format!(
        "import http.server as h\n\
         class H(h.BaseHTTPRequestHandler):\n\
         \tdef do_GET(self):\n\
         \t\tself.send_response(204 if self.path == '/good' else 503)\n\
         \t\tself.end_headers()\n\
         \tdef log_message(self, *a): pass\n\
         h.HTTPServer(('127.0.0.1', {port}), H).serve_forever()\n"
    );
    let server = ["/usr/bin/env", "python3", "-c", &server];
    let url = |path: &str| format!("http = \"http://127.0.0.1:{port}/{path}\"");
    world.child("any", &checked(&server, &format!("{}\nstart_period = \"2s\"", url("good"))));
    world.child("bad", &checked(&["/bin/sleep", "1000"], &url("bad")).key("after = [\"any\"]"));
    world.child(
        "exact",
        &checked(&["/bin/sleep", "1000"], &format!("{}\nstatus = 503\nstart_period = \"3s\"", url("bad"))),
    );
    world.start();
    world.event("bad", "fault");
    world.until("the status is in the log", |world| {
        let log = fs::read_to_string(world.dirs().logs.join("bad.log")).unwrap_or_default();
        log.contains("status 503, expected 200 to 299")
    });
    let next = world.next_seq();
    world.event_after(next, "bad", "fault");
    for name in ["any", "exact"] {
        assert_eq!(world.all(name, "fault").len(), 0, "{name}");
    }
}

#[test]
fn a_check_that_gets_no_answer_ends_at_its_time_limit() {
    let world = World::new();
    // Accepts by its backlog, and never says a word.
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = mute.local_addr().expect("it is bound").port();
    let spec = Spec::of(&["/bin/sleep", "1000"])
        .heartbeat("method = \"none\"")
        .table(&format!("[check]\nhttp = \"http://127.0.0.1:{port}/\"\ninterval = \"100ms\"\ntimeout = \"300ms\""));
    world.child("mute", &spec);
    world.start();
    let event = world.event("mute", "fault");
    assert_eq!(event.detail, "its check failed once in a row (took too long and was killed)");
}

#[test]
fn a_check_by_file_looks_at_its_age_and_an_ordinary_user_can_have_it() {
    let world = World::ordinary();
    let (fresh, old) = (world.path("fresh"), world.path("old"));
    for path in [&fresh, &old] {
        fs::write(path, "").expect("own file");
    }
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    fs::File::options().write(true).open(&old).and_then(|f| f.set_modified(long_ago)).expect("own file");
    let by = |path: &Path| format!("file = \"{}\"\nmax_age = \"1h\"", path.display());
    world.child("fresh", &checked(&["/bin/sleep", "1000"], &by(&fresh)));
    world.child("old", &checked(&["/bin/sleep", "1000"], &by(&old)));
    world.start();
    let event = world.event("old", "fault");
    assert_eq!((fault(&event), event.detail.contains("exit code 1")), ("check-failed", true), "{}", event.detail);
    world.event_after(event.seq + 1, "old", "fault");
    assert_eq!(world.all("fresh", "fault").len(), 0);
    assert_eq!(world.all("fresh", "command-failed").len(), 0);
}

#[test]
fn what_was_asked_wrongly_is_refused_before_anything_runs() {
    let world = World::new();
    world.child_text("a", "command = [\"/bin/true\"]\n[heartbeat]\nmethod = \"control-port\"\n");
    let ended = world.ctl(&["check"]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.out.contains("heartbeat.port: missing") || ended.err.contains("heartbeat.port: missing"),
        "{ended:?}"
    );
}
