//! multus-control as gRPC clients see it: a real daemon, a real multus-control, real sockets.

#[path = "../world/mod.rs"]
mod world;

mod access;
mod children;
mod configuration;
mod io;
mod python;
mod streams;
mod texts;

use std::time::Duration;

use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use world::{PATIENCE, PAUSE, World};

/// A port that nobody else has, and no pages.
const ANY_PORT: &str = "[web]\nlisten = []\n[grpc]\nlisten = \"127.0.0.1:0\"\n";
/// Saved changes are applied at once.
const AT_ONCE: &str = "[configuration]\nsettle = \"0s\"\n";
/// A child that does nothing.
const IDLE: &str = "command = [\"/bin/sleep\", \"100000\"]\n[heartbeat]\nmethod = \"none\"\n";

/// A world whose multus-control is ready.
fn started(world: &mut World) {
    world.start();
    world.wait_state("control", "running");
    world.wait_log("control", "grpc: listening on 127.0.0.1:");
    world.wait("the socket", || world.dirs().runtime.join("grpc.sock").exists().then_some(()));
}

/// Looks again and again until there is something to see.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Over the Unix socket.
async fn local(world: &World) -> Channel {
    let uri = format!("unix://{}", world.dirs().runtime.join("grpc.sock").display());
    Endpoint::from_shared(uri).expect("a path").timeout(PATIENCE).connect().await.expect("the socket is there")
}

/// Over TCP.
fn port(world: &World) -> u16 {
    world.wait_log("control", "grpc: listening on 127.0.0.1:").parse().expect("a port")
}

async fn plain(world: &World) -> Channel {
    let uri = format!("http://127.0.0.1:{}", port(world));
    Endpoint::from_shared(uri).expect("an address").timeout(PATIENCE).connect().await.expect("somebody listens")
}

async fn secured(world: &World, tls: ClientTlsConfig) -> Result<Channel, tonic::transport::Error> {
    let uri = format!("https://127.0.0.1:{}", port(world));
    let endpoint = Endpoint::from_shared(uri).expect("an address").timeout(PATIENCE);
    endpoint.tls_config(tls)?.connect_timeout(Duration::from_secs(20)).connect().await
}

/// Shows a token with every request.
#[derive(Clone, Debug)]
struct Bearer(String);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value: AsciiMetadataValue = format!("Bearer {}", self.0).parse().expect("ASCII");
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

fn with_token(channel: &Channel, token: &str) -> InterceptedService<Channel, Bearer> {
    InterceptedService::new(channel.clone(), Bearer(token.to_owned()))
}
