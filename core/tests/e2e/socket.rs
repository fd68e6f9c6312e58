//! Whatever comes over the control socket: others are served, and the watch goes on.

use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use multus_contract::api::command::{Reply, Request};
use multus_ipc::map::Mapping;
use multus_ipc::status::Reader;
use multus_ipc::words::StateCode;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::world::{World, program, send, shell};

fn connect(world: &World) -> UnixStream {
    let stream = UnixStream::connect(world.dirs().control_socket()).expect("the daemon listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

fn reply(stream: &mut BufReader<UnixStream>) -> Reply {
    let mut line = String::new();
    stream.read_line(&mut line).expect("an answer");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

/// The daemon answers, finds a hang, and puts it right.
fn assert_well(world: &World) {
    let pid = world.until_state("pump", "running").pid.expect("it runs").cast_signed();
    let since = world.next_seq();
    send(pid, Signal::SIGSTOP);
    world.event_after(since, "pump", "fault");
    world.until_replaced("pump", pid);
}

fn pump() -> World {
    let world = World::with(&[("pump", program("beat").deadline("300ms").delays("[\"0s\"]"))]);
    world.until_state("pump", "running");
    world
}

#[test]
fn malformed_requests_are_answered_with_a_reason_and_the_connection_lives() {
    let world = pump();
    let mut stream = BufReader::new(connect(&world));
    let deep = format!("{{\"cmd\":\"status\",\"name\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    let nested = format!("{{\"cmd\":\"status\",\"name\":{}{}}}", "[".repeat(100), "]".repeat(100));
    for bad in [
        "",
        "{",
        "null",
        "[]",
        "hello",
        "{\"cmd\":\"fly\"}",
        "{\"cmd\":\"stop\"}",
        "{\"cmd\":\"stop\",\"name\":7}",
        "{\"cmd\":\"snooze\",\"name\":\"pump\",\"seconds\":-1}",
        "{\"cmd\":\"snooze\",\"name\":\"pump\",\"seconds\":1e400}",
        "{\"cmd\":\"stop\",\"name\":\"pump\",\"force\":true}",
        "{\"cmd\":\"events\",\"since\":\"yesterday\"}",
        "\u{0}\u{1}\u{2}",
        &deep,
        &nested,
    ] {
        writeln!(stream.get_mut(), "{bad}").unwrap();
        let answer = reply(&mut stream);
        assert!(!answer.ok && answer.error.is_some_and(|why| !why.is_empty()), "{bad:?}");
    }
    stream.get_mut().write_all(b"\xff\xfe\n").unwrap();
    assert!(!reply(&mut stream).ok);
    for good in ["{\"cmd\":\"version\"}", "{\"cmd\":\"snooze\",\"name\":\"pump\",\"seconds\":0}"] {
        writeln!(stream.get_mut(), "{good}").unwrap();
        assert!(reply(&mut stream).ok, "{good}");
    }
    // An end of time that is far beyond any clock.
    writeln!(stream.get_mut(), "{{\"cmd\":\"snooze\",\"name\":\"pump\",\"seconds\":{}}}", u64::MAX).unwrap();
    assert!(reply(&mut stream).ok);
    assert_eq!(world.ctl(&["status"]).code, Some(0));
    writeln!(stream.get_mut(), "{{\"cmd\":\"snooze\",\"name\":\"pump\",\"seconds\":0}}").unwrap();
    assert!(reply(&mut stream).ok);
    writeln!(stream.get_mut(), "{{\"cmd\":\"events\",\"since\":{},\"follow\":false}}", u64::MAX).unwrap();
    assert!(reply(&mut stream).ok);
    assert_well(&world);
}

#[test]
fn a_megabyte_without_an_end_is_refused() {
    let world = pump();
    let mut stream = connect(&world);
    // It may hang up in the middle of it.
    let _ = stream.write_all(&vec![b'x'; 1 << 20]);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    assert!(text.is_empty() || text.contains("at most"), "{text}");
    assert_well(&world);
}

#[test]
fn requests_in_pieces_and_several_in_one_are_answered_in_order() {
    let world = pump();
    let mut stream = BufReader::new(connect(&world));
    for byte in b"{\"cmd\":\"version\"}\n" {
        stream.get_mut().write_all(&[*byte]).unwrap();
    }
    assert!(reply(&mut stream).ok);
    let many = "{\"cmd\":\"version\"}\n{\"cmd\":\"stop\",\"name\":\"pump\"}\nnonsense\n{\"cmd\":\"start\",\"name\":\"pump\"}\n";
    stream.get_mut().write_all(many.as_bytes()).unwrap();
    let answers = [(); 4].map(|()| reply(&mut stream).ok);
    assert_eq!(answers, [true, true, false, true]);
    world.until_state("pump", "running");
    // One that sends half a request and goes.
    connect(&world).write_all(b"{\"cmd\":\"st").unwrap();
    assert_well(&world);
}

#[test]
fn a_hundred_silent_connections_hold_up_nobody_for_long() {
    let world = pump();
    let silent: Vec<UnixStream> = (0..100).map(|_| connect(&world)).collect();
    // The watch does not care; whoever had a connection keeps it.
    let pid = world.pid_of("pump");
    send(pid, Signal::SIGSTOP);
    world.until_replaced("pump", pid);
    // One that comes now is told why not.
    let mut late = BufReader::new(connect(&world));
    let refused = reply(&mut late);
    assert!(!refused.ok && refused.error.is_some_and(|why| why.contains("connections are open")));
    drop(silent);
    world.until("there is room again", |world| world.ctl(&["status"]).code == Some(0));
    assert_well(&world);
}

#[test]
fn a_client_that_never_reads_is_left_behind() {
    let world = World::with(&[
        ("pump", program("beat").deadline("300ms").delays("[\"0s\"]")),
        ("noise", shell("exit 1").delays("[\"1ms\"]")),
    ]);
    world.until_state("pump", "running");
    let deaf: Vec<UnixStream> = (0..4)
        .map(|_| {
            let mut stream = connect(&world);
            writeln!(stream, "{}", serde_json::to_string(&Request::Events { since: Some(0), follow: true }).unwrap())
                .unwrap();
            stream
        })
        .collect();
    let mut greedy = connect(&world);
    greedy.set_nonblocking(true).unwrap();
    // Asks and asks, and reads nothing, until the daemon takes no more or hangs up.
    let question = "{\"cmd\":\"status\"}\n".repeat(1000);
    world.until("it has asked enough", |_| !matches!(greedy.write(question.as_bytes()), Ok(n) if n > 0));
    let before = world.of("noise").restarts;
    world.until("many events have passed", |world| world.of("noise").restarts > before + 200);
    assert_well(&world);
    drop((deaf, greedy));
}

#[test]
fn a_follower_sees_every_event_without_a_gap() {
    let world = World::with(&[("noise", shell("exit 1").delays("[\"2ms\"]"))]);
    let mut client = world.client().unwrap();
    client.request(&Request::Events { since: Some(0), follow: true }).unwrap();
    for expected in 0..800 {
        let event = client.next_event().expect("it goes on").expect("it does not end");
        assert_eq!(event.seq, expected);
    }
}

#[test]
fn followers_that_are_gone_take_no_place_although_nothing_happens() {
    let world = pump();
    // As many as there are places, and some more.
    for _ in 0..80 {
        let mut client = world.wait("a place", |world| world.client().ok());
        client.request(&Request::Events { since: None, follow: true }).expect("it is let in");
    }
    assert_well(&world);
}

/// Asks for the shared pages.
fn pages(world: &World) -> Vec<OwnedFd> {
    let mut stream = connect(world);
    writeln!(stream, "{{\"cmd\":\"pages\"}}").unwrap();
    let mut buffer = [0u8; 512];
    let mut space = nix::cmsg_space!([i32; 8]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).expect("an answer");
    let mut fds = Vec::new();
    for control in message.cmsgs().expect("all of it") {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just made these descriptors for this process; nothing else owns them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    fds
}

#[test]
fn the_shared_pages_can_be_read_by_others_but_not_written() {
    let world = pump();
    let fds = pages(&world);
    assert_eq!(fds.len(), 3, "status, events, force");
    for fd in &fds {
        assert!(Mapping::writable(fd.as_fd()).is_err(), "no mapping for writing");
        assert!(nix::unistd::write(fd, b"x").is_err(), "no write");
        assert!(nix::unistd::ftruncate(fd, 0).is_err(), "no other size");
        Mapping::read_only(fd.as_fd()).expect("a mapping for reading");
    }
    let map = Mapping::read_only(fds[0].as_fd()).unwrap();
    let reader = Reader::new(map.words()).expect("a status page");
    assert_eq!(reader.pid().cast_signed(), world.pid());
    let find = || (0..reader.slots()).find_map(|slot| reader.slot(slot).ok().flatten().filter(|r| !r.name.is_empty()));
    let record = find().expect("one child");
    let json = world.of("pump");
    assert_eq!(record.name.to_string(), json.name);
    assert_eq!((record.state, Some(record.pid)), (StateCode::Running, json.pid));
    assert_eq!(Some(record.deadline_ns / 1000), json.deadline_us);
    // The page lives: it shows what comes.
    let pid = world.pid_of("pump");
    send(pid, Signal::SIGKILL);
    world.until("the page shows the next process", |_| {
        find().is_some_and(|r| r.state == StateCode::Running && r.pid != pid.cast_unsigned() && r.faults == 1)
    });
}
