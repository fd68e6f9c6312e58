//! Who asks: by the peer of the socket, by a token, or by a certificate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use multus_contract::dirs::Dirs;
use multus_users::{Tokens, Users};
use nix::unistd::{Gid, Group};
use tonic::transport::server::TlsConnectInfo;
use tonic::{Request, Status};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::connection::Peer;
use crate::service::Caller;

/// Tokens and users, as of the last look at their files.
#[derive(Debug)]
pub(super) struct Directory {
    config: PathBuf,
    known: Arc<RwLock<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    tokens: Tokens,
    /// Levels of users, for certificates in their name.
    users: BTreeMap<String, u32>,
    stamps: [Option<(SystemTime, u64, u64)>; 2],
    refused: Mutex<Refused>,
}

/// Wrong tokens: told at most once in [`QUIET`].
#[derive(Debug, Default)]
struct Refused {
    untold: u64,
    told: Option<Instant>,
}

impl Directory {
    /// Reads the files.
    pub(super) fn new(dirs: &Dirs) -> Self {
        let directory = Self { config: dirs.config.clone(), known: Arc::default() };
        look(&directory.config, &directory.known);
        directory
    }

    /// Reads the files again if they changed.
    pub(super) async fn refresh(&self) {
        let (config, known) = (self.config.clone(), Arc::clone(&self.known));
        // It only reads; were it to panic, the next look would come all the same.
        let _ = tokio::task::spawn_blocking(move || look(&config, &known)).await;
    }

    /// The group whose members may use the daemon, from `multusd.toml`.
    pub(super) fn control_group(&self) -> Option<Gid> {
        let file = self.config.join("multusd.toml");
        let text = std::fs::read_to_string(&file).ok()?;
        let (daemon, _) = multus_contract::config::parse_daemon(&text, &file);
        Some(Group::from_name(&daemon.control_group?).ok()??.gid)
    }

    /// Puts the [`Caller`] into each request, or refuses it.
    pub(super) fn interceptor(&self) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone + use<> {
        let known = Arc::clone(&self.known);
        move |mut request| {
            let caller = identify(&request, &known)?;
            request.extensions_mut().insert(caller);
            Ok(request)
        }
    }
}

/// Who sent this request.
///
/// # Errors
/// UNAUTHENTICATED: a service without the interceptor.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| Status::unauthenticated("nobody said who asks"))
}

fn identify(request: &Request<()>, known: &RwLock<Known>) -> Result<Caller, Status> {
    let known = known.read().unwrap_or_else(PoisonError::into_inner);
    let extensions = request.extensions();
    if let Some(Peer::Local(caller)) = extensions.get::<Peer>() {
        let refused =
            "this user may not: ask as root, as the user of multus-control, or as a member of the socket's group";
        return caller.clone().ok_or_else(|| Status::permission_denied(refused));
    }
    let now = SystemTime::now();
    if let Some(header) = request.metadata().get("authorization") {
        // A token that is shown must be good, whatever else is shown.
        let token = header.to_str().ok().and_then(|text| text.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let found = token.and_then(|(_, token)| known.tokens.find(token.trim(), now));
        let Some((name, level)) = found else {
            known.refused.lock().unwrap_or_else(PoisonError::into_inner).add(request);
            return Err(Status::unauthenticated("the token is unknown or has expired"));
        };
        return Ok(Caller::new(name, level));
    }
    if let Some(name) = extensions.get::<TlsConnectInfo<Peer>>().and_then(common_name) {
        let level = known.tokens.level_of(&name, now).or_else(|| known.users.get(&name).copied());
        let level = level.ok_or_else(|| {
            Status::permission_denied(format!(
                "the certificate of {name:?} is good, but no token or user has that name"
            ))
        })?;
        return Ok(Caller::new(name, level));
    }
    Err(Status::unauthenticated("show a token: \"authorization: Bearer TOKEN\" (multusctl token add NAME makes one)"))
}

impl Refused {
    fn add(&mut self, request: &Request<()>) {
        self.untold += 1;
        if self.told.is_none_or(|told| told.elapsed() >= QUIET) {
            let extensions = request.extensions();
            let secured = extensions.get::<TlsConnectInfo<Peer>>().map(TlsConnectInfo::get_ref);
            let from = match extensions.get::<Peer>().or(secured) {
                Some(Peer::Remote(address)) => address.to_string(),
                _ => "somebody".to_owned(),
            };
            log::warn!("grpc: {from} showed an unknown or expired token ({} such requests)", self.untold);
            (self.untold, self.told) = (0, Some(Instant::now()));
        }
    }
}

/// The common name in the certificate that the client showed; it was verified in the handshake.
fn common_name(connection: &TlsConnectInfo<Peer>) -> Option<String> {
    let certificates = connection.peer_certs()?;
    let (_, certificate) = X509Certificate::from_der(certificates.first()?.as_ref()).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    // Two names would leave open which one is meant.
    names.next().is_none().then_some(name)
}

fn look(config: &Path, known: &RwLock<Known>) {
    let files = [Tokens::file(config), Users::file(config)];
    let stamps = files.each_ref().map(|file| stamp(file));
    if known.read().unwrap_or_else(PoisonError::into_inner).stamps == stamps {
        return;
    }
    // A file with a mistake lets nobody in.
    let tokens = Tokens::load(&files[0]).unwrap_or_else(|error| {
        log::error!("{error}: no token counts");
        Tokens::default()
    });
    let users = Users::load(&files[1]).unwrap_or_else(|error| {
        log::error!("{error}: no user counts");
        Users::default()
    });
    let level = |user: &multus_users::User| if user.read_only { user.level.max(Caller::USER) } else { user.level };
    let users = users.iter().map(|(name, user)| (name.to_owned(), level(user))).collect();
    let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
    (known.tokens, known.users, known.stamps) = (tokens, users, stamps);
}

/// Tells one state of a file from another; `None`: there is none.
fn stamp(file: &Path) -> Option<(SystemTime, u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let data = file.metadata().ok()?;
    Some((data.modified().ok()?, data.ino(), data.size()))
}

const QUIET: Duration = Duration::from_secs(10);
