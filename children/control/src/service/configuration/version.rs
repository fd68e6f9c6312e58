//! A parameter of the format `multus-version` counts changes: its last number rises when another parameter was changed.

use multus_child::parameter::VERSION_FORMAT;
use serde_json::Value;
use toml_edit::{DocumentMut, Item, TableLike};

use super::schema::Node;

/// `new` with every version raised that nobody raised by hand; as it is if nothing but comments and layout differ from `old`.
pub(super) fn raised(old: &str, new: String, schema: &Value) -> String {
    let versions = Node::root(Some(schema)).of_format(VERSION_FORMAT);
    if versions.is_empty() {
        return new;
    }
    let (Ok(before), Ok(mut document)) = (old.parse::<DocumentMut>(), new.parse::<DocumentMut>()) else { return new };
    let values = |document: &DocumentMut| super::secrets::flat(document, Some(schema));
    if values(&before) == values(&document) {
        return new;
    }
    for (key, node) in versions {
        let default = node.text("default").unwrap_or_else(|| "1.0.0".into());
        let was = text_at(&before, &key).unwrap_or_else(|| default.clone());
        let is = text_at(&document, &key).unwrap_or(default);
        if numbers(&is) <= numbers(&was)
            && let Some(next) = next(&was)
        {
            put(&mut document, &key, &next);
        }
    }
    document.to_string()
}

fn text_at(document: &DocumentMut, key: &str) -> Option<String> {
    let mut item = document.as_item();
    for part in key.split('.') {
        item = item.get(part)?;
    }
    item.as_str().map(str::to_owned)
}

fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// The version after this one; `None` if its last part is no number.
fn next(version: &str) -> Option<String> {
    let (before, last) = version.rsplit_once('.').map_or(("", version), |(before, last)| (before, last));
    let last = last.parse::<u64>().ok()?.checked_add(1)?;
    Some(if before.is_empty() { last.to_string() } else { format!("{before}.{last}") })
}

fn put(document: &mut DocumentMut, key: &str, version: &str) {
    let mut parts: Vec<&str> = key.split('.').collect();
    let Some(last) = parts.pop() else { return };
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for part in parts {
        let item = table.entry(part).or_insert_with(|| Item::Table(toml_edit::Table::new()));
        match item.as_table_like_mut() {
            Some(inner) => table = inner,
            None => return,
        }
    }
    let mut value = toml_edit::Value::from(version);
    if let Some(old) = table.get(last).and_then(Item::as_value) {
        *value.decor_mut() = old.decor().clone();
    }
    table.insert(last, Item::Value(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_rises_with_each_change_and_never_falls() {
        let schema = serde_json::json!({ "properties": {
            "port": { "type": "integer" },
            "version": { "type": "string", "format": "multus-version", "default": "1.0.0" },
        } });
        for (old, new, expected) in [
            ("port = 1\n", "port = 2\n", "port = 2\nversion = \"1.0.1\"\n"),
            (
                "port = 1\nversion = \"1.0.9\" # ours\n",
                "port = 2\nversion = \"1.0.9\" # ours\n",
                "port = 2\nversion = \"1.0.10\" # ours\n",
            ),
            // An older text comes back: that is a change, too.
            ("port = 2\nversion = \"2.1.7\"\n", "port = 1\nversion = \"2.1.3\"\n", "port = 1\nversion = \"2.1.8\"\n"),
            // By hand.
            ("port = 1\nversion = \"1.0.0\"\n", "port = 2\nversion = \"2.0.0\"\n", "port = 2\nversion = \"2.0.0\"\n"),
            // Nothing but a comment, and what cannot be counted.
            ("port = 1\n", "port = 1 # one\n", "port = 1 # one\n"),
            ("port = 1\nversion = \"x\"\n", "port = 2\nversion = \"x\"\n", "port = 2\nversion = \"x\"\n"),
            ("port = 1\n", "port = \n", "port = \n"),
        ] {
            assert_eq!(raised(old, new.to_owned(), &schema), expected, "{old:?} -> {new:?}");
        }
        let plain = serde_json::json!({ "properties": { "port": {} } });
        assert_eq!(raised("port = 1\n", "port = 2\n".into(), &plain), "port = 2\n");
    }
}
