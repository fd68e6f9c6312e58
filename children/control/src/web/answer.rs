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
    answer_at(Instant::now(), web, request)
}

fn answer_at(now: Instant, web: &Web, request: &Request) -> Response {
    let is_api = api::is_below(&request.path);
    let visitor = match web.visitor(now, request) {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::request::Method;
    use super::super::testing::{HERE, PASSWORD, web};
    use super::*;
    use crate::service::testing::Scanner;

    #[test]
    fn a_session_that_is_over_gets_nothing_and_changes_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        let web = web(root.path());
        let start = Instant::now();
        let opened = web.auth.log_in(start, HERE, "admin", PASSWORD).expect("right");
        let cookie = web.cookie(&opened.id).split(';').next().unwrap_or_default().to_owned();
        let csrf = opened.session.csrf.clone();
        let ask = |after: Duration, method: Method, path: &str, body: &str, kind: &str| {
            let headers =
                [("cookie", cookie.as_str()), ("x-csrf-token", &csrf), ("accept", "text/html"), ("content-type", kind)];
            let mut request = Request::new(method, path, headers.into_iter(), HERE, false).expect("good");
            request.body = body.as_bytes().to_vec();
            let response = answer_at(start + after, &web, &request);
            let to = response.headers.iter().find(|(name, _)| *name == "Location").map(|(_, to)| to.clone());
            (response.status, to)
        };
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let (json, form) = ("application/json", "application/x-www-form-urlencoded");
        let new = r#"{"name": "eve", "level": 100, "password": "evening shift"}"#;
        let admin = crate::service::Caller::new("admin", 10);
        let users = || web.auth.list(&admin).expect("readable").len();
        assert_eq!(ask(minutes(1), Method::Get, "/api/v1/users", "", json).0, 200);
        assert_eq!(ask(minutes(2), Method::Get, "/account", "", form).0, 200);
        // Half an hour without use.
        let over = minutes(32);
        assert_eq!(ask(over, Method::Get, "/api/v1/users", "", json).0, 401);
        assert_eq!(ask(over, Method::Post, "/api/v1/users", new, json).0, 401);
        let (status, to) = ask(over, Method::Get, "/users", "", form);
        assert!(status == 303 && to.is_some_and(|to| to.starts_with("/log-in")), "{status}");
        let body = format!("csrf={csrf}&action=add&name=eve&level=100&password=evening+shift");
        assert_ne!(ask(over, Method::Post, "/users", &body, form).0, 200);
        assert_eq!(users(), 1, "nobody was added");
        // What was over stays so, whatever a clock says.
        assert_eq!(ask(minutes(3), Method::Get, "/api/v1/users", "", json).0, 401);
    }

    #[test]
    fn a_page_that_refreshes_itself_keeps_nobody_logged_in() {
        let root = tempfile::tempdir().expect("a directory");
        let web = web(root.path());
        let start = Instant::now();
        let opened = web.auth.log_in(start, HERE, "admin", PASSWORD).expect("right");
        let cookie = web.cookie(&opened.id).split(';').next().unwrap_or_default().to_owned();
        let is_let_in = |minute: u64, header: (&'static str, &'static str)| {
            let headers = [("cookie", cookie.as_str()), header];
            let request = Request::new(Method::Get, "/account", headers.into_iter(), HERE, false).expect("good");
            answer_at(start + Duration::from_secs(60 * minute), &web, &request).status == 200
        };
        let (person, page, stream) = (("accept", "text/html"), ("x-refresh", "1"), ("accept", "text/event-stream"));
        assert!(is_let_in(20, person));
        assert!((21..50).all(|minute| is_let_in(minute, page) && is_let_in(minute, stream)));
        assert!(!is_let_in(50, page) && !is_let_in(50, stream));
    }

    #[test]
    fn an_empty_log_can_be_followed() {
        let root = tempfile::tempdir().expect("a directory");
        let web = web(root.path());
        std::fs::write(web.service.dirs().child_log("pump"), "").expect("own file");
        let cookie = web.cookie(&web.auth.log_in(Instant::now(), HERE, "admin", PASSWORD).expect("right").id);
        let page = |path: &str| {
            let headers = [("cookie", cookie.split(';').next().unwrap_or_default()), ("accept", "text/html")];
            let request = Request::new(Method::Get, path, headers.into_iter(), HERE, false).expect("good");
            String::from_utf8(answer(&web, &request).body).expect("text")
        };
        let empty = page("/logs/pump");
        assert!(empty.contains("id=\"log\"") && empty.contains("data-stream="), "{empty}");
        assert!(empty.contains("It is empty."));
        assert!(!page("/logs/pump?q=x").contains("id=\"log\""), "a search is not followed");
    }

    /// `hardware.toml` refuses such names; an image may hold them all the same.
    #[test]
    fn script_in_the_names_of_an_image_is_shown_as_text() {
        let root = tempfile::tempdir().expect("a directory");
        let web = web(root.path());
        let names = ["<script>a()</script>", "<img src=x onerror='b()'>", "\"><b id=c>"];
        let scanner = Scanner::with(names, "<i>\"'&</i>", "<u>owner</u>", "<s>board</s>");
        web.service.watch_lines(scanner.image(), None).expect("a thread");
        let opened = web.auth.log_in(Instant::now(), HERE, "admin", PASSWORD).expect("right");
        let cookie = web.cookie(&opened.id);
        for path in ["/io", "/io/history", "/"] {
            let headers = [("cookie", cookie.split(';').next().unwrap_or_default()), ("accept", "text/html")];
            let request = Request::new(Method::Get, path, headers.into_iter(), HERE, false).expect("good");
            let page = String::from_utf8(answer(&web, &request).body).expect("text");
            for tag in ["<script>", "<img", "<b id", "<i>", "<u>", "<s>"] {
                assert!(!page.contains(tag), "{path}: {tag}: {page}");
            }
            let shown = page.contains("&lt;script&gt;a()") && page.contains("&lt;img src=x");
            assert!(shown || path == "/", "{path}: {page}");
        }
    }
}
