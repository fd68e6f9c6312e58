//! Notifications: who is told, and a try.

use crate::notify::Notifier;
use crate::outward::Traffic;

use super::{Caller, Error, Result, Service};

impl Service {
    /// Gives the service those who are told, once.
    pub(crate) fn set_notifier(&self, notifier: Notifier) {
        // A second one would be a mistake of this program; the first stays.
        let _ = self.inner.notifier.set(notifier);
    }

    /// The names of those who are told what happens.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn notify_targets(&self, caller: &Caller) -> Result<Vec<String>> {
        caller.needs(Caller::USER)?;
        Ok(self.inner.notifier.get().map(Notifier::targets).unwrap_or_default())
    }

    /// Tells a target something harmless, and what came of it. Blocks until it answered, or its time-out is over.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::NotFound`], [`Error::Busy`], [`Error::Refused`] with the reason.
    pub fn notify_test(&self, caller: &Caller, target: &str) -> Result<String> {
        caller.needs(Caller::ADMIN)?;
        let none = || Error::NotFound("there are no targets: notify.targets is empty".into());
        self.inner.notifier.get().ok_or_else(none)?.test(target)
    }

    /// What was sent to them; `None` without any.
    pub(crate) fn notify_traffic(&self) -> Option<Traffic> {
        self.inner.notifier.get().map(Notifier::traffic)
    }
}
