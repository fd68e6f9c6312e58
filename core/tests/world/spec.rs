//! The file of a child, put together.

use std::fmt;
use std::path::Path;

/// What stands in `children/<name>.toml`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spec {
    keys: Vec<String>,
    heartbeat: Vec<String>,
    environment: Vec<String>,
    tables: Vec<String>,
}

/// A shell script that does not beat.
pub(crate) fn shell(script: &str) -> Spec {
    Spec::of(&["/bin/sh", "-c", script]).heartbeat("method = \"none\"")
}

/// This test program itself, which behaves as [`super::child`] describes. It beats.
pub(crate) fn program(behaviour: &str) -> Spec {
    let exe = std::env::current_exe().expect("a test knows its program");
    Spec::of(&[exe.to_str().expect("UTF-8"), "child", "--exact", "--nocapture"])
        .variable("TEST_CHILD", behaviour)
        .heartbeat("method = \"shared-memory\"")
}

impl Spec {
    /// This command line.
    pub(crate) fn of(command: &[&str]) -> Self {
        let words: Vec<String> = command.iter().map(|w| quote(w)).collect();
        Self::default().key(&format!("command = [{}]", words.join(", ")))
    }

    /// A line at the top of the file.
    pub(crate) fn key(mut self, line: &str) -> Self {
        self.keys.push(line.to_owned());
        self
    }

    /// A line of `[heartbeat]`.
    pub(crate) fn heartbeat(mut self, line: &str) -> Self {
        self.heartbeat.push(line.to_owned());
        self
    }

    /// The longest time from beat to beat.
    pub(crate) fn deadline(self, duration: &str) -> Self {
        self.heartbeat(&format!("deadline = \"{duration}\""))
    }

    /// A variable in its environment.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name} = {}", quote(value)));
        self
    }

    /// It misbehaves only if it can make this file: the first time.
    pub(crate) fn once(self, marker: &Path) -> Self {
        self.variable("TEST_ONCE", marker.to_str().expect("UTF-8"))
    }

    /// A table, or several.
    pub(crate) fn table(mut self, text: &str) -> Self {
        self.tables.push(text.to_owned());
        self
    }

    /// Waits from fault to fault.
    pub(crate) fn delays(self, delays: &str) -> Self {
        self.table(&format!("[restart]\ndelays = {delays}\nevidence_budget = \"1s\""))
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.keys {
            writeln!(f, "{line}")?;
        }
        for (name, lines) in [("heartbeat", &self.heartbeat), ("environment", &self.environment)] {
            if !lines.is_empty() {
                writeln!(f, "[{name}]\n{}", lines.join("\n"))?;
            }
        }
        self.tables.iter().try_for_each(|table| writeln!(f, "{table}"))
    }
}

/// A TOML text.
pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
