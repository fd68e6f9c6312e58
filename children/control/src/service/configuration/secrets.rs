//! Values that are not shown: taken out of what leaves, put back into what comes.

use std::collections::BTreeMap;

use toml_edit::{ArrayOfTables, DocumentMut, Item, TableLike, Value};

use super::super::{Caller, Problem};
use super::MASK;
use super::comments;
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

/// Whether this caller may not see what stands at a place of a schema that hides something from him. Under a key that the schema
/// does not know a secret may stand, with a typing error in its name.
pub(super) fn is_hidden(node: Node<'_>, caller: &Caller) -> bool {
    node.is_hidden_from(caller) || node.is_strange()
}

/// `text` as `caller` may see it. What is no TOML cannot be looked through: if the schema hides anything from the caller, it is withheld
/// line by line, down to the names of keys.
pub(super) fn masked(text: &str, schema: Option<&serde_json::Value>, caller: &Caller) -> String {
    let Some(schema) = schema.filter(|schema| Node::hides_from(schema, caller)) else { return text.to_owned() };
    if text.parse::<DocumentMut>().is_err() {
        return withheld(text);
    }
    let text = comments::masked(text, Node::root(Some(schema)), caller);
    let Ok(mut document) = text.parse::<DocumentMut>() else { return withheld(&text) };
    let mut mask = |value: &mut Value| replace(value, Value::from(MASK));
    walk_table(document.as_table_mut(), Node::root(Some(schema)), caller, &mut mask);
    document.to_string()
}

/// `text` with the hidden values of `old` where it holds the mask.
///
/// # Errors
/// Which masks stand for no value, or for none that is certain. A text that is no TOML is left as it is.
pub(super) fn restored(
    text: &str,
    old: &str,
    schema: Option<&serde_json::Value>,
    caller: &Caller,
) -> Result<String, Vec<Problem>> {
    let root = Node::root(schema);
    let text = comments::restored(text, old, root, caller);
    let Ok(mut document) = text.parse::<DocumentMut>() else { return Ok(text) };
    let old = old.parse::<DocumentMut>().unwrap_or_default();
    let mut restore = Restore { caller, path: Vec::new(), problems: Vec::new() };
    restore.table(document.as_table_mut(), Some(old.as_table()), root);
    if restore.problems.is_empty() { Ok(document.to_string()) } else { Err(restore.problems) }
}

fn replace(value: &mut Value, new: Value) {
    let decor = value.decor().clone();
    *value = new;
    *value.decor_mut() = decor;
}

/// Shows every value that is hidden to `see`; what is hidden as a whole is not taken apart.
fn walk_table(table: &mut dyn TableLike, node: Node<'_>, caller: &Caller, see: &mut dyn FnMut(&mut Value)) {
    for (key, item) in table.iter_mut() {
        let below = node.key(key.get());
        match item {
            Item::Value(value) => walk_value(value, below, caller, see),
            Item::Table(table) => walk_table(table, below, caller, see),
            Item::ArrayOfTables(tables) => {
                tables.iter_mut().for_each(|table| walk_table(table, below.item(), caller, see));
            }
            Item::None => {}
        }
    }
}

fn walk_value(value: &mut Value, node: Node<'_>, caller: &Caller, see: &mut dyn FnMut(&mut Value)) {
    if is_hidden(node, caller) {
        return see(value);
    }
    match value {
        Value::InlineTable(table) => walk_table(table, node, caller, see),
        Value::Array(items) => items.iter_mut().for_each(|item| walk_value(item, node.item(), caller, see)),
        _ => {}
    }
}

/// Puts hidden values back, level by level, beside the text in which they stand.
struct Restore<'a> {
    caller: &'a Caller,
    path: Vec<Step>,
    problems: Vec<Problem>,
}

/// An entry of the old list for one of the new list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Partner {
    /// This one.
    At(usize),
    /// It is new.
    None,
    /// Several could be meant.
    Unclear,
}

impl Restore<'_> {
    fn table(&mut self, new: &mut dyn TableLike, old: Option<&dyn TableLike>, node: Node<'_>) {
        for (key, item) in new.iter_mut() {
            let below = node.key(key.get());
            let before = old.and_then(|old| old.get(key.get()));
            self.path.push(Step::Key(key.get().to_owned()));
            match item {
                Item::Value(value) => self.value(value, before, below),
                Item::Table(table) => self.table(table, before.and_then(Item::as_table_like), below),
                Item::ArrayOfTables(tables) => self.tables(tables, before, below),
                Item::None => {}
            }
            self.path.pop();
        }
    }

    fn value(&mut self, new: &mut Value, old: Option<&Item>, node: Node<'_>) {
        if is_hidden(node, self.caller) {
            return self.put_back(new, old);
        }
        match new {
            Value::InlineTable(table) => self.table(table, old.and_then(Item::as_table_like), node),
            Value::Array(items) => {
                let (before, node) = (entries(old), node.item());
                let now: Vec<Item> = items.iter().cloned().map(Item::Value).collect();
                let partners = self.partners(&now, &before, node);
                for (index, (item, partner)) in items.iter_mut().zip(partners).enumerate() {
                    self.entry(index, partner, &before, |own, before| own.value(item, before, node));
                }
            }
            _ => {}
        }
    }

    fn tables(&mut self, new: &mut ArrayOfTables, old: Option<&Item>, node: Node<'_>) {
        let (before, node) = (entries(old), node.item());
        let now: Vec<Item> = new.iter().cloned().map(Item::Table).collect();
        let partners = self.partners(&now, &before, node);
        for (index, (table, partner)) in new.iter_mut().zip(partners).enumerate() {
            self.entry(index, partner, &before, |own, before| {
                own.table(table, before.and_then(Item::as_table_like), node);
            });
        }
    }

    fn entry(&mut self, index: usize, partner: Partner, old: &[Item], put: impl FnOnce(&mut Self, Option<&Item>)) {
        self.path.push(Step::Index(index));
        let before = match partner {
            Partner::At(at) => old.get(at),
            Partner::None | Partner::Unclear => None,
        };
        let known = self.problems.len();
        put(self, before);
        if partner == Partner::Unclear {
            for problem in &mut self.problems[known..] {
                problem.message =
                    format!("{MASK}: which of the values in the list before is not clear; write the value");
            }
        }
        self.path.pop();
    }

    /// Which entry of the old list each of the new list is: the one that looks the same. Of several that look alike each keeps its
    /// place among them, as long as there are as many as before, or all hide the same. If one of each list is left over, it was
    /// changed.
    fn partners(&self, new: &[Item], old: &[Item], node: Node<'_>) -> Vec<Partner> {
        let mut groups: BTreeMap<Look, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for (at, item) in new.iter().enumerate() {
            groups.entry(look(item, node, Some(self.caller))).or_default().0.push(at);
        }
        for (at, item) in old.iter().enumerate() {
            groups.entry(look(item, node, Some(self.caller))).or_default().1.push(at);
        }
        let mut partners = vec![Partner::None; new.len()];
        let (mut changed, mut left_over) = (Vec::new(), Vec::new());
        for (here, there) in groups.values() {
            match (here.as_slice(), there.as_slice()) {
                (here, []) => changed.extend_from_slice(here),
                ([], there) => left_over.extend_from_slice(there),
                (here, there) if here.len() == there.len() => {
                    here.iter().zip(there).for_each(|(new, old)| partners[*new] = Partner::At(*old));
                }
                (here, [first, rest @ ..]) => {
                    let same = rest.iter().all(|other| alike(&old[*first], &old[*other], node));
                    let partner = if same { Partner::At(*first) } else { Partner::Unclear };
                    here.iter().for_each(|new| partners[*new] = partner);
                }
            }
        }
        match (changed.as_slice(), left_over.as_slice()) {
            (_, []) => {}
            ([one], [before]) => partners[*one] = Partner::At(*before),
            (several, _) => several.iter().for_each(|new| partners[*new] = Partner::Unclear),
        }
        partners
    }

    fn put_back(&mut self, value: &mut Value, old: Option<&Item>) {
        if value.as_str() != Some(MASK) {
            return;
        }
        match old.and_then(Item::as_value) {
            Some(kept) => replace(value, kept.clone()),
            None => self.problems.push(Problem {
                key: key_of(&self.path),
                message: format!("{MASK} means the value that is there, but there is none; write a value"),
                ..Problem::default()
            }),
        }
    }
}

/// The entries of a list, however it is written.
fn entries(list: Option<&Item>) -> Vec<Item> {
    match list {
        Some(Item::Value(Value::Array(items))) => items.iter().cloned().map(Item::Value).collect(),
        Some(Item::ArrayOfTables(tables)) => tables.iter().cloned().map(Item::Table).collect(),
        _ => Vec::new(),
    }
}

/// What somebody sees of an entry: its values by their keys, whatever their order and layout.
type Look = BTreeMap<String, String>;

/// For nobody: everything.
fn look(item: &Item, node: Node<'_>, caller: Option<&Caller>) -> Look {
    let mut seen = Look::new();
    see_item(item, node, caller, &mut Vec::new(), &mut seen);
    seen
}

fn alike(one: &Item, other: &Item, node: Node<'_>) -> bool {
    look(one, node, None) == look(other, node, None)
}

fn see_item(item: &Item, node: Node<'_>, caller: Option<&Caller>, path: &mut Vec<Step>, seen: &mut Look) {
    if item.is_value() && caller.is_some_and(|caller| is_hidden(node, caller)) {
        return;
    }
    if let Some(table) = item.as_table_like() {
        for (key, item) in table.iter() {
            path.push(Step::Key(key.to_owned()));
            see_item(item, node.key(key), caller, path, seen);
            path.pop();
        }
        return;
    }
    let list = entries(Some(item));
    for (index, entry) in list.iter().enumerate() {
        path.push(Step::Index(index));
        see_item(entry, node.item(), caller, path, seen);
        path.pop();
    }
    if let (true, Some(value)) = (list.is_empty(), item.as_value()) {
        let text = match value {
            Value::String(text) => format!("{:?}", text.value()),
            plain => plain.clone().decorated("", "").to_string(),
        };
        seen.insert(key_of(path), text);
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> serde_json::Value {
        json!({ "additionalProperties": false, "properties": {
            "port": { "type": "integer" },
            "password": { "type": "string", "writeOnly": true },
            "words": { "items": { "format": "password" } },
            "servers": { "items": { "additionalProperties": false, "properties": {
                "host": { "type": "string" }, "port": { "type": "integer" }, "token": { "format": "password" },
            } } },
            "free": { "additionalProperties": true },
        } })
    }

    fn somebody() -> Caller {
        Caller::new("somebody", Caller::USER)
    }

    fn shown(text: &str) -> String {
        masked(text, Some(&schema()), &somebody())
    }

    fn saved(text: &str, old: &str) -> Result<String, String> {
        restored(text, old, Some(&schema()), &somebody()).map_err(|problems| {
            problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect()
        })
    }

    const SERVERS: &str = "[[servers]]\nhost = \"a\"\ntoken = \"of a\"\n[[servers]]\nhost = \"b\"\ntoken = \"of b\"\n\
                           [[servers]]\nhost = \"c\"\ntoken = \"of c\"\n";

    /// Entries with masks, one for each letter.
    fn entries_of(hosts: &str) -> String {
        let entry = |host| format!("[[servers]]\nhost = \"{host}\"\ntoken = \"{MASK}\"\n");
        hosts.chars().map(entry).collect()
    }

    #[test]
    fn an_entry_of_a_list_keeps_its_secret_wherever_it_stands() {
        assert_eq!(shown(SERVERS), entries_of("abc"));
        let with = |hosts: &str| {
            let text = saved(&entries_of(hosts), SERVERS).unwrap_or_else(|error| panic!("{hosts}: {error}"));
            let tokens = text.lines().filter_map(|line| line.strip_prefix("token = \"of "));
            tokens.map(|token| token.trim_end_matches('"')).collect::<String>()
        };
        assert_eq!(with("abc"), "abc");
        assert_eq!(with("cab"), "cab", "in another order");
        assert_eq!(with("bc"), "bc", "one is taken out");
        assert_eq!(with("abcb"), "abcb", "a copy of one");
        assert_eq!(with("axc"), "abc", "one is changed");
        assert_eq!(with("cax"), "cab", "one is changed, and all stand elsewhere");
        let inline = "servers = [{ host = \"a\", token = \"of a\" }, { token = \"of b\", host = \"b\" }]\n";
        let moved = format!("servers = [{{ host = 'b', token = \"{MASK}\" }}]\n");
        assert_eq!(saved(&moved, inline).as_deref(), Ok("servers = [{ host = 'b', token = \"of b\" }]\n"));
    }

    #[test]
    fn a_mask_that_could_mean_several_secrets_is_refused() {
        for (hosts, key, why) in [
            ("x", "servers[0].token", "not clear"),
            ("xyc", "servers[0].token", "not clear"),
            ("abcx", "servers[3].token", "there is none"),
        ] {
            let said = saved(&entries_of(hosts), SERVERS).expect_err(hosts);
            assert!(said.starts_with(key) && said.contains(why), "{said}");
        }
        let twins = "words = [\"one\", \"two\"]\n";
        let words = |count: usize| format!("words = [{}]\n", vec![format!("\"{MASK}\""); count].join(", "));
        assert_eq!(saved(&words(2), twins).as_deref(), Ok(twins));
        let said = saved(&words(1), twins).expect_err("one of two");
        assert!(said.starts_with("words[0]") && said.contains("not clear"), "{said}");
        let typed = format!("words = [\"new\", \"{MASK}\"]\n");
        assert_eq!(saved(&typed, twins).as_deref(), Ok("words = [\"new\", \"two\"]\n"));
        let same = "words = [\"one\", \"one\"]\n";
        assert_eq!(saved(&words(1), same).as_deref(), Ok("words = [\"one\"]\n"));
    }

    #[test]
    fn what_the_schema_does_not_know_is_hidden_where_something_is() {
        let text = "port = 1\npasswrd = \"x\"\n[free]\nany = 1\n[old]\nhost = \"y\"\nlist = [1, 2]\n";
        let hidden =
            format!("port = 1\npasswrd = \"{MASK}\"\n[free]\nany = 1\n[old]\nhost = \"{MASK}\"\nlist = \"{MASK}\"\n");
        assert_eq!(shown(text), hidden);
        assert_eq!(saved(&hidden, text).as_deref(), Ok(text));
        let open = json!({ "properties": { "port": {} } });
        assert_eq!(masked(text, Some(&open), &somebody()), text, "there are no secrets");
        assert_eq!(masked(text, None, &somebody()), text);
    }

    #[test]
    fn a_secret_in_a_comment_is_hidden_and_stays_there() {
        let text = "port = 1 # password = \"old\"\n# password = \"older\"\n#port = 2\n[[servers]]\nhost = \"a\"\n\
                    # token = \"t\", host = \"h\"\n";
        let hidden = format!(
            "port = 1 # password = {MASK}\n# password = {MASK}\n#port = 2\n[[servers]]\nhost = \"a\"\n# token = {MASK}\n"
        );
        assert_eq!(shown(text), hidden);
        let edited = hidden.replace("port = 1", "port = 3");
        assert_eq!(saved(&edited, text), Ok(text.replace("port = 1", "port = 3")));
    }
}
