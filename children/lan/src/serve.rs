//! gRPC on a port of this machine: `multus.v1.LanService`, and the service of the original multusd.

use std::time::Duration;

use multus_net::address::{addresses, default_routes};
use multus_net::netlink;
use multus_net::serve::LARGEST_MESSAGE;
use multus_proto::legacy;
use multus_proto::legacy::g_rpc_service_server::{GRpcService, GRpcServiceServer};
use multus_proto::v1;
use multus_proto::v1::lan_service_server::{LanService, LanServiceServer};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status, async_trait};

use crate::clock;
use crate::keeper::Confirmation;
use crate::shown::{Shared, Shown, State};

/// What is told, and who is told of a confirmation.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    pub(crate) shared: Shared,
    pub(crate) confirm: mpsc::Sender<Confirmation>,
}

/// Serves for ever.
pub(crate) async fn serve(port: u16, board: Board) {
    multus_net::serve::for_ever(port, |mut server, incoming| {
        server
            .add_service(LanServiceServer::new(board.clone()).max_decoding_message_size(LARGEST_MESSAGE))
            .add_service(GRpcServiceServer::new(board.clone()).max_decoding_message_size(LARGEST_MESSAGE))
            .serve_with_incoming(incoming)
    })
    .await;
}

#[async_trait]
impl LanService for Board {
    async fn get_lan(&self, _: Request<v1::GetLanRequest>) -> Result<Response<v1::GetLanResponse>, Status> {
        let shown = self.shared.lock().clone();
        let mut answer = answer(&shown);
        if let Some(plan) = &shown.plan {
            // What the kernel does not tell is left out.
            let _ = ask_kernel(&plan.interface, &mut answer);
        }
        Ok(Response::new(answer))
    }

    async fn confirm_lan(&self, _: Request<v1::ConfirmLanRequest>) -> Result<Response<v1::ConfirmLanResponse>, Status> {
        let (answer, confirmed) = oneshot::channel();
        let ended = |_| Status::unavailable("the child ends");
        let mark = self.shared.lock().trial.clone();
        self.confirm.send(Confirmation { mark, answer }).await.map_err(|_| Status::unavailable("the child ends"))?;
        match confirmed.await.map_err(ended)? {
            Ok(()) => Ok(Response::new(v1::ConfirmLanResponse {})),
            Err(reason) => Err(Status::failed_precondition(reason)),
        }
    }
}

fn answer(shown: &Shown) -> v1::GetLanResponse {
    let left = shown.deadline.and_then(|deadline| {
        let now = clock::now().ok()?;
        u32::try_from(deadline.saturating_sub(now.at).as_secs()).ok()
    });
    v1::GetLanResponse {
        state: shown.state.word().into(),
        detail: shown.detail.clone(),
        last_error: shown.last_error.clone(),
        backend: shown.backend.map(|kind| kind.word().to_owned()).unwrap_or_default(),
        interface: shown.plan.as_ref().map(|plan| plan.interface.clone()).unwrap_or_default(),
        seconds_left: left,
        lease: shown.lease.as_ref().map(|lease| v1::DhcpLease {
            address: lease.cidr.to_string(),
            server: lease.server.clone(),
            seconds: lease.lease_s,
        }),
        name_servers: name_servers(),
        ..v1::GetLanResponse::default()
    }
}

fn ask_kernel(interface: &str, answer: &mut v1::GetLanResponse) -> std::io::Result<()> {
    let links = netlink::links()?;
    let Some(link) = links.get(interface) else { return Ok(()) };
    answer.is_there = true;
    answer.has_carrier = link.has_carrier;
    // Virtual interfaces say -1, those without a carrier nothing.
    let speed = std::fs::read_to_string(format!("/sys/class/net/{interface}/speed")).unwrap_or_default();
    answer.speed_mbit = speed.trim().parse().ok();
    answer.addresses = addresses(link.index)?
        .into_iter()
        .map(|found| v1::LanAddress {
            address: format!("{}/{}", found.address, found.prefix),
            seconds_valid: found.valid_s,
            is_duplicate: found.is_duplicate,
        })
        .collect();
    answer.gateways = default_routes(link.index)?.into_iter().map(|route| route.gateway.to_string()).collect();
    Ok(())
}

fn name_servers() -> Vec<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver"));
    servers.map(|server| server.trim().to_owned()).collect()
}

fn elsewhere<T>(what: &str) -> Result<Response<T>, Status> {
    Err(Status::unimplemented(format!("{what} is not asked of multus-lan")))
}

/// Of the LAN the original knows only whether its process works.
#[async_trait]
impl GRpcService for Board {
    async fn g_rpc_get_lan_status(
        &self,
        _: Request<legacy::RequestMessage>,
    ) -> Result<Response<legacy::ResponseMessage>, Status> {
        elsewhere("gRPCGetLANStatus")
    }

    async fn g_rpc_get_wan_status(
        &self,
        _: Request<legacy::RequestMessage>,
    ) -> Result<Response<legacy::ResponseMessage>, Status> {
        elsewhere("gRPCGetWANStatus")
    }

    async fn g_rpc_get_ovpn_status(
        &self,
        _: Request<legacy::RequestMessage>,
    ) -> Result<Response<legacy::ResponseMessage>, Status> {
        elsewhere("gRPCGetOVPNStatus")
    }

    async fn g_rpc_getmultus_lan_status(
        &self,
        _: Request<legacy::EmptyRequestmultusLan>,
    ) -> Result<Response<legacy::ProcessStatusMessagemultusLan>, Status> {
        let process_ok = self.shared.lock().state != State::Failing;
        Ok(Response::new(legacy::ProcessStatusMessagemultusLan { process_ok }))
    }

    async fn g_rp_cget_lanwan_check_client_versions(
        &self,
        _: Request<legacy::LanwanovpnCheckVersions>,
    ) -> Result<Response<legacy::LanwanovpnCheckVersions>, Status> {
        elsewhere("gRPCgetLANWANCheckClientVersions")
    }
}

/// The keeper answers at once, whatever it does.
pub(crate) const LONGEST_CALL: Duration = Duration::from_secs(10);
