//! Modbus TCP: who may connect, how many, how long, and their requests one after the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use crate::config::ForeignUnits;
use crate::diagnostics::Counters;
use crate::frame::{self, Frame, Next};
use crate::pdu::{EXCEPTION, Exception, refuse};
use crate::plant::{Asked, Image};
use crate::unit::{Handled, Plant as _, Unit};
use multus_child::network::Network;
use multus_child::shares::{Share, Shares};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) unit: Arc<Unit<Image>>,
    pub(crate) own_id: u8,
    pub(crate) foreign_units: ForeignUnits,
    pub(crate) allow: Vec<Network>,
    pub(crate) max_connections: u64,
    /// What one address may have of them.
    pub(crate) shares: Arc<Shares>,
    pub(crate) idle_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) counters: Arc<Counters>,
    /// The beginning of time for the unit.
    pub(crate) started: std::time::Instant,
}

/// Takes connections for ever. `turns` rises as long as this goes on.
pub(crate) async fn accept(listener: TcpListener, server: Arc<Server>, turns: Arc<AtomicU64>) {
    let mut ticks = interval(TURN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refusals = Told::default();
    let mut failures = Told::default();
    loop {
        turns.fetch_add(1, Ordering::Relaxed);
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ticks.tick() => continue,
        };
        match accepted {
            Ok((stream, peer)) => match server.admit(peer) {
                Ok(place) => {
                    let server = Arc::clone(&server);
                    // An answer is small and awaited; that it goes without delay is no question of right or wrong.
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(async move {
                        let end = server.serve(stream).await;
                        log::debug!("{peer}: {end:?}");
                        drop(place);
                    });
                }
                Err(reason) => {
                    // Dropping the stream closes it.
                    server.counters.refused.fetch_add(1, Ordering::Relaxed);
                    refusals.tell(|more| log::warn!("connection of {peer} is refused: {reason}{more}"));
                }
            },
            // Of one connection that is gone already, or of all: no file descriptor is left. The latter takes its time.
            Err(error) => {
                failures.tell(|more| log::error!("connections cannot be taken: {error}; tried again{more}"));
                sleep(AGAIN).await;
            }
        }
    }
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    Closed,
    Idle,
    NotRead,
    Foreign,
    Broken,
}

impl Server {
    /// A place for a connection, or why it has none.
    fn admit(&self, peer: SocketAddr) -> Result<Place, &'static str> {
        if !self.allow.is_empty() && !self.allow.iter().any(|network| network.contains(peer.ip())) {
            return Err("not in tcp.allow");
        }
        if self.counters.connections.load(Ordering::Relaxed) >= self.max_connections {
            return Err("as many as tcp.max_connections are open");
        }
        let share = self.shares.take(peer.ip()).ok_or("as many as tcp.max_per_address are open from its address")?;
        Ok(Place::take(&self.counters, share))
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> End {
        let mut bytes = [0; ROOM];
        let mut filled = 0;
        let mut out = Vec::with_capacity(frame::LONGEST);
        // The end of the answer to the last whole request.
        let mut last = Instant::now();
        loop {
            match timeout_at(last + self.idle_timeout, stream.read(&mut bytes[filled..])).await {
                Err(_) => return End::Idle,
                Ok(Err(_)) => return End::Broken,
                Ok(Ok(0)) => return End::Closed,
                Ok(Ok(count)) => filled += count,
            }
            let (mut used, mut is_foreign) = (0, false);
            loop {
                match frame::next(&bytes[used..filled]) {
                    Next::Frame { frame, length } => {
                        if let Err(end) = self.answer(&frame, &mut out, &mut stream).await {
                            return end;
                        }
                        used += length;
                    }
                    Next::Incomplete => break,
                    Next::Foreign => {
                        is_foreign = true;
                        break;
                    }
                }
            }
            bytes.copy_within(used..filled, 0);
            filled -= used;
            if let Err(end) = self.send(&mut out, &mut stream).await {
                return end;
            }
            if is_foreign {
                return End::Foreign;
            }
            if used > 0 {
                last = Instant::now();
            }
        }
    }

    /// Puts an answer behind what `out` holds. What is in there goes out before values are waited for.
    async fn answer(
        &self,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), End> {
        // 0 and 255 mean the server itself ("MODBUS Messaging on TCP/IP", section 4.4.2.1).
        let is_own = [self.own_id, 0, 255].contains(&frame.unit);
        if !is_own && self.foreign_units == ForeignUnits::Silence {
            return Ok(());
        }
        let mut begin = out.len();
        if !is_own {
            frame::answer(frame, out, |out| refuse(frame.pdu, Exception::NoTarget, out));
        } else {
            let mut handled = Handled::Answered;
            frame::answer(frame, out, |out| handled = self.unit.handle(frame.pdu, self.started.elapsed(), out));
            if let Handled::Asked(asked) = handled {
                out.truncate(begin);
                self.send(out, stream).await?;
                begin = 0;
                let is_done = done(&self.unit, &asked).await;
                frame::answer(frame, out, |out| self.unit.finish(frame.pdu, is_done, out));
            }
        }
        self.counters.count(out[begin + frame::HEADER]);
        Ok(())
    }

    /// Sends what is there, and empties it.
    async fn send(&self, out: &mut Vec<u8>, stream: &mut (impl AsyncWrite + Unpin)) -> Result<(), End> {
        if out.is_empty() {
            return Ok(());
        }
        match timeout(self.write_timeout, stream.write_all(out)).await {
            Err(_) => Err(End::NotRead),
            Ok(Err(_)) => Err(End::Broken),
            Ok(Ok(())) => {
                out.clear();
                Ok(())
            }
        }
    }
}

impl Counters {
    /// An answer that begins with this function code.
    pub(crate) fn count(&self, function: u8) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        if function & EXCEPTION != 0 {
            self.exceptions.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether all values got to their outputs, soon. Otherwise they are taken back: who is told that a request failed must not
/// see its values come later.
pub(crate) async fn done(unit: &Unit<Image>, asked: &[Asked]) -> bool {
    let end = Instant::now() + CONFIRM;
    loop {
        if asked.iter().all(Asked::is_done) {
            return true;
        }
        if Instant::now() >= end {
            unit.plant.withdraw(asked);
            return false;
        }
        sleep(LOOK).await;
    }
}

/// One of the connections, until it is dropped.
struct Place {
    counters: Arc<Counters>,
    _share: Share,
}

impl Place {
    fn take(counters: &Arc<Counters>, share: Share) -> Self {
        counters.connections.fetch_add(1, Ordering::Relaxed);
        Self { counters: Arc::clone(counters), _share: share }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Something that may happen a thousand times a second and is told every ten.
#[derive(Default)]
struct Told {
    last: Option<Instant>,
    more: u64,
}

impl Told {
    fn tell(&mut self, tell: impl FnOnce(&str)) {
        if self.last.is_some_and(|last| last.elapsed() < QUIET) {
            self.more += 1;
            return;
        }
        let more = if self.more > 0 { format!(" ({} more since the last time)", self.more) } else { String::new() };
        tell(&more);
        *self = Self { last: Some(Instant::now()), more: 0 };
    }
}

/// Room for requests of one connection that wait; several longest ones.
const ROOM: usize = 4 * frame::LONGEST;
/// From turn to turn of the loop that takes connections.
const TURN: Duration = Duration::from_millis(50);
/// After connections could not be taken.
const AGAIN: Duration = Duration::from_millis(100);
/// Scans of multus-io are at most a second apart, and usually a millisecond.
const CONFIRM: Duration = Duration::from_millis(1500);
/// From look to look whether a value is at its output.
const LOOK: Duration = Duration::from_millis(1);
/// Between two lines of the log about the same.
const QUIET: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::config::Config;
    use crate::plant::bench::Bench;

    const IDENTIFY: [u8; 4] = [43, 14, 4, 1];
    const WRITE: [u8; 5] = [5, 0, 0, 0xff, 0];

    fn frame(pdu: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 1, 0, 0, 0, 0, 1];
        frame[5] = u8::try_from(pdu.len() + 1).expect("short");
        frame.extend(pdu);
        frame
    }

    async fn answer(master: &mut DuplexStream) -> Vec<u8> {
        let mut header = [0; 7];
        master.read_exact(&mut header).await.expect("an answer");
        let mut pdu = vec![0; usize::from(header[5]) - 1];
        master.read_exact(&mut pdu).await.expect("a whole answer");
        pdu
    }

    /// A server whose plant moves when the test moves it, and a connection to it with room for so many bytes.
    fn served(bench: &Bench, config: &Config, room: usize) -> (DuplexStream, tokio::task::JoinHandle<End>) {
        let unit = Arc::new(bench.unit(config));
        let server = Server {
            unit,
            own_id: 1,
            foreign_units: ForeignUnits::Exception,
            allow: Vec::new(),
            max_connections: 1,
            shares: Shares::new(1, 0),
            idle_timeout: config.tcp.idle_timeout.duration(),
            write_timeout: config.tcp.write_timeout.duration(),
            counters: Arc::default(),
            started: std::time::Instant::now(),
        };
        let (master, stream) = duplex(room);
        (master, tokio::spawn(async move { server.serve(stream).await }))
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_are_ready_do_not_wait_for_outputs() {
        let bench = Bench::new();
        let (mut master, _served) = served(&bench, &Config::default(), 4096);
        let begun = Instant::now();
        master.write_all(&[frame(&IDENTIFY), frame(&WRITE), frame(&IDENTIFY)].concat()).await.expect("open");
        assert_eq!(answer(&mut master).await[0], 43);
        assert!(begun.elapsed() < CONFIRM, "after {:?}", begun.elapsed());
        assert_eq!(answer(&mut master).await, [0x85, 4], "the output does not move");
        assert!(begun.elapsed() >= CONFIRM);
        assert_eq!(answer(&mut master).await[0], 43);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_from_the_end_of_its_last_answer() {
        let bench = Bench::new();
        let mut config = Config::default();
        config.tcp.idle_timeout = multus_child::Interval::from_millis(1000);
        let (mut master, served) = served(&bench, &config, 4096);
        let begun = Instant::now();
        master.write_all(&frame(&WRITE)).await.expect("open");
        assert_eq!(answer(&mut master).await, [0x85, 4]);
        let answered = begun.elapsed();
        assert!(answered >= CONFIRM);
        sleep(Duration::from_millis(900)).await;
        master.write_all(&frame(&IDENTIFY)).await.expect("open");
        assert_eq!(answer(&mut master).await[0], 43);
        assert!(matches!(served.await, Ok(End::Idle)));
        assert!(begun.elapsed() >= answered + Duration::from_millis(1900));
    }
}
