//! An answer, before it goes back through the guard.

use super::streams::Stream;

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Headers; the guard adds those that every answer has.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// What the guard sends instead of the body, for as long as it takes.
    pub(crate) stream: Option<Stream>,
}

impl Response {
    /// One with a body of this media type.
    pub fn new(status: u16, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("Content-Type", media_type.to_owned())];
        Self { status, headers, body: body.into(), stream: None }
    }

    /// A page.
    pub fn html(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, "text/html; charset=utf-8", body)
    }

    /// Done, nothing to say.
    pub fn empty() -> Self {
        Self { status: 204, headers: Vec::new(), body: Vec::new(), stream: None }
    }

    /// Look there instead (303: with GET). `path` is one of ours, not an address.
    pub fn see(path: &str) -> Self {
        Self { status: 303, headers: vec![("Location", path.to_owned())], body: Vec::new(), stream: None }
    }

    /// What comes bit by bit, sent by the guard without holding a thread.
    pub(crate) fn stream(stream: Stream) -> Self {
        Self { status: 200, headers: Vec::new(), body: Vec::new(), stream: Some(stream) }
    }

    /// With one more header. A value that cannot stand in a header is left out.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        if value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            self.headers.push((name, value));
        }
        self
    }
}
