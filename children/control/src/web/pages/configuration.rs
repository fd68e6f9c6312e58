//! Configurations: forms and texts, what a save would change, conflicts, what became of it, and older versions.

use super::render::context;
use serde_json::{Map, Value};

use super::super::response::Response;
use super::diff::diff;
use super::form::{self, Form};
use super::{Answer, View, encoded, look, status_of};
use crate::service::configuration::{Document, Pending, PendingState, Save, Text};
use crate::service::{Caller, Error, Problem};

/// A document as somebody looks at it.
struct Open {
    document: Document,
    text: Text,
    /// What is wrong with the file as it is.
    problems: Vec<Problem>,
    /// Its values; why it is no TOML.
    values: Result<Map<String, Value>, String>,
}

impl Open {
    /// Whether it is a text that is never shown.
    fn is_secret(&self) -> bool {
        let mark = |schema: &Value| schema.get("writeOnly") == Some(&Value::Bool(true));
        matches!(self.document, Document::Text { .. }) && self.text.schema.as_deref().is_some_and(mark)
    }
}

/// What is said above a form.
#[derive(Debug, Default, serde::Serialize)]
struct Notice {
    tone: &'static str,
    text: String,
    /// What somebody else changed meanwhile.
    lines: Vec<super::diff::Line>,
}

impl View<'_> {
    /// Every document.
    pub(super) fn documents(&self) -> Answer {
        let documents = self.service().documents(self.caller())?;
        let pending = self.service().pending(self.caller())?;
        let state =
            |name: &str| pending.iter().find(|change| change.document == name).map(|change| change.state.as_str());
        let rows: Vec<_> = documents
            .iter()
            .map(|info| {
                let (kind, name) = info.document.split_once('/').unwrap_or(("", &info.document));
                context! {
                    info, kind, name, state => state(&info.document),
                    title => match kind {
                        "children" => "how it is run and watched",
                        "config" => "its parameters",
                        "files" => "a text that its parameters name",
                        _ => "the daemon itself",
                    },
                }
            })
            .collect();
        Ok(self.page("documents.html", "Configuration", context! { rows }))
    }

    /// One document: looked at, or a form that was sent.
    pub(super) fn configuration(&self, name: &str) -> Answer {
        let document: Document = name.parse().map_err(|_| Error::NotFound(format!("there is no document {name:?}")))?;
        if self.visit.request.method.changes() {
            return match self.field("action") {
                "review" => self.review(document),
                "edit" => self.edit_again(document),
                "save" => self.save(document),
                "apply" => {
                    self.service().apply_now(self.caller(), &document)?;
                    Ok(Response::see(&path(&document)))
                }
                "revert" => {
                    self.service().revert(self.caller(), &document)?;
                    Ok(Response::see(&path(&document)))
                }
                "roll-back" => self.roll_back(document),
                other => Err(Error::field("action", format!("unknown: {other:?}"))),
            };
        }
        match self.query("view") {
            "versions" => self.versions(document),
            "text" => {
                let open = self.open(document)?;
                self.text_page(200, &open, &open.text.text, &open.problems, open.text.version, None)
            }
            _ => {
                let open = self.open(document)?;
                match self.form(&open) {
                    Some(form) => self.form_page(200, &open, form, None),
                    None => self.text_page(200, &open, &open.text.text, &open.problems, open.text.version, None),
                }
            }
        }
    }

    fn open(&self, document: Document) -> Result<Open, Error> {
        let text = self.service().document(self.caller(), &document)?;
        // A program that cannot be asked is no reason not to show its file.
        let problems = self
            .service()
            .findings(self.caller(), &document)
            .unwrap_or_else(|error| vec![Problem { message: error.to_string(), warning: true, ..Problem::default() }]);
        // A text has no parameters, whatever it looks like.
        let is_text = matches!(document, Document::Text { .. });
        let values = if is_text { Ok(Map::new()) } else { form::values(&text.text) };
        Ok(Open { document, text, problems, values })
    }

    /// The form of a document; `None` if there is no schema, or the file is no TOML.
    fn form(&self, open: &Open) -> Option<Form> {
        let schema = open.text.schema.as_deref().filter(|schema| schema.get("properties").is_some())?;
        let values = open.values.as_ref().ok()?;
        let mut form = Form::new(schema, values, self.caller(), self.session.read_only);
        if let Document::Parameters(instance) = &open.document {
            form.link_texts(|key| path(&Document::Text { instance: instance.clone(), key: key.to_owned() }));
        }
        Some(form)
    }

    // ---- what was sent ----------------------------------------------------------------------------------------------

    /// What a save would change; or the form again, with what is wrong.
    fn review(&self, document: Document) -> Answer {
        let open = self.open(document)?;
        let expected = self.version_field()?;
        if self.field("mode") == "text" {
            let text = self.field("text").replace("\r\n", "\n");
            if expected != open.text.version {
                return self.text_conflict(&open, expected, &text);
            }
            let problems = self.service().validate(self.caller(), &open.document, &text)?;
            if problems.iter().any(|problem| !problem.warning) {
                return self.text_page(422, &open, &text, &problems, expected, None);
            }
            let is_secret = text != open.text.text && open.is_secret();
            let shown = if is_secret { "(a new text, not shown)" } else { &text };
            return self.review_page(&open, &text, shown, &problems, None);
        }
        let Some(mut form) = self.form(&open) else {
            return self.text_page(409, &open, &open.text.text, &open.problems, open.text.version, None);
        };
        if expected != open.text.version {
            return self.form_conflict(&open, expected, form);
        }
        form.fill(self.visit.form);
        if form.wrong > 0 {
            return self.form_page(422, &open, form, None);
        }
        if form.changed == 0 {
            let notice = Notice { tone: "idle", text: "Nothing was changed.".into(), ..Notice::default() };
            return self.form_page(200, &open, form, Some(notice));
        }
        let text = match self.service().edited(self.caller(), &open.document, &form.changes()) {
            Ok(text) => text,
            Err(error) => return self.refused(&open, form, &error),
        };
        let problems = self.service().validate(self.caller(), &open.document, &text)?;
        if problems.iter().any(|problem| !problem.warning) {
            let rest = form.blame(&problems);
            return self.form_page(422, &open, form, problems_notice(&rest));
        }
        let shown = self.service().edited(self.caller(), &open.document, &form.shown_changes())?;
        self.review_page(&open, &text, &shown, &problems, Some(&form))
    }

    /// Back from the review.
    fn edit_again(&self, document: Document) -> Answer {
        let open = self.open(document)?;
        if self.field("mode") == "text" {
            let text = self.field("text").replace("\r\n", "\n");
            return self.text_page(200, &open, &text, &[], self.version_field()?, None);
        }
        let Some(mut form) = self.form(&open) else { return Ok(Response::see(&path(&open.document))) };
        form.fill(self.visit.form);
        self.form_page(200, &open, form, None)
    }

    fn save(&self, document: Document) -> Answer {
        let expected_version = self.version_field()?;
        let text = self.field("text").replace("\r\n", "\n");
        let comment = self.field("comment").trim();
        let saved = self.service().save(self.caller(), &document, &Save { text: &text, expected_version, comment });
        let error = match saved {
            Ok(saved) if saved.pending.is_none() => {
                return Ok(self.done(&path(&document), "Nothing was changed."));
            }
            // The page itself says what becomes of it.
            Ok(_) => return Ok(Response::see(&path(&document))),
            Err(error) => error,
        };
        let open = self.open(document)?;
        let form = (self.field("mode") != "text").then(|| self.form(&open)).flatten();
        match (form, &error) {
            (Some(form), Error::Conflict { .. }) => self.form_conflict(&open, expected_version, form),
            (Some(mut form), _) => {
                form.fill(self.visit.form);
                self.refused(&open, form, &error)
            }
            (None, Error::Conflict { .. }) => self.text_conflict(&open, expected_version, &text),
            (None, error) => {
                let notice = Notice { tone: "bad", text: format!("Not saved: {error}"), ..Notice::default() };
                self.text_page(status_of(error), &open, &text, error.problems(), open.text.version, Some(notice))
            }
        }
    }

    fn roll_back(&self, document: Document) -> Answer {
        let version = self.field("to").parse().map_err(|_| Error::field("to", "expected the number of a version"))?;
        self.service().roll_back(self.caller(), &document, version, self.version_field()?)?;
        Ok(Response::see(&path(&document)))
    }

    fn version_field(&self) -> Result<u64, Error> {
        self.field("version").parse().map_err(|_| Error::field("version", "expected the number of a version"))
    }

    // ---- when it cannot be saved ------------------------------------------------------------------------------------

    fn refused(&self, open: &Open, mut form: Form, error: &Error) -> Answer {
        let rest = form.blame(error.problems());
        let mut notice = problems_notice(&rest);
        if rest.is_empty() && error.problems().is_empty() {
            notice = Some(Notice { tone: "bad", text: format!("Not saved: {error}"), ..Notice::default() });
        }
        self.form_page(status_of(error), open, form, notice)
    }

    /// Somebody else was faster: what that one changed, and the form on top of it with nothing lost.
    fn form_conflict(&self, open: &Open, expected: u64, mut form: Form) -> Answer {
        // A field that was not touched takes over what the other one saved there.
        let base = self.service().version(self.caller(), &open.document, expected).ok();
        let base = base.and_then(|(_, text)| form::values(&text).ok());
        let touched: Vec<String> = match (base, open.text.schema.as_deref()) {
            (Some(base), Some(schema)) => {
                let mut before = Form::new(schema, &base, self.caller(), self.session.read_only);
                before.fill(self.visit.form);
                before.fields().filter(|field| field.changed).map(|field| field.key.clone()).collect()
            }
            _ => self.visit.form.iter().filter_map(|(name, _)| form::key_of(name)).map(str::to_owned).collect(),
        };
        let is_touched = |name: &str| form::key_of(name).is_some_and(|key| touched.iter().any(|one| one == key));
        let sent: Vec<_> = self.visit.form.iter().filter(|(name, _)| is_touched(name)).cloned().collect();
        form.fill(&sent);
        let notice = self.conflict(open, expected, "Your changes stand in the form below, on top of that.");
        self.form_page(409, open, form, Some(notice))
    }

    fn text_conflict(&self, open: &Open, expected: u64, text: &str) -> Answer {
        let end = "Below is your text. Saving it replaces that version: take over what you want to keep.";
        let notice = self.conflict(open, expected, end);
        self.text_page(409, open, text, &[], open.text.version, Some(notice))
    }

    fn conflict(&self, open: &Open, expected: u64, end: &str) -> Notice {
        let current = open.text.version;
        let info = self.service().history(self.caller(), &open.document).unwrap_or_default();
        let info = info.into_iter().find(|info| info.version == current);
        let (who, when) = match &info {
            Some(info) if info.who.is_empty() => ("Somebody, by hand,".to_owned(), look::clock(&info.time)),
            Some(info) => (info.who.clone(), look::clock(&info.time)),
            None => ("Somebody".to_owned(), "an unknown time"),
        };
        let base = self.service().version(self.caller(), &open.document, expected).map(|(_, text)| text);
        let lines = base.map(|base| diff(&base, &open.text.text)).unwrap_or_default();
        let text = format!(
            "Not saved: {who} saved version {current} at {when} UTC, while you edited version {expected}. {end}"
        );
        Notice { tone: "bad", text, lines }
    }

    // ---- pages ------------------------------------------------------------------------------------------------------

    fn form_page(&self, status: u16, open: &Open, form: Form, notice: Option<Notice>) -> Answer {
        let context = context! { form, notice, ..self.common(open, "form") };
        Ok(self.page_with(status, "form.html", &title(&open.document), context))
    }

    fn text_page(
        &self,
        status: u16,
        open: &Open,
        text: &str,
        problems: &[Problem],
        expected: u64,
        notice: Option<Notice>,
    ) -> Answer {
        let problems: Vec<_> = problems
            .iter()
            .map(|problem| {
                let line = problem.line.checked_sub(1).and_then(|at| text.lines().nth(at));
                context! { problem, line, caret => " ".repeat(problem.column.saturating_sub(1).min(200)) }
            })
            .collect();
        let rows = (text.lines().count() + 2).clamp(12, 40);
        let broken = open.values.as_ref().err();
        let context = context! { text, problems, rows, notice, broken, expected, ..self.common(open, "text") };
        Ok(self.page_with(status, "text.html", &title(&open.document), context))
    }

    fn review_page(&self, open: &Open, text: &str, shown: &str, problems: &[Problem], form: Option<&Form>) -> Answer {
        let lines = diff(&open.text.text, shown);
        let changes: Vec<_> = form.into_iter().flat_map(Form::fields).filter(|field| field.changed).collect();
        let sent: Vec<_> = self
            .visit
            .form
            .iter()
            .filter(|(name, _)| form::key_of(name).is_some())
            .map(|(name, value)| context! { name, value })
            .collect();
        let unchanged = text == open.text.text && open.text.exists;
        let context = context! {
            text, lines, changes, sent, problems, unchanged, mode => if form.is_some() { "form" } else { "text" },
            effect => effect(&open.document), ..self.common(open, "review")
        };
        Ok(self.page("review.html", &title(&open.document), context))
    }

    /// Older versions, and what one of them differs in.
    fn versions(&self, document: Document) -> Answer {
        let open = self.open(document)?;
        let versions = self.service().history(self.caller(), &open.document)?;
        let chosen: Option<u64> = self.query("of").parse().ok();
        let against = if self.query("to") == "now" { Some(open.text.version) } else { None };
        let comparison = match chosen {
            None => None,
            Some(of) => {
                let (_, text) = self.service().version(self.caller(), &open.document, of)?;
                let (from, from_text, to, to_text) = match against {
                    Some(now) => (of, text, now, open.text.text.clone()),
                    None => {
                        let before = versions.iter().map(|info| info.version).find(|version| *version < of);
                        let old = before.map(|before| self.service().version(self.caller(), &open.document, before));
                        (before.unwrap_or(0), old.transpose()?.map_or_else(String::new, |(_, text)| text), of, text)
                    }
                };
                Some(context! { of, from, to, lines => diff(&from_text, &to_text), now => against.is_some() })
            }
        };
        let may = !self.session.read_only;
        let context = context! { versions, comparison, may, ..self.common(&open, "versions") };
        Ok(self.page("versions.html", &title(&open.document), context))
    }

    /// What all pages of a document show.
    fn common(&self, open: &Open, tab: &str) -> minijinja::Value {
        let name = open.document.to_string();
        let pending = self.service().pending(self.caller()).unwrap_or_default();
        let pending = pending.into_iter().find(|change| change.document == name);
        let child = match &open.document {
            Document::Daemon => None,
            Document::Child(child) | Document::Parameters(child) | Document::Text { instance: child, .. } => {
                Some(child.clone())
            }
        };
        let sibling = match &open.document {
            Document::Daemon => None,
            Document::Child(child) | Document::Text { instance: child, .. } => {
                Some((Document::Parameters(child.clone()), "its parameters"))
            }
            Document::Parameters(child) => {
                let all = self.service().documents(self.caller()).unwrap_or_default();
                let owner = all.into_iter().find(|info| info.document == name).and_then(|info| info.child);
                Some((Document::Child(owner.unwrap_or_else(|| child.clone())), "how it is run and watched"))
            }
        };
        let sibling = sibling
            .filter(|(document, _)| self.service().document(self.caller(), document).is_ok())
            .map(|(document, what)| context! { path => path(&document), what });
        context! {
            document => name, path => path(&open.document), child, sibling, tab,
            is_text => matches!(open.document, Document::Text { .. }), is_secret => open.is_secret(),
            help => open.text.schema.as_deref().and_then(|schema| schema.get("description")).filter(|_| {
                matches!(open.document, Document::Text { .. })
            }),
            version => open.text.version, exists => open.text.exists, has_form => self.form(open).is_some(),
            pending => pending.map(|pending| self.shown_pending(&pending)),
            what => what(&open.document),
            broken_file => open.problems.iter().any(|problem| !problem.warning), effect => effect(&open.document),
            may_edit => !self.session.read_only,
        }
    }

    fn shown_pending(&self, pending: &Pending) -> minijinja::Value {
        let (shape, tone) = match pending.state {
            PendingState::Waiting | PendingState::Applying => ("half", "warn"),
            PendingState::Healthy => ("circle", "ok"),
            PendingState::Unhealthy => ("triangle", "bad"),
            PendingState::Reverted => ("square", "idle"),
        };
        context! {
            state => pending.state.as_str(), version => pending.version, previous => pending.previous,
            message => pending.message, seconds => pending.applies_in_ms.div_ceil(1000), applies_at => pending.applies_at,
            shape, tone, may => !self.session.read_only, may_apply => self.may(Caller::OPERATOR),
        }
    }
}

fn problems_notice(problems: &[Problem]) -> Option<Notice> {
    let first = problems.iter().find(|problem| !problem.warning)?;
    let place = if first.key.is_empty() { String::new() } else { format!("{}: ", first.key) };
    Some(Notice { tone: "bad", text: format!("Not saved: {place}{}", first.message), ..Notice::default() })
}

/// Where a document is.
fn path(document: &Document) -> String {
    let name = document.to_string();
    let parts: Vec<String> = name.split('/').map(encoded).collect();
    format!("/configuration/{}", parts.join("/"))
}

fn title(document: &Document) -> String {
    match document {
        Document::Daemon => "Configuration of multusd".into(),
        Document::Child(name) => format!("{name}: supervision"),
        Document::Parameters(name) => format!("{name}: parameters"),
        Document::Text { instance, key } => format!("{instance}: text of {key}"),
    }
}

fn what(document: &Document) -> &'static str {
    match document {
        Document::Daemon => "How the daemon itself works.",
        Document::Child(_) => "How it is run and watched.",
        Document::Parameters(_) => "What it works with.",
        Document::Text { .. } => "A text in a file of its own, which a parameter names.",
    }
}

/// What happens after a save.
fn effect(document: &Document) -> String {
    match document {
        Document::Daemon => {
            "A few seconds after saving multusd reads its configuration again. Until then it can be taken \
                             back without any effect; later, the version before can be brought back with one click."
                .into()
        }
        Document::Child(name) | Document::Parameters(name) | Document::Text { instance: name, .. } => format!(
            "A few seconds after saving, {name} is restarted with it; several changes make one restart. Until then it can be \
             taken back without any effect. If {name} does not come back well, the version before is offered."
        ),
    }
}
