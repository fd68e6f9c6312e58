//! The table of children: one line each, and a second one only for a child that needs it.
//!
//! Columns have the width of their content. When they do not fit, what explains least goes first: the bar gets short, the
//! process number goes, then the bar, the restarts, and the beats; name, state and last fault stay to the end.

use multus_contract::api::status::ChildStatus;

use super::bar::{bar, last_beat, sparkline, tone_of};
use super::state::{marks, state};
use super::text::{Line, Tone, flowed};
use multus_contract::api::human::{ago, of_limit};

/// What the table is drawn from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    pub(crate) children: &'a [ChildStatus],
    pub(crate) now_ns: u64,
    /// The child under the cursor.
    pub(crate) chosen: Option<usize>,
    /// The longest gaps seen, each as a part of the deadline, oldest first; `None` when nobody kept them.
    pub(crate) history: Option<&'a dyn History>,
}

/// Who remembers how the longest gaps of a child went.
pub(crate) trait History: std::fmt::Debug {
    /// Each as a part of the deadline, oldest first.
    fn of(&self, name: &str) -> &[f64];
}

/// The lines of one child.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) lines: Vec<Line>,
}

impl Table<'_> {
    /// The heading and the lines of every child, none wider than `columns`.
    pub(crate) fn rows(&self, columns: usize) -> (Line, Vec<Row>) {
        let layout = LAYOUTS.iter().find(|layout| self.width(layout) <= columns).unwrap_or(&LAYOUTS[LAYOUTS.len() - 1]);
        let widths = self.widths(layout);
        let mut heading = Line::new();
        for (column, width) in layout.columns.iter().zip(&widths) {
            heading.append(gap(&heading));
            heading.append(Line::toned(column.title(), Tone::Dim).padded(*width));
        }
        let rows = self.children.iter().enumerate().map(|(n, child)| {
            let mut line = Line::new();
            for (column, width) in layout.columns.iter().zip(&widths) {
                line.append(gap(&line));
                let cell = self.cell(*column, child, layout);
                line.append(if column.is_number() { cell.right(*width) } else { cell.padded(*width) });
            }
            let line = if self.chosen == Some(n) { line.chosen(columns) } else { line.fitted(columns) };
            Row { lines: std::iter::once(line).chain(self.remarks(child, columns)).collect() }
        });
        (heading.fitted(columns), rows.collect())
    }

    /// What stands below a child's line.
    fn remarks(&self, child: &ChildStatus, columns: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut push = |remark: Line| {
            let mut line = Line::plain("  ");
            line.append(remark);
            lines.push(line.fitted(columns));
        };
        flowed(marks(child, self.now_ns), columns.saturating_sub(2)).into_iter().for_each(&mut push);
        if let (true, Some(fault)) = (child.is_failing(), &child.last_fault) {
            let sentence = fault.detail.lines().next().unwrap_or_default();
            if !sentence.is_empty() {
                push(Line::toned(format!("{}: {sentence}", fault.kind), Tone::Plain));
            }
        }
        lines
    }

    fn cell(&self, column: Column, child: &ChildStatus, layout: &Layout) -> Line {
        match column {
            Column::Name => Line::toned(&child.name, Tone::Strong).fitted(layout.longest_name),
            Column::State => state(child),
            Column::Pid => child.pid.map_or_else(Line::new, |pid| Line::plain(pid.to_string())),
            Column::Beats => self.beats(child, layout.bar),
            Column::Restarts => Line::plain(child.restarts.to_string()),
            Column::LastFault => match &child.last_fault {
                None => Line::toned("none", Tone::Dim),
                Some(fault) if layout.brief => Line::plain(&fault.kind),
                Some(fault) => {
                    let ago = ago(&fault.time, self.now_ns).map_or_else(String::new, |ago| format!(", {ago}"));
                    Line::plain(format!("{}{ago}", fault.kind))
                }
            },
        }
    }

    fn beats(&self, child: &ChildStatus, bar_columns: usize) -> Line {
        let Some(deadline_us) = child.deadline_us else { return Line::toned("no beats", Tone::Dim) };
        let Some(gaps) = child.beat_interval_us else { return last_beat(child, deadline_us) };
        #[expect(clippy::cast_precision_loss, reason = "deadlines are at most a day")]
        let deadline_us = deadline_us as f64;
        let part = gaps.max / deadline_us.max(1.0);
        let mut line = match self.history {
            Some(history) if bar_columns > 0 => sparkline(history.of(&child.name), bar_columns).padded(bar_columns),
            _ => bar(part, bar_columns),
        };
        line.append(gap(&line));
        line.push(format!("max {}", of_limit(gaps.max, deadline_us)), tone_of(part));
        line
    }

    fn width(&self, layout: &Layout) -> usize {
        let widths = self.widths(layout);
        widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)
    }

    fn widths(&self, layout: &Layout) -> Vec<usize> {
        let widest = |column: &Column| {
            let cells = self.children.iter().map(|child| self.cell(*column, child, layout).width());
            cells.chain([column.title().len()]).max().unwrap_or(0)
        };
        layout.columns.iter().map(widest).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Name,
    State,
    Pid,
    Beats,
    Restarts,
    LastFault,
}

impl Column {
    const fn title(self) -> &'static str {
        match self {
            Self::Name => "NAME",
            Self::State => "STATE",
            Self::Pid => "PID",
            Self::Beats => "BEATS",
            Self::Restarts => "RESTARTS",
            Self::LastFault => "LAST FAULT",
        }
    }

    const fn is_number(self) -> bool {
        matches!(self, Self::Pid | Self::Restarts)
    }
}

#[derive(Debug)]
struct Layout {
    columns: &'static [Column],
    bar: usize,
    longest_name: usize,
    /// Whether the last fault goes without its time.
    brief: bool,
}

/// From the widest to the narrowest; the first that fits is taken, else the last, cut off at the edge.
const LAYOUTS: &[Layout] = {
    use Column::{Beats, LastFault, Name, Pid, Restarts, State};
    const ALL: &[Column] = &[Name, State, Pid, Beats, Restarts, LastFault];
    const NO_PID: &[Column] = &[Name, State, Beats, Restarts, LastFault];
    const NO_RESTARTS: &[Column] = &[Name, State, Beats, LastFault];
    const SHORT: &[Column] = &[Name, State, LastFault];
    &[
        Layout { columns: ALL, bar: 24, longest_name: 47, brief: false },
        Layout { columns: ALL, bar: 12, longest_name: 47, brief: false },
        Layout { columns: ALL, bar: 6, longest_name: 24, brief: false },
        Layout { columns: NO_PID, bar: 10, longest_name: 24, brief: false },
        Layout { columns: NO_PID, bar: 6, longest_name: 24, brief: false },
        Layout { columns: NO_PID, bar: 0, longest_name: 16, brief: false },
        Layout { columns: NO_RESTARTS, bar: 0, longest_name: 16, brief: false },
        Layout { columns: SHORT, bar: 0, longest_name: 16, brief: false },
        Layout { columns: SHORT, bar: 0, longest_name: 12, brief: true },
        Layout { columns: SHORT, bar: 0, longest_name: 8, brief: true },
        Layout { columns: &[Name, State], bar: 0, longest_name: 16, brief: false },
    ]
};

fn gap(before: &Line) -> Line {
    Line::plain(if before.width() == 0 { "" } else { "  " })
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn drawn(columns: usize) -> Vec<String> {
        let status = sample::status();
        let table = Table { children: &status.children, now_ns: sample::NOW_NS, chosen: None, history: None };
        let (heading, rows) = table.rows(columns);
        let lines: Vec<Line> = std::iter::once(heading).chain(rows.into_iter().flat_map(|row| row.lines)).collect();
        assert!(lines.iter().all(|line| line.width() <= columns), "{lines:#?}");
        lines.iter().map(|line| line.render(false)).collect()
    }

    #[test]
    fn a_wide_terminal_shows_everything() {
        assert_eq!(
            drawn(120),
            [
                "NAME           STATE            PID      BEATS                                        RESTARTS  LAST FAULT",
                "io             ● running            812  ███·····················  max 6.2 of 50 ms          0  none",
                "modbus         ▲ backoff 2.1 s           ██████████████████████▊·  max 190 of 200 ms         3  hang, 3 min ago",
                "  outputs forced: DO1 off, DO2 on · degraded: it keeps failing",
                "  hang: thread poll waited in futex_wait for 198 ms: a hang, not starvation",
                "lan            ◇ blocked by io           █████▎··················  max 1.1 of 5 s            0  none",
                "ovpn-client_1  ● running        1234567  no beats                                            0  none",
                "  snoozed, 12 min left",
                "lanwan-check   ■ disabled                no beats                                            0  none",
            ]
        );
    }

    #[test]
    fn narrow_terminals_drop_columns_not_meaning() {
        let lines = drawn(80);
        assert!(
            lines[0].contains("BEATS") && lines[0].contains("LAST FAULT") && !lines[0].contains("PID"),
            "{lines:#?}"
        );
        assert!(lines[2].contains("max 190 of 200 ms") && lines[2].contains("hang, 3 min ago"), "{lines:#?}");
        let lines = drawn(40);
        assert!(lines[2].contains("▲ backoff 2.1 s") && lines[2].contains("hang"), "{lines:#?}");
        assert!(lines[3].contains("outputs forced: DO1 off"), "{lines:#?}");
        for columns in 0..40 {
            drawn(columns);
        }
    }
}
