//! `multus.v1.ChildrenService`.

use std::time::Duration;

use multus_proto::v1::children_service_server::ChildrenService;
use multus_proto::v1::*;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{MissedTickBehavior, interval};
use tonic::{Request, Response, Status, async_trait};

use super::stream::Stream;
use super::{Api, convert, identity};
use crate::blocking;
use crate::service::{Error, Order};

impl Api {
    async fn order<M: Send + 'static, R: Default + Send + 'static>(
        &self,
        request: Request<M>,
        order: impl FnOnce(M) -> (String, Order) + Send + 'static,
    ) -> Result<Response<R>, Status> {
        self.call(request, |service, caller, message| {
            let (name, order) = order(message);
            service.order(caller, &name, order).map(|()| R::default())
        })
        .await
    }
}

#[async_trait]
impl ChildrenService for Api {
    async fn list(&self, request: Request<ListChildrenRequest>) -> Result<Response<ListChildrenResponse>, Status> {
        self.call(request, |service, caller, _| {
            let children = service.children(caller, None)?.iter().map(convert::child).collect();
            Ok(ListChildrenResponse { children })
        })
        .await
    }

    async fn get(&self, request: Request<GetChildRequest>) -> Result<Response<GetChildResponse>, Status> {
        self.call(request, |service, caller, GetChildRequest { name }| {
            let children = service.children(caller, Some(&name))?.iter().map(convert::child).collect();
            Ok(GetChildResponse { children })
        })
        .await
    }

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<StartResponse>, Status> {
        self.order(request, |StartRequest { name }| (name, Order::Start)).await
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        self.order(request, |StopRequest { name }| (name, Order::Stop)).await
    }

    async fn restart(&self, request: Request<RestartRequest>) -> Result<Response<RestartResponse>, Status> {
        self.order(request, |RestartRequest { name }| (name, Order::Restart)).await
    }

    async fn enable(&self, request: Request<EnableRequest>) -> Result<Response<EnableResponse>, Status> {
        self.order(request, |EnableRequest { name }| (name, Order::Enable)).await
    }

    async fn disable(&self, request: Request<DisableRequest>) -> Result<Response<DisableResponse>, Status> {
        self.order(request, |DisableRequest { name }| (name, Order::Disable)).await
    }

    async fn snooze(&self, request: Request<SnoozeRequest>) -> Result<Response<SnoozeResponse>, Status> {
        self.order(request, |SnoozeRequest { name, seconds }| (name, Order::Snooze(seconds))).await
    }

    async fn set_instances(
        &self,
        request: Request<SetInstancesRequest>,
    ) -> Result<Response<SetInstancesResponse>, Status> {
        self.call(request, |service, caller, SetInstancesRequest { name, instances }| {
            let instances = u16::try_from(instances).map_err(|_| Error::field("instances", "1 to 256 are possible"))?;
            let report = service.set_instances(caller, &name, instances)?;
            Ok(SetInstancesResponse { report: Some(convert::reload_report(report)) })
        })
        .await
    }

    type WatchStatusStream = Stream<WatchStatusResponse>;

    async fn watch_status(
        &self,
        request: Request<WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let standing = identity::Standing::of(&request)?;
        let caller = identity::caller(&request)?;
        let WatchStatusRequest { name, interval_ms } = request.into_inner();
        let period = match interval_ms {
            0 => 1000,
            200..=60_000 => u64::from(interval_ms),
            _ => return Err(convert::status(Error::field("interval_ms", "200 to 60000 are possible"))),
        };
        let service = self.service.clone();
        self.stream(standing, move |to| async move {
            let mut turns = interval(Duration::from_millis(period));
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut skipped = 0;
            loop {
                turns.tick().await;
                let (service, caller, name) = (service.clone(), caller.clone(), name.clone());
                let look = move || service.children(&caller, Some(name.as_str()).filter(|name| !name.is_empty()));
                let children = match blocking::call(look).await {
                    Ok(children) => children,
                    Err(Error::Busy(_)) => {
                        skipped += 1;
                        continue;
                    }
                    Err(error) => return Err(convert::status(error)),
                };
                let children = children.iter().map(convert::child).collect();
                // A status is old a moment later, so none is kept for a reader that is slow.
                match to.sender.try_send(Ok(WatchStatusResponse { children, skipped })) {
                    Ok(()) => skipped = 0,
                    Err(TrySendError::Full(_)) => skipped += 1,
                    Err(TrySendError::Closed(_)) => return Ok(()),
                }
            }
        })
    }

    async fn advise(&self, request: Request<AdviseRequest>) -> Result<Response<AdviseResponse>, Status> {
        self.call(request, |service, caller, AdviseRequest { name }| {
            let advices = service.advise(caller, &name)?.into_iter().map(convert::advice).collect();
            Ok(AdviseResponse { advices })
        })
        .await
    }
}
