//! The way to the daemon: a few connections to `control.sock`, used again and again.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use multus_contract::api::command::{Client, ClientError, Request};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{Error, Result};

/// Connections to the daemon that nobody uses right now.
#[derive(Debug)]
pub(crate) struct Daemon {
    socket: PathBuf,
    idle: Mutex<Vec<(Instant, Client)>>,
}

impl Daemon {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket, idle: Mutex::default() }
    }

    /// A connection of one's own.
    pub(crate) fn connect(&self) -> Result<Client> {
        Client::connect_within(&self.socket, PATIENCE).map_err(of_client)
    }

    /// Asks, and reads the answer into a type. Waits [`PATIENCE`] at most for each of connection and answer.
    pub(crate) fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        let data = self.tell(request)?.unwrap_or(Value::Null);
        serde_json::from_value(data).map_err(|error| Error::Internal(format!("unexpected answer of multusd: {error}")))
    }

    /// Gives an order.
    pub(crate) fn tell(&self, request: &Request) -> Result<Option<Value>> {
        let mut client = match self.fresh() {
            Some(client) => client,
            None => self.connect()?,
        };
        let answer = client.request(request);
        // A connection in any other state may still hold the answer to somebody else's question.
        if matches!(answer, Ok(_) | Err(ClientError::Refused(_))) {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < MOST_IDLE {
                idle.push((Instant::now(), client));
            }
        }
        answer.map_err(of_client)
    }

    /// Forgets all idle connections: the daemon was restarted.
    pub(crate) fn forget(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn fresh(&self) -> Option<Client> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, _)| since.elapsed() < FRESH);
        idle.pop().map(|(_, client)| client)
    }
}

fn of_client(error: ClientError) -> Error {
    match error {
        ClientError::Refused(why) => Error::Refused(why),
        other => Error::Unavailable(other.to_string()),
    }
}

/// multusd answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// multusd closes a connection that was silent for half a minute; an order must not fall into that gap.
const FRESH: Duration = Duration::from_secs(10);
const MOST_IDLE: usize = 4;
