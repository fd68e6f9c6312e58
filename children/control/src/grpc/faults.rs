//! `multus.v1.FaultsService`.

use multus_proto::v1::faults_service_server::FaultsService;
use multus_proto::v1::*;
use tonic::{Request, Response, Status, async_trait};

use super::{Api, convert};

#[async_trait]
impl FaultsService for Api {
    async fn list(&self, request: Request<ListFaultsRequest>) -> Result<Response<ListFaultsResponse>, Status> {
        self.call(request, |service, caller, ListFaultsRequest { child }| {
            let reports = service.faults(caller, Some(child.as_str()).filter(|child| !child.is_empty()))?;
            Ok(ListFaultsResponse { reports: reports.into_iter().map(convert::fault_report).collect() })
        })
        .await
    }

    async fn get(&self, request: Request<GetFaultRequest>) -> Result<Response<GetFaultResponse>, Status> {
        self.call(request, |service, caller, GetFaultRequest { child, id }| {
            let found = service.fault(caller, &child, Some(id.as_str()).filter(|id| !id.is_empty()))?;
            Ok(GetFaultResponse { report: Some(convert::fault_report(found.report)), text: found.text })
        })
        .await
    }
}
