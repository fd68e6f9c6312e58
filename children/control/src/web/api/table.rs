//! The table of routes: how one is described, and how what it takes and gives is read and written.

use std::fmt;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::Web;
use super::super::problem::Problem;
use super::super::request::{Method, Request};
use super::super::response::Response;
use crate::auth::{Session, Visitor};
use crate::service::{Caller, Error};

/// One thing that can be asked for.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// Such as `/children/{name}`, without the base.
    pub(crate) path: &'static str,
    /// Names it in the document.
    pub(crate) id: &'static str,
    /// What it does, in one sentence.
    pub(crate) summary: &'static str,
    pub(crate) access: Access,
    pub(crate) handler: Handler,
    pub(crate) about: About,
}

pub(crate) type Handler = Box<dyn Fn(&Call<'_>) -> Result<Response, Problem> + Send + Sync>;

/// What the document says of what goes in and out.
#[derive(Debug, Default)]
pub(crate) struct About {
    /// Schema of the query, an object.
    pub(crate) query: Option<Value>,
    /// Schema of the body.
    pub(crate) body: Option<Value>,
    /// Media type and schema of the answer; `None`: 204.
    pub(crate) answer: Option<(&'static str, Value)>,
    /// Whether the answer has an `ETag` and a change takes `If-Match`.
    pub(crate) tagged: bool,
}

/// Who may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody, without a session.
    Open,
    /// Anybody who has a session, for own matters.
    Own,
    /// Whoever is of this right level or mightier. Some parameters need more; the service knows.
    Level(u32),
}

impl Access {
    pub(crate) fn check(self, visitor: &Visitor) -> Result<(), Problem> {
        match (self, visitor.caller()) {
            (Self::Open, _) => Ok(()),
            (_, None) => Err(Problem::unauthenticated()),
            (Self::Own, Some(_)) => Ok(()),
            (Self::Level(level), Some(caller)) => Ok(caller.needs(level)?),
        }
    }

    /// Whether one who may change nothing may do this.
    pub(crate) fn is_own(self) -> bool {
        matches!(self, Self::Open | Self::Own)
    }
}

/// A request on its way to its handler.
pub(crate) struct Call<'a> {
    pub(crate) web: &'a Web,
    pub(crate) request: &'a Request,
    pub(crate) visitor: &'a Visitor,
    /// The values of the parts of the path in braces, in order.
    pub(crate) path: Vec<&'a str>,
}

impl Call<'_> {
    /// Who asks.
    pub(crate) fn caller(&self) -> Result<&Caller, Problem> {
        self.visitor.caller().ok_or_else(Problem::unauthenticated)
    }

    /// The session; a token has none.
    pub(crate) fn session(&self) -> Result<&Session, Problem> {
        let none = || Problem::new(409, "this is for somebody who is logged in; a token has no session");
        self.visitor.session().ok_or_else(none)
    }

    /// The n-th part of the path in braces.
    pub(crate) fn part(&self, index: usize) -> &str {
        self.path.get(index).copied().unwrap_or_default()
    }
}

impl Route {
    /// The values of the parts in braces, if the path fits.
    pub(crate) fn fits<'a>(&self, segments: &'a [String]) -> Option<Vec<&'a str>> {
        let full = if self.path == METRICS { self.path.to_owned() } else { format!("{}{}", super::BASE, self.path) };
        let pattern: Vec<&str> = full.split('/').skip(1).collect();
        if pattern.len() != segments.len() {
            return None;
        }
        let mut values = Vec::new();
        for (wanted, given) in pattern.into_iter().zip(segments) {
            if wanted.starts_with('{') && !given.is_empty() {
                values.push(given.as_str());
            } else if wanted != given {
                return None;
            }
        }
        Some(values)
    }
}

pub(crate) const METRICS: &str = super::METRICS;

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.word(), self.path)
    }
}

/// Routes as they are put down.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) routes: Vec<Route>,
    pub(crate) schemas: SchemaGenerator,
}

impl Default for Table {
    fn default() -> Self {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        Self { routes: Vec::new(), schemas: settings.into_generator() }
    }
}

/// What a route takes: its query (`Q`), its body (`B`), both (`Both`), or nothing.
pub(crate) trait Takes: Sized {
    fn read(request: &Request) -> Result<Self, Problem>;
    fn describe(schemas: &mut SchemaGenerator, about: &mut About);
}

/// From the query.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

/// From the body, JSON.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl Takes for () {
    fn read(_: &Request) -> Result<Self, Problem> {
        Ok(())
    }
    fn describe(_: &mut SchemaGenerator, _: &mut About) {}
}

impl<T: DeserializeOwned + JsonSchema> Takes for Query<T> {
    fn read(request: &Request) -> Result<Self, Problem> {
        let (_, query) = request.target.split_once('?').unwrap_or_default();
        let reader = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(reader).map(Self).map_err(|error| {
            let field = error.path().to_string();
            Error::field(if field == "." { "query" } else { &field }, error.into_inner().to_string()).into()
        })
    }
    fn describe(schemas: &mut SchemaGenerator, about: &mut About) {
        // A schema of its own: its properties become parameters.
        about.query = Some(schemas.root_schema_for::<T>().to_value());
    }
}

impl<T: DeserializeOwned + JsonSchema> Takes for Json<T> {
    fn read(request: &Request) -> Result<Self, Problem> {
        if !request.has_type("application/json") {
            return Err(Problem::new(415, "expected Content-Type: application/json"));
        }
        let text = std::str::from_utf8(&request.body).map_err(|_| Problem::bad("the body is not UTF-8"))?;
        let mut reader = serde_json::Deserializer::from_str(text);
        let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let field = error.path().to_string();
            let inner = error.into_inner();
            if inner.is_syntax() || inner.is_eof() {
                return Problem::bad(format!("the body is not JSON: {inner}"));
            }
            let mut problem: Problem = Error::field(if field == "." { "" } else { &field }, inner.to_string()).into();
            problem.detail = inner.to_string();
            problem
        })?;
        reader.end().map_err(|error| Problem::bad(format!("the body is not one JSON value: {error}")))?;
        Ok(Self(read))
    }
    fn describe(schemas: &mut SchemaGenerator, about: &mut About) {
        about.body = Some(schemas.subschema_for::<T>().to_value());
    }
}

/// What a route gives.
pub(crate) trait Gives {
    fn write(self) -> Response;
    fn describe(schemas: &mut SchemaGenerator, about: &mut About);
}

/// Nothing: 204.
impl Gives for () {
    fn write(self) -> Response {
        Response::empty()
    }
    fn describe(_: &mut SchemaGenerator, _: &mut About) {}
}

impl<T: Serialize + JsonSchema> Gives for Json<T> {
    fn write(self) -> Response {
        // None of our types has a key that is no text.
        Response::new(200, "application/json", serde_json::to_vec(&self.0).unwrap_or_default())
    }
    fn describe(schemas: &mut SchemaGenerator, about: &mut About) {
        about.answer = Some(("application/json", schemas.subschema_for::<T>().to_value()));
    }
}

/// With a `Set-Cookie`.
#[derive(Debug)]
pub(crate) struct WithCookie<T>(pub(crate) T, pub(crate) String);

impl<T: Gives> Gives for WithCookie<T> {
    fn write(self) -> Response {
        self.0.write().with("Set-Cookie", self.1)
    }
    fn describe(schemas: &mut SchemaGenerator, about: &mut About) {
        T::describe(schemas, about);
    }
}

/// With an `ETag`: the version.
#[derive(Debug)]
pub(crate) struct Tagged<T>(pub(crate) T, pub(crate) u64);

impl<T: Gives> Gives for Tagged<T> {
    fn write(self) -> Response {
        self.0.write().with("ETag", format!("\"{}\"", self.1))
    }
    fn describe(schemas: &mut SchemaGenerator, about: &mut About) {
        T::describe(schemas, about);
        about.tagged = true;
    }
}

impl Table {
    /// A route that takes and gives what the types of `handler` say.
    pub(crate) fn add<I: Takes + 'static, O: Gives + 'static>(
        &mut self,
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        access: Access,
        handler: impl Fn(&Call<'_>, I) -> Result<O, Problem> + Send + Sync + 'static,
    ) {
        let mut about = About::default();
        I::describe(&mut self.schemas, &mut about);
        O::describe(&mut self.schemas, &mut about);
        let handler: Handler = Box::new(move |call| Ok(handler(call, I::read(call.request)?)?.write()));
        self.routes.push(Route { method, path, id, summary, access, handler, about });
    }

    /// A route whose answer is no JSON of ours, but of this media type.
    #[expect(clippy::too_many_arguments, reason = "one column of the table each")]
    pub(crate) fn text<I: Takes + 'static>(
        &mut self,
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        access: Access,
        media_type: &'static str,
        handler: impl Fn(&Call<'_>, I) -> Result<Response, Problem> + Send + Sync + 'static,
    ) {
        let mut about = About::default();
        I::describe(&mut self.schemas, &mut about);
        let schema = if media_type == "application/json" {
            serde_json::json!({})
        } else {
            serde_json::json!({"type": "string"})
        };
        about.answer = Some((media_type, schema));
        let handler: Handler = Box::new(move |call| handler(call, I::read(call.request)?));
        self.routes.push(Route { method, path, id, summary, access, handler, about });
    }
}

/// A number of a query, checked.
pub(crate) fn within(field: &str, number: u32, least: u32, most: u32) -> Result<usize, Problem> {
    if !(least..=most).contains(&number) {
        return Err(Error::field(field, format!("{least} to {most} are possible")).into());
    }
    Ok(number as usize)
}
