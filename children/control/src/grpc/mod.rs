//! The gRPC server: `multus.v1` on a Unix socket and on TCP.
//!
//! [`connection`] takes connections and bounds them, [`identity`] finds out who asks, the other modules speak one service
//! each. They only translate: everything is done by [`crate::service`].

mod children;
mod configuration;
mod connection;
mod convert;
mod daemon;
mod events;
mod faults;
mod identity;
mod io;
mod logs;
mod seats;
mod stream;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use multus_child::Error;
use multus_proto::FILE_DESCRIPTOR_SET;
use multus_proto::v1::children_service_server::ChildrenServiceServer;
use multus_proto::v1::configuration_service_server::ConfigurationServiceServer;
use multus_proto::v1::daemon_service_server::DaemonServiceServer;
use multus_proto::v1::events_service_server::EventsServiceServer;
use multus_proto::v1::faults_service_server::FaultsServiceServer;
use multus_proto::v1::io_service_server::IoServiceServer;
use multus_proto::v1::logs_service_server::LogsServiceServer;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use crate::blocking;
use crate::certificates::{Certificates, Files};
use crate::run::Stop;
use crate::service::{Caller, Result as ServiceResult, Service};
use connection::Incoming;
use identity::Directory;

/// The gRPC server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port of the TCP server, such as 127.0.0.1:46000; empty: none. Beyond this machine it needs a
    /// certificate.
    #[schemars(extend("x-edit-level" = 0))]
    pub listen: String,
    /// Whether there is a Unix socket, grpc.sock in the runtime directory, for users of this machine.
    pub socket: bool,
    /// Certificate chain of the server (PEM, an absolute path); empty: plain text.
    #[schemars(extend("x-edit-level" = 0))]
    pub certificate: PathBuf,
    /// Private key of the certificate (PEM, an absolute path).
    #[schemars(extend("x-edit-level" = 0))]
    pub key: PathBuf,
    /// Certificate authority of clients (PEM, an absolute path); empty: clients are known by tokens only. The common
    /// name of a client's certificate is looked up among tokens and users for its level.
    #[schemars(extend("x-edit-level" = 0))]
    pub client_ca: PathBuf,
    /// Connections at one time, each for socket and TCP, 1 to 10000. When all are taken, one that has not shown a token makes room.
    #[schemars(range(min = 1, max = 10_000))]
    pub connections: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:46000".into(),
            socket: true,
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            client_ca: PathBuf::new(),
            connections: 64,
        }
    }
}

impl Config {
    /// What the types cannot express.
    ///
    /// # Errors
    /// What is wrong, for the reader of the file.
    pub fn check(&self) -> Result<(), Error> {
        let has = |path: &Path| !path.as_os_str().is_empty();
        let address = match self.listen.as_str() {
            "" => None,
            text => Some(text.parse::<std::net::SocketAddr>().map_err(|_| {
                format!("grpc.listen: found {text:?}, expected an address and a port such as \"127.0.0.1:46000\"")
            })?),
        };
        if has(&self.certificate) != has(&self.key) {
            return Err("grpc: certificate and key belong together; set both or none".into());
        }
        if has(&self.client_ca) && !has(&self.certificate) {
            return Err("grpc.client_ca: clients show certificates over TLS only; set certificate and key, too".into());
        }
        if address.is_some_and(|address| !address.ip().is_loopback()) && !has(&self.certificate) {
            return Err(
                "grpc.listen: tokens must not cross a network in plain text; set certificate and key, too".into()
            );
        }
        self.files().map_or(Ok(()), |files| files.check())
    }

    /// # Errors
    /// A file cannot be read.
    fn tls(&self) -> Result<Option<Arc<Certificates>>, Error> {
        self.files().map(Certificates::load).transpose()
    }

    /// `None`: there is no certificate.
    fn files(&self) -> Option<Files> {
        (!self.certificate.as_os_str().is_empty()).then(|| Files {
            part: "grpc",
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            client_ca: (!self.client_ca.as_os_str().is_empty()).then(|| self.client_ca.clone()),
            protocol: b"h2",
        })
    }
}

/// Serves until it is asked to end. A port that is taken is tried again and again.
///
/// # Errors
/// A certificate or a key cannot be used.
pub async fn serve(config: Config, service: Service, stop: Stop) -> Result<(), Error> {
    let directory = Arc::new(Directory::new(service.dirs()));
    let (reporter, health) = health_reporter();
    let api = Api { service: service.clone(), stop: stop.clone(), streams: Arc::new(Semaphore::new(MOST_STREAMS)) };
    let reflection = |directory: &Arc<Directory>| -> Result<_, Error> {
        let service = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        Ok(InterceptedService::new(service, directory.interceptor()))
    };
    let server = |incoming: Incoming| -> Result<_, Error> {
        let mut server = Server::builder()
            .concurrency_limit_per_connection(STREAMS_PER_CONNECTION as usize)
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .http2_max_header_list_size(LARGEST_HEADERS)
            .timeout(LONGEST_CALL);
        // Who asks is found out before a service sees the request; only the health is told to everybody.
        macro_rules! guard {
            ($server:ident) => {
                InterceptedService::new(
                    $server::new(api.clone()).max_decoding_message_size(LARGEST_MESSAGE),
                    directory.interceptor(),
                )
            };
        }
        let router = server
            .add_service(health.clone())
            .add_service(reflection(&directory)?)
            .add_service(guard!(ChildrenServiceServer))
            .add_service(guard!(EventsServiceServer))
            .add_service(guard!(ConfigurationServiceServer))
            .add_service(guard!(LogsServiceServer))
            .add_service(guard!(FaultsServiceServer))
            .add_service(guard!(DaemonServiceServer))
            .add_service(guard!(IoServiceServer));
        let stop = stop.clone();
        Ok(router.serve_with_incoming_shutdown(incoming, async move { stop.requested().await }))
    };

    let mut servers = tokio::task::JoinSet::new();
    let tls = config.tls()?;
    if !config.listen.is_empty() {
        let address = config.listen.parse()?;
        let incoming = connection::tcp(address, tls.clone(), config.connections, stop.clone());
        servers.spawn(server(incoming)?);
    }
    if config.socket {
        let path = service.dirs().runtime.join("grpc.sock");
        let group = directory.control_group();
        let incoming = connection::unix(path, group, config.connections, stop.clone());
        servers.spawn(server(incoming)?);
    }
    let rights = async {
        loop {
            // New tokens count, and removed ones do not, from the next look on.
            directory.refresh().await;
            tokio::time::sleep(LOOK).await;
        }
    };
    // Apart: a daemon that answers late holds up this only.
    let health = async {
        loop {
            report(&reporter, &service).await;
            tokio::time::sleep(LOOK).await;
        }
    };
    let renewed = async {
        match tls {
            Some(certificates) => certificates.watch().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = rights => {}
        () = renewed => {}
        () = health => {}
        () = stop.requested() => {}
    }
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    Ok(())
}

/// Tells the standard health service whether the daemon can be reached; the server itself (no name) always can.
async fn report(reporter: &HealthReporter, service: &Service) {
    let service = service.clone();
    let reached = blocking::call(move || service.status(&Caller::own())).await.is_ok();
    let status = if reached { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in ["multus.v1.ChildrenService", "multus.v1.DaemonService"] {
        reporter.set_service_status(name, status).await;
    }
    for name in ["EventsService", "ConfigurationService", "LogsService", "FaultsService", "IoService"] {
        reporter.set_service_status(format!("multus.v1.{name}"), ServingStatus::Serving).await;
    }
}

/// What all services work with.
#[derive(Clone, Debug)]
struct Api {
    service: Service,
    stop: Stop,
    /// Streams under way, of all connections.
    streams: Arc<Semaphore>,
}

impl Api {
    /// Does the work of one call where it may block.
    async fn call<M: Send + 'static, R: Send + 'static>(
        &self,
        request: Request<M>,
        work: impl FnOnce(&Service, &Caller, M) -> ServiceResult<R> + Send + 'static,
    ) -> Result<Response<R>, Status> {
        let caller = identity::caller(&request)?;
        let (service, message) = (self.service.clone(), request.into_inner());
        let done = blocking::call(move || work(&service, &caller, message)).await;
        done.map(Response::new).map_err(convert::status)
    }
}

/// One message of a client: a configuration of half a mebibyte fits.
const LARGEST_MESSAGE: usize = 1 << 20;
const LARGEST_HEADERS: u32 = 16 * 1024;
const STREAMS_PER_CONNECTION: u32 = 64;
const MOST_STREAMS: usize = 256;
/// A peer that does not answer a ping for this long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Until the answer begins. Programs may be asked for their schema, and the daemon may be slow.
const LONGEST_CALL: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(500);
