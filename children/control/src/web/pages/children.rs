//! The list of all children, and one page for each.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::render::context;
use multus_contract::api::event::Event;
use multus_contract::api::status::ChildStatus;
use serde::Serialize;

use super::super::response::Response;
use super::chart::{self, Curve};
use super::frame::child_path;
use super::look::{self, Mark, output, time_us};
use super::past::Range;
use super::{Answer, View, encoded};
use crate::service::configuration::Document;
use crate::service::status::{families, family};
use crate::service::{Advice, Caller, Error, EventQuery, Order};

/// Lists as they were rendered last: of one status there is one list for all who may do the same, however many look.
#[derive(Debug, Default)]
pub(super) struct Lists(Mutex<HashMap<Which, (Instant, minijinja::Value)>>);

/// Which children are shown, and whether they may be ordered and enabled.
type Which = (usize, bool, bool);

impl Lists {
    fn get(&self, which: Which, taken: Instant, render: impl FnOnce() -> minijinja::Value) -> minijinja::Value {
        // Whoever comes meanwhile waits for it instead of doing the same.
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match lists.get(&which) {
            Some((of, list)) if *of == taken => list.clone(),
            _ => lists.entry(which).insert_entry((taken, render())).get().1.clone(),
        }
    }
}

/// A child as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// Its name, and as a part of an address.
    pub(super) name: String,
    href: String,
    /// The child that it is an instance of, where its orders go, and how many of it there are.
    child: String,
    child_href: String,
    instances: usize,
    description: String,
    text: Option<String>,
    mark: Mark,
    failing: bool,
    /// What is to be said beside the state.
    remarks: Vec<Remark>,
    since: String,
    pid: Option<u32>,
    method: String,
    curve: Curve,
    /// `max 6.2 of 50 ms`.
    beats: String,
    typical: String,
    /// How near the longest gap came to the deadline.
    beats_tone: &'static str,
    deadline: String,
    age: String,
    has_beats: bool,
    restarts: u64,
    fault: Option<Fault>,
    enabled: bool,
    is_off: bool,
    running: bool,
    snoozed: bool,
    can_start: bool,
    start_word: &'static str,
    /// Its outputs that have a safe value, in words.
    outputs: Vec<Output>,
    /// `DO1 off, DO2 on`; empty without.
    safe_values: String,
}

#[derive(Debug, Serialize)]
struct Remark {
    text: String,
    tone: &'static str,
}

#[derive(Debug, Serialize)]
struct Fault {
    kind: String,
    time: String,
    detail: String,
    count: u64,
}

/// An output with a safe value.
#[derive(Debug, Serialize)]
pub(super) struct Output {
    name: String,
    value: String,
    forced: bool,
}

impl View<'_> {
    /// The start page.
    pub(super) fn services(&self) -> Answer {
        let snapshot = self.service().status(self.caller())?;
        let mut children: Vec<&ChildStatus> = snapshot.status.children.iter().collect();
        children.sort_by_key(|child| look::rank(child));
        let all = children.len();
        let (words, show) = (self.query("q").trim().to_lowercase(), self.query("show"));
        let number = |fits: &dyn Fn(&ChildStatus) -> bool| children.iter().filter(|child| fits(child)).count();
        let shows = [
            ("", "all", all),
            ("problems", "problems", number(&is_problem)),
            ("running", "running", number(&|child| child.state == "running")),
            ("off", "off", number(&ChildStatus::is_off)),
        ];
        let fits = |child: &ChildStatus| {
            let text = format!("{} {} {}", child.name, child.description, child.state).to_lowercase();
            let wanted = match show {
                "problems" => is_problem(child),
                "running" => child.state == "running",
                "off" => child.is_off(),
                _ => true,
            };
            wanted && words.split_whitespace().all(|word| text.contains(word))
        };
        let (may_order, may_enable) = (self.may(Caller::OPERATOR), self.may(Caller::ADMIN));
        let list = || {
            let families = families(&snapshot.status.children);
            let fitting = children.iter().filter(|child| fits(child));
            let rows: Vec<Row> = fitting.map(|child| self.row(child, family(child, &families))).collect();
            let notes = super::frame::notes(&snapshot.status.daemon);
            let context = context! { rows, all, notes, may_order, may_enable };
            minijinja::Value::from_safe_string(self.pages().templates.render("services-list.html", context))
        };
        let shown = shows.iter().position(|(value, ..)| *value == show).filter(|_| words.is_empty());
        let list = match shown {
            Some(shown) => self.pages().lists.get((shown, may_order, may_enable), snapshot.taken, list),
            None => list(),
        };
        let shows = shows.map(|(value, name, count)| context! { value, name, count, current => show == value });
        let context = minijinja::value::merge_maps([
            context! { shows, show, q => self.query("q") },
            minijinja::Value::from(BTreeMap::from([("list", list)])),
        ]);
        Ok(self.page("services.html", "Services", context))
    }

    /// One child.
    pub(super) fn child(&self, name: &str) -> Answer {
        let children = self.service().children(self.caller(), Some(name))?;
        let [child] = children.as_slice() else {
            // The name of a child with several instances.
            return Ok(Response::see(&format!("/?q={}", encoded(name))));
        };
        let query = EventQuery { since: None, child: Some(name.to_owned()), limit: 1000 };
        let events = self.service().events(self.caller(), &query).unwrap_or_default();
        let events: Vec<&Event> = events.iter().map(AsRef::as_ref).collect();
        let fault = chart::fault_of(events.iter().copied(), None);
        let story = fault.and_then(|(_, times)| chart::story(times));
        let spoken = story.as_ref().map(chart::spoken);
        let report = self.service().fault(self.caller(), name, None).ok();
        let (evidence, report) = match report {
            Some(found) => (Some(found.text), Some(found.report)),
            None => (None, None),
        };
        let advice = self.service().advise(self.caller(), name).unwrap_or_default();
        let lanes: Vec<_> = advice.iter().filter(|lane| lane.intervals > 0).map(lane).collect();
        let tail = self.service().log_tail(self.caller(), name, TAIL).ok().map(|tail| tail.lines);
        let has_log = tail.is_some();
        let tail = tail.unwrap_or_default();
        let log: Vec<_> = tail.iter().map(|line| super::logs::line(line)).collect();
        let latest: Vec<_> = events.iter().rev().take(LATEST).map(|event| super::events::row(event)).collect();
        let past = self.past(child);
        let faults = self.service().faults(self.caller(), Some(name)).unwrap_or_default();
        let faults: Vec<_> = faults.into_iter().take(LATEST).collect();
        let all = self.service().children(self.caller(), None)?;
        let context = context! {
            row => self.row(child, family(child, &families(&all))), name, story, spoken, evidence, report, lanes, log, has_log, latest, past, faults,
            documents => self.documents_of(name), lan => self.service().lan(self.caller(), name).ok().flatten(),
            may_order => self.may(Caller::OPERATOR), may_enable => self.may(Caller::ADMIN),
        };
        Ok(self.page("child.html", name, context))
    }

    /// The curve of the range that was asked for, and how the silences in it spread.
    fn past(&self, child: &ChildStatus) -> minijinja::Value {
        let (word, range, step, length) = match self.query("range") {
            "hour" => ("hour", Range::Hour, "minute", "60 min"),
            "day" => ("day", Range::Day, "ten minutes", "24 h"),
            _ => ("minute", Range::Minute, "second", "60 s"),
        };
        let longest = self.pages().past.longest(&child.name, range).map(|longest| {
            let of = |us| chart::of_deadline(Some(us), child.deadline_us);
            context! { p50 => of(longest.p50), p90 => of(longest.p90), max => of(longest.max), steps => longest.steps }
        });
        context! { word, step, length, longest, curve => self.pages().past.curve(&child.name, range) }
    }

    /// A button was pressed.
    pub(super) fn order(&self, name: &str, word: &str) -> Answer {
        if word == "confirm" {
            self.service().confirm_lan(self.caller(), name)?;
            return Ok(self.done(&child_path(name), "The change of the LAN stands."));
        }
        if word == "instances" {
            return self.instances(name);
        }
        let (order, done) = match word {
            "start" => (Order::Start, "is being started"),
            "stop" => (Order::Stop, "is being stopped"),
            "restart" => (Order::Restart, "is being restarted"),
            "enable" => (Order::Enable, "is enabled"),
            "disable" => (Order::Disable, "is disabled"),
            "snooze" => {
                let seconds = self.field("seconds").trim().parse();
                let seconds = seconds.map_err(|_| Error::field("seconds", "expected a number of seconds"))?;
                (Order::Snooze(seconds), if seconds == 0 { "is no longer snoozed" } else { "is snoozed" })
            }
            _ => return Err(Error::NotFound(format!("a child cannot be told to {word:?}"))),
        };
        self.service().order(self.caller(), name, order)?;
        let back = match self.field("back") {
            "list" => "/".to_owned(),
            _ => child_path(name),
        };
        Ok(self.done(&back, &format!("{name} {done}.")))
    }

    /// How many processes run a child.
    fn instances(&self, child: &str) -> Answer {
        let count = self.field("instances").trim().parse();
        let count: u16 = count.map_err(|_| Error::field("instances", "expected a number, 1 to 256"))?;
        self.service().set_instances(self.caller(), child, count)?;
        let back = if self.field("back") == "list" { "/".to_owned() } else { format!("/?q={}", encoded(child)) };
        let what = if count == 1 { "runs once".to_owned() } else { format!("runs {count} times") };
        Ok(self.done(&back, &format!("{child} {what} from now on.")))
    }

    fn row(&self, child: &ChildStatus, (family, instances): (&str, usize)) -> Row {
        #[expect(clippy::cast_precision_loss, reason = "deadlines are at most a day")]
        let us = |value: u64| value as f64;
        let gaps = child.beat_interval_us;
        let deadline = child.deadline_us.map(us);
        let part = gaps.zip(deadline).map_or(0.0, |(gaps, deadline)| gaps.max / deadline.max(1.0));
        let outputs = outputs(child);
        let safe_values = outputs.iter().map(|o| format!("{} {}", o.name, o.value)).collect::<Vec<_>>().join(", ");
        let backoff = child.state == "backoff";
        Row {
            href: child_path(&child.name),
            name: child.name.clone(),
            child: family.to_owned(),
            child_href: child_path(family),
            instances,
            description: child.description.clone(),
            text: child.text.clone(),
            mark: look::mark(child),
            failing: child.is_failing(),
            remarks: remarks(child),
            since: child.since.clone(),
            pid: child.pid,
            method: child.method.clone(),
            curve: self.pages().past.curve(&child.name, Range::Minute),
            beats: chart::of_deadline(gaps.map(|gaps| gaps.max), child.deadline_us),
            typical: gaps.and_then(|gaps| gaps.p50).map_or_else(String::new, time_us),
            beats_tone: chart::tone_of(part),
            deadline: deadline.map_or_else(String::new, time_us),
            age: child.last_beat_age_us.map_or_else(String::new, |age| time_us(us(age))),
            has_beats: child.deadline_us.is_some(),
            restarts: child.restarts,
            fault: child.last_fault.as_ref().map(|fault| Fault {
                kind: fault.kind.clone(),
                time: fault.time.clone(),
                detail: fault.detail.lines().next().unwrap_or_default().to_owned(),
                count: fault.count,
            }),
            enabled: child.enabled,
            is_off: child.is_off(),
            running: child.pid.is_some(),
            snoozed: child.snoozed_until.is_some(),
            can_start: child.enabled && (backoff || child.state == "stopped"),
            start_word: if backoff { "start now" } else { "start" },
            outputs,
            safe_values,
        }
    }

    /// How a child is configured, as links.
    fn documents_of(&self, name: &str) -> Vec<minijinja::Value> {
        let documents = self.service().documents(self.caller()).unwrap_or_default();
        let own = Document::Parameters(name.to_owned()).to_string();
        let child = documents.iter().find(|info| info.document == own).and_then(|info| info.child.clone());
        let child = Document::Child(child.unwrap_or_else(|| name.to_owned())).to_string();
        let texts = [(own, "Parameters", "what it works with"), (child, "Supervision", "how it is run and watched")];
        texts
            .into_iter()
            .filter_map(|(document, title, what)| {
                let info = documents.iter().find(|info| info.document == document)?;
                Some(context! { document, title, what, exists => info.exists })
            })
            .collect()
    }
}

fn outputs(child: &ChildStatus) -> Vec<Output> {
    let shown = |o: &multus_contract::api::status::ForcedOutput| Output {
        name: o.name.clone(),
        value: output(o.value),
        forced: o.forced,
    };
    child.forced_outputs.iter().map(shown).collect()
}

fn remarks(child: &ChildStatus) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut say = |text: String, tone| remarks.push(Remark { text, tone });
    let forced: Vec<_> = child.forced_outputs.iter().filter(|output| output.forced).collect();
    if !forced.is_empty() {
        let list: Vec<_> = forced.iter().map(|o| format!("{} {}", o.name, output(o.value))).collect();
        let tone = if child.is_failing() { "bad" } else { "idle" };
        say(format!("outputs forced: {}", list.join(", ")), tone);
    } else if child.is_failing() && child.safe_state {
        say("in safe state".into(), "bad");
    }
    if child.degraded {
        say("degraded: it keeps failing".into(), "bad");
    }
    if let Some(end) = &child.snoozed_until {
        say(format!("snoozed, ends {}", look::ago(end)), "warn");
    }
    remarks
}

fn is_problem(child: &ChildStatus) -> bool {
    look::rank(child) <= 2
}

/// Which deadline suits one lane, in words.
fn lane(advice: &Advice) -> minijinja::Value {
    let sentence = match (advice.deadline_us, advice.advised_us) {
        (_, None) => "Too little was seen yet to say which deadline suits it.".to_owned(),
        (None, Some(advised)) => format!("A deadline of {} would suit it.", time_us(advised)),
        (Some(deadline), Some(advised)) => {
            let alarms = |number: Option<f64>| number.map_or_else(|| "an unknown number of".to_owned(), often);
            format!(
                "With its deadline of {} expect {} false alarms a year; with {} it would be {}.",
                time_us(deadline),
                alarms(advice.alarms_per_year),
                time_us(advised),
                alarms(advice.advised_alarms_per_year),
            )
        }
    };
    let limit = advice.deadline_us;
    let part = |us: f64| limit.map_or(0.0, |limit| us / limit.max(1.0));
    let values =
        [("median", advice.p50_us), ("99 %", advice.p99_us), ("99.9 %", advice.p999_us), ("longest", advice.max_us)];
    let values = values.map(|(name, us)| {
        let width = (part(us).clamp(0.0, 1.0) * 1000.0).round() / 10.0;
        context! { name, value => time_us(us), width, tone => chart::tone_of(part(us)) }
    });
    context! {
        name => advice.lane, intervals => advice.intervals, values, sentence,
        deadline => limit.map(time_us),
    }
}

/// A number of times a year.
fn often(number: f64) -> String {
    match number {
        n if n < 0.001 => "fewer than one in 1000 years,".to_owned(),
        n if n < 1.0 => format!("{n:.3}"),
        n => format!("{n:.0}"),
    }
}

/// Lines of the log on a child's page.
const TAIL: usize = 20;
/// Events and faults there.
const LATEST: usize = 12;
