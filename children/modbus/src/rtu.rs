//! Modbus RTU over a serial line ("MODBUS over Serial Line Specification and Implementation Guide V1.02", section 2.5.1).
//!
//! A frame ends with a silence of 3.5 characters. What is too short, too long, has a wrong check sum or another address is
//! left alone: on a bus with several units that is what the others say. Address 0 is for all: it is obeyed and not answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use multus_child::Voice;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};
use tokio_serial::{DataBits, SerialPortBuilderExt as _, SerialStream, StopBits};

use crate::config::{Parity, Rtu};
use crate::diagnostics::Counters;
use crate::pdu;
use crate::plant::Image;
use crate::tcp::done;
use crate::unit::{Handled, Unit};

/// A unit on a serial line.
#[derive(Debug)]
pub(crate) struct Station {
    pub(crate) unit: Arc<Unit<Image>>,
    pub(crate) own_id: u8,
    pub(crate) config: Rtu,
    pub(crate) counters: Arc<Counters>,
    /// The beginning of time for the unit.
    pub(crate) started: Instant,
}

/// Opens the line.
///
/// # Errors
/// What the system refuses, in words.
fn open(config: &Rtu) -> Result<SerialStream, String> {
    let parity = match config.parity {
        Parity::Even => tokio_serial::Parity::Even,
        Parity::Odd => tokio_serial::Parity::Odd,
        Parity::None => tokio_serial::Parity::None,
    };
    tokio_serial::new(&config.device, config.baud)
        .data_bits(DataBits::Eight)
        .parity(parity)
        .stop_bits(if config.stop_bits == 2 { StopBits::Two } else { StopBits::One })
        .open_native_async()
        .map_err(|error| format!("the serial line {} cannot be opened: {error}", config.device))
}

/// The silence that ends a frame.
fn gap(config: &Rtu) -> Duration {
    let configured = config.gap.duration();
    if configured.is_zero() { silence(config.baud) } else { configured }
}

/// 3.5 characters of 11 bits; from 19200 bit/s on 1.75 ms, so that timers can keep up.
fn silence(baud: u32) -> Duration {
    if baud > 19_200 { Duration::from_micros(1750) } else { Duration::from_secs(1) * 77 / (2 * baud) }
}

/// Address and PDU of a frame; `None` for what is none.
fn parse(frame: &[u8]) -> Option<(u8, &[u8])> {
    if !(SHORTEST..=LONGEST).contains(&frame.len()) {
        return None;
    }
    let (content, sum) = frame.split_at(frame.len() - 2);
    (check_sum(content) == [sum[0], sum[1]]).then(|| (content[0], &content[1..]))
}

/// CRC-16 with the polynomial A001h, low byte first (appendix B of the guide).
fn check_sum(bytes: &[u8]) -> [u8; 2] {
    let turn = |crc: u16, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 };
    bytes.iter().fold(0xffff, |crc: u16, byte| (0..8).fold(crc ^ u16::from(*byte), turn)).to_le_bytes()
}

impl Station {
    /// Serves for ever: a line that is not there, or goes away as a converter that is pulled out, is opened again and again.
    /// `turns` rises as long as this goes on.
    pub(crate) async fn serve_for_ever(&self, voice: &Voice, turns: &AtomicU64) {
        let device = &self.config.device;
        let (mut pause, mut told) = (FIRST_PAUSE, None);
        loop {
            let begun = Instant::now();
            let reason = match open(&self.config) {
                Err(reason) => reason,
                Ok(line) => {
                    log::info!("Modbus RTU on {device}, {} bit/s, unit {}", self.config.baud, self.own_id);
                    self.counters.is_line_gone.store(false, Ordering::Relaxed);
                    if told.take().is_some() {
                        voice.notice(&format!("the serial line {device} is there again"));
                    }
                    self.serve(line, turns).await
                }
            };
            self.counters.is_line_gone.store(true, Ordering::Relaxed);
            if told.as_ref() != Some(&reason) {
                log::error!("{reason}; trying again");
                voice.notice(&reason);
                told = Some(reason);
            }
            if begun.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            let end = tokio::time::Instant::now() + pause;
            while tokio::time::Instant::now() < end {
                turns.fetch_add(1, Ordering::Relaxed);
                sleep(TURN).await;
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Serves until the line fails; says why.
    async fn serve(&self, mut line: impl AsyncRead + AsyncWrite + Unpin, turns: &AtomicU64) -> String {
        let (device, gap) = (&self.config.device, gap(&self.config));
        let mut bytes = [0; ROOM];
        let mut filled = 0;
        let mut out = Vec::with_capacity(LONGEST);
        // What the converter is going to hand back.
        let mut echo = Vec::new();
        loop {
            turns.fetch_add(1, Ordering::Relaxed);
            let patience = if filled == 0 { TURN } else { gap };
            // What goes beyond the room goes over its last byte: it is too long then.
            let room = &mut bytes[filled.min(ROOM - 1)..];
            match timeout(patience, line.read(room)).await {
                Ok(Ok(0)) => return format!("the serial line {device} is gone"),
                Ok(Ok(count)) => filled = (filled + count).min(ROOM),
                Ok(Err(error)) => return format!("the serial line {device} cannot be read: {error}"),
                Err(_) if filled == 0 => {}
                Err(_) => {
                    let heard = &bytes[..filled];
                    // Only once, and only what comes first: a master that says the same later means it.
                    let heard = heard.strip_prefix(&*std::mem::take(&mut echo)).unwrap_or(heard);
                    filled = 0;
                    let Some((address, pdu)) = parse(heard) else {
                        log::debug!("{} bytes on the serial line are no frame", heard.len());
                        continue;
                    };
                    out.clear();
                    self.answer(address, pdu, &mut out).await;
                    match timeout(LONGEST_SENDING, line.write_all(&out)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return format!("the serial line {device} cannot be written: {error}"),
                        Err(_) => log::warn!("the serial line takes no answer"),
                    }
                    if self.config.echo {
                        echo.clone_from(&out);
                    }
                }
            }
        }
    }

    /// An empty answer is none.
    async fn answer(&self, address: u8, pdu: &[u8], out: &mut Vec<u8>) {
        if address != self.own_id && address != BROADCAST {
            return;
        }
        out.push(address);
        if let Handled::Asked(asked) = self.unit.handle(pdu, self.started.elapsed(), out) {
            let is_done = done(&self.unit, &asked).await;
            self.unit.finish(pdu, is_done, out);
        }
        if address == BROADCAST {
            out.clear();
            return;
        }
        self.counters.count(out[1]);
        let sum = check_sum(out);
        out.extend_from_slice(&sum);
    }
}

const BROADCAST: u8 = 0;
/// Address, function, check sum.
const SHORTEST: usize = 4;
const LONGEST: usize = 1 + pdu::LONGEST + 2;
/// What was said last, handed back, and a frame behind it; and a byte more.
const ROOM: usize = 2 * LONGEST + 1;
/// From turn to turn while nothing comes.
const TURN: Duration = Duration::from_millis(50);
/// From try to try to open the line, twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The system takes a whole answer at once and sends it at the pace of the line.
const LONGEST_SENDING: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::config::Config;
    use crate::plant::bench::Bench;

    #[test]
    fn frames_have_the_check_sum_of_the_guide() {
        let frame = [1, 3, 0, 0, 0, 10, 0xc5, 0xcd];
        assert_eq!(parse(&frame), Some((1, &frame[1..6])));
        for at in 0..frame.len() {
            for bit in 0..8 {
                let mut wrong = frame;
                wrong[at] ^= 1 << bit;
                assert_eq!(parse(&wrong), None, "bit {bit} of byte {at}");
            }
        }
        for length in 0..frame.len() {
            assert_eq!(parse(&frame[..length]), None);
        }
        let long = vec![1; LONGEST + 1];
        assert_eq!(parse(&long), None);
    }

    #[test]
    fn the_silence_is_that_of_the_guide() {
        assert_eq!(silence(9600), Duration::from_nanos(4_010_416));
        assert_eq!(silence(19_200), Duration::from_nanos(2_005_208));
        assert_eq!(silence(115_200), Duration::from_micros(1750));
        let usb = Rtu { gap: multus_child::Interval::from_millis(20), ..Rtu::default() };
        assert_eq!((gap(&Rtu::default()), gap(&usb)), (silence(19_200), Duration::from_millis(20)));
    }

    /// A station on a line whose other end is returned.
    fn station(bench: &Bench, echo: bool) -> DuplexStream {
        let station = Station {
            unit: Arc::new(bench.unit(&Config::default())),
            own_id: 1,
            config: Rtu { echo, ..Rtu::default() },
            counters: Arc::default(),
            started: Instant::now(),
        };
        let (bus, line) = duplex(4096);
        tokio::spawn(async move { station.serve(line, &AtomicU64::new(0)).await });
        bus
    }

    /// What is heard until nothing more comes.
    async fn heard(bus: &mut DuplexStream) -> Vec<u8> {
        let (mut all, mut bytes) = (Vec::new(), [0; 512]);
        while let Ok(Ok(count)) = timeout(Duration::from_secs(5), bus.read(&mut bytes)).await {
            all.extend(&bytes[..count]);
        }
        all
    }

    fn with_sum(content: &[u8]) -> Vec<u8> {
        [content, &check_sum(content)].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_converter_hands_back_is_no_request() {
        // The answer to this is the same, byte for byte.
        let write = with_sum(&[1, 5, 0, 0, 0xff, 0]);
        let question = with_sum(&[1, 43, 14, 4, 1]);
        for echo in [true, false] {
            let bench = Bench::new();
            let mut bus = station(&bench, echo);
            bus.write_all(&write).await.expect("open");
            let asked = async {
                while bench.asked(0).is_none() {
                    sleep(Duration::from_millis(1)).await
                }
            };
            tokio::time::timeout(Duration::from_secs(1), asked).await.expect("it obeys at once");
            bench.carry_out(0);
            assert_eq!(heard(&mut bus).await, write);
            bus.write_all(&write).await.expect("open");
            assert_eq!(heard(&mut bus).await.is_empty(), echo, "handed back");
            if !echo {
                continue;
            }
            for _ in 0..2 {
                bus.write_all(&question).await.expect("open");
                let said = heard(&mut bus).await;
                assert_eq!(said[1], 43);
                // With the next request right behind it.
                bus.write_all(&[&said[..], &question].concat()).await.expect("open");
                let said = heard(&mut bus).await;
                assert_eq!(said[1], 43);
                // Who says something else first has nothing handed back; what is said later is meant.
                bus.write_all(&question).await.expect("open");
                assert_eq!(heard(&mut bus).await, said);
                bus.write_all(&said).await.expect("open");
                assert!(heard(&mut bus).await.is_empty());
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_a_frame_or_not(bytes in proptest::collection::vec(0u8.., 0..300)) {
            let mut bytes = bytes;
            let _ = parse(&bytes);
            let sum = check_sum(&bytes);
            bytes.extend(sum);
            assert_eq!(parse(&bytes).is_some(), (SHORTEST..=LONGEST).contains(&bytes.len()));
        }
    }
}
