//! Inputs and outputs: what they hold now, what people may do with them, and what they did.

use multus_contract::api::io::{IoLine, IoStatus};
use multus_contract::api::status::Spread;
use serde::Serialize;

use super::events::instant;
use super::look::{self, Mark, count, time_us};
use super::render::context;
use super::{Answer, View, encoded, status_of};
use crate::history::{IoChange, IoQuery};
use crate::service::{Error, LineOrder, is_operators};

/// A line as it is shown.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    kind: String,
    digital: bool,
    /// With its unit.
    value: String,
    unit: String,
    /// Whether it is on, for the lamp of a digital line.
    on: bool,
    /// `0 to 10 V`, and where in it the value is, in percent.
    range: String,
    part: Option<f64>,
    ends: [f64; 2],
    good: bool,
    mark: Mark,
    /// Of a bad line: since when.
    last_good: Option<String>,
    owner: String,
    /// Whether its owner is a child.
    of_child: bool,
    safe: String,
    held: String,
    changed: Option<String>,
    changes: u64,
    can_set: bool,
    can_hold: bool,
}

/// What concerns all of them.
#[derive(Debug, Serialize)]
struct Fact {
    name: &'static str,
    value: String,
    title: &'static str,
    tone: &'static str,
}

/// A change as it is shown.
#[derive(Debug, Serialize)]
struct Change {
    time: String,
    line: String,
    value: String,
    previous: Option<String>,
    lasted: String,
    source: String,
    tone: &'static str,
    shape: &'static str,
    missed: u64,
}

/// The filters of the history.
#[derive(Clone, Debug, Default, Serialize)]
struct Filter {
    line: String,
    source: String,
    from: String,
    to: String,
    after: String,
}

impl View<'_> {
    /// All lines; a form sets, holds or releases one.
    pub(super) fn io(&self) -> Answer {
        if !self.visit.request.method.changes() {
            return self.io_page(200, None);
        }
        match self.line_form() {
            Ok(done) => Ok(self.done("/io", &done)),
            // Said where it was asked for: the lines as they are matter more than the sentence.
            Err(error) => self.io_page(status_of(&error), Some(error.to_string())),
        }
    }

    fn io_page(&self, status: u16, error: Option<String>) -> Answer {
        let io = self.service().lines(self.caller())?;
        let (may_set, may_hold) = (self.may(LineOrder::Set(0.0).level()), self.may(LineOrder::Release.level()));
        let rows = io.lines.iter().map(|line| row(line, &io, may_set, may_hold));
        let (outputs, inputs): (Vec<Row>, Vec<Row>) = rows.partition(|row| row.kind.ends_with("output"));
        let bad = io.lines.iter().filter(|line| !line.good).count();
        let held: Vec<String> = io
            .lines
            .iter()
            .filter_map(|line| Some(format!("{} at {}", line.name, value_of(line, line.held?))))
            .collect();
        let context = context! {
            inputs, outputs, error, bad => (bad > 0).then(|| count(bad, "line is bad", "lines are bad")), held,
            facts => facts(&io), board => io.board, simulated => io.simulated, fresh => io.fresh,
            driven_by => io.driven_by, unsafe_outputs => io.unsafe_outputs,
        };
        Ok(self.page_with(status, "io.html", "Inputs and outputs", context))
    }

    fn line_form(&self) -> Result<String, Error> {
        let name = self.field("line");
        let value = || {
            let text = self.field("value").trim();
            let number = text.parse().ok().filter(|value: &f64| value.is_finite());
            number.ok_or_else(|| Error::field("value", format!("found {text:?}, expected a number")))
        };
        let order = match self.field("action") {
            "set" => LineOrder::Set(value()?),
            "hold" => LineOrder::Force(value()?),
            "release" => LineOrder::Release,
            other => return Err(Error::field("action", format!("unknown: {other:?}"))),
        };
        self.service().line_order(self.caller(), name, order)?;
        let line = self.service().line(self.caller(), name)?;
        Ok(match order {
            LineOrder::Set(value) => format!("{name} was set to {}.", value_of(&line, value)),
            LineOrder::Force(value) => {
                format!("{name} is held at {} until it is released.", value_of(&line, value))
            }
            LineOrder::Release => format!("{name} is not held any more."),
        })
    }

    /// Changes of lines from the database.
    pub(super) fn io_history(&self) -> Answer {
        let of = |name| self.query(name).trim().to_owned();
        let filter =
            Filter { line: of("line"), source: of("source"), from: of("from"), to: of("to"), after: of("after") };
        let (query, wrong) = match filter.query() {
            Ok(query) => (query, None),
            Err(error) => (IoQuery { limit: PAGE, ..IoQuery::default() }, Some(error.to_string())),
        };
        let (page, trouble) = match self.service().io_history(self.caller(), &query) {
            Ok(page) => (page, None),
            Err(error) => (crate::history::Page::default(), Some(error.to_string())),
        };
        let lines = self.service().lines(self.caller()).map(|io| io.lines).unwrap_or_default();
        let rows: Vec<Change> = page.rows.into_iter().map(|(_, change)| shown(change, &lines)).collect();
        let mut names: Vec<String> = lines.into_iter().map(|line| line.name).collect();
        // A line that is gone has a history, too.
        if !filter.line.is_empty() && !names.contains(&filter.line) {
            names.push(filter.line.clone());
        }
        let context = context! {
            rows, names, sources => SOURCES, wrong, trouble, address => filter.address(),
            next => page.next.map(|next| next.to_string()), first => filter.after.is_empty(), filter,
        };
        Ok(self.page("io-history.html", "History of inputs and outputs", context))
    }
}

impl Filter {
    /// As the query of an address, without the place in the list.
    fn address(&self) -> String {
        let parts = [("line", &self.line), ("source", &self.source), ("from", &self.from), ("to", &self.to)];
        let set = parts.iter().filter(|(_, value)| !value.is_empty());
        set.map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
    }

    fn query(&self) -> Result<IoQuery, Error> {
        let list = |text: &str| if text.is_empty() { Vec::new() } else { vec![text.to_owned()] };
        let time = |name: &str, text: &str| match text {
            "" => Ok(None),
            text => instant(text)
                .map(Some)
                .ok_or_else(|| Error::field(name, "expected a time such as 2026-08-05T14:03 (UTC)")),
        };
        Ok(IoQuery {
            lines: list(&self.line),
            sources: list(&self.source),
            from_unix_ns: time("from", &self.from)?,
            to_unix_ns: time("to", &self.to)?,
            after: self.after.parse().ok(),
            limit: PAGE,
            ..IoQuery::default()
        })
    }
}

fn row(line: &IoLine, io: &IoStatus, may_set: bool, may_hold: bool) -> Row {
    let digital = line.kind.starts_with("digital");
    let is_output = line.safe.is_some();
    let is_operators = is_operators(line);
    let ends = line.range.unwrap_or([0.0, 1.0]);
    let part =
        |[low, high]: [f64; 2]| ((line.value - low) / (high - low).max(f64::MIN_POSITIVE) * 100.0).clamp(0.0, 100.0);
    Row {
        name: line.name.clone(),
        kind: line.kind.clone(),
        digital,
        value: value_of(line, line.value),
        unit: line.unit.clone(),
        on: digital && line.value != 0.0,
        range: line.range.map_or_else(String::new, |[low, high]| format!("{low} to {high} {}", line.unit)),
        part: line.range.map(part),
        ends,
        good: line.good,
        mark: mark(line, io.fresh),
        last_good: line.last_good.clone(),
        owner: if is_operators { "people".to_owned() } else { line.owner.clone() },
        of_child: is_output && !is_operators && !line.owner.is_empty(),
        safe: line.safe.map_or_else(String::new, |safe| value_of(line, safe)),
        held: line.held.map_or_else(String::new, |held| value_of(line, held)),
        changed: line.changed.clone(),
        changes: line.changes,
        can_set: may_set && if is_output { is_operators } else { io.simulated },
        can_hold: may_hold && is_output,
    }
}

/// Why it has its value, the worst first.
fn mark(line: &IoLine, fresh: bool) -> Mark {
    let mark = |shape, tone, word: &str, more: &str| Mark { shape, tone, word: word.into(), more: more.into() };
    match (line.good, line.source.as_str(), line.held) {
        (false, ..) => mark("triangle", "bad", "bad", ""),
        (_, "forced", Some(held)) if held == line.value => mark("diamond", "warn", "forced", "held by a person"),
        (_, "forced", _) => mark("triangle", "bad", "forced", "by multusd"),
        (_, "retained", _) => mark("half", "warn", "retained", "from before a start"),
        (_, "requested", _) => mark("circle", "ok", "requested", ""),
        (_, "safe", _) => mark("square", "idle", "safe", ""),
        (_, "", _) if fresh => mark("circle", "ok", "good", ""),
        (_, "", _) => mark("ring", "idle", "old", ""),
        (_, other, _) => mark("ring", "idle", other, ""),
    }
}

fn facts(io: &IoStatus) -> Vec<Fact> {
    let most = |spread: &Spread| spread.p99.map_or_else(String::new, |p99| format!("99 % {}, ", time_us(p99)));
    let mut facts = vec![Fact {
        name: "scan",
        value: format!("{}max {} of {}", most(&io.scan_us), time_us(io.scan_us.max), time_us(io.period_us)),
        title: "how long a scan takes, of the time from scan to scan",
        tone: if io.scan_us.p99.is_some_and(|p99| p99 > io.period_us) { "warn" } else { "" },
    }];
    if io.overruns > 0 {
        let value = count(usize::try_from(io.overruns).unwrap_or(usize::MAX), "scan", "scans");
        facts.push(Fact {
            name: "left out",
            value,
            title: "because one before took too long, since multus-io started",
            tone: "",
        });
    }
    if io.forced_us.max > 0.0 {
        facts.push(Fact {
            name: "forced within",
            value: format!("{}max {}", most(&io.forced_us), time_us(io.forced_us.max)),
            title: "from the decision to force outputs to the last of them being written",
            tone: "",
        });
    }
    if io.refused > 0 {
        let value = count(usize::try_from(io.refused).unwrap_or(usize::MAX), "request", "requests");
        facts.push(Fact {
            name: "refused",
            value,
            title: "somebody asked for an output of another, or for what it cannot have",
            tone: "warn",
        });
    }
    facts
}

fn shown(change: IoChange, lines: &[IoLine]) -> Change {
    let line = lines.iter().find(|line| line.name == change.line && line.kind == change.kind);
    let value = |text: &str| match (line, text.parse()) {
        (Some(line), Ok(value)) => value_of(line, value),
        _ => text.to_owned(),
    };
    let (shape, tone) = match change.source.as_str() {
        "bad" => ("triangle", "bad"),
        "forced" => ("diamond", "warn"),
        "retained" => ("half", "warn"),
        "safe" => ("square", "idle"),
        _ => ("circle", "ok"),
    };
    Change {
        value: value(&change.value),
        previous: change.previous.as_deref().filter(|previous| *previous != change.value).map(value),
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        lasted: change.duration_ns.map_or_else(String::new, |ns| match ns {
            60_000_000_000.. => look::rough(std::time::Duration::from_nanos(ns)),
            _ => time_us(ns as f64 / 1000.0),
        }),
        time: change.time,
        line: change.line,
        source: change.source,
        tone,
        shape,
        missed: change.missed,
    }
}

/// As on the command line.
fn value_of(line: &IoLine, value: f64) -> String {
    if line.kind.starts_with("digital") {
        return if value == 0.0 { "off" } else { "on" }.to_owned();
    }
    format!("{value:.3} {}", line.unit).trim_end().to_owned()
}

const SOURCES: [&str; 6] = ["read", "requested", "safe", "forced", "retained", "bad"];
/// Changes on a page.
const PAGE: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn output(source: &str, held: Option<f64>) -> IoLine {
        IoLine {
            name: "AO1".into(),
            kind: "analogue-output".into(),
            value: 2.5,
            unit: "V".into(),
            good: true,
            source: source.into(),
            owner: "pump".into(),
            safe: Some(0.0),
            range: Some([0.0, 10.0]),
            held,
            ..IoLine::default()
        }
    }

    #[test]
    fn every_source_has_a_shape_and_its_word() {
        let of = |line: &IoLine| {
            let mark = mark(line, true);
            (mark.shape, mark.word, mark.more)
        };
        assert_eq!(of(&output("requested", None)).0, "circle");
        assert_eq!(of(&output("safe", None)).0, "square");
        assert_eq!(of(&output("forced", Some(2.5))), ("diamond", "forced".into(), "held by a person".into()));
        assert_eq!(
            of(&output("forced", Some(9.0))),
            ("triangle", "forced".into(), "by multusd".into()),
            "safe goes first"
        );
        assert_eq!(of(&IoLine { good: false, ..output("requested", None) }).1, "bad");
        assert_eq!(mark(&IoLine { good: true, ..IoLine::default() }, false).word, "old");
    }

    #[test]
    fn what_may_be_done_depends_on_the_line_and_on_who_asks() {
        let real = IoStatus { fresh: true, ..IoStatus::default() };
        let simulated = IoStatus { simulated: true, ..real.clone() };
        let input = IoLine { kind: "digital-input".into(), good: true, ..IoLine::default() };
        let free = IoLine { owner: "operator".into(), ..output("safe", None) };
        let can = |line: &IoLine, io: &IoStatus, may_set, may_hold| {
            let row = row(line, io, may_set, may_hold);
            (row.can_set, row.can_hold)
        };
        assert_eq!(can(&input, &simulated, true, true), (true, false));
        let measured = IoLine { kind: "analogue-input".into(), ..input.clone() };
        assert_eq!(can(&measured, &simulated, true, false), (true, false));
        assert_eq!(can(&input, &real, true, true), (false, false));
        assert_eq!(can(&free, &real, true, true), (true, true));
        assert_eq!(can(&free, &real, true, false), (true, false));
        assert_eq!(can(&output("requested", None), &real, true, true), (false, true));
        assert_eq!(can(&free, &simulated, false, false), (false, false));
    }

    #[test]
    fn values_have_their_unit_and_their_place_in_the_range() {
        let row = row(&output("requested", None), &IoStatus::default(), true, true);
        assert_eq!((row.value.as_str(), row.range.as_str(), row.part), ("2.500 V", "0 to 10 V", Some(25.0)));
        assert_eq!((row.safe.as_str(), row.of_child), ("0.000 V", true));
    }
}
