//! Streams to clients: each has a task that feeds a short channel, and ends when the client goes or the program ends.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use super::Api;
use crate::run::Stop;

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
    /// A stream that `feed` fills. It is dropped when the client goes or the program ends.
    pub(super) fn stream<M: Send + 'static, F: Future<Output = Result<(), Status>> + Send>(
        &self,
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

/// Messages that wait for the network.
const QUEUE: usize = 4;
