//! The service of the original: calls that set outputs, from addresses that are known.

use multus_proto::legacy;
use multus_proto::legacy::g_rp_cmultus_read_dido_server::GRpCmultusReadDido;
use tonic::{Request, Response, Status, async_trait};

use super::service::{Mirror, origin};
use super::{Origin, Sender};
use crate::config::{LEGACY_LINES, Protocol};
use crate::logic::mapping::from_legacy;

/// What is served.
#[derive(Clone, Debug)]
pub(crate) struct Legacy {
    pub(crate) mirror: Mirror,
    /// Of the configuration.
    pub(crate) version: String,
}

impl Legacy {
    fn sender<T>(&self, request: &Request<T>) -> Result<(&Sender, Origin), Status> {
        let origin = origin(request)?;
        let address = origin.address.ip();
        let is_it = |sender: &&Sender| sender.protocol == Protocol::Legacy && sender.may_come_from(address);
        match self.mirror.receiver.senders.iter().find(is_it) {
            Some(sender) => {
                origin.accepted.accept();
                Ok((sender, origin))
            }
            None => {
                self.mirror.receiver.strangers.tell("legacy", |more| {
                    let from = origin.address;
                    log::warn!("{from} speaks as the original does and is refused: no sender has this address{more}");
                });
                Err(Status::permission_denied("this address may not set anything here"))
            }
        }
    }

    /// Applies a message. `true`: the sender had been silent, or was never heard.
    fn take(&self, sender: &Sender, fields: [i32; LEGACY_LINES]) -> Result<bool, Status> {
        let mut state = sender.state();
        let levels = from_legacy(fields).map_err(|(number, value)| {
            Status::invalid_argument(format!(
                "DI{number:02} is {value}: 1 and 0 set an output, a negative number leaves it"
            ))
        })?;
        let is_back = state.link.heard_unnumbered(self.mirror.receiver.started.elapsed());
        for output in &mut state.outputs {
            let level = levels.get(output.place).copied().flatten();
            if level.is_some() {
                output.ask(level);
            }
        }
        Ok(is_back)
    }

    /// Programs of this machine, and devices that may set something.
    fn may_ask<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let origin = origin(request)?;
        if !origin.address.ip().to_canonical().is_loopback() {
            return self.sender(request).map(drop);
        }
        origin.accepted.accept();
        Ok(())
    }
}

#[async_trait]
impl GRpCmultusReadDido for Legacy {
    async fn g_rpc_set_digital_outputs(
        &self,
        request: Request<legacy::MessageDigitalStatus>,
    ) -> Result<Response<legacy::EmptyRequestmultusReadDido>, Status> {
        let (sender, origin) = self.sender(&request)?;
        let legacy::MessageDigitalStatus { di01, di02, di03, di04, di05, di06, di07, di08 } = request.into_inner();
        let fields = [di01, di02, di03, di04, di05, di06, di07, di08];
        let is_back = self.take(sender, fields)?;
        sender.peer.state();
        if is_back || !sender.peer.is_connected() {
            sender.peer.shown().address = origin.address.to_string();
            sender.peer.connected(&format!("from {}", origin.address));
        }
        let results = self.mirror.receiver.results(sender, tokio::time::Instant::now()).await;
        let count = sender.peer.message().states;
        sender.peer.acknowledged((0, count), None, &results);
        Ok(Response::new(legacy::EmptyRequestmultusReadDido { string: String::new() }))
    }

    async fn g_rpc_getmultus_read_dido_status(
        &self,
        request: Request<legacy::EmptyRequestmultusReadDido>,
    ) -> Result<Response<legacy::ProcessStatusMessagemultusReadDido>, Status> {
        self.may_ask(&request)?;
        Ok(Response::new(legacy::ProcessStatusMessagemultusReadDido { process_ok: true }))
    }

    async fn g_rp_cgetmultus_read_dido_versions(
        &self,
        request: Request<legacy::MultusReadDidoVersions>,
    ) -> Result<Response<legacy::MultusReadDidoVersions>, Status> {
        self.may_ask(&request)?;
        Ok(Response::new(legacy::MultusReadDidoVersions {
            software_version: env!("CARGO_PKG_VERSION").into(),
            config_version: self.version.clone(),
        }))
    }
}
