//! Streams to clients: each has a task that feeds a short channel, and ends when the client goes or the program ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use super::Api;
use super::identity::Standing;
use crate::run::Stop;
use crate::service::Caller;

/// What a service gives for a stream.
pub(super) type Stream<M> = ReceiverStream<Result<M, Status>>;

/// Where the messages of one stream go.
#[derive(Debug)]
pub(super) struct Feed<M> {
    pub(super) sender: mpsc::Sender<Result<M, Status>>,
    stop: Stop,
    _permit: OwnedSemaphorePermit,
}

impl Api {
    /// A stream that `feed` fills for somebody who may look. It ends when the client goes, the program ends, or that one may not
    /// look any more.
    pub(super) fn stream<M: Send + 'static, F: Future<Output = Result<(), Status>> + Send>(
        &self,
        standing: Standing,
        feed: impl FnOnce(Arc<Feed<M>>) -> F + Send + 'static,
    ) -> Result<Response<Stream<M>>, Status> {
        let permit = Arc::clone(&self.streams)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("too many streams are under way; try again"))?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let to = Arc::new(Feed { sender, stop, _permit: permit });
            let ended = tokio::select! {
                ended = feed(Arc::clone(&to)) => ended,
                () = to.sender.closed() => return,
                () = to.stop.requested() => Err(Status::unavailable("multus-control ends")),
                why = lost(&standing) => Err(why),
            };
            if let Err(status) = ended {
                // Whoever does not read does not hear it either.
                let _ = to.sender.try_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl<M> Feed<M> {
    /// Waits until the client has read enough. False: it is gone.
    pub(super) async fn send(&self, message: M) -> bool {
        self.sender.send(Ok(message)).await.is_ok()
    }
}

/// Waits until somebody may not look any more.
async fn lost(standing: &Standing) -> Status {
    loop {
        sleep(LOOK).await;
        match standing.caller() {
            Ok(caller) if caller.needs(Caller::USER).is_ok() => {}
            Ok(_) => return Status::permission_denied("the right to look was taken away"),
            Err(why) => return why,
        }
    }
}

/// With the look at the files before it, a stream ends within a second or so.
const LOOK: Duration = Duration::from_millis(500);
/// Messages that wait for the network.
const QUEUE: usize = 4;
