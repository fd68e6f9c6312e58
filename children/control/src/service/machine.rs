//! The daemon and the machine as a whole.

use multus_contract::api::command::{LATEST_REBOOT_S, Request};
use multus_contract::api::status::DaemonStatus;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Caller, Error, Result, Service};

/// What the programs and the machine are.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Information {
    /// Version of multus-control.
    pub control_version: String,
    /// The daemon, as in the status; `None` when it cannot be reached.
    pub daemon: Option<DaemonStatus>,
    /// The name of the machine in the network.
    pub host: String,
}

impl Service {
    /// What this is. Works without the daemon, too.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn information(&self, caller: &Caller) -> Result<Information> {
        caller.needs(Caller::USER)?;
        let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let daemon = self.inner.snapshot().ok().map(|snapshot| snapshot.status.daemon.clone());
        Ok(Information { control_version: env!("CARGO_PKG_VERSION").into(), daemon, host })
    }

    /// Stops all children in order and starts the machine anew, in so many seconds (a day at most). Replaces a reboot that
    /// is scheduled.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Refused`] when the daemon says no; [`Error::Unavailable`].
    pub fn reboot(&self, caller: &Caller, seconds: u64) -> Result<()> {
        caller.needs(Caller::ADMIN)?;
        if seconds > LATEST_REBOOT_S {
            return Err(Error::field("seconds", format!("at most {LATEST_REBOOT_S} (a day)")));
        }
        self.inner.daemon.tell(&Request::Reboot { seconds })?;
        log::warn!("{}: reboot in {seconds} s", caller.name);
        Ok(())
    }

    /// Calls a reboot off, if there is time left.
    ///
    /// # Errors
    /// [`Error::Refused`] when the daemon says no; [`Error::Unavailable`].
    pub fn cancel_reboot(&self, caller: &Caller) -> Result<()> {
        caller.needs(Caller::ADMIN)?;
        self.inner.daemon.tell(&Request::RebootCancel)?;
        log::warn!("{}: the reboot is called off", caller.name);
        Ok(())
    }
}
