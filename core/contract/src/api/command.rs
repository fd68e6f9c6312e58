//! The messages of `control.sock`, and the client that commands use.
//!
//! A connection carries lines of JSON: one [`Request`] a line from the client, one [`Reply`] a line from the daemon, in the
//! same order. After [`Request::Events`] the daemon sends its reply, then one Event JSON a line, then closes.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::Event;

/// What can be asked of the daemon. A `name` is that of an instance, or of a child for all its instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The data is a [`super::status::Status`], with one child only if `name` says so.
    Status {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Start a stopped child; one in back-off at once.
    Start { name: String },
    /// Stop a child until it is started again or the daemon is.
    Stop { name: String },
    /// Stop it in order and start it.
    Restart { name: String },
    /// Let it run, now and for good: the configuration file is changed.
    Enable { name: String },
    /// Let it not run, now and for good.
    Disable { name: String },
    /// For so many seconds nobody is killed; 0 ends it.
    Snooze { name: String, seconds: u64 },
    /// The data is a list: for each lane of the instances, which deadline suits the intervals that were seen.
    Advise { name: String },
    /// The data is a list of [`super::intervals::Intervals`]: for each lane of all instances, or of those that are meant.
    Intervals {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Read the configuration again. The data is a [`ReloadReport`].
    Reload,
    /// In so many seconds, at most [`LATEST_REBOOT_S`], stop all children in order and start the machine anew. Replaces
    /// one that is scheduled.
    Reboot { seconds: u64 },
    /// Do not, if there is time left.
    RebootCancel,
    /// Send events from number `since` on (`None`: all that are kept, or with `follow` only new ones).
    Events {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<u64>,
        /// Whether to go on for as long as the connection lasts.
        #[serde(default)]
        follow: bool,
    },
    /// The data is a [`super::io::IoStatus`].
    Io,
    /// Ask for a value of an output that no child owns; on a simulated board, drive an input.
    IoSet { name: String, value: f64 },
    /// Hold an output at a value, whatever its owner asks for; a safe state goes before it.
    IoForce { name: String, value: f64 },
    /// Do so no longer.
    IoRelease { name: String },
    /// Where the shared pages of the daemon are.
    Pages,
    /// The data is the version of the daemon, a text.
    Version,
}

/// What the daemon answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it was done.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl Reply {
    /// Done, nothing to say.
    pub fn done() -> Self {
        Self { ok: true, error: None, data: None }
    }

    /// Done, with what was asked for.
    pub fn with(data: Value) -> Self {
        Self { ok: true, error: None, data: Some(data) }
    }

    /// Not done.
    pub fn refused(error: impl Into<String>) -> Self {
        Self { ok: false, error: Some(error.into()), data: None }
    }

    /// As the line that goes over the socket, end of line included.
    pub fn to_line(&self) -> String {
        // A `Value` has text keys only and no foreign serializer in it, so this cannot fail.
        let mut line = serde_json::to_string(self).unwrap_or_else(|_| r#"{"ok":false}"#.to_owned());
        line.push('\n');
        line
    }
}

/// What a reload led to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ReloadReport {
    /// Children that are new.
    pub added: Vec<String>,
    /// Children whose configuration changed; they are restarted.
    pub changed: Vec<String>,
    /// Children that are gone.
    pub removed: Vec<String>,
    /// Children that could not be applied: an error in the file, a port in use. They are as they were, if they were.
    pub broken: Vec<String>,
    /// Every finding, one line each.
    pub diagnostics: Vec<String>,
}

/// Reads one request line.
///
/// # Errors
/// What is wrong with it, to be sent back in [`Reply::refused`].
pub fn parse_request(line: &[u8]) -> Result<Request, String> {
    if line.len() > MAX_REQUEST_BYTES {
        return Err(format!("request of {} bytes, at most {MAX_REQUEST_BYTES} are taken", line.len()));
    }
    serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))
}

/// A connection to the daemon. All calls block, none longer than its time-out.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// Connects to the daemon behind `socket`; waits [`TIMEOUT`] at most, here and for every reply.
    ///
    /// # Errors
    /// No daemon there, no permission, or one that does not take connections.
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        Self::connect_within(socket, TIMEOUT)
    }

    /// As [`Client::connect`], with another time-out.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_within(socket: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let (sender, receiver) = mpsc::channel();
        let path = socket.to_path_buf();
        // Connecting to a daemon that stands still blocks as soon as its queue is full, and the standard library has no
        // time-out for it. The thread is left to itself then; it ends with the process of a command.
        std::thread::spawn(move || sender.send(UnixStream::connect(path)));
        let connected = receiver.recv_timeout(timeout).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = connected.map_err(|source| ClientError::of_connect(socket, source))?;
        stream.set_write_timeout(Some(timeout)).map_err(|source| ClientError::of_use(socket, source))?;
        Ok(Self { stream: BufReader::new(stream), socket: socket.to_path_buf(), timeout })
    }

    /// Sends a request and waits for its reply: the data of a good one.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the daemon said no, others when it could not be asked.
    pub fn request(&mut self, request: &Request) -> Result<Option<Value>, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|error| self.foreign(&error.to_string()))?;
        line.push(b'\n');
        match self.stream.get_mut().write_all(&line) {
            // A daemon that refuses a connection says why and hangs up, without waiting for the request.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.map_err(|source| ClientError::of_use(&self.socket, source))?,
        }
        let deadline = Instant::now() + self.timeout;
        let reply = self.line(Some(deadline))?.ok_or_else(|| self.foreign("it hung up without an answer"))?;
        let reply: Reply = self.parse(&reply)?;
        match reply {
            Reply { ok: true, data, .. } => Ok(data),
            Reply { error, .. } => {
                Err(ClientError::Refused(error.unwrap_or_else(|| "refused without a reason".to_owned())))
            }
        }
    }

    /// As [`Client::request`], with the data read into a type.
    ///
    /// # Errors
    /// As [`Client::request`], and when the data is of another kind.
    pub fn request_as<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        let data = self.request(request)?.unwrap_or(Value::Null);
        serde_json::from_value(data).map_err(|error| self.foreign(&error.to_string()))
    }

    /// The next event after a good [`Request::Events`]; `None` when there are no more. Waits for ever.
    ///
    /// # Errors
    /// The connection broke, or what came is no event.
    pub fn next_event(&mut self) -> Result<Option<Event>, ClientError> {
        self.line(None)?.map(|line| self.parse(&line)).transpose()
    }

    /// The next event, if one comes within `patience`.
    ///
    /// # Errors
    /// As [`Client::next_event`].
    pub fn next_event_within(&mut self, patience: Duration) -> Result<NextEvent, ClientError> {
        if self.stream.buffer().is_empty() {
            let stream = self.stream.get_ref();
            // Zero would mean for ever.
            let wait = stream.set_read_timeout(Some(patience.max(Duration::from_millis(1))));
            match wait.and_then(|()| self.stream.fill_buf().map(<[u8]>::is_empty)) {
                Ok(true) => return Ok(NextEvent::Closed),
                Ok(false) => {}
                Err(error) if is_timeout(&error) => return Ok(NextEvent::NotYet),
                Err(source) => return Err(ClientError::of_use(&self.socket, source)),
            }
        }
        // Something is there: the rest of the line follows at once.
        let line = self.line(Some(Instant::now() + self.timeout))?;
        Ok(match line {
            Some(line) => NextEvent::Event(Box::new(self.parse(&line)?)),
            None => NextEvent::Closed,
        })
    }

    /// One line without its end; `None` at the end of the stream.
    fn line(&mut self, deadline: Option<Instant>) -> Result<Option<Vec<u8>>, ClientError> {
        let mut line = Vec::new();
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let read = match left {
                Some(left) if left.is_zero() => Err(io::ErrorKind::TimedOut.into()),
                _ => self.stream.get_ref().set_read_timeout(left).and_then(|()| self.stream.fill_buf()),
            };
            let chunk = match read {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(ClientError::of_use(&self.socket, source)),
            };
            if chunk.is_empty() {
                return Ok((!line.is_empty()).then_some(line));
            }
            let end = chunk.iter().position(|&byte| byte == b'\n');
            line.extend_from_slice(&chunk[..end.unwrap_or(chunk.len())]);
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.stream.consume(used);
            if end.is_some() {
                return Ok(Some(line));
            }
            if line.len() > MAX_REPLY_BYTES {
                return Err(self.foreign("its answer has no end"));
            }
        }
    }

    fn parse<T: DeserializeOwned>(&self, line: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(line).map_err(|error| self.foreign(&error.to_string()))
    }

    fn foreign(&self, what: &str) -> ClientError {
        ClientError::Foreign { socket: self.socket.clone(), what: what.to_owned() }
    }
}

/// What came within the time given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextEvent {
    /// An event.
    Event(Box<Event>),
    /// Nothing yet.
    NotYet,
    /// There will be no more.
    Closed,
}

/// Why the daemon did not do what it was asked. Its text says what happened and what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there.
    NoDaemon { socket: PathBuf },
    /// This user may not.
    Permission { socket: PathBuf },
    /// The daemon does not answer.
    Silent { socket: PathBuf },
    /// The system failed in another way.
    Io { socket: PathBuf, source: io::Error },
    /// Somebody answered, but not as multusd of this version does.
    Foreign { socket: PathBuf, what: String },
    /// The daemon said no, and why.
    Refused(String),
}

impl ClientError {
    fn of_connect(socket: &Path, source: io::Error) -> Self {
        let socket = socket.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                Self::NoDaemon { socket }
            }
            io::ErrorKind::PermissionDenied => Self::Permission { socket },
            _ => Self::of_use(&socket, source),
        }
    }

    fn of_use(socket: &Path, source: io::Error) -> Self {
        let socket = socket.to_path_buf();
        match source.kind() {
            _ if is_timeout(&source) => Self::Silent { socket },
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                Self::Foreign { socket, what: "it hung up: it ended, or this user may not use it".to_owned() }
            }
            _ => Self::Io { socket, source },
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDaemon { socket } => write!(
                f,
                "no daemon at {}: is multusd running? Start it with \"multusd\", or name its runtime directory with --runtime-dir",
                socket.display()
            ),
            Self::Permission { socket } => write!(
                f,
                "no permission for {}: root, the user who runs multusd and members of its control_group may use it",
                socket.display()
            ),
            Self::Silent { socket } => {
                write!(
                    f,
                    "multusd at {} does not answer: it is stopped or overloaded; its log may tell more",
                    socket.display()
                )
            }
            Self::Io { socket, source } => write!(f, "{}: {source}", socket.display()),
            Self::Foreign { socket, what } => write!(f, "unexpected answer from {}: {what}", socket.display()),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    // A socket with a time-out reports EAGAIN when it runs out.
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A reboot can be this far ahead, seconds.
pub const LATEST_REBOOT_S: u64 = 86_400;
/// Longest request line that the daemon takes, its end included.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// Longest reply that a client takes: a status of many thousand children fits.
pub const MAX_REPLY_BYTES: usize = 64 << 20;
/// How long a client waits for the daemon. It answers in milliseconds; a machine may be slow under load.
pub const TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn requests_have_the_documented_form() {
        for (request, text) in [
            (Request::Status { name: None }, r#"{"cmd":"status"}"#),
            (Request::Stop { name: "io".into() }, r#"{"cmd":"stop","name":"io"}"#),
            (Request::Intervals { name: None }, r#"{"cmd":"intervals"}"#),
            (Request::Snooze { name: "io".into(), seconds: 900 }, r#"{"cmd":"snooze","name":"io","seconds":900}"#),
            (Request::Reload, r#"{"cmd":"reload"}"#),
            (Request::Reboot { seconds: 300 }, r#"{"cmd":"reboot","seconds":300}"#),
            (Request::RebootCancel, r#"{"cmd":"reboot-cancel"}"#),
            (Request::Events { since: Some(3), follow: true }, r#"{"cmd":"events","since":3,"follow":true}"#),
        ] {
            assert_eq!(serde_json::to_string(&request).expect("plain data"), text);
            assert_eq!(parse_request(text.as_bytes()), Ok(request));
        }
        assert_eq!(parse_request(br#"{"cmd":"events"}"#), Ok(Request::Events { since: None, follow: false }));
    }

    #[test]
    fn what_is_no_request_is_refused_with_a_reason() {
        let long = vec![b' '; MAX_REQUEST_BYTES + 1];
        for line in [&b""[..], b"{}", b"[]", b"{\"cmd\":\"fly\"}", b"{\"cmd\":\"stop\"}", b"\xff\xfe", &long] {
            let error = parse_request(line).expect_err("no request");
            assert!(error.contains("request"), "{error}");
        }
        let deep = "[".repeat(MAX_REQUEST_BYTES - 10);
        assert!(parse_request(deep.as_bytes()).is_err(), "deep nesting must not exhaust the stack");
    }

    #[test]
    fn a_client_gets_data_refusals_and_events() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let socket = dir.path().join("control.sock");
        let listener = UnixListener::bind(&socket).expect("a socket can be made there");
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("the client connects");
            let mut lines = BufReader::new(stream);
            for reply in [Reply::with("1.0".into()), Reply::refused("no child \"x\""), Reply::done()] {
                let mut line = String::new();
                lines.read_line(&mut line).expect("the client asks");
                parse_request(line.trim_end().as_bytes()).expect("a good request");
                lines.get_mut().write_all(reply.to_line().as_bytes()).expect("the client listens");
            }
            let event = serde_json::to_string(&Event { seq: 4, ..Event::default() }).expect("plain data");
            writeln!(lines.get_mut(), "{event}").expect("the client listens");
        });
        let mut client = Client::connect(&socket).expect("the server listens");
        assert_eq!(client.request_as::<String>(&Request::Version).expect("answered"), "1.0");
        let refused = client.request(&Request::Stop { name: "x".into() }).expect_err("refused");
        assert_eq!(refused.to_string(), "no child \"x\"");
        client.request(&Request::Events { since: None, follow: false }).expect("answered");
        assert_eq!(client.next_event().expect("an event").map(|event| event.seq), Some(4));
        assert_eq!(client.next_event_within(Duration::from_secs(5)).expect("the end"), NextEvent::Closed);
        server.join().expect("the server's assertions hold");
    }

    #[test]
    fn errors_say_what_to_do() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let socket = dir.path().join("control.sock");
        let error = Client::connect(&socket).expect_err("nobody there").to_string();
        assert!(error.contains("is multusd running?") && error.contains("control.sock"), "{error}");

        let _silent = UnixListener::bind(&socket).expect("a socket can be made there");
        let mut client = Client::connect_within(&socket, Duration::from_millis(30)).expect("the queue takes it");
        let error = client.request(&Request::Version).expect_err("no answer").to_string();
        assert!(error.contains("does not answer"), "{error}");

        let long = Path::new("/").join("x".repeat(200));
        assert!(Client::connect(&long).is_err(), "a path too long for a socket is an error, too");
    }
}
