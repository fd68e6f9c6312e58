//! `multus.v1.LogsService`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use multus_proto::v1::logs_service_server::LogsService;
use multus_proto::v1::*;
use tokio::time::sleep;
use tonic::{Request, Response, Status, async_trait};

use super::stream::Stream;
use super::{Api, convert, identity};
use crate::blocking;

#[async_trait]
impl LogsService for Api {
    async fn list(&self, request: Request<ListLogsRequest>) -> Result<Response<ListLogsResponse>, Status> {
        self.call(request, |service, caller, _| {
            Ok(ListLogsResponse { logs: service.logs(caller)?.into_iter().map(convert::log_file).collect() })
        })
        .await
    }

    type TailStream = Stream<TailResponse>;

    async fn tail(&self, request: Request<TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let standing = identity::Standing::of(&request)?;
        let caller = identity::caller(&request)?;
        let TailRequest { name, lines, follow } = request.into_inner();
        let service = self.service.clone();
        let tail = blocking::call(move || service.log_tail(&caller, &name, lines.unwrap_or(50) as usize)).await;
        let tail = tail.map_err(convert::status)?;
        self.stream(standing, move |to| async move {
            let follower = Arc::new(Mutex::new(tail.follower));
            let mut lines = tail.lines;
            loop {
                for message in messages(std::mem::take(&mut lines)) {
                    // A slow reader is waited for: what is written meanwhile is in the files.
                    if !to.send(message).await {
                        return Ok(());
                    }
                }
                if !follow {
                    return Ok(());
                }
                sleep(LOOK).await;
                let follower = Arc::clone(&follower);
                let poll = move || follower.lock().unwrap_or_else(PoisonError::into_inner).poll();
                lines = blocking::turn(poll).await.map_err(convert::status)?;
            }
        })
    }

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<SearchResponse>, Status> {
        self.call(request, |service, caller, SearchRequest { name, words, limit }| {
            let limit = if limit == 0 { 100 } else { limit as usize };
            let found = service.log_search(caller, &name, &words, limit)?;
            Ok(SearchResponse { found: found.into_iter().map(convert::found_line).collect() })
        })
        .await
    }
}

/// Lines in messages of a size that every client takes.
fn messages(lines: Vec<String>) -> Vec<TailResponse> {
    let mut messages = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for line in lines {
        if bytes + line.len() > LARGEST_BATCH {
            messages.push(TailResponse { lines: std::mem::take(&mut batch) });
            bytes = 0;
        }
        bytes += line.len();
        batch.push(line);
    }
    if !batch.is_empty() {
        messages.push(TailResponse { lines: batch });
    }
    messages
}

const LARGEST_BATCH: usize = 64 * 1024;
const LOOK: Duration = Duration::from_millis(200);
