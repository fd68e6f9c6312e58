//! A fault as a story: when each step happened, how long it took, to scale.

use multus_contract::api::event::Event;

use super::text::{Line, Tone};
use multus_contract::api::human::time_ns;

/// One line for each step that happened: its word, the time since the first, the time since the one before, and that time
/// drawn to scale. Empty when the event tells of no times.
pub(crate) fn timeline(event: &Event, columns: usize) -> Vec<Line> {
    let mut steps = event.fault_times();
    // A crash comes before its deadline: the deadline is no step of that story.
    steps.retain(|&(word, at)| word != "deadline" || event.detected_ns.is_none_or(|detected| at <= detected));
    steps.sort_by_key(|&(_, at)| at);
    let (Some(&(_, first)), Some(&(_, last))) = (steps.first(), steps.last()) else { return Vec::new() };
    let scale = Scale { first, span: (last - first).max(1), columns: columns.saturating_sub(FIXED) };
    let mut before = first;
    let mut lines = Vec::new();
    for (n, (word, at)) in steps.into_iter().enumerate() {
        let tone = tone_of(word);
        let mut line = Line::toned(word, Tone::Strong).padded(WORD);
        line.append(Line::plain(if n == 0 { "0".to_owned() } else { time_ns(at - first) }).right(TIME));
        let step = if n == 0 { String::new() } else { format!("+{}", time_ns(at - before)) };
        line.append(Line::toned(step, Tone::Dim).right(TIME + 2));
        line.push("  ", Tone::Plain);
        line.append(scale.draw(before, at, tone));
        lines.push(line.fitted(columns));
        before = at;
    }
    lines
}

/// Where a time lies between two others, in columns.
struct Scale {
    first: u64,
    span: u64,
    columns: usize,
}

impl Scale {
    /// A stroke from `from` to `to`, with a dot at its end.
    fn draw(&self, from: u64, to: u64, tone: Tone) -> Line {
        if self.columns < SHORTEST {
            return Line::new();
        }
        let (start, end) = (self.column(from), self.column(to));
        let mut line = Line::plain(" ".repeat(start));
        line.push(format!("{}●", "━".repeat(end - start)), tone);
        line
    }

    fn column(&self, at: u64) -> usize {
        let last = self.columns.saturating_sub(1) as u128;
        let exact = u128::from(at - self.first) * last / u128::from(self.span);
        usize::try_from(exact).unwrap_or(0)
    }
}

/// Waiting for a beat is calm, finding out is a warning, and the rest is time without the child.
fn tone_of(word: &str) -> Tone {
    match word {
        "last beat" | "deadline" => Tone::Dim,
        "detected" | "safe" => Tone::Warn,
        "ready" => Tone::Good,
        _ => Tone::Bad,
    }
}

const WORD: usize = 9;
const TIME: usize = 9;
const FIXED: usize = WORD + TIME + TIME + 2 + 2;
/// A scale narrower than this says nothing.
const SHORTEST: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn drawn(event: &Event, columns: usize) -> Vec<String> {
        let lines = timeline(event, columns);
        assert!(lines.iter().all(|line| line.width() <= columns));
        lines.iter().map(|line| line.render(false)).collect()
    }

    #[test]
    fn the_steps_stand_below_each_other_to_scale() {
        assert_eq!(
            drawn(&sample::recovered(), 60),
            [
                "last beat        0             ●",
                "deadline    200 ms    +200 ms  ━━━━━━━━━━━━━━━━━━━━━━━●",
                "detected    200 ms     +48 µs                         ●",
                "safe        200 ms     +83 µs                         ●",
                "killed      220 ms   +20.2 ms                         ━━●",
                "reaped      221 ms    +700 µs                           ●",
                "spawned     222 ms      +1 ms                           ●",
                "ready       241 ms     +19 ms                           ━━━●",
            ]
        );
        for columns in 0..60 {
            drawn(&sample::recovered(), columns);
        }
    }

    #[test]
    fn a_crash_has_no_deadline_and_odd_times_do_no_harm() {
        let crash = Event { detected_ns: Some(5), deadline_ns: Some(900), last_beat_ns: Some(1), ..Event::default() };
        assert_eq!(drawn(&crash, 40).len(), 2);
        let odd = Event { detected_ns: Some(u64::MAX), safe_ns: Some(0), ready_ns: Some(7), ..Event::default() };
        assert_eq!(drawn(&odd, 80).len(), 3);
        assert!(drawn(&Event::default(), 80).is_empty());
    }
}
