//! The daemon and the machine as a whole.

use super::render::context;
use multus_ipc::words::EventKind;

use super::look::Mark;
use super::{Answer, View, look, status_of};
use crate::service::{Caller, Error, EventQuery};

impl View<'_> {
    /// What runs here; a form reads the configuration again or starts the machine anew.
    pub(super) fn system(&self) -> Answer {
        if !self.visit.request.method.changes() {
            return self.system_page(200, None);
        }
        match self.system_form() {
            // What did not work is said where it was asked for.
            Err(error) if self.caller().needs(Caller::ADMIN).is_ok() => {
                self.system_page(status_of(&error), Some(error.to_string()))
            }
            done => done,
        }
    }

    fn system_page(&self, status: u16, error: Option<String>) -> Answer {
        let information = self.service().information(self.caller())?;
        let daemon = information.daemon.as_ref();
        let lateness = daemon.map(|daemon| {
            let spread = daemon.watch_loop.lateness_us;
            context! { p50 => spread.p50.map(look::time_us), p99 => spread.p99.map(look::time_us), max => look::time_us(spread.max) }
        });
        let reset = daemon.and_then(|daemon| daemon.last_reset.as_ref()).map(|last| match last.is_ordinary() {
            true => mark("circle", "ok", &last.cause),
            false => mark("diamond", "warn", &last.cause),
        });
        let dogs: Vec<Mark> =
            daemon.iter().flat_map(|daemon| &daemon.watchdogs).map(|dog| watchdog(&dog.state)).collect();
        let history = match self.service().history_stats(self.caller()) {
            Ok(stats) => stats,
            Err(error) => {
                log::debug!("statistics of the event history: {error}");
                None
            }
        };
        // Only administrators may, and only they see the button.
        let targets = self.service().notify_targets(self.caller()).unwrap_or_default();
        let context = context! {
            error, information, lateness, reset, dogs, history, uptime => daemon.map(|daemon| look::uptime(daemon.uptime_s)),
            children => self.service().children(self.caller(), None).map_or(0, |all| all.len()),
            may => self.may(Caller::ADMIN), reboot => self.reboot_ahead(), targets, target => self.field("target"),
        };
        Ok(self.page_with(status, "system.html", "System", context))
    }

    fn system_form(&self) -> Answer {
        match self.field("action") {
            "reload" => {
                let report = self.service().reload(self.caller())?;
                if report.broken.is_empty() && report.diagnostics.is_empty() {
                    let number = report.added.len() + report.changed.len() + report.removed.len();
                    let what = match number {
                        0 => "nothing had changed".to_owned(),
                        n => format!("{} added, changed or removed", look::count(n, "child was", "children were")),
                    };
                    return Ok(self.done("/system", &format!("The configuration was read again: {what}.")));
                }
                Ok(self.page("problem.html", "Configuration read again", context! { status => 200, report }))
            }
            "reboot" => {
                let seconds = self.field("seconds").trim().parse();
                let seconds = seconds.map_err(|_| Error::field("seconds", "expected a number of seconds"))?;
                self.service().reboot(self.caller(), seconds)?;
                let when = if seconds == 0 {
                    "now".to_owned()
                } else {
                    format!("in {}", look::rough(std::time::Duration::from_secs(seconds)))
                };
                Ok(self.done("/system", &format!("The machine is started anew {when}.")))
            }
            "notify-test" => {
                let target = self.field("target");
                let answer = self.service().notify_test(self.caller(), target)?;
                Ok(self.done("/system", &format!("{target}: {answer}")))
            }
            "cancel-reboot" => {
                self.service().cancel_reboot(self.caller())?;
                Ok(self.done("/system", "The machine is not started anew."))
            }
            other => Err(Error::field("action", format!("unknown: {other:?}"))),
        }
    }

    /// The event that says that the machine is going to be started anew, if that still holds.
    fn reboot_ahead(&self) -> Option<super::events::Row> {
        let query = EventQuery { since: None, child: None, limit: 1000 };
        let events = self.service().events(self.caller(), &query).ok()?;
        let last = events.iter().rev().find_map(|event| match event.event_kind()? {
            EventKind::RebootScheduled => Some(Some(event)),
            EventKind::RebootCancelled | EventKind::DaemonStarted => Some(None),
            _ => None,
        });
        last.flatten().map(|event| super::events::row(event))
    }
}

fn watchdog(state: &str) -> Mark {
    match state {
        "petted" => mark("circle", "ok", state),
        "waiting" => mark("half", "warn", state),
        "withheld" | "missing" => mark("triangle", "bad", state),
        _ => mark("ring", "idle", state),
    }
}

fn mark(shape: &'static str, tone: &'static str, word: &str) -> Mark {
    Mark { shape, tone, word: word.to_owned(), more: String::new() }
}
