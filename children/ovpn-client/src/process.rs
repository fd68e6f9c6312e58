//! openvpn as a process: checked configuration, private management socket, orderly end.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use multus_child::{Context, Error};
use multus_contract::config::replace_file;
use multus_contract::dirs::{DirFlags, Dirs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use x509_parser::pem::parse_x509_pem;

use crate::config::Config;
use crate::text::{self, Found, Source};

/// A running openvpn.
#[derive(Debug)]
pub(crate) struct OpenVpn {
    pub(crate) child: Child,
    pub(crate) management: UnixStream,
    /// Unix seconds.
    pub(crate) validity: Option<(i64, i64)>,
}

/// Why openvpn does not work.
enum Failed {
    /// It, or this child, does not take the text.
    Text(Error),
    Other(Error),
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl OpenVpn {
    /// Checks the configuration, starts openvpn and connects to its management socket; a few seconds at most. A text that is
    /// not taken does not end a tunnel that was there: the last one that was taken is used instead, and that is told.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub(crate) async fn start(config: &Config, context: &Context) -> Result<Self, Error> {
        let (file, folder) = place(config, context)?;
        let text = read(&file)?;
        let kept = Dirs::resolve(&DirFlags::default()).state.join(format!("{}-tunnel.conf", context.name()));
        let failed = match Self::start_with(config, context, &file, &folder).await {
            Ok(openvpn) => {
                if let Err(error) = keep(&kept, &text) {
                    log::warn!("{}: the text cannot be kept for later: {error}", kept.display());
                }
                return Ok(openvpn);
            }
            Err(Failed::Other(error)) => return Err(error),
            Err(Failed::Text(error)) => error,
        };
        if fs::read_to_string(&kept).map_or(true, |former| former == text) {
            return Err(failed);
        }
        let told = format!("{failed}; going on with the last text that was good");
        told.lines().for_each(|line| log::error!("{line}"));
        context.voice().notice(&told);
        Self::start_with(config, context, &kept, &folder).await.map_err(|_| failed)
    }

    async fn start_with(config: &Config, context: &Context, file: &Path, folder: &Path) -> Result<Self, Failed> {
        let found = checked(file, folder, config.allow_scripts).map_err(Failed::Text)?;
        guard(&found, file, folder)?;
        let socket = socket_path(context.name())?;
        let mut command = Command::new(&config.program);
        command.arg("--cd").arg(folder).arg("--config").arg(file);
        command.arg("--management").arg(&socket).arg("unix").arg("--management-hold");
        // Over a bad password it would otherwise end.
        if !found.has_auth_retry {
            command.args(["--auth-retry", "nointeract"]);
        }
        if !config.allow_scripts {
            // The last word: a directive of a later openvpn that this child does not know runs nothing either.
            command.args(["--script-security", "1"]);
        }
        let mut child =
            command.stdin(Stdio::null()).kill_on_drop(true).spawn().map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => format!("{} is not installed: apt-get install openvpn", config.program),
                _ => format!("{} cannot be run: {error}", config.program),
            })?;
        let management = connect(&socket, &mut child).await?;
        let validity = found.certificate.and_then(|source| validity(&source, folder));
        Ok(Self { child, management, validity })
    }

    /// Asks it to end, and makes it.
    pub(crate) async fn end(mut self) {
        if let Some(pid) = self.child.id() {
            // It may have ended by itself in between.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
        }
        if timeout(GOOD_ORDER, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Looks through the text that a configuration names.
///
/// # Errors
/// All that is wrong, a line each.
pub(crate) fn check_text(config: &Config, context: &Context) -> Result<(), Error> {
    let (file, folder) = place(config, context)?;
    checked(&file, &folder, config.allow_scripts).map(drop)
}

/// The text, and its folder.
fn place(config: &Config, context: &Context) -> Result<(PathBuf, PathBuf), Error> {
    let file = std::path::absolute(config.tunnel.path(context).ok_or("tunnel: no file is named")?)?;
    let folder = file.parent().unwrap_or(Path::new(".")).to_path_buf();
    Ok((file, folder))
}

fn read(file: &Path) -> Result<String, Error> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()).into())
}

/// # Errors
/// All that is wrong with the text, a line each.
pub(crate) fn checked(file: &Path, folder: &Path, allow_scripts: bool) -> Result<Found, Error> {
    let is_there = |name: &str| fs::File::open(folder.join(name)).is_ok();
    text::check(&read(file)?, allow_scripts, is_there).map_err(|wrong| {
        let told: Vec<String> = wrong.iter().map(|wrong| format!("{}: {wrong}", file.display())).collect();
        told.join("\n").into()
    })
}

/// Takes secrets in the text, and in files beside it, from everybody but their owner. Of files elsewhere that is told only:
/// others may need them.
///
/// # Errors
/// A secret that belongs to this child cannot be guarded.
fn guard(found: &Found, file: &Path, folder: &Path) -> Result<(), Error> {
    if found.has_secret {
        close(file)?;
    }
    for file in found.secret_files.iter().map(|name| folder.join(name)) {
        if file.parent() == Some(folder) {
            close(&file)?;
        } else if is_open(&file) {
            log::warn!("{} holds a secret and can be read by others: chmod 600 it", file.display());
        }
    }
    Ok(())
}

fn close(file: &Path) -> Result<(), Error> {
    if !is_open(file) {
        return Ok(());
    }
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).map_err(|error| {
        format!("{} holds a secret and can be read by others, and that cannot be changed: {error}", file.display())
    })?;
    log::warn!("{} holds a secret and could be read by others; it has the mode 0600 now", file.display());
    Ok(())
}

fn is_open(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|data| data.permissions().mode() & 0o077 != 0)
}

/// Keeps a text that was taken, for when the next one is not.
fn keep(file: &Path, text: &str) -> Result<(), Error> {
    if fs::read_to_string(file).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(replace_file(file, text, 0o600)?)
}

/// In a folder of its own that nobody else can look into.
fn socket_path(name: &str) -> Result<PathBuf, Error> {
    let folder = Dirs::resolve(&DirFlags::default()).runtime.join(format!("{name}-openvpn"));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)))
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    let socket = folder.join("management.sock");
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{}: {error}", socket.display()).into()),
        _ => Ok(socket),
    }
}

async fn connect(socket: &Path, child: &mut Child) -> Result<UnixStream, Failed> {
    let end = Instant::now() + START;
    loop {
        if let Ok(stream) = UnixStream::connect(socket).await {
            return Ok(stream);
        }
        if let Ok(Some(status)) = child.try_wait() {
            let told = format!("openvpn ended at its start with {status}; it said why in the lines before");
            return Err(Failed::Text(told.into()));
        }
        if Instant::now() > end {
            return Err(format!("openvpn does not open its management socket {}", socket.display()).into());
        }
        sleep(AGAIN).await;
    }
}

/// When the certificate of this device begins and ends, Unix seconds.
fn validity(source: &Source, folder: &Path) -> Option<(i64, i64)> {
    let pem = match source {
        Source::Inline(text) => text.clone().into_bytes(),
        Source::File(name) => fs::read(folder.join(name)).ok()?,
    };
    let (_, pem) = parse_x509_pem(&pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

const START: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(20);
const GOOD_ORDER: Duration = Duration::from_millis(1500);
