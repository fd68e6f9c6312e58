//! The little HTTP that the tests speak: whatever bytes a test wants, and answers taken apart.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A connection on which a test writes what it likes.
pub(crate) struct Raw {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("somebody listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        stream.set_write_timeout(Some(Duration::from_secs(60))).expect("a socket");
        Self { stream, rest: Vec::new() }
    }

    /// The other end may have hung up: what it said counts.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Nothing more is written.
    pub(crate) fn end_of_requests(&mut self) {
        // The other end may have hung up already.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// The next answer; `None`: hung up.
    pub(crate) fn reply(&mut self) -> Option<Reply> {
        let head_end = loop {
            if let Some(at) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more() {
                return None;
            }
        };
        let head = String::from_utf8(self.rest.drain(..head_end).collect()).expect("heads are ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let pair =
            |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
        let mut reply = Reply { status, headers: lines.filter_map(pair).collect(), body: Vec::new() };
        let length = reply.header("content-length").map(|length| length.parse::<usize>().expect("a number"));
        if let Some(length) = length {
            while self.rest.len() < length {
                assert!(self.more(), "the answer broke off");
            }
            reply.body = self.rest.drain(..length).collect();
        }
        Some(reply)
    }

    /// What is there, a line at a time, of an answer without end.
    pub(crate) fn until(&mut self, words: &str) -> String {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let text = String::from_utf8_lossy(&self.rest).into_owned();
            if text.contains(words) {
                self.rest.clear();
                return text;
            }
            assert!(Instant::now() < end && self.more(), "{words:?} did not come: {text}");
        }
    }

    /// How long it takes until the other end hangs up.
    pub(crate) fn hangs_up(&mut self) -> Duration {
        let start = Instant::now();
        while self.more() {}
        start.elapsed()
    }

    fn more(&mut self) -> bool {
        let mut bytes = [0; 8192];
        match self.stream.read(&mut bytes) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.rest.extend_from_slice(&bytes[..count]);
                true
            }
        }
    }
}

/// One request on a connection of its own.
pub(crate) fn once(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Option<Reply> {
    let mut raw = Raw::connect(address);
    let _ = raw.write(bytes);
    raw.reply()
}

/// What keeps a cookie and a token.
#[derive(Clone, Debug)]
pub(crate) struct Browser {
    pub(crate) address: SocketAddr,
    pub(crate) cookie: String,
    pub(crate) csrf: String,
    /// Sent with every request.
    pub(crate) headers: Vec<(String, String)>,
}

impl Browser {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, cookie: String::new(), csrf: String::new(), headers: Vec::new() }
    }

    /// Shows a token instead of a cookie.
    pub(crate) fn with_token(address: SocketAddr, token: &str) -> Self {
        let headers = vec![("Authorization".to_owned(), format!("Bearer {token}"))];
        Self { headers, ..Self::new(address) }
    }

    pub(crate) fn log_in(&mut self, name: &str, password: &str) -> Reply {
        let reply = self.send("POST", "/api/v1/session", Some(json!({"name": name, "password": password})));
        if reply.status == 200 {
            let cookie = reply.header("set-cookie").expect("a session has a cookie");
            self.cookie = cookie.split(';').next().expect("a cookie").to_owned();
            self.csrf = reply.json()["csrf"].as_str().expect("a session has a token").to_owned();
        }
        reply
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, None)
    }

    /// With JSON, if there is some.
    pub(crate) fn send(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        let body = body.map(|body| body.to_string().into_bytes());
        let mut headers = vec![];
        if body.is_some() {
            headers.push(("Content-Type", "application/json"));
        }
        self.bytes(method, path, &headers, &body.unwrap_or_default())
    }

    pub(crate) fn bytes(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = self.head(method, path);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut request = format!("{request}Connection: close\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        request.extend_from_slice(body);
        once(self.address, request).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// The head of a request, to be gone on with.
    pub(crate) fn head(&self, method: &str, path: &str) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        if !self.cookie.is_empty() {
            head.push_str(&format!("Cookie: {}\r\n", self.cookie));
        }
        if !self.csrf.is_empty() {
            head.push_str(&format!("X-CSRF-Token: {}\r\n", self.csrf));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head
    }

    /// Opens a stream.
    pub(crate) fn stream(&self, path: &str) -> Raw {
        let mut raw = Raw::connect(self.address);
        raw.write(format!("{}\r\n", self.head("GET", path))).expect("connected");
        raw
    }
}
