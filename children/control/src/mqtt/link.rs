//! The connection to the broker: kept up by a task of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multus_contract::dirs::Dirs;
use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS, Transport};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::{Config, Counters, Message, Topics, host};
use crate::outward::{Backoff, tls_client};

/// A connection that comes back.
pub(super) struct Link {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    client: Mutex<Option<AsyncClient>>,
    /// Connections so far.
    connection: AtomicU64,
    up: AtomicBool,
    /// Messages that the broker has taken, in this connection, since somebody looked.
    acknowledged: AtomicU64,
    changed: Notify,
    counters: Arc<Counters>,
}

impl Link {
    pub(super) fn start(config: &Config, topics: &Topics, dirs: &Dirs, counters: Arc<Counters>) -> Self {
        let shared = Arc::new(Shared {
            client: Mutex::default(),
            connection: AtomicU64::new(0),
            up: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            changed: Notify::new(),
            counters,
        });
        let keep = Arc::clone(&shared);
        let (config, topics, socket) = (config.clone(), topics.clone(), dirs.runtime.join("control-mqtt.sock"));
        let task = tokio::spawn(async move { keep.keep_up(&config, &topics, &socket).await });
        Self { shared, task }
    }

    /// Waits until something is different.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    pub(super) fn is_up(&self) -> bool {
        self.shared.up.load(Ordering::Relaxed)
    }

    /// Number of the connection, from 1; 0 before the first.
    pub(super) fn connection(&self) -> u64 {
        self.shared.connection.load(Ordering::Relaxed)
    }

    /// Messages that the broker took since the last call: brokers answer in order.
    pub(super) fn take_acknowledged(&self) -> u64 {
        self.shared.acknowledged.swap(0, Ordering::Relaxed)
    }

    /// Hands a message over; false: not now.
    pub(super) fn send(&self, message: &Message) -> bool {
        let client = self.shared.client();
        let send = |client: &AsyncClient| {
            client.try_publish(&message.topic, QoS::AtLeastOnce, message.retain, message.payload.clone()).is_ok()
        };
        client.as_ref().is_some_and(send)
    }

    /// Sends what was handed over, and ends the connection in order.
    pub(super) async fn close(&mut self) {
        let asked = self.shared.client().as_ref().is_some_and(|client| client.try_disconnect().is_ok());
        if asked {
            let _ = (&mut self.task).await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn client(&self) -> MutexGuard<'_, Option<AsyncClient>> {
        lock(&self.client)
    }

    async fn keep_up(self: &Arc<Self>, config: &Config, topics: &Topics, socket: &PathBuf) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut told = false;
        loop {
            // Options and certificates are read anew each time: whoever mends a file needs no restart.
            let failure = match prepare(config, topics, socket) {
                Ok((options, bridge)) => {
                    let reason = bridge.as_ref().map(|bridge| Arc::clone(&bridge.reason));
                    let _bridge = bridge.map(|bridge| AbortOnDrop(tokio::spawn(bridge.run())));
                    let (client, events) = AsyncClient::new(options, CHANNEL);
                    *self.client() = Some(client);
                    match self.follow(events, &mut backoff, &mut told).await {
                        Some(failure) => reason.and_then(|reason| lock(&reason).take()).unwrap_or(failure),
                        None => return,
                    }
                }
                Err(failure) => failure,
            };
            self.up.store(false, Ordering::Relaxed);
            self.counters.up.store(false, Ordering::Relaxed);
            self.counters.failures.fetch_add(1, Ordering::Relaxed);
            *self.client() = None;
            if !std::mem::replace(&mut told, true) {
                log::warn!("mqtt: {}: {failure}; it is tried again until it works", config.host);
            }
            sleep(backoff.failed()).await;
        }
    }

    /// Until the connection fails (why), or was ended in order (`None`).
    async fn follow(&self, mut events: EventLoop, backoff: &mut Backoff, told: &mut bool) -> Option<String> {
        events.network_options.set_connection_timeout(PATIENCE.as_secs());
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    backoff.reset();
                    if std::mem::take(told) {
                        log::info!("mqtt: the broker is there again");
                    }
                    self.acknowledged.store(0, Ordering::Relaxed);
                    self.connection.fetch_add(1, Ordering::Relaxed);
                    self.up.store(true, Ordering::Relaxed);
                    self.counters.up.store(true, Ordering::Relaxed);
                    self.changed.notify_one();
                }
                Ok(Event::Incoming(Packet::PubAck(_))) => {
                    self.counters.sent.fetch_add(1, Ordering::Relaxed);
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    self.changed.notify_one();
                }
                Ok(Event::Outgoing(Outgoing::Disconnect)) => return None,
                Ok(_) => {}
                Err(error) => return Some(error.to_string()),
            }
        }
    }
}

/// Every change is complete before anything could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn prepare(config: &Config, topics: &Topics, socket: &PathBuf) -> Result<(MqttOptions, Option<Bridge>), String> {
    let id = if config.client_id.is_empty() { format!("multus-{}", host()) } else { config.client_id.clone() };
    let port = match (config.port, config.tls) {
        (0, false) => 1883,
        (0, true) => 8883,
        (port, _) => port,
    };
    let mut options;
    let mut bridge = None;
    if config.tls {
        options = MqttOptions::new(id, socket.to_string_lossy(), port);
        options.set_transport(Transport::Unix);
        bridge = Some(Bridge::new(config, port, socket)?);
    } else {
        options = MqttOptions::new(id, &config.host, port);
    }
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_inflight(INFLIGHT)
        .set_max_packet_size(LARGEST, LARGEST)
        .set_last_will(LastWill::new(topics.of("availability"), "offline", QoS::AtLeastOnce, true));
    if !config.user.is_empty() {
        let password = config.password.or_file(&config.password_file)?;
        options.set_credentials(&config.user, password.reveal());
    }
    Ok((options, bridge))
}

/// Carries what the client says in the clear, on a socket of this machine, to the broker over TLS. The client could do
/// TLS itself, but with an outdated library only.
struct Bridge {
    listener: UnixListener,
    connector: TlsConnector,
    name: ServerName<'static>,
    address: (String, u16),
    /// Why it came to nothing; the client sees only a connection that ends.
    reason: Arc<Mutex<Option<String>>>,
}

impl Bridge {
    fn new(config: &Config, port: u16, socket: &PathBuf) -> Result<Self, String> {
        let name = ServerName::try_from(config.host.clone()).map_err(|_| format!("{:?} is no name", config.host))?;
        let connector = TlsConnector::from(tls_client(&config.ca)?);
        // One of an earlier process.
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).map_err(|error| format!("{}: {error}", socket.display()))?;
        let only_us = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(socket, only_us).map_err(|error| format!("{}: {error}", socket.display()))?;
        Ok(Self { listener, connector, name, address: (config.host.clone(), port), reason: Arc::default() })
    }

    async fn run(self) {
        // One at a time: there is one client.
        while let Ok((mut client, _)) = self.listener.accept().await {
            if let Err(error) = self.carry(&mut client).await {
                *lock(&self.reason) = Some(format!("TLS: {error}"));
            }
        }
    }

    async fn carry(&self, client: &mut UnixStream) -> std::io::Result<()> {
        let (host, port) = &self.address;
        let connect = async {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            self.connector.connect(self.name.clone(), stream).await
        };
        let mut broker = timeout(PATIENCE, connect).await??;
        copy_bidirectional(client, &mut broker).await.map(drop)
    }
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Messages on their way; the others wait in the queue of the sender, where the oldest can be dropped.
const INFLIGHT: u16 = 50;
const CHANNEL: usize = 64;
/// Longest message, bytes.
const LARGEST: usize = 256 * 1024;
