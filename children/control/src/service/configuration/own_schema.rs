//! The schemas of multusd's own files. multusd's parser has the last word; these say what a form needs, and who may change
//! what: whatever lets a program run, or run as another user, takes the level of root.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

/// Of `children/<name>.toml`.
pub(super) fn child() -> Arc<Value> {
    static SCHEMA: LazyLock<Arc<Value>> = LazyLock::new(|| parse(include_str!("child-schema.json")));
    Arc::clone(&SCHEMA)
}

/// Of `multusd.toml`.
pub(super) fn daemon() -> Arc<Value> {
    static SCHEMA: LazyLock<Arc<Value>> = LazyLock::new(|| parse(include_str!("daemon-schema.json")));
    Arc::clone(&SCHEMA)
}

fn parse(text: &str) -> Arc<Value> {
    // A part of the program; the tests below read it.
    Arc::new(serde_json::from_str(text).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use toml_edit::{DocumentMut, Item, TableLike, Value as TomlValue};

    use super::super::super::Caller;
    use super::super::schema::Node;
    use super::*;

    /// The keys of a table that a schema does not know.
    fn unknown(table: &dyn TableLike, node: Node<'_>, path: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (key, item) in table.iter() {
            let (below, path) = (node.key(key), format!("{path}.{key}"));
            if !below.is_known() {
                found.push(path);
                continue;
            }
            match item {
                Item::ArrayOfTables(tables) => {
                    found.extend(tables.iter().flat_map(|table| unknown(table, below.item(), &path)));
                }
                Item::Value(TomlValue::Array(items)) => {
                    let tables = items.iter().filter_map(TomlValue::as_inline_table);
                    found.extend(tables.flat_map(|table| unknown(table, below.item(), &path)));
                }
                item => found.extend(item.as_table_like().map_or_else(Vec::new, |table| unknown(table, below, &path))),
            }
        }
        found
    }

    /// The examples show every key there is. What is commented out is a key, too, if it looks like one.
    fn keys(example: &str) -> DocumentMut {
        let open = |line: &str| {
            let key = line
                .strip_prefix("# ")
                .filter(|rest| rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')));
            format!("{}\n", key.unwrap_or(line))
        };
        let text: String = example.lines().map(open).collect();
        text.parse().expect("an example is good TOML")
    }

    #[test]
    fn the_schemas_know_every_key_of_the_examples() {
        for (example, schema) in [
            (include_str!("../../../../../docs/example-child.toml"), child()),
            (include_str!("../../../../../docs/example-multusd.toml"), daemon()),
        ] {
            let example = keys(example);
            assert!(example.as_table().len() > 5);
            assert_eq!(unknown(example.as_table(), Node::root(Some(&schema)), ""), Vec::<String>::new());
        }
    }

    #[test]
    fn what_runs_a_program_needs_the_level_of_root() {
        let schema = child();
        let root = Node::root(Some(&schema));
        for node in [
            root.key("command"),
            root.key("user"),
            root.key("environment").key("PATH"),
            root.key("safe_state").key("command"),
            root.key("check").key("command"),
            root.key("hooks").key("periodic").key("command"),
        ] {
            assert_eq!(node.edit_level(), Caller::ROOT);
        }
        assert_eq!(root.key("heartbeat").key("deadline").edit_level(), Caller::ADMIN);
    }

    #[test]
    fn what_leads_to_any_file_or_program_needs_the_level_of_root_in_the_parameters_of_this_program() {
        let schema = schemars::schema_for!(crate::config::Config).to_value();
        let root = Node::root(Some(&schema));
        let target = root.key("notify").key("targets").key("any");
        let (mqtt, history) = (root.key("mqtt"), root.key("history"));
        for (what, node) in [
            ("command", target.key("command")),
            ("mail.password_file", target.key("mail").key("password_file")),
            ("mqtt.password_file", mqtt.key("password_file")),
            ("history.password_file", history.key("password_file")),
            ("history.database", history.key("database")),
            ("grpc.key", root.key("grpc").key("key")),
            ("text_folders", root.key("configuration").key("text_folders").key("pump")),
        ] {
            assert!(node.is_known(), "{what}");
            assert_eq!(node.edit_level(), Caller::ROOT, "{what}");
        }
        for node in [target.key("url"), target.key("ca"), mqtt.key("ca"), mqtt.key("host"), history.key("max_age")] {
            assert_eq!(node.edit_level(), Caller::ADMIN);
        }
        let (user, admin) = (Caller::new("user", Caller::USER), Caller::new("admin", Caller::ADMIN));
        for node in [target.key("url"), history.key("database")] {
            assert!(node.is_hidden_from(&user) && !node.is_hidden_from(&admin), "they may hold tokens");
        }
    }
}
