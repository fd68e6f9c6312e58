//! Secrets in comments: a parameter that is commented out holds its value still.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use super::super::Caller;
use super::MASK;
use super::schema::Node;
use super::secrets::is_hidden;

/// `text`, which is TOML, with the mask in place of every value in a comment whose key is hidden from `caller`.
pub(super) fn masked(text: &str, root: Node<'_>, caller: &Caller) -> String {
    replaced(text, |comment| mask(&text[comment.range.clone()], &comment.tables(root), caller))
}

/// `text` with the comments of `old` in place of those that hold the mask and are otherwise as they were. Only where they are
/// hidden again: nobody sees one by moving it.
pub(super) fn restored(text: &str, old: &str, root: Node<'_>, caller: &Caller) -> String {
    let mut kept: BTreeMap<String, VecDeque<&str>> = BTreeMap::new();
    for comment in comments(old) {
        let before = &old[comment.range.clone()];
        if let Some(shown) = mask(before, &comment.tables(root), caller) {
            kept.entry(shown).or_default().push_back(before);
        }
    }
    replaced(text, |comment| {
        let shown = &text[comment.range.clone()];
        let before = kept.get_mut(shown)?;
        let stays_hidden = mask(before.front()?, &comment.tables(root), caller).as_deref() == Some(shown);
        before.pop_front().filter(|_| stays_hidden).map(str::to_owned)
    })
}

/// `text` with some comments replaced.
fn replaced(text: &str, mut new: impl FnMut(&Comment) -> Option<String>) -> String {
    let (mut out, mut done) = (String::with_capacity(text.len()), 0);
    for comment in comments(text) {
        if let Some(new) = new(&comment) {
            out.push_str(&text[done..comment.range.start]);
            out.push_str(&new);
            done = comment.range.end;
        }
    }
    out.push_str(&text[done..]);
    out
}

/// A comment from its mark to the end of the line.
#[derive(Debug)]
struct Comment {
    range: Range<usize>,
    /// The table in which it stands.
    table: Rc<[String]>,
    /// The table that was commented out above it.
    commented_out: Option<Rc<[String]>>,
}

impl Comment {
    /// What a key in it may be a key of.
    fn tables<'a>(&self, root: Node<'a>) -> Vec<Node<'a>> {
        let tables = std::iter::once(&self.table).chain(&self.commented_out);
        tables.map(|path| path.iter().fold(root, |node, key| entry(node.key(key)))).collect()
    }
}

/// Of a list of tables: one of them.
fn entry(node: Node<'_>) -> Node<'_> {
    let item = node.item();
    if item.is_known() { item } else { node }
}

/// The comment with the mask for everything after the first key that is hidden; `None` if none is.
fn mask(comment: &str, tables: &[Node<'_>], caller: &Caller) -> Option<String> {
    let hidden = |node: Node<'_>| is_hidden(node, caller) || is_hidden(node.item(), caller);
    let is_hidden_key = |key: &str| tables.iter().any(|table| hidden(below(*table, key)));
    let assigned = |(at, _): &(usize, &str)| key_before(&comment[..*at]).is_some_and(is_hidden_key);
    let (at, _) = comment.match_indices('=').find(assigned)?;
    Some(format!("{}= {MASK}", &comment[..at]))
}

/// What a key with dots leads to.
fn below<'a>(table: Node<'a>, key: &str) -> Node<'a> {
    key.split('.').fold(table, |node, part| node.key(part.trim_matches(['"', '\''])))
}

/// The key at the end of `text`, if there stands what looks like one.
fn key_before(text: &str) -> Option<&str> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | '\'');
    let text = text.trim_end();
    let rest = text.trim_end_matches(is_part);
    let stands_free = rest.ends_with(|c: char| c.is_whitespace() || matches!(c, '#' | ',' | '{' | '[' | '('));
    Some(&text[rest.len()..]).filter(|key| !key.is_empty() && stands_free)
}

/// Every comment of a TOML text. What is none may be taken for something else, but is read to its end.
fn comments(text: &str) -> Vec<Comment> {
    let mut found = Vec::new();
    let (mut table, mut commented_out) = (Rc::<[String]>::default(), None);
    let (mut at, mut depth, mut is_begin_of_line) = (0, 0_usize, true);
    while let Some(&byte) = text.as_bytes().get(at) {
        let rest = &text[at..];
        let length = match byte {
            b'#' => {
                let line = rest.lines().next().unwrap_or_default();
                if let Some(header) = header(line.trim_start_matches(['#', ' ', '\t'])) {
                    commented_out = Some(header);
                }
                let (table, commented_out) = (table.clone(), commented_out.clone());
                found.push(Comment { range: at..at + line.len(), table, commented_out });
                line.len()
            }
            b'"' | b'\'' => quoted(rest),
            b'[' if depth == 0 && is_begin_of_line => {
                let line = rest.lines().next().unwrap_or_default();
                // A key with a hash in it is cut short here, and is then one that nobody knows.
                let line = line.split('#').next().unwrap_or_default();
                (table, commented_out) = (header(line).unwrap_or_default(), None);
                line.len()
            }
            b'[' | b'{' => {
                depth += 1;
                1
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                1
            }
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
        is_begin_of_line = byte == b'\n' || (is_begin_of_line && byte.is_ascii_whitespace());
        at += length.max(1);
    }
    found
}

/// The keys of `[a.b]` or `[[a.b]]`.
fn header(line: &str) -> Option<Rc<[String]>> {
    let inner = line.trim().strip_prefix('[')?.strip_suffix(']')?;
    let inner = inner.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(inner);
    let keys = toml_edit::Key::parse(inner.trim()).ok()?;
    (keys.len() <= DEEPEST).then(|| keys.iter().map(|key| key.get().to_owned()).collect())
}

/// Length of the string at the beginning of `text`, quotes included.
fn quoted(text: &str) -> usize {
    let quote = &text[..1];
    let ends = quote.repeat(3);
    let end = if text.starts_with(&ends) { ends.as_str() } else { quote };
    let mut at = end.len();
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with('\\') && quote == "\"" {
            at += 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
        } else if rest.starts_with(end) {
            // Up to two more quotes belong to a string of several lines.
            let more = rest.len() - rest.trim_start_matches(quote).len();
            return at + if end.len() == 3 { more.min(5) } else { 1 };
        } else if end.len() == 1 && rest.starts_with('\n') {
            return at;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// No schema describes deeper tables.
const DEEPEST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r##"# first
a = "no # comment" # second
b = 'no # comment \' # third
c = """
# no comment \""" "#" """"" # fourth
d = [ # fifth
  "[no.table]",
] # sixth
[x."y.z"] # seventh
e = 1
# [[commented.out]]
# eighth
[ list ]
# ninth
f = 1 #"##;

    #[test]
    fn comments_are_told_from_texts_and_know_their_table() {
        let of = |comment: &Comment| {
            let table = comment.commented_out.as_ref().unwrap_or(&comment.table);
            (TEXT[comment.range.clone()].to_owned(), table.join("/"))
        };
        let found: Vec<_> = comments(TEXT).iter().map(of).collect();
        let expected = [
            ("# first", ""),
            ("# second", ""),
            ("# third", ""),
            ("# fourth", ""),
            ("# fifth", ""),
            ("# sixth", ""),
            ("# seventh", "x/y.z"),
            ("# [[commented.out]]", "commented/out"),
            ("# eighth", "commented/out"),
            ("# ninth", "list"),
            ("#", "list"),
        ];
        assert_eq!(found, expected.map(|(text, table)| (text.to_owned(), table.to_owned())));
        assert!(TEXT.parse::<toml_edit::DocumentMut>().is_ok());
    }

    #[test]
    fn what_is_no_toml_is_read_to_its_end() {
        for text in
            ["\"", "'''", "\"\\", "[", "[[", "#", "]]}", "\"\"\"\\\u{e9}", "a = \u{1f600} # \u{1f600}", "'\n# x"]
        {
            assert!(comments(text).iter().all(|comment| comment.range.end <= text.len()), "{text}");
        }
    }

    #[test]
    fn values_of_hidden_and_unknown_keys_are_masked() {
        let schema = serde_json::json!({ "properties": {
            "port": {}, "password": { "writeOnly": true }, "words": { "items": { "writeOnly": true } },
            "mail": { "properties": { "user": {}, "password": { "writeOnly": true } } },
            "servers": { "items": { "properties": { "host": {}, "token": { "writeOnly": true } } } },
        } });
        let caller = Caller::new("somebody", Caller::USER);
        let root = Node::root(Some(&schema));
        for (text, shown) in [
            ("# port = 1", "# port = 1"),
            ("# a port >= 1", "# a port >= 1"),
            ("# see http://box/?password=none", "# see http://box/?password=none"),
            ("#password=\"x\" # old", "#password= ********"),
            ("# \"password\" = 'x'", "# \"password\" = ********"),
            ("# pasword = 1", "# pasword = ********"),
            ("# words = [\"x\"]", "# words = ********"),
            ("# mail.user = 1", "# mail.user = 1"),
            ("# mail.password = 1", "# mail.password = ********"),
            ("# mail = { user = 1, password = 2 }", "# mail = { user = ********"),
            ("# [mail]\n# user = 1\n# port = 1", "# [mail]\n# user = ********\n# port = ********"),
            ("[mail]\n# user = 1\n# password = 1", "[mail]\n# user = 1\n# password = ********"),
            ("[[servers]]\n# host = 1\n# token = 1", "[[servers]]\n# host = 1\n# token = ********"),
        ] {
            let hidden = masked(text, root, &caller);
            assert_eq!(hidden, shown);
            assert_eq!(restored(&hidden, text, root, &caller), text);
        }
        // Where the same key is open to be seen, nothing comes back.
        let schema = serde_json::json!({ "properties": {
            "open": { "properties": { "password": {} } }, "mail": { "properties": { "password": { "writeOnly": true } } },
        } });
        let moved = "[open]\n# password = ********";
        assert_eq!(restored(moved, "[mail]\n# password = 1", Node::root(Some(&schema)), &caller), moved);
    }
}
