//! The geometry of drawings: curves of silence against the deadline, and faults as time lines to scale.
//!
//! Curves live in a box of 1000 x 100 that is stretched to the room there is; letters stand beside it, so they stay legible.
//! Positions on a time line are percents of its width.

use std::fmt::Write as _;

use multus_contract::api::event::Event;
use serde::Serialize;

use super::look::{self, time_us};

/// A curve in its box.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Curve {
    /// `x,y x,y ...`, one text for each stretch without a gap.
    pub(super) lines: Vec<String>,
    /// Height of the deadline.
    pub(super) limit_y: f64,
    /// A broad band from the median to the 99th percentile, if it is known.
    pub(super) band: Option<(f64, f64)>,
    /// Places of faults.
    pub(super) faults: Vec<f64>,
    /// `ok`, `warn`, `bad`: how near the latest value is to the limit.
    pub(super) tone: &'static str,
}

/// One point of a curve: where, from 0 (the oldest) to 1 (now), and the value as a part of the deadline.
pub(super) type Point = (f64, Option<f64>);

impl Curve {
    /// A curve of `points`, oldest first; `None` breaks the line.
    pub(super) fn of(points: impl IntoIterator<Item = Point>) -> Self {
        let mut curve = Self { limit_y: y(1.0), tone: "ok", ..Self::default() };
        let (mut line, mut last) = (String::new(), None);
        let mut close = |line: &mut String| {
            if !line.is_empty() && !line.contains(' ') {
                // A point alone would not be seen.
                line.push_str(&format!(" {line}"));
            }
            if !line.is_empty() {
                curve.lines.push(std::mem::take(line));
            }
        };
        for (at, part) in points {
            match part {
                Some(part) if part.is_finite() => {
                    let blank = if line.is_empty() { "" } else { " " };
                    // A text takes all that is written into it.
                    let _ = write!(line, "{blank}{},{}", round(at.clamp(0.0, 1.0) * WIDTH), y(part));
                    last = Some(part);
                }
                _ => close(&mut line),
            }
        }
        close(&mut line);
        curve.tone = tone_of(last.unwrap_or(0.0));
        curve
    }
}

/// Calm until it comes near the limit.
pub(super) fn tone_of(part: f64) -> &'static str {
    match part {
        p if p >= 1.0 => "bad",
        p if p >= 0.8 => "warn",
        _ => "ok",
    }
}

/// Height of a part of the deadline: nothing at the bottom, the deadline near the top.
pub(super) fn y(part: f64) -> f64 {
    let part = if part.is_finite() { part.clamp(0.0, 1.1) } else { 0.0 };
    round(98.0 - part * 86.0)
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// A fault as a story.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Story {
    /// What happened, in order.
    pub(super) steps: Vec<Step>,
    /// Coloured pieces of the line.
    pub(super) pieces: Vec<Piece>,
    /// Height of the drawing and of its line, pixels.
    pub(super) height: u32,
    /// Where the line runs.
    pub(super) line_y: u32,
    /// From the first step to the last.
    pub(super) whole: String,
}

/// One step of a fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Step {
    /// `last beat`, `detected`, ...
    pub(super) word: &'static str,
    /// Time since the first step.
    pub(super) since: String,
    /// Time since the step before.
    pub(super) delta: String,
    /// Place, percent.
    pub(super) x: f64,
    /// Place of the step before.
    pub(super) from: f64,
    /// Width of the way from the step before.
    pub(super) width: f64,
    /// Base line of its letters.
    pub(super) text_y: u32,
    /// End of the thin line towards its letters.
    pub(super) lead_y: u32,
    /// `start`, `middle` or `end`.
    pub(super) anchor: &'static str,
    /// `idle`, `warn`, `bad`, `ok`.
    pub(super) tone: &'static str,
}

/// A coloured piece of the line.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Piece {
    pub(super) x: f64,
    pub(super) width: f64,
    pub(super) tone: &'static str,
}

/// The story that an event tells; `None` when it has no times.
pub(super) fn story(event: &Event) -> Option<Story> {
    let mut times = event.fault_times();
    // A crash comes before its deadline: the deadline is no step of that story.
    times.retain(|&(word, at)| word != "deadline" || event.detected_ns.is_none_or(|detected| at <= detected));
    times.sort_by_key(|&(_, at)| at);
    let (first, last) = (times.first()?.1, times.last()?.1);
    let span = (last - first).max(1);
    #[expect(clippy::cast_precision_loss, reason = "a drawing")]
    let us = |ns: u64| ns as f64 / 1000.0;
    let mut steps = Vec::new();
    let (mut before, mut from) = (first, MARGIN);
    for (n, &(word, at)) in times.iter().enumerate() {
        let x = round(MARGIN + us(at - first) / us(span) * (100.0 - 2.0 * MARGIN));
        steps.push(Step {
            word,
            since: if n == 0 { "0".into() } else { time_us(us(at - first)) },
            delta: if n == 0 { String::new() } else { format!("+{}", time_us(us(at - before))) },
            x,
            from,
            width: round(x - from),
            tone: tone_of_step(word),
            ..Step::default()
        });
        (before, from) = (at, x);
    }
    let (above, below) = place(&mut steps);
    let line_y = above * ROW + 16;
    for step in &mut steps {
        // Rows count from the line: odd ones stand above, even ones below.
        let row = step.text_y;
        let (text_y, lead_y) = if row % 2 == 1 {
            let text = line_y - 12 - row / 2 * ROW;
            (text, text + 4)
        } else {
            let text = line_y + 10 + row / 2 * ROW;
            (text, text - 11)
        };
        (step.text_y, step.lead_y) = (text_y, lead_y);
    }
    let pieces =
        steps.iter().skip(1).map(|step| Piece { x: step.from, width: step.width.max(0.15), tone: step.tone }).collect();
    let height = line_y + 16 + below * ROW;
    Some(Story { steps, pieces, height, line_y, whole: time_us(us(last - first)) })
}

/// Gives each step a row in which its letters have room; says how many rows there are above and below.
fn place(steps: &mut [Step]) -> (u32, u32) {
    let mut ends: Vec<f64> = Vec::new();
    for step in steps {
        let text =
            if step.delta.is_empty() { step.word.len() } else { step.word.len() + 1 + step.delta.chars().count() };
        #[expect(clippy::cast_precision_loss, reason = "a handful of letters")]
        let width = text as f64 * LETTER + 1.5;
        let (start, anchor) = match step.x {
            x if x - width / 2.0 < 0.0 => (x - 1.0, "start"),
            x if x + width / 2.0 > 100.0 => (x + 1.0 - width, "end"),
            x => (x - width / 2.0, "middle"),
        };
        // The thin line of a farther row crosses nearer ones, so a row is free when all its letters end before.
        let row = ends.iter().position(|end| *end <= start).unwrap_or(ends.len());
        if row == ends.len() {
            ends.push(0.0);
        }
        ends[row] = start + width;
        step.anchor = anchor;
        step.text_y = u32::try_from(row).unwrap_or(0) + 1;
    }
    let rows = u32::try_from(ends.len()).unwrap_or(0);
    (rows.div_ceil(2), rows / 2)
}

/// Waiting for a beat is calm, finding out is a warning, and the rest is time without the child.
fn tone_of_step(word: &str) -> &'static str {
    match word {
        "last beat" | "deadline" => "idle",
        "detected" | "safe" => "warn",
        "ready" => "ok",
        _ => "bad",
    }
}

/// The latest fault of a child, or that of about this time: the event that tells of it, and the one that knows most of its
/// times.
pub(super) fn fault_of<'a>(
    events: impl DoubleEndedIterator<Item = &'a Event> + Clone,
    near: Option<&str>,
) -> Option<(&'a Event, &'a Event)> {
    let at = near.and_then(multus_contract::api::time::parse_rfc3339);
    let fault = events.clone().rev().find(|event| {
        event.kind == "fault"
            && at.is_none_or(|at| {
                multus_contract::api::time::parse_rfc3339(&event.time).is_some_and(|time| time.abs_diff(at) < NEAR_NS)
            })
    })?;
    // The event that ends it knows all times.
    let recovered = events.rev().find(|event| {
        event.kind == "recovered" && event.detected_ns.is_some() && event.detected_ns == fault.detected_ns
    });
    Some((fault, recovered.unwrap_or(fault)))
}

/// A sentence for those who cannot see the drawing.
pub(super) fn spoken(story: &Story) -> String {
    let steps: Vec<String> = story.steps.iter().map(|step| format!("{} {}", step.word, step.since)).collect();
    steps.join(", ")
}

/// The value of a curve in words: `6.2 of 50 ms`.
pub(super) fn of_deadline(us: Option<f64>, deadline_us: Option<u64>) -> String {
    #[expect(clippy::cast_precision_loss, reason = "deadlines are at most a day")]
    match (us, deadline_us) {
        (Some(us), Some(deadline)) => look::of_limit(us, deadline as f64),
        (Some(us), None) => time_us(us),
        (None, Some(deadline)) => format!("limit {}", time_us(deadline as f64)),
        (None, None) => String::new(),
    }
}

const WIDTH: f64 = 1000.0;
/// Room left and right of a time line, percent.
const MARGIN: f64 = 2.0;
/// Width of a letter on a time line of 760 pixels, percent.
const LETTER: f64 = 0.92;
/// Height of a row of letters, pixels.
const ROW: u32 = 19;
/// A report is made this soon after its fault.
const NEAR_NS: u64 = 3_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_breaks_where_nothing_is_known_and_stays_in_its_box() {
        let curve =
            Curve::of([(0.0, Some(0.1)), (0.5, Some(9.0)), (0.6, None), (0.7, Some(f64::NAN)), (1.0, Some(0.9))]);
        assert_eq!(curve.lines, ["0,89.4 500,3.4", "1000,20.6 1000,20.6"]);
        assert_eq!((curve.limit_y, curve.tone), (12.0, "warn"));
        assert!(Curve::of([]).lines.is_empty());
    }

    #[test]
    fn a_story_is_to_scale_and_its_letters_do_not_overlap() {
        let event = Event {
            last_beat_ns: Some(1_000_000_000),
            deadline_ns: Some(1_200_000_000),
            detected_ns: Some(1_200_048_000),
            safe_ns: Some(1_200_131_000),
            killed_ns: Some(1_220_300_000),
            reaped_ns: Some(1_221_000_000),
            spawned_ns: Some(1_222_000_000),
            ready_ns: Some(1_241_000_000),
            ..Event::default()
        };
        let story = story(&event).expect("it has times");
        assert_eq!(story.steps.len(), 8);
        assert_eq!((story.steps[0].x, story.steps[7].x), (2.0, 98.0));
        assert_eq!(story.steps[1].x, round(2.0 + 200.0 / 241.0 * 96.0));
        assert_eq!(story.whole, "241 ms");
        let mut rows: Vec<u32> = story.steps[1..].iter().map(|step| step.text_y).collect();
        assert!(story.steps.iter().all(|step| step.text_y > 0 && step.text_y < story.height), "{story:?}");
        rows.sort_unstable();
        rows.dedup();
        assert!(rows.len() >= 5, "{rows:?}");

        let crash = Event { detected_ns: Some(5), deadline_ns: Some(900), last_beat_ns: Some(1), ..Event::default() };
        assert_eq!(super::story(&crash).map(|story| story.steps.len()), Some(2));
        let odd = Event { detected_ns: Some(u64::MAX), safe_ns: Some(0), ready_ns: Some(7), ..Event::default() };
        assert!(super::story(&odd).is_some());
        assert_eq!(super::story(&Event::default()), None);
    }

    #[test]
    fn the_fault_with_all_its_times_is_found() {
        let at = |kind: &str, time: &str, detected: u64, ready| Event {
            kind: kind.into(),
            time: time.into(),
            detected_ns: Some(detected),
            ready_ns: ready,
            ..Event::default()
        };
        let events = [
            at("fault", "2026-01-01T00:00:00Z", 1, None),
            at("recovered", "2026-01-01T00:00:05Z", 1, Some(9)),
            at("fault", "2026-01-01T01:00:00Z", 70, None),
        ];
        assert_eq!(fault_of(events.iter(), None).and_then(|(fault, _)| fault.detected_ns), Some(70));
        let (fault, all) = fault_of(events.iter(), Some("2026-01-01T00:00:00.5Z")).expect("it is there");
        assert_eq!((fault.kind.as_str(), all.kind.as_str(), all.ready_ns), ("fault", "recovered", Some(9)));
        assert!(fault_of(events.iter(), Some("2025-01-01T00:00:00Z")).is_none());
    }
}
