//! Where configuration, run-time files, logs and state live.
//!
//! Each directory comes from a command line flag, else from its environment variable, else from its fixed place. All
//! programs resolve them here, so that one setting means the same to the daemon, the command line and every child.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The directories as given on a command line; `None` where no flag was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirFlags {
    /// `--config-dir`
    pub config: Option<PathBuf>,
    /// `--runtime-dir`
    pub runtime: Option<PathBuf>,
    /// `--log-dir`
    pub logs: Option<PathBuf>,
    /// `--state-dir`
    pub state: Option<PathBuf>,
}

/// The four directories, absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    /// Configuration: `multusd.toml`, `children/`, `config/`.
    pub config: PathBuf,
    /// What lives as long as the daemon: the control socket, the lock.
    pub runtime: PathBuf,
    /// Log files.
    pub logs: PathBuf,
    /// What survives a restart of the daemon: the event files.
    pub state: PathBuf,
}

impl Dirs {
    /// Resolves flags, then environment, then the fixed places.
    pub fn resolve(flags: &DirFlags) -> Self {
        Self::resolve_with(flags, |name| std::env::var_os(name))
    }

    /// As [`Dirs::resolve`], with the environment given: for tests and for callers that prepare it.
    pub fn resolve_with(flags: &DirFlags, env: impl Fn(&str) -> Option<OsString>) -> Self {
        let pick = |flag: &Option<PathBuf>, variable: &str, fixed: &str| {
            let from_env = || env(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
            let path = flag.clone().or_else(from_env).unwrap_or_else(|| PathBuf::from(fixed));
            // Fails only for an empty path or without a current directory; then the path as given is the best there is.
            std::path::absolute(&path).unwrap_or(path)
        };
        Self {
            config: pick(&flags.config, CONFIG_VARIABLE, "/etc/multusd"),
            runtime: pick(&flags.runtime, RUNTIME_VARIABLE, "/run/multusd"),
            logs: pick(&flags.logs, LOG_VARIABLE, "/var/log/multusd"),
            state: pick(&flags.state, STATE_VARIABLE, "/var/lib/multusd"),
        }
    }

    /// The daemon's own configuration file.
    pub fn daemon_file(&self) -> PathBuf {
        self.config.join("multusd.toml")
    }

    /// The directory with one file for each child.
    pub fn children_dir(&self) -> PathBuf {
        self.config.join("children")
    }

    /// How the child `name` is run and supervised.
    pub fn child_file(&self, name: &str) -> PathBuf {
        self.children_dir().join(format!("{name}.toml"))
    }

    /// The own parameters of the child instance `instance_name`.
    pub fn parameter_file(&self, instance_name: &str) -> PathBuf {
        self.config.join("config").join(format!("{instance_name}.toml"))
    }

    /// The socket on which the daemon takes commands.
    pub fn control_socket(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }

    /// The file whose lock says that a daemon uses this runtime directory.
    pub fn lock_file(&self) -> PathBuf {
        self.runtime.join("multusd.lock")
    }

    /// What the child instance `instance_name` writes to stdout and stderr.
    pub fn child_log(&self, instance_name: &str) -> PathBuf {
        log_file(&self.logs, instance_name)
    }

    /// The daemon's own log.
    pub fn daemon_log(&self) -> PathBuf {
        log_file(&self.logs, "multusd")
    }

    /// Events, one JSON object a line.
    pub fn events_file(&self) -> PathBuf {
        self.state.join("events.jsonl")
    }

    /// The environment variables that hand these directories on to a child.
    pub fn variables(&self) -> [(&'static str, &Path); 4] {
        [
            (CONFIG_VARIABLE, &self.config),
            (RUNTIME_VARIABLE, &self.runtime),
            (LOG_VARIABLE, &self.logs),
            (STATE_VARIABLE, &self.state),
        ]
    }
}

/// The log file of `name` in the log directory `logs`.
pub fn log_file(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("{name}.log"))
}

/// Names the configuration directory.
pub const CONFIG_VARIABLE: &str = "MULTUSD_CONFIG_DIR";
/// Names the runtime directory.
pub const RUNTIME_VARIABLE: &str = "MULTUSD_RUNTIME_DIR";
/// Names the log directory.
pub const LOG_VARIABLE: &str = "MULTUSD_LOG_DIR";
/// Names the state directory.
pub const STATE_VARIABLE: &str = "MULTUSD_STATE_DIR";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_fixed_place() {
        let flags = DirFlags { config: Some("/flag".into()), ..DirFlags::default() };
        let env = |name: &str| match name {
            CONFIG_VARIABLE => Some("/env/config".into()),
            RUNTIME_VARIABLE => Some("/env/run".into()),
            LOG_VARIABLE => Some("".into()),
            _ => None,
        };
        let dirs = Dirs::resolve_with(&flags, env);
        assert_eq!(dirs.config, Path::new("/flag"));
        assert_eq!(dirs.runtime, Path::new("/env/run"));
        assert_eq!(dirs.logs, Path::new("/var/log/multusd"), "an empty variable counts as unset");
        assert_eq!(dirs.state, Path::new("/var/lib/multusd"));
        assert_eq!(dirs.control_socket(), Path::new("/env/run/control.sock"));
        assert_eq!(dirs.child_file("io"), Path::new("/flag/children/io.toml"));
    }

    #[test]
    fn a_relative_directory_becomes_absolute() {
        let flags = DirFlags { state: Some("state".into()), ..DirFlags::default() };
        assert!(Dirs::resolve_with(&flags, |_| None).state.is_absolute());
    }
}
