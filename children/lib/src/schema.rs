//! The schema of a configuration: printed for the configuration page, shown by `--help`, and used to find all mistakes of a
//! file at once, where the types alone would stop at the first.
//!
//! Understands what is derived from Rust types: tables, arrays, numbers with bounds, strings, enums of words, optional
//! values. What it does not understand it leaves to the types.

use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use crate::interval::{self, Interval};
use crate::parameter::{self, TextFile};
use crate::{About, Config};

/// The JSON Schema of a configuration.
#[derive(Debug)]
pub(crate) struct Schema {
    root: Value,
}

/// Something that does not fit the schema.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) span: Range<usize>,
    pub(crate) key: String,
    pub(crate) message: String,
    pub(crate) nearest: Option<String>,
}

impl Schema {
    pub(crate) fn of<C: Config>() -> Self {
        Self { root: schemars::schema_for!(C).to_value() }
    }

    /// As `--print-schema` shows it.
    pub(crate) fn print(mut self, about: &About) -> String {
        if let Some(root) = self.root.as_object_mut() {
            root.insert("title".into(), about.name.into());
            root.entry("description").or_insert_with(|| about.description.into());
        }
        // The alternate form of a JSON value is indented.
        format!("{:#}\n", self.root)
    }

    /// One line for each key with its default, and its doc comment below: for `--help`.
    pub(crate) fn help(&self) -> String {
        let mut help = String::new();
        for (key, schema) in properties(&self.root) {
            help.push_str(&format!("  {key}"));
            if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
                help.push_str(&format!(" = {default}"));
            }
            help.push('\n');
            let description = schema.get("description").and_then(Value::as_str).unwrap_or_default();
            for line in description.lines().filter(|line| !line.is_empty()) {
                help.push_str(&format!("      {line}\n"));
            }
        }
        help
    }

    /// Everything in `table` that does not fit.
    pub(crate) fn check(&self, table: &DeTable<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.check_table(&self.root, table, "", &mut findings);
        findings
    }

    fn check_table(&self, schema: &Value, table: &DeTable<'_>, path: &str, findings: &mut Vec<Finding>) {
        let schema = self.resolve(schema);
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let inner = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            match schema.get("properties").and_then(|known| known.get(name)) {
                Some(expected) => self.check_value(expected, value, &inner, findings),
                None => match schema.get("additionalProperties") {
                    Some(Value::Bool(false)) => findings.push(Finding {
                        span: key.span(),
                        key: inner,
                        message: "unknown key".into(),
                        nearest: nearest(name, properties(schema).map(|(known, _)| known)),
                    }),
                    Some(expected) if expected.is_object() => self.check_value(expected, value, &inner, findings),
                    _ => {}
                },
            }
        }
    }

    fn check_value(&self, schema: &Value, value: &Spanned<DeValue<'_>>, path: &str, findings: &mut Vec<Finding>) {
        let schema = self.resolve(schema);
        let mut refuse = |found: String, expected: String, nearest: Option<String>| {
            let message = format!("found {found}, expected {expected}");
            findings.push(Finding { span: value.span(), key: path.to_owned(), message, nearest });
        };
        if let Some(words) = words(schema) {
            let found = value.get_ref().as_str();
            if !found.is_some_and(|found| words.contains(&found)) {
                let near = found.and_then(|found| nearest(found, words.iter().copied()));
                refuse(describe(value.get_ref()), one_of(&words), near);
            }
            return;
        }
        let types = types(schema);
        if types.is_empty() {
            return;
        }
        if !types.iter().any(|expected| is_of_type(value.get_ref(), expected)) {
            refuse(kind(value.get_ref()).to_owned(), expected(schema, &types), None);
            return;
        }
        match value.get_ref() {
            DeValue::Integer(number) if !within(schema, integer(number)) => {
                refuse(number.to_string(), expected(schema, &types), None);
            }
            DeValue::Float(number) if !within(schema, number.as_str().parse().ok()) => {
                refuse(number.to_string(), expected(schema, &types), None);
            }
            DeValue::String(text) => {
                if let Some(problem) = text_problem(schema, text) {
                    findings.push(Finding {
                        span: value.span(),
                        key: path.to_owned(),
                        message: problem,
                        nearest: None,
                    });
                }
            }
            DeValue::Array(items) => {
                if let Some(problem) = count_problem(schema, items.len()) {
                    refuse(format!("{} values", items.len()), problem, None);
                } else if let Some(expected) = schema.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.check_value(expected, item, &format!("{path}[{index}]"), findings);
                    }
                }
            }
            DeValue::Table(table) => self.check_table(schema, table, path, findings),
            _ => {}
        }
    }

    /// Follows references into `$defs`, and looks through "this or nothing".
    fn resolve<'a>(&'a self, mut schema: &'a Value) -> &'a Value {
        // Deeper nesting than this is not written by hand; the bound keeps a circular reference from hanging.
        for _ in 0..16 {
            let next = if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
                reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer))
            } else {
                schema.get("anyOf").and_then(Value::as_array).and_then(|choices| {
                    let mut choices = choices.iter().filter(|choice| types(choice) != ["null"]);
                    choices.next().filter(|_| choices.next().is_none())
                })
            };
            match next {
                Some(next) => schema = next,
                None => break,
            }
        }
        schema
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// The words of an enum without data; `None` for anything else. Documented variants come as `oneOf`, others as `enum`.
fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values.iter().filter(|value| !value.is_null()).map(Value::as_str).collect();
    }
    if let Some(word) = schema.get("const").and_then(Value::as_str) {
        return Some(vec![word]);
    }
    let choices = schema.get("oneOf").and_then(Value::as_array)?;
    let lists: Option<Vec<Vec<&str>>> = choices.iter().map(words).collect();
    Some(lists?.concat())
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        _ => Vec::new(),
    }
}

fn is_of_type(value: &DeValue<'_>, expected: &str) -> bool {
    match value {
        DeValue::String(_) | DeValue::Datetime(_) => expected == "string",
        DeValue::Integer(_) => matches!(expected, "integer" | "number"),
        DeValue::Float(_) => expected == "number",
        DeValue::Boolean(_) => expected == "boolean",
        DeValue::Array(_) => expected == "array",
        DeValue::Table(_) => expected == "object",
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn describe(value: &DeValue<'_>) -> String {
    value.as_str().map_or_else(|| kind(value).to_owned(), |text| format!("{text:?}"))
}

/// What a value of this schema looks like, in words.
fn expected(schema: &Value, types: &[&str]) -> String {
    let of_type = |name: &&str| match *name {
        "string" if schema.get("format").and_then(Value::as_str) == Some(interval::FORMAT) => {
            "a duration such as \"200ms\""
        }
        "string" => "a string",
        "integer" => "an integer",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a table",
        _ => "nothing",
    };
    let mut text = types.iter().map(of_type).collect::<Vec<_>>().join(" or ");
    if types.iter().any(|name| matches!(*name, "integer" | "number")) {
        match bounds(schema) {
            (Some(minimum), Some(maximum)) => text.push_str(&format!(" from {minimum} to {maximum}")),
            (Some(minimum), None) => text.push_str(&format!(" of at least {minimum}")),
            (None, Some(maximum)) => text.push_str(&format!(" of at most {maximum}")),
            (None, None) => {}
        }
        for (key, word) in [("exclusiveMinimum", "above"), ("exclusiveMaximum", "below")] {
            if let Some(bound) = schema.get(key) {
                text.push_str(&format!(" {word} {bound}"));
            }
        }
    }
    text
}

/// Smallest and largest value: what the schema says, else what the integer type holds, if it is small enough for that to be
/// worth saying.
fn bounds(schema: &Value) -> (Option<f64>, Option<f64>) {
    let (least, most) = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => (Some(0.0), Some(f64::from(u8::MAX))),
        Some("uint16") => (Some(0.0), Some(f64::from(u16::MAX))),
        Some("uint32") => (Some(0.0), Some(f64::from(u32::MAX))),
        Some("int8") => (Some(f64::from(i8::MIN)), Some(f64::from(i8::MAX))),
        Some("int16") => (Some(f64::from(i16::MIN)), Some(f64::from(i16::MAX))),
        Some("int32") => (Some(f64::from(i32::MIN)), Some(f64::from(i32::MAX))),
        _ => (None, None),
    };
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    (bound("minimum").or(least), bound("maximum").or(most))
}

/// `None` for what lies outside of every integer type; the grammar has seen to it that it is a number.
fn integer(number: &DeInteger<'_>) -> Option<f64> {
    i128::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number as f64)
}

/// Bounds are compared as floating point: exact for all integers up to 2^53; beyond that the types have the final word.
fn within(schema: &Value, number: Option<f64>) -> bool {
    let Some(number) = number else { return false };
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let (minimum, maximum) = bounds(schema);
    !(minimum.is_some_and(|bound| number < bound)
        || maximum.is_some_and(|bound| number > bound)
        || bound("exclusiveMinimum").is_some_and(|bound| number <= bound)
        || bound("exclusiveMaximum").is_some_and(|bound| number >= bound))
}

fn text_problem(schema: &Value, text: &str) -> Option<String> {
    if schema.get("format").and_then(Value::as_str) == Some(interval::FORMAT) {
        return text.parse::<Interval>().err();
    }
    if schema.get("format").and_then(Value::as_str) == Some(parameter::TEXT_FILE_FORMAT) {
        return text.parse::<TextFile>().err();
    }
    let length = text.chars().count() as u64;
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    match (bound("minLength"), bound("maxLength")) {
        (Some(1), _) if length == 0 => Some("empty, expected a text".into()),
        (Some(minimum), _) if length < minimum => Some(format!("{length} characters, expected at least {minimum}")),
        (_, Some(maximum)) if length > maximum => Some(format!("{length} characters, expected at most {maximum}")),
        _ => None,
    }
}

fn count_problem(schema: &Value, count: usize) -> Option<String> {
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    match (bound("minItems"), bound("maxItems")) {
        (Some(minimum), _) if (count as u64) < minimum => Some(format!("at least {minimum}")),
        (_, Some(maximum)) if count as u64 > maximum => Some(format!("at most {maximum}")),
        _ => None,
    }
}

fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => "nothing".into(),
    }
}

/// The known word that is nearest to `word`, if it is near enough to be meant: at most every third letter differs.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let word: Vec<char> = word.to_lowercase().chars().take(64).collect();
    let limit = word.len().div_ceil(3);
    known
        .map(|candidate| (edits(&word, &candidate.to_lowercase().chars().collect::<Vec<_>>()), candidate))
        .filter(|(edits, _)| *edits <= limit)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate.to_owned())
}

/// How many letters must be changed, put in or left out to get from one word to the other.
fn edits(from: &[char], to: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_if_it_is_near() {
        let known = ["deadline", "delay", "period"];
        for (word, expected) in [
            ("dedline", Some("deadline")),
            ("Period", Some("period")),
            ("dely", Some("delay")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known.into_iter()).as_deref(), expected, "{word}");
        }
    }
}
