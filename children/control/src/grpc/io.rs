//! `multus.v1.IoService`.

use std::sync::Arc;

use multus_proto::v1::io_service_server::IoService;
use multus_proto::v1::watch_lines_response::What;
use multus_proto::v1::*;
use tokio::sync::Notify;
use tonic::{Request, Response, Status, async_trait};

use super::stream::Stream;
use super::{Api, convert, identity};
use crate::service::queue::Next;
use crate::service::{Error, LineNews, LineOrder};

#[async_trait]
impl IoService for Api {
    async fn list(&self, request: Request<ListLinesRequest>) -> Result<Response<ListLinesResponse>, Status> {
        self.call(request, |service, caller, ListLinesRequest { name }| {
            let mut status = service.lines(caller)?;
            if !name.is_empty() {
                status.lines.retain(|line| line.name == name);
                if status.lines.is_empty() {
                    return Err(Error::NotFound(format!("there is no line {name:?}")));
                }
            }
            Ok(convert::lines(status))
        })
        .await
    }

    type WatchStream = Stream<WatchLinesResponse>;

    async fn watch(&self, request: Request<WatchLinesRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let standing = identity::Standing::of(&request)?;
        let caller = identity::caller(&request)?;
        let news = self.service.follow_lines(&caller).map_err(convert::status)?;
        self.stream(standing, move |to| async move {
            let more = Arc::new(Notify::new());
            let notify = Arc::clone(&more);
            news.on_change(move || notify.notify_one());
            loop {
                let what = match news.try_next() {
                    Next::Item(news) => match (*news).clone() {
                        LineNews::Line(line) => What::Line(convert::line(*line)),
                        LineNews::Fresh(fresh) => What::Fresh(fresh),
                    },
                    Next::Gap(lost) => What::Lost(lost),
                    Next::Empty => {
                        more.notified().await;
                        continue;
                    }
                    Next::Closed => return Ok(()),
                };
                // While this waits for the client, the queue drops its oldest and counts them.
                if !to.send(WatchLinesResponse { what: Some(what) }).await {
                    return Ok(());
                }
            }
        })
    }

    async fn set(&self, request: Request<SetLineRequest>) -> Result<Response<SetLineResponse>, Status> {
        self.call(request, |service, caller, SetLineRequest { name, value }| {
            service.line_order(caller, &name, LineOrder::Set(value)).map(|()| SetLineResponse {})
        })
        .await
    }

    async fn force(&self, request: Request<ForceLineRequest>) -> Result<Response<ForceLineResponse>, Status> {
        self.call(request, |service, caller, ForceLineRequest { name, value }| {
            service.line_order(caller, &name, LineOrder::Force(value)).map(|()| ForceLineResponse {})
        })
        .await
    }

    async fn release(&self, request: Request<ReleaseLineRequest>) -> Result<Response<ReleaseLineResponse>, Status> {
        self.call(request, |service, caller, ReleaseLineRequest { name }| {
            service.line_order(caller, &name, LineOrder::Release).map(|()| ReleaseLineResponse {})
        })
        .await
    }
}
