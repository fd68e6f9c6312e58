//! Pages and JSON API.
//!
//! ```text
//!   browser, program ──TCP, TLS──> guard ──one whole request──> workers (tiny_http, 8 threads) ──> answer
//!                                  limits, time-outs            │  api: /api/v1/*, from one table of routes
//!                                  static files                 │  pages: everything else
//!                                  streams <──"send this"───────┘
//! ```
//! [`guard`] knows connections and nothing of what is asked; the workers know requests and nothing of connections.

mod answer;
pub mod api;
mod guard;
mod live;
pub mod pages;
pub mod problem;
pub mod request;
pub mod response;
pub(crate) mod statics;
mod streams;
#[cfg(test)]
mod testing;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use multus_child::Error;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::net::TcpListener;

use crate::auth::{Auth, Use, Visitor};
use crate::certificates::Files;
use crate::run::Stop;
use crate::service::Service;
use guard::Guard;
use live::Live;
use problem::Problem;
use request::Request;
use streams::Streams;
use worker::Workers;

/// Pages and JSON API.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Addresses and ports to listen on; none: no pages and no API. Beyond this machine (other than 127.0.0.1 and ::1) it
    /// listens only once there is a user.
    pub listen: Vec<String>,
    /// Further names and addresses under which browsers reach this machine, without ports. Known already: localhost, the
    /// address that is connected to, the name of the machine, and that with ".local".
    pub hosts: Vec<String>,
    /// Certificate and key for HTTPS.
    pub tls: Tls,
}

/// Certificate and key for HTTPS; both empty: plain HTTP.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Certificate chain (PEM, an absolute path).
    pub certificate: PathBuf,
    /// Its private key (PEM, an absolute path).
    pub key: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: vec!["127.0.0.1:8080".to_owned()], hosts: Vec::new(), tls: Tls::default() }
    }
}

impl Tls {
    fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }

    /// `None`: there are none.
    fn files(&self) -> Option<Files> {
        self.is_on().then(|| Files {
            part: "web.tls",
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            client_ca: None,
            protocol: b"http/1.1",
        })
    }
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.addresses()?;
        if let Some(bad) = self.hosts.iter().find(|host| !guard::is_host(host)) {
            return Err(format!("web.hosts: {bad:?} is no name and no address (without a port)").into());
        }
        if self.tls.certificate.as_os_str().is_empty() != self.tls.key.as_os_str().is_empty() {
            return Err("web.tls: certificate and key belong together".into());
        }
        match self.tls.files().filter(|_| !self.listen.is_empty()) {
            Some(files) => files.check(),
            None => Ok(()),
        }
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        let address = |text: &String| {
            let fault = || format!("web.listen: {text:?}: expected an address and a port such as 127.0.0.1:8080");
            text.parse().map_err(|_| fault().into())
        };
        self.listen.iter().map(address).collect()
    }
}

/// What everything behind the guard shares.
#[derive(Debug)]
pub struct Web {
    /// What can be seen and done.
    pub service: Service,
    /// Who is who.
    pub auth: Auth,
    /// The pages.
    pub pages: pages::Pages,
    pub(crate) api: api::Api,
    pub(crate) live: Live,
    pub(crate) streams: Streams,
    secure: bool,
}

impl Web {
    fn new(auth: Auth, service: Service, secure: bool) -> std::io::Result<Self> {
        let (api, pages) = (api::Api::new(), pages::Pages::new(&service)?);
        Ok(Self { service, auth, pages, api, live: Live::default(), streams: Streams::default(), secure })
    }

    /// Who sends a request; counts as use of the session, unless a page sends it by itself.
    ///
    /// # Errors
    /// 401: it has an `Authorization` header that is not good.
    pub fn visitor(&self, now: Instant, request: &Request) -> Result<Visitor, Problem> {
        let id = request.cookie(cookie_name(self.secure));
        let by = if request.is_refresh() { Use::OfPage } else { Use::OfPerson };
        Ok(self.auth.visitor(now, id, request.header("authorization"), by)?)
    }

    /// The `Set-Cookie` of a session that begins.
    pub fn cookie(&self, id: &str) -> String {
        format!("{}={id}{}", cookie_name(self.secure), self.cookie_tail())
    }

    /// The `Set-Cookie` that takes the cookie away.
    pub fn no_cookie(&self) -> String {
        format!("{}={}; Max-Age=0", cookie_name(self.secure), self.cookie_tail())
    }

    /// Goes with the session of the browser; no script can read it; no other page can make the browser send it.
    fn cookie_tail(&self) -> &'static str {
        if self.secure { "; Path=/; HttpOnly; SameSite=Strict; Secure" } else { "; Path=/; HttpOnly; SameSite=Strict" }
    }
}

/// Over TLS the browser itself guarantees with this prefix that no neighbour host has set it.
fn cookie_name(secure: bool) -> &'static str {
    if secure { "__Host-multus" } else { "multus" }
}

/// Serves until it is asked to stop.
///
/// # Errors
/// Certificate or key cannot be used, or the workers cannot be started. A port that is taken is tried again.
pub async fn serve(config: Config, service: Service, stop: Stop) -> Result<(), Error> {
    if config.listen.is_empty() {
        log::info!("web.listen is empty: no pages and no API");
        stop.requested().await;
        return Ok(());
    }
    let auth = Auth::new(&service.dirs().config, &service.dirs().runtime);
    let web = Arc::new(Web::new(auth, service, config.tls.is_on())?);
    let workers = Workers::start(&web, &web.service.dirs().runtime)?;
    let guard = Arc::new(Guard::new(Arc::clone(&web), &config, workers.socket())?);
    let mut listeners = tokio::task::JoinSet::new();
    for address in config.addresses()? {
        listeners.spawn(listen(Arc::clone(&web), Arc::clone(&guard), address));
    }
    let tending = async {
        loop {
            web.auth.tend();
            tokio::time::sleep(TEND).await;
        }
    };
    let ended = tokio::select! {
        () = web.live.publish(&web.service, &stop) => Ok(()),
        () = tending => Ok(()),
        () = guard.renew() => Ok(()),
        () = stop.requested() => Ok(()),
        () = no_worker_answers(&guard) => Err("the workers do not answer any more".into()),
    };
    listeners.shutdown().await;
    web.pages.keep();
    drop(workers);
    ended
}

/// Returns when no worker has answered for a long time: all hang. The beat of this process tells only of the guard.
async fn no_worker_answers(guard: &Guard) {
    let mut failures = 0;
    while failures < MOST_FAILURES {
        tokio::time::sleep(PROBE).await;
        failures = if guard.probe().await.is_ok() { 0 } else { failures + 1 };
    }
}

/// Listens on one address, for ever. Beyond this machine only once there is a user; until then on this machine.
async fn listen(web: Arc<Web>, guard: Arc<Guard>, address: SocketAddr) {
    let scheme = if web.secure { "https" } else { "http" };
    if !address.ip().is_loopback() && !web.auth.is_set_up() {
        let inner =
            SocketAddr::new(if address.is_ipv4() { [127, 0, 0, 1].into() } else { LOOPBACK_6.into() }, address.port());
        log::warn!(
            "there is no user: {address} would let anybody in who knows the set-up code, so only {inner} is used until \
             there is one (in a browser on this machine, or with \"multusctl passwd NAME\")"
        );
        let until = async {
            while !web.auth.is_set_up() {
                tokio::time::sleep(TEND).await;
            }
        };
        let meanwhile = async {
            let listener = bind(inner).await;
            log::info!("pages and API on {scheme}://{}", local(&listener, inner));
            Arc::clone(&guard).accept(listener).await;
        };
        tokio::select! {
            () = meanwhile => {}
            () = until => {}
        }
    }
    let listener = bind(address).await;
    log::info!("pages and API on {scheme}://{}", local(&listener, address));
    if !web.secure && !address.ip().is_loopback() {
        log::warn!(
            "{address} is plain HTTP: passwords can be read on the way; set web.tls, or put a proxy with TLS before it"
        );
    }
    guard.accept(listener).await;
}

/// Binds, as soon as it is possible.
async fn bind(address: SocketAddr) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    log::error!("{address} cannot be listened on: {error}; trying again every {} s", TEND.as_secs());
                }
                tokio::time::sleep(TEND).await;
            }
        }
    }
}

fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

const LOOPBACK_6: [u16; 8] = [0, 0, 0, 0, 0, 0, 0, 1];
/// From probe to probe. A failed one takes 10 s at least, when all workers are busy, and so do the next ones.
const PROBE: Duration = Duration::from_secs(20);
const MOST_FAILURES: u32 = 5;
/// How soon it is noticed that there is a user, or that a port is free.
const TEND: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_of_the_configuration_are_found() {
        let good = Config::default();
        assert!(good.check().is_ok());
        let tls = |certificate: &str, key: &str| Tls { certificate: certificate.into(), key: key.into() };
        for bad in [
            Config { listen: vec!["8080".into()], ..good.clone() },
            Config { listen: vec!["localhost:8080".into()], ..good.clone() },
            Config { hosts: vec!["box:80".into()], ..good.clone() },
            Config { hosts: vec!["http://box".into()], ..good.clone() },
            Config { tls: tls("/a", ""), ..good.clone() },
            Config { tls: tls("", "/a"), ..good.clone() },
            Config { tls: tls("/nowhere/web.pem", "/nowhere/web.key"), ..good.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        let unused = Config { listen: vec![], tls: tls("/nowhere/web.pem", "/nowhere/web.key"), ..good.clone() };
        assert!(unused.check().is_ok(), "nobody reads them");
        let more = Config { listen: vec![], hosts: vec!["a.b".into(), "10.0.0.1".into(), "::1".into()], ..good };
        assert!(more.check().is_ok());
    }
}
