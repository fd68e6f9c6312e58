//! Connections of the control socket: bounded in number, in what they may send, and in the time they may take. A client
//! that is slow, silent or broken costs a few kilobytes and is closed; it never holds up anybody else.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use mio::net::UnixStream;
use multus_contract::api::command::{MAX_REQUEST_BYTES, Reply};
use multus_ipc::MonoNs;
use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt};

/// Connections at one time.
pub(super) const MAX_CLIENTS: usize = 64;
/// A connection that has not sent a whole request for this long is closed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Answers that a client does not read are kept up to this size, then it is closed (and a follower of events is
/// fed no further).
const MAX_UNREAD: usize = 1 << 20;

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: UnixStream,
    input: Vec<u8>,
    output: VecDeque<u8>,
    since: MonoNs,
    /// Requests that the watch thread has not answered yet.
    pub(super) waiting: bool,
    /// Number of the next event to send, and whether to go on at the end of the ring.
    pub(super) events: Option<(u64, bool)>,
    pub(super) closing: bool,
}

/// What reading brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A request line, without its end.
    Line(Vec<u8>),
    /// Nothing complete yet.
    Nothing,
    /// Longer than any request.
    TooLong,
    /// The other side is gone.
    Closed,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: VecDeque::new(),
            since: MonoNs::now(),
            waiting: false,
            events: None,
            closing: false,
        }
    }

    /// Who is at the other end: user, group and process id.
    pub(super) fn peer(&self) -> io::Result<(u32, u32, i32)> {
        let credentials = getsockopt(&self.stream.as_fd(), sockopt::PeerCredentials)?;
        Ok((credentials.uid(), credentials.gid(), credentials.pid()))
    }

    /// Reads what is there, at most one buffer, and gives the next request.
    pub(super) fn read(&mut self) -> Input {
        if let Some(line) = self.line() {
            return line;
        }
        let mut buffer = [0u8; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Input::Closed,
                Ok(length) => {
                    self.input.extend_from_slice(&buffer[..length]);
                    if let Some(line) = self.line() {
                        return line;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Input::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Input::Closed,
            }
        }
    }

    fn line(&mut self) -> Option<Input> {
        match self.input.iter().position(|b| *b == b'\n') {
            Some(end) if end <= MAX_REQUEST_BYTES => {
                let line = self.input[..end].to_vec();
                self.input.drain(..=end);
                self.since = MonoNs::now();
                Some(Input::Line(line))
            }
            None if self.input.len() <= MAX_REQUEST_BYTES => None,
            _ => Some(Input::TooLong),
        }
    }

    /// Queues an answer.
    pub(super) fn answer(&mut self, reply: &Reply) {
        self.send(reply.to_line().as_bytes());
    }

    /// Queues bytes.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.output.len() + bytes.len() > MAX_UNREAD {
            self.closing = true;
            self.output.clear();
            return;
        }
        self.output.extend(bytes);
    }

    /// Whether it has read enough to be sent more events.
    pub(super) fn has_room(&self) -> bool {
        self.output.len() < MAX_UNREAD / 4
    }

    /// Sends an answer together with descriptors. Only when nothing is queued; else the client must ask again.
    pub(super) fn answer_with(&mut self, reply: &Reply, fds: &[RawFd]) {
        if !self.output.is_empty() {
            self.answer(&Reply::refused("answers are still to be read; ask again on a new connection"));
            return;
        }
        let line = reply.to_line();
        let parts = [io::IoSlice::new(line.as_bytes())];
        let rights = [ControlMessage::ScmRights(fds)];
        if sendmsg::<()>(self.stream.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None).is_err() {
            self.closing = true;
        }
    }

    /// Writes what the socket takes. False when the connection is done.
    pub(super) fn flush(&mut self) -> bool {
        while !self.output.is_empty() {
            let (head, _) = self.output.as_slices();
            match self.stream.write(head) {
                Ok(0) => return false,
                Ok(length) => {
                    self.output.drain(..length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        !self.closing
    }

    /// Whether it has been silent for too long: no request under way, none complete.
    pub(super) fn is_overdue(&self, now: MonoNs) -> bool {
        let follows = matches!(self.events, Some((_, true)));
        !self.waiting && !follows && now.since(self.since) > PATIENCE
    }
}
