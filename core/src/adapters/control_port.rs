//! Beats over TCP, as the original multusd took them: one port on localhost for each child instance; each ping is one byte,
//! 1, 2, ... 9, 1, 2, ...; the first may be any of them, and each must be the successor of the one before.
//!
//! A newer connection replaces the older one and begins anew. The end of a connection is no fault: silence is. A wrong
//! byte is a fault that is reported, not a beat; counting goes on from there.
//!
//! Only who is on the same machine can connect. Which process that is is not asked: the kernel tells it for TCP only by a
//! search through all descriptors of all processes. So any local program could beat in a child's name, or make it look
//! faulty, as in the original; who must not trust his neighbours on the machine uses another method.

use std::io::{self, ErrorKind, Read as _};
use std::net::{Ipv4Addr, TcpListener};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use multus_ipc::MonoNs;
use multus_ipc::child::Heartbeat;
use multus_supervisor::Told;

/// The order of the bytes of one connection. Pure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cycle {
    last: Option<u8>,
}

/// A byte that does not follow the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What would have been right, 1 to 9; 0: any of them.
    pub expected: u8,
    /// What came.
    pub got: u8,
}

impl Cycle {
    /// Takes the next byte.
    ///
    /// # Errors
    /// It is not the one that had to come. The next one is judged by it all the same.
    pub fn take(&mut self, got: u8) -> Result<(), Wrong> {
        let expected = self.last.map_or(0, |last| last % 9 + 1);
        let known = (1..=9).contains(&got);
        self.last = known.then_some(got);
        if known && (expected == 0 || got == expected) { Ok(()) } else { Err(Wrong { expected, got }) }
    }
}

/// Bytes that are read at once. Beats of a hundred years of the original fit; a flood fills it.
const BYTES: usize = 256;
/// Reads and connections in one turn.
const BATCH: usize = 4;
/// A process that goes on with wrong bytes (it is snoozed) is told about once a second.
const REPORT_PAUSE_NS: u64 = 1_000_000_000;

/// The control port of one child.
pub(super) struct Port {
    listener: mio::net::TcpListener,
    connection: Option<(TcpStream, Cycle)>,
    /// A fault that the watch thread has not been told yet.
    wrong: Option<Wrong>,
    told_at: Option<MonoNs>,
}

impl Port {
    pub(super) fn new(listener: TcpListener) -> Self {
        let listener = mio::net::TcpListener::from_std(listener);
        Self { listener, connection: None, wrong: None, told_at: None }
    }

    pub(super) fn open(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.listener, token, Interest::READABLE)
    }

    pub(super) fn close(mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.listener);
        self.hang_up(registry);
    }

    /// A new process is about to be made. The last one is gone with all its descendants, so a connection of its is at its
    /// end; one that is not belongs to the new process already, and begins anew.
    pub(super) fn forget(&mut self) {
        (self.wrong, self.told_at) = (None, None);
        let Some((stream, cycle)) = &mut self.connection else { return };
        *cycle = Cycle::default();
        let mut buffer = [0u8; BYTES];
        for _ in 0..1024 {
            match stream.read(&mut buffer) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        // Closing takes it out of the poll.
        self.connection = None;
    }

    /// Takes one batch; true when there is more. `tell` says whether it could be told.
    pub(super) fn read(
        &mut self,
        registry: &Registry,
        token: Token,
        heartbeat: &Heartbeat,
        now: MonoNs,
        tell: &mut dyn FnMut(Told) -> bool,
    ) -> bool {
        let mut more = self.accept(registry, token);
        more |= self.take_bytes(registry, heartbeat);
        if let Some(Wrong { expected, got }) = self.wrong {
            let is_due = self.told_at.is_none_or(|at| now.0.saturating_sub(at.0) >= REPORT_PAUSE_NS);
            if !is_due || tell(Told::ControlByte { expected, got }) {
                self.wrong = None;
                self.told_at = if is_due { Some(now) } else { self.told_at };
            } else {
                more = true;
            }
        }
        more
    }

    /// Takes new connections; the newest counts.
    fn accept(&mut self, registry: &Registry, token: Token) -> bool {
        for _ in 0..BATCH {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    self.hang_up(registry);
                    // One that cannot be polled is read twice a second, which may be too seldom: then it is silent.
                    let _ = registry.register(&mut stream, token, Interest::READABLE);
                    self.connection = Some((stream, Cycle::default()));
                }
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                // Nobody is there, or there is no descriptor left: it waits for the next turn.
                Err(_) => return false,
            }
        }
        true
    }

    fn take_bytes(&mut self, registry: &Registry, heartbeat: &Heartbeat) -> bool {
        for _ in 0..BATCH {
            let Some((stream, cycle)) = &mut self.connection else { return false };
            let mut buffer = [0u8; BYTES];
            match stream.read(&mut buffer) {
                Ok(0) => self.hang_up(registry),
                Ok(length) => {
                    for byte in &buffer[..length] {
                        match cycle.take(*byte) {
                            Ok(()) => heartbeat.beat(),
                            Err(wrong) => drop(self.wrong.get_or_insert(wrong)),
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.hang_up(registry),
            }
        }
        true
    }

    fn hang_up(&mut self, registry: &Registry) {
        if let Some((mut stream, _)) = self.connection.take() {
            let _ = registry.deregister(&mut stream);
        }
    }
}

/// Opens a control port.
///
/// # Errors
/// `AddrInUse` when somebody else has it.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::Poll;
    use multus_ipc::heartbeat::{self, Reader};
    use multus_ipc::map::{self, Mapping};
    use std::io::Write as _;
    use std::net::SocketAddr;
    use std::os::fd::AsFd as _;
    use std::sync::atomic::Ordering;

    fn verdicts(bytes: &[u8]) -> Vec<Wrong> {
        let mut cycle = Cycle::default();
        bytes.iter().filter_map(|b| cycle.take(*b).err()).collect()
    }

    #[test]
    fn bytes_follow_each_other() {
        let wrong = |expected, got| Wrong { expected, got };
        for (bytes, expected) in [
            (&[1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2][..], vec![]),
            (&[7, 8, 9, 1], vec![]),
            (&[9, 1], vec![]),
            (&[1, 1], vec![wrong(2, 1)]),
            (&[4, 6, 7], vec![wrong(5, 6)]),
            (&[8, 9, 9], vec![wrong(1, 9)]),
            (&[0], vec![wrong(0, 0)]),
            (&[10], vec![wrong(0, 10)]),
            (b"1", vec![wrong(0, b'1')]),
            (&[3, 255, 5, 6], vec![wrong(4, 255)]),
        ] {
            assert_eq!(verdicts(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn any_bytes_are_judged_as_by_the_rule() {
        let mut x = 88_172_645_463_325_252u64;
        let mut cycle = Cycle::default();
        let mut last = None::<u8>;
        for _ in 0..100_000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let byte = (x % 12) as u8;
            let good = matches!(byte, 1..=9) && last.is_none_or(|l| byte == if l == 9 { 1 } else { l + 1 });
            assert_eq!(cycle.take(byte).is_ok(), good, "{byte} after {last:?}");
            last = Some(byte).filter(|b| matches!(b, 1..=9));
        }
    }

    struct Bench {
        poll: Poll,
        port: Port,
        address: SocketAddr,
        heartbeat: Heartbeat,
        page: Mapping,
        told: Vec<Told>,
    }

    impl Bench {
        fn new() -> Self {
            let listener = listen(0).unwrap();
            let address = listener.local_addr().unwrap();
            let fd = map::memfd(c"heartbeat", heartbeat::WORDS).unwrap();
            let page = Mapping::writable(fd.as_fd()).unwrap();
            for (word, value) in page.words().iter().zip(heartbeat::header(1, 1_000_000_000)) {
                word.store(value, Ordering::Relaxed);
            }
            let poll = Poll::new().unwrap();
            let mut port = Port::new(listener);
            port.open(poll.registry(), Token(0)).unwrap();
            Self { poll, port, address, heartbeat: Heartbeat::from_fd(fd).unwrap(), page, told: Vec::new() }
        }

        fn connect(&self) -> std::net::TcpStream {
            let stream = std::net::TcpStream::connect(self.address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        }

        fn turn(&mut self) -> bool {
            let (now, told) = (MonoNs::now(), &mut self.told);
            let mut tell = |what| {
                told.push(what);
                true
            };
            self.port.read(self.poll.registry(), Token(0), &self.heartbeat, now, &mut tell)
        }

        fn beats(&self) -> u64 {
            Reader::new(self.page.words()).look(0).sequence
        }

        /// Turns until so many beats have come.
        fn until(&mut self, beats: u64) {
            while self.beats() < beats {
                self.turn();
                std::thread::yield_now();
            }
            assert_eq!(self.beats(), beats);
        }
    }

    #[test]
    fn a_newer_connection_replaces_the_older_and_begins_anew() {
        let mut bench = Bench::new();
        let mut first = bench.connect();
        first.write_all(&[4, 5]).unwrap();
        bench.until(2);
        let mut second = bench.connect();
        second.write_all(&[1]).unwrap();
        bench.until(3);
        // What the older one still sends is not heard.
        let _ = first.write_all(&[9, 9, 9]);
        second.write_all(&[2]).unwrap();
        bench.until(4);
        drop(second);
        for _ in 0..10 {
            bench.turn();
        }
        assert!(bench.told.is_empty(), "the end of a connection is no fault: {:?}", bench.told);
        assert!(bench.port.connection.is_none());
    }

    #[test]
    fn a_wrong_byte_is_told_once_a_second_and_is_no_beat() {
        let mut bench = Bench::new();
        let mut stream = bench.connect();
        stream.write_all(&[1, 3, 4, 9, 1, 2]).unwrap();
        bench.until(4);
        assert_eq!(bench.told, [Told::ControlByte { expected: 2, got: 3 }]);
    }

    #[test]
    fn a_flood_is_read_in_bounded_turns() {
        let mut bench = Bench::new();
        let mut stream = bench.connect();
        let bytes: Vec<u8> = (0..20_000u32).map(|n| (n % 9 + 1) as u8).collect();
        stream.write_all(&bytes).unwrap();
        let mut last = 0;
        while bench.beats() < 20_000 {
            let more = bench.turn();
            let read = bench.beats() - last;
            assert!(read <= (BATCH * BYTES) as u64);
            assert!(more || read < (BATCH * BYTES) as u64);
            last = bench.beats();
        }
        assert!(bench.told.is_empty());
    }

    #[test]
    fn the_connection_of_a_dead_process_is_forgotten_and_that_of_a_live_one_kept() {
        let mut bench = Bench::new();
        let mut dead = bench.connect();
        dead.write_all(&[1]).unwrap();
        bench.until(1);
        dead.write_all(&[2]).unwrap();
        drop(dead);
        while bench.port.connection.is_some() {
            bench.port.forget();
        }
        let mut live = bench.connect();
        live.write_all(&[5]).unwrap();
        bench.until(2);
        bench.port.forget();
        live.write_all(&[8]).unwrap();
        bench.until(3);
        assert!(bench.told.is_empty());
    }
}
