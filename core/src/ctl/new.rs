//! `multusctl new NAME DIR`: the crate of a new child, made from the template that ships inside this program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use multus_contract::config::name_fault;

use super::output::{Failure, print};

pub(crate) fn new(name: &str, dir: &Path, source: Option<&Path>) -> Result<(), Failure> {
    if let Some(fault) = crate_name_fault(name) {
        return Err(Failure::Message(fault));
    }
    let library = library(source).map_err(Failure::Message)?;
    refuse_occupied(dir).map_err(Failure::Message)?;
    for (path, template) in TEMPLATE {
        let path = dir.join(path);
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, fill(template, name, &library)));
        written.map_err(|error| Failure::Message(format!("{}: {error}", path.display())))?;
    }
    let shown = dir.display();
    print(|out| {
        writeln!(out, "made {shown}, a child that runs as it is. Next:")?;
        writeln!(out, "  cd {shown} && cargo run -- --help")?;
        writeln!(out, "  its README.md tells how to have it supervised")
    })
}

/// One file of the template with the name and the place of the library put in.
fn fill(template: &str, name: &str, library: &Path) -> String {
    let mut text =
        template.replace(TEMPLATE_NAME, name).replace("struct Template", &format!("struct {}", type_name(name)));
    for (before, after) in [("for ", " {"), ("::<", ">(")] {
        text = text.replace(&format!("{before}Template{after}"), &format!("{before}{}{after}", type_name(name)));
    }
    if text.starts_with("[package]") {
        let path = serde_json::Value::from(library.display().to_string());
        text = text.replace("path = \"../lib\"", &format!("path = {path}"));
        text.push_str("\n# A workspace of its own. Remove this to make it a member of another one.\n[workspace]\n");
    }
    text
}

/// `pump-control` as the name of a type: `PumpControl`.
fn type_name(name: &str) -> String {
    let parts = name.split(['-', '_']).filter(|part| !part.is_empty());
    parts.flat_map(|part| part[..1].to_uppercase().chars().chain(part[1..].chars()).collect::<Vec<_>>()).collect()
}

/// What is wrong with `name` as the name of a crate whose program is a child.
fn crate_name_fault(name: &str) -> Option<String> {
    if let Some(fault) = name_fault(name) {
        return Some(fault);
    }
    if name.contains('.') || !name.starts_with(|c: char| c.is_ascii_alphabetic()) || name.ends_with(['-', '_']) {
        return Some(format!("{name:?} cannot name a crate: start with a letter, use letters, digits, '-' and '_'"));
    }
    let taken = RESERVED.contains(&name)
        || matches!(
            type_name(name).as_str(),
            "Config" | "Child" | "About" | "Context" | "Error" | "Interval" | "Duration" | "Self"
        );
    taken.then(|| format!("{name:?} cannot name a child crate: the word has a meaning in Rust or in the template"))
}

/// The child library: in the source tree given, named by the environment, or found upwards from this program or from here.
fn library(source: Option<&Path>) -> Result<PathBuf, String> {
    let variable = std::env::var_os(SOURCE_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(given) = source.map(Path::to_path_buf).or(variable) {
        let given = fs::canonicalize(&given).map_err(|error| format!("{}: {error}", given.display()))?;
        return library_in(&given)
            .ok_or_else(|| format!("{}: no source tree of multusd: it has no {LIBRARY}/Cargo.toml", given.display()));
    }
    let starts = [std::env::current_exe().and_then(fs::canonicalize), std::env::current_dir()];
    let found = starts.iter().flatten().flat_map(|start| start.ancestors()).find_map(library_in);
    found.ok_or_else(|| {
        format!("cannot find the source tree of multusd, which has the child library; name it with --source or {SOURCE_VARIABLE}")
    })
}

fn library_in(tree: &Path) -> Option<PathBuf> {
    let library = tree.join(LIBRARY);
    let manifest = fs::read_to_string(library.join("Cargo.toml")).ok()?;
    manifest.contains("name = \"multus-child\"").then_some(library)
}

fn refuse_occupied(dir: &Path) -> Result<(), String> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(format!("{}: not empty; name a directory that is empty or does not exist", dir.display())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("{}: {error}", dir.display())),
    }
}

const TEMPLATE: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../../children/template/Cargo.toml")),
    ("README.md", include_str!("../../../children/template/README.md")),
    ("src/main.rs", include_str!("../../../children/template/src/main.rs")),
    ("tests/by_hand.rs", include_str!("../../../children/template/tests/by_hand.rs")),
];
const TEMPLATE_NAME: &str = "multus-template";
const LIBRARY: &str = "children/lib";
const SOURCE_VARIABLE: &str = "MULTUSD_SOURCE";
/// Words that cargo refuses as a name, or that would hide a crate of the template.
const RESERVED: &[&str] = &[
    "abstract",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "struct",
    "super",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
    "test",
    "core",
    "std",
    "alloc",
    "proc-macro",
    "log",
    "serde",
    "schemars",
    "serde_json",
    "multus-child",
    "build",
    "deps",
    "examples",
    "incremental",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_made_with_its_own_name() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("core lies in the source tree");
        let made = dir.path().join("pump");
        new("pump-control", &made, Some(tree)).expect("an empty place and a good name");
        let manifest = fs::read_to_string(made.join("Cargo.toml")).expect("made");
        assert!(manifest.contains("name = \"pump-control\"") && manifest.contains("children/lib\""), "{manifest}");
        assert!(manifest.ends_with("[workspace]\n") && !manifest.contains("../lib"));
        let main = fs::read_to_string(made.join("src/main.rs")).expect("made");
        for expected in ["struct PumpControl", "impl Child for PumpControl {", "run::<PumpControl>()"] {
            assert!(main.contains(expected), "{expected} in\n{main}");
        }
        for (path, _) in TEMPLATE {
            let text = fs::read_to_string(made.join(path)).expect("made");
            assert!(!text.contains(TEMPLATE_NAME), "{path} still has the name of the template");
        }
        let again = new("pump-control", &made, Some(tree)).expect_err("occupied");
        assert!(matches!(again, Failure::Message(text) if text.contains("not empty")));
    }

    #[test]
    fn bad_names_and_trees_are_refused() {
        for bad in ["", "a b", "../x", "1st", "a.b", "fn", "test", "x-", "self", "config", "multus-child"] {
            assert!(crate_name_fault(bad).is_some(), "{bad}");
        }
        for good in ["pump", "pump-control_2", "P"] {
            assert_eq!(crate_name_fault(good), None, "{good}");
        }
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let error = library(Some(dir.path())).expect_err("no source there");
        assert!(error.contains("no source tree of multusd"), "{error}");
    }
}
