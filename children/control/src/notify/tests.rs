//! Against real programs and servers: what arrives, what is held back, and what is given up.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Mutex;

use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto};

use super::*;
use crate::service::Settings;
use crate::testing::{Authority, FakeDaemon, dirs, until};

fn fault(seq: u64, child: &str, kind: &str) -> Event {
    Event {
        seq,
        time: format_rfc3339(unix_ns()),
        mono_ns: MonoNs::now().0,
        child: Some(child.into()),
        kind: "fault".into(),
        fault: Some(kind.into()),
        detail: format!("it failed, number {seq}"),
        ..Event::default()
    }
}

/// A running part with these targets.
struct Running {
    daemon: FakeDaemon,
    service: Service,
    stopper: Option<crate::run::StopSender>,
    thread: Option<std::thread::JoinHandle<()>>,
    root: tempfile::TempDir,
}

impl Running {
    fn start(targets: &[(&str, Target)]) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let dirs = dirs(root.path());
        let daemon = FakeDaemon::start(&dirs.control_socket(), 7, Vec::new());
        daemon.0.lock().expect("whole").status.daemon.site = Some("plant".into());
        let mut running =
            Self { daemon, service: Service::new(dirs, Settings::default()), stopper: None, thread: None, root };
        running.run(targets);
        running
    }

    fn run(&mut self, targets: &[(&str, Target)]) {
        self.service = Service::new(self.service.dirs().clone(), Settings::default());
        let config = Config { targets: targets.iter().map(|(name, t)| ((*name).to_owned(), t.clone())).collect() };
        config.check().expect("a good configuration");
        self.service.start(None, None).expect("threads");
        let (stopper, stop) = crate::run::stop();
        let service = self.service.clone();
        self.stopper = Some(stopper);
        self.thread = Some(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(config, service, stop)).expect("a good end");
        }));
        let caller = Caller::new("somebody", Caller::USER);
        until("it runs", || (!self.service.notify_targets(&caller).ok()?.is_empty()).then_some(()));
    }

    fn end(&mut self) {
        drop(self.stopper.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }

    fn test(&self, target: &str) -> Result<String> {
        self.service.notify_test(&Caller::new("admin", Caller::ADMIN), target)
    }

    fn traffic(&self) -> Traffic {
        self.service.notify_traffic().expect("it runs")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stopper.take());
    }
}

/// An HTTP server that keeps what it gets, and says these codes in turn, the last for ever.
fn http_server(codes: &'static [u16]) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let got = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&got);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            answer_http(stream, codes[number.min(codes.len() - 1)], &kept);
        }
    });
    (port, got)
}

fn answer_http(mut stream: impl std::io::Read + std::io::Write, code: u16, kept: &Mutex<Vec<String>>) {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        text.push(byte[0]);
    }
    if text.is_empty() {
        return;
    }
    let head = String::from_utf8_lossy(&text).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    if stream.read_exact(&mut body).is_err() {
        return;
    }
    kept.lock().expect("whole").push(head + &String::from_utf8_lossy(&body));
    let _ = stream.write_all(format!("HTTP/1.1 {code} x\r\ncontent-length: 0\r\n\r\n").as_bytes());
}

fn body_of(request: &str) -> serde_json::Value {
    serde_json::from_str(request.split_once("\r\n\r\n").expect("a head").1).expect("JSON")
}

fn to_url(port: u16) -> Target {
    Target { url: format!("http://127.0.0.1:{port}/hook?x=1"), ..Target::default() }
}

/// A certificate for "localhost": the file of its authority, and what a server needs.
fn certificate(dir: &Path) -> (PathBuf, Arc<ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let file = dir.join("ca.pem");
    std::fs::write(&file, made.cert.pem()).expect("written");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(made.cert.der().to_vec())], key)
        .expect("it fits");
    (file, Arc::new(config))
}

#[test]
fn a_post_brings_the_event_and_is_repeated_until_it_arrives() {
    let (port, got) = http_server(&[500, 204]);
    let chosen = Target {
        children: vec!["pu*".into()],
        faults: vec!["hang".into()],
        authorization: Secret::from("Bearer hush"),
        ..to_url(port)
    };
    let mut running = Running::start(&[("hook", chosen.clone())]);
    running.daemon.happens(fault(0, "io", "hang"));
    running.daemon.happens(fault(1, "pump", "crash"));
    running.daemon.happens(Event { kind: "ready".into(), ..fault(2, "pump", "hang") });
    running.daemon.happens(fault(3, "pump", "hang"));
    until("it arrived at the second try", || (running.traffic().sent == 1).then_some(()));
    let requests = got.lock().expect("whole").clone();
    assert_eq!(requests.len(), 2);
    assert!(
        requests[1].starts_with("POST /hook?x=1 HTTP/1.1\r\n")
            && requests[1].contains("authorization: Bearer hush\r\n")
    );
    let body = body_of(&requests[1]);
    assert_eq!((body["event"]["seq"].as_u64(), body["site"].as_str()), (Some(3), Some("plant")));
    assert_eq!(running.traffic(), Traffic { up: true, sent: 1, lost: 0, failures: 1, queued: 0 });
    assert!(!format!("{chosen:?}").contains("hush"));

    // What happened while the program was down is told by the next, and nothing twice.
    running.end();
    running.daemon.happens(fault(4, "pump", "hang"));
    running.run(&[("hook", chosen)]);
    until("the other arrived", || (got.lock().expect("whole").len() == 3).then_some(()));
    assert_eq!(body_of(&got.lock().expect("whole")[2])["event"]["seq"].as_u64(), Some(4));
    assert!(running.test("hook").is_ok());
    assert_eq!(
        body_of(&got.lock().expect("whole")[3])["event"]["kind"].as_str(),
        Some("test"),
        "and nothing in between"
    );
    assert_eq!(running.test("nobody").expect_err("unknown").kind(), "not-found");
    running.end();
}

#[test]
fn what_waits_when_the_program_ends_is_told_by_the_next_one_and_only_to_whom_it_was_not_told() {
    let (good_port, good) = http_server(&[200]);
    let ((failing_port, _), (back_port, back)) = (http_server(&[500]), http_server(&[200]));
    let targets = |port| [("good", to_url(good_port)), ("bad", to_url(port))];
    let mut running = Running::start(&targets(failing_port));
    (0..3).for_each(|seq| running.daemon.happens(fault(seq, "pump", "crash")));
    until("one of both has all", || (running.traffic().sent == 3 && running.traffic().failures > 0).then_some(()));
    running.end();
    running.run(&targets(back_port));
    until("the other has all", || (running.traffic().sent == 3).then_some(()));
    let seqs = |got: &Mutex<Vec<String>>| {
        let got = got.lock().expect("whole");
        got.iter().map(|request| body_of(request)["event"]["seq"].as_u64()).collect::<Vec<_>>()
    };
    assert_eq!(seqs(&back), [Some(0), Some(1), Some(2)]);
    running.test("good").expect("it answers");
    assert_eq!(seqs(&good)[..3], [Some(0), Some(1), Some(2)]);
    assert_eq!(good.lock().expect("whole").len(), 4, "nothing twice");
    running.end();
}

#[test]
fn events_that_are_missed_are_counted_as_lost() {
    let (port, got) = http_server(&[200]);
    let mut running = Running::start(&[("hook", to_url(port))]);
    running.daemon.happens(fault(3, "pump", "crash"));
    until("the first one arrived", || (got.lock().expect("whole").len() == 1).then_some(()));
    assert_eq!(running.traffic().lost, 0, "what was before it is old");
    running.daemon.happens(fault(8, "pump", "crash"));
    until("the next one arrived", || (got.lock().expect("whole").len() == 2).then_some(()));
    assert_eq!(running.traffic().lost, 4);
    running.end();
}

#[test]
fn a_storm_is_told_in_one_summary() {
    let (port, got) = http_server(&[200]);
    let slow = Target { burst: 2, every: Duration::from_millis(700).into(), ..to_url(port) };
    let paused = Target { min_interval: Duration::from_secs(3600).into(), ..to_url(port) };
    let mut running = Running::start(&[("slow", slow)]);
    (0..20).for_each(|seq| running.daemon.happens(fault(seq, "pump", "crash")));
    let summary = until("a summary", || {
        let got = got.lock().expect("whole");
        got.iter().map(|request| body_of(request)).find(|body| body["event"]["kind"] == "suppressed")
    });
    let before = got.lock().expect("whole").iter().filter(|r| r.contains(r#""kind":"fault""#)).count() as u64;
    let more =
        summary["event"]["detail"].as_str().and_then(|d| d.split(' ').next()?.parse::<u64>().ok()).expect("a number");
    assert!(before + more == 20 && before <= 4, "{before} and {more}");
    running.end();
    got.lock().expect("whole").clear();
    running.run(&[("paused", paused)]);
    for (seq, child) in [(30, "pump"), (31, "pump"), (32, "io"), (33, "pump")] {
        running.daemon.happens(fault(seq, child, "crash"));
    }
    running.daemon.happens(fault(34, "last", "crash"));
    let seqs = until("one of each", || {
        let got = got.lock().expect("whole");
        let seqs: Vec<u64> = got.iter().filter_map(|request| body_of(request)["event"]["seq"].as_u64()).collect();
        seqs.contains(&34).then_some(seqs)
    });
    assert_eq!(seqs, [30, 32, 34]);
    running.end();
}

#[test]
fn a_target_that_does_not_answer_holds_up_no_other() {
    let (port, got) = http_server(&[200]);
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let dead = Target {
        url: format!("http://{}/", silent.local_addr().expect("its address")),
        timeout: Duration::from_millis(200).into(),
        retries: 0,
        burst: 1000,
        ..Target::default()
    };
    let mut running = Running::start(&[("dead", dead), ("live", Target { burst: 1000, ..to_url(port) })]);
    (0..150).for_each(|seq| running.daemon.happens(fault(seq, "pump", "crash")));
    until("the other has some", || (got.lock().expect("whole").len() >= 100).then_some(()));
    until("what has no room is lost, and so is what is not taken", || (running.traffic().lost >= 2).then_some(()));
    let error = running.test("dead").expect_err("it is busy, or does not answer");
    assert!(["busy", "refused"].contains(&error.kind()), "{error}");
    running.end();
}

#[test]
fn https_is_checked() {
    let root = tempfile::tempdir().expect("a directory");
    let (ca, tls) = certificate(root.path());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let got = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&got);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&tls)).expect("a connection");
            answer_http(StreamOwned::new(connection, stream), 200, &kept);
        }
    });
    let good = Target { url: format!("https://localhost:{port}/"), ca: ca.clone(), ..Target::default() };
    let strange = Target { url: format!("https://127.0.0.1:{port}/"), ..good.clone() };
    let (other, _) = {
        let dir = root.path().join("other");
        std::fs::create_dir(&dir).expect("a directory");
        certificate(&dir)
    };
    let foreign = Target { ca: other, ..good.clone() };
    let mut running = Running::start(&[("good", good), ("strange", strange), ("foreign", foreign)]);
    assert_eq!(running.test("good").expect("it is trusted"), "good took it");
    for name in ["strange", "foreign"] {
        let error = running.test(name).expect_err("it is not who it should be");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    assert_eq!(got.lock().expect("whole").len(), 1);
    running.end();
}

#[test]
fn a_command_gets_the_event_and_is_killed_when_it_hangs() {
    let root = tempfile::tempdir().expect("a directory");
    let (out, pid) = (root.path().join("out"), root.path().join("pid"));
    let words = |script: String| ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
    let good = Target { command: words(format!("cat > {0}.new; mv {0}.new {0}", out.display())), ..Target::default() };
    let hangs = Target {
        // What it starts hangs as well, and must not remain.
        command: words(format!("sleep 1000 & echo $! > {}; wait", pid.display())),
        timeout: Duration::from_millis(500).into(),
        kinds: Vec::new(),
        ..Target::default()
    };
    let fails = Target { command: words("exit 3".into()), kinds: Vec::new(), ..Target::default() };
    let missing = Target { command: vec!["/nonexistent/x".into()], kinds: Vec::new(), ..Target::default() };
    let mut running = Running::start(&[("good", good), ("hangs", hangs), ("fails", fails), ("missing", missing)]);
    running.daemon.happens(fault(0, "pump", "crash"));
    let text = until("the event is there", || std::fs::read_to_string(&out).ok());
    let event: Event = serde_json::from_str(&text).expect("an event");
    assert_eq!((event.child.as_deref(), event.fault.as_deref()), (Some("pump"), Some("crash")));
    let error = running.test("hangs").expect_err("it hangs").to_string();
    assert!(error.contains("no answer within 500ms"), "{error}");
    let grandchild = std::fs::read_to_string(&pid).expect("it came so far").trim().to_owned();
    until("what it started is gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    assert!(running.test("fails").expect_err("it fails").to_string().contains("exit status: 3"));
    assert!(running.test("missing").expect_err("it is not there").to_string().contains("No such file"));
    assert!(running.root.path().join("state/notified").exists());
    running.end();
}

/// A server for mail that speaks as little SMTP as it gets away with: it keeps what it is told.
fn mail_server(tls: Option<Arc<ServerConfig>>) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&kept);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if speak(stream.try_clone().expect("a copy"), tls.is_some(), true, &own)
                && let Some(tls) = &tls
            {
                let connection = ServerConnection::new(Arc::clone(tls)).expect("a connection");
                speak(StreamOwned::new(connection, stream), false, false, &own);
            }
        }
    });
    (port, kept)
}

/// True: the client asks for TLS.
fn speak(stream: impl std::io::Read + std::io::Write, starttls: bool, greets: bool, kept: &Mutex<Vec<String>>) -> bool {
    let mut stream = BufReader::with_capacity(1, stream);
    if greets && !say(&mut stream, "220 here") {
        return false;
    }
    let (mut line, mut in_letter) = (String::new(), false);
    loop {
        line.clear();
        if stream.read_line(&mut line).is_ok_and(|n| n == 0) {
            return false;
        }
        let text = line.trim_end().to_owned();
        kept.lock().expect("whole").push(text.clone());
        let answer = match text.split(' ').next().unwrap_or_default() {
            "." => {
                in_letter = false;
                "250 taken"
            }
            _ if in_letter => continue,
            "EHLO" if starttls => "250-here\r\n250 STARTTLS",
            "EHLO" => "250-here\r\n250 AUTH PLAIN LOGIN",
            "STARTTLS" => {
                say(&mut stream, "220 go on");
                return true;
            }
            "AUTH" => "235 welcome",
            "DATA" => {
                in_letter = true;
                "354 go on"
            }
            "QUIT" => "221 bye",
            _ => "250 fine",
        };
        if !say(&mut stream, answer) {
            return false;
        }
    }
}

fn say(stream: &mut BufReader<impl std::io::Write>, text: &str) -> bool {
    stream.get_mut().write_all(format!("{text}\r\n").as_bytes()).is_ok()
}

fn by_mail(port: u16, security: Security) -> Target {
    let mail = Mail {
        server: "localhost".into(),
        port,
        security,
        from: "Plant <plant@example.com>".into(),
        to: vec!["a@example.com".into(), "b@example.com".into()],
        ..Mail::default()
    };
    Target { mail, ..Target::default() }
}

#[test]
fn mail_is_sent_in_the_clear_and_after_starttls() {
    let root = tempfile::tempdir().expect("a directory");
    let (ca, tls) = certificate(root.path());
    let (plain_port, plain) = mail_server(None);
    let (port, encrypted) = mail_server(Some(tls));
    let mut secure = by_mail(port, Security::Starttls);
    (secure.mail.user, secure.mail.password, secure.ca) = ("me".into(), Secret::from("hunter2"), ca);
    let untrusted = Target { ca: PathBuf::new(), ..secure.clone() };
    let refused = by_mail(plain_port, Security::Starttls);
    let targets = [
        ("plain", by_mail(plain_port, Security::None)),
        ("secure", secure),
        ("untrusted", untrusted),
        ("refused", refused),
    ];
    let mut running = Running::start(&targets);
    assert!(running.test("plain").is_ok());
    let said = plain.lock().expect("whole").clone();
    for line in [
        "MAIL FROM:<plant@example.com>",
        "RCPT TO:<a@example.com>",
        "RCPT TO:<b@example.com>",
        "Subject: [plant] multusd: test",
    ] {
        assert!(said.iter().any(|s| s == line), "{line}: {said:?}");
    }
    let tested = running.test("secure");
    assert!(tested.is_ok(), "{tested:?}");
    let said = encrypted.lock().expect("whole").clone();
    let place =
        |word: &str| said.iter().position(|line| line.starts_with(word)).unwrap_or_else(|| panic!("{word}: {said:?}"));
    assert!(place("STARTTLS") < place("AUTH") && place("AUTH") < place("MAIL"));
    for name in ["untrusted", "refused"] {
        let error = running.test(name).expect_err("not safe").to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
    assert!(!plain.lock().expect("whole").iter().any(|line| line.starts_with("AUTH")));
    running.end();
}

#[test]
fn mail_is_sent_over_tls_from_the_first_byte_to_a_server_of_the_named_authority() {
    let root = tempfile::tempdir().expect("a directory");
    let at = |name: &str| root.path().join(name);
    let own = Authority::new("own");
    own.sign(&at("server.pem"), &at("server.key"));
    let (ca, stranger) = (own.file(at("ca.pem")), Authority::new("other").file(at("other.pem")));
    let chain =
        CertificateDer::pem_file_iter(at("server.pem")).expect("PEM").collect::<std::result::Result<Vec<_>, _>>();
    let tls = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain.expect("PEM"), PrivateKeyDer::from_pem_file(at("server.key")).expect("PEM"))
        .expect("it fits");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (own, tls) = (Arc::clone(&kept), Arc::new(tls));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&tls)).expect("a connection");
            speak(StreamOwned::new(connection, stream), false, true, &own);
        }
    });
    let mut good = by_mail(port, Security::Tls);
    (good.mail.user, good.mail.password, good.ca) = ("me".into(), Secret::from("hunter2"), ca);
    let untrusted = Target { ca: stranger, ..good.clone() };
    let mut running = Running::start(&[("good", good), ("untrusted", untrusted)]);
    let error = running.test("untrusted").expect_err("another authority").to_string();
    assert!(!error.contains("hunter2"), "{error}");
    assert!(kept.lock().expect("whole").is_empty(), "nothing is said to a stranger");
    running.test("good").expect("it is trusted");
    let said = kept.lock().expect("whole").clone();
    let place =
        |word: &str| said.iter().position(|line| line.starts_with(word)).unwrap_or_else(|| panic!("{word}: {said:?}"));
    assert!(place("EHLO") < place("AUTH") && place("AUTH") < place("MAIL") && place("MAIL") < place("Subject"));
    assert!(!said.iter().any(|line| line.starts_with("STARTTLS")));
    running.end();
}

#[test]
fn a_test_does_not_wait_for_messages_that_fail_again_and_again() {
    let fails = Target { command: vec!["/nonexistent/pager".into()], retries: 100, ..Target::default() };
    let mut running = Running::start(&[("fails", fails)]);
    (0..3).for_each(|seq| running.daemon.happens(fault(seq, "pump", "crash")));
    until("it has failed", || (running.traffic().failures > 1).then_some(()));
    assert!(running.test("fails").expect_err("it is not there").to_string().contains("No such file"));
    assert_eq!(running.traffic().lost, 0, "the message is still tried");
    running.end();
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let refused = |target: Target| target.check().expect_err("it makes no sense");
    assert!(refused(Target::default()).contains("exactly one"));
    assert!(
        refused(Target { url: "http://x/".into(), command: vec!["x".into()], ..Target::default() })
            .contains("exactly one")
    );
    assert!(refused(Target { url: "ftp://u:secret@x/".into(), ..Target::default() }).contains("http"));
    assert!(refused(Target { kinds: vec!["hang".into()], ..to_url(1) }).contains("no kind of event"));
    assert!(refused(Target { burst: 0, ..to_url(1) }).contains("burst"));
    let mut open = by_mail(1, Security::None);
    open.mail.user = "me".into();
    assert!(refused(open).contains("in the clear"));
}
