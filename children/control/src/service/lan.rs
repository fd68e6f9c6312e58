//! What multus-lan tells of the LAN, and its question whether a change is to stand. It is asked by gRPC on this machine.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use multus_proto::v1;
use multus_proto::v1::lan_service_client::LanServiceClient;
use schemars::JsonSchema;
use serde::Serialize;
use tonic::transport::{Channel, Endpoint};

use super::status::no_child;
use super::{Caller, Error, Result, Service};

/// The LAN of a child that runs multus-lan.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Lan {
    /// One word: "idle", "waiting", "applying", "pending" (on trial), "confirmed", "rejected" or "failing"; "silent": the child
    /// does not answer, and nothing is known.
    pub state: String,
    /// More of it, for people.
    pub detail: String,
    /// Why the last thing that failed did so; empty: nothing has.
    pub last_error: String,
    /// Who sets up the interface.
    pub backend: String,
    /// The interface; empty: none is configured.
    pub interface: String,
    /// Whether it has a carrier.
    pub has_carrier: bool,
    /// Speed of the line, Mbit/s.
    pub speed_mbit: Option<u32>,
    /// Addresses with the length of the prefix.
    pub addresses: Vec<LanAddress>,
    /// What a DHCP server gave, where multus-lan itself asks for it.
    pub lease: Option<DhcpLease>,
    /// Routers of the default routes.
    pub gateways: Vec<String>,
    /// Name servers of the machine.
    pub name_servers: Vec<String>,
    /// Time until a change on trial is taken back, seconds.
    pub seconds_left: Option<u32>,
}

/// An address of the interface.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LanAddress {
    /// With the length of its prefix.
    pub address: String,
    /// How long it is still valid, seconds; without: for ever.
    pub seconds_valid: Option<u32>,
    /// Whether the kernel has found it in use by somebody else.
    pub is_duplicate: bool,
}

/// A lease of DHCP.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DhcpLease {
    /// The address with the length of its prefix.
    pub address: String,
    /// Address of the server; empty: not told.
    pub server: String,
    /// Length of the whole lease, seconds; without: not told.
    pub seconds: Option<u32>,
}

impl Service {
    /// What a child that runs multus-lan tells; `None`: it is another program, or is configured to answer nobody.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`], [`Error::Unavailable`].
    pub fn lan(&self, caller: &Caller, name: &str) -> Result<Option<Lan>> {
        caller.needs(Caller::USER)?;
        let Some(port) = self.lan_port(caller, name)? else { return Ok(None) };
        let answer = ask(port, async |mut lan| lan.get_lan(v1::GetLanRequest {}).await);
        Ok(Some(answer.map_or_else(|_| silent(name), |answer| shown(answer.into_inner()))))
    }

    /// The change on trial is to stand. Operators may.
    ///
    /// # Errors
    /// [`Error::Refused`] when nothing is on trial; as [`Service::lan`].
    pub fn confirm_lan(&self, caller: &Caller, name: &str) -> Result<()> {
        caller.needs(Caller::OPERATOR)?;
        let port = self.lan_port(caller, name)?;
        let port = port.ok_or_else(|| Error::Refused(format!("{name} does not set up a LAN, or listens to nobody")))?;
        let confirmed = ask(port, async |mut lan| lan.confirm_lan(v1::ConfirmLanRequest {}).await);
        confirmed.map(drop).map_err(|status| match status.code() {
            tonic::Code::FailedPrecondition => Error::Refused(status.message().to_owned()),
            _ => Error::Unavailable(format!("{name} does not answer: {}", status.message())),
        })?;
        log::info!("{}: confirm {name}", caller.name);
        Ok(())
    }

    /// Where it listens, if it is one.
    fn lan_port(&self, caller: &Caller, name: &str) -> Result<Option<u16>> {
        let children = self.children(caller, Some(name))?;
        let [child] = children.as_slice() else { return Err(no_child(name)) };
        let table = |file: std::path::PathBuf| {
            std::fs::read_to_string(file).ok().and_then(|text| text.parse::<toml_edit::DocumentMut>().ok())
        };
        // name, or that of an instance: name_n.
        let dirs = &self.inner.dirs;
        let numbered = name.strip_suffix(&format!("_{}", child.instance)).unwrap_or(name);
        let own = [name, numbered].into_iter().find_map(|child| table(dirs.child_file(child)));
        let program = own.as_ref().and_then(|own| own.get("command")?.as_array()?.get(0)?.as_str().map(str::to_owned));
        if program.is_none_or(|program| program.rsplit('/').next() != Some("multus-lan")) {
            return Ok(None);
        }
        let port = table(dirs.parameter_file(name)).and_then(|table| table.get("port")?.as_integer());
        let port = port.unwrap_or(PORT);
        Ok((port > 0).then(|| port.saturating_add(child.instance.into())).and_then(|port| u16::try_from(port).ok()))
    }
}

fn silent(name: &str) -> Lan {
    Lan { state: "silent".into(), detail: format!("{name} does not answer"), ..Lan::default() }
}

fn shown(answer: v1::GetLanResponse) -> Lan {
    let address =
        |v1::LanAddress { address, seconds_valid, is_duplicate }| LanAddress { address, seconds_valid, is_duplicate };
    Lan {
        state: answer.state,
        detail: answer.detail,
        last_error: answer.last_error,
        backend: answer.backend,
        interface: answer.interface,
        has_carrier: answer.has_carrier,
        speed_mbit: answer.speed_mbit,
        addresses: answer.addresses.into_iter().map(address).collect(),
        lease: answer.lease.map(|v1::DhcpLease { address, server, seconds }| DhcpLease { address, server, seconds }),
        gateways: answer.gateways,
        name_servers: answer.name_servers,
        seconds_left: answer.seconds_left,
    }
}

/// Blocks, two seconds at most.
fn ask<T>(
    port: u16,
    question: impl AsyncFnOnce(LanServiceClient<Channel>) -> std::result::Result<T, tonic::Status>,
) -> std::result::Result<T, tonic::Status> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let failed = |error: &dyn std::fmt::Display| tonic::Status::unavailable(error.to_string());
    // Who does not listen refuses at once; that costs no runtime.
    TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| failed(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| failed(&error))?;
        let channel = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect().await;
        question(LanServiceClient::new(channel.map_err(|error| failed(&error))?)).await
    })
}

/// As multus-lan has it without a configuration.
const PORT: i64 = 46003;
const PATIENCE: Duration = Duration::from_secs(2);
