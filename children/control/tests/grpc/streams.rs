//! Readers that do not read: nothing waits for them, and they are told what they missed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use multus_child::Error;
use multus_contract::api::command::{Reply, Request, parse_request};
use multus_contract::api::event::Event;
use multus_contract::api::status::Status;
use multus_contract::dirs::Dirs;
use multus_control::grpc::{self, Config};
use multus_control::run;
use multus_control::service::{Service, Settings};
use multus_proto::v1::children_service_client::ChildrenServiceClient;
use multus_proto::v1::events_service_client::EventsServiceClient;
use multus_proto::v1::logs_service_client::LogsServiceClient;
use multus_proto::v1::watch_events_response::What;
use multus_proto::v1::{ListEventsRequest, TailRequest, WatchEventsRequest, WatchStatusRequest};
use tonic::Code;
use tonic::transport::Endpoint;

use super::world::{PATIENCE, PAUSE, World};
use super::{ANY_PORT, IDLE, plain, started, with_token};

/// Far more than all buffers on the way hold.
const EVENTS: u64 = 60_000;

/// Speaks as the daemon does, and has very much to tell.
fn daemon(socket: &Path, sent: Arc<AtomicU64>) {
    let listener = UnixListener::bind(socket).expect("own directory");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sent = Arc::clone(&sent);
            std::thread::spawn(move || serve(stream, &sent));
        }
    });
}

fn serve(stream: UnixStream, sent: &AtomicU64) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match parse_request(line.trim_end().as_bytes()).expect("a good request") {
            Request::Events { since, .. } => {
                stream.get_mut().write_all(Reply::done().to_line().as_bytes()).ok()?;
                for seq in since.unwrap_or(0)..EVENTS {
                    let event = Event { seq, kind: "fault".into(), detail: "x".repeat(200), ..Event::default() };
                    let line = serde_json::to_string(&event).expect("plain data");
                    writeln!(stream.get_mut(), "{line}").ok()?;
                    sent.store(seq + 1, Ordering::SeqCst);
                }
                // Quiet from now on; the connection stays.
            }
            _ => {
                let status = serde_json::to_value(Status::default()).expect("plain data");
                stream.get_mut().write_all(Reply::with(status).to_line().as_bytes()).ok()?;
            }
        }
    }
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody_and_learns_how_much_it_missed() {
    let temp = tempfile::tempdir().expect("a temporary directory can be made");
    let at = |name: &str| temp.path().join(name);
    let dirs = Dirs { config: at("etc"), runtime: at(""), logs: at("log"), state: at("state") };
    let service = Service::new(dirs.clone(), Settings::default());
    let (stopper, stop) = run::stop();
    let config = Config { listen: String::new(), ..Config::default() };
    let server = tokio::spawn(grpc::serve(config, service.clone(), stop));
    let socket = at("grpc.sock");
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).expect("a path");
    let channel = loop {
        match endpoint.connect().await {
            Ok(channel) => break channel,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let mut events = EventsServiceClient::new(channel);
    let mut slow = events.watch(WatchEventsRequest { since: Some(0) }).await.expect("followed").into_inner();

    // Only now is there something to follow. Nobody reads until the daemon has told everything.
    let sent = Arc::new(AtomicU64::new(0));
    daemon(&dirs.control_socket(), Arc::clone(&sent));
    service.start(None, None).expect("threads can be made");
    let all_told = async {
        loop {
            let query = ListEventsRequest { since: Some(EVENTS - 1), ..Default::default() };
            let last = events.list(query).await.expect("others are served meanwhile").into_inner().events;
            if last.first().is_some_and(|event| event.seq == EVENTS - 1) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_told).await.expect("the slow reader holds up nobody");
    assert_eq!(sent.load(Ordering::SeqCst), EVENTS);

    // Every event is either read or counted as lost, in order.
    let (mut next, mut lost, mut read) = (0, 0, 0);
    while next < EVENTS {
        let message = tokio::time::timeout(PATIENCE, slow.message()).await.expect("in time").expect("no error");
        match message.expect("it goes on").what.expect("something") {
            What::Event(event) => {
                assert_eq!(event.seq, next);
                next += 1;
                read += 1;
            }
            What::Lost(count) => {
                next += count;
                lost += count;
            }
        }
    }
    assert_eq!(read + lost, EVENTS);
    assert!(lost > EVENTS / 2, "memory is bounded: only {lost} of {EVENTS} were lost");

    stopper.stop();
    let ended: Result<(), Error> = tokio::time::timeout(PATIENCE, server).await.expect("in time").expect("no panic");
    ended.expect("in good order");
    // The stream of a server that ends is ended, too.
    let rest = tokio::time::timeout(Duration::from_secs(20), slow.message()).await.expect("in time");
    assert!(rest.is_err() || rest.is_ok_and(|message| message.is_none()));
}

#[tokio::test]
async fn a_stream_ends_soon_after_its_token_does() {
    let mut world = World::new();
    world.control(ANY_PORT);
    world.child("idle", IDLE);
    let (goes, stays) = (world.token("goes", 100), world.token("stays", 100));
    started(&mut world);
    // Its log begins when it is made.
    world.wait_log("idle", "spawned: ");
    let channel = plain(&world).await;
    let mut events = EventsServiceClient::new(with_token(&channel, &goes));
    let mut logs = LogsServiceClient::new(with_token(&channel, &goes));
    let mut children = ChildrenServiceClient::new(with_token(&channel, &goes));
    let mut others = EventsServiceClient::new(with_token(&channel, &stays));
    let mut watched = events.watch(WatchEventsRequest { since: None }).await.expect("good").into_inner();
    let tail = TailRequest { name: "idle".into(), lines: None, follow: true };
    let mut tailed = logs.tail(tail).await.expect("good").into_inner();
    let mut status = children.watch_status(WatchStatusRequest::default()).await.expect("good").into_inner();
    let mut other = others.watch(WatchEventsRequest { since: None }).await.expect("good").into_inner();
    assert!(status.message().await.expect("good").is_some());

    world.ctl(&["token", "remove", "goes"]);
    let removed = std::time::Instant::now();
    macro_rules! end_of {
        ($stream:ident) => {
            loop {
                match $stream.message().await {
                    Ok(message) => assert!(message.is_some(), "it ends with a reason"),
                    Err(error) => break error.code(),
                }
            }
        };
    }
    let gone = async { [end_of!(watched), end_of!(tailed), end_of!(status)] };
    let codes = tokio::time::timeout(PATIENCE, gone).await.expect("in time");
    eprintln!("streams of a removed token ended after {:?}", removed.elapsed());
    assert_eq!(codes, [Code::Unauthenticated; 3]);
    world.ctl(&["restart", "idle"]);
    assert!(tokio::time::timeout(PATIENCE, other.message()).await.expect("in time").expect("it goes on").is_some());
}
