//! The live view as text: from the model and the size of the screen to its lines.

use super::model::{Model, Pane};
use crate::ctl::children::Order;
use crate::ctl::view::detail::Detail;
use crate::ctl::view::event::event_line;
use crate::ctl::view::header::header;
use crate::ctl::view::table::Table;
use crate::ctl::view::text::{Line, Tone};
use multus_contract::api::human::rough;

/// The whole screen, `height` lines of at most `width` columns, joined by line ends. Pure: the same model gives the same text.
pub(crate) fn draw(model: &Model, width: usize, height: usize) -> String {
    let mut lines = Vec::new();
    match &model.status {
        Some(status) => lines.extend(header(status, width)),
        None => lines.push(Line::toned("multusd", Tone::Strong)),
    }
    // On a low screen the children matter more than what the daemon misses.
    lines.truncate((height / 4).max(1));
    if let Some(trouble) = &model.trouble {
        lines.push(Line::toned(format!("▲ {trouble}"), Tone::Bad).fitted(width));
    }
    lines.push(Line::new());
    lines.truncate(height.saturating_sub(1));
    let room = height.saturating_sub(lines.len() + 1);
    let mut body = match model.pane {
        Pane::List => list(model, width, room),
        Pane::Detail { scroll } => detail(model, width, room, scroll),
    };
    body.truncate(room);
    body.resize(room, Line::new());
    lines.append(&mut body);
    lines.push(bottom(model, width));
    lines.truncate(height);
    let text: Vec<String> = lines.iter().map(|line| line.render(model.colour)).collect();
    text.join("\n")
}

/// The table, scrolled so that the chosen child is seen, and the latest events below it where there is room.
fn list(model: &Model, width: usize, room: usize) -> Vec<Line> {
    let chosen = model.chosen_index();
    let table = Table { children: model.children(), now_ns: model.now_ns, chosen, history: Some(model.history()) };
    let (heading, rows) = table.rows(width);
    let height = room.saturating_sub(1);
    let end_of_chosen: usize = rows.iter().take(chosen.map_or(0, |n| n + 1)).map(|row| row.lines.len()).sum();
    let all: Vec<Line> = rows.into_iter().flat_map(|row| row.lines).collect();
    let skip = end_of_chosen.saturating_sub(height);
    let mut lines = vec![heading];
    lines.extend(all.into_iter().skip(skip).take(height));
    let left = room.saturating_sub(lines.len());
    if left > 3 && !model.events.is_empty() {
        lines.push(Line::new());
        lines.push(Line::toned("LAST EVENTS", Tone::Dim));
        let events = model.events.iter().rev().take((left - 2).min(EVENTS));
        lines.extend(events.map(|event| event_line(event, false).fitted(width)));
    }
    lines
}

fn detail(model: &Model, width: usize, room: usize, scroll: usize) -> Vec<Line> {
    let Some(child) = model.chosen_child() else { return Vec::new() };
    let history = model.history().of(&child.name);
    let lines = Detail { child, events: &model.events, now_ns: model.now_ns, history }.lines(width);
    let skip = scroll.min(lines.len().saturating_sub(room));
    lines.into_iter().skip(skip).collect()
}

/// A question, else an answer, else what the keys do.
fn bottom(model: &Model, width: usize) -> Line {
    if let Some((name, order)) = &model.question {
        return Line::toned(question(name, *order), Tone::Warn).fitted(width);
    }
    if let Some(answer) = &model.answer {
        return Line::toned(&answer.text, if answer.refused { Tone::Bad } else { Tone::Good }).fitted(width);
    }
    let keys: &[(&str, &str)] = match model.pane {
        Pane::List => &[
            ("q", "quit"),
            ("↑↓", "choose"),
            ("⏎", "details"),
            ("s", "start"),
            ("x", "stop"),
            ("r", "restart"),
            ("z", "snooze"),
        ],
        Pane::Detail { .. } => &[
            ("q", "quit"),
            ("↑↓", "scroll"),
            ("⏎", "back"),
            ("s", "start"),
            ("x", "stop"),
            ("r", "restart"),
            ("z", "snooze"),
        ],
    };
    let mut line = Line::new();
    for (key, meaning) in keys {
        if line.width() + 4 + meaning.len() > width {
            break;
        }
        line.push(if line.width() == 0 { "" } else { "  " }, Tone::Plain);
        line.push(key, Tone::Strong);
        line.push(format!(" {meaning}"), Tone::Dim);
    }
    line.fitted(width)
}

/// What will happen, said before it does; the way to answer comes first, so that no narrow screen cuts it off.
fn question(name: &str, order: Order) -> String {
    match order {
        Order::Start => format!("Start {name} now? y/n"),
        Order::Stop => format!("Stop {name}? y/n  Its outputs go to their safe values."),
        Order::Restart => format!("Restart {name}? y/n  Its outputs are safe until it is ready."),
        Order::Enable => format!("Enable {name} for good? y/n"),
        Order::Disable => format!("Disable {name} for good? y/n"),
        Order::Snooze(duration) if duration.is_zero() => format!("End the snooze of {name}? y/n"),
        Order::Snooze(duration) => format!("Snooze {name} for {}? y/n  It is not killed meanwhile.", rough(duration)),
    }
}

const EVENTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::keys::Key;
    use super::super::model::Answer;
    use super::*;
    use crate::ctl::view::sample;
    use crate::ctl::view::text::width;

    fn model() -> Model {
        let mut model = Model::new(false);
        model.now_ns = sample::NOW_NS;
        model.take_status(sample::status(), true);
        model.take_event(sample::recovered());
        model
    }

    fn screen(model: &Model, columns: usize, rows: usize) -> Vec<String> {
        let text = draw(model, columns, rows);
        let lines: Vec<_> = text.split('\n').map(str::to_owned).collect();
        assert_eq!(lines.len(), rows.max(1), "{lines:#?}");
        assert!(lines.iter().all(|line| width(line) <= columns), "{columns}: {lines:#?}");
        lines
    }

    #[test]
    fn the_list_fits_wide_usual_and_narrow_screens() {
        for columns in [120, 80, 40] {
            let lines = screen(&model(), columns, 24);
            assert!(lines[0].starts_with("pump-house 3  ▲ 1 child in safe state"), "{lines:#?}");
            let modbus = lines.iter().find(|line| line.starts_with("modbus")).expect("is in the list");
            assert!(modbus.contains("▲ backoff 2.1 s") && modbus.contains("hang"), "{modbus}");
            assert!(lines[23].starts_with("q quit  ↑↓ choose  ⏎ details"), "{lines:#?}");
        }
        let wide = screen(&model(), 120, 24);
        assert!(
            wide.iter().any(|line| line.contains("max 190 of 200 ms")) && wide.iter().any(|line| line == "LAST EVENTS")
        );
    }

    #[test]
    fn the_chosen_child_is_always_on_the_screen() {
        let mut model = model();
        model.press(Key::End);
        let lines = screen(&model, 80, 9);
        assert!(lines.iter().any(|line| line.starts_with("lanwan-check")), "{lines:#?}");
        for (columns, rows) in (0..50).flat_map(|c| [(c, 0), (c, 1), (c, 5), (c, 30)]) {
            draw(&model, columns, rows);
        }
    }

    #[test]
    fn the_detail_tells_the_story_of_the_fault() {
        let mut model = model();
        model.press(Key::Down);
        model.press(Key::Enter);
        for columns in [120, 80, 40] {
            let text = screen(&model, columns, 40).join("\n");
            for expected in
                ["modbus  ▲ backoff", "last fault: hang", "detected", "+48 µs", "futex_wait", "last events", "⏎ back"]
            {
                assert!(text.contains(expected), "{columns}: {expected} in\n{text}");
            }
        }
        (0..50).for_each(|_| drop(model.press(Key::PageDown)));
        let lines = screen(&model, 80, 12);
        assert!(lines[10].contains("recovered"), "scrolling ends at the last line: {lines:#?}");
    }

    #[test]
    fn questions_answers_and_trouble_are_shown() {
        let mut model = model();
        model.press(Key::Char('x'));
        let lines = screen(&model, 80, 20);
        assert_eq!(lines[19], "Stop io? y/n  Its outputs go to their safe values.");
        model.press(Key::Escape);
        model.answer = Some(Answer { text: "io: stopping".into(), refused: false });
        model.trouble = Some("no daemon".into());
        let lines = screen(&model, 80, 20);
        assert_eq!(lines[19], "io: stopping");
        assert!(lines.contains(&"▲ no daemon".to_owned()));
        assert!(screen(&Model::new(false), 80, 10)[0].starts_with("multusd"));
    }

    #[test]
    fn colours_come_only_when_wanted() {
        let mut model = model();
        assert!(!draw(&model, 80, 24).contains('\x1b'));
        model.colour = true;
        assert!(draw(&model, 80, 24).contains("\x1b[7m"), "the chosen line stands out");
    }
}
