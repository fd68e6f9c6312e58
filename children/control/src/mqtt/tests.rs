//! Against a real mosquitto.

use std::process::{Command, Stdio};
use std::sync::Mutex;

use rumqttc::{AsyncClient, Event as Incoming, MqttOptions, Packet, QoS};

use super::*;
use crate::service::Settings;
use crate::service::testing::Scanner;
use crate::testing::{FakeDaemon, Server, dirs, event, free_port, program, skip, until};

type Seen = Arc<Mutex<Vec<(String, String, bool)>>>;

fn broker(config: &std::path::Path) -> Server {
    let mosquitto = program("mosquitto").expect("it was found before");
    Server::start(Command::new(mosquitto).arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null()))
}

fn listener(port: u16) -> Seen {
    listener_named(port, "listener")
}

/// Somebody who listens to everything; comes back when the broker does.
fn listener_named(port: u16, name: &'static str) -> Seen {
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let (client, mut events) = AsyncClient::new(MqttOptions::new(name, "127.0.0.1", port), 10);
            loop {
                match events.poll().await {
                    Ok(Incoming::Incoming(Packet::ConnAck(_))) => {
                        client.try_subscribe("#", QoS::AtLeastOnce).expect("there is room");
                    }
                    Ok(Incoming::Incoming(Packet::Publish(message))) => {
                        let text = String::from_utf8_lossy(&message.payload).into_owned();
                        kept.lock().expect("whole").push((message.topic, text, message.retain));
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
    });
    seen
}

fn saw(seen: &Seen, topic: &str, part: &str) -> Option<(String, String, bool)> {
    seen.lock().expect("whole").iter().find(|(t, text, _)| t == topic && text.contains(part)).cloned()
}

struct Running {
    scanner: Scanner,
    daemon: FakeDaemon,
    service: Service,
    stopper: crate::run::StopSender,
    thread: std::thread::JoinHandle<()>,
}

fn run(root: &std::path::Path, config: Config) -> Running {
    run_with(root, config, &["io", "pump"], Scanner::new())
}

fn run_with(root: &std::path::Path, config: Config, children: &[&str], scanner: Scanner) -> Running {
    let dirs = dirs(root);
    // Of the one before.
    let _ = std::fs::remove_file(dirs.control_socket());
    let daemon = FakeDaemon::start(&dirs.control_socket(), 7, Vec::new());
    let child =
        |name: &str, state: &str| ChildStatus { name: name.into(), state: state.into(), ..ChildStatus::default() };
    daemon.0.lock().expect("whole").status.children = children.iter().map(|name| child(name, "running")).collect();
    let service = Service::new(dirs, Settings::default());
    service.start(None, None).expect("threads");
    service.watch_lines(scanner.image(), None).expect("a thread");
    config.check().expect("a good configuration");
    let (stopper, stop) = crate::run::stop();
    let own = service.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(serve(config, own, stop)).expect("a good end");
    });
    Running { scanner, daemon, service, stopper, thread }
}

impl Running {
    fn set(&self, name: &str, state: &str) {
        let mut says = self.daemon.0.lock().expect("whole");
        for child in says.status.children.iter_mut().filter(|child| child.name == name) {
            child.state = state.into();
        }
    }

    fn happens(&self, seq: u64) {
        self.daemon.happens(multus_contract::api::event::Event { mono_ns: MonoNs::now().0, ..event(1, seq, "fault") });
    }

    fn traffic(&self) -> Traffic {
        self.service.mqtt_traffic().unwrap_or_default()
    }
}

/// Speaks as much MQTT as it takes: what it keeps, by topic, and how many connections there were.
#[derive(Clone, Default)]
struct SmallBroker(Arc<Mutex<(Retained, Vec<std::net::TcpStream>)>>);

type Retained = BTreeMap<String, String>;

impl SmallBroker {
    fn start() -> (u16, Self) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let broker = Self::default();
        let own = broker.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (own, copy) = (own.clone(), stream.try_clone().expect("a descriptor is left"));
                own.0.lock().expect("whole").1.push(copy);
                std::thread::spawn(move || own.serve(stream));
            }
        });
        (port, broker)
    }

    /// Ends when the connection does.
    fn serve(&self, mut stream: std::net::TcpStream) -> Option<()> {
        use std::io::{Read as _, Write as _};
        loop {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            let head = byte[0];
            let (mut length, mut shift) = (0, 0);
            loop {
                stream.read_exact(&mut byte).ok()?;
                length |= usize::from(byte[0] & 0x7f) << shift;
                shift += 7;
                if byte[0] & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).ok()?;
            match head >> 4 {
                1 => stream.write_all(&[0x20, 2, 0, 0]).ok()?,
                3 => {
                    let end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    if head & 1 == 1 {
                        let kept = &mut self.0.lock().expect("whole").0;
                        match text(&body[end + 2..]) {
                            nothing if nothing.is_empty() => drop(kept.remove(&text(&body[2..end]))),
                            payload => drop(kept.insert(text(&body[2..end]), payload)),
                        }
                    }
                    stream.write_all(&[0x40, 2, body[end], body[end + 1]]).ok()?;
                }
                12 => stream.write_all(&[0xd0, 0]).ok()?,
                14 => return None,
                _ => {}
            }
        }
    }

    fn keeps(&self, part: &str) -> bool {
        self.0.lock().expect("whole").0.keys().any(|topic| topic.contains(part))
    }

    fn hangs_up(&self) {
        for stream in self.0.lock().expect("whole").1.drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[test]
fn what_is_gone_is_taken_back_also_by_the_next_process_and_over_the_next_connection() {
    let root = tempfile::tempdir().expect("a directory");
    let (port, broker) = SmallBroker::start();
    let config = Config {
        enabled: true,
        host: "127.0.0.1".into(),
        port,
        site: "s".into(),
        discovery: true,
        // So that it is told at once.
        io_interval: Duration::from_millis(100).into(),
        status_interval: Duration::from_secs(1).into(),
        ..Config::default()
    };
    let all = ["s/children/io/", "s/children/pump/", "s/children/lamp/", "s_pump/", "s_lamp/", "s/io/T1", "s_io_T1/"];
    let running = run_with(root.path(), config.clone(), &["io", "pump", "lamp"], Scanner::new());
    until("all is told", || all.iter().all(|part| broker.keeps(part)).then_some(()));

    // Over the same connection; over the next one.
    let leaves = |name: &str| running.daemon.0.lock().expect("whole").status.children.retain(|c| c.name != name);
    leaves("lamp");
    until("lamp is taken back", || (!broker.keeps("lamp")).then_some(()));
    leaves("pump");
    broker.hangs_up();
    until("pump is taken back", || (!broker.keeps("pump")).then_some(()));
    running.stopper.stop();
    running.thread.join().expect("no panic");
    assert!(broker.keeps("s/children/io/") && broker.keeps("s_io_T1/"));

    // By the next process: another child, another line in the place of T1.
    let scanner = Scanner::with(["DI1", "DO1", "T2"], "V", "pump", "sim");
    let running = run_with(root.path(), config.clone(), &["fan"], scanner);
    until("the new ones are told", || (broker.keeps("s_fan/") && broker.keeps("s_io_T2/")).then_some(()));
    until("the old ones are taken back", || {
        (!broker.keeps("children/io/") && !broker.keeps("s_io/") && !broker.keeps("T1")).then_some(())
    });
    assert!(broker.keeps("s/availability") && broker.keeps("s/io/DI1"));
    running.stopper.stop();
    running.thread.join().expect("no panic");

    // What is no longer wanted at all.
    let quiet = Config { discovery: false, io_interval: Duration::ZERO.into(), ..config };
    let running = run_with(root.path(), quiet, &["fan"], Scanner::new());
    until("only states are left", || (!broker.keeps("homeassistant") && !broker.keeps("s/io/")).then_some(()));
    assert!(broker.keeps("s/children/fan/"));
    running.stopper.stop();
    running.thread.join().expect("no panic");
}

#[test]
fn states_and_events_reach_a_broker_also_after_it_was_restarted() {
    const NAME: &str = "states_and_events_reach_a_broker_also_after_it_was_restarted";
    if program("mosquitto").is_none() {
        return skip(NAME, "no mosquitto; install it");
    }
    let root = tempfile::tempdir().expect("a directory");
    let (port, file) = (free_port(), root.path().join("m.conf"));
    std::fs::write(&file, format!("listener {port} 127.0.0.1\nallow_anonymous true\n")).expect("written");
    let config = Config {
        enabled: true,
        host: "127.0.0.1".into(),
        port,
        site: "my/site 1".into(),
        discovery: true,
        ..Config::default()
    };
    // It is there before the broker.
    let running = run(root.path(), config);
    until("it tries", || (running.traffic().failures > 0).then_some(()));
    assert!(!running.traffic().up);
    let first = broker(&file);
    let seen = listener(port);
    until("it is online", || saw(&seen, "multus/my_site_1/availability", "online"));
    until("a state", || saw(&seen, "multus/my_site_1/children/pump/state", r#""state":"running""#));
    until("the daemon", || saw(&seen, "multus/my_site_1/status", "uptime_s"));
    let found = until("a description", || saw(&seen, "homeassistant/binary_sensor/multus_my_site_1_pump/config", "{"));
    let found: serde_json::Value = serde_json::from_str(&found.1).expect("JSON");
    assert_eq!(found["state_topic"], "multus/my_site_1/children/pump/state");
    running.set("pump", "backoff");
    running.happens(1);
    let (_, _, retained) = until("the event", || saw(&seen, "multus/my_site_1/events", r#""seq":1"#));
    assert!(!retained);
    until("the new state", || saw(&seen, "multus/my_site_1/children/pump/state", r#""state":"backoff""#));
    let count = seen.lock().expect("whole").iter().filter(|(topic, ..)| topic.ends_with("children/io/state")).count();
    assert!(count <= 2, "what does not change is not sent again: {count}");

    let line = until("a line", || saw(&seen, "multus/my_site_1/io/T1", r#""value":21.5"#));
    assert!(line.1.contains(r#""unit":"°C""#) && line.1.contains(r#""good":true"#), "{line:?}");
    let found = until("its description", || saw(&seen, "homeassistant/sensor/multus_my_site_1_io_T1/config", "{"));
    assert!(found.1.contains(r#""unit_of_measurement":"°C""#), "{found:?}");
    // A thousand changes at once are not a thousand messages.
    (1..=1000u64).for_each(|n| running.scanner.set(0, (n % 2) as f64, 0, n));
    until("its last value", || saw(&seen, "multus/my_site_1/io/DI1", r#""changes":1000"#));
    let told = seen.lock().expect("whole").iter().filter(|(topic, ..)| topic.ends_with("io/DI1")).count();
    assert!(told <= 4, "{told} messages");
    drop(first);
    until("its end is noticed", || (!running.traffic().up).then_some(()));
    running.happens(2);
    running.daemon.0.lock().expect("whole").status.children.retain(|child| child.name == "io");
    seen.lock().expect("whole").clear();
    let second = broker(&file);
    // This broker remembers nothing: everything is said again, and what waited is sent.
    until("it is online again", || saw(&seen, "multus/my_site_1/availability", "online"));
    until("the event that waited", || saw(&seen, "multus/my_site_1/events", r#""seq":2"#));
    until("the line is said again", || saw(&seen, "multus/my_site_1/io/DI1", r#""changes":1000"#));
    until("the state is said again", || saw(&seen, "multus/my_site_1/children/io/state", "running"));

    // Whoever comes later finds what is retained.
    let late = listener_named(port, "late");
    let (.., retained) = until("a retained state", || saw(&late, "multus/my_site_1/children/io/state", "running"));
    assert!(retained);
    assert_eq!(running.traffic().lost, 0, "{:?}", running.traffic());
    running.stopper.stop();
    running.thread.join().expect("no panic");
    until("it says good-bye", || saw(&seen, "multus/my_site_1/availability", "offline"));
    drop(second);
}

#[test]
fn tls_and_password_are_checked() {
    const NAME: &str = "tls_and_password_are_checked";
    let (Some(_), Some(passwd)) = (program("mosquitto"), program("mosquitto_passwd")) else {
        return skip(NAME, "no mosquitto; install it");
    };
    let root = tempfile::tempdir().expect("a directory");
    let path = |name: &str| root.path().join(name);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(path("ca.pem"), made.cert.pem()).expect("written");
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).expect("written");
    let done = Command::new(passwd).args(["-b", "-c"]).arg(path("users")).args(["multus", "hunter2"]).status();
    assert!(done.expect("it runs").success());
    let (port, open) = (free_port(), free_port());
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).ok().flatten().expect("a user").name;
    let text = format!(
        "user {user}\nper_listener_settings true\nlistener {port} 127.0.0.1\ncertfile {0}/ca.pem\nkeyfile {0}/key.pem\npassword_file {0}/users\n\
         allow_anonymous false\nlistener {open} 127.0.0.1\nallow_anonymous true\n",
        root.path().display()
    );
    std::fs::write(path("m.conf"), text).expect("written");
    let _broker = broker(&path("m.conf"));
    let seen = listener(open);
    std::fs::write(path("secret"), "hunter2\n").expect("written");
    let good = Config {
        enabled: true,
        port,
        tls: true,
        ca: path("ca.pem"),
        user: "multus".into(),
        password_file: path("secret"),
        site: "s".into(),
        ..Config::default()
    };
    assert!(!format!("{:?}", Config { password: Secret::from("hunter2"), ..good.clone() }).contains("hunter2"));
    for (name, bad) in [
        ("password", Config { password: Secret::from("wrong"), ..good.clone() }),
        ("name", Config { host: "127.0.0.1".into(), ..good.clone() }),
        ("authority", Config { ca: PathBuf::new(), ..good.clone() }),
    ] {
        let running = run(&path(name), Config { client_id: name.into(), site: name.into(), ..bad });
        until("it fails", || (running.traffic().failures > 1).then_some(()));
        assert_eq!(running.traffic().sent, 0);
        running.stopper.stop();
        running.thread.join().expect("no panic");
        assert!(saw(&seen, &format!("multus/{name}/availability"), "").is_none());
    }
    let running = run(&path("good"), good);
    until("it is online", || saw(&seen, "multus/s/availability", "online"));
    running.happens(1);
    until("the event", || saw(&seen, "multus/s/events", r#""seq":1"#));
    let traffic = running.traffic();
    assert!(traffic.up && traffic.sent >= 3, "{traffic:?}");
    running.stopper.stop();
    running.thread.join().expect("no panic");
    until("it says good-bye", || saw(&seen, "multus/s/availability", "offline"));
}

#[test]
fn a_program_that_is_gone_without_a_word_is_offline() {
    const NAME: &str = "a_program_that_is_gone_without_a_word_is_offline";
    if program("mosquitto").is_none() {
        return skip(NAME, "no mosquitto; install it");
    }
    let root = tempfile::tempdir().expect("a directory");
    let (port, file) = (free_port(), root.path().join("m.conf"));
    std::fs::write(&file, format!("listener {port} 127.0.0.1\nallow_anonymous true\n")).expect("written");
    let _broker = broker(&file);
    let seen = listener_named(port, "other");
    let config = Config { host: "127.0.0.1".into(), port, site: "s".into(), ..Config::default() };
    let dirs = dirs(root.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let counters = Arc::new(Counters::default());
        let topics = Topics::new(&config);
        let link = Link::start(&config, &topics, &dirs, counters);
        while !link.is_up() {
            link.changed().await;
        }
        let message = Message { topic: topics.of("availability"), payload: "online".into(), retain: true };
        assert!(link.send(&message));
        while link.take_acknowledged() == 0 {
            link.changed().await;
        }
    });
    // Nothing is said any more: the connection ends as that of a killed program does.
    drop(runtime);
    until("the last will is told", || saw(&seen, "multus/s/availability", "offline"));
}

#[test]
fn a_broker_that_is_away_costs_the_oldest_messages_only() {
    let root = tempfile::tempdir().expect("a directory");
    let running =
        run(root.path(), Config { enabled: true, host: "127.0.0.1".into(), port: free_port(), ..Config::default() });
    until("it tries", || (running.traffic().failures > 0).then_some(()));
    let total = QUEUE as u64 + 300;
    (0..total).for_each(|seq| running.happens(seq));
    until("the oldest are lost", || (running.traffic().lost >= 300).then_some(()));
    let traffic = running.traffic();
    assert!(traffic.queued <= QUEUE as u64 && traffic.lost < 400, "{traffic:?}");
    running.stopper.stop();
    running.thread.join().expect("no panic");
}
