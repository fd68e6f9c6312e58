//! One unit: from the PDU of a request to that of the answer. Pure but for the plant, which is behind a trait.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::identity::Identity;
use crate::map::{Map, Word, Writes};
use crate::pdu::{self, Bits, Exception, Registers, Request, decode};
use crate::watchdog::Watchdog;

/// The lines behind the map.
pub(crate) trait Plant {
    /// A value on its way to an output.
    type Asked;

    /// What a line has now.
    ///
    /// # Errors
    /// There is no such line, or nobody knows its value.
    fn read(&self, line: usize) -> Result<Reading, Exception>;

    /// What an output was asked for and does not have yet.
    fn under_way(&self, line: usize) -> Option<f64>;

    /// Whether an output can have this value now.
    ///
    /// # Errors
    /// Why not.
    fn may_have(&self, line: usize, value: f64) -> Result<(), Exception>;

    /// Asks for a value.
    ///
    /// # Errors
    /// It was not asked for.
    fn ask(&self, line: usize, value: f64) -> Result<Self::Asked, Exception>;

    /// Takes values back that did not get to their outputs: asks for what these had before, unless somebody has asked for
    /// something else since.
    fn withdraw(&self, asked: &[Self::Asked]);

    /// Asks for the safe value, unless that was asked for last.
    fn make_safe(&self, line: usize);

    /// The registers about the device.
    fn diagnostics(&self, watchdog: Option<bool>) -> Vec<Result<u16, Exception>>;
}

/// What a line has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) value: f64,
    /// How often it changed.
    pub(crate) changes: u64,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Handled<A> {
    /// The answer is there.
    Answered,
    /// Values were asked for; the answer comes from [`Unit::finish`].
    Asked(Vec<A>),
}

/// A unit.
#[derive(Debug)]
pub(crate) struct Unit<P> {
    pub(crate) map: Map,
    pub(crate) plant: P,
    pub(crate) identity: Identity,
    pub(crate) read_only: bool,
    watchdog: Option<Mutex<Watchdog>>,
}

impl<P: Plant> Unit<P> {
    pub(crate) fn new(map: Map, plant: P, identity: Identity, read_only: bool, watchdog: Option<Watchdog>) -> Self {
        Self { map, plant, identity, read_only, watchdog: watchdog.map(Mutex::new) }
    }

    /// Does what a request says; an answer is put behind what `out` holds.
    pub(crate) fn handle(&self, pdu: &[u8], now: Duration, out: &mut Vec<u8>) -> Handled<P::Asked> {
        let begin = out.len();
        let result = decode(pdu).and_then(|request| match request {
            Request::ReadBits { .. } | Request::ReadRegisters { .. } | Request::Identify { .. } => {
                self.read(&request, out).map(|()| Handled::Answered)
            }
            _ if self.read_only => Err(Exception::IllegalFunction),
            _ => self.write(&request, now).map(Handled::Asked),
        });
        result.unwrap_or_else(|exception| {
            out.truncate(begin);
            pdu::refuse(pdu, exception, out);
            Handled::Answered
        })
    }

    /// The answer to a request that asked for values: whether all are at their outputs now.
    pub(crate) fn finish(&self, pdu: &[u8], is_done: bool, out: &mut Vec<u8>) {
        let begin = out.len();
        let done = if is_done { Ok(()) } else { Err(Exception::DeviceFailure) };
        let result = done.and_then(|()| decode(pdu)).and_then(|request| match request {
            Request::ReadWriteRegisters { read, count, .. } => {
                self.put_registers(pdu::EXCHANGE, Registers::Holding, read, count, out)
            }
            // Function, address, and the value or quantity or masks come back.
            Request::MaskRegister { .. } => {
                out.extend_from_slice(pdu);
                Ok(())
            }
            _ => {
                out.extend_from_slice(&pdu[..5]);
                Ok(())
            }
        });
        if let Err(exception) = result {
            out.truncate(begin);
            pdu::refuse(pdu, exception, out);
        }
    }

    /// Time goes on: as long as the master is lost, its outputs are kept safe. `true`, once: it was lost.
    pub(crate) fn turn_watchdog(&self, now: Duration) -> bool {
        self.keep_safe(now);
        self.watchdog().is_some_and(|mut watchdog| watchdog.take_loss())
    }

    /// Whether the master is lost at `now`; if so, what it has lost is asked to be safe.
    fn keep_safe(&self, now: Duration) -> bool {
        let is_lost = self.watchdog().is_some_and(|mut watchdog| watchdog.turn(now));
        if is_lost {
            let guarded = self.map.lines.iter().enumerate().filter(|(_, line)| line.guarded);
            guarded.for_each(|(line, _)| self.plant.make_safe(line));
        }
        is_lost
    }

    /// When [`Self::turn_watchdog`] is to be called next.
    pub(crate) fn watchdog_due(&self) -> Option<Duration> {
        self.watchdog()?.due()
    }

    /// Whether the master is lost; `None` without a watchdog.
    pub(crate) fn is_lost(&self) -> Option<bool> {
        self.watchdog().map(|watchdog| watchdog.is_lost())
    }

    fn watchdog(&self) -> Option<MutexGuard<'_, Watchdog>> {
        // Four plain numbers cannot be left half changed.
        self.watchdog.as_ref().map(|watchdog| watchdog.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn read(&self, request: &Request<'_>, out: &mut Vec<u8>) -> Result<(), Exception> {
        match *request {
            Request::ReadBits { table, address, count } => self.put_bits(table, address, count, out),
            Request::ReadRegisters { table, address, count } => {
                let function = if table == Registers::Holding { 3 } else { 4 };
                self.put_registers(function, table, address, count, out)
            }
            Request::Identify { code, object } => self.identity.answer(code, object, out),
            _ => Err(Exception::IllegalFunction),
        }
    }

    fn put_bits(&self, table: Bits, address: u16, count: u16, out: &mut Vec<u8>) -> Result<(), Exception> {
        let bits = self.map.bits(table, address, count)?;
        let function = if table == Bits::Coils { 1 } else { 2 };
        let bytes = count.div_ceil(8);
        // At most 250 bytes.
        out.extend_from_slice(&[function, bytes as u8]);
        let first = out.len();
        out.resize(first + usize::from(bytes), 0);
        for (index, bit) in bits.enumerate() {
            let is_on = self.plant.read(bit.line)?.value != 0.0;
            out[first + index / 8] |= u8::from(is_on != bit.inverted) << (index % 8);
        }
        Ok(())
    }

    fn put_registers(
        &self,
        function: u8,
        table: Registers,
        address: u16,
        count: u16,
        out: &mut Vec<u8>,
    ) -> Result<(), Exception> {
        let words = self.map.words(table, address, count)?;
        // At most 250 bytes.
        out.extend_from_slice(&[function, (2 * count) as u8]);
        // Both halves of a number, and all diagnostics, are of the same moment.
        let mut last = None;
        let mut diagnostics = None;
        for word in words {
            let register = match *word {
                Word::Point { point, word } => {
                    let registers = match last {
                        Some((same, registers)) if same == point => registers,
                        _ => self.registers(point)?,
                    };
                    last = Some((point, registers));
                    registers[usize::from(word)]
                }
                Word::Watchdog => self.watchdog().map_or(0, |watchdog| watchdog.value()),
                Word::Diagnostic(index) => {
                    let all = diagnostics.get_or_insert_with(|| self.plant.diagnostics(self.is_lost()));
                    all.get(index).copied().unwrap_or(Err(Exception::IllegalAddress))?
                }
            };
            out.extend_from_slice(&register.to_be_bytes());
        }
        Ok(())
    }

    fn registers(&self, point: usize) -> Result<[u16; 2], Exception> {
        let point = &self.map.points[point];
        let Reading { value, changes } = self.plant.read(point.line)?;
        point.registers(value, changes).ok_or(Exception::DeviceFailure)
    }

    /// What a holding register is going to have: of two who change bits of it one after the other, neither loses a change.
    fn wanted_register(&self, address: u16) -> Result<u16, Exception> {
        match self.map.words(Registers::Holding, address, 1)?.next() {
            Some(Word::Point { point, .. }) => {
                let point = &self.map.points[*point];
                let Reading { value, changes } = self.plant.read(point.line)?;
                let wanted = self.plant.under_way(point.line).unwrap_or(value);
                point.registers(wanted, changes).map(|[register, _]| register).ok_or(Exception::DeviceFailure)
            }
            Some(Word::Watchdog) => Ok(self.watchdog().map_or(0, |watchdog| watchdog.value())),
            Some(Word::Diagnostic(_)) | None => Err(Exception::IllegalAddress),
        }
    }

    fn write(&self, request: &Request<'_>, now: Duration) -> Result<Vec<P::Asked>, Exception> {
        let writes = match *request {
            Request::WriteCoil { address, on } => self.map.write_coils(address, [on].into_iter())?,
            Request::WriteCoils { address, count, packed } => {
                self.map.write_coils(address, (0..usize::from(count)).map(|index| pdu::bit(packed, index)))?
            }
            Request::WriteRegister { address, value } => self.map.write_words(address, &[value])?,
            Request::WriteRegisters { address, values } => {
                self.map.write_words(address, &pdu::registers(values).collect::<Vec<_>>())?
            }
            Request::MaskRegister { address, and, or } => {
                // That it can be written is looked at before its value.
                self.map.write_words(address, &[0])?;
                let current = self.wanted_register(address)?;
                self.map.write_words(address, &[current & and | or & !and])?
            }
            Request::ReadWriteRegisters { read, count, write, values } => {
                // That it can be read is known before something is written.
                self.put_registers(pdu::EXCHANGE, Registers::Holding, read, count, &mut Vec::new())?;
                self.map.write_words(write, &pdu::registers(values).collect::<Vec<_>>())?
            }
            _ => return Err(Exception::IllegalFunction),
        };
        self.carry_out(&writes, now)
    }

    /// All or nothing, as far as it can be known before.
    fn carry_out(&self, writes: &Writes, now: Duration) -> Result<Vec<P::Asked>, Exception> {
        // A loss that nobody has noticed yet comes before what ends it.
        self.keep_safe(now);
        for (line, value) in &writes.lines {
            self.plant.may_have(*line, *value)?;
        }
        if let (Some(value), Some(mut watchdog)) = (writes.watchdog, self.watchdog())
            && watchdog.feed(value, now)
        {
            log::info!("the watchdog register is written again: outputs can be written");
        }
        if self.is_lost() == Some(true) && writes.lines.iter().any(|(line, _)| self.map.lines[*line].guarded) {
            return Err(Exception::Busy);
        }
        writes.lines.iter().map(|(line, value)| self.plant.ask(*line, *value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Block, Config, Table};
    use crate::value::Format;

    /// Lines by number: value or exception, and what they were asked for while they do not move.
    struct Bench {
        lines: RefCell<Vec<Result<f64, Exception>>>,
        is_stuck: Cell<bool>,
        under_way: RefCell<BTreeMap<usize, f64>>,
    }

    const SAFE: f64 = 7.0;

    impl Plant for Bench {
        type Asked = usize;

        fn read(&self, line: usize) -> Result<Reading, Exception> {
            self.lines.borrow()[line].map(|value| Reading { value, changes: 70_000 })
        }
        fn under_way(&self, line: usize) -> Option<f64> {
            self.under_way.borrow().get(&line).copied()
        }
        fn may_have(&self, line: usize, value: f64) -> Result<(), Exception> {
            self.lines.borrow()[line]?;
            if (0.0..=10.0).contains(&value) { Ok(()) } else { Err(Exception::IllegalValue) }
        }
        fn ask(&self, line: usize, value: f64) -> Result<usize, Exception> {
            match self.is_stuck.get() {
                true => drop(self.under_way.borrow_mut().insert(line, value)),
                false => self.lines.borrow_mut()[line] = Ok(value),
            }
            Ok(line)
        }
        fn withdraw(&self, asked: &[usize]) {
            self.under_way.borrow_mut().retain(|line, _| !asked.contains(line));
        }
        fn make_safe(&self, line: usize) {
            self.lines.borrow_mut()[line] = Ok(SAFE);
        }
        fn diagnostics(&self, _: Option<bool>) -> Vec<Result<u16, Exception>> {
            vec![Ok(1), Err(Exception::DeviceFailure)]
        }
    }

    fn unit(config: &Config) -> Unit<Bench> {
        let valid = config.valid().expect("good");
        let lines = RefCell::new(vec![Ok(0.0); valid.map.lines.len()]);
        let plant = Bench { lines, is_stuck: Cell::default(), under_way: RefCell::default() };
        let watchdog = config.watchdog.enabled.then(|| Watchdog::new(Duration::from_secs(5), Duration::ZERO));
        Unit::new(valid.map, plant, valid.identity, config.read_only, watchdog)
    }

    /// The answer, with all writes done.
    fn answer(unit: &Unit<Bench>, pdu: &[u8], now: u64) -> Vec<u8> {
        let mut out = vec![0xee];
        if let Handled::Asked(_) = unit.handle(pdu, Duration::from_secs(now), &mut out) {
            unit.finish(pdu, true, &mut out);
        }
        assert_eq!(out.remove(0), 0xee);
        out
    }

    #[test]
    fn the_map_of_the_original_is_read_and_written_as_there() {
        let unit = unit(&Config::default());
        let set = |line: usize, value| unit.plant.lines.borrow_mut()[line] = value;
        assert_eq!(unit.map.lines[0].name, "DI1");
        set(0, Ok(1.0));
        set(2, Ok(1.0));
        for function in [3, 4] {
            let registers = [function, 16, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(answer(&unit, &[function, 0, 0, 0, 8], 0), registers);
            assert_eq!(answer(&unit, &[function, 0, 10, 0, 1], 0), [function, 2, 0, 1], "off is the high level");
            assert_eq!(answer(&unit, &[function, 0, 8, 0, 1], 0), [function | 0x80, 2]);
        }
        assert_eq!(answer(&unit, &[2, 0, 0, 0, 8], 0), [2, 1, 0b101]);
        assert_eq!(answer(&unit, &[5, 0, 0, 0, 0], 0), [5, 0, 0, 0, 0]);
        assert_eq!(answer(&unit, &[1, 0, 0, 0, 8], 0), [1, 1, 0xfe]);
        assert_eq!(answer(&unit, &[15, 0, 0, 0, 8, 1, 0b1010], 0), [15, 0, 0, 0, 8]);
        assert_eq!(answer(&unit, &[1, 0, 0, 0, 8], 0), [1, 1, 0b1010]);
        assert_eq!(answer(&unit, &[3, 0, 10, 0, 4], 0), [3, 8, 0, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(answer(&unit, &[6, 0, 10, 0, 1], 0), [0x86, 2]);
        set(0, Err(Exception::DeviceFailure));
        assert_eq!(answer(&unit, &[3, 0, 0, 0, 8], 0), [0x83, 4]);
        assert_eq!(answer(&unit, &[3, 0, 1, 0, 1], 0), [3, 2, 0, 0]);
        let mut out = vec![];
        assert!(matches!(unit.handle(&[5, 0, 0, 0xff, 0], Duration::ZERO, &mut out), Handled::Asked(_)));
        unit.finish(&[5, 0, 0, 0xff, 0], false, &mut out);
        assert_eq!(out, [0x85, 4], "the output did not get it");
    }

    #[test]
    fn nothing_is_written_when_one_part_cannot_be() {
        let unit = unit(&Config::default());
        let before = unit.plant.lines.borrow().clone();
        unit.plant.lines.borrow_mut()[15] = Err(Exception::Busy);
        assert_eq!(answer(&unit, &[15, 0, 0, 0, 8, 1, 0], 0), [0x8f, 6]);
        assert_eq!(unit.plant.lines.borrow()[..15], before[..15]);
        let read_only = unit_of_read_only();
        for pdu in [&[5, 0, 0, 0xff, 0][..], &[15, 0, 0, 0, 8, 1, 0], &[6, 0, 0, 0, 0], &[22, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(answer(&read_only, pdu, 0), [pdu[0] | 0x80, 1]);
        }
        assert_eq!(answer(&read_only, &[1, 0, 0, 0, 1], 0)[0], 1);
    }

    fn unit_of_read_only() -> Unit<Bench> {
        unit(&Config { read_only: true, ..Config::default() })
    }

    fn analogue() -> Config {
        let block = Block {
            tables: vec![Table::HoldingRegisters],
            lines: vec!["AO1".into(), "AO2".into()],
            writable: Some(true),
            scale: 100.0,
            ..Block::default()
        };
        let wide = Block { address: 10, format: Format::F32, scale: 1.0, ..block.clone() };
        let mut config = Config { map: vec![block, wide], ..Config::default() };
        config.watchdog.enabled = true;
        config.watchdog.outputs = vec!["AO1".into()];
        config.diagnostics.enabled = true;
        config
    }

    #[test]
    fn registers_of_outputs_are_written_masked_and_exchanged() {
        let unit = unit(&analogue());
        assert_eq!(answer(&unit, &[6, 0, 0, 0, 250], 0), [6, 0, 0, 0, 250]);
        assert_eq!(answer(&unit, &[3, 0, 10, 0, 2], 0), [3, 4, 0x40, 0x20, 0, 0], "2.5 as it is");
        // (250 and 0x00f0) or (0x0005 and not 0x00f0)
        assert_eq!(answer(&unit, &[22, 0, 0, 0, 0xf0, 0, 5], 0), [22, 0, 0, 0, 0xf0, 0, 5]);
        assert_eq!(answer(&unit, &[3, 0, 0, 0, 1], 0), [3, 2, 0, 0xf5]);
        let exchange = [23, 0, 0, 0, 2, 0, 1, 0, 1, 2, 0, 100];
        assert_eq!(answer(&unit, &exchange, 0), [23, 4, 0, 0xf5, 0, 100], "written first, then read");
        assert_eq!(answer(&unit, &[16, 0, 0, 0, 2, 4, 0, 1, 0x10, 0], 0), [0x90, 3], "40.96 is more than it can have");
        assert_eq!(answer(&unit, &[3, 0, 0, 0, 2], 0), [3, 4, 0, 0xf5, 0, 100], "and nothing was written");
        assert_eq!(answer(&unit, &[23, 0, 50, 0, 2, 0, 1, 0, 1, 2, 0, 1], 0), [0x97, 2]);
        // Register 1001 is not known.
        assert_eq!(answer(&unit, &[23, 0x03, 0xe9, 0, 1, 0, 1, 0, 1, 2, 0, 1], 0), [0x97, 4]);
        assert_eq!(answer(&unit, &[3, 0, 1, 0, 1], 0), [3, 2, 0, 100], "neither has been written");
        assert_eq!(answer(&unit, &[22, 0, 10, 0, 0, 0, 0], 0), [0x96, 2], "half of a number");
        let nan = [16, 0, 10, 0, 2, 4, 0x7f, 0xc0, 0, 0];
        assert_eq!(answer(&unit, &nan, 0), [0x90, 3]);
    }

    #[test]
    fn a_lost_master_must_write_its_register_before_its_outputs() {
        let unit = unit(&analogue());
        let second = Duration::from_secs;
        let watchdog = [6, 0x03, 0x84, 0, 9];
        assert_eq!(answer(&unit, &watchdog, 2), watchdog);
        assert!(!unit.turn_watchdog(second(6)) && unit.turn_watchdog(second(7)) && unit.watchdog_due().is_none());
        assert_eq!(unit.plant.lines.borrow()[..], [Ok(SAFE), Ok(0.0)]);
        assert!(!unit.turn_watchdog(second(8)), "told once");
        assert_eq!(answer(&unit, &[6, 0, 0, 0, 1], 8), [0x86, 6]);
        assert_eq!(answer(&unit, &[16, 0, 0, 0, 2, 4, 0, 1, 0, 1], 8), [0x90, 6]);
        assert_eq!(answer(&unit, &[6, 0, 1, 0, 1], 8), [6, 0, 1, 0, 1], "another output");
        assert_eq!(answer(&unit, &[3, 0x03, 0x84, 0, 1], 8), [3, 2, 0, 9], "what was written last");
        assert_eq!(answer(&unit, &watchdog, 9), watchdog);
        assert_eq!(answer(&unit, &[6, 0, 0, 0, 1], 9), [6, 0, 0, 0, 1]);
    }

    #[test]
    fn a_loss_that_is_noticed_late_is_none_the_less() {
        let second = Duration::from_secs;
        let exchange = [23, 0x03, 0x84, 0, 1, 0x03, 0x84, 0, 1, 2, 0, 9];
        let watchdog = [6, 0x03, 0x84, 0, 9];
        for feed in [&watchdog[..], &exchange] {
            let unit = unit(&analogue());
            assert_eq!(answer(&unit, &[6, 0, 0, 0, 100], 1), [6, 0, 0, 0, 100]);
            // Nobody has looked at the clock meanwhile.
            assert_eq!(answer(&unit, feed, 6)[0], feed[0]);
            assert_eq!(unit.plant.lines.borrow()[0], Ok(SAFE), "before the register counts as written again");
            assert_eq!(unit.is_lost(), Some(false));
            assert!(unit.turn_watchdog(second(6)), "it is told");
            assert_eq!(answer(&unit, &[6, 0, 0, 0, 100], 7), [6, 0, 0, 0, 100]);
            assert!(!unit.turn_watchdog(second(8)) && unit.plant.lines.borrow()[0] == Ok(1.0), "once");
        }
        let unit = unit(&analogue());
        assert_eq!(answer(&unit, &[6, 0, 0, 0, 100], 5), [0x86, 6], "too late, whoever looks first");
    }

    #[test]
    fn two_masks_before_a_scan_are_both_carried_out() {
        let unit = unit(&analogue());
        assert_eq!(answer(&unit, &[6, 0, 0, 0, 0x10], 0), [6, 0, 0, 0, 0x10]);
        unit.plant.is_stuck.set(true);
        let mut out = Vec::new();
        let mut mask = |set: u8| match unit.handle(&[22, 0, 0, 0xff, !set, 0, set], Duration::ZERO, &mut out) {
            Handled::Asked(asked) => asked,
            Handled::Answered => panic!("refused"),
        };
        mask(1);
        let last = mask(2);
        assert_eq!(unit.plant.under_way(0), Some(0.19), "10h, 1 and 2, in hundredths");
        unit.plant.withdraw(&last);
        mask(4);
        assert_eq!(unit.plant.under_way(0), Some(0.2), "what was withdrawn does not count");
    }

    #[test]
    fn diagnostics_and_identification_are_told() {
        let unit = unit(&analogue());
        assert_eq!(answer(&unit, &[4, 0x03, 0xe8, 0, 1], 0), [4, 2, 0, 1]);
        assert_eq!(answer(&unit, &[4, 0x03, 0xe8, 0, 2], 0), [0x84, 4]);
        assert_eq!(answer(&unit, &[43, 14, 4, 0], 0)[9..], *b"multusd");
        assert_eq!(answer(&unit, &[43, 14, 4, 99], 0), [0xab, 2]);
        assert_eq!(answer(&unit, &[99], 0), [0xe3, 1]);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_is_answered_within_a_frame(pdu in proptest::collection::vec(0u8.., 1..254), function in 0u8..26) {
            let mut pdu = pdu;
            if function < 24 {
                pdu[0] = function;
            }
            for config in [Config::default(), analogue()] {
                let unit = unit(&config);
                let out = answer(&unit, &pdu, 0);
                assert!((2..=253).contains(&out.len()));
                assert!(out[0] == pdu[0] || (out[0] == pdu[0] | 0x80 && out.len() == 2 && matches!(out[1], 1..=4 | 6)));
            }
        }
    }
}
