//! Connections that come in numbers, stay, or do not listen.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::world::{Connection, Device, PATIENCE, skip};

/// Asks for the product code: an answer that no busy machine keeps multus-io from knowing.
const GOOD: [u8; 4] = [43, 14, 4, 1];

/// A connection from another address: all of 127.0.0.0/8 is this machine.
fn connect_from(device: &Device, own: [u8; 4]) -> Connection {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((own, 0).into()).expect("a local address");
        let stream = socket.connect(([127, 0, 0, 1], device.port).into()).await.expect("a connection");
        stream.into_std().expect("a socket")
    });
    stream.set_nonblocking(false).expect("a socket");
    Connection::new(stream)
}

fn connect(device: &Device) -> Connection {
    Connection::new(TcpStream::connect(("127.0.0.1", device.port)).expect("a connection"))
}

/// As many open files as this process may have: a thousand sockets are more than the usual limit.
fn allow_many_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    assert!(hard >= 2048, "this machine allows {hard} open files");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to there everybody may");
}

#[test]
fn a_thousand_connections_are_served_or_refused_and_places_come_back() {
    allow_many_files();
    let device = Device::with_tcp("", "max_connections = 50\n");
    let mut all: Vec<Connection> = (0..1000).map(|_| connect(&device)).collect();
    let mut served = Vec::new();
    let mut refused = 0;
    for mut connection in all.drain(..) {
        let frame = connection.frame(1, &GOOD);
        // Who was refused may find that out here.
        let is_sent = connection.stream.write_all(&frame).is_ok();
        if is_sent && connection.receive().is_some() {
            served.push(connection);
        } else {
            refused += 1;
        }
    }
    assert_eq!((served.len(), refused), (50, 950));
    // Those that were served still are; the others get in as soon as these are gone.
    for connection in &mut served {
        assert_eq!(connection.ask(&GOOD)[0], 43);
    }
    drop(served);
    device.until("a place is free", |device| {
        let mut connection = connect(device);
        let frame = connection.frame(1, &GOOD);
        connection.stream.write_all(&frame).is_ok() && connection.receive().is_some()
    });
    assert_eq!(device.child("modbus").restarts, 0);
}

#[test]
fn without_a_free_file_descriptor_the_server_goes_on() {
    let device = Device::with_tcp("", "max_connections = 900\n");
    device.rerun("[limits]\nopen_files = 40\n");
    let mut all: Vec<Connection> = (0..100).map(|_| connect(&device)).collect();
    device.until("none is left", |device| device.log("modbus").contains("connections cannot be taken"));
    for connection in &mut all[..5] {
        assert_eq!(connection.ask(&GOOD)[0], 43, "the first ones are served");
    }
    // The last one has waited for its place.
    all.drain(..90);
    assert_eq!(all.last_mut().expect("ten are left").ask(&GOOD)[0], 43);
    assert_eq!(device.child("modbus").state, "running");
}

#[test]
fn hundreds_of_connections_a_second_do_not_disturb_a_master() {
    let device = Device::original();
    let mut master = connect(&device);
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    for turn in 0..500 {
        let mut passing = connect(&device);
        if turn % 3 == 0 {
            assert_eq!(passing.ask(&GOOD)[0], 43);
        }
        drop(passing);
        let asked = Instant::now();
        assert_eq!(master.ask(&GOOD)[0], 43);
        longest = longest.max(asked.elapsed());
    }
    eprintln!("{:.0} connections/s, longest answer {longest:?}", 500.0 / begun.elapsed().as_secs_f64());
    assert_eq!(device.child("modbus").restarts, 0);
}

#[test]
fn a_silent_connection_and_one_that_is_half_open_are_closed() {
    let device = Device::with_tcp("", "idle_timeout = \"5s\"\nmax_connections = 2\n");
    let mut silent = connect(&device);
    let mut busy = connect(&device);
    let begun = Instant::now();
    assert_eq!(silent.ask(&GOOD)[0], 43);
    // Bytes without an end are no request.
    let half = silent.frame(1, &GOOD)[..8].to_vec();
    silent.send(&half);
    silent.stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
    let mut byte = [0];
    loop {
        assert_eq!(busy.ask(&GOOD)[0], 43, "who asks is not closed");
        match std::io::Read::read(&mut silent.stream, &mut byte) {
            Ok(0) => break,
            Ok(_) => panic!("an answer to half a request"),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        assert!(begun.elapsed() < PATIENCE, "a silent connection stays");
    }
    assert!(begun.elapsed() >= Duration::from_secs(5), "closed too early");
    let mut next = connect(&device);
    assert_eq!(next.ask(&GOOD)[0], 43, "its place is free");
}

#[test]
fn a_master_that_never_reads_holds_up_nobody_and_is_closed() {
    let device = Device::with_tcp("", "write_timeout = \"500ms\"\n");
    let mut deaf = connect(&device);
    let mut other = connect(&device);
    let many: Vec<u8> = (0..200).flat_map(|_| deaf.frame(1, &GOOD)).collect();
    deaf.stream.set_write_timeout(Some(Duration::from_millis(50))).expect("a socket");
    let end = Instant::now() + PATIENCE;
    loop {
        match deaf.stream.write(&many) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            // Reset: the server has closed it with bytes unread.
            Err(_) => break,
        }
        assert_eq!(other.ask(&GOOD)[0], 43);
        assert!(Instant::now() < end, "a deaf connection stays");
    }
    assert_eq!(other.ask(&GOOD)[0], 43);
}

#[test]
fn masters_of_other_networks_are_refused() {
    let device = Device::with_tcp("", "bind = \"127.0.0.1\"\nallow = [\"127.0.0.2\", \"10.0.0.0/8\"]\n");
    let mut refused = connect(&device);
    let frame = refused.frame(1, &GOOD);
    let is_sent = refused.stream.write_all(&frame).is_ok();
    assert!(!is_sent || refused.is_closed());
    assert_eq!(connect_from(&device, [127, 0, 0, 2]).ask(&GOOD)[0], 43);
    device.until("it is told", |device| device.log("modbus").contains("is refused: not in tcp.allow"));
}

#[test]
fn an_address_has_its_share_of_the_connections() {
    let device = Device::with_tcp("", "max_connections = 4\nmax_per_address = 2\n");
    let mut greedy: Vec<Connection> = (0..2).map(|_| connect(&device)).collect();
    for connection in &mut greedy {
        assert_eq!(connection.ask(&GOOD)[0], 43);
    }
    let mut third = connect(&device);
    let frame = third.frame(1, &GOOD);
    let is_sent = third.stream.write_all(&frame).is_ok();
    assert!(!is_sent || third.is_closed());
    device.until("it is told", |device| device.log("modbus").contains("as many as tcp.max_per_address are open"));
    assert_eq!(connect_from(&device, [127, 0, 0, 2]).ask(&GOOD)[0], 43, "there is a place for another");
    greedy.pop();
    device.until("a place is free", |device| {
        let mut connection = connect(device);
        let frame = connection.frame(1, &GOOD);
        connection.stream.write_all(&frame).is_ok() && connection.receive().is_some()
    });
}

#[test]
fn networks_of_ipv6_are_told_apart() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return skip("networks_of_ipv6_are_told_apart", "this machine has no IPv6");
    }
    let at = |device: &Device| Connection::new(TcpStream::connect(("::1", device.port)).expect("a connection"));
    let device = Device::with_tcp("", "bind = \"::\"\nallow = [\"::1\", \"2001:db8::/32\"]\n");
    assert_eq!(at(&device).ask(&GOOD)[0], 43);
    // IPv4 comes over the same socket, and is none of these.
    let mut refused = connect(&device);
    let frame = refused.frame(1, &GOOD);
    let is_sent = refused.stream.write_all(&frame).is_ok();
    assert!(!is_sent || refused.is_closed());
    device.until("it is told", |device| device.log("modbus").contains("is refused: not in tcp.allow"));
    let device = Device::with_tcp("", "bind = \"::\"\nallow = [\"127.0.0.0/8\", \"2001:db8::/32\"]\n");
    assert_eq!(connect(&device).ask(&GOOD)[0], 43, "IPv4 as it comes in over an IPv6 socket");
    let mut refused = at(&device);
    let frame = refused.frame(1, &GOOD);
    let is_sent = refused.stream.write_all(&frame).is_ok();
    assert!(!is_sent || refused.is_closed());
}
