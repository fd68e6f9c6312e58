//! Who asks: by the peer of the socket, by a token, or by a certificate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use multus_contract::dirs::Dirs;
use multus_users::{Tokens, Users};
use nix::unistd::{Gid, Group};
use tonic::{Request, Status};

use super::connection::{CommonName, Peer};
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
            let proof = proof(&request)?;
            let standing = Standing { proof, known: Arc::clone(&known) };
            let caller = standing.caller().inspect_err(|error| {
                if error.code() == tonic::Code::Unauthenticated {
                    let known = known.read().unwrap_or_else(PoisonError::into_inner);
                    known.refused.lock().unwrap_or_else(PoisonError::into_inner).add(&request);
                }
            })?;
            if let Some(Peer::Remote(.., shown)) = request.extensions().get::<Peer>() {
                shown.known();
            }
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(standing);
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

/// By what somebody is known, so that one can look again later: a stream ends when its rights do.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    proof: Proof,
    known: Arc<RwLock<Known>>,
}

#[derive(Clone, Debug)]
enum Proof {
    /// The peer of the Unix socket, as it was when it connected.
    Local(Option<Caller>),
    Token(String),
    /// The common name of a certificate.
    Name(String),
}

impl Standing {
    /// Of a request that passed the interceptor.
    ///
    /// # Errors
    /// UNAUTHENTICATED: a service without it.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(|| Status::unauthenticated("nobody said who asks"))
    }

    /// Who it is, as of the last look at the files.
    ///
    /// # Errors
    /// UNAUTHENTICATED, PERMISSION_DENIED: nobody who may do anything, or not any more.
    pub(super) fn caller(&self) -> Result<Caller, Status> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        match &self.proof {
            Proof::Local(caller) => {
                let refused = "this user may not: ask as root, as the user of multus-control, or as a member of the socket's group";
                caller.clone().ok_or_else(|| Status::permission_denied(refused))
            }
            Proof::Token(token) => {
                let found = known.tokens.find(token, now).map(|(name, level)| Caller::new(name, level));
                found.ok_or_else(|| Status::unauthenticated("the token is unknown or has expired"))
            }
            Proof::Name(name) => {
                let level = known.tokens.level_of(name, now).or_else(|| known.users.get(name).copied());
                level.map(|level| Caller::new(name, level)).ok_or_else(|| {
                    let why = format!("the certificate of {name:?} is good, but no token or user has that name");
                    Status::permission_denied(why)
                })
            }
        }
    }
}

/// What a request shows. A token that is shown must be good, whatever else is shown.
fn proof(request: &Request<()>) -> Result<Proof, Status> {
    let extensions = request.extensions();
    if let Some(Peer::Local(caller)) = extensions.get::<Peer>() {
        return Ok(Proof::Local(caller.clone()));
    }
    if let Some(header) = request.metadata().get("authorization") {
        let token = header.to_str().ok().and_then(|text| text.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        // Another scheme is as good as a wrong token.
        return Ok(Proof::Token(token.map_or_else(String::new, |(_, token)| token.trim().to_owned())));
    }
    if let Some(Peer::Remote(_, Some(CommonName(name)), _)) = extensions.get::<Peer>() {
        return Ok(Proof::Name(name.clone()));
    }
    Err(Status::unauthenticated("show a token: \"authorization: Bearer TOKEN\" (multusctl token add NAME makes one)"))
}

impl Refused {
    fn add(&mut self, request: &Request<()>) {
        self.untold += 1;
        if self.told.is_none_or(|told| told.elapsed() >= QUIET) {
            let from = match request.extensions().get::<Peer>() {
                Some(Peer::Remote(address, ..)) => address.to_string(),
                _ => "somebody".to_owned(),
            };
            log::warn!("grpc: {from} showed an unknown or expired token ({} such requests)", self.untold);
            (self.untold, self.told) = (0, Some(Instant::now()));
        }
    }
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
