//! `multus.v1.EventsService`.

use std::sync::Arc;

use multus_proto::v1::events_service_server::EventsService;
use multus_proto::v1::{
    ListEventsRequest, ListEventsResponse, WatchEventsRequest, WatchEventsResponse, watch_events_response::What,
};
use tokio::sync::Notify;
use tonic::{Request, Response, Status, async_trait};

use super::stream::Stream;
use super::{Api, convert, identity};
use crate::service::EventQuery;
use crate::service::queue::Next;

#[async_trait]
impl EventsService for Api {
    async fn list(&self, request: Request<ListEventsRequest>) -> Result<Response<ListEventsResponse>, Status> {
        self.call(request, |service, caller, ListEventsRequest { since, child, limit }| {
            let child = Some(child).filter(|child| !child.is_empty());
            let events = service.events(caller, &EventQuery { since, child, limit: limit as usize })?;
            Ok(ListEventsResponse { events: events.iter().map(|event| convert::event(event)).collect() })
        })
        .await
    }

    type WatchStream = Stream<WatchEventsResponse>;

    async fn watch(&self, request: Request<WatchEventsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let standing = identity::Standing::of(&request)?;
        let caller = identity::caller(&request)?;
        let events = self.service.follow_events(&caller, request.into_inner().since).map_err(convert::status)?;
        self.stream(standing, move |to| async move {
            let news = Arc::new(Notify::new());
            let notify = Arc::clone(&news);
            events.on_change(move || notify.notify_one());
            loop {
                let what = match events.try_next() {
                    Next::Item(event) => What::Event(convert::event(&event)),
                    Next::Gap(lost) => What::Lost(lost),
                    Next::Empty => {
                        news.notified().await;
                        continue;
                    }
                    Next::Closed => return Ok(()),
                };
                // While this waits for the client, the queue of events drops its oldest and counts them.
                if !to.send(WatchEventsResponse { what: Some(what) }).await {
                    return Ok(());
                }
            }
        })
    }
}
