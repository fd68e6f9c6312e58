//! The event database, for those who may look.

use crate::history::{Counts, Entry, Format, History, IoChange, IoQuery, Page, Query, Stats};

use super::{Caller, Error, Result, Service};

impl Service {
    /// Gives the service its event database, once.
    pub(crate) fn set_history(&self, history: History) {
        // A second one would be a mistake of this program; the first stays.
        let _ = self.inner.history.set(history);
    }

    /// Events of all time, a page of them. Blocks, some seconds at worst.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Refused`] without a database, [`Error::Busy`], [`Error::Unavailable`].
    pub fn event_history(&self, caller: &Caller, query: &Query) -> Result<Page<Entry>> {
        self.history_for(caller)?.events(query)
    }

    /// How many events fit a query.
    ///
    /// # Errors
    /// As [`Service::event_history`].
    pub fn event_counts(&self, caller: &Caller, query: &Query) -> Result<Counts> {
        self.history_for(caller)?.counts(query)
    }

    /// Changes of lines, with the numbers of their rows.
    ///
    /// # Errors
    /// As [`Service::event_history`].
    pub fn io_history(&self, caller: &Caller, query: &IoQuery) -> Result<Page<(i64, IoChange)>> {
        self.history_for(caller)?.io_changes(query)
    }

    /// All events that fit as the text of a file, in pieces, until `out` says no.
    ///
    /// # Errors
    /// As [`Service::event_history`].
    pub fn export_events(
        &self,
        caller: &Caller,
        query: &Query,
        format: Format,
        out: &mut dyn FnMut(String) -> bool,
    ) -> Result<()> {
        self.history_for(caller)?.export(query, format, out)
    }

    /// How the database does; `None` without one.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn history_stats(&self, caller: &Caller) -> Result<Option<Stats>> {
        caller.needs(Caller::USER)?;
        Ok(self.inner.history.get().map(History::stats))
    }

    fn history_for(&self, caller: &Caller) -> Result<&History> {
        caller.needs(Caller::USER)?;
        self.inner
            .history
            .get()
            .ok_or_else(|| Error::Refused("there is no event history: history.enabled is off".into()))
    }
}
