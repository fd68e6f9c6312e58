//! `multusctl events`.

use multus_contract::api::command::Request;
use multus_contract::api::event::Event;

use super::Context;
use super::output::{Failure, has_colour, print};
use super::view::event::event_line;

/// Which events, and how.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) name: Option<String>,
    pub(crate) follow: bool,
    pub(crate) since: Option<u64>,
    pub(crate) json: bool,
}

pub(crate) fn events(context: &Context, wanted: &Wanted) -> Result<(), Failure> {
    let mut client = context.client()?;
    client.request(&Request::Events { since: wanted.since, follow: wanted.follow })?;
    let colour = has_colour();
    while let Some(event) = client.next_event()? {
        if wanted.name.is_none() || wanted.name == event.child {
            let line = line(&event, wanted.json, colour)?;
            // Each event at once: somebody may be waiting for it at the other end of a pipe.
            print(|out| writeln!(out, "{line}"))?;
        }
    }
    match wanted.follow {
        true => Err(Failure::Message("the daemon ended the connection".to_owned())),
        false => Ok(()),
    }
}

fn line(event: &Event, json: bool, colour: bool) -> Result<String, Failure> {
    if json {
        return serde_json::to_string(event).map_err(|error| Failure::Message(error.to_string()));
    }
    Ok(event_line(event, true).render(colour))
}
