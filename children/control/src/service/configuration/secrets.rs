//! Values that are not shown: taken out of what leaves, put back into what comes.

use toml_edit::{DocumentMut, Item, TableLike, Value};

use super::super::{Caller, Problem};
use super::MASK;
use super::schema::Node;

/// A place in a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// As people write it: `servers[0].name`.
pub(super) fn key_of(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.push_str(&format!(".{key}")),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// `text` as `caller` may see it. What is no TOML cannot be looked through: if the schema hides anything from the caller, it is withheld
/// line by line, down to the names of keys.
pub(super) fn masked(text: &str, schema: Option<&serde_json::Value>, caller: &Caller) -> String {
    let Some(schema) = schema.filter(|schema| Node::hides_from(schema, caller)) else { return text.to_owned() };
    let Ok(mut document) = text.parse::<DocumentMut>() else { return withheld(text) };
    let mut mask = |_: &[Step], _: Node<'_>, value: &mut Value| {
        let decor = value.decor().clone();
        *value = Value::from(MASK);
        *value.decor_mut() = decor;
    };
    let hidden = |node: Node<'_>| node.is_hidden_from(caller);
    walk_table(document.as_table_mut(), Node::root(Some(schema)), &mut Vec::new(), &hidden, &mut mask);
    document.to_string()
}

/// `document` with the hidden values of `old` where it holds the mask.
pub(super) fn restore(
    document: &mut DocumentMut,
    old: Option<&DocumentMut>,
    schema: Option<&serde_json::Value>,
    caller: &Caller,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut put_back = |path: &[Step], _: Node<'_>, value: &mut Value| {
        if value.as_str() != Some(MASK) {
            return;
        }
        match old.and_then(|old| value_at(old.as_item(), path)) {
            Some(kept) => {
                let decor = value.decor().clone();
                *value = kept.clone();
                *value.decor_mut() = decor;
            }
            None => problems.push(Problem {
                key: key_of(path),
                message: format!("{MASK} means the value that is there, but there is none; write a value"),
                ..Problem::default()
            }),
        }
    };
    let hidden = |node: Node<'_>| node.is_hidden_from(caller);
    walk_table(document.as_table_mut(), Node::root(schema), &mut Vec::new(), &hidden, &mut put_back);
    problems
}

type See<'s> = dyn FnMut(&[Step], Node<'_>, &mut Value) + 's;

/// Shows every value that is wanted to `see`; what is wanted as a whole is not taken apart.
fn walk_table(
    table: &mut dyn TableLike,
    node: Node<'_>,
    path: &mut Vec<Step>,
    wanted: &dyn Fn(Node<'_>) -> bool,
    see: &mut See<'_>,
) {
    for (key, item) in table.iter_mut() {
        let below = node.key(key.get());
        path.push(Step::Key(key.get().to_owned()));
        match item {
            Item::Value(value) => walk_value(value, below, path, wanted, see),
            Item::Table(table) => walk_table(table, below, path, wanted, see),
            Item::ArrayOfTables(tables) => {
                for (index, table) in tables.iter_mut().enumerate() {
                    path.push(Step::Index(index));
                    walk_table(table, below.item(), path, wanted, see);
                    path.pop();
                }
            }
            Item::None => {}
        }
        path.pop();
    }
}

fn walk_value(
    value: &mut Value,
    node: Node<'_>,
    path: &mut Vec<Step>,
    wanted: &dyn Fn(Node<'_>) -> bool,
    see: &mut See<'_>,
) {
    if wanted(node) {
        return see(path, node, value);
    }
    match value {
        Value::InlineTable(table) => walk_table(table, node, path, wanted, see),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.push(Step::Index(index));
                walk_value(item, node.item(), path, wanted, see);
                path.pop();
            }
        }
        _ => {}
    }
}

fn value_at<'a>(item: &'a Item, path: &[Step]) -> Option<&'a Value> {
    let mut here = item;
    for (at, step) in path.iter().enumerate() {
        match (step, here) {
            (_, Item::Value(value)) => return inside(value, &path[at..]),
            (Step::Key(key), _) => here = here.get(key.as_str())?,
            (Step::Index(index), _) => {
                let table = here.as_array_of_tables()?.get(*index)?;
                return in_table(table, &path[at + 1..]);
            }
        }
    }
    here.as_value()
}

fn in_table<'a>(table: &'a toml_edit::Table, path: &[Step]) -> Option<&'a Value> {
    let (Step::Key(key), rest) = path.split_first()? else { return None };
    value_at(table.get(key.as_str())?, rest)
}

fn inside<'a>(value: &'a Value, path: &[Step]) -> Option<&'a Value> {
    let Some((step, rest)) = path.split_first() else { return Some(value) };
    let next = match step {
        Step::Key(key) => value.as_inline_table()?.get(key.as_str())?,
        Step::Index(index) => value.as_array()?.get(*index)?,
    };
    inside(next, rest)
}

/// A text that is no TOML, with its keys only.
fn withheld(text: &str) -> String {
    let line = |line: &str| {
        let key = line.split_once('=').map(|(key, _)| key.trim()).filter(|key| {
            !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        });
        key.map_or_else(|| format!("# {MASK}\n"), |key| format!("{key} = \"{MASK}\"\n"))
    };
    text.lines().map(line).collect()
}

/// One parameter, wherever it stands: its key, the value as text, and the weakest level that may change it.
pub(super) type Flat = std::collections::BTreeMap<String, (String, u32)>;

/// All parameters of a document.
pub(super) fn flat(document: &DocumentMut, schema: Option<&serde_json::Value>) -> Flat {
    let mut document = document.clone();
    let mut flat = Flat::new();
    collect_table(document.as_table_mut(), Node::root(schema), &mut Vec::new(), &mut flat);
    flat
}

fn collect_table(table: &mut dyn TableLike, node: Node<'_>, path: &mut Vec<Step>, flat: &mut Flat) {
    for (key, item) in table.iter_mut() {
        let below = node.key(key.get());
        path.push(Step::Key(key.get().to_owned()));
        match item {
            Item::Value(value) => collect_value(value, below, path, flat),
            Item::Table(table) => collect_table(table, below, path, flat),
            Item::ArrayOfTables(tables) => {
                for (index, table) in tables.iter_mut().enumerate() {
                    path.push(Step::Index(index));
                    collect_table(table, below.item(), path, flat);
                    path.pop();
                }
            }
            Item::None => {}
        }
        path.pop();
    }
}

fn collect_value(value: &mut Value, node: Node<'_>, path: &mut Vec<Step>, flat: &mut Flat) {
    match value {
        Value::InlineTable(table) => collect_table(table, node, path, flat),
        Value::Array(items) if items.iter().any(Value::is_inline_table) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.push(Step::Index(index));
                collect_value(item, node.item(), path, flat);
                path.pop();
            }
        }
        plain => {
            plain.decor_mut().clear();
            flat.insert(key_of(path), (plain.to_string(), node.edit_level()));
        }
    }
}
