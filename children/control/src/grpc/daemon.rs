//! `multus.v1.DaemonService`.

use multus_proto::v1::daemon_service_server::DaemonService;
use multus_proto::v1::*;
use tonic::{Request, Response, Status, async_trait};

use super::{Api, convert};

#[async_trait]
impl DaemonService for Api {
    async fn get_info(&self, request: Request<GetInfoRequest>) -> Result<Response<GetInfoResponse>, Status> {
        self.call(request, |service, caller, _| {
            let information = service.information(caller)?;
            Ok(GetInfoResponse {
                control_version: information.control_version,
                host: information.host,
                daemon: information.daemon.map(convert::daemon),
            })
        })
        .await
    }

    async fn reload(&self, request: Request<ReloadRequest>) -> Result<Response<ReloadResponse>, Status> {
        self.call(request, |service, caller, _| {
            Ok(ReloadResponse { report: Some(convert::reload_report(service.reload(caller)?)) })
        })
        .await
    }

    async fn reboot(&self, request: Request<RebootRequest>) -> Result<Response<RebootResponse>, Status> {
        self.call(request, |service, caller, RebootRequest { seconds }| {
            service.reboot(caller, seconds).map(|()| RebootResponse {})
        })
        .await
    }

    async fn cancel_reboot(
        &self,
        request: Request<CancelRebootRequest>,
    ) -> Result<Response<CancelRebootResponse>, Status> {
        self.call(request, |service, caller, _| service.cancel_reboot(caller).map(|()| CancelRebootResponse {})).await
    }
}
