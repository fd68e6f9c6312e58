//! What went wrong, as `application/problem+json` (RFC 9457).

use schemars::JsonSchema;
use serde::Serialize;

use super::response::Response;
use crate::auth::Refusal;
use crate::service;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// The kind; the same words in every protocol: `about:blank` where the status says it all, else `urn:multus:` and one of
    /// unauthenticated, forbidden, not-found, invalid, conflict, refused, busy, unavailable, internal.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The status in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened and what to do.
    pub detail: String,
    /// What is wrong where, if that is why.
    #[serde(default, skip_serializing_if = "<[FieldError]>::is_empty")]
    pub errors: Box<[FieldError]>,
    /// On a conflict: the version that is there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_version: Option<u64>,
    #[serde(skip)]
    headers: Vec<(&'static str, String)>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FieldError {
    /// The field, or the key with its tables such as `heartbeat.deadline`; empty: the whole.
    pub field: String,
    /// What was found and what was expected.
    pub message: String,
    /// Line of a configuration, from 1; 0: unknown.
    pub line: usize,
    /// Column in characters, from 1; 0: unknown.
    pub column: usize,
    /// The known word that was probably meant; empty: none.
    pub nearest: String,
    /// Whether it only deserves a look.
    pub warning: bool,
}

impl Problem {
    /// One with this status and explanation.
    pub fn new(status: u16, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: title(status),
            status,
            detail: detail.into(),
            errors: Box::default(),
            current_version: None,
            headers: Vec::new(),
        }
    }

    /// The request cannot be understood.
    pub fn bad(detail: impl Into<String>) -> Self {
        Self::new(400, detail)
    }

    /// There is nothing at this path.
    pub fn no_page(path: &str) -> Self {
        let shown: String = path.chars().take(100).collect();
        Self::new(404, format!("there is nothing at {shown}"))
    }

    /// Another method is needed.
    pub fn method(allowed: &str) -> Self {
        Self::new(405, format!("this can only be asked for with {allowed}")).with("Allow", allowed)
    }

    /// Nobody is logged in.
    pub fn unauthenticated() -> Self {
        service::Error::Unauthenticated("log in, or send a token as \"Authorization: Bearer TOKEN\"".to_owned()).into()
    }

    /// Try again after so many seconds.
    pub fn later(status: u16, seconds: u64, detail: impl Into<String>) -> Self {
        Self::new(status, detail).with("Retry-After", seconds.to_string())
    }

    /// With one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// As an answer for a program.
    pub fn response(&self) -> Response {
        // Texts and numbers can always be written.
        let body = serde_json::to_vec(self).unwrap_or_default();
        self.dress(Response::new(self.status, "application/problem+json", body))
    }

    /// An answer for a person, with the headers that belong to the problem.
    #[must_use]
    pub fn dress(&self, response: Response) -> Response {
        self.headers.iter().fold(response, |response, (name, value)| response.with(name, value.clone()))
    }
}

impl From<service::Error> for Problem {
    fn from(error: service::Error) -> Self {
        use service::Error;
        let (status, kind) = match &error {
            Error::Unauthenticated(_) => (401, "urn:multus:unauthenticated"),
            Error::Forbidden(_) => (403, "urn:multus:forbidden"),
            Error::NotFound(_) => (404, "urn:multus:not-found"),
            Error::Invalid { .. } => (422, "urn:multus:invalid"),
            Error::Conflict { .. } => (409, "urn:multus:conflict"),
            Error::Refused(_) => (409, "urn:multus:refused"),
            Error::Busy(_) => (429, "urn:multus:busy"),
            Error::Unavailable(_) => (503, "urn:multus:unavailable"),
            Error::Internal(_) => (500, "urn:multus:internal"),
        };
        let mut problem = Self::new(status, error.to_string());
        problem.kind = kind;
        problem.errors = error.problems().iter().map(FieldError::from).collect();
        match error {
            Error::Unauthenticated(_) => problem.with("WWW-Authenticate", "Bearer"),
            Error::Busy(_) | Error::Unavailable(_) => problem.with("Retry-After", "1"),
            Error::Conflict { current } => {
                problem.current_version = Some(current);
                problem
            }
            Error::Internal(detail) => {
                log::error!("a request failed: {detail}");
                problem
            }
            _ => problem,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Wait(wait) => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Self::later(429, seconds, format!("too many failed tries; try again in {seconds} s"))
            }
            Refusal::Other(error) => error.into(),
        }
    }
}

impl From<&service::Problem> for FieldError {
    fn from(problem: &service::Problem) -> Self {
        let service::Problem { line, column, key, message, nearest, warning } = problem.clone();
        Self { field: key, message, line, column, nearest, warning }
    }
}

/// The words of a status.
pub(crate) fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad request",
        401 => "Not logged in",
        403 => "Not allowed",
        404 => "Not found",
        405 => "Method not allowed",
        408 => "Too slow",
        409 => "Conflict",
        412 => "Changed meanwhile",
        413 => "Too large",
        415 => "Unsupported media type",
        421 => "Unknown host",
        422 => "Invalid",
        429 => "Too many requests",
        431 => "Header too large",
        500 => "Internal error",
        503 => "Not available",
        504 => "No answer in time",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Error;

    #[test]
    fn errors_of_the_service_keep_their_kind_in_words() {
        let text = || "x".to_owned();
        for error in [
            Error::Unauthenticated(text()),
            Error::Forbidden(text()),
            Error::NotFound(text()),
            Error::field("key", "x"),
            Error::Conflict { current: 7 },
            Error::Refused(text()),
            Error::Busy(text()),
            Error::Unavailable(text()),
            Error::Internal(text()),
        ] {
            let problem = Problem::from(error.clone());
            assert_eq!(problem.kind.strip_prefix("urn:multus:"), Some(error.kind()));
            assert_ne!(problem.title, "Error", "{}", problem.status);
            assert_eq!(problem.response().status, problem.status);
        }
    }

    #[test]
    fn a_wait_is_rounded_up() {
        let wait = Refusal::Wait(std::time::Duration::from_millis(1001));
        let response = Problem::from(wait).response();
        assert_eq!(response.status, 429);
        assert!(response.headers.contains(&("Retry-After", "2".to_owned())), "{response:?}");
    }
}
