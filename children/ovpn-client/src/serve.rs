//! gRPC on a port of this machine: `multus.v1.OpenVpnService`, and the service of the original multusd.

use multus_net::serve::LARGEST_MESSAGE;
use multus_proto::legacy;
use multus_proto::legacy::g_rp_cmultus_ovpn_client_server::{GRpCmultusOvpnClient, GRpCmultusOvpnClientServer};
use multus_proto::v1;
use multus_proto::v1::open_vpn_service_server::{OpenVpnService, OpenVpnServiceServer};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, async_trait};

use crate::run::Shared;
use crate::tunnel::State;

/// What is told, and who is told to start anew.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    pub(crate) tunnel: Shared,
    pub(crate) restart: mpsc::Sender<()>,
    /// Of the configuration.
    pub(crate) version: String,
}

/// Serves for ever.
pub(crate) async fn serve(port: u16, board: Board) {
    multus_net::serve::for_ever(port, |mut server, incoming| {
        server
            .add_service(OpenVpnServiceServer::new(board.clone()).max_decoding_message_size(LARGEST_MESSAGE))
            .add_service(GRpCmultusOvpnClientServer::new(board.clone()).max_decoding_message_size(LARGEST_MESSAGE))
            .serve_with_incoming(incoming)
    })
    .await;
}

impl Board {
    /// One that is under way already is as good as another.
    fn ask_for_restart(&self) {
        let _ = self.restart.try_send(());
    }
}

#[async_trait]
impl OpenVpnService for Board {
    async fn get_tunnel(&self, _: Request<v1::GetTunnelRequest>) -> Result<Response<v1::GetTunnelResponse>, Status> {
        let tunnel = self.tunnel.lock();
        let time = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
        Ok(Response::new(v1::GetTunnelResponse {
            state: tunnel.state.word().into(),
            since: i64::try_from(tunnel.since.as_secs())
                .ok()
                .map(|seconds| time(seconds, tunnel.since.subsec_nanos().cast_signed())),
            detail: tunnel.detail.clone(),
            address: tunnel.address.clone(),
            server: tunnel.server.clone(),
            received_bytes: tunnel.received,
            sent_bytes: tunnel.sent,
            connects: tunnel.connects,
            pid: tunnel.pid,
            certificate_ends: tunnel.certificate_ends.map(|seconds| time(seconds, 0)),
        }))
    }

    async fn restart_tunnel(
        &self,
        _: Request<v1::RestartTunnelRequest>,
    ) -> Result<Response<v1::RestartTunnelResponse>, Status> {
        self.ask_for_restart();
        Ok(Response::new(v1::RestartTunnelResponse {}))
    }
}

/// Of openvpn the original knows only whether it works; a tunnel that is being connected is at work.
#[async_trait]
impl GRpCmultusOvpnClient for Board {
    async fn g_rpc_getmultus_ovpn_client_status(
        &self,
        _: Request<legacy::EmptyRequestmultusOvpnClient>,
    ) -> Result<Response<legacy::ProcessStatusMessagemultusOvpnClient>, Status> {
        let process_ok = !matches!(self.tunnel.lock().state, State::Exiting);
        Ok(Response::new(legacy::ProcessStatusMessagemultusOvpnClient { process_ok }))
    }

    async fn g_rpc_restartmultus_ovpn_client(
        &self,
        _: Request<legacy::EmptyRequestmultusOvpnClient>,
    ) -> Result<Response<legacy::ProcessStatusMessagemultusOvpnClient>, Status> {
        self.ask_for_restart();
        Ok(Response::new(legacy::ProcessStatusMessagemultusOvpnClient { process_ok: true }))
    }

    async fn g_rp_cgetmultus_ovpn_check_versions(
        &self,
        _: Request<legacy::MultusOvpnCheckVersions>,
    ) -> Result<Response<legacy::MultusOvpnCheckVersions>, Status> {
        Ok(Response::new(legacy::MultusOvpnCheckVersions {
            software_version: env!("CARGO_PKG_VERSION").into(),
            config_version: self.version.clone(),
        }))
    }
}
