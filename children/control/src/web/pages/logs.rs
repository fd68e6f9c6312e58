//! Logs: the last lines, a search, the file.

use super::render::context;
use serde::Serialize;

use super::{Answer, View, encoded};

/// A line of a log, taken apart for the eye.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line<'a> {
    /// Its time stamp; may be empty.
    time: &'a str,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG`, `TRACE` or empty.
    level: &'static str,
    /// The line without its time.
    text: &'a str,
}

/// Takes a line apart; one that is not written as usual is text as a whole.
pub(super) fn line(line: &str) -> Line<'_> {
    let is_time = |word: &str| {
        let bytes = word.as_bytes();
        bytes.len() >= 20 && bytes[4] == b'-' && bytes[10] == b'T' && word.ends_with('Z')
    };
    let (time, text) = match line.split_once(' ') {
        Some((time, text)) if is_time(time) => (time, text),
        _ => ("", line),
    };
    let level = text.split_whitespace().take(LEVEL_WITHIN).find_map(|word| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        LEVELS.iter().copied().find(|level| *level == word || (word == "WARNING" && *level == "WARN"))
    });
    Line { time, level: level.unwrap_or(""), text }
}

/// Whether a line of `level` is shown when those from `wanted` on are; a line without a level always.
fn is_shown(level: &str, wanted: &str) -> bool {
    let rank = |level: &str| LEVELS.iter().position(|known| *known == level);
    match (rank(level), rank(wanted)) {
        (Some(level), Some(wanted)) => level <= wanted,
        _ => true,
    }
}

impl View<'_> {
    /// Which logs there are.
    pub(super) fn logs(&self) -> Answer {
        let logs = self.service().logs(self.caller())?;
        Ok(self.page("logs.html", "Logs", context! { logs }))
    }

    /// One log.
    pub(super) fn log(&self, name: &str) -> Answer {
        let (words, level) = (self.query("q").trim(), self.query("level"));
        let count = self.query("lines").parse().unwrap_or(LINES).clamp(1, MOST_LINES);
        let (texts, found) = if words.is_empty() {
            (self.service().log_tail(self.caller(), name, count)?.lines, false)
        } else {
            let found = self.service().log_search(self.caller(), name, words, MOST_FOUND)?;
            (found.into_iter().map(|found| found.text).collect(), true)
        };
        let all = texts.len();
        let lines: Vec<Line<'_>> =
            texts.iter().map(|text| line(text)).filter(|line| is_shown(line.level, level)).collect();
        let names: Vec<_> = self.service().logs(self.caller())?.into_iter().map(|log| log.name).collect();
        let context = context! {
            name, names, lines, all, found, level, levels => LEVELS, count, q => words, more => (count * 5).min(MOST_LINES),
            stream => format!("/api/v1/logs/{}/stream?lines=50", encoded(name)),
        };
        Ok(self.page("log.html", &format!("Log of {name}"), context))
    }
}

const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
/// The level stands among the first words.
const LEVEL_WITHIN: usize = 4;
const LINES: usize = 200;
const MOST_LINES: usize = 5000;
const MOST_FOUND: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_level_of_a_line_are_found() {
        let usual = line("2026-08-05T14:03:07.212345Z WARN pump: dry");
        assert_eq!(usual, Line { time: "2026-08-05T14:03:07.212345Z", level: "WARN", text: "WARN pump: dry" });
        assert_eq!(line("hello").text, "hello");
        assert_eq!(line("[ERROR] broken").level, "ERROR");
        assert_eq!(line("all is well and no ERROR").level, "");
        assert_eq!(line("").text, "");
        for (level, wanted, shown) in
            [("ERROR", "WARN", true), ("INFO", "WARN", false), ("", "ERROR", true), ("INFO", "", true)]
        {
            assert_eq!(is_shown(level, wanted), shown, "{level} {wanted}");
        }
    }
}
