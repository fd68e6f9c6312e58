//! The pages that people see in a browser. They read and do everything through the same service as the JSON API, and work
//! without scripts; a script only fetches them again and puts new values in place.
//!
//! Forms are sent as POST with the session's token against forged requests and answered by a redirect, so that reloading a
//! page never repeats an order.

mod account;
mod chart;
mod children;
mod configuration;
mod diff;
mod events;
mod faults;
mod form;
mod frame;
mod io;
mod logs;
mod look;
mod past;
mod people;
mod render;
mod system;

use minijinja::Value;

use super::Web;
use super::problem::Problem;
use super::request::{Method, Request};
use super::response::Response;
use crate::auth::{Refusal, Session, Visitor};
use crate::service::{Caller, Error, Service};
use children::Lists;
use past::Past;
use render::{Templates, context};

/// What all pages share.
#[derive(Debug)]
pub struct Pages {
    templates: Templates,
    past: std::sync::Arc<Past>,
    lists: Lists,
}

/// Somebody asks for a page.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// Where everything is.
    pub web: &'a Web,
    /// The request.
    pub request: &'a Request,
    /// Who sends it.
    pub visitor: &'a Visitor,
    /// The fields of a form, decoded.
    pub form: &'a [(String, String)],
}

/// Forms that strangers may send: there is no session yet whose token could come with them.
pub const OPEN: &[&str] = &["/log-in", "/set-up"];
/// What users who may change nothing may change all the same: their own.
pub const OWN: &[&str] = &["/log-in", "/log-out", "/set-up", "/account"];

impl Pages {
    /// The pages of this device. Starts the thread that remembers the beats of the last day.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn new(service: &Service) -> std::io::Result<Self> {
        Ok(Self { templates: Templates::new(), past: Past::start(service)?, lists: Lists::default() })
    }

    /// Keeps what the next process goes on with.
    pub(crate) fn keep(&self) {
        self.past.keep();
    }
}

/// The page that is asked for; the token against forged requests was checked before. `None`: there is no such page.
///
/// # Errors
/// What cannot be answered at all; the pages tell most of it themselves.
pub fn answer(visit: &Visit<'_>) -> Result<Option<Response>, Problem> {
    let Some(session) = visit.visitor.session() else { return Ok(Some(account::stranger(visit))) };
    let view = View { visit, session };
    Ok(Some(view.answer().unwrap_or_else(|error| view.error(&error))))
}

/// A page that says what went wrong.
pub fn problem(problem: &Problem, visit: Option<&Visit<'_>>) -> Response {
    let session = visit.and_then(|visit| Some((visit, visit.visitor.session()?)));
    let page = match (session, visit) {
        (Some((visit, session)), _) => View { visit, session }.problem(problem.status, &problem.detail),
        (None, Some(visit)) => {
            let (status, text) = (problem.status, &problem.detail);
            plain(visit, status, "problem.html", context! { title => title_of(status), status, text })
        }
        (None, None) => return problem.response(),
    };
    problem.dress(page)
}

/// A page without a frame: nobody is logged in.
fn plain(visit: &Visit<'_>, status: u16, template: &str, context: Value) -> Response {
    let site = site(visit.web);
    Response::html(status, visit.web.pages.templates.render(template, context! { site, plain => true, ..context }))
}

/// The name that stands above everything.
fn site(web: &Web) -> String {
    let own = Caller::new("pages", Caller::USER);
    let Ok(information) = web.service.information(&own) else { return "multusd".into() };
    information.daemon.and_then(|daemon| daemon.site).unwrap_or(information.host)
}

/// Somebody who is logged in looks at something.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    visit: &'a Visit<'a>,
    session: &'a Session,
}

/// What a page function gives.
type Answer = Result<Response, Error>;

impl<'a> View<'a> {
    fn answer(&self) -> Answer {
        let post = match self.visit.request.method {
            Method::Get => false,
            Method::Post => true,
            _ => return Err(Error::NotFound("pages know GET and POST only".into())),
        };
        match (post, self.path().as_slice()) {
            (false, []) => self.services(),
            (false, ["log-in" | "set-up"]) => Ok(Response::see("/")),
            (true, ["log-out"]) => self.log_out(),
            (_, ["account"]) => self.account(),
            (false, ["children"]) => Ok(Response::see("/")),
            (false, ["children", name]) => self.child(name),
            (true, ["children", name, order]) => self.order(name, order),
            (false, ["configuration"]) => self.documents(),
            (_, ["configuration", rest @ ..]) => self.configuration(&rest.join("/")),
            (false, ["faults"]) => self.faults(),
            (false, ["faults", child, id]) => self.fault(child, id),
            (false, ["logs"]) => self.logs(),
            (false, ["logs", name]) => self.log(name),
            (false, ["events"]) => self.events(),
            (false, ["events", "export"]) => self.export(),
            (_, ["io"]) => self.io(),
            (false, ["io", "history"]) => self.io_history(),
            (_, ["users"]) => self.users(),
            (_, ["tokens"]) => self.tokens(),
            (_, ["system"]) => self.system(),
            _ => Err(Error::NotFound(format!("there is no page /{}", self.path().join("/")))),
        }
    }

    // ---- the request ------------------------------------------------------------------------------------------------

    fn path(&self) -> Vec<&'a str> {
        self.visit.request.segments.iter().map(String::as_str).filter(|part| !part.is_empty()).collect()
    }

    /// A field of the form; empty if it is not there.
    fn field(&self, name: &str) -> &'a str {
        value(self.visit.form, name)
    }

    /// A value of the query; empty if it is not there.
    fn query(&self, name: &str) -> &'a str {
        value(&self.visit.request.query, name)
    }

    fn caller(&self) -> &'a Caller {
        &self.session.caller
    }

    fn service(&self) -> &'a Service {
        &self.visit.web.service
    }

    fn pages(&self) -> &'a Pages {
        &self.visit.web.pages
    }

    /// Whether buttons that need this level are shown.
    fn may(&self, level: u32) -> bool {
        !self.session.read_only && self.caller().level <= level
    }

    // ---- answers ----------------------------------------------------------------------------------------------------

    fn page(&self, template: &str, title: &str, context: Value) -> Response {
        self.page_with(200, template, title, context)
    }

    fn page_with(&self, status: u16, template: &str, title: &str, context: Value) -> Response {
        let frame = self.frame();
        Response::html(status, self.pages().templates.render(template, context! { title, frame, ..context }))
    }

    fn error(&self, error: &Error) -> Response {
        let status = status_of(error);
        self.problem(status, &error.to_string())
    }

    fn problem(&self, status: u16, text: &str) -> Response {
        self.page_with(status, "problem.html", title_of(status), context! { status, text })
    }

    /// After a form: there instead, with a word of what was done.
    fn done(&self, path: &str, what: &str) -> Response {
        let separator = if path.contains('?') { '&' } else { '?' };
        Response::see(&format!("{path}{separator}done={}", encoded(what)))
    }
}

/// A file to be kept.
fn download(media_type: &str, name: &str, body: impl Into<Vec<u8>>) -> Response {
    let safe: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
    Response::new(200, media_type, body).with("Content-Disposition", format!("attachment; filename=\"{safe}\""))
}

fn value<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    fields.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

/// As a part of a path or query.
fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn status_of(error: &Error) -> u16 {
    match error {
        Error::Unauthenticated(_) => 401,
        Error::Forbidden(_) => 403,
        Error::NotFound(_) => 404,
        Error::Conflict { .. } | Error::Refused(_) => 409,
        Error::Invalid { .. } => 422,
        Error::Busy(_) => 429,
        Error::Unavailable(_) => 503,
        Error::Internal(_) => 500,
    }
}

fn title_of(status: u16) -> &'static str {
    match status {
        400 => "That was not understood",
        401 => "Please log in",
        403 => "That is not allowed",
        404 => "There is no such page",
        409 => "Not possible as things are",
        413 => "That is too large",
        422 => "Something is wrong with what was sent",
        429 => "Too much at once",
        503 => "multusd cannot be reached",
        _ => "Something failed here",
    }
}

/// Why somebody was not let in, for people.
fn refusal(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Wait(time) => {
            let seconds = time.as_secs() + 1;
            format!("too many failures; try again in {}", look::rough(std::time::Duration::from_secs(seconds)))
        }
        Refusal::Other(error) => error.to_string(),
    }
}
