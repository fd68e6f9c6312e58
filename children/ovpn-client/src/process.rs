//! openvpn as a process: checked configuration, private management socket, orderly end.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use multus_child::{Context, Error};
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

impl OpenVpn {
    /// Checks the configuration, starts openvpn and connects to its management socket; a few seconds at most.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub(crate) async fn start(config: &Config, context: &Context) -> Result<Self, Error> {
        let file = std::path::absolute(config.tunnel.path(context).ok_or("tunnel: no file is named")?)?;
        let folder = file.parent().unwrap_or(Path::new(".")).to_path_buf();
        let found = checked(&file, &folder, config.allow_scripts)?;
        let socket = socket_path(context.name())?;
        let mut command = Command::new(&config.program);
        command.arg("--cd").arg(&folder).arg("--config").arg(&file);
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
        let validity = found.certificate.and_then(|source| validity(&source, &folder));
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

fn checked(file: &Path, folder: &Path, allow_scripts: bool) -> Result<Found, Error> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mode = fs::metadata(file).map_or(0, |data| data.permissions().mode());
    if mode & 0o077 != 0 && (text.contains("PRIVATE KEY") || text.contains("Static key")) {
        log::warn!("{} holds a secret and can be read by others: chmod 600 it", file.display());
    }
    let is_there = |name: &str| fs::File::open(folder.join(name)).is_ok();
    text::check(&text, allow_scripts, is_there).map_err(|wrong| {
        let told: Vec<String> = wrong.iter().map(|wrong| format!("{}: {wrong}", file.display())).collect();
        told.join("\n").into()
    })
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

async fn connect(socket: &Path, child: &mut Child) -> Result<UnixStream, Error> {
    let end = Instant::now() + START;
    loop {
        if let Ok(stream) = UnixStream::connect(socket).await {
            return Ok(stream);
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("openvpn ended at its start with {status}; it said why in the lines before").into());
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
