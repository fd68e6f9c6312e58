//! Children, events, logs, faults, the daemon.

use std::fs;
use std::time::Duration;

use multus_contract::api::command::Request;
use multus_proto::v1::children_service_client::ChildrenServiceClient;
use multus_proto::v1::daemon_service_client::DaemonServiceClient;
use multus_proto::v1::events_service_client::EventsServiceClient;
use multus_proto::v1::faults_service_client::FaultsServiceClient;
use multus_proto::v1::logs_service_client::LogsServiceClient;
use multus_proto::v1::watch_events_response::What;
use multus_proto::v1::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::Code;

use super::world::{PATIENCE, World};
use super::{ANY_PORT, IDLE, local, started, until};

#[tokio::test]
async fn children_are_ordered_about_and_events_tell_of_it() {
    let mut world = World::new();
    world.control(ANY_PORT);
    world.child("idle", IDLE);
    started(&mut world);
    let channel = local(&world).await;
    let mut children = ChildrenServiceClient::new(channel.clone());
    let mut events = EventsServiceClient::new(channel);
    let mut stream = events.watch(WatchEventsRequest { since: Some(0) }).await.expect("followed").into_inner();

    let before = world.wait_state("idle", "running");
    children.restart(RestartRequest { name: "idle".into() }).await.expect("done");
    world.wait("another process", || {
        let now = world.of("idle");
        (now.state == "running" && now.pid != before.pid).then_some(())
    });
    children.snooze(SnoozeRequest { name: "idle".into(), seconds: 600 }).await.expect("done");
    assert!(world.of("idle").snoozed_until.is_some());
    let long = children.snooze(SnoozeRequest { name: "idle".into(), seconds: 1_000_000 }).await.expect_err("too long");
    assert_eq!(long.code(), Code::InvalidArgument);

    // Numbers without a gap, from the first event on, until that of the second process.
    let (mut next, mut ready) = (0, 0);
    while ready < 2 {
        let message = tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time").expect("no error");
        let Some(What::Event(event)) = message.expect("it goes on").what else { panic!("nothing is lost") };
        assert_eq!(event.seq, next);
        assert!(event.time.is_some() && event.mono_ns > 0);
        next += 1;
        ready += u32::from(event.child == "idle" && event.kind == "ready");
    }
    let query = ListEventsRequest { since: Some(1), child: "idle".into(), limit: 2 };
    let some = events.list(query).await.expect("done").into_inner().events;
    assert!(some.len() == 2 && some.iter().all(|event| event.child == "idle" && event.seq >= 1));
}

#[tokio::test]
async fn instances_are_changed_in_the_file_and_comments_survive() {
    let mut world = World::new();
    world.control(ANY_PORT);
    world.child("idle", &format!("# mine\ninstances = 1 # for now\n{IDLE}"));
    started(&mut world);
    let mut children = ChildrenServiceClient::new(local(&world).await);
    let set = |instances| SetInstancesRequest { name: "idle".into(), instances };
    let report = children.set_instances(set(3)).await.expect("done").into_inner().report.expect("told");
    assert!(report.broken.is_empty() && report.diagnostics.is_empty(), "{report:?}");
    for name in ["idle_0", "idle_1", "idle_2"] {
        world.wait_state(name, "running");
    }
    let file = fs::read_to_string(world.dirs().child_file("idle")).expect("readable");
    assert!(file.starts_with("# mine\ninstances = 3 # for now\n"), "{file}");
    let all = children.get(GetChildRequest { name: "idle".into() }).await.expect("done").into_inner().children;
    assert_eq!(all.iter().map(|child| child.instance).collect::<Vec<_>>(), [0, 1, 2]);
    for (request, code) in [
        (set(0), Code::InvalidArgument),
        (set(300), Code::InvalidArgument),
        (set(70_000), Code::InvalidArgument),
        (SetInstancesRequest { name: "none".into(), instances: 2 }, Code::NotFound),
        (SetInstancesRequest { name: "../x".into(), instances: 2 }, Code::InvalidArgument),
    ] {
        assert_eq!(children.set_instances(request.clone()).await.expect_err("refused").code(), code, "{request:?}");
    }
    assert_eq!(fs::read_to_string(world.dirs().child_file("idle")).expect("readable"), file);
}

#[tokio::test]
async fn logs_are_shown_followed_and_searched() {
    let mut world = World::new();
    world.control(ANY_PORT);
    let script = "i=0; while :; do i=$((i+1)); echo Line $i; sleep 0.05; done";
    world.child("talk", &format!("command = [\"/bin/sh\", \"-c\", {script:?}]\n[heartbeat]\nmethod = \"none\"\n"));
    started(&mut world);
    world.wait_log("talk", "Line 5");
    let mut logs = LogsServiceClient::new(local(&world).await);
    let mut tail = logs
        .tail(TailRequest { name: "talk".into(), lines: Some(2), follow: true })
        .await
        .expect("followed")
        .into_inner();
    let mut numbers: Vec<u32> = Vec::new();
    while numbers.len() < 12 {
        let message = tokio::time::timeout(PATIENCE, tail.message()).await.expect("in time").expect("no error");
        let lines = message.expect("it goes on").lines;
        numbers.extend(lines.iter().filter_map(|line| line.rsplit_once("Line ")?.1.parse::<u32>().ok()));
    }
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");

    let found = logs
        .search(SearchRequest { name: "talk".into(), words: "line 3".into(), limit: 1 })
        .await
        .expect("searched")
        .into_inner()
        .found;
    assert!(found.len() == 1 && found[0].text.contains("Line 3"), "{found:?}");
    let names = logs.list(ListLogsRequest {}).await.expect("listed").into_inner().logs;
    assert!(["control", "multusd", "talk"].iter().all(|name| names.iter().any(|log| log.name == *name)));
    let missing = logs.tail(TailRequest { name: "none".into(), ..Default::default() }).await.expect_err("no such log");
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test]
async fn the_report_of_a_fault_can_be_read() {
    let mut world = World::new();
    world.control(ANY_PORT);
    started(&mut world);
    let (id, text) = ("1785938587212345", "pump process 7\nlooks like: Waiting\n");
    let dir = world.dirs().state.join("faults/pump");
    fs::create_dir_all(&dir).expect("own directory");
    fs::write(dir.join(format!("{id}.txt")), text).expect("own file");
    fs::write(dir.join("1000000.txt"), "older").expect("own file");
    fs::write(dir.join("junk.txt"), "no time").expect("own file");
    let mut faults = FaultsServiceClient::new(local(&world).await);
    let list = faults.list(ListFaultsRequest::default()).await.expect("listed").into_inner().reports;
    assert_eq!(list.iter().map(|report| report.id.as_str()).collect::<Vec<_>>(), [id, "1000000"]);
    assert_eq!(list[1].time.map(|time| time.seconds), Some(1));
    let latest = faults.get(GetFaultRequest { child: "pump".into(), id: String::new() }).await.expect("read");
    assert_eq!(latest.into_inner().text, text);
    for (child, id, code) in [
        ("pump", "2", Code::NotFound),
        ("pump", "../../x", Code::NotFound),
        ("lamp", "", Code::NotFound),
        ("../pump", "", Code::InvalidArgument),
    ] {
        let request = GetFaultRequest { child: child.into(), id: id.into() };
        assert_eq!(faults.get(request).await.expect_err("refused").code(), code, "{child} {id}");
    }
}

#[tokio::test]
async fn a_control_that_stands_still_is_found_and_comes_back() {
    let mut world = World::new();
    world.control(ANY_PORT);
    let file = world.dirs().child_file("control");
    let text = fs::read_to_string(&file).expect("readable").replace("deadline = \"5s\"", "deadline = \"1s\"");
    fs::write(&file, text).expect("own file");
    started(&mut world);
    let before = world.of("control");
    assert!(before.last_beat_age_us.is_some() && before.method == "shared-memory");
    let pid = Pid::from_raw(before.pid.expect("it runs").cast_signed());
    kill(pid, Signal::SIGSTOP).expect("own process");
    let after = world.wait("another process", || {
        let now = world.of("control");
        (now.state == "running" && now.pid != before.pid).then_some(now)
    });
    assert_eq!(after.last_fault.map(|fault| fault.kind).as_deref(), Some("hang"));
    world.wait("it answers again", || {
        let socket = world.dirs().runtime.join("grpc.sock");
        std::os::unix::net::UnixStream::connect(socket).ok()
    });
    let mut children = ChildrenServiceClient::new(local(&world).await);
    assert_eq!(children.list(ListChildrenRequest {}).await.expect("it works again").into_inner().children.len(), 1);
}

#[tokio::test]
async fn the_machine_is_started_anew_when_it_is_asked_for_and_not_called_off() {
    let mut world = World::new();
    world.control(ANY_PORT);
    world.child("idle", IDLE);
    fs::write(world.dirs().config.join("multusd.toml"), world.reboot()).expect("own file");
    started(&mut world);
    let channel = local(&world).await;
    let (mut daemon, mut events) =
        (DaemonServiceClient::new(channel.clone()), EventsServiceClient::new(channel.clone()));
    let none = daemon.cancel_reboot(CancelRebootRequest {}).await.expect_err("none is scheduled");
    assert_eq!(none.code(), Code::FailedPrecondition, "{none}");
    daemon.reboot(RebootRequest { seconds: 300 }).await.expect("an administrator may");
    daemon.cancel_reboot(CancelRebootRequest {}).await.expect("there is time left");
    let seen = until("both are told", async || {
        let all = events.list(ListEventsRequest::default()).await.expect("told").into_inner().events;
        let kinds = all.into_iter().map(|event| event.kind).filter(|kind| kind.starts_with("reboot"));
        Some(kinds.collect::<Vec<_>>()).filter(|seen| seen.len() >= 2)
    });
    let seen = seen.await;
    assert_eq!(seen, ["reboot-scheduled", "reboot-cancelled"]);
    assert!(!world.was_rebooted());
    daemon.reboot(RebootRequest { seconds: 0 }).await.expect("at once");
    assert!(world.wait_end().success() && world.was_rebooted());
}

#[tokio::test]
async fn the_status_is_streamed_and_an_order_can_be_refused() {
    let mut world = World::new();
    world.control(ANY_PORT);
    world.child("idle", IDLE);
    started(&mut world);
    let channel = local(&world).await;
    let mut children = ChildrenServiceClient::new(channel.clone());
    let watch = WatchStatusRequest { name: "idle".into(), interval_ms: 200 };
    let mut stream = children.watch_status(watch).await.expect("followed").into_inner();
    let mut seen = Vec::new();
    world.tell(&Request::Stop { name: "idle".into() });
    while seen.last().map(String::as_str) != Some("stopped") {
        let message = tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time").expect("no error");
        let all = message.expect("it goes on").children;
        assert_eq!(all.len(), 1);
        seen.push(all[0].state.clone());
    }
    let fast = WatchStatusRequest { interval_ms: 1, ..Default::default() };
    assert_eq!(children.watch_status(fast).await.expect_err("too fast").code(), Code::InvalidArgument);
    let silent = children.advise(AdviseRequest { name: "idle".into() }).await.expect_err("it does not beat");
    assert_eq!(silent.code(), Code::FailedPrecondition, "{}", silent.message());

    let mut daemon = DaemonServiceClient::new(channel);
    daemon.reboot(RebootRequest { seconds: 90_000 }).await.expect_err("too far ahead");
    world.child("new", IDLE);
    let report = daemon.reload(ReloadRequest {}).await.expect("done").into_inner().report.expect("told");
    assert_eq!(report.added, ["new"]);
    tokio::time::timeout(Duration::from_secs(20), async {
        while children.get(GetChildRequest { name: "new".into() }).await.is_err() {
            tokio::time::sleep(super::world::PAUSE).await;
        }
    })
    .await
    .expect("the new child is seen");
}
