//! From a request to its answer: who asks, whether the request can be forged, and where it leads.

use std::time::Instant;

use super::pages::{self, Visit};
use super::problem::Problem;
use super::request::Request;
use super::response::Response;
use super::{Web, api};
use crate::auth::Visitor;

/// Answers; never fails.
pub(crate) fn answer(web: &Web, request: &Request) -> Response {
    let is_api = api::is_below(&request.path);
    let visitor = match web.visitor(Instant::now(), request) {
        Ok(visitor) => visitor,
        Err(problem) => return problem.response(),
    };
    let answered = if is_api { web.api.answer(web, request, &visitor) } else { page(web, request, &visitor) };
    match answered {
        Ok(response) => response,
        Err(problem) if !is_api && request.wants_html() => {
            pages::problem(&problem, Some(&Visit { web, request, visitor: &visitor, form: &[] }))
        }
        Err(problem) => problem.response(),
    }
}

fn page(web: &Web, request: &Request, visitor: &Visitor) -> Result<Response, Problem> {
    let form = if request.method.changes() { request.form()? } else { Vec::new() };
    if request.method.changes() {
        let token = form.iter().find(|(name, _)| name == "csrf").map(|(_, value)| value.as_str());
        check_own_page(request)?;
        if !pages::OPEN.contains(&request.path.as_str()) {
            check_forgery(request, visitor, token)?;
        }
        if visitor.session().is_some_and(|session| session.read_only) && !pages::OWN.contains(&request.path.as_str()) {
            return Err(read_only());
        }
    }
    let visit = Visit { web, request, visitor, form: &form };
    pages::answer(&visit)?.ok_or_else(|| Problem::no_page(&request.path))
}

/// A request that a browser sends for a page of another host is refused. What does not say where it comes from is no browser.
pub(crate) fn check_own_page(request: &Request) -> Result<(), Problem> {
    let host = request.header("host").unwrap_or_default();
    let is_own = |origin: &str| {
        let (scheme, rest) = origin.split_once("://").unwrap_or_default();
        let authority = rest.split('/').next().unwrap_or_default();
        // A proxy may speak TLS where we do not.
        let scheme_fits =
            scheme.eq_ignore_ascii_case("https") || (!request.secure && scheme.eq_ignore_ascii_case("http"));
        scheme_fits && authority.eq_ignore_ascii_case(host)
    };
    let own = match (request.header("origin"), request.header("referer"), request.header("sec-fetch-site")) {
        (Some(origin), _, _) => is_own(origin),
        (None, Some(referer), _) => is_own(referer),
        (None, None, Some(site)) => matches!(site, "same-origin" | "none"),
        (None, None, None) => true,
    };
    if own { Ok(()) } else { Err(Problem::new(403, "this was sent by a page of another host")) }
}

/// A session's cookie alone changes nothing: the session's token must come with it.
pub(crate) fn check_forgery(request: &Request, visitor: &Visitor, of_form: Option<&str>) -> Result<(), Problem> {
    let Visitor::Session(session) = visitor else { return Ok(()) };
    let given = request.header("x-csrf-token").or(of_form);
    match given {
        Some(given) if session.has_csrf(given) => Ok(()),
        Some(_) => {
            Err(Problem::new(403, "the token against forged requests is not that of this session; load the page again"))
        }
        None => Err(Problem::new(
            403,
            "the token against forged requests is missing: header X-CSRF-Token, or form field csrf",
        )),
    }
}

pub(crate) fn read_only() -> Problem {
    Problem::new(403, "this user may look, but change nothing")
}
