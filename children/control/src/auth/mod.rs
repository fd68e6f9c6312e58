//! Who somebody is: users with passwords, sessions, tokens, and the first set-up.
//!
//! One place turns what a request brings (a cookie, a token) into a [`Visitor`]; what that one may do is checked by the
//! service. The files are read again when they change, so `multusctl passwd` takes effect at once: a user who is gone or
//! has another password has no session any more.
//!
//! Secrets are not logged, and neither is a user name that does not exist: it may be a password in the wrong field.

mod secret;
mod sessions;
mod set_up;
mod throttle;

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use multus_users::{Hash, Token, Tokens, User, Users, UsersError, name_fault, password_fault};
use schemars::JsonSchema;
use serde::Serialize;

use crate::gate::Gate;
use crate::service::{Caller, Error};
use secret::Key;
use sessions::Sessions;
use set_up::SetUp;
use throttle::Throttle;

type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything about who is who.
#[derive(Debug)]
pub struct Auth {
    users: Mutex<Cached<Users>>,
    tokens: Mutex<Cached<Tokens>>,
    sessions: Mutex<Sessions>,
    throttle: Mutex<Throttle>,
    set_up: Mutex<SetUp>,
    hashing: Gate,
    runtime_dir: PathBuf,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("user", &self.session.caller).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for UserChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserChange")
            .field("level", &self.level)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

/// Who sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visitor {
    /// It brings nothing.
    Nobody,
    /// Somebody who logged in, with a cookie.
    Session(Session),
    /// A program with a token.
    Token(Caller),
}

/// Whether a request counts as use of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Somebody did something.
    OfPerson,
    /// An open page shows what is new; that alone keeps nobody logged in.
    OfPage,
}

/// Somebody who logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Name and right level, as they are now.
    pub caller: Caller,
    /// May change nothing.
    pub read_only: bool,
    /// Must come back with every request that changes something: as header `X-CSRF-Token` or as form field `csrf`.
    pub csrf: String,
    key: Key,
}

/// A session that has just begun.
#[derive(Clone)]
pub struct Opened {
    /// For the cookie, and for nothing else.
    pub id: String,
    /// The session.
    pub session: Session,
}

/// Why somebody was not let in, or a password not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many failures: try again after this time.
    Wait(Duration),
    /// As the service has it.
    Other(Error),
}

/// A user, as others see one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UserInfo {
    /// The name.
    pub name: String,
    /// The right level, 0 (everything) to 100 (look); lower is mightier.
    pub level: u32,
    /// May change nothing.
    pub read_only: bool,
}

/// A token, as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TokenInfo {
    /// Whose it is.
    pub name: String,
    /// The right level.
    pub level: u32,
    /// When it was made, RFC 3339.
    pub created: String,
    /// From when on it no longer counts, RFC 3339; `null`: never.
    pub expires: Option<String>,
    /// Whether that is over.
    pub expired: bool,
}

/// What is to be changed about a user; `None`: as it is.
#[derive(Clone, Default)]
pub struct UserChange {
    /// The new right level.
    pub level: Option<u32>,
    /// Whether nothing may be changed.
    pub read_only: Option<bool>,
    /// The new password.
    pub password: Option<String>,
}

impl Visitor {
    /// Name and right level, if it is somebody.
    pub fn caller(&self) -> Option<&Caller> {
        match self {
            Self::Nobody => None,
            Self::Session(session) => Some(&session.caller),
            Self::Token(caller) => Some(caller),
        }
    }

    /// The session, if there is one.
    pub fn session(&self) -> Option<&Session> {
        match self {
            Self::Session(session) => Some(session),
            Self::Nobody | Self::Token(_) => None,
        }
    }
}

impl Session {
    /// Whether `given` is the session's own token against forged requests.
    pub fn has_csrf(&self, given: &str) -> bool {
        secret::same(&self.csrf, given)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// A file as it was when it was read.
#[derive(Debug)]
struct Cached<T> {
    path: PathBuf,
    stamp: Option<Stamp>,
    content: Result<Arc<T>, UsersError>,
}

type Stamp = (u64, u64, i64, i64, u64);

impl Auth {
    /// For the users and tokens of this configuration directory. `runtime_dir` is where a set-up code may be put.
    pub fn new(config_dir: &Path, runtime_dir: &Path) -> Self {
        Self {
            users: Mutex::new(Cached::new(Users::file(config_dir), Users::load)),
            tokens: Mutex::new(Cached::new(Tokens::file(config_dir), Tokens::load)),
            sessions: Mutex::default(),
            throttle: Mutex::default(),
            set_up: Mutex::default(),
            hashing: Gate::default(),
            runtime_dir: runtime_dir.to_owned(),
        }
    }

    /// Whether there is a user. A file with a mistake counts: it is no reason to let a stranger make himself administrator.
    pub fn is_set_up(&self) -> bool {
        self.users().map_or(true, |users| !users.is_empty())
    }

    // ---- sessions ---------------------------------------------------------------------------------------------------

    /// Who sends a request with this session id (of the cookie) and this `Authorization` header.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`]: the header is there and no token of ours. A cookie that is none of ours is nobody.
    pub fn visitor(
        &self,
        now: Instant,
        session_id: Option<&str>,
        authorization: Option<&str>,
        by: Use,
    ) -> Result<Visitor> {
        if let Some(authorization) = authorization {
            let token = authorization
                .split_once(' ')
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token.trim());
            let tokens = self.tokens()?;
            let found = token.and_then(|token| tokens.find(token, SystemTime::now()));
            let unknown = || Error::Unauthenticated("the token is unknown or has expired".to_owned());
            return found.map(|(name, level)| Visitor::Token(Caller::new(name, level))).ok_or_else(unknown);
        }
        let Some(id) = session_id else { return Ok(Visitor::Nobody) };
        let found = match by {
            Use::OfPerson => lock(&self.sessions).find(now, id),
            Use::OfPage => {
                let key = secret::key(id);
                lock(&self.sessions).look(now, &key).cloned().map(|entry| (key, entry))
            }
        };
        Ok(found.and_then(|(key, entry)| self.session(key, &entry)).map_or(Visitor::Nobody, Visitor::Session))
    }

    /// Whether a visitor of some time ago would still be let in, and as whom. Does not count as use.
    pub fn still(&self, now: Instant, visitor: &Visitor) -> Visitor {
        match visitor {
            Visitor::Session(Session { key, .. }) => {
                let entry = lock(&self.sessions).look(now, key).cloned();
                entry.and_then(|entry| self.session(*key, &entry)).map_or(Visitor::Nobody, Visitor::Session)
            }
            Visitor::Token(Caller { name, level }) => {
                let still = self.tokens().ok().and_then(|tokens| tokens.level_of(name, SystemTime::now()));
                if still == Some(*level) { visitor.clone() } else { Visitor::Nobody }
            }
            Visitor::Nobody => Visitor::Nobody,
        }
    }

    /// The session of an entry whose user is still the same.
    fn session(&self, key: Key, entry: &sessions::Entry) -> Option<Session> {
        let users = self.users().ok()?;
        let user = users.get(&entry.user).filter(|user| credential(user) == entry.credential);
        let Some(user) = user else {
            lock(&self.sessions).close(&key);
            return None;
        };
        let caller = Caller::new(&entry.user, user.level);
        Some(Session { caller, read_only: user.read_only, csrf: entry.csrf.clone(), key })
    }

    /// Lets somebody in. Blocks for a while: a hash is made.
    ///
    /// # Errors
    /// [`Refusal::Wait`] after failures; [`Error::Unauthenticated`]; [`Error::Busy`].
    pub fn log_in(&self, now: Instant, address: IpAddr, name: &str, password: &str) -> Result<Opened, Refusal> {
        let user = self.checked_password(now, address, name, password)?;
        let (id, csrf) = secret::random().and_then(|id| Ok((id, secret::random()?))).map_err(no_random)?;
        let mut sessions = lock(&self.sessions);
        sessions.open(now, &id, name, credential(&user), csrf);
        let (key, entry) =
            sessions.find(now, &id).ok_or_else(|| Error::Internal("a new session is gone".to_owned()))?;
        drop(sessions);
        log::info!("{name} logged in from {address}");
        let caller = Caller::new(name, user.level);
        Ok(Opened { id, session: Session { caller, read_only: user.read_only, csrf: entry.csrf, key } })
    }

    /// The session ends: its cookie and its token against forged requests are worth nothing from now on.
    pub fn log_out(&self, session: &Session) {
        if lock(&self.sessions).close(&session.key) {
            log::info!("{} logged out", session.caller.name);
        }
    }

    fn checked_password(&self, now: Instant, address: IpAddr, name: &str, password: &str) -> Result<User, Refusal> {
        let users = self.users()?;
        lock(&self.throttle).begin(now, name, address).map_err(Refusal::Wait)?;
        let Some(_pass) = self.hashing.enter(PATIENCE) else {
            lock(&self.throttle).undecided(name, address);
            return Err(Error::Busy("too many log-ins at once; try again in a second".to_owned()).into());
        };
        match users.get(name) {
            Some(user) if user.password.fits(password) => {
                lock(&self.throttle).succeeded(now, name, address);
                Ok(user.clone())
            }
            Some(_) => {
                log::warn!("wrong password for {name} from {address}");
                Err(Error::Unauthenticated(WRONG.to_owned()).into())
            }
            None => {
                Hash::pretend(password);
                log::warn!("log-in with an unknown user name from {address}");
                Err(Error::Unauthenticated(WRONG.to_owned()).into())
            }
        }
    }

    // ---- set-up -----------------------------------------------------------------------------------------------------

    /// Keeps the set-up code in step with the users: there is one exactly while there is no user. To be called at the start
    /// and now and then.
    pub fn tend(&self) {
        let open = !self.is_set_up();
        let hidden = self.tokens().map_or(true, |tokens| tokens.iter().next().is_some());
        lock(&self.set_up).tend(open, hidden, &self.runtime_dir);
    }

    /// Makes the first user, an administrator, for somebody who knows the code.
    ///
    /// # Errors
    /// [`Refusal::Wait`] after failures; [`Error::Refused`]: there is a user already; [`Error::Forbidden`]: the code is
    /// wrong; [`Error::Invalid`]: name or password is not possible.
    pub fn set_up(&self, now: Instant, address: IpAddr, code: &str, name: &str, password: &str) -> Result<(), Refusal> {
        self.tend();
        if self.is_set_up() {
            return Err(Error::Refused("there are users already; log in".to_owned()).into());
        }
        check_name(name)?;
        check_password(name, password, "password")?;
        lock(&self.throttle).begin(now, SET_UP, address).map_err(Refusal::Wait)?;
        if !lock(&self.set_up).is_code(code) {
            log::warn!("wrong set-up code from {address}");
            return Err(
                Error::Forbidden("the code is not the one that multus-control wrote to its log".to_owned()).into()
            );
        }
        let password = self.hash(password)?;
        let user = User { level: Caller::ADMIN, read_only: false, password };
        self.change(|users| {
            // Somebody may have been faster.
            if !users.is_empty() {
                return Err(Error::Refused("there are users already; log in".to_owned()));
            }
            users.set(name, user).map_err(|why| Error::field("name", why))
        })?;
        lock(&self.throttle).succeeded(now, SET_UP, address);
        self.tend();
        log::info!("set up: {name} is the first administrator, from {address}");
        Ok(())
    }

    // ---- users ------------------------------------------------------------------------------------------------------

    /// All users. Administrators may look.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::Internal`]: the file has a mistake.
    pub fn list(&self, caller: &Caller) -> Result<Vec<UserInfo>> {
        caller.needs(Caller::ADMIN)?;
        Ok(self.users()?.iter().map(|(name, user)| info(name, user)).collect())
    }

    /// Makes a user. Nobody can make one who is mightier than himself.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::Invalid`]; [`Error::Refused`]: there is one of that name; [`Error::Busy`].
    pub fn add(&self, caller: &Caller, name: &str, level: u32, read_only: bool, password: &str) -> Result<UserInfo> {
        caller.needs(Caller::ADMIN)?;
        caller.needs(level)?;
        check_name(name)?;
        check_level(level)?;
        check_password(name, password, "password")?;
        let user = User { level, read_only, password: self.hash(password)? };
        let info = info(name, &user);
        self.change(|users| {
            if users.get(name).is_some() {
                return Err(Error::Refused(format!("there is a user {name} already")));
            }
            users.set(name, user).map_err(|why| Error::field("name", why))
        })?;
        log::info!("{}: new user {name}, level {level}{}", caller.name, if read_only { ", read only" } else { "" });
        Ok(info)
    }

    /// Changes a user. Nobody can change one who is mightier than himself, or make one so, and one administrator stays.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::NotFound`], [`Error::Invalid`], [`Error::Refused`], [`Error::Busy`].
    pub fn edit(&self, caller: &Caller, name: &str, change: &UserChange) -> Result<UserInfo> {
        caller.needs(Caller::ADMIN)?;
        if let Some(level) = change.level {
            check_level(level)?;
            caller.needs(level)?;
        }
        let hash = match &change.password {
            None => None,
            Some(password) => {
                check_password(name, password, "password")?;
                Some(self.hash(password)?)
            }
        };
        let (_, info) = self.change(|users| {
            let mut user = users.get(name).cloned().ok_or_else(|| no_user(name))?;
            caller.needs(user.level)?;
            user.level = change.level.unwrap_or(user.level);
            user.read_only = change.read_only.unwrap_or(user.read_only);
            user.password = hash.unwrap_or(user.password);
            let info = info(name, &user);
            users.set(name, user).map_err(|why| Error::field("level", why))?;
            somebody_stays(users).map(|()| info)
        })?;
        if change.password.is_some() {
            lock(&self.sessions).close_user(name, None);
        }
        let UserInfo { level, read_only, .. } = &info;
        let password = if change.password.is_some() { ", new password" } else { "" };
        log::info!("{}: user {name} changed: level {level}, read only {read_only}{password}", caller.name);
        Ok(info)
    }

    /// Takes a user away; all sessions end.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::NotFound`], [`Error::Refused`]: the last administrator.
    pub fn remove(&self, caller: &Caller, name: &str) -> Result<()> {
        caller.needs(Caller::ADMIN)?;
        self.change(|users| {
            let user = users.get(name).ok_or_else(|| no_user(name))?;
            caller.needs(user.level)?;
            users.remove(name);
            somebody_stays(users)
        })?;
        lock(&self.sessions).close_user(name, None);
        log::info!("{}: user {name} removed", caller.name);
        Ok(())
    }

    /// Changes one's own password; all other sessions of the user end.
    ///
    /// # Errors
    /// [`Refusal::Wait`], [`Error::Forbidden`]: the old one is wrong; [`Error::Invalid`]; [`Error::Busy`].
    pub fn change_password(
        &self,
        now: Instant,
        address: IpAddr,
        session: &Session,
        old: &str,
        new: &str,
    ) -> Result<(), Refusal> {
        let name = &session.caller.name;
        check_password(name, new, "new")?;
        self.checked_password(now, address, name, old).map_err(|refusal| match refusal {
            Refusal::Other(Error::Unauthenticated(_)) => {
                Error::Forbidden("the old password is wrong".to_owned()).into()
            }
            other => other,
        })?;
        let password = self.hash(new)?;
        let (users, ()) = self.change(|users| {
            let user = users.get(name).cloned().ok_or_else(|| no_user(name))?;
            users.set(name, User { password, ..user }).map_err(|why| Error::field("new", why))
        })?;
        let mut sessions = lock(&self.sessions);
        sessions.close_user(name, Some(&session.key));
        if let Some(user) = users.get(name) {
            sessions.renew(&session.key, credential(user));
        }
        log::info!("{name} has a new password, from {address}");
        Ok(())
    }

    // ---- tokens -----------------------------------------------------------------------------------------------------

    /// All tokens, but for what is shown. Administrators may look.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::Internal`]: the file has a mistake.
    pub fn list_tokens(&self, caller: &Caller) -> Result<Vec<TokenInfo>> {
        caller.needs(Caller::ADMIN)?;
        Ok(self.tokens()?.iter().map(token_info).collect())
    }

    /// Makes a token, which is given back and never shown again. Nobody can make one that is mightier than himself.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::Invalid`]; [`Error::Refused`]: there is one of that name.
    pub fn add_token(&self, caller: &Caller, name: &str, level: u32, expires: Option<SystemTime>) -> Result<String> {
        caller.needs(Caller::ADMIN)?;
        caller.needs(level)?;
        check_name(name)?;
        check_level(level)?;
        if expires.is_some_and(|expires| expires <= SystemTime::now()) {
            return Err(Error::field("expires", "this time is over"));
        }
        if self.tokens()?.iter().any(|token| token.name == name) {
            return Err(Error::Refused(format!("there is a token {name} already")));
        }
        let path = lock(&self.tokens).path.clone();
        let token = Tokens::add(&path, name, level, expires).map_err(|error| Error::Refused(error.to_string()))?;
        log::info!("{}: new token {name}, level {level}", caller.name);
        Ok(token)
    }

    /// Takes a token away: it counts no more.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::NotFound`], [`Error::Internal`].
    pub fn remove_token(&self, caller: &Caller, name: &str) -> Result<()> {
        caller.needs(Caller::ADMIN)?;
        let unknown = || Error::NotFound(format!("there is no token {name:?}"));
        let tokens = self.tokens()?;
        let token = tokens.iter().find(|token| token.name == name).ok_or_else(unknown)?;
        caller.needs(token.level)?;
        let path = lock(&self.tokens).path.clone();
        if !Tokens::remove(&path, name).map_err(|error| Error::Internal(error.to_string()))? {
            return Err(unknown());
        }
        log::info!("{}: token {name} removed", caller.name);
        Ok(())
    }

    fn hash(&self, password: &str) -> Result<Hash> {
        let busy = || Error::Busy("too many log-ins at once; try again in a second".to_owned());
        let _pass = self.hashing.enter(PATIENCE).ok_or_else(busy)?;
        Hash::of(password).map_err(Error::Internal)
    }

    // ---- the file ---------------------------------------------------------------------------------------------------

    fn users(&self) -> Result<Arc<Users>> {
        lock(&self.users).now(Users::load)
    }

    fn tokens(&self) -> Result<Arc<Tokens>> {
        lock(&self.tokens).now(Tokens::load)
    }

    /// Changes the file of the users; what it says now, and what `change` gave.
    fn change<T>(&self, change: impl FnOnce(&mut Users) -> Result<T>) -> Result<(Users, T)> {
        struct Fault(Error);
        impl From<UsersError> for Fault {
            fn from(error: UsersError) -> Self {
                Self(Error::Internal(error.to_string()))
            }
        }
        // Writers wait for each other at the file, and for the disk. Readers wait for neither: the next one finds the file
        // replaced and reads it.
        let path = lock(&self.users).path.clone();
        let changed = Users::change(&path, |users| change(users).map_err(Fault));
        changed.map_err(|Fault(error)| error)
    }
}

impl<T> Cached<T> {
    fn new(path: PathBuf, load: fn(&Path) -> Result<T, UsersError>) -> Self {
        let stamp = stamp(&path);
        Self { stamp, content: Self::read(&path, load), path }
    }

    /// What the file says now. It is read again when it has changed.
    fn now(&mut self, load: fn(&Path) -> Result<T, UsersError>) -> Result<Arc<T>> {
        // The stamp first: what changes meanwhile is read again.
        let stamp = stamp(&self.path);
        if stamp != self.stamp {
            self.stamp = stamp;
            self.content = Self::read(&self.path, load);
        }
        self.content.clone().map_err(|error| Error::Internal(error.to_string()))
    }

    fn read(path: &Path, load: fn(&Path) -> Result<T, UsersError>) -> Result<Arc<T>, UsersError> {
        let content = load(path).map(Arc::new);
        if let Err(error) = &content {
            log::error!("nobody is let in by this file: {error}");
        }
        content
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is complete before anything could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let data = fs::metadata(path).ok()?;
    Some((data.dev(), data.ino(), data.mtime(), data.mtime_nsec(), data.size()))
}

/// What a session is bound to: another password makes another one.
fn credential(user: &User) -> Key {
    secret::key(user.password.as_str())
}

fn info(name: &str, user: &User) -> UserInfo {
    UserInfo { name: name.to_owned(), level: user.level, read_only: user.read_only }
}

fn token_info(token: &Token) -> TokenInfo {
    let Token { name, level, created, expires, .. } = token.clone();
    TokenInfo { name, level, created, expires, expired: !token.counts(SystemTime::now()) }
}

fn somebody_stays(users: &Users) -> Result<()> {
    let stays = users.iter().any(|(_, user)| user.level <= Caller::ADMIN && !user.read_only);
    let last = || Error::Refused("one administrator must stay who may change things".to_owned());
    stays.then_some(()).ok_or_else(last)
}

fn check_name(name: &str) -> Result<()> {
    name_fault(name).map_or(Ok(()), |fault| Err(Error::field("name", fault)))
}

fn check_level(level: u32) -> Result<()> {
    if level > Caller::USER { Err(Error::field("level", "0 to 100 are possible")) } else { Ok(()) }
}

fn check_password(name: &str, password: &str, field: &str) -> Result<()> {
    password_fault(name, password).map_or(Ok(()), |fault| Err(Error::field(field, fault)))
}

fn no_user(name: &str) -> Error {
    Error::NotFound(format!("there is no user {name:?}"))
}

/// A name for a file or a directory that nobody can guess.
pub(crate) fn random_name() -> std::io::Result<String> {
    secret::random().map(|name| name[..12].to_owned())
}

fn no_random(error: std::io::Error) -> Error {
    Error::Internal(error.to_string())
}

/// The same for an unknown user and a wrong password.
const WRONG: &str = "user name or password is wrong";
/// How long a log-in waits for others.
const PATIENCE: Duration = Duration::from_secs(5);
/// Counts tries of the set-up code; cannot be the name of a user.
const SET_UP: &str = "set-up code";

#[cfg(test)]
mod tests;
