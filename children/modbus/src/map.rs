//! What stands at which address. Pure.

use std::collections::BTreeMap;

use multus_child::lines::Wanted;

use crate::config::{Block, Config, Shows, Table};
use crate::diagnostics;
use crate::pdu::{Bits, Exception, Registers};
use crate::value::{Format, WordOrder};

/// All tables. Lines are numbers of [`Map::lines`].
#[derive(Debug, Default)]
pub(crate) struct Map {
    /// Names of the lines, each once.
    pub(crate) lines: Vec<LineUse>,
    coils: Cells<Bit>,
    inputs: Cells<Bit>,
    holding: Cells<Word>,
    input_registers: Cells<Word>,
    /// What registers of lines show.
    pub(crate) points: Vec<Point>,
}

/// A line as the map uses it.
#[derive(Debug)]
pub(crate) struct LineUse {
    pub(crate) name: String,
    /// It must be digital.
    pub(crate) digital: bool,
    /// Masters may write it.
    pub(crate) written: bool,
    /// Its last value is lost with the master.
    pub(crate) guarded: bool,
}

/// A coil or discrete input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bit {
    pub(crate) line: usize,
    pub(crate) inverted: bool,
    writable: bool,
}

/// What a register belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The n-th register of a point.
    Point { point: usize, word: u8 },
    /// The watchdog.
    Watchdog,
    /// The n-th register about the device.
    Diagnostic(usize),
}

/// A line in registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) line: usize,
    shows: Shows,
    format: Format,
    order: WordOrder,
    inverted: bool,
    scale: f64,
    offset: f64,
    writable: bool,
}

/// What a request wants to write.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Writes {
    /// Lines and values.
    pub(crate) lines: Vec<(usize, f64)>,
    /// The watchdog register.
    pub(crate) watchdog: Option<u16>,
}

/// What one table holds, in the order of addresses.
#[derive(Debug)]
struct Cells<T>(Vec<(u16, T)>);

impl<T> Default for Cells<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Cells<T> {
    /// `count` cells without a gap.
    fn get(&self, address: u16, count: usize) -> Result<impl Iterator<Item = &T>, Exception> {
        let begin = self.0.partition_point(|(own, _)| *own < address);
        let cells = self.0.get(begin..begin + count).ok_or(Exception::IllegalAddress)?;
        // Addresses rise, so the ends decide.
        let last = cells.last().map(|(own, _)| usize::from(*own));
        if cells.first().is_none_or(|(own, _)| *own != address) || last != Some(usize::from(address) + count - 1) {
            return Err(Exception::IllegalAddress);
        }
        Ok(cells.iter().map(|(_, cell)| cell))
    }
}

impl Map {
    /// The map of a configuration; what is wrong with it is added to `wrong`.
    pub(crate) fn new(config: &Config, wrong: &mut Vec<String>) -> Self {
        let mut builder = Builder { read_only: config.read_only, ..Builder::default() };
        for (index, block) in config.map.iter().enumerate() {
            builder.block(&format!("map[{index}]"), block, wrong);
        }
        if config.map.len() > MOST_BLOCKS {
            wrong.push(format!("map: found {} blocks, expected at most {MOST_BLOCKS}", config.map.len()));
        }
        if config.watchdog.enabled {
            builder.put(
                Table::HoldingRegisters,
                "watchdog.address",
                config.watchdog.address.into(),
                Cell::Word(Word::Watchdog),
                wrong,
            );
        }
        if config.diagnostics.enabled {
            for word in 0..diagnostics::registers(config.diagnostics.children.len()) {
                for table in [Table::HoldingRegisters, Table::InputRegisters] {
                    let address = usize::from(config.diagnostics.address) + word;
                    builder.put(table, "diagnostics.address", address, Cell::Word(Word::Diagnostic(word)), wrong);
                }
            }
        }
        builder.finish(config, wrong)
    }

    /// What the lines must be.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = Wanted<'_>> {
        self.lines.iter().map(|line| Wanted {
            name: &line.name,
            digital: line.digital.then_some(true),
            owned: line.written,
        })
    }

    /// Bits to read.
    pub(crate) fn bits(&self, table: Bits, address: u16, count: u16) -> Result<impl Iterator<Item = &Bit>, Exception> {
        let cells = match table {
            Bits::Coils => &self.coils,
            Bits::Inputs => &self.inputs,
        };
        cells.get(address, count.into())
    }

    /// Registers to read.
    pub(crate) fn words(
        &self,
        table: Registers,
        address: u16,
        count: u16,
    ) -> Result<impl Iterator<Item = &Word>, Exception> {
        let cells = match table {
            Registers::Holding => &self.holding,
            Registers::Inputs => &self.input_registers,
        };
        cells.get(address, count.into())
    }

    /// Coils to write.
    ///
    /// # Errors
    /// One of them is not there, or cannot be written.
    pub(crate) fn write_coils(
        &self,
        address: u16,
        values: impl ExactSizeIterator<Item = bool>,
    ) -> Result<Writes, Exception> {
        let cells = self.coils.get(address, values.len())?;
        let write = |(cell, value): (&Bit, bool)| {
            let value = f64::from(u8::from(value != cell.inverted));
            cell.writable.then_some((cell.line, value)).ok_or(Exception::IllegalAddress)
        };
        let lines: Result<_, _> = cells.zip(values).map(write).collect();
        Ok(Writes { lines: lines?, watchdog: None })
    }

    /// Holding registers to write.
    ///
    /// # Errors
    /// One of them is not there, cannot be written, or is half of a number.
    pub(crate) fn write_words(&self, address: u16, values: &[u16]) -> Result<Writes, Exception> {
        let cells: Vec<&Word> = self.holding.get(address, values.len())?.collect();
        let mut writes = Writes::default();
        let mut at = 0;
        while at < cells.len() {
            match *cells[at] {
                Word::Watchdog => writes.watchdog = Some(values[at]),
                Word::Point { point: number, word: 0 } => {
                    let point = &self.points[number];
                    let words = usize::from(point.format.words());
                    let last = cells.get(at + words - 1);
                    let is_whole =
                        last.is_some_and(|cell| matches!(cell, Word::Point { point, .. } if *point == number));
                    if !point.writable || !is_whole {
                        return Err(Exception::IllegalAddress);
                    }
                    let second = if words == 2 { values[at + 1] } else { 0 };
                    writes.lines.push((point.line, point.number([values[at], second])));
                    at += words - 1;
                }
                Word::Point { .. } | Word::Diagnostic(_) => return Err(Exception::IllegalAddress),
            }
            at += 1;
        }
        Ok(writes)
    }
}

impl Point {
    /// The registers that show this; `None`: the number has no place in them.
    pub(crate) fn registers(&self, value: f64, changes: u64) -> Option<[u16; 2]> {
        let value = if self.inverted { 1.0 - value } else { value };
        match self.shows {
            Shows::Value => self.format.encode(value * self.scale + self.offset, self.order),
            Shows::Edges => Some(self.format.encode_counter(changes, self.order)),
            // Digital lines change in turn: of an odd number of changes the last one, which the value tells, is one more.
            Shows::RisingEdges => {
                let rising = changes / 2 + u64::from(changes % 2 == 1 && value != 0.0);
                Some(self.format.encode_counter(rising, self.order))
            }
        }
    }

    fn number(&self, words: [u16; 2]) -> f64 {
        let value = (self.format.decode(words, self.order) - self.offset) / self.scale;
        if self.inverted { 1.0 - value } else { value }
    }
}

/// Most blocks of a configuration.
const MOST_BLOCKS: usize = 256;

enum Cell {
    Bit(Bit),
    Word(Word),
}

#[derive(Default)]
struct Builder {
    /// Nothing is written, whatever the blocks say.
    read_only: bool,
    map: Map,
    coils: BTreeMap<u16, Bit>,
    inputs: BTreeMap<u16, Bit>,
    holding: BTreeMap<u16, Word>,
    input_registers: BTreeMap<u16, Word>,
}

impl Builder {
    fn block(&mut self, key: &str, block: &Block, wrong: &mut Vec<String>) {
        let has = |table| block.tables.contains(&table);
        let is_bits = has(Table::Coils) || has(Table::DiscreteInputs);
        let mut refuse = |field: &str, reason: &str| wrong.push(format!("{key}.{field}: {reason}"));
        if block.tables.is_empty() {
            refuse("tables", "where the lines stand is missing, such as [\"coils\"]");
        }
        if block.lines.is_empty() {
            refuse("lines", "names of lines are missing");
        }
        if block.writable == Some(true) && !has(Table::Coils) && !has(Table::HoldingRegisters) {
            refuse("writable", "only coils and holding registers can be written");
        }
        if block.shows != Shows::Value && (is_bits || block.writable == Some(true)) {
            refuse("shows", "counters stand in registers and cannot be written");
        }
        if !block.scale.is_finite() || block.scale == 0.0 || !block.offset.is_finite() {
            refuse("scale", "expected numbers, scale other than 0");
        }
        if block.inverted && (block.scale != 1.0 || block.offset != 0.0) {
            refuse("inverted", "only digital lines can be inverted, which are not scaled");
        }
        let digital = is_bits || block.inverted || block.shows != Shows::Value;
        for table in &block.tables {
            let is_written = match table {
                Table::Coils => block.writable.unwrap_or(true),
                Table::HoldingRegisters => block.writable.unwrap_or(false),
                Table::DiscreteInputs | Table::InputRegisters => false,
            } && !self.read_only;
            let words = if matches!(table, Table::Coils | Table::DiscreteInputs) { 1 } else { block.format.words() };
            for (index, name) in block.lines.iter().enumerate() {
                let line = self.line(name, digital, is_written);
                let first = usize::from(block.address) + index * usize::from(words);
                if matches!(table, Table::Coils | Table::DiscreteInputs) {
                    let bit = Bit { line, inverted: block.inverted, writable: is_written };
                    self.put(*table, &format!("{key}.address"), first, Cell::Bit(bit), wrong);
                    continue;
                }
                let point = self.map.points.len();
                self.map.points.push(Point {
                    line,
                    shows: block.shows,
                    format: block.format,
                    order: block.word_order,
                    inverted: block.inverted,
                    scale: block.scale,
                    offset: block.offset,
                    writable: is_written,
                });
                for word in 0..words {
                    let cell = Cell::Word(Word::Point { point, word });
                    self.put(*table, &format!("{key}.address"), first + usize::from(word), cell, wrong);
                }
            }
        }
    }

    fn line(&mut self, name: &str, digital: bool, written: bool) -> usize {
        let lines = &mut self.map.lines;
        let at = lines.iter().position(|line| line.name == name).unwrap_or_else(|| {
            lines.push(LineUse { name: name.to_owned(), digital: false, written: false, guarded: false });
            lines.len() - 1
        });
        lines[at].digital |= digital;
        lines[at].written |= written;
        at
    }

    fn put(&mut self, table: Table, key: &str, address: usize, cell: Cell, wrong: &mut Vec<String>) {
        let Ok(address) = u16::try_from(address) else {
            tell_once(wrong, format!("{key}: goes beyond address 65535"));
            return;
        };
        let is_taken = match (table, cell) {
            (Table::Coils, Cell::Bit(bit)) => self.coils.insert(address, bit).is_some(),
            (Table::DiscreteInputs, Cell::Bit(bit)) => self.inputs.insert(address, bit).is_some(),
            (Table::HoldingRegisters, Cell::Word(word)) => self.holding.insert(address, word).is_some(),
            (Table::InputRegisters, Cell::Word(word)) => self.input_registers.insert(address, word).is_some(),
            // Bits stand among bits, words among words.
            _ => false,
        };
        if is_taken {
            tell_once(wrong, format!("{key}: something stands at an address of these already"));
        }
    }

    fn finish(mut self, config: &Config, wrong: &mut Vec<String>) -> Map {
        self.map.coils = Cells(self.coils.into_iter().collect());
        self.map.inputs = Cells(self.inputs.into_iter().collect());
        self.map.holding = Cells(self.holding.into_iter().collect());
        self.map.input_registers = Cells(self.input_registers.into_iter().collect());
        let outputs = &config.watchdog.outputs;
        if config.watchdog.enabled {
            for line in self.map.lines.iter_mut().filter(|line| line.written) {
                line.guarded = outputs.is_empty() || outputs.contains(&line.name);
            }
            for (index, name) in outputs.iter().enumerate() {
                if !self.map.lines.iter().any(|line| line.guarded && line.name == *name) {
                    wrong.push(format!(
                        "watchdog.outputs[{index}]: {name:?} is no output of the map that can be written"
                    ));
                }
            }
        }
        self.map
    }
}

fn tell_once(wrong: &mut Vec<String>, reason: String) {
    if !wrong.contains(&reason) {
        wrong.push(reason);
    }
}

#[cfg(test)]
mod tests;
