//! What is known of the tunnel. Pure: notices and times go in.

use std::time::Duration;

use crate::notice::Notice;

/// How it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// openvpn was started and has said nothing yet.
    #[default]
    Starting,
    Connecting,
    Connected,
    Reconnecting,
    /// The server does not take what this device shows.
    AuthFailed,
    Exiting,
}

impl State {
    /// The word for logs and gRPC.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::AuthFailed => "auth-failed",
            Self::Exiting => "exiting",
        }
    }
}

/// A tunnel.
#[derive(Clone, Debug, Default)]
pub struct Tunnel {
    pub state: State,
    /// Since 1970.
    pub since: Duration,
    pub detail: String,
    pub address: String,
    pub server: String,
    pub received: u64,
    pub sent: u64,
    pub connects: u32,
    pub pid: Option<u32>,
    /// Unix seconds.
    pub certificate_ends: Option<i64>,
}

impl Tunnel {
    /// openvpn was started anew.
    pub fn started(&mut self, pid: Option<u32>, certificate_ends: Option<i64>, unix: Duration) {
        let connects = self.connects;
        *self = Self { connects, pid, certificate_ends, since: unix, ..Self::default() };
    }

    /// What openvpn has said. `true`: the state is another one.
    pub fn take(&mut self, notice: Notice, unix: Duration) -> bool {
        let state = match notice {
            Notice::State { name, description, address, server } => {
                let state = match name.as_str() {
                    "CONNECTED" => State::Connected,
                    // It tries again by itself, but that will not help before somebody does something.
                    "RECONNECTING" if description == "auth-failure" => State::AuthFailed,
                    "RECONNECTING" => State::Reconnecting,
                    "EXITING" => State::Exiting,
                    // CONNECTING, RESOLVE, WAIT, AUTH, GET_CONFIG, ASSIGN_IP, ADD_ROUTES: on the way to where it was going.
                    _ if matches!(self.state, State::Reconnecting | State::AuthFailed) => self.state,
                    _ => State::Connecting,
                };
                let is_on_the_way = matches!(state, State::Connecting | State::Reconnecting | State::AuthFailed);
                if !description.is_empty() && (!is_on_the_way || name == "RECONNECTING") {
                    self.detail = description;
                }
                if state == State::Connected {
                    (self.address, self.server) = (address, server);
                    self.connects = self.connects.saturating_add(u32::from(self.state != State::Connected));
                }
                state
            }
            Notice::Bytes { received, sent } => {
                (self.received, self.sent) = (received, sent);
                self.state
            }
            Notice::AuthFailed { reason } => {
                self.detail = format!("the server does not accept {reason}");
                State::AuthFailed
            }
            Notice::PasswordNeeded { what } => {
                self.detail = format!("openvpn asks for {what}: put it into a file that the configuration names");
                State::AuthFailed
            }
            Notice::Fatal { reason } => {
                self.detail = reason;
                State::Exiting
            }
            Notice::Other => self.state,
        };
        if state != State::Connected {
            self.address.clear();
            self.server.clear();
        }
        let is_new = state != self.state;
        if is_new {
            (self.state, self.since) = (state, unix);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::parse;

    #[test]
    fn the_states_of_openvpn_become_ours() {
        let mut tunnel = Tunnel::default();
        tunnel.started(Some(7), None, Duration::from_secs(1));
        for (second, (line, state, is_new)) in [
            (">STATE:1,CONNECTING,,,,,,", State::Connecting, true),
            (">STATE:1,WAIT,,,,,,", State::Connecting, false),
            (">STATE:1,CONNECTED,SUCCESS,10.8.0.2,192.0.2.1,1194,,", State::Connected, true),
            (">BYTECOUNT:10,20", State::Connected, false),
            (">STATE:1,RECONNECTING,ping-restart,,,,,", State::Reconnecting, true),
            (">STATE:1,WAIT,,,,,,", State::Reconnecting, false),
            (">STATE:1,CONNECTED,SUCCESS,10.8.0.2,192.0.2.1,1194,,", State::Connected, true),
            (">PASSWORD:Verification Failed: 'Auth'", State::AuthFailed, true),
            (">STATE:1,RECONNECTING,auth-failure,,,,,", State::AuthFailed, false),
            (">STATE:1,AUTH,,,,,,", State::AuthFailed, false),
            (">STATE:1,EXITING,SIGTERM,,,,,", State::Exiting, true),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(tunnel.take(parse(line), Duration::from_secs(second as u64)), is_new, "{line}");
            assert_eq!(tunnel.state, state, "{line}");
            assert_eq!(tunnel.address.is_empty(), state != State::Connected, "{line}");
        }
        assert_eq!((tunnel.connects, tunnel.received, tunnel.sent), (2, 10, 20));
        assert_eq!((tunnel.detail.as_str(), tunnel.since), ("SIGTERM", Duration::from_secs(10)));
        tunnel.started(None, None, Duration::ZERO);
        assert_eq!((tunnel.state, tunnel.connects, tunnel.sent), (State::Starting, 2, 0));
    }
}
