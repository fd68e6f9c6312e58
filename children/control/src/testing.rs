//! What tests of several parts share.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use multus_contract::api::command::{Reply, Request};
use multus_contract::api::event::Event;
use multus_contract::api::status::{DaemonStatus, Status};
use multus_contract::api::time::format_rfc3339;
use multus_contract::dirs::Dirs;

/// Says why a test does nothing: on stderr, and in the file that the test script counts.
pub(crate) fn skip(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os("MULTUS_SKIP_LOG")
        && let Ok(mut file) = std::fs::File::options().create(true).append(true).open(path)
    {
        let _ = writeln!(file, "skipped: {test}: {reason}");
    }
}

/// Where a program is; administrators' directories count, too.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Waits until `done` gives something; a minute at most.
pub(crate) fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A TCP port that nobody uses at the moment.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// A program that ends with the test.
#[derive(Debug)]
pub(crate) struct Server(pub(crate) Child);

impl Server {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A certificate authority, and what it signs.
pub(crate) struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().expect("random numbers");
        Self(rcgen::CertifiedIssuer::self_signed(parameters, key).expect("a good request"))
    }

    /// Its certificate in a file.
    pub(crate) fn file(&self, path: PathBuf) -> PathBuf {
        std::fs::write(&path, self.0.pem()).expect("writable");
        path
    }

    /// Certificate and key in files, good for "localhost" and 127.0.0.1.
    pub(crate) fn sign(&self, certificate: &Path, key: &Path) {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let parameters = rcgen::CertificateParams::new(names).expect("names");
        let pair = rcgen::KeyPair::generate().expect("random numbers");
        let signed = parameters.signed_by(&pair, &self.0).expect("a good request");
        std::fs::write(certificate, signed.pem()).expect("writable");
        std::fs::write(key, pair.serialize_pem()).expect("writable");
    }
}

/// Directories below `root`.
pub(crate) fn dirs(root: &Path) -> Dirs {
    let dir = |name: &str| {
        let dir = root.join(name);
        std::fs::create_dir_all(&dir).expect("a directory");
        dir
    };
    Dirs { config: dir("config"), runtime: dir("run"), logs: dir("log"), state: dir("state") }
}

/// The `seq`-th event of a daemon that started at this second.
pub(crate) fn event(start_s: u64, seq: u64, kind: &str) -> Event {
    Event {
        seq,
        time: format_rfc3339((start_s * 1000 + seq) * 1_000_000),
        mono_ns: (start_s * 1000 + seq) * 1_000_000,
        child: (seq > 0).then(|| if seq.is_multiple_of(2) { "pump" } else { "io" }.to_owned()),
        instance: (seq > 0).then_some(0),
        kind: if seq == 0 { "daemon-started" } else { kind }.to_owned(),
        detail: format!("event {seq}"),
        ..Event::default()
    }
}

/// What a daemon says on its control socket.
#[derive(Debug, Default)]
pub(crate) struct Says {
    pub(crate) status: Status,
    pub(crate) events: Vec<Event>,
    /// Number of times it was replaced by another; each ends its connections.
    pub(crate) starts: u32,
}

/// Speaks on the control socket as the daemon does.
#[derive(Clone, Debug)]
pub(crate) struct FakeDaemon(pub(crate) Arc<Mutex<Says>>);

impl FakeDaemon {
    pub(crate) fn start(socket: &Path, pid: u32, events: Vec<Event>) -> Self {
        let listener = UnixListener::bind(socket).expect("a free path");
        let status = Status { daemon: DaemonStatus { pid, ..DaemonStatus::default() }, ..Status::default() };
        let says = Arc::new(Mutex::new(Says { status, events, starts: 0 }));
        let fake = Self(Arc::clone(&says));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let says = Arc::clone(&says);
                std::thread::spawn(move || answer(&stream, &says));
            }
        });
        fake
    }

    pub(crate) fn happens(&self, event: Event) {
        self.0.lock().expect("whole").events.push(event);
    }

    /// Another daemon takes its place.
    pub(crate) fn restarts(&self, pid: u32, events: Vec<Event>) {
        let mut says = self.0.lock().expect("whole");
        says.status.daemon.pid = pid;
        says.events = events;
        says.starts += 1;
    }
}

fn answer(mut stream: &UnixStream, says: &Mutex<Says>) {
    let starts = says.lock().expect("whole").starts;
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(line)) = lines.next() {
        let send = |reply: &Reply| (&*stream).write_all(reply.to_line().as_bytes());
        let sent = match serde_json::from_str(&line) {
            Ok(Request::Status { .. }) => {
                let status = serde_json::to_value(&says.lock().expect("whole").status).expect("plain data");
                send(&Reply::with(status))
            }
            Ok(Request::Events { since, follow }) => {
                let _ = send(&Reply::done());
                let mut next = since.unwrap_or(0);
                loop {
                    let (event, current) = {
                        let says = says.lock().expect("whole");
                        (says.events.iter().find(|event| event.seq >= next).cloned(), says.starts)
                    };
                    if current != starts {
                        return;
                    }
                    match event {
                        Some(event) => {
                            next = event.seq + 1;
                            let line = serde_json::to_string(&event).expect("plain data") + "\n";
                            if stream.write_all(line.as_bytes()).is_err() {
                                return;
                            }
                        }
                        None if follow => std::thread::sleep(Duration::from_millis(2)),
                        None => return,
                    }
                }
            }
            _ => send(&Reply::refused("not here")),
        };
        if sent.is_err() || says.lock().expect("whole").starts != starts {
            return;
        }
    }
}
