//! What the broker keeps of us, also what the process before this one said: when a child, a line or a description is no longer
//! there, the broker is told to forget it, whoever told it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Retained topics that were said, and are not forgotten for certain.
#[derive(Debug)]
pub(super) struct Kept {
    file: PathBuf,
    topics: BTreeMap<String, Group>,
    /// Those that the broker was told to forget, and has not acknowledged.
    leaving: BTreeSet<String>,
}

/// Topics are compared with what there is now, group by group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Group {
    /// The daemon and its children.
    Children,
    /// Inputs and outputs.
    Lines,
}

impl Kept {
    pub(super) fn load(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let topics = serde_json::from_str(&text).unwrap_or_default();
        Self { file: file.to_owned(), topics, leaving: BTreeSet::new() }
    }

    /// All of a group that is said now. What is no longer among it is to be forgotten; each is named once.
    pub(super) fn now(&mut self, group: Group, said: &BTreeSet<String>) -> Vec<String> {
        let before = self.topics.len();
        self.topics.extend(said.iter().map(|topic| (topic.clone(), group)));
        self.leaving.retain(|topic| !said.contains(topic));
        if self.topics.len() != before {
            self.save();
        }
        let gone = self.topics.iter().filter(|(topic, of)| **of == group && !said.contains(*topic));
        let gone: Vec<String> = gone.map(|(topic, _)| topic.clone()).collect();
        gone.into_iter().filter(|topic| self.leaving.insert(topic.clone())).collect()
    }

    /// The broker has forgotten it.
    pub(super) fn forgotten(&mut self, topic: &str) {
        if self.leaving.remove(topic) {
            self.topics.remove(topic);
            self.save();
        }
    }

    fn save(&self) {
        let text = serde_json::to_string(&self.topics).unwrap_or_default();
        // Without it something stays at the broker that could have gone; that is no reason to say less.
        if let Err(error) = std::fs::write(&self.file, text) {
            log::debug!("{}: {error}", self.file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(topics: &[&str]) -> BTreeSet<String> {
        topics.iter().map(|topic| (*topic).to_owned()).collect()
    }

    #[test]
    fn what_another_process_said_is_forgotten_when_it_is_not_there_any_more() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let file = temp.path().join("mqtt-kept");
        let mut first = Kept::load(&file);
        assert!(first.now(Group::Children, &set(&["a", "b"])).is_empty());
        assert!(first.now(Group::Lines, &set(&["x"])).is_empty());
        assert_eq!(first.now(Group::Children, &set(&["a"])), ["b"]);
        assert!(first.now(Group::Children, &set(&["a"])).is_empty(), "once");

        // It ended before the broker took it.
        let mut second = Kept::load(&file);
        assert_eq!(second.now(Group::Children, &set(&["a"])), ["b"]);
        second.forgotten("b");
        second.forgotten("a");
        assert_eq!(second.now(Group::Lines, &set(&[])), ["x"]);
        // Back again before that was taken: it stays.
        assert!(second.now(Group::Lines, &set(&["x"])).is_empty());
        second.forgotten("x");

        let mut third = Kept::load(&file);
        assert_eq!(third.now(Group::Children, &set(&[])), ["a"]);
        assert_eq!(third.now(Group::Lines, &set(&[])), ["x"]);
    }
}
