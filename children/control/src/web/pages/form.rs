//! A form made from a JSON Schema: what each field is, what it holds, what was sent and what is wrong with that.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::service::configuration::{Change, MASK};
use crate::service::{Caller, Problem};

/// A form.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Form {
    /// The fields in the order of the schema, by section.
    pub(super) sections: Vec<Section>,
    /// How many fields were changed.
    pub(super) changed: usize,
    /// How many are wrong.
    pub(super) wrong: usize,
    /// Whether anything can be edited by this caller.
    pub(super) editable: bool,
}

/// Fields under a heading.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Section {
    title: String,
    help: String,
    /// For links.
    id: String,
    pub(super) fields: Vec<Field>,
}

/// A field.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Field {
    /// The key with its tables, such as `heartbeat.deadline`.
    pub(super) key: String,
    pub(super) title: String,
    help: String,
    pub(super) kind: Kind,
    unit: String,
    /// What is possible, in words.
    limits: String,
    /// What stands in the field.
    pub(super) value: String,
    /// What holds while nothing stands there.
    default: String,
    /// What it was before, for a field that was changed.
    was: String,
    pub(super) changed: bool,
    pub(super) error: String,
    choices: Vec<Choice>,
    /// Why it cannot be edited; empty if it can.
    locked: String,
    /// Where the text of a file is edited; empty if that is not possible.
    link: String,
    /// Lines of a text area.
    rows: usize,
    required: bool,
    /// Whether a box can be ticked that takes the value away, which an empty field does not.
    can_clear: bool,
    /// Whether it is ticked.
    cleared: bool,
    #[serde(skip)]
    schema: Map<String, Value>,
    #[serde(skip)]
    path: Vec<String>,
    /// As it is in the file.
    #[serde(skip)]
    stored: Option<Value>,
}

/// One of several words.
#[derive(Clone, Debug, Default, Serialize)]
struct Choice {
    value: String,
    title: String,
    help: String,
    chosen: bool,
}

/// What a parameter is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// On or off.
    Bool,
    /// A whole number.
    Int,
    /// A whole number, written in hexadecimal digits.
    Hex,
    /// Any number.
    Number,
    /// A duration such as 200ms.
    Duration,
    /// An address of the Internet.
    Ip,
    /// One line.
    #[default]
    Text,
    /// Is set, never shown.
    Password,
    /// Several lines.
    Area,
    /// The path of a file that is edited as a text, on a page of its own.
    File,
    /// Texts, one a line.
    Texts,
    /// Numbers, separated by commas or lines.
    Numbers,
    /// The same in hexadecimal digits.
    Hexes,
    /// `NAME = VALUE`, one a line.
    Pairs,
    /// One of several words, all in sight.
    Radio,
    /// One of many words.
    Select,
    /// Is only shown.
    Fixed,
    /// Cannot be shown as a field: it is edited as text.
    Toml,
}

impl Form {
    /// The form of a document as it is in the file.
    pub(super) fn new(schema: &Value, values: &Map<String, Value>, caller: &Caller, read_only: bool) -> Self {
        let maker = Maker { root: schema, caller, read_only };
        let root = maker.resolve(schema);
        let mut form = Self::default();
        let levels = Levels { display: Caller::USER, edit: Caller::ADMIN }.of(&root);
        maker.table(&root, Some(values), &mut Vec::new(), "", levels, &mut form.sections);
        form.sections.retain(|section| !section.fields.is_empty());
        let editable = form.fields().any(Field::is_open);
        form.editable = editable;
        form
    }

    /// Puts in what was sent, and compares it with what is in the file.
    pub(super) fn fill(&mut self, sent: &[(String, String)]) {
        for field in self.sections.iter_mut().flat_map(|section| &mut section.fields).filter(|field| field.is_open()) {
            let name = format!("v:{}", field.key);
            let given = sent.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| value.replace("\r\n", "\n"));
            let Some(given) = given else { continue };
            let before = std::mem::replace(&mut field.value, given);
            let is_ticked = |(key, value): &(String, String)| *key == format!("c:{}", field.key) && value == "true";
            field.cleared = field.can_clear && sent.iter().any(is_ticked);
            field.choices.iter_mut().for_each(|choice| choice.chosen = choice.value == field.value);
            match field.read() {
                Ok(new) => field.changed = field.differs(new.as_ref()),
                Err(error) => {
                    field.changed = true;
                    field.error = error;
                }
            }
            if field.changed {
                field.was = match field.kind {
                    Kind::Password => "hidden".into(),
                    _ if before.is_empty() && field.default.is_empty() => "nothing".into(),
                    _ if before.is_empty() => format!("{} (default)", field.default),
                    _ => before,
                };
            }
        }
        self.count();
    }

    /// Puts what a check found beside the fields that it is about; what is left is about none of them.
    pub(super) fn blame(&mut self, problems: &[Problem]) -> Vec<Problem> {
        let mut rest = Vec::new();
        for problem in problems {
            let key = problem.key.split('[').next().unwrap_or_default();
            let field = self.sections.iter_mut().flat_map(|section| &mut section.fields).find(|field| field.key == key);
            match field.filter(|_| !problem.warning) {
                Some(field) => {
                    field.error = match problem.nearest.as_str() {
                        "" => problem.message.clone(),
                        nearest => format!("{}; did you mean {nearest:?}?", problem.message),
                    };
                }
                None => rest.push(problem.clone()),
            }
        }
        self.count();
        rest
    }

    /// What is to be changed in the file.
    pub(super) fn changes(&self) -> Vec<Change> {
        let changed = self.fields().filter(|field| field.changed && field.error.is_empty());
        changed.filter_map(|field| Some(Change { path: field.path.clone(), value: field.read().ok()? })).collect()
    }

    /// The same with secrets replaced, to be looked at.
    pub(super) fn shown_changes(&self) -> Vec<Change> {
        let is_secret =
            |change: &Change| self.fields().any(|field| field.path == change.path && field.kind == Kind::Password);
        let shown = |change: Change| match change.value.is_some() && is_secret(&change) {
            true => Change { value: Some("(a new value, not shown)".into()), ..change },
            false => change,
        };
        self.changes().into_iter().map(shown).collect()
    }

    /// Says where the texts are edited whose files the fields name: those that are in the file or by default.
    pub(super) fn link_texts(&mut self, link: impl Fn(&str) -> String) {
        for field in self.sections.iter_mut().flat_map(|section| &mut section.fields) {
            let names = |value: &Value| value.as_str().is_some_and(|path| !path.is_empty());
            if field.kind == Kind::File && field.stored.as_ref().or(field.schema.get("default")).is_some_and(names) {
                field.link = link(&field.key);
            }
        }
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = &Field> {
        self.sections.iter().flat_map(|section| &section.fields)
    }

    fn count(&mut self) {
        self.wrong = self.fields().filter(|field| !field.error.is_empty()).count();
        self.changed = self.fields().filter(|field| field.changed).count();
    }
}

impl Field {
    fn is_open(&self) -> bool {
        self.locked.is_empty() && !matches!(self.kind, Kind::Fixed | Kind::Toml)
    }

    /// What stands in the field as a value; `None`: nothing, so the default holds.
    fn read(&self) -> Result<Option<Value>, String> {
        let text = self.value.trim();
        if self.cleared && !self.value.is_empty() {
            return Err("A new value and none at all are not possible at once.".into());
        }
        if text.is_empty() && self.kind != Kind::Bool {
            // What has no default but must be there may be an empty text.
            let is_text = matches!(self.kind, Kind::Text | Kind::Area | Kind::File);
            let empty = (is_text && self.default.is_empty() && self.stored.is_some()).then(|| Value::from(""));
            return match empty {
                None if self.required && self.kind != Kind::Password => Err(format!("It is needed.{}", self.it_was())),
                empty => Ok(empty),
            };
        }
        let value = match self.kind {
            Kind::Bool => (text == "true").into(),
            Kind::Int | Kind::Hex => self.integer(text)?,
            Kind::Number => self.number(text)?,
            Kind::Ip => {
                let is_address = match text.split_once('/') {
                    Some((address, bits)) => {
                        let most = if address.contains(':') { 128 } else { 32 };
                        address.parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
                    }
                    None => text.parse::<std::net::IpAddr>().is_ok(),
                };
                if !is_address {
                    return Err(format!("Not an address such as 192.168.0.66.{}", self.it_was()));
                }
                text.into()
            }
            Kind::Duration => {
                text.parse::<multus_child::Interval>()
                    .map_err(|_| format!("Not a duration such as 200ms, 5s or 30min.{}", self.it_was()))?;
                text.into()
            }
            Kind::Texts => {
                let lines: Vec<Value> =
                    self.value.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(Value::from).collect();
                self.counted(lines)?
            }
            Kind::Numbers | Kind::Hexes => {
                let words = text.split([',', '\n', ';']).map(str::trim).filter(|word| !word.is_empty());
                let items = Self { schema: object(self.schema.get("items")), ..self.clone() };
                let whole =
                    items.schema.get("type").and_then(Value::as_str) == Some("integer") || self.kind == Kind::Hexes;
                let numbers = words.map(|word| if whole { items.integer(word) } else { items.number(word) });
                self.counted(numbers.collect::<Result<_, _>>()?)?
            }
            Kind::Pairs => Value::Object(self.pairs()?),
            Kind::Radio | Kind::Select => {
                let given = self.choices.iter().find(|choice| choice.value == text);
                let choice = given.ok_or_else(|| format!("{text:?} is none of the possible words."))?;
                serde_json::from_str(&choice.value).unwrap_or_else(|_| Value::from(choice.value.as_str()))
            }
            Kind::File => {
                text.parse::<multus_child::TextFile>().map_err(|error| format!("{error}.{}", self.it_was()))?;
                text.into()
            }
            Kind::Text | Kind::Password | Kind::Area => {
                // A password may begin with a blank; a text of one line that does was pasted badly.
                let text = if self.kind == Kind::Text { text } else { self.value.as_str() };
                self.length(text)?;
                text.into()
            }
            Kind::Fixed | Kind::Toml => return Ok(self.stored.clone()),
        };
        Ok(Some(value))
    }

    fn integer(&self, text: &str) -> Result<Value, String> {
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
        let plain: String = hex.unwrap_or(digits).chars().filter(|c| *c != '_').collect();
        let number = i128::from_str_radix(&plain, if hex.is_some() { 16 } else { 10 })
            .ok()
            .filter(|_| plain.chars().all(|c| c.is_ascii_hexdigit()));
        let number = number.and_then(|number| i64::try_from(sign * number).ok());
        let Some(number) = number else {
            let what =
                if matches!(self.kind, Kind::Hex | Kind::Hexes) { "number such as 0x38" } else { "whole number" };
            return Err(format!("Not a {what}.{}", self.it_was()));
        };
        #[expect(clippy::cast_precision_loss, reason = "bounds of parameters are small")]
        self.within(number as f64, &number.to_string())?;
        Ok(number.into())
    }

    fn number(&self, text: &str) -> Result<Value, String> {
        let number = text.replace(',', ".").parse::<f64>().ok().filter(|number| number.is_finite());
        let number = number.ok_or_else(|| format!("Not a number.{}", self.it_was()))?;
        self.within(number, text)?;
        Ok(number.into())
    }

    fn within(&self, number: f64, shown: &str) -> Result<(), String> {
        let bound = |key: &str| self.schema.get(key).and_then(Value::as_f64);
        let below = bound("minimum").is_some_and(|min| number < min)
            || bound("exclusiveMinimum").is_some_and(|min| number <= min);
        let above = bound("maximum").is_some_and(|max| number > max)
            || bound("exclusiveMaximum").is_some_and(|max| number >= max);
        let how = match (below, above) {
            (true, _) => "small",
            (_, true) => "large",
            _ => return Ok(()),
        };
        Err(format!("{shown} is too {how}: {}.{}", limits(&self.schema), self.it_was()))
    }

    fn length(&self, text: &str) -> Result<(), String> {
        let length = text.chars().count() as u64;
        let bound = |key: &str| self.schema.get(key).and_then(Value::as_u64);
        match (bound("minLength"), bound("maxLength")) {
            (Some(least), _) if length < least => Err(format!("Too short: at least {least} characters.")),
            (_, Some(most)) if length > most => {
                Err(format!("Too long: {length} characters, at most {most} are possible."))
            }
            _ => Ok(()),
        }
    }

    fn counted(&self, items: Vec<Value>) -> Result<Value, String> {
        let count = items.len() as u64;
        let bound = |key: &str| self.schema.get(key).and_then(Value::as_u64);
        match (bound("minItems"), bound("maxItems")) {
            (Some(least), _) if count < least => Err(format!("Too few: at least {least}.")),
            (_, Some(most)) if count > most => Err(format!("Too many: {count}, at most {most} are possible.")),
            _ => Ok(items.into()),
        }
    }

    fn pairs(&self) -> Result<Map<String, Value>, String> {
        let items = object(self.schema.get("additionalProperties"));
        let types: Vec<&str> = match items.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => vec!["string"],
        };
        let value = |text: &str| match text {
            "true" if types.contains(&"boolean") => true.into(),
            "false" if types.contains(&"boolean") => false.into(),
            text => match text.parse::<f64>() {
                Ok(number) if types.contains(&"number") || types.contains(&"integer") => {
                    text.parse::<i64>().map_or_else(|_| number.into(), Value::from)
                }
                _ => Value::from(text),
            },
        };
        let mut pairs = Map::new();
        for line in self.value.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, text) = line.split_once('=').ok_or_else(|| format!("{line:?}: expected NAME = VALUE."))?;
            pairs.insert(name.trim().to_owned(), value(text.trim()));
        }
        Ok(pairs)
    }

    /// Whether `new` would be another value than the one in the file, or than the default if there is none.
    fn differs(&self, new: Option<&Value>) -> bool {
        match (new, &self.stored) {
            (None, None) => false,
            // A secret that is left empty stays, unless that is wanted.
            (None, Some(_)) => self.kind != Kind::Password || self.cleared,
            (Some(new), Some(stored)) => !same(new, stored),
            (Some(new), None) => match self.kind {
                // These always hold something: only what is not the default is a change.
                Kind::Bool | Kind::Radio | Kind::Select => {
                    let default = self.schema.get("default").cloned();
                    let off = (self.kind == Kind::Bool).then_some(Value::Bool(false));
                    default.or(off).is_none_or(|default| !same(new, &default))
                }
                _ => true,
            },
        }
    }

    fn it_was(&self) -> String {
        match (&self.stored, self.kind) {
            (_, Kind::Password) => String::new(),
            (Some(stored), kind) => format!(" It was {}.", shown(stored, kind)),
            (None, _) if !self.default.is_empty() => format!(" It was {} by default.", self.default),
            (None, _) => String::new(),
        }
    }
}

/// The parameter that a field of the page is about, by the name under which it is sent: `v:KEY` its value, `c:KEY` whether it is
/// to be cleared.
pub(super) fn key_of(name: &str) -> Option<&str> {
    name.strip_prefix("v:").or_else(|| name.strip_prefix("c:"))
}

/// `1` and `1.0` are one number.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b)
}

/// Who may see and who may change.
#[derive(Clone, Copy, Debug)]
struct Levels {
    display: u32,
    edit: u32,
}

impl Levels {
    fn of(self, schema: &Map<String, Value>) -> Self {
        let level = |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|level| u32::try_from(level).ok());
        Self {
            display: level("x-display-level").unwrap_or(self.display),
            edit: level("x-edit-level").unwrap_or(self.edit),
        }
    }
}

/// Makes fields.
struct Maker<'a> {
    root: &'a Value,
    caller: &'a Caller,
    read_only: bool,
}

impl Maker<'_> {
    /// The fields of a table; tables in it become sections of their own, after it.
    fn table(
        &self,
        schema: &Map<String, Value>,
        values: Option<&Map<String, Value>>,
        path: &mut Vec<String>,
        title: &str,
        levels: Levels,
        sections: &mut Vec<Section>,
    ) {
        let help = if path.is_empty() { String::new() } else { text(schema, "description") };
        let mut section =
            Section { title: title.to_owned(), help, id: format!("s-{}", path.join("-")), fields: Vec::new() };
        let mut below = Vec::new();
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        for (key, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let property = self.resolve(property);
            let levels = levels.of(&property);
            if self.caller.level > levels.display {
                continue;
            }
            let value = values.and_then(|values| values.get(key));
            path.push(key.clone());
            let name = match text(&property, "title") {
                title if title.is_empty() => human(key),
                title => title,
            };
            if property.get("properties").is_some() && path.len() < DEEPEST {
                let title = if title.is_empty() { name } else { format!("{title} · {name}") };
                let mut inner = Vec::new();
                self.table(&property, value.and_then(Value::as_object), path, &title, levels, &mut inner);
                below.append(&mut inner);
            } else {
                if let Some(heading) = property.get("x-section").and_then(Value::as_str) {
                    let id = format!("s-{}", path.join("-"));
                    let next = Section { title: heading.to_owned(), id, ..Section::default() };
                    sections.push(std::mem::replace(&mut section, next));
                }
                let mut field = self.field(property, value, path, name, levels);
                field.required = required.contains(&key.as_str());
                field.can_clear =
                    field.kind == Kind::Password && field.stored.is_some() && field.is_open() && !field.required;
                section.fields.push(field);
            }
            path.pop();
        }
        sections.push(section);
        sections.append(&mut below);
    }

    fn field(
        &self,
        schema: Map<String, Value>,
        stored: Option<&Value>,
        path: &[String],
        title: String,
        levels: Levels,
    ) -> Field {
        let kind = self.kind(&schema, stored);
        let default = schema.get("default").filter(|default| !default.is_null());
        let value = match (kind, stored) {
            (Kind::Password, _) => String::new(),
            (Kind::Bool, stored) => stored.or(default).and_then(Value::as_bool).unwrap_or(false).to_string(),
            (Kind::Radio | Kind::Select, stored) => {
                stored.or(default).map_or_else(String::new, |value| shown(value, kind))
            }
            (_, Some(stored)) => shown(stored, kind),
            (_, None) => String::new(),
        };
        let choices = choices(&schema)
            .into_iter()
            .map(|(word, title, help)| Choice { chosen: word == value, value: word, title, help })
            .collect();
        let locked = match () {
            () if self.read_only => "you may look, but change nothing".to_owned(),
            () if self.caller.level > levels.edit => format!("needs right level {}", levels.edit),
            () => String::new(),
        };
        let mut default = default.map_or_else(String::new, |default| shown(default, kind));
        if kind == Kind::Password {
            default = if stored.is_some() { "set; empty keeps it".into() } else { "not set".into() };
        }
        Field {
            key: path.join("."),
            title,
            help: text(&schema, "description"),
            unit: text(&schema, "x-unit"),
            limits: if matches!(kind, Kind::Text | Kind::Area) { String::new() } else { limits(&schema) },
            rows: value.lines().count().clamp(if kind == Kind::Area { 6 } else { 2 }, 30),
            path: path.to_vec(),
            stored: stored.cloned(),
            kind,
            value,
            default,
            choices,
            locked,
            schema,
            ..Field::default()
        }
    }

    fn kind(&self, schema: &Map<String, Value>, stored: Option<&Value>) -> Kind {
        let is = |key: &str, word: &str| schema.get(key).and_then(Value::as_str) == Some(word);
        let words = choices(schema).len();
        let types: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).filter(|word| *word != "null").collect(),
            _ => Vec::new(),
        };
        let hex = is("format", "hex") || is("x-format", "hex");
        if stored.is_some_and(|stored| stored == MASK)
            || schema.get("writeOnly") == Some(&Value::Bool(true))
            || is("format", "password")
        {
            return Kind::Password;
        }
        if schema.get("readOnly") == Some(&Value::Bool(true))
            || is("format", multus_child::parameter::VERSION_FORMAT)
            || schema.contains_key("const")
        {
            return Kind::Fixed;
        }
        match types.first().copied() {
            _ if words > 0 => {
                if words <= MOST_RADIOS {
                    Kind::Radio
                } else {
                    Kind::Select
                }
            }
            Some("boolean") => Kind::Bool,
            Some("integer") if hex => Kind::Hex,
            Some("integer") => Kind::Int,
            Some("number") => Kind::Number,
            Some("string") if is("format", INTERVAL) => Kind::Duration,
            Some("string") if is("format", multus_child::parameter::TEXT_FILE_FORMAT) => Kind::File,
            Some("string") if ["ip", "ipv4", "ipv6"].iter().any(|word| is("format", word)) => Kind::Ip,
            Some("string")
                if is("format", "textarea") || is("x-format", "text") || schema.contains_key("contentMediaType") =>
            {
                Kind::Area
            }
            Some("string") if stored.and_then(Value::as_str).is_some_and(|text| text.contains('\n')) => Kind::Area,
            Some("string") => Kind::Text,
            Some("array") => {
                let items = self.resolve(schema.get("items").unwrap_or(&Value::Null));
                let of = |word: &str| items.get("type").and_then(Value::as_str) == Some(word);
                let plain = stored
                    .and_then(Value::as_array)
                    .is_none_or(|all| all.iter().all(|item| !item.is_object() && !item.is_array()));
                let texts = stored.and_then(Value::as_array).is_none_or(|all| all.iter().all(Value::is_string));
                let mixed = items.get("anyOf").and_then(Value::as_array);
                let may_be_text = mixed
                    .is_some_and(|all| all.iter().any(|one| one.get("type").and_then(Value::as_str) == Some("string")));
                match () {
                    () if !plain => Kind::Toml,
                    () if of("integer") && (hex || items.get("format").and_then(Value::as_str) == Some("hex")) => {
                        Kind::Hexes
                    }
                    () if of("integer") || of("number") => Kind::Numbers,
                    () if (of("string") || may_be_text) && texts => Kind::Texts,
                    () => Kind::Toml,
                }
            }
            Some("object") if schema.get("additionalProperties").is_some_and(Value::is_object) => {
                let flat = stored
                    .and_then(Value::as_object)
                    .is_none_or(|all| all.values().all(|item| !item.is_object() && !item.is_array()));
                let inner = self.resolve(schema.get("additionalProperties").unwrap_or(&Value::Null));
                if flat && inner.get("properties").is_none() { Kind::Pairs } else { Kind::Toml }
            }
            _ => Kind::Toml,
        }
    }

    /// A schema with what it refers to, and "this or nothing" taken as "this".
    fn resolve(&self, schema: &Value) -> Map<String, Value> {
        self.resolve_within(schema, 16)
    }

    fn resolve_within(&self, schema: &Value, depth: usize) -> Map<String, Value> {
        let own = object(Some(schema));
        let Some(depth) = depth.checked_sub(1) else { return own };
        let mut all = Map::new();
        let mut take = |more: Map<String, Value>| all.extend(more);
        let target = own.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
        if let Some(target) = target.and_then(|pointer| self.root.pointer(pointer)) {
            take(self.resolve_within(target, depth));
        }
        for part in own.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            take(self.resolve_within(part, depth));
        }
        let is_null = |part: &&Value| part.get("type").and_then(Value::as_str) == Some("null");
        for word in ["anyOf", "oneOf"] {
            let parts: Vec<&Value> =
                own.get(word).and_then(Value::as_array).into_iter().flatten().filter(|part| !is_null(part)).collect();
            if let [one] = parts.as_slice()
                && one.get("const").is_none()
            {
                take(self.resolve_within(one, depth));
            }
        }
        all.extend(own);
        all
    }
}

/// The words that are possible, with a title and an explanation of each.
fn choices(schema: &Map<String, Value>) -> Vec<(String, String, String)> {
    let word = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words.iter().filter_map(word).map(|text| (text.clone(), text, String::new())).collect();
    }
    let parts = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array);
    let mut all = Vec::new();
    for part in parts.into_iter().flatten() {
        let part = object(Some(part));
        let more: Vec<_> = match (part.get("const"), part.get("enum").and_then(Value::as_array)) {
            (Some(one), _) => vec![one],
            (None, Some(several)) => several.iter().collect(),
            (None, None) if part.get("type").and_then(Value::as_str) == Some("null") => continue,
            // Something else is possible, too: no list of words.
            (None, None) => return Vec::new(),
        };
        for value in more.into_iter().filter_map(word) {
            let title = Some(text(&part, "title")).filter(|title| !title.is_empty()).unwrap_or_else(|| value.clone());
            all.push((value, title, text(&part, "description")));
        }
    }
    all
}

/// What is possible, in words; empty if anything is.
fn limits(schema: &Map<String, Value>) -> String {
    let number =
        |value: &Value| value.as_i64().map_or_else(|| value.as_f64().unwrap_or(0.0).to_string(), |n| n.to_string());
    let bound = |key: &str| schema.get(key).filter(|bound| bound.is_number()).map(number);
    // The bounds of the type that holds the number say nothing to people.
    let large = |text: &String| text.trim_start_matches('-').len() < 10;
    match (bound("minimum").filter(large), bound("maximum").filter(large)) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("{least} or more"),
        (None, Some(most)) => format!("at most {most}"),
        (None, None) => String::new(),
    }
}

/// A value as it stands in a field.
pub(super) fn shown(value: &Value, kind: Kind) -> String {
    let hex = |value: &Value| {
        value.as_i64().map_or_else(
            || value.to_string(),
            |number| {
                if number < 0 { format!("-0x{:x}", number.unsigned_abs()) } else { format!("0x{number:x}") }
            },
        )
    };
    match (value, kind) {
        (Value::String(text), _) => text.clone(),
        (value, Kind::Hex) => hex(value),
        (Value::Array(items), Kind::Hexes) => items.iter().map(hex).collect::<Vec<_>>().join(", "),
        (Value::Array(items), Kind::Numbers) => items.iter().map(Value::to_string).collect::<Vec<_>>().join(", "),
        (Value::Array(items), _) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
        }
        (Value::Object(map), Kind::Pairs) => map
            .iter()
            .map(|(name, value)| format!("{name} = {}", shown(value, Kind::Text)))
            .collect::<Vec<_>>()
            .join("\n"),
        (value, _) => value.to_string(),
    }
}

/// The values of a TOML text.
///
/// # Errors
/// Where it is no TOML.
pub(super) fn values(text: &str) -> Result<Map<String, Value>, String> {
    let document: toml_edit::DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| error.message().to_owned())?;
    let item = toml_edit::Item::Table(document.as_table().clone());
    Ok(match of_item(&item) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    })
}

fn of_item(item: &toml_edit::Item) -> Option<Value> {
    use toml_edit::Item;
    Some(match item {
        Item::None => return None,
        Item::Value(value) => of_value(value),
        Item::Table(table) => {
            table.iter().filter_map(|(key, item)| Some((key.to_owned(), of_item(item)?))).collect::<Map<_, _>>().into()
        }
        Item::ArrayOfTables(tables) => {
            tables.iter().filter_map(|table| of_item(&Item::Table(table.clone()))).collect::<Vec<_>>().into()
        }
    })
}

fn of_value(value: &toml_edit::Value) -> Value {
    use toml_edit::Value as Toml;
    match value {
        Toml::String(text) => text.value().as_str().into(),
        Toml::Integer(number) => (*number.value()).into(),
        Toml::Float(number) => (*number.value()).into(),
        Toml::Boolean(value) => (*value.value()).into(),
        Toml::Datetime(time) => time.value().to_string().into(),
        Toml::Array(items) => items.iter().map(of_value).collect::<Vec<_>>().into(),
        Toml::InlineTable(table) => {
            table.iter().map(|(key, value)| (key.to_owned(), of_value(value))).collect::<Map<_, _>>().into()
        }
    }
}

fn object(value: Option<&Value>) -> Map<String, Value> {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}

fn text(schema: &Map<String, Value>, key: &str) -> String {
    schema.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// `min_interval` as people write it.
fn human(key: &str) -> String {
    let words = key.replace(['_', '-'], " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// More words than these are a list to choose from.
const MOST_RADIOS: usize = 6;
const DEEPEST: usize = 8;
/// The format of a duration in a schema of ours.
const INTERVAL: &str = "multus-interval";

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        serde_json::json!({
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": { "type": "string", "maxLength": 8 },
                "port": { "title": "TCP port", "type": "integer", "minimum": 1, "maximum": 65535, "default": 502, "x-unit": "" },
                "address": { "type": "integer", "format": "hex", "minimum": 0, "maximum": 127 },
                "gain": { "type": ["number", "null"], "minimum": 0.5, "maximum": 2.0, "x-unit": "V" },
                "bind": { "type": "string", "format": "ipv4" },
                "on": { "type": "boolean", "default": true },
                "password": { "type": ["string", "null"], "writeOnly": true },
                "hosts": { "type": "array", "items": { "type": "string" }, "maxItems": 2 },
                "map": { "type": "array", "items": { "type": "integer", "minimum": 1 } },
                "pins": { "type": "array", "items": { "type": "integer", "format": "hex" } },
                "access": { "$ref": "#/$defs/Access", "default": "read" },
                "script": { "type": "string", "contentMediaType": "text/plain" },
                "wait": { "type": "string", "format": "multus-interval", "default": "1s" },
                "outputs": { "type": "object", "additionalProperties": { "type": ["string", "boolean", "number"] } },
                "secret_table": { "x-display-level": 0, "type": "string" },
                "version": { "type": "string", "readOnly": true, "x-section": "About" },
                "rising": { "type": "string", "format": "multus-version", "default": "1.0.0" },
                "tunnel": { "type": "string", "format": "multus-text-file", "default": "client.conf" },
                "login": { "type": "string", "format": "multus-text-file" },
                "rules": { "type": "array", "items": { "type": "object" } },
                "log": { "title": "Log", "description": "How it tells.", "x-edit-level": 0, "type": "object",
                    "properties": { "every": { "type": "integer" } } },
            },
            "$defs": { "Access": { "oneOf": [
                { "const": "read", "description": "May look." },
                { "const": "write", "title": "read and write" },
            ] } },
        })
    }

    const TEXT: &str = "name = \"pump\"\nport = 5020\npassword = \"********\"\naddress = 56\npins = [56, 57]\n\
                        version = \"1.0.7\"\n[outputs]\nDO1 = \"off\"\n[log]\nevery = 3\n";

    fn form(level: u32) -> Form {
        Form::new(&schema(), &values(TEXT).expect("TOML"), &Caller::new("somebody", level), false)
    }

    fn field<'a>(form: &'a Form, key: &str) -> &'a Field {
        form.fields().find(|field| field.key == key).unwrap_or_else(|| panic!("no field {key}"))
    }

    #[test]
    fn every_kind_of_parameter_has_its_field() {
        let form = form(Caller::ADMIN);
        let kinds = [
            ("name", Kind::Text, "pump"),
            ("port", Kind::Int, "5020"),
            ("address", Kind::Hex, "0x38"),
            ("gain", Kind::Number, ""),
            ("bind", Kind::Ip, ""),
            ("on", Kind::Bool, "true"),
            ("password", Kind::Password, ""),
            ("hosts", Kind::Texts, ""),
            ("map", Kind::Numbers, ""),
            ("pins", Kind::Hexes, "0x38, 0x39"),
            ("access", Kind::Radio, "read"),
            ("script", Kind::Area, ""),
            ("wait", Kind::Duration, ""),
            ("outputs", Kind::Pairs, "DO1 = off"),
            ("version", Kind::Fixed, "1.0.7"),
            ("rising", Kind::Fixed, ""),
            ("tunnel", Kind::File, ""),
            ("login", Kind::File, ""),
            ("rules", Kind::Toml, ""),
            ("log.every", Kind::Int, "3"),
        ];
        for (key, kind, value) in kinds {
            assert_eq!((field(&form, key).kind, field(&form, key).value.as_str()), (kind, value), "{key}");
        }
        assert_eq!(form.fields().count(), kinds.len(), "what may not be seen is not there");
        let port = field(&form, "port");
        assert_eq!(
            (port.title.as_str(), port.limits.as_str(), port.default.as_str()),
            ("TCP port", "1 to 65535", "502")
        );
        assert_eq!(field(&form, "log.every").locked, "needs right level 0");
        assert_eq!(field(&form, "gain").limits, "0.5 to 2");
        assert_eq!(field(&form, "access").choices[1].title, "read and write");
        let titles: Vec<_> = form.sections.iter().map(|section| section.title.as_str()).collect();
        assert!(titles.contains(&"Log") && titles.contains(&"About"), "{titles:?}");
        assert!(!super::Form::new(&schema(), &Map::new(), &Caller::new("u", 100), false).editable);
    }

    #[test]
    fn what_is_sent_becomes_changes() {
        let mut form = form(Caller::ADMIN);
        let sent = [
            ("name", "pump"),
            ("port", " 5021 "),
            ("address", "0x3A"),
            ("gain", "1,5"),
            ("bind", "10.0.0.1"),
            ("on", "true"),
            ("password", ""),
            ("hosts", "a\r\nb\r\n"),
            ("map", "1, 2,3"),
            ("pins", "0x38,57"),
            ("access", "write"),
            ("wait", ""),
            ("outputs", "DO1 = on\nDO2 = 4.5\nDO3=true"),
            ("version", "9"),
            ("log.every", "7"),
        ];
        let sent: Vec<_> = sent.iter().map(|(key, value)| (format!("v:{key}"), (*value).to_owned())).collect();
        form.fill(&sent);
        assert_eq!(form.wrong, 0, "{:?}", form.fields().map(|field| &field.error).collect::<Vec<_>>());
        let changes: Map<String, Value> = form
            .changes()
            .into_iter()
            .map(|change| (change.path.join("."), change.value.unwrap_or_default()))
            .collect();
        let expected = serde_json::json!({
            "port": 5021, "address": 58, "gain": 1.5, "bind": "10.0.0.1", "hosts": ["a", "b"], "map": [1, 2, 3],
            "access": "write", "outputs": { "DO1": "on", "DO2": 4.5, "DO3": true },
        });
        assert_eq!(Value::Object(changes), expected, "locked and fixed ones are not changed");
        assert_eq!((form.changed, field(&form, "port").was.as_str()), (8, "5020"));
    }

    #[test]
    fn what_is_wrong_is_said_beside_the_field_and_kept() {
        for (key, value, error) in [
            ("port", "502o", "Not a whole number. It was 5020."),
            ("port", "70000", "70000 is too large: 1 to 65535. It was 5020."),
            ("port", "99999999999999999999", "Not a whole number. It was 5020."),
            ("address", "0xzz", "Not a number such as 0x38. It was 0x38."),
            ("gain", "0.1", "0.1 is too small: 0.5 to 2."),
            ("gain", "inf", "Not a number."),
            ("bind", "300.1.1.1", "Not an address such as 192.168.0.66."),
            ("wait", "soon", "Not a duration such as 200ms, 5s or 30min. It was 1s by default."),
            ("hosts", "a\nb\nc", "Too many: 3, at most 2 are possible."),
            ("map", "1, 0", "0 is too small: 1 or more."),
            ("name", "much too long", "Too long: 13 characters, at most 8 are possible."),
            ("access", "own", "\"own\" is none of the possible words."),
            ("outputs", "DO1", "\"DO1\": expected NAME = VALUE."),
            (
                "tunnel",
                "../users.toml",
                "\"../users.toml\" is not the path of a file without . and ... It was client.conf by default.",
            ),
        ] {
            let mut form = form(Caller::ADMIN);
            form.fill(&[(format!("v:{key}"), value.to_owned())]);
            let field = field(&form, key);
            assert_eq!((field.error.as_str(), field.value.as_str()), (error, value), "{key}");
            assert_eq!((form.wrong, form.changes().len()), (1, 0));
        }
    }

    #[test]
    fn a_text_is_edited_where_its_file_is_named() {
        let mut form = form(Caller::ADMIN);
        form.link_texts(|key| format!("/texts/{key}"));
        assert_eq!(field(&form, "tunnel").link, "/texts/tunnel", "by default");
        assert_eq!(field(&form, "login").link, "", "it names none");
        assert!(form.fields().all(|field| field.link.is_empty() || field.kind == Kind::File));
    }

    #[test]
    fn problems_of_a_check_find_their_fields() {
        let mut form = form(Caller::ADMIN);
        let problem =
            |key: &str, warning| Problem { key: key.into(), message: "bad".into(), warning, ..Problem::default() };
        let rest = form.blame(&[
            problem("port", false),
            problem("hosts[1]", false),
            problem("", false),
            problem("name", true),
        ]);
        assert_eq!((form.wrong, rest.len()), (2, 2));
        assert_eq!(field(&form, "hosts").error, "bad");
    }

    #[test]
    fn a_secret_is_cleared_by_its_box_and_not_by_an_empty_field() {
        let fill = |value: &str, tick: &str| {
            let mut form = form(Caller::ADMIN);
            form.fill(&[("v:password".into(), value.into()), ("c:password".into(), tick.into())]);
            form
        };
        let cleared = fill("", "true");
        let change = Change { path: vec!["password".into()], value: None };
        assert_eq!(
            (cleared.changed, cleared.changes(), cleared.shown_changes()),
            (1, vec![change.clone()], vec![change])
        );
        assert!(field(&cleared, "password").can_clear && field(&cleared, "password").cleared);
        assert_eq!(fill("", "").changed, 0);
        assert_eq!(fill("new one", "").changes()[0].value, Some("new one".into()));
        assert_eq!(fill("new one", "true").wrong, 1);
        let empty = Form::new(&schema(), &Map::new(), &Caller::new("somebody", Caller::ADMIN), false);
        assert!(!field(&empty, "password").can_clear, "nothing is set");
        assert!(!field(&form(Caller::USER), "password").can_clear, "not with this level");
    }

    #[test]
    fn an_emptied_field_goes_back_to_its_default() {
        let mut form = form(Caller::ADMIN);
        form.fill(&[("v:port".into(), String::new()), ("v:password".into(), "new one".into())]);
        let changes = form.changes();
        assert_eq!(changes[0], Change { path: vec!["port".into()], value: None });
        assert_eq!(changes[1].value, Some("new one".into()));
        assert_eq!(form.shown_changes()[1].value, Some("(a new value, not shown)".into()));
    }
}
