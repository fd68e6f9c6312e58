//! Logging in and out, the first set-up, one's own password.

use std::time::Instant;

use super::render::context;

use super::super::request::Method;
use super::super::response::Response;
use super::{Answer, View, Visit, encoded, plain, refusal, value};
use crate::auth::Refusal;
use crate::service::Error;

/// Nobody is logged in: the way in.
pub(super) fn stranger(visit: &Visit<'_>) -> Response {
    let path = visit.request.path.trim_end_matches('/');
    let post = visit.request.method == Method::Post;
    let set_up = visit.web.auth.is_set_up();
    match path {
        "/set-up" if post => set_up_form(visit),
        _ if !set_up && path != "/set-up" => Response::see("/set-up"),
        "/set-up" if !set_up => plain(visit, 200, "set-up.html", context! { title => "First set-up" }),
        "/log-in" if post => log_in(visit),
        "/log-in" => plain(visit, 200, "log-in.html", context! { title => "Log in", to => visit.request.query("to") }),
        _ => {
            let to = match visit.request.method {
                Method::Get if path.len() > 1 => format!("?to={}", encoded(&target(visit))),
                _ => String::new(),
            };
            Response::see(&format!("/log-in{to}"))
        }
    }
}

fn log_in(visit: &Visit<'_>) -> Response {
    let field = |name| value(visit.form, name);
    let (name, to) = (field("name").trim(), field("to"));
    match visit.web.auth.log_in(Instant::now(), visit.request.peer, name, field("password")) {
        Ok(opened) => {
            let to = if is_own_path(to) { to } else { "/" };
            Response::see(to).with("Set-Cookie", visit.web.cookie(&opened.id))
        }
        Err(why) => {
            let status = if matches!(why, Refusal::Wait(_)) { 429 } else { 401 };
            let context = context! { title => "Log in", to, name, error => refusal(&why) };
            plain(visit, status, "log-in.html", context)
        }
    }
}

fn set_up_form(visit: &Visit<'_>) -> Response {
    let field = |name| value(visit.form, name);
    let (code, name, password) = (field("code").trim(), field("name").trim(), field("password"));
    let wrong = |status, error: String, where_: &str| {
        let context = context! { title => "First set-up", code, name, error, field => where_ };
        plain(visit, status, "set-up.html", context)
    };
    if password != field("again") {
        return wrong(422, "The two passwords are not the same.".into(), "again");
    }
    let auth = &visit.web.auth;
    if let Err(why) = auth.set_up(Instant::now(), visit.request.peer, code, name, password) {
        let (status, place) = match &why {
            Refusal::Wait(_) => (429, "code"),
            Refusal::Other(Error::Forbidden(_)) => (403, "code"),
            Refusal::Other(Error::Invalid { problems, .. }) => {
                (422, if problems.iter().any(|problem| problem.key == "password") { "password" } else { "name" })
            }
            Refusal::Other(_) => (409, "code"),
        };
        return wrong(status, refusal(&why), place);
    }
    match auth.log_in(Instant::now(), visit.request.peer, name, password) {
        Ok(opened) => Response::see("/").with("Set-Cookie", visit.web.cookie(&opened.id)),
        // The user is there; the log-in page says what is wrong.
        Err(_) => Response::see("/log-in"),
    }
}

impl View<'_> {
    pub(super) fn log_out(&self) -> Answer {
        self.visit.web.auth.log_out(self.session);
        Ok(Response::see("/log-in").with("Set-Cookie", self.visit.web.no_cookie()))
    }

    /// One's own name, level and password.
    pub(super) fn account(&self) -> Answer {
        let title = "Your account";
        if !self.visit.request.method.changes() {
            return Ok(self.page("account.html", title, context! {}));
        }
        let (old, new) = (self.field("old"), self.field("new"));
        let wrong = |status, error: String, field: &str| {
            Ok(self.page_with(status, "account.html", title, context! { error, field }))
        };
        if new != self.field("again") {
            return wrong(422, "The two new passwords are not the same.".into(), "again");
        }
        let auth = &self.visit.web.auth;
        match auth.change_password(Instant::now(), self.visit.request.peer, self.session, old, new) {
            Ok(()) => Ok(self.done("/account", "Your password is changed. Your other sessions have ended.")),
            Err(why) => {
                let (status, field) = match &why {
                    Refusal::Wait(_) => (429, "old"),
                    Refusal::Other(Error::Forbidden(_)) => (403, "old"),
                    Refusal::Other(_) => (422, "new"),
                };
                wrong(status, refusal(&why), field)
            }
        }
    }
}

/// The path and query that were asked for.
fn target(visit: &Visit<'_>) -> String {
    let query: Vec<String> =
        visit.request.query.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    match query.is_empty() {
        true => visit.request.path.clone(),
        false => format!("{}?{}", visit.request.path, query.join("&")),
    }
}

/// Whether it leads to a page of ours, and to nobody else's.
fn is_own_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.starts_with("//")
        && !path.starts_with("/\\")
        && path.bytes().all(|byte| (b'!'..=b'~').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_never_leads_to_another_host() {
        for good in ["/", "/events?kind=fault&q=%20", "/children/a"] {
            assert!(is_own_path(good), "{good}");
        }
        for bad in [
            "",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/a\r\nSet-Cookie: x",
            "/ä",
            "javascript:x",
        ] {
            assert!(!is_own_path(bad), "{bad}");
        }
    }
}
