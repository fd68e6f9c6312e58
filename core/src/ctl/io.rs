//! `multusctl io`: inputs and outputs, as they are, and what a person may do with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use multus_contract::api::command::{Client, Request};
use multus_contract::api::human::count;
use multus_contract::api::io::{IoLine, IoStatus};
use multus_contract::api::status::Spread;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::Context;
use super::output::{Failure, has_colour, print, print_json, print_lines};
use super::view::text::{Line, Tone};

/// Shows all lines, or those that are named.
pub(crate) fn list(context: &Context, names: &[String], json: bool) -> Result<(), Failure> {
    let status = fetch(&mut context.client()?, names)?;
    if json {
        return print_json(&status);
    }
    let mut lines = vec![head(&status)];
    lines.extend(status.unsafe_outputs.iter().map(|what| Line::toned(format!("NOT SAFE: {what}"), Tone::Bad)));
    lines.extend(table(&status.lines));
    print_lines(&lines)
}

/// Shows every change until it is interrupted.
pub(crate) fn watch(context: &Context, names: &[String], json: bool) -> Result<(), Failure> {
    let mut client = context.client()?;
    let colour = has_colour();
    let mut before: Vec<IoLine> = Vec::new();
    loop {
        let status = fetch(&mut client, names)?;
        for line in &status.lines {
            let old = before.iter().find(|old| old.name == line.name);
            if old.is_some_and(|old| seen(old) == seen(line)) {
                continue;
            }
            let missed = old.map_or(0, |old| line.changes.saturating_sub(old.changes).saturating_sub(1));
            let text = if json { encode(line)? } else { change(line, missed).render(colour) };
            print(|out| writeln!(out, "{text}"))?;
        }
        before = status.lines;
        std::thread::sleep(WATCH_PERIOD);
    }
}

/// What makes a line worth a word.
fn seen(line: &IoLine) -> (u64, bool, &str, u64) {
    (line.value.to_bits(), line.good, &line.source, line.changes)
}

fn encode(line: &IoLine) -> Result<String, Failure> {
    serde_json::to_string(line).map_err(|error| Failure::Message(error.to_string()))
}

fn change(line: &IoLine, missed: u64) -> Line {
    let mut text = Line::plain(format!("{}  {} = ", line.changed.as_deref().unwrap_or("-"), line.name));
    text.push(value(line), if line.good { Tone::Strong } else { Tone::Bad });
    if !line.good {
        text.push("  bad: the last good value", Tone::Bad);
    }
    if !line.source.is_empty() {
        text.push(format!("  {}", line.source), Tone::Dim);
    }
    if missed > 0 {
        text.push(format!("  {} between", count(to_usize(missed), "change", "changes")), Tone::Dim);
    }
    text
}

/// Sends one request that is answered by nothing but done or refused.
pub(crate) fn order(context: &Context, request: &Request, done: &str) -> Result<(), Failure> {
    context.client()?.request(request)?;
    print(|out| writeln!(out, "{done}"))
}

/// `on`, `off`, or a number.
pub(crate) fn parse_value(text: &str) -> Result<f64, String> {
    match text {
        "on" | "true" => Ok(1.0),
        "off" | "false" => Ok(0.0),
        number => number
            .parse()
            .ok()
            .filter(|value: &f64| value.is_finite())
            .ok_or_else(|| format!("{number:?} is no value; expected \"on\", \"off\" or a number")),
    }
}

/// Whether the board works, as far as it can be told from inside. With `outputs`, each output that is named is held for a
/// moment at either end of its range; `wires` are pairs of an output and an input that follows it. Whatever ends the test, what it
/// holds is released; what a person holds is left alone.
pub(crate) fn test(context: &Context, outputs: &[String], wires: &[(String, String)]) -> Result<(), Failure> {
    let mut client = context.client()?;
    let status = fetch(&mut client, &[])?;
    let mut failed = 0;
    let mut tell = |what: String, good: bool| {
        failed += usize::from(!good);
        let (word, tone) = if good { ("good  ", Tone::Good) } else { ("FAILED", Tone::Bad) };
        let mut line = Line::toned(word, tone);
        line.push(format!("  {what}"), Tone::Plain);
        print_lines(&[line])
    };
    let held = if status.simulated { "simulated, so this says nothing of hardware" } else { "hardware" };
    tell(format!("board {} ({held})", status.board), !status.board.is_empty())?;
    tell(format!("multus-io scans every {:.0} us and has the outputs", status.period_us), {
        status.fresh && status.driven_by == "multus-io"
    })?;
    let longest = status.scan_us.p99.unwrap_or(status.scan_us.max);
    tell(format!("a scan takes {longest:.0} us (99 %) of {:.0} us", status.period_us), longest < status.period_us)?;
    for line in &status.lines {
        tell(format!("{} = {}", line.name, value(line)), line.good)?;
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(|error| Failure::Message(format!("signals cannot be handled: {error}")))?;
    }
    for name in outputs.iter().chain(wires.iter().map(|(output, _)| output)) {
        let Some(line) = status.lines.iter().find(|line| line.name == *name) else {
            tell(format!("{name}: there is no such line"), false)?;
            continue;
        };
        let input = wires.iter().find(|(output, _)| output == name).map(|(_, input)| input.as_str());
        if line.held.is_some() {
            tell(format!("{name} is held by a person, so it is not tried"), false)?;
            continue;
        }
        let [low, high] = line.range.unwrap_or([0.0, 1.0]);
        let tried = [high, low].into_iter().try_for_each(|end| {
            let wire = input.map(|input| Wire { input, tolerance: (high - low) * TOLERANCE });
            let good = hold(&mut client, name, end, wire, &interrupted)?;
            let wired = input.map_or(String::new(), |input| format!(", {input} follows"));
            tell(format!("{name} can be held at {end}{wired}"), good)
        });
        // Refused where the last hold was: told already.
        let _ = client.request(&Request::IoRelease { name: name.clone() });
        tried?;
    }
    if failed > 0 {
        return Err(Failure::Message(format!("{} failed", count(failed, "check", "checks"))));
    }
    Ok(())
}

/// An input that follows an output.
#[derive(Clone, Copy)]
struct Wire<'a> {
    input: &'a str,
    /// How far it may be away from it.
    tolerance: f64,
}

/// What a converter there and one back may make of a value, as a part of the range.
const TOLERANCE: f64 = 0.02;

/// Holds an output, and waits until it and the input that is wired to it have the value.
fn hold(
    client: &mut Client,
    name: &str,
    wanted: f64,
    wire: Option<Wire<'_>>,
    interrupted: &AtomicBool,
) -> Result<bool, Failure> {
    if let Err(error) = client.request(&Request::IoForce { name: name.to_owned(), value: wanted }) {
        super::output::complain(&error);
        return Ok(false);
    }
    let end = Instant::now() + HOLD_PATIENCE;
    loop {
        let status = fetch(client, &[])?;
        let has = |name: &str, tolerance: f64| {
            let is_near = |line: &IoLine| line.good && (line.value - wanted).abs() <= tolerance;
            status.lines.iter().any(|line| line.name == name && is_near(line))
        };
        // A digital input has the value or not.
        if has(name, 0.0) && wire.is_none_or(|wire| has(wire.input, wire.tolerance)) {
            return Ok(true);
        }
        if interrupted.load(Ordering::Relaxed) {
            return Err(Failure::Message("interrupted; the output is released".into()));
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn fetch(client: &mut Client, names: &[String]) -> Result<IoStatus, Failure> {
    let mut status: IoStatus = client.request_as(&Request::Io)?;
    if let Some(name) = names.iter().find(|name| status.lines.iter().all(|line| line.name != **name)) {
        return Err(Failure::Message(format!(
            "there is no line {name:?}; \"multusctl io list\" shows those there are"
        )));
    }
    if !names.is_empty() {
        status.lines.retain(|line| names.contains(&line.name));
    }
    Ok(status)
}

fn head(status: &IoStatus) -> Line {
    if status.driven_by == "nobody" {
        return Line::toned("no inputs or outputs are configured (hardware.toml)", Tone::Dim);
    }
    let mut head = Line::new();
    match (status.driven_by.as_str(), status.fresh) {
        ("multus-io", true) => head.push("multus-io drives", Tone::Good),
        ("multus-io", false) => head.push("multus-io starts; values are old", Tone::Warn),
        _ => head.push("multusd holds the outputs at their safe values; other values are old", Tone::Bad),
    }
    if !status.board.is_empty() {
        head.push(format!("  {}", status.board), Tone::Plain);
    }
    if status.simulated {
        head.push("  NO HARDWARE", Tone::Warn);
    }
    let Spread { p99, max, .. } = status.scan_us;
    head.push(format!("  scan {:.0} of {:.0} us (99 %)", p99.unwrap_or(max), status.period_us), Tone::Dim);
    if status.forced_us.max > 0.0 {
        head.push(format!("  forced within {:.0} us at most", status.forced_us.max), Tone::Dim);
    }
    if status.refused > 0 {
        head.push(format!("  {} refused", count(to_usize(status.refused), "request", "requests")), Tone::Warn);
    }
    head
}

/// A row for each line; columns as wide as they need to be.
fn table(lines: &[IoLine]) -> Vec<Line> {
    let width = |cell: fn(&IoLine) -> String| lines.iter().map(|l| cell(l).chars().count()).max().unwrap_or(0);
    let names = width(|line| line.name.clone());
    let values = width(value);
    let kinds = width(|line| line.kind.clone());
    let row = |line: &IoLine| {
        let mut row = Line::plain(format!("{:names$}  {:kinds$}  ", line.name, line.kind));
        let tone = if line.good { Tone::Strong } else { Tone::Bad };
        row.push(format!("{:>values$}", value(line)), tone);
        if !line.good {
            let since = line.last_good.as_deref().unwrap_or("never");
            row.push(format!("  BAD, last good {since}"), Tone::Bad);
        }
        if let Some(safe) = line.safe {
            let tone = if line.source == "forced" { Tone::Warn } else { Tone::Plain };
            row.push(format!("  {:9}", line.source), tone);
            row.push(format!("  safe {safe}, owner {}", line.owner), Tone::Dim);
        }
        row
    };
    lines.iter().map(row).collect()
}

fn value(line: &IoLine) -> String {
    if line.kind.starts_with("digital") {
        return if line.value == 0.0 { "off" } else { "on" }.to_owned();
    }
    format!("{:.3} {}", line.value, line.unit).trim_end().to_owned()
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// From look to look; a change that lasts less is counted.
const WATCH_PERIOD: Duration = Duration::from_millis(50);
/// For one output to have its value, and the input behind it.
const HOLD_PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_words_or_numbers() {
        assert_eq!((parse_value("on"), parse_value("off"), parse_value("-2.5")), (Ok(1.0), Ok(0.0), Ok(-2.5)));
        for wrong in ["", "onn", "nan", "inf", "1,5"] {
            assert!(parse_value(wrong).unwrap_err().contains("expected"), "{wrong}");
        }
    }

    #[test]
    fn a_bad_line_shows_its_last_good_value_and_since_when() {
        let line = IoLine {
            name: "T1".into(),
            kind: "analogue-input".into(),
            value: 21.5,
            unit: "°C".into(),
            last_good: Some("2026-01-01T00:00:00Z".into()),
            ..IoLine::default()
        };
        let output = IoLine {
            name: "DO1".into(),
            kind: "digital-output".into(),
            good: true,
            source: "forced".into(),
            safe: Some(0.0),
            owner: "modbus".into(),
            ..IoLine::default()
        };
        let rows: Vec<String> = table(&[line, output]).iter().map(|row| row.render(false)).collect();
        assert_eq!(rows[0], "T1   analogue-input  21.500 °C  BAD, last good 2026-01-01T00:00:00Z");
        assert_eq!(rows[1], "DO1  digital-output        off  forced     safe 0, owner modbus");
    }
}
