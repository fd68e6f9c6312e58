//! What was measured, as a table for people and as JSON with every value.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use multus_contract::api::time::format_rfc3339;
use serde::Serialize;
use serde_json::{Value, json};

use crate::stats::{Series, Summary};

/// Whether a figure was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Verdict {
    Pass,
    Miss,
    Skip,
}

#[derive(Debug, Serialize)]
struct Figure {
    verdict: Verdict,
    what: String,
    wanted: String,
    measured: String,
}

#[derive(Debug, Serialize)]
struct Row {
    section: String,
    what: String,
    summary: Option<Summary>,
    /// The row that this one is divided by.
    floor: Option<String>,
    values: Series,
}

/// Collects what the parts of the run find.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    figures: Vec<Figure>,
    values: BTreeMap<String, f64>,
    notes: Vec<String>,
}

impl Report {
    /// Times in ns. With a floor (a row of the same section that comes later), the table shows how many times as long
    /// this took.
    pub(crate) fn times(&mut self, section: &str, what: &str, values: Series, floor: Option<&str>) {
        let row = Row {
            section: section.to_owned(),
            what: what.to_owned(),
            summary: values.summary(),
            floor: floor.map(str::to_owned),
            values,
        };
        self.rows.push(row);
    }

    /// A single number; its name ends with the unit.
    pub(crate) fn value(&mut self, name: &str, value: f64) {
        self.values.insert(name.to_owned(), value);
    }

    /// One of the figures that must be reached.
    pub(crate) fn figure(&mut self, reached: bool, what: &str, wanted: &str, measured: String) {
        let verdict = if reached { Verdict::Pass } else { Verdict::Miss };
        self.figures.push(Figure { verdict, what: what.to_owned(), wanted: wanted.to_owned(), measured });
    }

    /// A figure that could not be measured here, and why.
    pub(crate) fn skipped(&mut self, what: &str, wanted: &str, why: &str) {
        let figure = Figure {
            verdict: Verdict::Skip,
            what: what.to_owned(),
            wanted: wanted.to_owned(),
            measured: why.to_owned(),
        };
        self.figures.push(figure);
    }

    /// A time against a floor: `measured <= factor * floor`.
    pub(crate) fn ratio(&mut self, what: &str, factor: f64, measured: f64, floor: f64) {
        let ratio = if floor > 0.0 { measured / floor } else { f64::INFINITY };
        let text = format!("{ratio:.2} x ({} / {})", duration(measured), duration(floor));
        self.figure(measured <= factor * floor, what, &format!("<= {factor} x floor"), text);
    }

    /// Something a reader of the numbers must know.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The table.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |l: String| {
            text.push_str(l.trim_end());
            text.push('\n');
        };
        let mut section = "";
        for row in &self.rows {
            if row.section != section {
                section = &row.section;
                line(format!("\n{section}"));
                line(cells("", ["n", "min", "p50", "p90", "p99", "p99.9", "max"].map(str::to_owned)));
            }
            let Some(s) = row.summary else { continue };
            let numbers = [s.min, s.p50, s.p90, s.p99, s.p999, s.max].map(duration);
            let [min, p50, p90, p99, p999, max] = numbers;
            line(cells(&row.what, [s.count.to_string(), min, p50, p90, p99, p999, max]));
            if let Some(floor) = self.floor_of(row) {
                let times = |value: f64, floor: f64| {
                    if floor > 0.0 { format!("{:.2} x", value / floor) } else { "-".to_owned() }
                };
                let ratios = [
                    String::new(),
                    String::new(),
                    times(s.p50, floor.p50),
                    times(s.p90, floor.p90),
                    times(s.p99, floor.p99),
                    times(s.p999, floor.p999),
                    times(s.max, floor.max),
                ];
                line(cells("  against the floor", ratios));
            }
        }
        if !self.values.is_empty() {
            line("\nnumbers".to_owned());
        }
        for (name, value) in &self.values {
            line(format!("  {name:<62}{value:>12.3}"));
        }
        line("\nWhat must be reached".to_owned());
        for figure in &self.figures {
            let verdict = match figure.verdict {
                Verdict::Pass => "PASS",
                Verdict::Miss => "MISS",
                Verdict::Skip => "SKIP",
            };
            line(format!("{verdict}  {:<62} {:<18} {}", figure.what, figure.wanted, figure.measured));
        }
        if !self.notes.is_empty() {
            line("\nNotes".to_owned());
        }
        for note in &self.notes {
            line(format!("- {note}"));
        }
        text
    }

    /// How many figures were reached, missed and skipped.
    pub(crate) fn counts(&self) -> [usize; 3] {
        [Verdict::Pass, Verdict::Miss, Verdict::Skip]
            .map(|verdict| self.figures.iter().filter(|f| f.verdict == verdict).count())
    }

    /// Writes everything as JSON.
    pub(crate) fn write_json(&self, file: &Path, machine: &Machine, options: Value) -> std::io::Result<()> {
        let all = json!({
            "machine": machine,
            "options": options,
            "figures": self.figures,
            "values": self.values,
            "notes": self.notes,
            "series": self.rows,
        });
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(file, format!("{all}\n"))
    }

    fn floor_of(&self, row: &Row) -> Option<Summary> {
        let floor = row.floor.as_ref()?;
        self.rows.iter().find(|r| r.section == row.section && r.what == *floor)?.summary
    }
}

/// Where the numbers come from.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    processors: usize,
    kernel: String,
    load_average: String,
    time: String,
}

impl Machine {
    pub(crate) fn look(processors: usize) -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default().trim().to_owned();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find(|l| l.starts_with("model name") || l.starts_with("Model"));
        let model = model.and_then(|l| l.split_once(':')).map_or("unknown", |(_, value)| value.trim());
        Self {
            processor: model.to_owned(),
            processors,
            kernel: format!("{} {}", read("/proc/sys/kernel/osrelease"), read("/proc/sys/kernel/version")),
            load_average: read("/proc/loadavg"),
            time: format_rfc3339(multus_ipc::time::unix_ns()),
        }
    }

    pub(crate) fn to_text(&self) -> String {
        format!(
            "{} x {}, Linux {}, load average {}, {}",
            self.processors, self.processor, self.kernel, self.load_average, self.time
        )
    }
}

/// Nanoseconds with three digits and a unit.
pub(crate) fn duration(ns: f64) -> String {
    let size = ns.abs();
    let (value, unit) = match size {
        s if s >= 1e9 => (ns / 1e9, "s"),
        s if s >= 1e6 => (ns / 1e6, "ms"),
        s if s >= 1e3 => (ns / 1e3, "us"),
        _ => (ns, "ns"),
    };
    let decimals = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {unit}")
}

fn cells(what: &str, numbers: [String; 7]) -> String {
    let mut line = format!("  {what:<44}");
    for number in numbers {
        // Writing to a String cannot fail.
        let _ = write!(line, "{number:>10}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        for (ns, text) in [
            (0.0, "0.00 ns"),
            (31.26, "31.3 ns"),
            (999.0, "999 ns"),
            (54_321.0, "54.3 us"),
            (1.5e9, "1.50 s"),
            (-2e6, "-2.00 ms"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }

    #[test]
    fn a_row_is_shown_against_its_floor_and_figures_are_counted() {
        let mut report = Report::default();
        let series = |values: &[f64]| {
            let mut series = Series::default();
            series.extend(values.iter().copied());
            series
        };
        report.times("quiet", "overshoot", series(&[200.0, 300.0]), Some("floor"));
        report.times("quiet", "floor", series(&[100.0, 100.0]), None);
        report.ratio("overshoot", 2.0, 300.0, 100.0);
        report.figure(true, "alarms", "0", "0".to_owned());
        report.skipped("beat", "40 ns", "no strace");
        let text = report.to_text();
        assert!(text.contains("2.00 x") && text.contains("3.00 x"), "{text}");
        assert!(text.contains("MISS  overshoot"), "{text}");
        assert_eq!(report.counts(), [1, 1, 1]);
    }
}
