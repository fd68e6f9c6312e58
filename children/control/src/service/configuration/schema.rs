//! Schemas: what a parameter is, who may see it and who may change it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use multus_child::parameter::TEXT_FILE_FORMAT;
use serde_json::Value;

use super::super::Caller;
use super::program::{self, Stamp};

/// A place in a schema.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    root: &'a Value,
    /// `Null`: nothing is known of this place.
    here: &'a Value,
    secret: bool,
    display_level: u32,
    edit_level: u32,
    /// Below a table whose keys are described, under one that is not.
    strange: bool,
}

static UNKNOWN: Value = Value::Null;

impl<'a> Node<'a> {
    /// The whole document. Without a schema nothing is secret and levels are the usual ones.
    pub(super) fn root(schema: Option<&'a Value>) -> Self {
        let root = schema.unwrap_or(&UNKNOWN);
        let (display_level, edit_level) = (Caller::USER, Caller::ADMIN);
        let all = Node { root, here: root, secret: false, display_level, edit_level, strange: false };
        all.with_marks_of(root)
    }

    /// The value of a key.
    pub(super) fn key(&self, key: &str) -> Self {
        let below = self.down(|schema| {
            schema
                .get("properties")
                .and_then(|known| known.get(key))
                .or_else(|| schema.get("additionalProperties").filter(|more| more.is_object()))
        });
        let is_new = self.is_known() && !below.is_known() && !self.flag("additionalProperties");
        Node { strange: self.strange || is_new, ..below }
    }

    /// A value in a list.
    pub(super) fn item(&self) -> Self {
        self.down(|schema| schema.get("items").filter(|items| items.is_object()))
    }

    /// Whether this caller may not see the value.
    pub(super) fn is_hidden_from(&self, caller: &Caller) -> bool {
        self.secret || caller.level > self.display_level
    }

    /// Whether it stands under a key that the schema neither knows nor allows: a typing error, or of another version of the
    /// program. It may hold anything.
    pub(super) fn is_strange(&self) -> bool {
        self.strange
    }

    /// Whether the schema says anything of this place.
    pub(super) fn is_known(&self) -> bool {
        !self.here.is_null()
    }

    /// The weakest level that may change it.
    pub(super) fn edit_level(&self) -> u32 {
        self.edit_level
    }

    /// The weakest level that may see it, if it is no secret.
    pub(super) fn display_level(&self) -> u32 {
        self.display_level
    }

    /// Whether it never leaves the device.
    pub(super) fn is_secret(&self) -> bool {
        self.secret
    }

    /// A text that the schema says of this place.
    pub(super) fn text(&self, word: &str) -> Option<String> {
        let mut found = None;
        self.each(self.here, DEEPEST, &mut |schema| {
            found = found.take().or_else(|| schema.get(word).and_then(Value::as_str).map(str::to_owned));
        });
        found
    }

    /// Whether the schema says `true` to a word.
    pub(super) fn flag(&self, word: &str) -> bool {
        let mut found = false;
        self.each(self.here, DEEPEST, &mut |schema| found |= schema.get(word) == Some(&Value::Bool(true)));
        found
    }

    /// Every parameter below that is the path of a text file, by its key with its tables.
    pub(super) fn text_files(&self) -> Vec<(String, Self)> {
        self.of_format(TEXT_FILE_FORMAT)
    }

    /// Every parameter below that has this format. Those in lists are not among them: their place is not fixed.
    pub(super) fn of_format(&self, format: &str) -> Vec<(String, Self)> {
        let mut found = Vec::new();
        self.collect(format, "", DEEPEST, &mut found);
        found
    }

    fn collect(&self, format: &str, path: &str, depth: usize, found: &mut Vec<(String, Self)>) {
        let Some(depth) = depth.checked_sub(1) else { return };
        let mut keys: Vec<&str> = Vec::new();
        self.each(self.here, DEEPEST, &mut |schema| {
            let known = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
            keys.extend(known.map(|(key, _)| key.as_str()));
        });
        for key in keys.into_iter().filter(|key| !key.is_empty() && !key.contains('.')) {
            let below = self.key(key);
            let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            if below.text("format").as_deref() == Some(format) {
                found.push((path, below));
            } else {
                below.collect(format, &path, depth, found);
            }
        }
    }

    /// Whether anything in the whole schema is marked as secret or not for everybody.
    pub(super) fn hides_something(schema: &Value) -> bool {
        match schema {
            Value::Object(map) => {
                is_secret(schema)
                    || map.get(DISPLAY).is_some_and(Value::is_number)
                    || map.values().any(Self::hides_something)
            }
            Value::Array(items) => items.iter().any(Self::hides_something),
            _ => false,
        }
    }

    /// Whether anything in the whole schema is not for this caller to see.
    pub(super) fn hides_from(schema: &Value, caller: &Caller) -> bool {
        match schema {
            Value::Object(map) => {
                let level = map.get(DISPLAY).and_then(Value::as_u64);
                is_secret(schema)
                    || level.is_some_and(|level| u64::from(caller.level) > level)
                    || map.values().any(|below| Self::hides_from(below, caller))
            }
            Value::Array(items) => items.iter().any(|item| Self::hides_from(item, caller)),
            _ => false,
        }
    }

    fn down(&self, find: impl Fn(&'a Value) -> Option<&'a Value>) -> Self {
        let mut found = None;
        self.each(self.here, DEEPEST, &mut |schema| found = found.or_else(|| find(schema)));
        let below = Node { here: found.unwrap_or(&UNKNOWN), ..*self };
        below.with_marks_of(below.here)
    }

    /// What is said of a place counts for all below it, unless that says otherwise. A secret stays one.
    fn with_marks_of(mut self, schema: &'a Value) -> Self {
        let Node { root, .. } = self;
        Node { root, ..self }.each(schema, DEEPEST, &mut |schema| {
            let level = |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|level| u32::try_from(level).ok());
            self.secret |= is_secret(schema);
            self.display_level = level(DISPLAY).unwrap_or(self.display_level);
            self.edit_level = level(EDIT).unwrap_or(self.edit_level);
        });
        self
    }

    /// Every schema that holds for the same value: references are followed, alternatives taken together.
    fn each(&self, schema: &'a Value, depth: usize, see: &mut dyn FnMut(&'a Value)) {
        // Nobody nests deeper by hand; a circle of references ends here.
        let Some(depth) = depth.checked_sub(1) else { return };
        see(schema);
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
        if let Some(target) = target.and_then(|pointer| self.root.pointer(pointer)) {
            self.each(target, depth, see);
        }
        for word in ["allOf", "anyOf", "oneOf"] {
            for part in schema.get(word).and_then(Value::as_array).into_iter().flatten() {
                self.each(part, depth, see);
            }
        }
    }
}

fn is_secret(schema: &Value) -> bool {
    schema.get("writeOnly").and_then(Value::as_bool).unwrap_or(false)
        || schema.get("format").and_then(Value::as_str) == Some("password")
}

/// In place of a schema that cannot be told at the moment: everything counts as secret, and only root may change it, because
/// nobody knows what is and who may.
pub(super) fn not_known() -> Arc<Value> {
    Arc::new(serde_json::json!({ "writeOnly": true, "x-edit-level": Caller::ROOT }))
}

/// Schemas that programs told, for as long as the programs do not change.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// By command line.
    known: Mutex<BTreeMap<Vec<String>, Known>>,
}

#[derive(Debug)]
struct Known {
    stamp: Stamp,
    schema: Option<Arc<Value>>,
    /// For a program that could not be asked: when it is asked again.
    again: Option<Instant>,
}

impl Cache {
    /// The schema of the program behind a command line; `None` if it has none. Runs it if it is not known yet. As long as it
    /// may have one that cannot be told, that is [`not_known`].
    pub(super) fn of(&self, program: &Path, arguments: &[String]) -> Option<Arc<Value>> {
        let mut command = vec![program.to_string_lossy().into_owned()];
        command.extend_from_slice(arguments);
        let Some(stamp) = Stamp::of(program, arguments) else { return Some(not_known()) };
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&command)
            && known.stamp == stamp
            && known.again.is_none_or(|again| Instant::now() < again)
        {
            return known.schema.clone();
        }
        let (schema, again) = match program::print_schema(program, arguments) {
            Ok(schema) => (schema.map(Arc::new), None),
            Err(error) => {
                log::warn!("{}: no schema, so its parameters are hidden: {error}", program.display());
                // It may only have been busy.
                (Some(not_known()), Some(Instant::now() + ASK_AGAIN))
            }
        };
        let mut known = lock();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(command, Known { stamp, schema: schema.clone(), again });
        schema
    }
}

const DISPLAY: &str = "x-display-level";
const EDIT: &str = "x-edit-level";
const DEEPEST: usize = 16;
const MOST_KNOWN: usize = 1000;
/// So that one program that hangs does not hold up every list of documents.
const ASK_AGAIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_through_references_and_hold_for_all_below() {
        let schema = serde_json::json!({
            "properties": {
                "plain": { "type": "string" },
                "token": { "type": ["string", "null"], "writeOnly": true },
                "login": { "anyOf": [{ "$ref": "#/$defs/Login" }, { "type": "null" }] },
                "list": { "items": { "$ref": "#/$defs/Login" }, "x-display-level": 10 },
                "open": { "x-edit-level": 100, "properties": { "strict": { "x-edit-level": 0 }, "free": {} } },
            },
            "$defs": { "Login": {
                "properties": { "password": { "format": "password" }, "user": {} },
                "additionalProperties": { "writeOnly": true },
            } },
        });
        let root = Node::root(Some(&schema));
        let (user, admin) = (Caller::new("u", 100), Caller::new("a", 10));
        let hidden = |node: Node<'_>| (node.is_hidden_from(&user), node.is_hidden_from(&admin));
        assert_eq!(hidden(root.key("plain")), (false, false));
        assert_eq!(hidden(root.key("token")), (true, true));
        assert_eq!(hidden(root.key("login").key("password")), (true, true));
        assert_eq!(hidden(root.key("login").key("user")), (false, false));
        assert_eq!(hidden(root.key("login").key("more")), (true, true));
        assert_eq!(hidden(root.key("list").item().key("user")), (true, false));
        assert_eq!(hidden(root.key("no").key("such").item()), (false, false));
        let levels = ["strict", "free", "unknown"].map(|key| root.key("open").key(key).edit_level());
        assert_eq!(levels, [0, 100, 100]);
        assert!(Node::hides_something(&schema) && !Node::hides_something(&schema["properties"]["plain"]));
        let strange = |node: Node<'_>| node.is_strange();
        assert!(strange(root.key("tokn")) && strange(root.key("tokn").key("x").item()));
        assert!(strange(root.key("open").key("more")) && !strange(root.key("list").item().key("user")));
        assert!(!strange(root.key("login").key("more")) && !strange(root.key("open").key("free")));
        let free = serde_json::json!({ "properties": { "any": { "additionalProperties": true } } });
        assert!(!strange(Node::root(Some(&free)).key("any").key("x").key("y")));
        assert!(!strange(Node::root(None).key("x")), "nothing is known at all");
        let circle = serde_json::json!({ "$ref": "#" });
        assert_eq!(Node::root(Some(&circle)).key("x").edit_level(), Caller::ADMIN);
    }
}
