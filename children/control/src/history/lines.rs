//! What the last row of each line says, so that the next one can say what it was before, for how long, and what was missed.

use std::collections::BTreeMap;

use super::IoChange;
use super::record::IMAGE;
use super::sql::{Result, Sql, Value};

/// The end of the story of each line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LastChanges {
    lines: BTreeMap<String, Last>,
    /// The image that `changes` of the lines were counted in.
    image: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Last {
    value: String,
    source: String,
    time_unix_ns: u64,
    changes: u64,
}

impl LastChanges {
    /// From the database. A table of a version that recorded no lines is empty, and is made anew.
    pub(super) fn read(sql: &mut dyn Sql) -> Result<Self> {
        if let Err(failure) = sql.select("SELECT missed, changes FROM io_changes LIMIT 1", &[]) {
            if !sql.select("SELECT id FROM io_changes LIMIT 1", &[])?.is_empty() {
                return Err(failure);
            }
            sql.execute("DROP TABLE io_changes", &[])?;
            for statement in sql.schema() {
                sql.execute(statement, &[])?;
            }
        }
        let meta = sql.select("SELECT value FROM meta WHERE name = ?", &[IMAGE.into()])?;
        let meta = meta.first().and_then(|row| row.first()?.text()).unwrap_or_default();
        let (before, image) = meta.split_once(' ').unwrap_or(("0", ""));
        let before: i64 = before.parse().unwrap_or(0);
        let rows = sql.select(
            "SELECT line, value, source, time_unix_ns, changes, id FROM io_changes \
             WHERE id IN (SELECT MAX(id) FROM io_changes GROUP BY line)",
            &[],
        )?;
        let last = |row: &Vec<Value>| {
            let text = |i: usize| row.get(i).and_then(Value::text).map(str::to_owned);
            let number = |i: usize| row.get(i).and_then(Value::int).map(i64::unsigned_abs);
            let (value, source) = (text(1)?, text(2)?);
            let changes = if row.get(5)?.int()? > before { number(4)? } else { 0 };
            Some((text(0)?, Last { value, source, time_unix_ns: number(3)?, changes }))
        };
        Ok(Self { lines: rows.iter().filter_map(last).collect(), image: image.to_owned() })
    }

    /// Whether another image begins with what comes next: all its counters began anew, and what they count was not seen.
    pub(super) fn begin(&mut self, image: &str) -> bool {
        let is_other = image != self.image;
        if is_other {
            image.clone_into(&mut self.image);
            self.lines.values_mut().for_each(|last| last.changes = 0);
        }
        is_other
    }

    /// The row for a change that comes in; `None` when nothing is new.
    pub(super) fn place(&mut self, change: &IoChange) -> Option<IoChange> {
        let last = self.lines.get(&change.line);
        let is_other = last.is_none_or(|last| last.value != change.value);
        // What came before the first row of a line is not missing in it.
        let missed =
            last.map_or(0, |last| change.changes.saturating_sub(last.changes).saturating_sub(u64::from(is_other)));
        let is_new = is_other || missed > 0 || last.is_some_and(|last| last.source != change.source);
        let mut row = IoChange { missed, ..change.clone() };
        if is_other || missed > 0 {
            row.time_unix_ns = change.changed_unix_ns.unwrap_or(change.time_unix_ns);
        }
        if let Some(last) = last {
            row.previous = Some(last.value.clone());
            // Clocks are set, too.
            row.duration_ns = Some(row.time_unix_ns.saturating_sub(last.time_unix_ns));
        }
        let time_unix_ns = last.filter(|_| !is_new).map_or(row.time_unix_ns, |last| last.time_unix_ns);
        let now = Last { value: row.value.clone(), source: row.source.clone(), time_unix_ns, changes: row.changes };
        self.lines.insert(row.line.clone(), now);
        is_new.then_some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(image: &str, value: &str, changes: u64, at: u64) -> IoChange {
        IoChange {
            time_unix_ns: at + 1,
            changed_unix_ns: Some(at),
            line: "DI1".into(),
            value: value.into(),
            source: "read".into(),
            changes,
            image: image.into(),
            ..IoChange::default()
        }
    }

    #[test]
    fn each_row_says_what_was_before_and_what_was_missed() {
        let mut lines = LastChanges::default();
        let mut row = |image, value, changes, at| {
            lines.begin(image);
            let row = lines.place(&change(image, value, changes, at))?;
            Some((row.previous.unwrap_or_default(), row.missed, row.time_unix_ns, row.duration_ns))
        };
        let text = |text: &str| text.to_owned();
        assert_eq!(row("a", "0", 7, 100), Some((String::new(), 0, 100, None)), "what came before it is not missing");
        assert_eq!(row("a", "0", 7, 100), None);
        assert_eq!(row("a", "1", 8, 150), Some((text("0"), 0, 150, Some(50))));
        assert_eq!(row("a", "0", 11, 200), Some((text("1"), 2, 200, Some(50))), "1 -> 0 -> 1 -> 0");
        assert_eq!(row("a", "0", 13, 300), Some((text("0"), 2, 300, Some(100))), "there and back");
        // Another multusd counts anew; what it counted before somebody looked is a gap.
        assert_eq!(row("b", "0", 0, 300), None);
        assert_eq!(row("b", "1", 1, 400), Some((text("0"), 0, 400, Some(100))));
        assert_eq!(row("c", "1", 4, 500), Some((text("1"), 4, 500, Some(100))));
        assert_eq!(row("c", "0", 5, 450), Some((text("1"), 0, 450, Some(0))), "the clock was set back");
    }

    #[test]
    fn another_source_is_a_row_with_the_time_it_was_seen() {
        let mut lines = LastChanges::default();
        lines.place(&change("a", "0", 1, 100));
        let row = lines.place(&IoChange { source: "bad".into(), ..change("a", "0", 1, 100) }).expect("it is new");
        assert_eq!((row.time_unix_ns, row.previous.as_deref(), row.missed), (101, Some("0"), 0));
    }
}
