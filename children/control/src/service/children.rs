//! Orders to children.

use multus_contract::api::advice::Advice;
use multus_contract::api::command::{ReloadReport, Request};

use super::status::{no_child, of_name};
use super::{Caller, Error, Result, Service};

/// What can be done with a child. `name` is that of an instance, or of a child for all its instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start it if it is stopped; if it is in back-off, at once.
    Start,
    /// Stop it until it is started again or the daemon is.
    Stop,
    /// Stop it in order and start it.
    Restart,
    /// Let it run, now and for good.
    Enable,
    /// Let it not run, now and for good.
    Disable,
    /// For so many seconds nobody is killed; 0 ends it.
    Snooze(u64),
}

impl Service {
    /// Gives an order. Operators may, except for what lasts ([`Order::Enable`], [`Order::Disable`]): administrators.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] when the daemon says no; [`Error::Unavailable`].
    pub fn order(&self, caller: &Caller, name: &str, order: Order) -> Result<()> {
        caller.needs(match order {
            Order::Enable | Order::Disable => Caller::ADMIN,
            Order::Start | Order::Stop | Order::Restart | Order::Snooze(_) => Caller::OPERATOR,
        })?;
        let owned = name.to_owned();
        let request = match order {
            Order::Start => Request::Start { name: owned },
            Order::Stop => Request::Stop { name: owned },
            Order::Restart => Request::Restart { name: owned },
            Order::Enable => Request::Enable { name: owned },
            Order::Disable => Request::Disable { name: owned },
            Order::Snooze(seconds) if seconds > LONGEST_SNOOZE_S => {
                return Err(Error::field("seconds", format!("at most {LONGEST_SNOOZE_S} (a day)")));
            }
            Order::Snooze(seconds) => Request::Snooze { name: owned, seconds },
        };
        let done = self.inner.daemon.tell(&request);
        self.inner.forget_snapshot();
        done.map_err(|error| self.named(name, error))?;
        log::info!("{}: {order:?} {name}", caller.name);
        Ok(())
    }

    /// Changes how many processes run a child, 1 to 256: in its file, where comments survive, and at once.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], [`Error::Refused`], [`Error::Unavailable`], [`Error::Internal`].
    pub fn set_instances(&self, caller: &Caller, child: &str, instances: u16) -> Result<ReloadReport> {
        caller.needs(Caller::ADMIN)?;
        self.inner.configuration.set_instances(caller, child, instances)?;
        self.reload(caller)
    }

    /// Lets the daemon read its configuration again; only children whose files changed are restarted.
    ///
    /// # Errors
    /// [`Error::Unavailable`]. Mistakes in files are no error, but in the report.
    pub fn reload(&self, caller: &Caller) -> Result<ReloadReport> {
        caller.needs(Caller::ADMIN)?;
        let report = self.inner.daemon.ask(&Request::Reload);
        self.inner.forget_snapshot();
        report
    }

    /// Which deadline suits a child: one entry for each lane of each instance.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] for one that does not beat; [`Error::Unavailable`].
    pub fn advise(&self, caller: &Caller, name: &str) -> Result<Vec<Advice>> {
        caller.needs(Caller::USER)?;
        let advice = self.inner.daemon.ask(&Request::Advise { name: name.to_owned() });
        advice.map_err(|error| self.named(name, error))
    }

    /// The daemon refuses unknown names with a text only.
    fn named(&self, name: &str, error: Error) -> Error {
        let unknown = || {
            let snapshot = self.inner.snapshot().ok()?;
            of_name(&snapshot.status.children, name).next().is_none().then_some(())
        };
        match error {
            Error::Refused(_) if unknown().is_some() => no_child(name),
            other => other,
        }
    }
}

const LONGEST_SNOOZE_S: u64 = 86_400;
