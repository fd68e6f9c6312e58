//! `multus.v1.MirrorService`.

use std::time::Duration;

use multus_proto::v1::mirror_request::Content;
use multus_proto::v1::mirror_response::Content as Answer;
use multus_proto::v1::mirror_service_server::MirrorService;
use multus_proto::v1::{
    ListPeersRequest, ListPeersResponse, MirrorAck, MirrorHello, MirrorRequest, MirrorResponse, MirrorResult,
    MirrorState, MirrorWelcome,
};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Origin, Receiver, Sender};
use crate::logic::link::{Offer, Stream};
use crate::peers::Peer;

/// What is served.
#[derive(Clone, Debug)]
pub(crate) struct Mirror {
    pub(crate) receiver: Receiver,
    /// All of this instance.
    pub(crate) peers: std::sync::Arc<Vec<Peer>>,
}

/// What goes to the other end next: the newest answer takes the place of one that was not read yet.
type Next = Option<Result<MirrorResponse, Status>>;
type Answers = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<MirrorResponse, Status>> + Send>>;

#[async_trait]
impl MirrorService for Mirror {
    type MirrorStream = Answers;

    async fn mirror(&self, request: Request<Streaming<MirrorRequest>>) -> Result<Response<Answers>, Status> {
        let origin = origin(&request)?;
        let token = shown_token(&request);
        let (out, answers) = watch::channel(None);
        let conversation = Conversation { receiver: self.receiver.clone(), origin, out };
        tokio::spawn(async move {
            let end = conversation.hold(request.into_inner(), token).await;
            // Nobody reads it when the connection is gone.
            let _ = conversation.out.send(end.err().map(Err));
            // With the end of the conversation ends the stream.
        });
        Ok(Response::new(Box::pin(WatchStream::new(answers).filter_map(|next: Next| next))))
    }

    async fn list_peers(&self, request: Request<ListPeersRequest>) -> Result<Response<ListPeersResponse>, Status> {
        let origin = origin(&request)?;
        if !origin.address.ip().to_canonical().is_loopback() {
            return Err(Status::permission_denied("peers are told to programs of this machine only"));
        }
        origin.accepted.accept();
        Ok(Response::new(ListPeersResponse { peers: self.peers.iter().map(Peer::message).collect() }))
    }
}

/// With one sender, from its hello to its end.
struct Conversation {
    receiver: Receiver,
    origin: Origin,
    out: watch::Sender<Next>,
}

impl Conversation {
    /// # Errors
    /// What the sender is told.
    async fn hold(&self, mut requests: Streaming<MirrorRequest>, token: Option<String>) -> Result<(), Status> {
        let first = timeout(HELLO, requests.message()).await.map_err(|_| Status::deadline_exceeded("no hello"))??;
        let Some(Content::Hello(hello)) = first.and_then(|request| request.content) else {
            return Err(Status::invalid_argument("the first message must be a hello"));
        };
        let (sender, stream) = self.welcome(&hello, token.as_deref())?;
        let end = self.listen(sender, stream, &mut requests).await;
        sender.state().closed(stream);
        if sender.state().link.last().0 == stream.epoch && sender.peer.is_connected() {
            let reason = end.as_ref().err().map_or("it has ended the connection", |status| status.message());
            sender.peer.disconnected(crate::peers::State::Connecting, reason);
        }
        end
    }

    fn welcome(&self, hello: &MirrorHello, token: Option<&str>) -> Result<(&Sender, Stream), Status> {
        let found = self.receiver.senders.iter().find(|sender| sender.name == hello.name);
        let known = match found {
            None => Err("there is no sender of this name"),
            Some(sender) => sender.stranger(&self.origin, token).map_or(Ok(sender), Err),
        };
        let sender = known.map_err(|reason| {
            let shown: String = hello.name.chars().take(64).collect();
            self.receiver.strangers.tell(reason, |more| {
                log::warn!("{} says it is {shown:?} and is refused: {reason}{more}", self.origin.address);
            });
            // No more than that: whoever guesses must not learn from it.
            Status::unauthenticated("the receiver knows no such sender, or not with what it shows")
        })?;
        let mut state = sender.state();
        let stream =
            state.link.hello(hello.session, self.receiver.started.elapsed()).ok_or_else(|| self.busy(sender))?;
        let outputs = state.outputs.iter().map(|output| output.point.name().to_owned()).collect();
        drop(state);
        self.origin.accepted.accept();
        let timeout_ms = u32::try_from(sender.timeout.as_millis()).unwrap_or(u32::MAX);
        self.say(Answer::Welcome(MirrorWelcome { epoch: stream.epoch, timeout_ms, outputs }));
        Ok((sender, stream))
    }

    async fn listen(
        &self,
        sender: &Sender,
        stream: Stream,
        requests: &mut Streaming<MirrorRequest>,
    ) -> Result<(), Status> {
        let mut epochs = sender.epochs.subscribe();
        // What is to be acknowledged when the outputs have it.
        let mut pending: Option<Pending> = None;
        loop {
            let request = tokio::select! {
                request = timeout(sender.timeout, requests.message()) => match request {
                    Ok(request) => request?,
                    Err(_) => return Err(Status::deadline_exceeded("it was silent for its timeout")),
                },
                _ = epochs.wait_for(|epoch| *epoch > stream.epoch) => {
                    return Err(Status::aborted("a later connection took the place of this one"));
                }
                results = results(&self.receiver, sender, pending.as_ref()) => {
                    let Some(Pending { sequence, refused, .. }) = pending.take() else { continue };
                    self.acknowledge(sender, stream, sequence, results, refused);
                    continue;
                }
            };
            let Some(request) = request else { return Ok(()) };
            let Some(Content::State(state)) = request.content else {
                return Err(Status::invalid_argument("a state was expected"));
            };
            let refused = self.take(sender, stream, &state)?;
            let first = pending.map_or_else(tokio::time::Instant::now, |pending| pending.since);
            pending = Some(Pending { sequence: state.sequence, refused, since: first });
        }
    }

    /// Applies a state; the lines that are not for this sender.
    fn take(&self, sender: &Sender, stream: Stream, state: &MirrorState) -> Result<Vec<String>, Status> {
        check(state, stream)?;
        let mut own = sender.state();
        match own.link.offer(stream, state.sequence, self.receiver.started.elapsed()) {
            Offer::Newest { is_back } => {
                own.apply(|name| state.lines.iter().find(|line| line.output == name).and_then(|line| line.on));
                let is_own = |name: &str| own.outputs.iter().any(|output| output.point.name() == name);
                let refused: Vec<String> =
                    state.lines.iter().filter(|line| !is_own(&line.output)).map(|line| line.output.clone()).collect();
                own.tell_refused(&sender.peer, refused.clone());
                drop(own);
                sender.peer.state();
                let is_new =
                    sender.epochs.send_if_modified(|epoch| std::mem::replace(epoch, stream.epoch) != stream.epoch);
                sender.peer.shown().connects += u64::from(is_new);
                if is_new || is_back {
                    sender.peer.shown().address = self.origin.address.to_string();
                    sender.peer.connected(&format!("from {}", self.origin.address));
                }
                Ok(refused)
            }
            Offer::Older => {
                sender.peer.shown().lost += 1;
                Err(Status::aborted("a newer state was there before this one"))
            }
            Offer::Busy => Err(self.busy(sender)),
        }
    }

    fn acknowledge(
        &self,
        sender: &Sender,
        stream: Stream,
        sequence: u64,
        mut results: Vec<MirrorResult>,
        refused: Vec<String>,
    ) {
        results.extend(refused.into_iter().map(|output| MirrorResult { output, outcome: "refused".into(), on: None }));
        sender.peer.acknowledged((stream.epoch, sequence), None, &results);
        self.say(Answer::Ack(MirrorAck { sequence, results }));
    }

    fn busy(&self, sender: &Sender) -> Status {
        let other = sender.peer.shown().address.clone();
        let name = &sender.name;
        self.receiver.strangers.tell(name, |more| {
            let origin = self.origin.address;
            log::warn!(
                "{origin} sends as {name:?}, and so does {other}: one sender has one device, so it is refused; give it a name and outputs of its own{more}"
            );
        });
        Status::already_exists(format!("another process sends as {name:?}, from {other}"))
    }

    fn say(&self, answer: Answer) {
        self.out.send_replace(Some(Ok(MirrorResponse { content: Some(answer) })));
    }
}

/// A state that is not acknowledged yet.
struct Pending {
    sequence: u64,
    refused: Vec<String>,
    /// When the first one came that is not acknowledged.
    since: tokio::time::Instant,
}

/// What the outputs have, when they have it, or after a while; never, when nothing is pending.
async fn results(receiver: &Receiver, sender: &Sender, pending: Option<&Pending>) -> Vec<MirrorResult> {
    match pending {
        Some(pending) => receiver.results(sender, pending.since).await,
        None => std::future::pending().await,
    }
}

fn check(state: &MirrorState, stream: Stream) -> Result<(), Status> {
    if state.epoch != stream.epoch {
        return Err(Status::invalid_argument("the epoch is not that of the welcome"));
    }
    if state.sequence == 0 || state.lines.len() > MOST_LINES {
        return Err(Status::invalid_argument("a sequence begins with 1, and a state has at most 256 lines"));
    }
    for (index, line) in state.lines.iter().enumerate() {
        if line.output.is_empty() || line.output.len() > LONGEST_NAME {
            return Err(Status::invalid_argument("an output has a name of at most 32 bytes"));
        }
        if state.lines[..index].iter().any(|other| other.output == line.output) {
            return Err(Status::invalid_argument(format!("output {:?} is there twice", line.output)));
        }
    }
    Ok(())
}

/// Where a request comes from.
///
/// # Errors
/// It came in no way that this child has opened.
pub(super) fn origin<T>(request: &Request<T>) -> Result<Origin, Status> {
    request.extensions().get::<Origin>().cloned().ok_or_else(|| Status::internal("nobody said who asks"))
}

fn shown_token<T>(request: &Request<T>) -> Option<String> {
    let (scheme, token) = request.metadata().get("authorization")?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

/// How long somebody may take who has connected and says nothing.
const HELLO: Duration = Duration::from_secs(5);
const MOST_LINES: usize = 256;
/// Bytes, as in hardware.toml.
const LONGEST_NAME: usize = 32;
