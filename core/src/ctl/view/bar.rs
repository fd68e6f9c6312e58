//! Bars and small curves made of block characters.

use multus_contract::api::status::ChildStatus;

use super::text::{Line, Tone};
use multus_contract::api::human::{of_limit, time_us};

/// How much of a limit is used, `columns` wide, in steps of an eighth of a column.
pub(crate) fn bar(part: f64, columns: usize) -> Line {
    let eighths = scaled(part, columns * 8);
    let (full, rest) = (eighths / 8, eighths % 8);
    let mut filled = "█".repeat(full);
    if rest > 0 {
        filled.push(EIGHTHS[rest - 1]);
    }
    let used = full + usize::from(rest > 0);
    let mut line = Line::toned(filled, tone_of(part));
    line.push("·".repeat(columns - used), Tone::Dim);
    line
}

/// The last `columns` values as a small curve; 1.0 is the limit and reaches the top.
pub(crate) fn sparkline(values: &[f64], columns: usize) -> Line {
    let mut line = Line::new();
    let shown = &values[values.len().saturating_sub(columns)..];
    for &value in shown {
        // Even nothing gets the lowest block, so that the curve has a floor.
        line.push(LEVELS[scaled(value, 7).min(7)].to_string(), tone_of(value));
    }
    line
}

/// What is known of a child that beats without counting its intervals.
pub(crate) fn last_beat(child: &ChildStatus, deadline_us: u64) -> Line {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let us = |value: u64| value as f64;
    match child.last_beat_age_us {
        Some(age) => Line::plain(format!("age {}", of_limit(us(age), us(deadline_us)))),
        None => Line::toned(format!("limit {}", time_us(us(deadline_us))), Tone::Dim),
    }
}

/// Calm until it comes near the limit.
pub(crate) fn tone_of(part: f64) -> Tone {
    match part {
        p if p >= 1.0 => Tone::Bad,
        p if p >= 0.8 => Tone::Warn,
        _ => Tone::Plain,
    }
}

/// `part` of `whole`, at most `whole`; at least 1 for anything above nothing.
fn scaled(part: f64, whole: usize) -> usize {
    if part.is_nan() || part <= 0.0 {
        return 0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a terminal is not that wide")]
    let exact = (part.min(1.0) * whole as f64).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and `whole`")]
    let steps = exact as usize;
    steps.max(1).min(whole)
}

const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_always_has_its_width() {
        for (part, expected) in [
            (0.0, "········"),
            (0.001, "▏·······"),
            (0.5, "████····"),
            (0.53, "████▎···"),
            (1.0, "████████"),
            (7.0, "████████"),
            (f64::NAN, "········"),
            (f64::INFINITY, "████████"),
        ] {
            let line = bar(part, 8);
            assert_eq!(line.render(false), expected, "{part}");
            assert_eq!(line.width(), 8);
        }
        assert_eq!(bar(0.5, 0).width(), 0);
    }

    #[test]
    fn a_curve_shows_the_latest_values() {
        assert_eq!(sparkline(&[9.0, 0.0, 0.5, 1.0], 3).render(false), "▁▅█");
        assert_eq!(sparkline(&[], 3).render(false), "");
    }
}
