//! The files are the documentation: nothing in them is without a word.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost_types::{DescriptorProto, FileDescriptorProto};

/// The files of one folder, with their comments.
fn files(folder: &str) -> Vec<FileDescriptorProto> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = std::fs::read_dir(root.join(folder)).expect("it is there");
    let paths: Vec<PathBuf> = dir.map(|entry| entry.expect("readable").path()).collect();
    let set = protox::compile(paths, [root]).expect("the build has compiled them");
    set.file.into_iter().filter(|file| file.name().starts_with(folder)).collect()
}

/// Everything that is to have a comment, by its place in a file as descriptors count it, with its name.
fn parts(file: &FileDescriptorProto) -> BTreeMap<Vec<i32>, String> {
    let mut parts = BTreeMap::new();
    for (at, message) in (0..).zip(&file.message_type) {
        message_parts(message, vec![4, at], "", &mut parts);
    }
    for (at, words) in (0..).zip(&file.enum_type) {
        for (value, word) in (0..).zip(&words.value) {
            parts.insert(vec![5, at, 2, value], format!("{}.{}", words.name(), word.name()));
        }
    }
    for (at, service) in (0..).zip(&file.service) {
        parts.insert(vec![6, at], service.name().to_owned());
        for (number, method) in (0..).zip(&service.method) {
            parts.insert(vec![6, at, 2, number], format!("{}.{}", service.name(), method.name()));
        }
    }
    parts
}

fn message_parts(message: &DescriptorProto, path: Vec<i32>, outer: &str, parts: &mut BTreeMap<Vec<i32>, String>) {
    // What a map is made of is not written by anybody.
    if message.options.as_ref().is_some_and(|options| options.map_entry()) {
        return;
    }
    let name = format!("{outer}{}", message.name());
    let below = |kind: i32, at: i32| [path.as_slice(), &[kind, at]].concat();
    for (at, field) in (0..).zip(&message.field) {
        parts.insert(below(2, at), format!("{name}.{}", field.name()));
    }
    for (at, inner) in (0..).zip(&message.nested_type) {
        message_parts(inner, below(3, at), &format!("{name}."), parts);
    }
    for (at, words) in (0..).zip(&message.enum_type) {
        for (value, word) in (0..).zip(&words.value) {
            let path = [below(4, at).as_slice(), &[2, value]].concat();
            parts.insert(path, format!("{name}.{}.{}", words.name(), word.name()));
        }
    }
}

#[test]
fn every_field_method_and_word_is_described() {
    let files = files("multus/v1");
    assert!(files.len() >= 9);
    let mut silent = Vec::new();
    for file in &files {
        let mut parts = parts(file);
        assert!(parts.len() > 5, "{}", file.name());
        for place in file.source_code_info.as_ref().map_or(&[][..], |info| &info.location) {
            let has_words = |comment: &str| comment.trim().len() > 1;
            if has_words(place.leading_comments()) || has_words(place.trailing_comments()) {
                parts.remove(&place.path);
            }
        }
        silent.extend(parts.into_values().map(|part| format!("{}: {part}", file.name())));
    }
    assert_eq!(silent, Vec::<String>::new());
}
