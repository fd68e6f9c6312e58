//! What the port takes that is no good sender: garbage, half of something, silence, floods, clients that never read, and
//! conversations that do not keep to the service.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use multus_proto::v1::mirror_request::Content;
use multus_proto::v1::mirror_response::Content as Answer;
use multus_proto::v1::{MirrorAck, MirrorHello, MirrorLine, MirrorRequest, MirrorResponse, MirrorState, MirrorWelcome};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::world::{Device, PATIENCE, Plan, block_on, client, free_port, here, receiver, sender};

/// The beginning of each connection of HTTP/2 (RFC 9113, section 3.4), and an empty frame of settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A sender made by hand.
struct Sender {
    out: mpsc::Sender<MirrorRequest>,
    answers: Streaming<MirrorResponse>,
}

impl Sender {
    async fn connect(port: u16) -> Result<Self, Status> {
        let end = Instant::now() + PATIENCE;
        let mut client = loop {
            match client(port).await {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
        };
        let (out, requests) = mpsc::channel(4);
        let answers = client.mirror(ReceiverStream::new(requests)).await?.into_inner();
        Ok(Self { out, answers })
    }

    async fn say(&self, content: Content) {
        let _ = self.out.send(MirrorRequest { content: Some(content) }).await;
    }

    async fn next(&mut self) -> Result<Answer, Status> {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("an answer");
        answer?.and_then(|answer| answer.content).ok_or_else(|| Status::ok("the end"))
    }

    async fn hello(port: u16, name: &str, session: u64) -> Result<(Self, MirrorWelcome), Status> {
        let mut sender = Self::connect(port).await?;
        sender.say(Content::Hello(MirrorHello { name: name.into(), session })).await;
        match sender.next().await? {
            Answer::Welcome(welcome) => Ok((sender, welcome)),
            other => panic!("{other:?}"),
        }
    }

    /// The answer to a state.
    async fn state(&mut self, epoch: u64, sequence: u64, lines: &[(&str, Option<bool>)]) -> Result<MirrorAck, Status> {
        let lines = lines.iter().map(|(output, on)| MirrorLine { output: (*output).into(), on: *on }).collect();
        self.say(Content::State(MirrorState { epoch, sequence, lines })).await;
        match self.next().await? {
            Answer::Ack(ack) => Ok(ack),
            other => panic!("{other:?}"),
        }
    }
}

fn known(more: &str) -> (Device, u16) {
    let port = free_port();
    (Device::new(Plan::new(receiver(port, "pump", more))), port)
}

/// A good sender gets through now.
fn is_served(device: &Device, port: u16) {
    block_on(async {
        let (mut sender, welcome) = Sender::hello(port, "pump", 1).await.expect("it is welcome");
        for (sequence, on) in [(1, true), (2, false)] {
            sender.state(welcome.epoch, sequence, &[("DO1", Some(on))]).await.expect("acknowledged");
            device.until_output(1, on);
        }
    });
}

#[test]
fn an_acknowledgement_tells_what_every_output_has() {
    let (device, port) = known("timeout = \"7s\"");
    block_on(async {
        let (mut sender, welcome) = Sender::hello(port, "pump", 1).await.expect("it is welcome");
        assert_eq!((welcome.epoch, welcome.timeout_ms, welcome.outputs.len()), (1, 7000, 8));
        let lines = [("DO1", Some(true)), ("DO2", Some(false)), ("DO3", None), ("DO9", Some(true)), ("AI1", None)];
        let mut ack = sender.state(1, 5, &lines).await.expect("acknowledged");
        // A busy machine may take longer than a state waits for its outputs; the next one tells.
        for sequence in 6.. {
            if ack.results.iter().all(|result| result.outcome != "pending") {
                break;
            }
            ack = sender.state(1, sequence, &lines).await.expect("acknowledged");
        }
        assert!(ack.sequence >= 5);
        let results: Vec<(&str, &str, Option<bool>)> =
            ack.results.iter().map(|result| (result.output.as_str(), result.outcome.as_str(), result.on)).collect();
        let off = Some(false);
        let expected = [
            ("DO1", "applied", Some(true)),
            ("DO2", "applied", off),
            ("DO3", "safe", off),
            ("DO4", "safe", off),
            ("DO5", "safe", off),
            ("DO6", "safe", off),
            ("DO7", "safe", off),
            ("DO8", "safe", off),
            ("DO9", "refused", None),
            ("AI1", "refused", None),
        ];
        assert_eq!(results, expected);
        assert_eq!(device.output(1), Some(true), "an acknowledged value is at the board");
    });
    device.until_log("sender pump may not set: DO9, AI1; name them in its outputs, or take them from its lines");
}

#[test]
fn a_conversation_that_does_not_keep_to_the_service_is_ended() {
    let (device, port) = known("");
    block_on(async {
        let state = |epoch, sequence, lines: &[&str]| {
            let lines = lines.iter().map(|output| MirrorLine { output: (*output).into(), on: Some(true) }).collect();
            Content::State(MirrorState { epoch, sequence, lines })
        };
        let hello = || Content::Hello(MirrorHello { name: "pump".into(), session: 1 });
        let mut first = Sender::connect(port).await.expect("connected");
        first.say(state(1, 1, &["DO1"])).await;
        assert_eq!(first.next().await.expect_err("no hello").code(), Code::InvalidArgument);
        let many: Vec<String> = (0..257).map(|n| format!("X{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let long = "x".repeat(33);
        for wrong in [
            hello(),
            state(0, 1, &["DO1"]),
            state(u64::MAX, 1, &["DO1"]),
            state(1, 0, &["DO1"]),
            state(1, 1, &["DO1", "DO2", "DO1"]),
            state(1, 1, &[""]),
            state(1, 1, &[&long]),
            state(1, 1, &many),
        ] {
            let (mut sender, welcome) = Sender::hello(port, "pump", 1).await.expect("it is welcome");
            let wrong = match wrong {
                Content::State(state) if state.epoch == 1 => {
                    Content::State(MirrorState { epoch: welcome.epoch, ..state })
                }
                other => other,
            };
            sender.say(wrong.clone()).await;
            let status = sender.next().await.expect_err("refused");
            assert_eq!(status.code(), Code::InvalidArgument, "{wrong:?}: {status}");
        }
        let mut huge = Sender::hello(port, "pump", 1).await.expect("it is welcome").0;
        huge.say(state(1, 1, &["x".repeat(100_000).as_str()])).await;
        assert_eq!(huge.next().await.expect_err("too large").code(), Code::OutOfRange);
        let stranger = Sender::hello(port, &"n".repeat(10_000), 1).await.map(|_| ()).expect_err("unknown");
        assert_eq!(stranger.code(), Code::Unauthenticated);
        assert_ne!(device.output(1), Some(true), "nothing of it was applied");
    });
    is_served(&device, port);
}

#[test]
fn a_later_connection_takes_the_place_of_an_earlier_one() {
    let (device, port) = known("");
    block_on(async {
        let (mut old, first) = Sender::hello(port, "pump", 1).await.expect("it is welcome");
        old.state(first.epoch, 10, &[("DO1", Some(true))]).await.expect("acknowledged");
        let (mut new, second) = Sender::hello(port, "pump", 1).await.expect("the same process");
        assert!(second.epoch > first.epoch);
        new.state(second.epoch, 11, &[("DO1", Some(false)), ("DO2", Some(true))]).await.expect("acknowledged");
        old.say(Content::State(MirrorState {
            epoch: first.epoch,
            sequence: 12,
            lines: vec![MirrorLine { output: "DO1".into(), on: Some(true) }],
        }))
        .await;
        assert_eq!(old.next().await.expect_err("its time is over").code(), Code::Aborted);
        assert!(device.output(1) == Some(false) && device.output(2) == Some(true));
        // Numbers run backwards.
        let status = new.state(second.epoch, 11, &[("DO1", Some(true))]).await.expect_err("not newer");
        assert_eq!((status.code(), device.output(1)), (Code::Aborted, Some(false)));
    });
    assert_eq!(device.peers(port)[0].lost, 1, "one came too late, the other over a connection that was gone");
}

#[test]
fn garbage_and_half_of_something_harm_nobody() {
    let (device, port) = known("");
    let (own, mut random) = (free_port(), 7u64);
    let from = Device::new(Plan::new(sender("pump", own, "multus", &[here(port)])));
    let mut noise = vec![0; 4096];
    for byte in &mut noise {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (random >> 33) as u8;
    }
    let mut half = PREFACE.to_vec();
    half.extend([0, 0xff, 0xff, 1, 4, 0, 0, 0, 1, 0x82]);
    let oversized = [PREFACE, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat();
    let of_nobody = [PREFACE, &[0, 0, 4, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4]].concat();
    let tls = [22, 3, 1, 0xff, 0xff, 1];
    let after_preface = [PREFACE, &noise].concat();
    for bytes in [
        &noise[..],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &PREFACE[..9],
        PREFACE,
        &half,
        &oversized,
        &of_nobody,
        &tls,
        &after_preface,
        &[],
    ] {
        for _ in 0..3 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            // It may have hung up already.
            let _ = stream.write_all(bytes);
        }
    }
    // Those stay.
    let silent: Vec<TcpStream> =
        (0..20).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("it listens")).collect();
    for is_on in [true, false, true] {
        from.pull(4, is_on);
        device.until_output(4, is_on);
    }
    drop(silent);
    assert_eq!(device.child("read-dido").restarts, 0);
}

#[test]
fn more_connections_than_there_may_be_are_closed_at_once() {
    let port = free_port();
    let parameters = receiver(port, "pump", "").replace("[[receiver", "[receiver]\nmax_connections = 3\n[[receiver");
    let device = Device::new(Plan::new(parameters));
    let mut open: Vec<TcpStream> = Vec::new();
    let is_closed = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_))
    };
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.write_all(PREFACE).expect("taken");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        assert!(stream.read(&mut [0; 64]).expect("settings") > 0);
        open.push(stream);
    }
    for _ in 0..100 {
        assert!(is_closed(&mut TcpStream::connect(("127.0.0.1", port)).expect("it listens")));
    }
    device.until_log("as many as receiver.max_connections are open");
    assert!(device.log().matches("is refused").count() <= 3, "told now and then:\n{}", device.log());
    open.clear();
    device.until("there is room again", |_| block_on(async { Sender::hello(port, "pump", 1).await.is_ok() }));
    is_served(&device, port);
}

/// Answers to pings, and settings, of HTTP/2: what keeps a connection alive and does nothing.
const PONG: &[u8] = &[0, 0, 8, 6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn who_only_keeps_connections_alive_loses_them_and_holds_up_nobody() {
    let port = free_port();
    let parameters = receiver(port, "pump", "").replace("[[receiver", "[receiver]\nmax_connections = 3\n[[receiver");
    let device = Device::new(Plan::new(parameters));
    let begun = Instant::now();
    let mut idle: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            stream.write_all(PREFACE).expect("taken");
            stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
            stream
        })
        .collect();
    while !idle.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{} stay", idle.len());
        idle.retain_mut(|stream| match stream.write_all(PONG).and_then(|()| stream.read(&mut [0; 256])) {
            Ok(count) => count > 0,
            Err(error) => matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        });
    }
    assert!(begun.elapsed() >= Duration::from_secs(5), "after {:?}", begun.elapsed());
    is_served(&device, port);
}

#[test]
fn an_address_has_its_share_of_the_connections() {
    let port = free_port();
    let keys = "[receiver]\nmax_connections = 3\nmax_per_address = 2\n[[receiver";
    let parameters = receiver(port, "pump", "addresses = [\"127.0.0.0/8\"]").replace("[[receiver", keys);
    let device = Device::new(Plan::new(parameters));
    let mut greedy: Vec<TcpStream> =
        (0..2).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("it listens")).collect();
    let mut third = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    third.set_read_timeout(Some(PATIENCE)).expect("a socket");
    assert!(matches!(third.read(&mut [0; 64]), Ok(0) | Err(_)), "it is closed");
    device.until_log("its address has its share of the connections already");
    for stream in &mut greedy {
        stream.write_all(PREFACE).expect("open");
    }
    // All of 127.0.0.0/8 is this machine, so another one of it can be the source.
    block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 2], 0).into()).expect("a local address");
        let stream = socket.connect(([127, 0, 0, 1], port).into()).await.expect("a connection");
        let mut stream = stream.into_std().expect("a socket");
        stream.set_nonblocking(false).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.write_all(PREFACE).expect("taken");
        assert!(stream.read(&mut [0; 64]).expect("settings") > 0, "there is a place for another");
    });
}

#[test]
fn a_client_that_never_reads_costs_nothing() {
    let (device, port) = known("");
    let pid = device.child("read-dido").pid.expect("it runs");
    let memory_kb = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).expect("a number")
    };
    block_on(async {
        let (sender, welcome) = Sender::hello(port, "pump", 1).await.expect("it is welcome");
        let before = memory_kb();
        let lines: Vec<MirrorLine> =
            (0..250).map(|n| MirrorLine { output: format!("UNKNOWN-LINE-{n}"), on: Some(true) }).collect();
        // Acknowledgements of about 8 KiB each, of which none is read.
        let begun = Instant::now();
        for sequence in 1..=5000 {
            let state = MirrorState { epoch: welcome.epoch, sequence, lines: lines.clone() };
            let sent = tokio::time::timeout(Duration::from_millis(200), sender.say(Content::State(state))).await;
            if sent.is_err() || begun.elapsed() > Duration::from_secs(10) {
                break;
            }
        }
        let grown = memory_kb().saturating_sub(before);
        assert!(grown < 8 * 1024, "{grown} KiB more");
        drop(sender);
    });
    is_served(&device, port);
    assert_eq!(device.child("read-dido").restarts, 0);
}
