//! From local lines to what is sent.

use std::time::Duration;

use crate::config::{LEGACY_LINES, Line};
use crate::logic::debounce::{Debounce, Seen};

/// All lines of a sender at one moment, in the order of the configuration; `None`: nobody knows.
pub(crate) type Levels = Vec<Option<bool>>;

/// The lines of a sender.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    lines: Vec<(bool, Debounce)>,
}

impl Mapping {
    /// From the configuration.
    pub(crate) fn new(lines: &[Line]) -> Self {
        let lines = lines.iter().map(|line| (line.inverted, Debounce::new(line.debounce.duration()))).collect();
        Self { lines }
    }

    /// What is to be sent with what is seen at `now`, `seen` by the number of the line.
    pub(crate) fn look(&mut self, seen: impl Fn(usize) -> Seen, now: Duration) -> Levels {
        let lines = self.lines.iter_mut().enumerate();
        lines.map(|(index, (inverted, line))| line.look(seen(index), now).map(|on| on != *inverted)).collect()
    }

    /// When to look next although nothing changes.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.lines.iter().filter_map(|(_, line)| line.due()).min()
    }
}

/// The number by which the original knows a line: that at the end of its name.
pub(crate) fn legacy_number(name: &str) -> Option<usize> {
    let letters = name.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
    name[letters..].parse().ok().filter(|number| (1..=LEGACY_LINES).contains(number))
}

/// What a message of the original holds: 1, 0, or -1 for lines that are not sent or not known.
pub(crate) fn to_legacy(lines: &[Line], levels: &[Option<bool>]) -> [i32; LEGACY_LINES] {
    let mut fields = [-1; LEGACY_LINES];
    for (line, level) in lines.iter().zip(levels) {
        if let (Some(number), Some(on)) = (legacy_number(&line.remote), level) {
            fields[number - 1] = i32::from(*on);
        }
    }
    fields
}

/// What a message of the original says of each of its lines: on, off, or `None` for "as it is".
///
/// # Errors
/// A field is above 1: its number and what it holds.
pub(crate) fn from_legacy(fields: [i32; LEGACY_LINES]) -> Result<[Option<bool>; LEGACY_LINES], (usize, i32)> {
    if let Some(index) = fields.iter().position(|field| *field > 1) {
        return Err((index + 1, fields[index]));
    }
    Ok(fields.map(|field| (field >= 0).then_some(field == 1)))
}

#[cfg(test)]
mod tests {
    use multus_child::Interval;

    use super::*;
    use crate::logic::debounce::GRACE;

    fn line(remote: &str, inverted: bool, debounce_ms: u64) -> Line {
        let (local, debounce) = ("DI1".to_owned(), Interval::from_millis(debounce_ms));
        Line { local, remote: remote.into(), inverted, debounce }
    }

    #[test]
    fn lines_are_inverted_and_debounced_each_for_itself() {
        let lines = [line("DO1", false, 0), line("DO2", true, 0), line("DO3", true, 20)];
        let mut mapping = Mapping::new(&lines);
        let at = |on, changes| move |_| Seen { on, changes };
        let ms = Duration::from_millis;
        assert_eq!(mapping.look(at(Some(false), 0), ms(0)), [Some(false), Some(true), Some(true)]);
        assert_eq!(mapping.look(at(Some(true), 1), ms(5)), [Some(true), Some(false), Some(true)]);
        assert_eq!(mapping.due(), Some(ms(25)));
        assert_eq!(mapping.look(at(Some(true), 1), ms(25)), [Some(true), Some(false), Some(false)]);
        assert_eq!(mapping.look(at(None, 1), ms(26)), [Some(true), Some(false), Some(false)]);
        assert_eq!(mapping.due(), Some(ms(26) + GRACE));
        assert_eq!(mapping.look(at(None, 1), ms(26) + GRACE), [None; 3], "not known is not inverted");
        assert_eq!(mapping.due(), None);
    }

    #[test]
    fn the_original_knows_lines_by_their_number() {
        for (name, number) in [("DO1", Some(1)), ("DO08", Some(8)), ("8", Some(8)), ("relay-3", Some(3))] {
            assert_eq!(legacy_number(name), number, "{name}");
        }
        for name in ["DO0", "DO9", "DO", "", "1A", "B2x", "DO11", "99999999999999999999"] {
            assert_eq!(legacy_number(name), None, "{name}");
        }
        let lines = [line("DO3", false, 0), line("DO1", false, 0), line("DO8", false, 0)];
        assert_eq!(to_legacy(&lines, &[Some(true), Some(false), None]), [0, -1, 1, -1, -1, -1, -1, -1]);
    }

    #[test]
    fn a_message_of_the_original_sets_or_leaves() {
        let levels = [Some(true), Some(false), None, None, Some(false), Some(false), Some(false), Some(true)];
        assert_eq!(from_legacy([1, 0, -1, i32::MIN, 0, 0, 0, 1]), Ok(levels));
        assert_eq!(from_legacy([1, 0, 2, 0, 0, 0, 0, 0]), Err((3, 2)));
        let nonsense = from_legacy([0, 0, 0, 0, 0, 0, 0, i32::MAX]);
        assert_eq!(nonsense, Err((8, i32::MAX)), "nonsense is refused as a whole");
    }
}
