//! What the live view knows and what keys do to it. Pure: no terminal, no socket, no clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use multus_contract::api::event::Event;
use multus_contract::api::status::{ChildStatus, Status};

use super::keys::Key;
use crate::ctl::children::Order;
use crate::ctl::view::table::History;

/// Everything that is drawn.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// The last good status.
    pub(crate) status: Option<Status>,
    /// Why there is no newer one.
    pub(crate) trouble: Option<String>,
    /// Events, oldest first, the latest [`EVENTS_KEPT`].
    pub(crate) events: Vec<Event>,
    pub(crate) now_ns: u64,
    pub(crate) colour: bool,
    pub(crate) pane: Pane,
    /// The question at the bottom.
    pub(crate) question: Option<(String, Order)>,
    /// The last answer of the daemon to an order.
    pub(crate) answer: Option<Answer>,
    chosen: Option<String>,
    gaps: Gaps,
}

/// What fills the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pane {
    #[default]
    List,
    /// The chosen child, from this line on.
    Detail { scroll: usize },
}

/// What the daemon said to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) refused: bool,
}

/// What is to be done outside of the model after a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Nothing,
    Quit,
    Suspend,
    /// Draw everything anew.
    Redraw,
    Give {
        name: String,
        order: Order,
    },
}

/// How the longest gaps of every child went, each as a part of its deadline.
#[derive(Debug, Default)]
struct Gaps(BTreeMap<String, VecDeque<f64>>);

impl History for Gaps {
    fn of(&self, name: &str) -> &[f64] {
        // `record` makes the deque contiguous after each change.
        self.0.get(name).map_or(&[], |gaps| gaps.as_slices().0)
    }
}

impl Model {
    pub(crate) fn new(colour: bool) -> Self {
        Self { colour, ..Self::default() }
    }

    /// Takes a new status; `sample` says that it is time for one more point of the curves.
    pub(crate) fn take_status(&mut self, status: Status, sample: bool) {
        if sample {
            self.gaps.record(&status.children);
        }
        self.trouble = None;
        let still_there = |name: &String| status.children.iter().any(|child| child.name == *name);
        if !self.chosen.as_ref().is_some_and(still_there) {
            self.chosen = status.children.first().map(|child| child.name.clone());
            self.pane = Pane::List;
            self.question = None;
        }
        self.status = Some(status);
    }

    pub(crate) fn take_event(&mut self, event: Event) {
        // After a reconnection the daemon tells old events again; after its restart the numbers begin anew.
        if self.events.last().is_some_and(|last| event.seq <= last.seq && event.mono_ns <= last.mono_ns) {
            return;
        }
        self.events.push(event);
        if self.events.len() > EVENTS_KEPT {
            self.events.drain(..EVENTS_KEPT / 4);
        }
    }

    /// What a key does.
    pub(crate) fn press(&mut self, key: Key) -> Action {
        match key {
            Key::Interrupt => return Action::Quit,
            Key::Suspend => return Action::Suspend,
            Key::Redraw => return Action::Redraw,
            _ => {}
        }
        if let Some((name, order)) = self.question.take() {
            let agreed = matches!(key, Key::Char('y' | 'Y') | Key::Enter);
            return if agreed { Action::Give { name, order } } else { Action::Nothing };
        }
        self.answer = None;
        match key {
            Key::Char('q') => return Action::Quit,
            Key::Char('s') => self.ask(Order::Start),
            Key::Char('x') => self.ask(Order::Stop),
            Key::Char('r') => self.ask(Order::Restart),
            Key::Char('z') => self.ask_snooze(),
            _ => self.move_about(key),
        }
        Action::Nothing
    }

    pub(crate) fn chosen_index(&self) -> Option<usize> {
        let name = self.chosen.as_ref()?;
        self.children().iter().position(|child| child.name == *name)
    }

    pub(crate) fn chosen_child(&self) -> Option<&ChildStatus> {
        self.children().get(self.chosen_index()?)
    }

    pub(crate) fn children(&self) -> &[ChildStatus] {
        self.status.as_ref().map_or(&[], |status| &status.children)
    }

    pub(crate) fn history(&self) -> &dyn History {
        &self.gaps
    }

    fn ask(&mut self, order: Order) {
        self.question = self.chosen.clone().map(|name| (name, order));
    }

    fn ask_snooze(&mut self) {
        let snoozed = self.chosen_child().is_some_and(|child| child.snoozed_until.is_some());
        self.ask(Order::Snooze(if snoozed { Duration::ZERO } else { SNOOZE }));
    }

    fn move_about(&mut self, key: Key) {
        match (&mut self.pane, key) {
            (Pane::List, Key::Enter) if self.chosen.is_some() => self.pane = Pane::Detail { scroll: 0 },
            (Pane::Detail { .. }, Key::Enter | Key::Escape | Key::Char('h')) => self.pane = Pane::List,
            (Pane::Detail { scroll }, _) => {
                *scroll = match key {
                    Key::Up | Key::Char('k') => scroll.saturating_sub(1),
                    Key::Down | Key::Char('j') => *scroll + 1,
                    Key::PageUp => scroll.saturating_sub(PAGE),
                    Key::PageDown => *scroll + PAGE,
                    Key::Home => 0,
                    _ => *scroll,
                }
                .min(FURTHEST_SCROLL);
            }
            (Pane::List, _) => self.move_choice(key),
        }
    }

    fn move_choice(&mut self, key: Key) {
        let (at, last) = (self.chosen_index().unwrap_or(0), self.children().len().saturating_sub(1));
        let to = match key {
            Key::Up | Key::Char('k') => at.saturating_sub(1),
            Key::Down | Key::Char('j') => at + 1,
            Key::PageUp => at.saturating_sub(PAGE),
            Key::PageDown => at + PAGE,
            Key::Home => 0,
            Key::End => last,
            _ => at,
        };
        self.chosen = self.children().get(to.min(last)).map(|child| child.name.clone());
    }
}

impl Gaps {
    fn record(&mut self, children: &[ChildStatus]) {
        self.0.retain(|name, _| children.iter().any(|child| child.name == *name));
        for child in children {
            let (Some(deadline_us), Some(gaps)) = (child.deadline_us, child.beat_interval_us) else { continue };
            let kept = self.0.entry(child.name.clone()).or_default();
            #[expect(clippy::cast_precision_loss, reason = "deadlines are at most a day")]
            kept.push_back(gaps.max / (deadline_us.max(1) as f64));
            while kept.len() > GAPS_KEPT {
                kept.pop_front();
            }
            kept.make_contiguous();
        }
    }
}

/// How long `z` snoozes.
pub(crate) const SNOOZE: Duration = Duration::from_secs(15 * 60);
const EVENTS_KEPT: usize = 2000;
const GAPS_KEPT: usize = 300;
const PAGE: usize = 10;
/// Beyond the length of every detail; the drawing stops at its end.
const FURTHEST_SCROLL: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::view::sample;

    fn model() -> Model {
        let mut model = Model::new(false);
        model.take_status(sample::status(), true);
        model
    }

    fn chosen(model: &Model) -> &str {
        model.chosen_child().map_or("", |child| &child.name)
    }

    #[test]
    fn the_choice_moves_and_stays_with_its_child() {
        let mut model = model();
        assert_eq!(chosen(&model), "io");
        model.press(Key::Up);
        assert_eq!(chosen(&model), "io");
        model.press(Key::Char('j'));
        assert_eq!(chosen(&model), "modbus");
        model.press(Key::End);
        model.press(Key::Down);
        assert_eq!(chosen(&model), "lanwan-check");
        let mut fewer = sample::status();
        fewer.children.remove(0);
        model.take_status(fewer, true);
        assert_eq!(chosen(&model), "lanwan-check");
        model.take_status(Status::default(), true);
        assert_eq!(model.chosen_child(), None);
        for key in [Key::Down, Key::Enter, Key::Char('x'), Key::Char('y'), Key::End] {
            assert_eq!(model.press(key), Action::Nothing, "nothing to choose from");
        }
    }

    #[test]
    fn an_order_is_given_only_after_a_yes() {
        let mut model = model();
        for no in [Key::Char('n'), Key::Escape, Key::Char('x'), Key::Down] {
            assert_eq!(model.press(Key::Char('x')), Action::Nothing);
            assert_eq!(model.press(no), Action::Nothing);
            assert_eq!(model.question, None);
        }
        assert_eq!(chosen(&model), "io", "the key that says no does nothing else");
        model.press(Key::Char('r'));
        let give = Action::Give { name: "io".into(), order: Order::Restart };
        assert_eq!(model.press(Key::Char('y')), give);
    }

    #[test]
    fn snooze_ends_where_there_is_one() {
        let mut model = model();
        model.press(Key::Char('z'));
        assert_eq!(model.question, Some(("io".into(), Order::Snooze(SNOOZE))));
        model.press(Key::Escape);
        (0..3).for_each(|_| drop(model.press(Key::Down)));
        model.press(Key::Char('z'));
        assert_eq!(model.question, Some(("ovpn-client_1".into(), Order::Snooze(Duration::ZERO))));
    }

    #[test]
    fn the_detail_opens_scrolls_and_closes() {
        let mut model = model();
        model.press(Key::Enter);
        model.press(Key::PageDown);
        model.press(Key::Up);
        assert_eq!(model.pane, Pane::Detail { scroll: PAGE - 1 });
        model.press(Key::Escape);
        assert_eq!(model.pane, Pane::List);
        assert_eq!(model.press(Key::Char('q')), Action::Quit);
        assert_eq!(model.press(Key::Interrupt), Action::Quit);
    }

    #[test]
    fn curves_and_events_are_bounded() {
        let mut model = model();
        for n in 0..5000_u64 {
            model.take_status(sample::status(), true);
            model.take_event(Event { seq: n, mono_ns: n, ..Event::default() });
        }
        assert_eq!(model.history().of("io").len(), GAPS_KEPT);
        assert!(model.events.len() <= EVENTS_KEPT);
        let known = model.events.len();
        model.take_event(Event { seq: 3, mono_ns: 3, ..Event::default() });
        assert_eq!(model.events.len(), known, "told twice");
        model.take_event(Event { seq: 1, mono_ns: 9000, ..Event::default() });
        assert_eq!(model.events.last().map(|event| event.seq), Some(1), "a daemon that began anew");
    }
}
