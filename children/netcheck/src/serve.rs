//! gRPC on a port of this machine: `multus.v1.ChecksService`, and the service of the original multusd.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multus_net::serve::LARGEST_MESSAGE;
use multus_proto::legacy;
use multus_proto::legacy::g_rpc_service_server::{GRpcService, GRpcServiceServer};
use multus_proto::v1;
use multus_proto::v1::checks_service_server::{ChecksService, ChecksServiceServer};
use tonic::{Request, Response, Status, async_trait};

use crate::logic::health::State;
use crate::logic::monitor::Target;
use crate::watch::Watched;

/// What is told, on connections of before as well.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<Checks>>);

#[derive(Debug, Default)]
struct Checks {
    checks: Vec<Watched>,
    /// Of the configuration.
    version: String,
}

/// Serves for ever.
pub(crate) async fn serve(port: u16, board: Board) {
    multus_net::serve::for_ever(port, |mut server, incoming| {
        server
            .add_service(ChecksServiceServer::new(board.clone()).max_decoding_message_size(LARGEST_MESSAGE))
            .add_service(GRpcServiceServer::new(board.clone()).max_decoding_message_size(LARGEST_MESSAGE))
            .serve_with_incoming(incoming)
    })
    .await;
}

impl Board {
    /// From now on.
    pub(crate) fn show(&self, checks: Vec<Watched>, version: String) {
        *self.lock() = Checks { checks, version };
    }

    fn lock(&self) -> MutexGuard<'_, Checks> {
        // One thread, and nothing in there panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, name: &str) -> Option<Watched> {
        self.lock().checks.iter().find(|check| check.config.name == name).cloned()
    }

    /// As the original answers. A check that is switched off was never made.
    fn legacy(&self, name: &str) -> Result<Response<legacy::ResponseMessage>, Status> {
        let check = self.check(name).ok_or_else(|| Status::unimplemented(format!("{name} is not checked here")))?;
        let monitor = &check.shown().monitor;
        let seconds = |time: Option<Duration>| time.map_or(0.0, |time| time.as_secs_f64());
        let is_valid = monitor.rounds() > 0;
        Ok(Response::new(legacy::ResponseMessage {
            timestamp_last_check: seconds(monitor.last_check()),
            timestamp_last_ok: seconds(monitor.last_ok()),
            connection_status: is_valid && monitor.is_up(),
            count: i32::try_from(monitor.rounds()).unwrap_or(i32::MAX),
            valid_status: is_valid,
        }))
    }
}

#[async_trait]
impl ChecksService for Board {
    async fn list(&self, _: Request<v1::ListChecksRequest>) -> Result<Response<v1::ListChecksResponse>, Status> {
        Ok(Response::new(v1::ListChecksResponse { checks: self.lock().checks.iter().map(shown).collect() }))
    }
}

#[async_trait]
impl GRpcService for Board {
    async fn g_rpc_get_lan_status(
        &self,
        _: Request<legacy::RequestMessage>,
    ) -> Result<Response<legacy::ResponseMessage>, Status> {
        self.legacy("lan")
    }

    async fn g_rpc_get_wan_status(
        &self,
        _: Request<legacy::RequestMessage>,
    ) -> Result<Response<legacy::ResponseMessage>, Status> {
        self.legacy("wan")
    }

    async fn g_rpc_get_ovpn_status(
        &self,
        _: Request<legacy::RequestMessage>,
    ) -> Result<Response<legacy::ResponseMessage>, Status> {
        self.legacy("vpn")
    }

    async fn g_rpc_getmultus_lan_status(
        &self,
        _: Request<legacy::EmptyRequestmultusLan>,
    ) -> Result<Response<legacy::ProcessStatusMessagemultusLan>, Status> {
        Err(Status::unimplemented("ask multus-lan"))
    }

    async fn g_rp_cget_lanwan_check_client_versions(
        &self,
        _: Request<legacy::LanwanovpnCheckVersions>,
    ) -> Result<Response<legacy::LanwanovpnCheckVersions>, Status> {
        Ok(Response::new(legacy::LanwanovpnCheckVersions {
            software_version: env!("CARGO_PKG_VERSION").into(),
            config_version: self.lock().version.clone(),
        }))
    }
}

fn shown(check: &Watched) -> v1::Check {
    let shown = check.shown();
    let monitor = &shown.monitor;
    let state = match monitor.state() {
        _ if !check.config.enabled => "disabled",
        State::Unknown => "unknown",
        State::Up { .. } => "up",
        State::Down { .. } => "down",
    };
    v1::Check {
        name: check.config.name.into(),
        state: state.into(),
        since: monitor.since().and_then(|since| timestamp(since.unix)),
        last_check: monitor.last_check().and_then(timestamp),
        last_ok: monitor.last_ok().and_then(timestamp),
        rounds: monitor.rounds(),
        changes: monitor.changes(),
        detail: monitor.detail().into(),
        interface: shown.interface.clone().unwrap_or_default(),
        targets: monitor.targets().iter().map(target).collect(),
    }
}

fn target(target: &Target) -> v1::CheckedTarget {
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let latency = target.window.latency();
    v1::CheckedTarget {
        target: target.last.target.clone(),
        good: target.last.result.is_ok(),
        detail: target.last.result.as_ref().err().cloned().unwrap_or_default(),
        latency_us: target.last.result.as_ref().ok().copied().flatten().map(us),
        shortest_us: latency.map(|latency| us(latency.shortest)),
        mean_us: latency.map(|latency| us(latency.mean)),
        longest_us: latency.map(|latency| us(latency.longest)),
        loss_percent: target.window.loss_percent(),
        remembered: u32::try_from(target.window.len()).unwrap_or(u32::MAX),
    }
}

fn timestamp(unix: Duration) -> Option<prost_types::Timestamp> {
    // Below a thousand million.
    let nanos = unix.subsec_nanos().cast_signed();
    i64::try_from(unix.as_secs()).ok().map(|seconds| prost_types::Timestamp { seconds, nanos })
}
