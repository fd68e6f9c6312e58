//! What the program does instead of its work: `--confirm`, `--undo`, `--status`.

use multus_child::{Command, Error};
use multus_net::netlink;
use multus_proto::v1;
use multus_proto::v1::lan_service_client::LanServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::backend::Backends;
use crate::clock;
use crate::config::Config;
use crate::logic::journal::Journal;
use crate::nat::Table;
use crate::serve::LONGEST_CALL;
use crate::store::Store;

pub(crate) static ALL: [Command<Config>; 3] = [
    Command { flag: "confirm", help: "say that the change on trial is to stand, and end", run: confirm },
    Command { flag: "status", help: "print what the running child tells, and end", run: status },
    Command { flag: "undo", help: "take away everything that was set or written, and end", run: undo },
];

fn confirm(config: Config) -> Result<String, Error> {
    ask(&config, async |mut lan| {
        lan.confirm_lan(v1::ConfirmLanRequest {}).await.map(|_| "the change stands\n".to_owned())
    })
}

fn status(config: Config) -> Result<String, Error> {
    ask(&config, async |mut lan| {
        let told = lan.get_lan(v1::GetLanRequest {}).await?.into_inner();
        let mut text = format!("{}: {}\n", told.state, told.detail);
        let mut line = |name: &str, value: String| {
            if !value.is_empty() {
                text.push_str(&format!("{name:<14}{value}\n"));
            }
        };
        line("interface", told.interface);
        line("backend", told.backend);
        line("carrier", if told.has_carrier { "yes".into() } else { "no".into() });
        line("speed", told.speed_mbit.map(|speed| format!("{speed} Mbit/s")).unwrap_or_default());
        for found in told.addresses {
            let valid = found.seconds_valid.map(|seconds| format!(", valid for {seconds} s")).unwrap_or_default();
            line("address", format!("{}{valid}", found.address));
        }
        line("gateway", told.gateways.join(" "));
        line("name servers", told.name_servers.join(" "));
        line("taken back in", told.seconds_left.map(|seconds| format!("{seconds} s")).unwrap_or_default());
        line("last error", told.last_error);
        Ok(text)
    })
}

fn ask(
    config: &Config,
    question: impl AsyncFnOnce(LanServiceClient<Channel>) -> Result<String, tonic::Status>,
) -> Result<String, Error> {
    if config.port == 0 {
        return Err("port = 0: the child listens to nobody".into());
    }
    let address = format!("http://127.0.0.1:{}", config.port);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = Endpoint::from_shared(address.clone())?.timeout(LONGEST_CALL).connect().await;
        let channel = channel.map_err(|_| format!("no multus-lan listens on {address}; is it running?"))?;
        question(LanServiceClient::new(channel)).await.map_err(|status| status.message().to_owned().into())
    })
}

/// As if this program had never been there.
fn undo(_: Config) -> Result<String, Error> {
    let name = std::env::var("MULTUS_NAME").unwrap_or_else(|_| env!("CARGO_PKG_NAME").into());
    let store = Store::open_known(&name)?;
    let mut journal = store.load()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (now, links) = (clock::now()?, netlink::links()?);
        let mut backends = Backends::default();
        for (snapshot, plan) in journal.to_undo() {
            let index = links.get(&plan.interface).map(|link| link.index);
            backends.undo(&snapshot, &plan, index, &now).await?;
        }
        Table::default().remove(&mut journal).await?;
        store.save(&Journal::default())?;
        Ok("everything that multus-lan has set is taken away\n".to_owned())
    })
}
