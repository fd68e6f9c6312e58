//! Asks the checks by gRPC, in the words of multus.v1 or of the original.

use std::time::Duration;

use multus_proto::legacy::g_rpc_service_client::GRpcServiceClient;
use multus_proto::legacy::{RequestMessage, ResponseMessage};
use multus_proto::v1::ListChecksRequest;
use multus_proto::v1::checks_service_client::ChecksServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::config::{Config, Protocol};
use crate::show::{Known, Network};

/// The way to both checks.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    lanwan: Option<Channel>,
    openvpn: Option<Channel>,
    protocol: Protocol,
}

impl Checks {
    /// Connects when the first question is asked. Needs a runtime.
    ///
    /// # Errors
    /// An address is none.
    pub(crate) fn new(config: &Config) -> Result<Self, tonic::transport::Error> {
        let timeout = config.timeout.duration();
        Ok(Self {
            lanwan: channel(&config.lanwan_check, timeout)?,
            openvpn: channel(&config.openvpn_check, timeout)?,
            protocol: config.protocol,
        })
    }

    /// Asks all at the same time.
    pub(crate) async fn ask(&self) -> Network {
        let (lan, internet, tunnel) = tokio::join!(
            self.one(self.lanwan.as_ref(), "lan"),
            self.one(self.lanwan.as_ref(), "wan"),
            self.one(self.openvpn.as_ref(), "vpn"),
        );
        Network { lan, internet, tunnel }
    }

    async fn one(&self, channel: Option<&Channel>, check: &str) -> Known {
        let Some(channel) = channel.cloned() else { return Known::LeftOut };
        let answered = match self.protocol {
            Protocol::Multus => modern(channel, check).await,
            Protocol::Original => legacy(channel, check).await,
        };
        answered.unwrap_or_else(|status| {
            log::debug!("{check}: {status}");
            Known::Unreachable
        })
    }
}

fn channel(address: &str, timeout: Duration) -> Result<Option<Channel>, tonic::transport::Error> {
    if address.is_empty() {
        return Ok(None);
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(timeout).timeout(timeout);
    Ok(Some(endpoint.connect_lazy()))
}

async fn modern(channel: Channel, check: &str) -> Result<Known, Status> {
    let mut client = ChecksServiceClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE);
    let checks = client.list(ListChecksRequest {}).await?.into_inner().checks;
    let state = checks.into_iter().find(|shown| shown.name == check).map(|shown| shown.state);
    Ok(match state.as_deref() {
        Some("up") => Known::Up,
        Some("down") => Known::Down,
        Some("unknown") => Known::NotYet,
        // Not there, switched off, or a word of a later version.
        _ => Known::Unreachable,
    })
}

async fn legacy(channel: Channel, check: &str) -> Result<Known, Status> {
    let mut client = GRpcServiceClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE);
    let question = RequestMessage { request_message_member_string: String::new() };
    let answer: Result<Response<ResponseMessage>, Status> = match check {
        "lan" => client.g_rpc_get_lan_status(question).await,
        "wan" => client.g_rpc_get_wan_status(question).await,
        _ => client.g_rpc_get_ovpn_status(question).await,
    };
    let answer = answer?.into_inner();
    Ok(match (answer.valid_status, answer.connection_status) {
        (false, _) => Known::NotYet,
        (true, true) => Known::Up,
        (true, false) => Known::Down,
    })
}

/// 32 hosts with their reasons fit.
const LARGEST_MESSAGE: usize = 256 * 1024;
