//! Where the live view gets its news: threads that wait for the daemon, so that keys never do.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use multus_contract::api::command::{Client, ClientError, Request};
use multus_contract::api::event::Event;
use multus_contract::api::status::Status;
use serde_json::Value;

use super::model::Answer;
use crate::ctl::children::Order;

/// Something new for the model.
#[derive(Debug)]
pub(crate) enum News {
    Status(Box<Status>),
    Event(Box<Event>),
    /// No status could be had; why.
    Trouble(String),
    Answer(Answer),
}

/// The threads; they end when the receiver of their news is gone.
#[derive(Debug)]
pub(crate) struct Feed {
    socket: PathBuf,
    sender: Sender<News>,
}

impl Feed {
    pub(crate) fn start(socket: &Path) -> (Self, Receiver<News>) {
        let (sender, receiver) = channel();
        let feed = Self { socket: socket.to_path_buf(), sender };
        let (socket, sender) = (feed.socket.clone(), feed.sender.clone());
        std::thread::spawn(move || for_ever(&socket, &sender, watch_status));
        let (socket, sender) = (feed.socket.clone(), feed.sender.clone());
        std::thread::spawn(move || for_ever(&socket, &sender, watch_events));
        (feed, receiver)
    }

    /// Gives an order; the answer comes as news.
    pub(crate) fn give(&self, name: String, order: Order) {
        let (socket, sender) = (self.socket.clone(), self.sender.clone());
        std::thread::spawn(move || {
            let said = Client::connect(&socket).and_then(|mut client| client.request(&order.request(&name)));
            let answer = match said {
                Ok(data) => {
                    let said = data.as_ref().and_then(Value::as_str).map_or_else(|| order.taken(), str::to_owned);
                    Answer { text: format!("{name}: {said}"), refused: false }
                }
                Err(error) => Answer { text: error.to_string(), refused: true },
            };
            let _ = sender.send(News::Answer(answer));
        });
    }
}

/// The receiver is gone.
struct Over;

/// What a watch ended with: the connection failed, or nobody listens any more.
enum End {
    Failed(ClientError),
    Over,
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> Self {
        Self::Failed(error)
    }
}

impl From<Over> for End {
    fn from(Over: Over) -> Self {
        Self::Over
    }
}

type Watch = fn(&mut Client, &Sender<News>) -> Result<(), End>;

/// Watches over one connection after the other: a daemon that ends may be started again.
fn for_ever(socket: &Path, sender: &Sender<News>, watch: Watch) {
    loop {
        let ended = Client::connect(socket).map_err(End::Failed).and_then(|mut client| watch(&mut client, sender));
        match ended {
            Err(End::Over) => return,
            Err(End::Failed(error)) if send(sender, News::Trouble(error.to_string())).is_err() => return,
            _ => {}
        }
        std::thread::sleep(RETRY);
    }
}

fn watch_status(client: &mut Client, sender: &Sender<News>) -> Result<(), End> {
    loop {
        let status: Status = client.request_as(&Request::Status { name: None })?;
        send(sender, News::Status(Box::new(status)))?;
        std::thread::sleep(PERIOD);
    }
}

fn watch_events(client: &mut Client, sender: &Sender<News>) -> Result<(), End> {
    client.request(&Request::Events { since: Some(0), follow: true })?;
    while let Some(event) = client.next_event()? {
        send(sender, News::Event(Box::new(event)))?;
    }
    Ok(())
}

fn send(sender: &Sender<News>, news: News) -> Result<(), Over> {
    sender.send(news).map_err(|_| Over)
}

/// Five looks in a second.
const PERIOD: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_millis(500);
