//! One receiver of `multus.v1.MirrorService`.

use std::collections::VecDeque;
use std::time::Duration;

use multus_proto::v1::mirror_request::Content;
use multus_proto::v1::mirror_response::Content as Answer;
use multus_proto::v1::mirror_service_client::MirrorServiceClient;
use multus_proto::v1::{MirrorAck, MirrorHello, MirrorLine, MirrorRequest, MirrorState, MirrorWelcome};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::WatchStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Streaming};

use super::{CONNECT, End, LARGEST_MESSAGE, Way};
use crate::config::Line;
use crate::logic::backoff::Backoff;
use crate::logic::mapping::Levels;

/// Sends to one receiver for ever.
#[derive(Debug)]
pub(super) struct Sender {
    way: Way,
    name: String,
    session: u64,
    lines: Vec<Line>,
    levels: watch::Receiver<Levels>,
    /// Of the last state.
    sequence: u64,
    backoff: Backoff,
    /// Outputs that the receiver refused, so that it is told once.
    refused: Vec<String>,
}

/// A connection.
struct Link {
    epoch: u64,
    timeout: Duration,
    /// Where states go. The newest takes the place of one that could not be sent yet.
    out: watch::Sender<MirrorRequest>,
    answers: Streaming<multus_proto::v1::MirrorResponse>,
    /// States that are not acknowledged yet, and when they were sent.
    under_way: VecDeque<(u64, Instant)>,
}

impl Sender {
    pub(super) fn new(way: Way, name: String, session: u64, lines: Vec<Line>, levels: watch::Receiver<Levels>) -> Self {
        Self { way, name, session, lines, levels, sequence: 0, backoff: Backoff::default(), refused: Vec::new() }
    }

    pub(super) async fn run(mut self) {
        loop {
            let end = match self.connect().await {
                Ok(mut link) => {
                    self.way.peer.shown().connects += 1;
                    self.way.peer.connected("");
                    let end = self.mirror(&mut link).await;
                    self.way.peer.shown().lost += link.under_way.len() as u64;
                    end
                }
                Err(end) => end,
            };
            self.way.pause(end, &mut self.backoff).await;
        }
    }

    async fn connect(&mut self) -> Result<Link, End> {
        let channel = self.way.connect().await?;
        let mut client = MirrorServiceClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE);
        let hello = MirrorHello { name: self.name.clone(), session: self.session };
        let (out, requests) = watch::channel(MirrorRequest { content: Some(Content::Hello(hello)) });
        let mut request = Request::new(WatchStream::new(requests));
        if let Some(token) = &self.way.token {
            let mut header: MetadataValue<Ascii> =
                token.header().parse().map_err(|_| End::lost("no token for a header"))?;
            header.set_sensitive(true);
            request.metadata_mut().insert("authorization", header);
        }
        let welcome = async {
            let mut answers = client.mirror(request).await?.into_inner();
            match answers.message().await?.and_then(|answer| answer.content) {
                Some(Answer::Welcome(welcome)) => Ok((answers, welcome)),
                _ => Err(End::lost("the receiver does not say welcome")),
            }
        };
        let welcomed = timeout(CONNECT, welcome).await.map_err(|_| End::lost("the receiver does not answer"))?;
        let (answers, MirrorWelcome { epoch, timeout_ms, outputs }) = welcomed?;
        log::debug!("{}: welcome {epoch}, time-out {timeout_ms} ms, outputs {outputs:?}", self.way.endpoint.uri());
        let timeout = Duration::from_millis(timeout_ms.into()).clamp(SHORTEST, LONGEST);
        Ok(Link { epoch, timeout, out, answers, under_way: VecDeque::new() })
    }

    /// Sends until the connection ends.
    async fn mirror(&mut self, link: &mut Link) -> End {
        // The newest state goes first, whatever was sent before.
        self.levels.mark_changed();
        let mut last_sent = Instant::now();
        loop {
            let again = last_sent + link.timeout / KEEP_ALIVE;
            let overdue = link.under_way.front().map_or(again + link.timeout, |(_, sent)| *sent + link.timeout / 2);
            tokio::select! {
                biased;
                changed = self.levels.changed() => {
                    if changed.is_err() {
                        return End::lost("this child ends");
                    }
                    last_sent = self.send(link);
                }
                answer = link.answers.message() => match answer {
                    Ok(Some(answer)) => match answer.content {
                        Some(Answer::Ack(ack)) => self.acknowledged(link, &ack),
                        _ => return End::lost("the receiver says what it should not"),
                    },
                    Ok(None) => return End::lost("the receiver has ended the connection"),
                    Err(status) => return status.into(),
                },
                () = sleep_until(overdue) => {
                    return End::lost("the receiver does not acknowledge");
                }
                () = sleep_until(again) => last_sent = self.send(link),
            }
        }
    }

    fn send(&mut self, link: &mut Link) -> Instant {
        self.sequence += 1;
        let levels = self.levels.borrow_and_update();
        let lines = self.lines.iter().zip(levels.iter());
        let lines = lines.map(|(line, on)| MirrorLine { output: line.remote.clone(), on: *on }).collect();
        drop(levels);
        let state = MirrorState { epoch: link.epoch, sequence: self.sequence, lines };
        link.out.send_replace(MirrorRequest { content: Some(Content::State(state)) });
        let now = Instant::now();
        if link.under_way.len() == MOST_UNDER_WAY {
            // Not the oldest: it tells how long the receiver has said nothing.
            link.under_way.pop_back();
        }
        link.under_way.push_back((self.sequence, now));
        self.way.peer.state();
        now
    }

    fn acknowledged(&mut self, link: &mut Link, ack: &MirrorAck) {
        // Not with the welcome: a receiver that hangs up after each would be asked again without a pause.
        self.backoff.succeeded();
        let mut sent = None;
        while let Some((sequence, at)) = link.under_way.front().copied().filter(|(first, _)| *first <= ack.sequence) {
            sent = (sequence == ack.sequence).then_some(at);
            link.under_way.pop_front();
        }
        self.way.peer.acknowledged((link.epoch, ack.sequence), sent.map(|sent| sent.elapsed()), &ack.results);
        let refused = ack.results.iter().filter(|result| result.outcome == "refused");
        let refused: Vec<String> = refused.map(|result| result.output.clone()).collect();
        if refused != self.refused {
            if !refused.is_empty() {
                let detail = format!("{}; see its configuration", refused.join(", "));
                self.way.peer.tell(log::Level::Warn, "does not set", &detail);
            }
            self.refused = refused;
        }
    }
}

/// States in the timeout of the receiver; it takes three for lost before it is.
const KEEP_ALIVE: u32 = 4;
const MOST_UNDER_WAY: usize = 1024;
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(86_400);
