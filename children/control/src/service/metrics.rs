//! Everything that can be counted and measured, as text.

use std::sync::{Arc, MutexGuard, PoisonError};

use multus_contract::api::command::Request;
use multus_contract::api::intervals::Intervals;

use crate::metrics::{Counted, Format, Inputs, render, resident_bytes};
use crate::mqtt::Counters;
use crate::outward::Traffic;

use super::{Caller, Result, Service};

impl Service {
    /// The text for somebody who accepts this (the `Accept` of HTTP), and its content type. Works without the daemon, too.
    ///
    /// # Errors
    /// [`super::Error::Forbidden`].
    pub fn metrics(&self, caller: &Caller, accept: Option<&str>) -> Result<(&'static str, String)> {
        caller.needs(Caller::USER)?;
        let format = Format::of_accept(accept);
        let snapshot = self.inner.snapshot().ok();
        // An older daemon does not know the question.
        let intervals: Vec<Intervals> = match &snapshot {
            Some(_) => self.inner.daemon.ask(&Request::Intervals { name: None }).unwrap_or_default(),
            None => Vec::new(),
        };
        let io = self.inner.io_status().ok().filter(|io| !io.lines.is_empty());
        let counted = self.counted().clone();
        let inputs = Inputs {
            status: snapshot.as_ref().map(|snapshot| &snapshot.status),
            io: io.as_ref(),
            intervals: &intervals,
            counted: Some(&counted),
            history: self.history_stats(&Caller::own())?,
            mqtt: self.mqtt_traffic(),
            notifications: self.notify_traffic(),
            resident_bytes: resident_bytes(),
        };
        Ok((format.content_type(), render(&inputs, format)))
    }

    /// Gives the service what MQTT counts, once.
    pub(crate) fn set_mqtt(&self, counters: Arc<Counters>) {
        // A second one would be a mistake of this program; the first stays.
        let _ = self.inner.mqtt.set(counters);
    }

    /// What MQTT counts; `None` when it is off.
    pub(crate) fn mqtt_traffic(&self) -> Option<Traffic> {
        self.inner.mqtt.get().map(|counters| counters.traffic())
    }

    /// What the events tell.
    pub(crate) fn counted(&self) -> MutexGuard<'_, Counted> {
        self.inner.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
