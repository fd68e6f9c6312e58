//! One configuration file while it is read: its text, its findings, and typed access to its keys.
//!
//! [`Section`] hands out the keys of one table as [`Field`]s and remembers which keys were asked for, so the list of known
//! keys is written once: where they are read. A [`Field`] turns into a value or leaves a finding behind; reading goes on
//! either way, so that one pass finds everything.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml_edit::{ArrayOfTables, Document, Item, TableLike, Value};

use super::diagnose::{Diagnostic, Severity, nearest};
use super::units::{format_duration, format_size, parse_duration, parse_size, quote};

/// A place in a file; line and column from 1, both 0 for the file as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// One file being read, and what was found wrong in it.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    child: Option<&'a str>,
    file: &'a Path,
    text: &'a str,
    found: RefCell<Found>,
}

#[derive(Debug, Default)]
struct Found {
    diagnostics: Vec<Diagnostic>,
    /// Where each key that was read stands.
    positions: BTreeMap<String, Position>,
    /// Full names of all keys that may be written, to recognize one in a wrong table.
    known: Vec<String>,
    unknown: Vec<Unknown>,
}

#[derive(Debug)]
struct Unknown {
    at: Position,
    table: String,
    key: String,
    siblings: Vec<&'static str>,
}

/// What is left of a file after it was read.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) positions: Positions,
}

impl Outcome {
    pub(crate) fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }
}

/// Where the keys of a file stand, for findings that show only when files are compared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Positions {
    file: PathBuf,
    keys: BTreeMap<String, Position>,
}

impl Positions {
    /// A finding at `key`, or at the file as a whole when the key is not written there.
    pub(crate) fn finding(&self, severity: Severity, child: Option<&str>, key: &str, message: String) -> Diagnostic {
        let at = self.keys.get(key).copied().unwrap_or_default();
        let found = Diagnostic::of_file(severity, child, &self.file, message);
        Diagnostic { line: at.line, column: at.column, key: key.to_owned(), ..found }
    }
}

impl<'a> Source<'a> {
    pub(crate) fn new(child: Option<&'a str>, file: &'a Path, text: &'a str) -> Self {
        Self { child, file, text, found: RefCell::default() }
    }

    /// Parses the text; `None` after a syntax error, which is then among the findings.
    pub(crate) fn document(&self) -> Option<Document<&'a str>> {
        match Document::parse(self.text) {
            Ok(document) => Some(document),
            Err(error) => {
                let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
                self.report(Severity::Error, self.position(error.span()), "", format!("not valid TOML: {message}"));
                None
            }
        }
    }

    /// Ends the reading: unknown keys become findings, all in the order of the file.
    pub(crate) fn finish(self) -> Outcome {
        let found = self.found.take();
        for Unknown { at, table, key, siblings } in found.unknown {
            let elsewhere =
                || found.known.iter().find(|k| k.rsplit('.').next() == Some(key.as_str())).map(String::as_str);
            let meant = nearest(&key, siblings.iter().copied()).or_else(elsewhere).map(str::to_owned);
            self.report(Severity::Error, at, &join(&table, &key), "unknown key".to_owned());
            if let Some(last) = self.found.borrow_mut().diagnostics.last_mut() {
                last.nearest = meant;
            }
        }
        let mut diagnostics = found.diagnostics;
        diagnostics.append(&mut self.found.take().diagnostics);
        diagnostics.sort_by_key(|d| (d.line, d.column));
        Outcome { diagnostics, positions: Positions { file: self.file.to_path_buf(), keys: found.positions } }
    }

    pub(crate) fn report(&self, severity: Severity, at: Position, key: &str, message: String) {
        let found = Diagnostic::of_file(severity, self.child, self.file, message);
        let found = Diagnostic { line: at.line, column: at.column, key: key.to_owned(), ..found };
        self.found.borrow_mut().diagnostics.push(found);
    }

    fn position(&self, span: Option<Range<usize>>) -> Position {
        let Some(before) = span.and_then(|span| self.text.get(..span.start.min(self.text.len()))) else {
            return Position::default();
        };
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Position { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

/// One table of the file, or its absence.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    source: &'a Source<'a>,
    table: Option<TableRef<'a>>,
    path: String,
    at: Position,
    asked: RefCell<Vec<&'static str>>,
}

#[derive(Clone, Copy)]
struct TableRef<'a>(&'a dyn TableLike);

impl std::fmt::Debug for TableRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table of {}", self.0.len())
    }
}

impl<'a> Section<'a> {
    /// The outermost table of `document`.
    pub(crate) fn root(source: &'a Source<'a>, document: &'a Document<&'a str>) -> Self {
        Self::new(source, Some(TableRef(document.as_table())), String::new(), Position::default())
    }

    fn new(source: &'a Source<'a>, table: Option<TableRef<'a>>, path: String, at: Position) -> Self {
        Self { source, table, path, at, asked: RefCell::default() }
    }

    pub(crate) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The key `key` of this table, if it is written.
    pub(crate) fn field(&self, key: &'static str) -> Option<Field<'a>> {
        self.asked.borrow_mut().push(key);
        let (written, item) = self.table?.0.get_key_value(key)?;
        let node = Node::of_item(item)?;
        let at = self.source.position(written.span().or_else(|| item.span()));
        let path = join(&self.path, key);
        self.source.found.borrow_mut().positions.insert(path.clone(), at);
        Some(Field { source: self.source, node, path, at })
    }

    /// The table `key` of this table; absent if it is not written or is no table.
    pub(crate) fn section(&self, key: &'static str) -> Section<'a> {
        let field = self.field(key);
        let at = field.as_ref().map_or(self.at, |f| f.at);
        Section::new(self.source, field.and_then(|f| f.table()), join(&self.path, key), at)
    }

    /// A finding about the table as a whole or one key that is not written.
    pub(crate) fn error(&self, key: &str, message: impl Into<String>) {
        self.source.report(Severity::Error, self.at, &join(&self.path, key), message.into());
    }

    /// Ends the reading of this table: keys nobody asked for are unknown.
    pub(crate) fn finish(self) {
        let asked = self.asked.take();
        let mut found = self.source.found.borrow_mut();
        if !self.path.contains('[') {
            found.known.extend(asked.iter().map(|key| join(&self.path, key)));
        }
        let Some(TableRef(table)) = self.table else { return };
        for (key, item) in table.iter().filter(|(key, _)| !asked.contains(key)) {
            let span = table.get_key_value(key).and_then(|(written, _)| written.span()).or_else(|| item.span());
            let at = self.source.position(span);
            found.unknown.push(Unknown { at, table: self.path.clone(), key: key.to_owned(), siblings: asked.clone() });
        }
    }

    // What most keys need: a value of one kind, within a range, `default` when it is not written. After a finding the
    // default stands in; it is never used, because the file is refused.

    pub(crate) fn duration(&self, key: &'static str, range: RangeInclusive<Duration>, default: Duration) -> Duration {
        self.field(key).and_then(|f| f.duration(range)).unwrap_or(default)
    }

    pub(crate) fn integer<T: TryFrom<i64>>(&self, key: &'static str, range: RangeInclusive<i64>, default: T) -> T {
        self.field(key).and_then(|f| f.integer(range)).unwrap_or(default)
    }

    pub(crate) fn size(&self, key: &'static str, range: RangeInclusive<u64>, default: u64) -> u64 {
        self.field(key).and_then(|f| f.size(range)).unwrap_or(default)
    }

    pub(crate) fn boolean(&self, key: &'static str, default: bool) -> bool {
        self.field(key).and_then(|f| f.boolean()).unwrap_or(default)
    }

    pub(crate) fn number(&self, key: &'static str, range: RangeInclusive<f64>, default: f64) -> f64 {
        self.field(key).and_then(|f| f.number(range)).unwrap_or(default)
    }

    pub(crate) fn text(&self, key: &'static str) -> Option<String> {
        self.field(key).and_then(|f| f.line(LONGEST_TEXT))
    }

    /// A program and its arguments.
    pub(crate) fn command(&self, key: &'static str) -> Option<Vec<String>> {
        self.field(key).and_then(|f| f.command())
    }

    /// One of `words`, as the value that stands beside it.
    pub(crate) fn word<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)], default: T) -> T {
        self.field(key).and_then(|f| f.word(words)).unwrap_or(default)
    }
}

/// One value that is written in the file.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    source: &'a Source<'a>,
    node: Node<'a>,
    pub(crate) path: String,
    pub(crate) at: Position,
}

#[derive(Clone, Copy, Debug)]
enum Node<'a> {
    Value(&'a Value),
    Table(TableRef<'a>),
    Tables(&'a ArrayOfTables),
}

impl<'a> Node<'a> {
    fn of_item(item: &'a Item) -> Option<Self> {
        match item {
            Item::None => None,
            Item::Value(value) => Some(Self::of_value(value)),
            Item::Table(table) => Some(Self::Table(TableRef(table))),
            Item::ArrayOfTables(tables) => Some(Self::Tables(tables)),
        }
    }

    fn of_value(value: &'a Value) -> Self {
        match value {
            Value::InlineTable(table) => Self::Table(TableRef(table)),
            _ => Self::Value(value),
        }
    }

    /// What stands there, in words.
    fn found(self) -> String {
        match self {
            Self::Value(Value::String(text)) => format!("the text {}", quote(text.value())),
            Self::Value(Value::Integer(number)) => format!("the integer {}", number.value()),
            Self::Value(Value::Float(number)) => format!("the number {}", number.value()),
            Self::Value(Value::Boolean(value)) => format!("{}", value.value()),
            Self::Value(Value::Datetime(_)) => "a date".to_owned(),
            Self::Value(Value::Array(_)) | Self::Tables(_) => "a list".to_owned(),
            Self::Value(Value::InlineTable(_)) | Self::Table(_) => "a table".to_owned(),
        }
    }
}

impl<'a> Field<'a> {
    pub(crate) fn error(&self, message: impl Into<String>) {
        self.source.report(Severity::Error, self.at, &self.path, message.into());
    }

    pub(crate) fn warn(&self, message: impl Into<String>) {
        self.source.report(Severity::Warning, self.at, &self.path, message.into());
    }

    fn expected<T>(&self, what: &str) -> Option<T> {
        self.error(format!("found {}, expected {what}", self.node.found()));
        None
    }

    fn table(&self) -> Option<TableRef<'a>> {
        match self.node {
            Node::Table(table) => Some(table),
            _ => self.expected("a table"),
        }
    }

    /// This value as a table, when it is one; no finding otherwise.
    pub(crate) fn as_section(&self) -> Option<Section<'a>> {
        match self.node {
            Node::Table(table) => Some(Section::new(self.source, Some(table), self.path.clone(), self.at)),
            _ => None,
        }
    }

    /// All keys and values of a table whose keys are free to choose.
    pub(crate) fn entries(&self) -> Option<Vec<(String, Field<'a>)>> {
        let TableRef(table) = self.table()?;
        let entries = table.iter().filter_map(|(key, item)| {
            let span = table.get_key_value(key).and_then(|(written, _)| written.span()).or_else(|| item.span());
            let path = join(&self.path, key);
            let at = self.source.position(span);
            self.source.found.borrow_mut().positions.insert(path.clone(), at);
            Some((key.to_owned(), Field { source: self.source, node: Node::of_item(item)?, path, at }))
        });
        Some(entries.collect())
    }

    /// The elements of a list.
    pub(crate) fn elements(&self) -> Option<Vec<Field<'a>>> {
        let element = |index: usize, node: Node<'a>, span: Option<Range<usize>>| {
            let at = self.source.position(span.clone());
            let at = if span.is_some() { at } else { self.at };
            Field { source: self.source, node, path: format!("{}[{index}]", self.path), at }
        };
        match self.node {
            Node::Value(Value::Array(array)) => Some(
                array.iter().enumerate().map(|(i, value)| element(i, Node::of_value(value), value.span())).collect(),
            ),
            Node::Tables(tables) => {
                let tables = tables.iter().enumerate();
                Some(tables.map(|(i, table)| element(i, Node::Table(TableRef(table)), table.span())).collect())
            }
            _ => self.expected("a list"),
        }
    }

    /// Any text, without the one character that cannot be handed to a process.
    pub(crate) fn text(&self) -> Option<String> {
        match self.node {
            Node::Value(Value::String(text)) if text.value().contains('\0') => {
                self.error("contains a zero byte, which no program argument can hold");
                None
            }
            Node::Value(Value::String(text)) => Some(text.value().clone()),
            _ => self.expected("a text in quotes"),
        }
    }

    /// A text that is not empty, has no control characters and at most `longest` bytes.
    pub(crate) fn line(&self, longest: usize) -> Option<String> {
        let text = self.text()?;
        let message = if text.trim().is_empty() {
            "empty, expected a text".to_owned()
        } else if text.chars().any(char::is_control) {
            format!("{} contains a control character, expected one line", quote(&text))
        } else if text.len() > longest {
            format!("{} bytes long, at most {longest} are allowed", text.len())
        } else {
            return Some(text);
        };
        self.error(message);
        None
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match self.node {
            Node::Value(Value::Boolean(value)) => Some(*value.value()),
            _ => self.expected("true or false"),
        }
    }

    pub(crate) fn integer<T: TryFrom<i64>>(&self, range: RangeInclusive<i64>) -> Option<T> {
        let what = || format!("an integer from {} to {}", range.start(), range.end());
        let Node::Value(Value::Integer(number)) = self.node else { return self.expected(&what()) };
        let in_range = Some(*number.value()).filter(|n| range.contains(n)).and_then(|n| T::try_from(n).ok());
        in_range.or_else(|| self.expected(&what()))
    }

    pub(crate) fn number(&self, range: RangeInclusive<f64>) -> Option<f64> {
        let value = match self.node {
            Node::Value(Value::Float(number)) => *number.value(),
            #[expect(
                clippy::cast_precision_loss,
                reason = "the ranges used here lie far inside what f64 holds exactly"
            )]
            Node::Value(Value::Integer(number)) => *number.value() as f64,
            _ => f64::NAN,
        };
        if range.contains(&value) {
            return Some(value);
        }
        self.expected(&format!("a number from {} to {}", range.start(), range.end()))
    }

    /// Whether it is exactly this text.
    pub(crate) fn is_text(&self, wanted: &str) -> bool {
        matches!(self.node, Node::Value(Value::String(text)) if text.value() == wanted)
    }

    pub(crate) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let Node::Value(Value::String(text)) = self.node else {
            return self.expected("a duration in quotes such as \"200ms\" or \"1h30min\"");
        };
        match parse_duration(text.value()) {
            Ok(duration) if range.contains(&duration) => Some(duration),
            Ok(duration) => {
                let side = if duration < *range.start() { "too short" } else { "too long" };
                let (from, to) = (format_duration(*range.start()), format_duration(*range.end()));
                self.error(format!("{} is {side}, expected {from} to {to}", quote(text.value())));
                None
            }
            Err(message) => {
                self.error(message);
                None
            }
        }
    }

    pub(crate) fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let parsed = match self.node {
            Node::Value(Value::Integer(number)) => u64::try_from(*number.value()).map_err(|_| "negative".to_owned()),
            Node::Value(Value::String(text)) => parse_size(text.value()),
            _ => return self.expected("a size such as \"512KiB\" or a number of bytes"),
        };
        match parsed {
            Ok(bytes) if range.contains(&bytes) => return Some(bytes),
            Ok(bytes) => {
                let (from, to) = (format_size(*range.start()), format_size(*range.end()));
                let side = if bytes < *range.start() { "too small" } else { "too large" };
                self.error(format!("{} is {side}, expected {from} to {to}", format_size(bytes)));
            }
            Err(message) => self.error(message),
        }
        None
    }

    pub(crate) fn word<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let list = || words.iter().map(|(word, _)| quote(word)).collect::<Vec<_>>().join(", ");
        let Node::Value(Value::String(text)) = self.node else { return self.expected(&format!("one of {}", list())) };
        let found = words.iter().find(|(word, _)| word == text.value()).map(|&(_, value)| value);
        if found.is_none() {
            self.unknown_word(text.value(), &list(), words.iter().map(|&(word, _)| word));
        }
        found
    }

    /// A finding about a word that is not one of `known`, with the nearest of them.
    pub(crate) fn unknown_word<'k>(&self, word: &str, expected: &str, known: impl IntoIterator<Item = &'k str>) {
        self.error(format!("unknown word {}, expected one of {expected}", quote(word)));
        if let Some(last) = self.source.found.borrow_mut().diagnostics.last_mut() {
            last.nearest = nearest(word, known).map(str::to_owned);
        }
    }

    /// A program and its arguments: a list of texts, the first not empty.
    pub(crate) fn command(&self) -> Option<Vec<String>> {
        if let Node::Value(Value::String(text)) = self.node {
            let words: Vec<_> = text.value().split_whitespace().map(quote).collect();
            self.error(format!("found a text, expected a list: no shell reads it; write [{}]", words.join(", ")));
            return None;
        }
        let elements = self.elements()?;
        let count = elements.len();
        let words: Vec<String> = elements.iter().filter_map(Field::text).collect();
        match words.first() {
            _ if words.len() < count => None,
            Some(program) if !program.is_empty() => Some(words),
            _ => {
                self.error("empty, expected a program and its arguments such as [\"/usr/bin/program\", \"--option\"]");
                None
            }
        }
    }

    /// A file mode mask, written `"0027"` or `0o027`.
    pub(crate) fn octal(&self, largest: u32) -> Option<u32> {
        const EXPECTED: &str = "an octal number in quotes such as \"0027\"";
        let value = match self.node {
            Node::Value(Value::String(text)) => u32::from_str_radix(text.value(), 8).ok(),
            // A decimal 27 is 0o33, hardly what its writer meant.
            Node::Value(Value::Integer(number)) if number.display_repr().starts_with("0o") => {
                u32::try_from(*number.value()).ok()
            }
            Node::Value(Value::Integer(number)) if *number.value() == 0 => Some(0),
            _ => return self.expected(EXPECTED),
        };
        match value.filter(|mask| *mask <= largest) {
            Some(mask) => Some(mask),
            None => self.expected(&format!("{EXPECTED}, at most {largest:o}")),
        }
    }

    /// A boolean, a number, or one of two words, as a number.
    pub(crate) fn output(&self) -> Option<f64> {
        match self.node {
            Node::Value(Value::Boolean(on)) => Some(if *on.value() { 1.0 } else { 0.0 }),
            Node::Value(Value::String(_)) => self.word(&[("on", 1.0), ("off", 0.0)]),
            Node::Value(Value::Integer(_) | Value::Float(_)) => self.number(-1e9..=1e9),
            _ => self.expected("\"on\", \"off\", true, false or a number"),
        }
    }
}

fn join(table: &str, key: &str) -> String {
    match (table, key) {
        ("", _) => key.to_owned(),
        (_, "") => table.to_owned(),
        _ => format!("{table}.{key}"),
    }
}

const LONGEST_TEXT: usize = 200;
